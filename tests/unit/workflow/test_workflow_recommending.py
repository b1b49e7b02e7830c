"""Recommending from an index folder, as the commands do: what is written, what is refused, what is measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import micro_catalogue
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polymodal.cli import main
from polymodal.index import open_index
from polymodal.service import Cards
from polymodal.tasks.probability import Isotonic, Platt
from polymodal.tasks.recommend import Wanted
from polymodal.tasks.recommend_eval import Case
from polymodal.types import BadInput, Embeddings, ModelMismatch, Record
from polymodal.workflow import recommend_eval
from polymodal.workflow.calibration import FILE, read_calibration, write_calibration
from polymodal.workflow.indexing import build_index
from polymodal.workflow.recommend_cases import cases_of_file, cases_of_labels
from polymodal.workflow.recommend_eval import evaluate_recommendations
from polymodal.workflow.recommending import read_topics, recommend_history, recommend_topic, recommend_topics
from polymodal.workflow.searching import open_engine
from polymodal.workflow.vectors import embed_data


def indexed(run: Path, data: Path, at: Path) -> Path:
    embed_data(run, data, at / "vectors.parquet")
    build_index(at / "vectors.parquet", data, at / "index")
    return at / "index"


@pytest.fixture(scope="module")
def shop_index(micro_shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return indexed(*micro_shop, tmp_path_factory.mktemp("recommending"))


@pytest.fixture
def own_index(shop_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shop_index, tmp_path / "index"))


def group_of(name: str) -> str:
    return f"g{int(name[1:]) // 2:03d}"


def test_a_history_needs_no_model_and_gives_nothing_of_its_groups(shop_index: Path, monkeypatch) -> None:
    monkeypatch.setattr("polymodal.embed.Embedder.load", lambda *_: pytest.fail("no model is needed"))
    found = recommend_history(shop_index, ["i004", "i010"], Wanted(50))
    names = [item["id"] for item in found.items]
    groups = [group_of(name) for name in names]
    assert not {"g002", "g005"} & set(groups)
    assert len(set(groups)) == len(groups) == 22
    assert [item["group"] for item in found.items] == groups
    assert found.items[0]["title"]
    assert json.dumps(found.to_json())


def test_a_topic_is_embedded_by_the_model_of_the_index(shop_index: Path) -> None:
    engine = open_engine(shop_index)
    topic = Record("t", {"title": "red shoe"})
    found = recommend_topic(engine, shop_index, topic, Wanted(5), ["price=10..40"])
    best = engine.search(topic, 1, {"price": {"min": 10, "max": 40}})[0]
    assert found.items[0]["id"] == best.id
    assert all(10 <= item["attributes"]["price"] <= 40 for item in found.items)
    with pytest.raises(BadInput, match="Nothing of it is known to the model"):
        recommend_topic(engine, shop_index, Record("t", {"title": "пляжная вечеринка"}), Wanted(5))
    # of a mix the other part is known
    recommend_topic(engine, shop_index, Record("t", {"title": "пляж", "facts": (("colour", "red"),)}), Wanted(5))
    with pytest.raises(BadInput, match="Did you mean 'title'"):
        recommend_topic(engine, shop_index, Record("t", {"titel": "red"}), Wanted(5))


def test_a_new_item_without_a_card_is_recommended_at_once(own_index: Path, micro_shop) -> None:
    engine = open_engine(own_index)
    [vector] = engine.embedder.embed([Record("new", {"title": "chair blue blue"})]).vectors
    index = open_index(own_index)
    index.add(Embeddings(("new",), vector[None], index.model), [{"colour": "blue"}])
    index.save(own_index)
    first = recommend_topic(
        open_engine(own_index), own_index, Record("t", {"title": "chair blue blue"}), Wanted(1)
    ).items[0]
    assert (first["id"], first["group"], first["score"]) == ("new", None, pytest.approx(1, abs=1e-5))
    near = recommend_history(own_index, ["new"], Wanted(1)).items[0]["id"]
    assert "new" in [item["id"] for item in recommend_history(own_index, [near], Wanted(5)).items]


# -- many topics ------------------------------------------------------------------------------------------------------


def write_topics(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_topics_of_a_text_file(shop_index: Path, tmp_path: Path) -> None:
    topics = write_topics(tmp_path / "t.txt", "# mine", "red shoe", "", "пляж", "  blue   vase", "red shoe")
    out = tmp_path / "new" / "r.parquet"
    found = recommend_topics(shop_index, out, Wanted(4), topics=topics)
    table = pq.read_table(out)
    assert table["topic"].to_pylist() == ["red shoe"] * 4 + ["blue vase"] * 4
    assert table["rank"].to_pylist() == [1, 2, 3, 4] * 2
    engine = open_engine(shop_index)
    alone = recommend_topic(engine, shop_index, Record("t", {"title": "blue vase"}), Wanted(4))
    assert table["id"].to_pylist()[4:] == [item["id"] for item in alone.items]
    assert (found.topics, found.rows, found.ranked_again) == (2, 8, 0)
    assert "no matching head" in found.why_not
    assert list(found.refused) == ["пляж"]
    facts = json.loads(table.schema.metadata[b"polymodal-recommendations"])
    assert facts["model"] == engine.index.model
    assert json.dumps(found.to_json())


def test_topics_of_a_catalogue_and_of_clusters(shop_index: Path, micro_shop, tmp_path: Path) -> None:
    other = micro_catalogue.write(tmp_path / "topics", 6)
    found = recommend_topics(shop_index, tmp_path / "r.parquet", Wanted(2), topics=other)
    assert found.topics == 6
    found = recommend_topics(shop_index, tmp_path / "c.parquet", Wanted(3), clusters=4)
    assert found.topics == 4
    # a cluster of items without a table is named by its size
    assert sum("=" in name for name in found.first) >= 2
    with pytest.raises(BadInput, match="--clusters"):
        recommend_topics(shop_index, tmp_path / "c.parquet", Wanted(3), clusters=1000)


def test_nothing_is_written_where_something_is_wrong(shop_index: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    topics = write_topics(tmp_path / "t.txt", "red shoe")
    for wrong, said in (
        ({}, "neither"),
        ({"topics": topics, "clusters": 3}, "both"),
        ({"topics": tmp_path / "none.txt"}, "one topic a line"),
        ({"topics": write_topics(tmp_path / "e.txt", "# only remarks", "")}, "at least one topic"),
        ({"topics": write_topics(tmp_path / "r.txt", "пляж", "море")}, "Nothing of it is known"),
        ({"topics": topics, "filters": ["color=red"]}, "Did you mean 'colour'"),
    ):
        with pytest.raises(BadInput, match=said):
            recommend_topics(shop_index, out, Wanted(4), **wrong)
    with pytest.raises(BadInput, match="a file"):
        recommend_topics(shop_index, tmp_path, Wanted(4), topics=topics)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.txt", "r.txt", "t.txt"]


@pytest.fixture(scope="module")
def head_index(micro_shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a model with a matching head."""
    from polymodal.workflow.listing import train_or_resume

    _, data = micro_shop
    at = tmp_path_factory.mktemp("head")
    train_or_resume("interbert", data, at / "run", None, "tiny", ["train.steps=3", *micro_catalogue.MICRO], ())
    return indexed(at / "run", data, at)


def test_the_matching_head_ranks_again_where_there_is_one(head_index: Path, micro_shop, tmp_path: Path) -> None:
    topics = write_topics(tmp_path / "t.txt", "red shoe", "blue vase")
    # the whole catalogue is the pool: the nearest items of a text have nothing but text, and no pair to be judged
    wanted = Wanted(24, pool=24)
    plain = recommend_topics(head_index, tmp_path / "p.parquet", wanted, topics=topics, rerank=False)
    again = recommend_topics(head_index, tmp_path / "a.parquet", wanted, topics=topics)
    assert (plain.ranked_again, plain.why_not) == (0, "not asked for")
    table, before = pq.read_table(tmp_path / "a.parquet"), pq.read_table(tmp_path / "p.parquet")
    assert sorted(table["id"].to_pylist()[:24]) == sorted(before["id"].to_pylist()[:24])
    rows = list(zip(table["by"].to_pylist()[:24], table["score"].to_pylist()[:24], strict=True))
    judged = [score for by, score in rows if by == "match"]
    assert judged == sorted(judged, reverse=True)
    assert [by for by, _ in rows] == ["match"] * len(judged) + ["vectors"] * (24 - len(judged))
    assert 0 < len(judged) < 24
    assert again.ranked_again > len(judged)
    # against the Matcher itself
    from polymodal.match import Matcher
    from polymodal.workflow.indexing import data_of_index, model_of_index
    from polymodal.workflow.recommending import records_of_ids

    best = table["id"].to_pylist()[0]
    item = records_of_ids(data_of_index(head_index), {best})[best]
    [[score]] = Matcher.load(model_of_index(head_index)).match([Record("q", {"title": "red shoe"})], [item])
    assert table["score"].to_pylist()[0] == pytest.approx(float(score), abs=1e-5)
    shutil.copytree(head_index, tmp_path / "moved")
    source = json.loads((tmp_path / "moved" / "source.json").read_text())
    (tmp_path / "moved" / "source.json").write_text(json.dumps({**source, "data": "/nowhere"}))
    with pytest.raises(BadInput, match="Say where it is: --data"):
        recommend_topics(tmp_path / "moved", tmp_path / "x.parquet", Wanted(8), topics=topics)
    recommend_topics(tmp_path / "moved", tmp_path / "x.parquet", Wanted(8), topics=topics, data=micro_shop[1])


def test_another_model_is_refused(shop_index: Path, head_index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch, match="built the index"):
        recommend_topics(shop_index, tmp_path / "r.parquet", Wanted(3), clusters=2, model=head_index.parent / "run")


# -- calibration, and measuring ---------------------------------------------------------------------------------------


def test_the_calibration_of_an_index(own_index: Path) -> None:
    assert read_calibration(own_index, "m") == {}
    write_calibration(own_index, "m", {"topic": Platt(1.0, 2.0)})
    write_calibration(own_index, "m", {"history": Isotonic((0.1, 0.5), (0.0, 1.0))})
    assert read_calibration(own_index, "m") == {"topic": Platt(1.0, 2.0), "history": Isotonic((0.1, 0.5), (0.0, 1.0))}
    with pytest.raises(ModelMismatch, match="Fit it again"):
        read_calibration(own_index, "m2")
    (own_index / FILE).write_text('{"model": "m", "of": {"topic": {"kind": "pickle"}}}')
    with pytest.raises(BadInput, match="Fit it again"):
        read_calibration(own_index, "m")
    write_calibration(own_index, "m", {"topic": Platt(1.0, 2.0)})
    assert set(read_calibration(own_index, "m")) == {"topic"}


IDS = [f"i{at:03d}" for at in range(48)]
TEXT = {"title": "text"}


def table(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_table_says_by_its_columns_what_it_is(tmp_path: Path) -> None:
    links = table(tmp_path / "l.parquet", group_id=["g000", "g000", "g001", "gone"], linked_group_id=["g003", "g000", "none", "g001"])  # fmt: skip  # noqa: E501
    kind, [case] = cases_of_file(links, IDS, group_of, TEXT)
    assert (kind, case.history, case.right) == ("links", ("i000",), {"i006", "i007"})
    seen = table(tmp_path / "h.parquet", user=["u", "v", "u", "u", "w", "v"], id=["i000", "i002", "i010", "i020", "i030", "i003"])  # fmt: skip  # noqa: E501
    kind, [case] = cases_of_file(seen, IDS, group_of, TEXT)
    # v's last item is of the group of the one before, w has but one
    assert (kind, case.name, case.history, case.right) == ("histories", "u", ("i000", "i010"), {"i020"})
    asked = table(tmp_path / "q.parquet", query=["red shoe", " ", "blue"], group_id=["g001", "g002", "gone"])
    kind, [case] = cases_of_file(asked, IDS, group_of, TEXT)
    assert (kind, case.topic.values["title"], case.right) == ("queries", "red shoe", {"i002", "i003"})
    for wrong, said in (
        (table(tmp_path / "x.parquet", a=["b"]), "columns id"),
        (table(tmp_path / "y.parquet", id=["zz"], linked_id=["i001"]), "none in 1 rows"),
        (tmp_path / "none.parquet", "known pairs"),
    ):
        with pytest.raises(BadInput, match=said):
            cases_of_file(wrong, IDS, group_of, TEXT)


def test_topics_and_tastes_of_labels() -> None:
    shape = {name: ("shoe", "vase")[at // 24] for at, name in enumerate(IDS)}
    found = cases_of_labels({"shape": shape}, IDS, group_of, TEXT, 0)
    shoe, vase = found["topics"]
    assert (shoe.name, shoe.topic.values["title"], len(shoe.right)) == ("shoe", "shoe", 24)
    assert not shoe.right & vase.right
    taste = found["tastes"][0]
    assert len(taste.history) == 3
    assert len({group_of(name) for name in taste.history}) == 3
    assert not {group_of(n) for n in taste.history} & {group_of(n) for n in taste.right}
    assert len(taste.right) == 24 - 6
    assert cases_of_labels({"shape": shape}, IDS, group_of, TEXT, 1)["tastes"][0].history != taste.history
    assert set(cases_of_labels({"shape": shape}, IDS, group_of, {"photo": "image"}, 0)) == {"tastes"}
    with pytest.raises(BadInput, match="Name fewer"):
        cases_of_labels({"shape": shape, "id": dict(zip(IDS, IDS, strict=True))}, IDS, group_of, TEXT, 0)


def test_words_for_a_model_of_several_texts_go_where_they_are_put(tmp_path: Path) -> None:
    texts = {"title": "text", "french": "text"}
    asked = table(tmp_path / "q.parquet", query=["red shoe"], group_id=["g001"])
    shape = {name: ("shoe", "vase")[at // 24] for at, name in enumerate(IDS)}
    lines = tmp_path / "topics.txt"
    lines.write_text("red shoe\n")
    ways = (
        lambda *put: cases_of_file(asked, IDS, group_of, texts, *put)[1][0].topic,
        lambda *put: cases_of_labels({"shape": shape}, IDS, group_of, texts, 0, *put)["topics"][0].topic,
        lambda *put: read_topics(lines, texts, *put)["red shoe"],
    )
    for way in ways:
        assert list(way("french").values) == ["french"]
        with pytest.raises(BadInput, match="--as NAME"):
            way()
        with pytest.raises(BadInput, match="title, french"):
            way("german")
    # pairs of items need no words
    links = table(tmp_path / "l.parquet", id=["i000"], linked_id=["i010"])
    assert cases_of_file(links, IDS, group_of, texts)[0] == "links"


def test_measuring_an_index(own_index: Path) -> None:
    found = evaluate_recommendations(
        own_index, None, Wanted(5, 0.3, pool=20), labels=["shape"], write=True, resamples=50
    )
    topics, tastes = found.sections
    names = [method.name for method in topics.methods]
    assert {"vectors", "vectors, MMR 0.3", "popularity", "random"} <= set(names)
    assert [m.name for m in tastes.methods][:2] == ["mean", "mean, all alike"]
    assert (topics.cases, topics.fitted, topics.measured, topics.groups) == (4, 2, 2, 24)
    for section in found.sections:
        for method in section.methods:
            assert 0 <= method.metrics["recall@5"].mean <= 1
    assert set(read_calibration(own_index, found.model)) == {"topic", "history"}
    assert json.dumps(found.to_json())
    # what was fitted is what a threshold uses
    item = recommend_history(own_index, ["i000"], Wanted(3, least=0.0)).items[0]
    assert 0 <= item["probability"] <= 1
    with pytest.raises(BadInput, match="Did you mean 'shape'"):
        evaluate_recommendations(own_index, None, Wanted(), labels=["shap"])
    with pytest.raises(BadInput, match="--labels"):
        evaluate_recommendations(own_index, None, Wanted())


def test_words_that_several_seen_items_say_count_more() -> None:
    said = {"a": "red shoe", "b": "red vase", "c": "shoe", "d": "vase", "e": "red", "f": "hat"}
    world = SimpleNamespace(
        ids=list(said), records={name: Record(name, {"title": words}) for name, words in said.items()},
        notes=[], key=str, wanted=Wanted(3),
    )  # fmt: skip
    # red is the commonest word, and would come last if both items said it once
    case = Case("x", frozenset(["e"]), history=("a", "b"))
    assert recommend_eval._word_lists(world, [case])[0][0] == "e"


def test_links_are_measured_with_the_matching_head_left_out(own_index: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pairs = table(tmp_path / "l.parquet", id=IDS, linked_id=[IDS[at] for at in random.permutation(48)])
    found = evaluate_recommendations(own_index, pairs, Wanted(5, pool=20), resamples=20)
    [section] = found.sections
    assert section.kind == "links"
    # histories of one item have nothing to blend
    assert [m.name for m in section.methods][:2] == ["mean", "mean, MMR 0"]
    assert found.written is None
    assert not (own_index / FILE).exists()


# -- the command line -------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(one) for one in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_commands(own_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "recommend", own_index, "--topic", "red shoe", "-k", "3", "--diversity", "0.3", "--json")
    assert code == 0
    assert len(json.loads(out)["items"]) == 3
    code, out, _ = run(capsys, "recommend", own_index, "--history", "i000", "i004", "--where", "colour=red")
    assert code == 0
    assert "for history i000/i004" in out
    topics = write_topics(tmp_path / "t.txt", "red shoe", "пляж")
    code, out, _ = run(capsys, "topics", own_index, "--topics", topics, "--out", tmp_path / "r.parquet")
    assert code == 0
    assert "refused" in out
    assert "пляж: Nothing of it is known" in out
    code, out, _ = run(capsys, "recommend-eval", own_index, "--labels", "shape", "-k", "5", "--pool", "20", "--write")
    assert code == 0
    assert "popularity" in out
    assert max(len(line) for line in out.splitlines()) <= 120
    code, out, _ = run(capsys, "recommend", own_index, "--topic", "red shoe", "-k", "3")
    assert "likely" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "neither"),
        (("--topic", "red", "--history", "i000"), "both"),
        (("--topic", " "), "--topic"),
        (("--history",), "at least one id"),
        (("--history", "i000", "nobody"), "'nobody'"),
        (("--history", "i000", "--where", "color=red"), "Did you mean 'colour'"),
        (("--topic", "red", "-k", "0"), "k: expected a whole number"),
        (("--topic", "red", "--diversity", "1.5"), "diversity"),
        (("--topic", "red", "--least", "0.5"), "recommend-eval"),
        (("--topic", "пляж"), "Nothing of it is known"),
    ],
)
def test_bad_input_ends_with_2(shop_index: Path, arguments: tuple[str, ...], said: str, capsys) -> None:
    code, out, error = run(capsys, "recommend", shop_index, *arguments)
    assert (code, out) == (2, "")
    assert said in error


def test_cards_keep_the_groups(shop_index: Path) -> None:
    cards = Cards.open(shop_index)
    assert cards.groups(["i003", "nobody"]) == ["g001", None]
    assert cards.card("i003").group == "g001"
    assert set(cards.ids) <= set(IDS)
