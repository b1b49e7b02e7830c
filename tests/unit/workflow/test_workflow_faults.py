"""Duplicates, wrong cells and missing attributes of a catalogue on disk, as the commands find them."""

from __future__ import annotations

import json

import micro_catalogue
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from polymodal.cli import main
from polymodal.complete import Completer
from polymodal.types import BadInput, Record
from polymodal.workflow._attribute import find_attribute, hide, shares_of
from polymodal.workflow.completion import CompleteSettings, complete_attribute
from polymodal.workflow.dedup import DedupSettings, dedup
from polymodal.workflow.items import read_items
from polymodal.workflow.mismatch import MismatchSettings, mismatch
from polymodal.workflow.opened import open_task
from polymodal.workflow.word_completion import WordsSettings, complete_words

QUICK = {"resamples": 20}


@pytest.fixture(scope="module")
def larger(tmp_path_factory, micro_shop):
    """The run of the small shop, and more items of the same kind: two of them twice, one with another's title."""
    data = micro_catalogue.write(tmp_path_factory.mktemp("larger") / "catalogue", 240)
    rows = pq.read_table(data / "items.parquet").to_pylist()
    for copy, of in (("copy1", 2), ("copy2", 6)):
        rows.append({**rows[of], "id": copy, "group": copy})
    for at in range(0, 200, 5):  # a tenth and more lack the colour, not the whole cell
        if rows[at]["facts"]:
            facts = json.loads(rows[at]["facts"])
            del facts["colour"]
            rows[at]["facts"] = json.dumps(facts)
    pq.write_table(pa.Table.from_pylist(rows), data / "items.parquet")
    truth = [
        {"id": "copy1", "duplicate_of": "i002", "swapped_with": ""},
        {"id": "copy2", "duplicate_of": "i006", "swapped_with": "i001"},
    ]
    pq.write_table(pa.Table.from_pylist(truth), data / "truth.parquet")
    return micro_shop[0], data


@pytest.fixture(scope="module")
def coloured(larger):
    opened = open_task(*larger)
    items = read_items(opened)
    return opened, items, find_attribute(opened, items, "colour")


def test_exact_copies_are_found_and_named(larger, tmp_path):
    out = tmp_path / "found.csv"
    result = dedup(*larger, DedupSettings(min_similarity=0.9999, truth=larger[1] / "truth.parquet", **QUICK), out=out)
    table = pc.read_csv(out).to_pylist()
    of = {row["id"]: row for row in table}
    assert of["copy2"]["kind"] == "identical"
    assert "identical" in of["copy2"]["reason"]
    assert of["copy2"]["group"] == of["i006"]["group"]
    assert result.known is not None
    assert result.known.recall.mean == 1.0
    assert len(table) == len(result.rows)
    assert not list(tmp_path.glob(".*"))


def test_planted_copies_are_looked_for_under_a_derived_threshold(larger):
    result = dedup(*larger, DedupSettings(plant=20, neighbours=5, **QUICK))
    assert result.derived
    assert -1 <= result.threshold <= 1
    assert result.planted is not None
    assert result.planted.known == 20
    names = [one.name for one in result.planted.rankings]
    assert names[0] == "model"
    assert {"TF-IDF of texts", "equal texts", "random order"} <= set(names)
    assert json.loads(json.dumps(result.to_json()))["planted"]["known"] == 20
    again = dedup(*larger, DedupSettings(plant=20, neighbours=5, **QUICK))
    assert again.to_json() == result.to_json()


def test_wrong_cells_are_ranked_with_reasons(larger, tmp_path):
    out = tmp_path / "wrong.parquet"
    settings = MismatchSettings(modality="title", plant=6, truth=larger[1] / "truth.parquet", most=7, **QUICK)
    result = mismatch(*larger, settings, out=out)
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 7 == len(result.rows)
    assert [row["rank"] for row in rows] == list(range(1, 8))
    assert sorted((row["odds"] for row in rows), reverse=True) == [row["odds"] for row in rows]
    assert all("fit its facts better" in row["reason"] for row in rows)
    items = pq.read_table(larger[1] / "items.parquet").to_pylist()
    both = sum(row["title"] is not None and row["facts"] is not None for row in items)
    assert result.judged == both
    assert result.to_json()["not_judged"] == result.items - both
    assert result.known is not None
    assert result.known.wrong == 1
    (planted,) = result.planted
    assert planted.wrong == 30
    assert [one.name for one in planted.rankings] == ["calibrated", "mean cosine", "random order"]


def test_hidden_cells_are_completed_and_measured(larger, tmp_path):
    out = tmp_path / "review.csv"
    result = complete_attribute(*larger, CompleteSettings("colour", 0.3, max_items=60, **QUICK), out=out)
    rows = pc.read_csv(out).to_pylist()
    assert len(rows) == len(result.rows) > 0
    ids = {row["id"]: row for row in pq.read_table(larger[1] / "items.parquet").to_pylist()}
    for row in rows:
        facts = ids[row["id"]]["facts"]
        assert facts is None or "colour" not in json.loads(facts)
        assert row["proposal"] in micro_catalogue.COLOURS
        assert row["confidence"] >= 0.3
        assert row["runner_up"] != row["proposal"]
        assert row["evidence"]
    assert set(result.judged) == {"attribute", "cell"}
    for ways in result.judged.values():
        assert {"head", "neighbours", "both", "most frequent"} == {one.name for one in ways}
        assert ways[0].name == result.by
    assert result.missing == sum(r["facts"] is None or "colour" not in json.loads(r["facts"]) for r in ids.values())


def test_numbers_come_with_an_interval(larger):
    result = complete_attribute(*larger, CompleteSettings("facts.price", 0.7, max_items=60, **QUICK))
    assert result.numeric
    assert {one.name for one in result.measured["cell"]} == {"head", "neighbours", "median"}
    assert all(row["low"] <= row["proposal"] <= row["high"] for row in result.rows)
    assert result.measured["cell"][0].covered is not None


def test_missing_texts_get_words(larger, tmp_path):
    out = tmp_path / "words.csv"
    result = complete_words(*larger, WordsSettings("title", words=2, **QUICK), out=out)
    items = {row["id"]: row for row in pq.read_table(larger[1] / "items.parquet").to_pylist()}
    rows = pc.read_csv(out).to_pylist()
    assert {row["id"] for row in rows} == {i for i, r in items.items() if r["title"] is None and r["facts"] is not None}
    known = {*micro_catalogue.COLOURS, *micro_catalogue.SHAPES}
    for row in rows:
        assert set(row["words"].split()) <= known
        assert items[row["nearest"].split(", ")[0]]["title"] == row["nearest_text"]
    assert {one.name for one in result.judged} == {"neighbours", "head", "most frequent"}
    assert result.judged[0].name == result.by


def test_a_model_folder_completes_by_neighbours_and_says_why(larger):
    run, data = larger
    result = complete_attribute(run / "model", data, CompleteSettings("colour", 0.5, max_items=30, **QUICK))
    assert result.by == "neighbours"
    assert "no head" in result.note
    with pytest.raises(BadInput, match="--by neighbours"):
        complete_attribute(run / "model", data, CompleteSettings("colour", 0.5, by="head", **QUICK))


def test_what_is_hidden_is_out_of_the_record(coloured):
    _, _, attribute = coloured
    record = Record("q", {"facts": (("colour", "red"), ("shape", "lamp")), "title": "red lamp"})
    assert hide(record, attribute, "attribute").values == {"facts": (("shape", "lamp"),), "title": "red lamp"}
    assert hide(record, attribute, "cell").values == {"title": "red lamp"}
    assert hide(Record("q", {"facts": (("colour", "red"),)}), attribute, "attribute").values == {}


def test_calibration_and_measurement_share_no_group_and_no_trained_row(coloured):
    opened, items, attribute = coloured
    shares = shares_of(items, attribute, opened.embedder.recipe.split, 500)
    parts = [set(shares.known), set(shares.calibrate), set(shares.measure)]
    assert not parts[0] & (parts[1] | parts[2])
    assert not parts[1] & parts[2]
    assert all(items.splits[i] != opened.embedder.recipe.split for i in parts[1] | parts[2]) or shares.trained
    groups = [{items.groups[i] for i in part} for part in parts[1:]]
    assert not groups[0] & groups[1]


def test_the_head_weighs_as_it_guesses(larger):
    completer = Completer.load(larger[0])
    records = [
        Record("a", {"title": "red shoe"}),
        Record("b", {"facts": (("colour", "red"), ("shape", "vase"))}),
        Record("c", {"facts": (("colour", "red"),)}),
    ]
    weighed = completer.weigh(records, "facts.colour", list(micro_catalogue.COLOURS))
    assert weighed.shape == (3, 4)
    assert np.isnan(weighed[2]).all(), "the answer was read from the question"
    for at in (0, 1):
        guess = completer.complete(records[at], ["facts.colour"])["facts.colour"]
        # one of the values that there are; weighed against every piece, each is at most as likely
        assert guess.value == micro_catalogue.COLOURS[int(weighed[at].argmax())]
        assert (weighed[at] <= guess.score + 1e-4).all()
    alone = completer.weigh(records[:1], "facts.colour", list(micro_catalogue.COLOURS))
    assert np.allclose(alone[0], weighed[0], atol=1e-4), "a row leans on the others of its batch"
    numbers = completer.guesses(records, "facts.price")
    assert isinstance(numbers[0].value, float)
    assert completer.guesses([Record("d", {"facts": (("price", 3.0),)})], "facts.price") == [None]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["dedup", "--out", "found.xlsx"], ".csv or .parquet"),
        (["dedup", "--min-similarity", "3"], "-1 to 1"),
        (["dedup", "--plant", "100000"], "--plant"),
        (["dedup", "--truth", "nowhere.csv"], "no file"),
        (["dedup", "--split", "tset"], "test"),
        (["mismatch", "--modality", "titel"], "title"),
        (["mismatch", "--plant", "5000", "--modality", "title"], "--plant"),
        (["mismatch", "-k", "0"], "at least 1"),
        (["complete", "--attribute", "color"], "colour"),
        (["complete"], "neither"),
        (["complete", "--modality", "facts"], "--attribute"),
        (["complete", "--modality", "tilte"], "title"),
        (["complete", "--attribute", "colour", "--min-confidence", "1.5"], "--min-confidence"),
    ],
)
def test_bad_input_is_explained_and_nothing_is_written(larger, tmp_path, monkeypatch, capsys, command, said):
    monkeypatch.chdir(tmp_path)
    name, *rest = command
    out = [] if "--out" in rest else ["--out", "found.csv"]
    assert main([name, *map(str, larger), *rest, *out]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_an_attribute_with_one_value_is_refused(larger, tmp_path):
    run, data = larger
    rows = pq.read_table(data / "items.parquet").to_pylist()
    for row in rows:
        if row["facts"]:
            row["facts"] = json.dumps({**json.loads(row["facts"]), "colour": "red"})
    copy = tmp_path / "catalogue"
    copy.mkdir()
    (copy / "catalogue.toml").write_text((data / "catalogue.toml").read_text())
    pq.write_table(pa.Table.from_pylist(rows), copy / "items.parquet")
    with pytest.raises(BadInput, match="two values"):
        complete_attribute(run, copy, CompleteSettings("colour"))


def test_commands_print_for_people_and_as_json(larger, capsys):
    paths = list(map(str, larger))
    assert main(["dedup", *paths, "--min-similarity", "0.999"]) == 0
    assert "groups" in capsys.readouterr().out
    assert main(["mismatch", *paths, "-k", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3
    assert main(["complete", *paths, "--attribute", "colour", "--max-items", "30"]) == 0
    assert "most frequent" in capsys.readouterr().out
