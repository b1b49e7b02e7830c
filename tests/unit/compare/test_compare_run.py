"""A whole comparison on a catalogue of words: what is kept, what fails, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import micro_catalogue
import pytest

from polymodal.bench._base import Cell
from polymodal.compare import Compared, CompareSettings, _run, compare
from polymodal.train.trainer import Interrupted
from polymodal.types import BadInput, MissingExtra, PolymodalError
from polymodal.workflow.training import train

OTHER = "scale:objective.temperature=0.2"
BROKEN = "scale:train.batch_size=4000"


def settings(**changes: Any) -> CompareSettings:
    made: dict[str, Any] = {"methods": ("scale", OTHER), "seeds": (0, 1), "steps": 2, "settings": micro_catalogue.MICRO}
    return CompareSettings(**{**made, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_catalogue.write(tmp_path_factory.mktemp("micro") / "catalogue")


@pytest.fixture(scope="module")
def done(data: Path) -> Compared:
    return compare(data, data.parent / "done", settings(), command="polymodal compare this")


def runs(made: Compared, method: str) -> list[dict[str, Any]]:
    return [run for run in made.content["runs"] if run["method"] == method]


def test_everything_is_measured_of_every_method_and_control(done: Compared):
    assert [len(runs(done, m)) for m in ("scale", OTHER)] == [2, 2]
    for run in done.content["runs"]:
        assert run["error"] == ""
        assert (run["steps"], run["setting"]["modalities"]) == (2, ("title", "facts"))
        assert run["seconds"] > 0
        for task in ("coarse", "fine"):
            for rule in ("standard", "released"):
                assert 0 <= run["figures"][f"{task}/{rule}/map@10"] <= 1
        for name in ("accuracy", "nmi", "purity", "cross/title → facts/hit@1", "mean fusion/coarse/standard/map@1"):
            assert 0 <= run["figures"][name] <= 1
    # the items with a title, by the title alone and by all they have
    figures = runs(done, "scale")[0]["figures"]
    assert figures["added/title/items"] == figures["added/title+facts/items"] < figures["items"]
    assert figures["added/title/coarse/standard/map@10"] != figures["added/title+facts/coarse/standard/map@10"]
    assert set(done.content["controls"][0]["figures"]) == {"random vectors", "TF-IDF", "BM25", "scale, untrained"}
    assert runs(done, "scale")[0]["figures"] != runs(done, "scale")[1]["figures"]
    weights = {path.read_bytes() for path in done.folder.glob("runs/*/model/model.safetensors")}
    assert len(weights) == 6  # two methods and one untrained, two seeds each


def test_operations_and_parameters_are_counted_the_same_for_equal_models(done: Compared):
    one, other = runs(done, "scale")[0], runs(done, OTHER)[0]
    assert one["flops"] > 1e5
    assert one["parameters"] == other["parameters"]
    assert one["flops"] == pytest.approx(other["flops"], rel=0.02)


def test_the_files_say_the_same(done: Compared):
    written = json.loads((done.folder / "compare.json").read_text())
    assert written == json.loads(json.dumps(done.to_json()))
    text = (done.folder / "compare.md").read_text()
    assert "Made by `polymodal compare this`." in text
    for table in written["tables"]:
        assert f"**{table['title']}**" in text
    for name in written["pictures"]:
        assert (done.folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in text
    assert len(written["pictures"]) == 2
    # titles and facts of this catalogue say the colour
    assert written["leaks"]["title + facts"]["share"] == 1.0
    assert "names their label, word for word: colour 100%" in done.warning
    assert done.warning in text
    assert not list(done.folder.rglob("*.part"))
    assert not list(done.folder.rglob("checkpoints"))


def test_the_tables_are_the_figures_over_seeds(done: Compared):
    summary = done.result.tables[0]
    row = next(row for row in summary.rows if row[0] == "scale")
    each = [run["figures"]["coarse/standard/map@10"] for run in runs(done, "scale")]
    cell = row[summary.columns.index("coarse mAP@10")]
    assert isinstance(cell, Cell)
    assert (cell.mean, cell.n) == (pytest.approx(sum(each) / 2), 2)
    minus = next(t for t in done.result.tables if t.title.endswith("minus scale"))
    other = [run["figures"]["coarse/standard/map@10"] for run in runs(done, OTHER)]
    gap = minus.rows[0][1]
    assert isinstance(gap, Cell)
    assert gap.mean == pytest.approx(sum(other) / 2 - sum(each) / 2)
    half = 12.706 * abs((other[0] - each[0]) - (other[1] - each[1])) / math.sqrt(2) / math.sqrt(2)
    assert gap.high - gap.mean == pytest.approx(half)
    against = next(t for t in done.result.tables if t.title.endswith("the method minus"))
    tfidf = done.content["controls"][0]["figures"]["TF-IDF"][0]["coarse/standard/map@10"]
    cell = against.rows[0][against.columns.index("TF-IDF")]
    assert isinstance(cell, Cell)
    assert cell.mean == pytest.approx(sum(each) / 2 - tfidf)
    fusion = [run["figures"]["mean fusion/coarse/standard/map@10"] for run in runs(done, "scale")]
    cell = against.rows[0][against.columns.index("mean fusion")]
    assert isinstance(cell, Cell)
    assert cell.mean == pytest.approx(sum(each) / 2 - sum(fusion) / 2)


def test_what_is_finished_is_not_trained_again(done: Compared, data: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[int] = []

    def count(recipe: Any, *rest: Any) -> Any:
        trained.append(recipe.train.seed)
        return train(recipe, *rest)

    monkeypatch.setattr(_run, "train", count)
    again = compare(data, done.folder, settings(), command="polymodal compare this")
    assert trained == []
    assert again.content == done.content
    more = compare(data, done.folder, settings(seeds=(0, 1, 2), methods=("scale",)))
    assert trained == [2, 2]  # the new seed, trained and untrained
    assert [r["figures"] for r in runs(more, "scale")][:2] == [r["figures"] for r in runs(done, "scale")]


def test_a_method_that_fails_is_told_in_its_row_and_stops_no_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(recipe: Any, *rest: Any) -> Any:
        if recipe.train.clip == 0.5:
            raise ZeroDivisionError("a defect")
        return train(recipe, *rest)

    monkeypatch.setattr(_run, "train", fail)
    defect = "scale:train.clip=0.5"
    made = compare(data, tmp_path / "out", settings(methods=(BROKEN, "scale", defect), seeds=(0,)))
    assert runs(made, defect)[0]["error"] == "ZeroDivisionError: a defect"
    (broken,), (fine,) = runs(made, BROKEN), runs(made, "scale")
    assert "train.batch_size" in broken["error"]
    assert broken["figures"] == {}
    assert fine["figures"]
    assert made.result.tables[0].rows[0][:2] == (BROKEN, "failed")
    cost = next(table for table in made.result.tables if "cost" in table.title)
    assert "train.batch_size" in str(cost.rows[0][-1])
    assert any("train.batch_size" in text for text in made.result.findings)
    assert "One seed: no interval, and no verdict." in made.result.findings
    with pytest.raises(PolymodalError, match="No method could be trained"):
        compare(data, tmp_path / "none", settings(methods=(BROKEN,), seeds=(0,)))
    assert (tmp_path / "none" / "compare.md").is_file()


def test_ctrl_c_keeps_what_is_finished_and_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[str] = []

    def stop(recipe: Any, place: Path, *rest: Any) -> Any:
        trained.append(place.name)
        if len(trained) == 2:
            raise Interrupted("Stopped after step 1 of 2, saved.")
        return train(recipe, place, *rest)

    monkeypatch.setattr(_run, "train", stop)
    with pytest.raises(Interrupted, match="same command"):
        compare(data, tmp_path / "out", settings(seeds=(0,)))
    assert not (tmp_path / "out" / "compare.json").exists()
    made = compare(data, tmp_path / "out", settings(seeds=(0,)))
    assert trained.count(trained[0]) == 1
    assert trained.count(trained[1]) == 2
    assert all(run["figures"] for run in made.content["runs"])


def test_a_run_that_was_stopped_in_the_middle_is_resumed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = compare(data, tmp_path / "whole", settings(methods=("scale",), seeds=(0,), steps=4))
    out = tmp_path / "out"

    def stop(recipe: Any, place: Path, *rest: Any) -> Any:
        from polymodal.train.trainer import Trainer

        saved = Trainer.save

        def save(self: Trainer) -> None:
            saved(self)
            if self.step == 2:
                raise Interrupted("stopped")

        with monkeypatch.context() as inside:
            inside.setattr(Trainer, "save", save)
            return train(recipe.override(["train.checkpoint_every=2"]), place, *rest)

    monkeypatch.setattr(_run, "train", stop)
    with pytest.raises(Interrupted):
        compare(data, out, settings(methods=("scale",), seeds=(0,), steps=4))
    monkeypatch.setattr(_run, "train", train)
    made = compare(data, out, settings(methods=("scale",), seeds=(0,), steps=4))
    assert made.content["runs"][0]["figures"] == whole.content["runs"][0]["figures"]
    assert made.content["runs"][0]["seconds"] is None  # its clock stood still in between


def test_equal_seconds_are_steps_by_each_methods_own_pace(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paces = iter([0.5, 0.2, 0.4, 0.1])  # two methods, twice in turn: the smaller counts
    monkeypatch.setattr(_run, "seconds_of_a_step", lambda *_: next(paces))
    made = compare(data, tmp_path / "out", settings(seeds=(0,), steps=3, seconds=1.2))
    steps = {(run["method"], run["setting"]["budget"]): run["steps"] for run in made.content["runs"]}
    assert steps == {("scale", "steps"): 3, (OTHER, "steps"): 3, ("scale", "seconds"): 3, (OTHER, "seconds"): 12}
    assert any("noisy" in text for text in made.result.findings)
    monkeypatch.setattr(_run, "seconds_of_a_step", lambda *_: 1 / 0)
    again = compare(data, tmp_path / "out", settings(seeds=(0,), steps=3, seconds=1.2))
    assert again.content == made.content


def test_a_clock_is_a_clock(data: Path, tmp_path: Path):
    made = compare(data, tmp_path / "out", settings(methods=("scale",), seeds=(0,), steps=None, seconds=0.05))
    (run,) = made.content["runs"]
    assert run["setting"]["budget"] == "seconds"
    assert 1 <= run["steps"] <= 50


def test_several_sets_and_every_combination(data: Path, tmp_path: Path):
    asked = settings(methods=("scale",), seeds=(0,), modalities=("title", "facts,title"), combinations=True)
    made = compare(data, tmp_path / "out", asked)
    alone, both = made.content["runs"]
    assert alone["setting"]["modalities"] == ("title",)
    assert not any(name.startswith(("mean fusion", "cross")) for name in alone["figures"])
    assert {f"added/{s}/items" for s in ("title", "facts", "title+facts")} <= set(both["figures"])
    assert both["figures"]["added/facts/items"] != both["figures"]["added/title/items"]
    assert both["figures"]["added/title+facts/items"] == both["figures"]["items"]


def test_wrong_input_is_refused_before_anything_is_made(data: Path, done: Compared, tmp_path: Path):
    out = tmp_path / "out"
    for changes, said in (
        ({"methods": ("scael",)}, "Did you mean 'scale'"),
        ({"modalities": ("title,image",)}, "--modalities"),
        ({"label": "coluor"}, "Did you mean 'colour'"),
        ({"split": "tset"}, "Did you mean 'test'"),
    ):
        with pytest.raises(BadInput, match=said):
            compare(data, out, settings(**changes))
    assert not out.exists()
    with pytest.raises(BadInput, match="another folder"):
        compare(data, done.folder, settings(label="shape"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BadInput, match="new or empty folder"):
        compare(data, tmp_path / "mine", settings())
    with pytest.raises(BadInput, match="the file"):
        compare(data, tmp_path / "mine" / "thesis.txt", settings())
    with pytest.raises(BadInput, match="demo --only-data"):
        compare(tmp_path / "nothing", out, settings())


def test_what_could_not_be_measured_is_not_trained(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_run, "find_spec", lambda name: None if name == "sklearn" else object())
    with pytest.raises(MissingExtra, match=r"polymodal\[report\]"):
        compare(data, tmp_path / "out", settings())
    assert not (tmp_path / "out").exists()


def test_a_model_of_fewer_modalities_is_measured_on_the_same_items(data: Path, tmp_path: Path):
    words = 'scale:modalities={"title": {"kind": "text", "vocabulary": 300}}'
    made = compare(data, tmp_path / "out", settings(methods=("scale", words), seeds=(0,)))
    (both,), (alone,) = runs(made, "scale"), runs(made, words)
    assert alone["error"] == ""
    assert alone["figures"]["items"] == both["figures"]["items"]
    missing = alone["figures"]["without a vector"]
    assert missing == both["figures"]["items"] - both["figures"]["added/title/items"] > 0
    assert both["figures"]["without a vector"] == 0
    assert any(f"no vector for {missing:.0f} of the items" in text for text in made.result.findings)
    # each is set against a model of its own shape before training
    controls = made.content["controls"][0]
    assert controls["untrained"] == {"scale": "scale, untrained", words: f"{words}, untrained"}
    against = next(t for t in made.result.tables if t.title.endswith("the method minus"))
    assert against.columns[4] == "itself untrained"
    for row, run in zip(against.rows, (both, alone), strict=True):
        before = controls["figures"][f"{run['method']}, untrained"][0]["coarse/standard/map@10"]
        assert isinstance(row[4], Cell)
        assert row[4].mean == pytest.approx(run["figures"]["coarse/standard/map@10"] - before)


def test_a_method_that_reads_text_alone_has_no_items_made_from_other_modalities(data: Path, tmp_path: Path):
    asked = settings(methods=("scale", "bert"), seeds=(0,), modalities=("title,facts",), combinations=True)
    made = compare(data, tmp_path / "out", asked)
    (table, *_) = [t for t in made.result.tables if "made from some modalities" in t.title]
    items = {(row[0], row[1]): row[2] for row in table.rows}
    assert "nan" not in items.values()
    assert items["bert", "facts"] == "-" != items["scale", "facts"]
