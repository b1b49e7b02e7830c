"""Experiments are found, run, kept and written."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polymodal.bench import _plots
from polymodal.bench._base import Cell, Options, Table
from polymodal.bench._kept import kept, write_whole
from polymodal.bench._run import list_experiments, run_experiment
from polymodal.bench._shown import table_text
from polymodal.config import discover
from polymodal.types import BadInput, MissingExtra

TOY = '''"""Is one more than two?

More words.
"""
from polymodal.bench._base import Options, Result, Table, over_seeds
from polymodal.bench._kept import kept

ran = []

def run(options: Options) -> Result:
    rounds = 1 if options.quick else int(options.settings.get("rounds", 5))

    def once(seed):
        ran.append(seed)
        if options.settings.get("stop") == str(seed):
            raise KeyboardInterrupt
        return {"value": seed + rounds}

    settings = {"rounds": rounds}
    values = [kept(options, __name__, settings, s, lambda: once(s))["value"] for s in options.seeds]
    options.say("done")
    table = Table("T", ("what", "value"), (("it", over_seeds(values)),))
    return Result("toy", "Is one more than two?", (table,), ("No.",), {"toy.png": b"PNG"}, settings)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "experiments_for_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "toy.py").write_text(TOY)
    (folder / "_helper.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "experiments_for_tests"
    discover.cache_clear()
    for name in [name for name in sys.modules if name.startswith("experiments_for_tests")]:
        del sys.modules[name]


def test_experiments_are_modules_and_say_their_question(package: str):
    assert list_experiments(package) == {"toy": "Is one more than two?"}
    for name, question in list_experiments().items():
        assert question.endswith("?") or "?" in question or len(question) > 10, name
        assert callable(discover("polymodal.bench")[name].run)  # type: ignore[attr-defined]


def test_an_experiment_is_run_and_written(package: str, tmp_path: Path):
    said: list[str] = []
    made = run_experiment(
        "toy", tmp_path / "out", settings=["rounds=7"], command="polymodal bench toy", say=said.append, package=package
    )
    assert made.folder == tmp_path / "out" / "toy"
    found = json.loads((made.folder / "result.json").read_text())
    assert found["tables"][0]["rows"][0][1]["mean"] == 8.0
    assert (found["settings"], found["quick"], found["command"]) == ({"rounds": 7}, False, "polymodal bench toy")
    text = (made.folder / "result.md").read_text()
    assert text.startswith("# toy\n\nMade by `polymodal bench toy`.\n\nIs one more than two?")
    assert "![toy](toy.png)" in text
    assert (made.folder / "toy.png").read_bytes() == b"PNG"
    assert said == ["done"]
    assert made.to_json()["files"]["pictures"] == [str(made.folder / "toy.png")]


def test_a_quick_run_stands_apart_and_is_marked(package: str, tmp_path: Path):
    made = run_experiment("toy", tmp_path, quick=True, package=package)
    assert made.folder.name == "toy-quick"
    assert "mean nothing" in (made.folder / "result.md").read_text()
    assert "mean nothing" not in (run_experiment("toy", tmp_path, package=package).folder / "result.md").read_text()


def test_finished_seeds_are_kept_over_ctrl_c(package: str, tmp_path: Path):
    ran = discover(package)["toy"].ran  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        run_experiment("toy", tmp_path, settings=["stop=1"], package=package)
    assert ran == [0, 1]
    run_experiment("toy", tmp_path, package=package)
    assert ran == [0, 1, 1, 2]
    run_experiment("toy", tmp_path, settings=["rounds=6"], seeds=[2], package=package)
    assert ran == [0, 1, 1, 2, 2]


def test_a_changed_experiment_is_run_again(package: str, tmp_path: Path):
    ran = discover(package)["toy"].ran  # type: ignore[attr-defined]
    options = Options((0,), out=tmp_path)
    value = kept(options, f"{package}.toy", {"a": (1, 2)}, 0, lambda: {"x": (1, 2)})
    assert value == {"x": [1, 2]}
    assert kept(options, f"{package}.toy", {"a": (1, 2)}, 0, lambda: 1 / 0) == value
    path = Path(sys.modules[f"{package}.toy"].__file__ or "")
    path.write_text(path.read_text() + "\n# changed\n")
    assert kept(options, f"{package}.toy", {"a": (1, 2)}, 0, lambda: 5) == 5
    assert kept(Options((0,)), f"{package}.toy", {}, 0, lambda: 6) == 6
    assert ran == []


def test_wrong_input(package: str, tmp_path: Path):
    with pytest.raises(BadInput, match="Did you mean 'toy'"):
        run_experiment("tooy", tmp_path, package=package)
    with pytest.raises(BadInput, match="--seeds"):
        run_experiment("toy", tmp_path, seeds=[1, 1], package=package)
    with pytest.raises(BadInput, match="NAME=VALUE"):
        run_experiment("toy", tmp_path, settings=["rounds"], package=package)
    write_whole(tmp_path / "file", b"x")
    with pytest.raises(BadInput, match="the file"):
        run_experiment("toy", tmp_path / "file", package=package)


def test_figures_are_pictures_and_the_same_twice(monkeypatch: pytest.MonkeyPatch):
    cells = {"ours": Cell(0.5, 0.4, 0.6, 3), "chance": Cell(0.1, 0.1, 0.1, 1), "none": Cell(np.nan, np.nan, np.nan, 0)}
    panels = [_plots.Panel("a", cells, line=0.2, muted=frozenset({"chance"})), _plots.Panel("b", {})]
    lines = [_plots.Panel("c", {"ours": [cells["ours"]] * 3, "chance": cells["chance"]}, ("x", "y", "z"), 0.2)]
    for draw, shown in ((_plots.marks, panels), (_plots.curves, lines)):
        content = draw(shown)
        assert content == draw(shown)
        image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert image.shape[1] > 300
        assert image.min() < 100 < image.max()
    moved = [_plots.Panel("c", {"ours": [cells["chance"]] * 3}, ("x", "y", "z"), 0.2)]
    assert _plots.curves(moved) != _plots.curves(lines)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"polymodal\[report\]"):
        _plots.marks(panels)


def test_a_terminal_is_narrower_than_a_page():
    from rich.console import Console

    console = Console(width=60, record=True, file=io.StringIO())
    rows = (("ours", Cell(0.5, 0.4, 0.6, 3)), ("one", Cell(0.5, 0.5, 0.5, 1)))
    console.print(table_text(Table("T", ("a", "b"), rows)))
    assert "0.500\u00a0±0.100" in console.export_text(clear=False)
    assert "one" in console.export_text()


def test_a_table_is_drawn_row_by_row(monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(_plots, "marks", lambda panels: drawn.extend(panels) or b"png")
    cell, other = Cell(0.5, 0.4, 0.6, 3), Cell(0.7, 0.6, 0.8, 3)
    rows = (("A", "shared", cell, "9"), ("A", "unique", other, "9"), ("chance", "-", "0.5", "9"))
    assert _plots.table_marks(Table("t", ("method", "head", "R2", "cost"), rows)) == b"png"
    assert [(panel.title, panel.values) for panel in drawn] == [("R2", {"A, shared": cell, "A, unique": other})]
    assert _plots.table_marks(Table("t", ("method", "cost"), (("A", "9"),))) is None


def test_an_experiment_without_pictures_gets_them(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    toy = discover(package)["toy"]
    bare = toy.run(Options(seeds=(0,)))
    monkeypatch.setattr(toy, "run", lambda options: replace(bare, pictures={}))
    made = run_experiment("toy", tmp_path, package=package)
    assert (made.folder / "toy-1.png").read_bytes().startswith(b"\x89PNG")
    assert "![toy-1](toy-1.png)" in (made.folder / "result.md").read_text()
