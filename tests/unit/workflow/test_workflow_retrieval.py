from __future__ import annotations

import io
import json
from pathlib import Path

import micro_catalogue
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from polymodal import cli
from polymodal.embed import Embedder
from polymodal.tasks import blend
from polymodal.tasks.lexical import text_of
from polymodal.tasks.tune_matcher import TuneConfig
from polymodal.types import BadInput
from polymodal.workflow import matcher_tuning, retrieval, searches
from polymodal.workflow.listing import train_or_resume
from polymodal.workflow.matcher_tuning import tune_data
from polymodal.workflow.opened import open_task
from polymodal.workflow.pairs import open_log, text_modality
from polymodal.workflow.retrieval import RetrieveSettings, retrieve_data
from polymodal.workflow.sides import side_of_rows
from polymodal.workflow.training import open_rows

CROSS = RetrieveSettings(queries=("title",), corpus=("facts",), split="train", ks=(1, 5), resamples=20)


@pytest.fixture(scope="module")
def matching(micro_shop, tmp_path_factory) -> tuple[Path, Path]:
    """An InterBERT of a few steps over the catalogue of the micro shop."""
    run = tmp_path_factory.mktemp("matching") / "run"
    train_or_resume("interbert", micro_shop[1], run, None, "tiny",
                    ["train.steps=10", *micro_catalogue.MICRO, "model.match=12"], ())  # fmt: skip
    return run, micro_shop[1]


def write_log(path: Path, rows: list[tuple[str | None, str | None]], names: tuple[str, str] = ("query", "id")) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), path)
    return path


NAMES = {
    "mrr": "recip_rank",
    "precision@5": "P_5",
    "recall@5": "recall_5",
    "ndcg@5": "ndcg_cut_5",
    "hit@1": "success_1",
}
ASKED = {"recip_rank", "P.5", "recall.5", "ndcg_cut.5", "success.1"}


@pytest.fixture
def learning(monkeypatch):
    """The micro shop has fewer queries than one should learn from."""
    monkeypatch.setattr(blend, "LEAST", 2)
    return {"split": "train", "learn_split": "test"}


def test_the_written_runs_and_qrels_give_the_same_figures(matching, tmp_path, learning):
    """trec_eval on the files of every search and every judgement, against the result."""
    settings = RetrieveSettings(**{**vars(CROSS), **learning, "rerank": 4, "every_pair": True})
    result = retrieve_data(*matching, settings, out=tmp_path / "o")
    assert [one.name for one in result.findings] == ["item", "fine", "coarse"]
    written = json.loads((tmp_path / "o" / "retrieval.json").read_text())
    assert written == json.loads(json.dumps(result.to_json()))
    for finding in result.findings:
        qrels = pytrec_eval.parse_qrel(io.StringIO((tmp_path / "o" / f"{finding.name}.qrels").read_text()))
        assert set(finding.systems) == set(retrieval.FILES)
        for system, tag in retrieval.FILES.items():
            text = (tmp_path / "o" / f"{finding.name}.{tag}.run").read_text()
            judged = pytrec_eval.RelevanceEvaluator(qrels, ASKED).evaluate(pytrec_eval.parse_run(io.StringIO(text)))
            found = finding.systems[system]
            assert found.metrics["mrr"].n == len(qrels)
            for ours, theirs in NAMES.items():
                # a query of which BM25 lists nothing is not in its run, and found nothing
                mean = sum(one[theirs] for one in judged.values()) / len(qrels)
                assert found.metrics[ours].mean == pytest.approx(mean, abs=1e-6), (finding.name, system, ours)


def test_each_side_is_made_of_its_modalities_alone(matching):
    opened = open_task(*matching)
    rows = np.arange(len(opened.rows))
    side = side_of_rows(opened, rows, ("title",), "queries")
    whole = open_rows(matching[1])
    have = [
        i for i, there in zip(whole.index["id"].to_pylist(), whole.index["has_title"].to_pylist(), strict=True) if there
    ]
    assert list(side.ids) == have
    embedder = Embedder.load(matching[0])
    records = [r for block in range(len(whole.blocks)) for r in whole.block(block)]
    wanted = embedder.vectors(records, ["item"], only=["title"])["item"]
    np.testing.assert_allclose(side.vectors.vectors, wanted.vectors, atol=1e-6)
    again = side.fetch([0, 3])
    assert [(r.id, set(r.values), dict(r.labels)) for r in again] == [
        (have[0], {"title"}, {}),
        (have[3], {"title"}, {}),
    ]
    assert side.texts == [text_of(r) for r in side.fetch(range(len(have)))]


def test_a_query_is_its_own_answer_only_where_the_item_is_looked_for(matching):
    result = retrieve_data(*matching, CROSS, out=None)
    item, fine, coarse = result.findings
    opened = open_task(*matching)
    assert item.systems["vectors"].metrics["recall@5"].n < result.queries[0]  # some titles have no facts
    asked = item.systems["vectors"].query_ids
    work = retrieve_data(*matching, RetrieveSettings(split="train", resamples=0, ks=(1,)))
    assert [one.name for one in work.findings] == ["fine", "coarse"]
    assert len(asked) == len(
        side_of_rows(opened, np.flatnonzero(np.asarray(opened.rows.index["split"]) == "train"), ("title",), "q").ids
    )
    assert "scale_definition" in coarse.to_json()["systems"]["vectors"]
    assert "scale_definition" not in item.to_json()["systems"]["vectors"]
    assert fine.systems["vectors"].unjudged > 0


def test_ranking_the_whole_list_again_is_scoring_every_pair(matching):
    settings = RetrieveSettings(**{**vars(CROSS), "rerank": 1000, "every_pair": True, "relevance": ("item",)})
    result = retrieve_data(*matching, settings)
    found = result.findings[0].systems
    assert found["vectors, then matching"].metrics == found["matching, every pair"].metrics
    queries, items = result.queries[0], result.corpus[0]
    assert result.costs["matching, every pair"].pairs == queries * items
    assert result.costs["matching, every pair"].encodings == queries + items
    assert result.costs["vectors"].pairs == 0
    assert result.costs["vectors"].encodings == queries + items


def test_both_stages_are_fused_at_the_cost_of_both(matching):
    settings = RetrieveSettings(**{**vars(CROSS), "rerank": 5, "relevance": ("item",)})
    result = retrieve_data(*matching, settings)
    found, costs = result.findings[0].systems, result.costs
    assert list(found)[-2:] == ["both stages (RRF)", "all three (RRF)"]
    assert costs["both stages (RRF)"].pairs == costs["vectors, then matching"].pairs > 0
    assert ("all three (RRF)", "BM25 + vectors (RRF)") in result.findings[0].differences
    # what both rank first stays first
    first = [found[name].per_query["map@1"] for name in ("vectors", "vectors, then matching", "both stages (RRF)")]
    both = (first[0] == 1) & (first[1] == 1)
    assert both.any()
    assert (first[2][both] == 1).all()


def test_learnt_blends_know_nothing_of_what_they_are_measured_on(matching, learning):
    settings = RetrieveSettings(**{**vars(CROSS), **learning, "rerank": 5, "relevance": ("item",)})
    result = retrieve_data(*matching, settings)
    found, costs = result.findings[0].systems, result.costs
    assert list(found)[-3:] == list(searches.LEARNT)
    work, (item,) = retrieval._searches(
        open_task(*matching), RetrieveSettings(**{**vars(settings), "split": "test"}), None
    )
    theirs = searches.learn_blends(work.lists(item.relevance.own), item.relevance, 10)
    assert {n: b.to_json() for n, b in theirs.items()} == result.to_json()["learnt"]["item"]
    both, stages, three = searches.LEARNT
    assert {(both, "BM25 + vectors (RRF)"), (three, both)} <= set(result.findings[0].differences)
    assert costs[both].pairs == 0 < costs[stages].pairs == costs[three].pairs == costs["vectors, then matching"].pairs
    assert costs[both].encodings == costs["vectors"].encodings
    assert costs[three].encodings == costs["vectors, then matching"].encodings


def test_a_blend_is_learnt_for_each_judgement_from_a_log_too(matching, tmp_path, learning):
    result = retrieve_data(*matching, RetrieveSettings(**{**vars(CROSS), **learning}))
    assert set(result.learnt) == {"item", "fine", "coarse"}
    assert set(result.learnt["coarse"]) == {"BM25 + vectors (learnt)"}
    weights = [blends["BM25 + vectors (learnt)"].weights.tolist() for blends in result.learnt.values()]
    assert weights[0] != weights[2]


def test_learning_from_what_is_measured_or_from_too_little_is_refused(matching):
    with pytest.raises(BadInput, match="another split"):
        retrieve_data(*matching, RetrieveSettings(**{**vars(CROSS), "learn_split": "train"}))
    with pytest.raises(BadInput, match=r"--learn-split.*at least 20.*Another split"):
        retrieve_data(*matching, RetrieveSettings(**{**vars(CROSS), "learn_split": "test"}))
    with pytest.raises(BadInput, match="Did you mean 'test'"):
        retrieve_data(*matching, RetrieveSettings(**{**vars(CROSS), "learn_split": "tset"}))


def test_qrels_and_what_they_lack(matching, tmp_path):
    whole = open_rows(matching[1]).index
    train = [i for i, s in zip(whole["id"].to_pylist(), whole["split"].to_pylist(), strict=True) if s == "train"]
    test = [i for i, s in zip(whole["id"].to_pylist(), whole["split"].to_pylist(), strict=True) if s == "test"]
    path = tmp_path / "some.qrels"
    path.write_text(f"{train[0]} 0 {train[1]} 2\n{train[0]} 0 {test[0]} 1\n{train[0]} 0 {train[0]} 1\n")
    result = retrieve_data(*matching, RetrieveSettings(split="train", qrels=path, resamples=0))
    assert [one.name for one in result.findings] == ["qrels"]
    assert result.findings[0].systems["vectors"].metrics["mrr"].n == 1
    assert any("1 right answers are not in the corpus" in note for note in result.notes)
    path.write_text(f"{train[0]} 0 {train[1]}x 1\n")
    with pytest.raises(BadInput, match=rf"Did you mean '{train[1]}'"):
        retrieve_data(*matching, RetrieveSettings(split="train", qrels=path))


def test_a_query_log_asks_for_its_items(matching, tmp_path):
    path = write_log(tmp_path / "log.parquet", [("red shoe", "i002"), ("blue lamp", "i003"), ("red shoe", "i004")])
    result = retrieve_data(*matching, RetrieveSettings(split="train", pairs=path, corpus=("facts",), resamples=0))
    assert result.queries == (2, "a query log")
    assert result.findings[0].name == "pairs"
    assert result.findings[0].systems["BM25"].metrics["mrr"].n >= 1


def test_what_a_log_may_say(matching, tmp_path):
    rows = open_rows(matching[1])
    log = open_log(
        write_log(
            tmp_path / "a.parquet", [(" red ", "i000"), ("red", "i002"), ("lamp", "i001"), ("", "i003"), ("x", None)]
        ),
        rows,
    )
    assert dict(log.texts) == {"q000000": "red", "q000001": "lamp"}
    assert log.right["q000000"] == ("i000", "i002")
    assert log.empty == 2
    # i000 and i001 are of the test split, i002 is not: "red" is of neither
    assert log.of_split("test") == ("q000001",)
    assert log.of_split("train") == ()
    csv = tmp_path / "b.csv"
    csv.write_text("words,product\nred,g001\n")
    grouped = open_log(csv, rows, ("words", "product"))
    assert grouped.grouped
    assert grouped.right["q000000"] == ("i002", "i003")
    # a split that cuts a group: what is said of one member would tell of the other
    table = pq.read_table(matching[1] / "items.parquet").to_pylist()
    table[1]["split"] = "train"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "items.parquet")
    (tmp_path / "catalogue.toml").write_text((matching[1] / "catalogue.toml").read_text())
    cut = open_log(
        write_log(tmp_path / "d.parquet", [("a", "i001"), ("b", "i002")]), open_rows(tmp_path / "catalogue.toml")
    )
    assert (cut.of_split("train"), cut.of_split("test")) == (("q000001",), ())
    for bad, said in (
        ([("red", "i00")], "Did you mean"),
        ([("red", "i000"), ("red", "g001")], "not both"),
        ([("", "i000")], "at least one line"),
    ):
        with pytest.raises(BadInput, match=said):
            open_log(write_log(tmp_path / "c.parquet", bad), rows)
    with pytest.raises(BadInput, match=r"column 'query'.*Say --columns"):
        open_log(csv, rows)
    with pytest.raises(BadInput, match="no file"):
        open_log(tmp_path / "none.csv", rows)
    with pytest.raises(BadInput, match="--as"):
        text_modality({"title": "text", "review": "text"}, None)
    assert text_modality({"title": "text", "review": "text"}, "review") == "review"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queries": ("titel",)}, "Did you mean 'title'"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"label": "color"}, "Did you mean 'colour'"),
        ({"relevance": ("nice",)}, "item, fine, coarse"),
        ({"relevance": ("item",)}, "different modalities"),
        ({"ks": (0, 5)}, "--k"),
        ({"depth": 0}, "--depth"),
        ({"rerank": 5}, "matching head"),
        ({"matcher": Path("x")}, "--rerank"),
        ({"qrels": Path("nothing.qrels")}, "nothing.qrels"),
        ({"qrels": Path("a"), "pairs": Path("b")}, "one of them"),
        ({"pairs": Path("b"), "queries": ("title",)}, "--pairs"),
    ],
)
def test_wrong_input_says_what_would_be_right(micro_shop, change, said):
    with pytest.raises(BadInput, match=said):
        retrieve_data(*micro_shop, RetrieveSettings(**{"split": "train", **change}))


def test_a_label_of_which_each_value_has_one_member(tmp_path, micro_shop):
    folder = micro_catalogue.write(tmp_path / "catalogue")
    table = pq.read_table(folder / "items.parquet")
    table = table.append_column("serial", pa.array([f"s{n}" for n in range(len(table))]))
    pq.write_table(table, folder / "items.parquet")
    config = (folder / "catalogue.toml").read_text().replace('"shape"]', '"shape", "serial"]')
    (folder / "catalogue.toml").write_text(config)
    with pytest.raises(BadInput, match="the same serial"):
        retrieve_data(micro_shop[0], folder, RetrieveSettings(split="train", label="serial"))


def test_the_folder_is_written_whole_or_not_at_all(matching, tmp_path, monkeypatch):
    out = tmp_path / "o"
    retrieve_data(*matching, CROSS, out=out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def broken(*_args):
        raise BadInput("id", "no spaces", "a b")

    monkeypatch.setattr(retrieval, "write_run", broken)
    with pytest.raises(BadInput, match="no spaces"):
        retrieve_data(*matching, CROSS, out=out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["o"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="--out"):
        retrieve_data(*matching, CROSS, out=tmp_path / "mine")


def test_tuning_sees_nothing_of_other_splits(matching, tmp_path, monkeypatch):
    whole = open_rows(matching[1]).index
    splits = dict(zip(whole["id"].to_pylist(), whole["split"].to_pylist(), strict=True))
    groups = dict(zip(whole["id"].to_pylist(), whole["group"].to_pylist(), strict=True))
    log = write_log(tmp_path / "log.parquet", [(f"words {i}", i) for i in splits] + [("words i000", "i002")])
    seen = {}

    def watch(embedder, queries, items, pairs, wrong, config, progress):
        seen.update(queries=queries, items=items, pairs=pairs, wrong=wrong)
        return [0.5]

    monkeypatch.setattr(matcher_tuning, "tune_matcher", watch)
    result = tune_data(*matching, log, tmp_path / "tuned", corpus=("facts",))
    assert result.left_out == sum(split != "train" for split in splits.values())
    assert {splits[r.id] for r in seen["items"]} == {"train"}
    assert all(set(r.values) == {"facts"} for r in seen["items"])
    for query, item in seen["pairs"].tolist():
        assert seen["queries"][query].values["title"] == f"words {seen['items'][item].id}"
        # the other member of the group is neither right nor wrong
        mates = {n for n, r in enumerate(seen["items"]) if groups[r.id] == groups[seen["items"][item].id]}
        assert seen["wrong"].right[query] >= mates
        assert not mates & set(seen["wrong"].items[query].tolist())


def test_a_tuned_model_ranks_again(matching, tmp_path):
    titles = [("red shoe", "i004"), ("blue lamp", "i002"), ("green vase", "i005")]
    log = write_log(tmp_path / "log.parquet", titles)
    config = TuneConfig(epochs=2, batch_size=2, pool=3)
    made = tune_data(*matching, log, tmp_path / "tuned", config, corpus=("facts",))
    assert json.loads((tmp_path / "tuned" / "tuning.json").read_text())["losses"] == list(made.losses)
    settings = RetrieveSettings(**{**vars(CROSS), "rerank": 5, "relevance": ("item",)})
    old = retrieve_data(*matching, settings).findings[0].systems
    new = (
        retrieve_data(*matching, RetrieveSettings(**{**vars(settings), "matcher": tmp_path / "tuned"}))
        .findings[0]
        .systems
    )
    assert old["vectors"].metrics == new["vectors"].metrics
    assert Embedder.load(tmp_path / "tuned").model != Embedder.load(matching[0]).model
    with pytest.raises(BadInput, match="new or empty"):
        tune_data(*matching, log, tmp_path / "tuned", config)
    with pytest.raises(BadInput, match="split 'test'"):
        tune_data(*matching, log, tmp_path / "other", config, split="test")
    assert not (tmp_path / "other").exists()


def test_the_commands_print_tables_that_fit(matching, tmp_path, capsys, learning):
    run, data = map(str, matching)
    log = tmp_path / "log.csv"
    log.write_text("words,item\nred shoe,i004\nblue lamp,i002\ngreen vase,i005\n")
    tuned = str(tmp_path / "tuned")
    told = ["--pairs", str(log), "--columns", "words,item", "--corpus", "facts"]
    assert cli.main(["tune-matcher", run, data, *told, "--out", tuned, "--set", "epochs=1", "pool=2"]) == 0
    said = capsys.readouterr().out
    assert "2 right pairs of 2 queries" in said  # i004 has no facts
    assert "1 whose items cannot be read" in said
    asked = ["--queries", "title", "--corpus", "facts", "--split", "train", "--rerank", "3", "--matcher", tuned]
    assert cli.main(["retrieve", run, data, *asked, "-k", "1", "10", "--every-pair", "--resamples", "20",
                     "--learn-split", "test"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert all(len(line) <= 120 for line in said.splitlines())
    assert "…" not in said
    for part in (
        "mAP@10",
        "nDCG@10",
        "SCALE's mAP@10",
        "matching, every pair",
        "pair passes",
        "a random order",
        "all three (learnt)",
        "looked at",
    ):
        assert part in said
    assert cli.main(["retrieve", run, data, "--split", "train", "--json", "--relevance", "coarse"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["systems"]["BM25"]["scale_definition"]["map@10"]["n"] == 36
    assert cli.main(["retrieve", run, data, "--pairs", str(log), "--columns", "words"]) == 2
    assert "QUERY,ID" in capsys.readouterr().err
    assert cli.main(["tune-matcher", run, data, *told, "--out", str(tmp_path / "x"), "--set", "epoch=1"]) == 2
    assert "epochs" in capsys.readouterr().err
