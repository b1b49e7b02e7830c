"""Variants of one product are no independent observations: every interval that a command reports draws whole groups."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import micro_catalogue
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polymodal import workflow
from polymodal.evaluate.intervals import groups_note
from polymodal.workflow.classify import ClassifySettings, classify
from polymodal.workflow.clusters import ClusterSettings, cluster_data
from polymodal.workflow.completion import CompleteSettings, complete_attribute
from polymodal.workflow.dedup import DedupSettings, dedup
from polymodal.workflow.evaluation import EvaluateSettings, evaluate
from polymodal.workflow.explaining import ExplainSettings, explain_catalogue
from polymodal.workflow.mismatch import MismatchSettings, mismatch
from polymodal.workflow.outliers import OutlierSettings, find_outliers
from polymodal.workflow.retrieval import RetrieveSettings, retrieve_data
from polymodal.workflow.word_completion import WordsSettings, complete_words

FEW = {"resamples": 60}
Shop = tuple[Path, Path]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, micro_shop) -> Shop:
    """Groups of six, so that several items of a group have what is asked for."""
    data = micro_catalogue.write(tmp_path_factory.mktemp("groups") / "catalogue", 240)
    rows = pq.read_table(data / "items.parquet").to_pylist()
    for at, row in enumerate(rows):
        row |= {"group": f"g{at // 6}", "split": "test" if at // 6 % 4 == 0 else "train"}
    pq.write_table(pa.Table.from_pylist(rows), data / "items.parquet")
    return micro_shop[0], data


def _classify(shop: Shop, out: Path) -> Any:
    return classify(*shop, out / "p.csv", ClassifySettings("colour", **FEW), save=out / "kept").to_json()


def _evaluate(shop: Shop, out: Path) -> Any:
    settings = EvaluateSettings(label="shape", max_items=60, **FEW)
    return json.loads(evaluate(*shop, out, settings).json_path.read_text(encoding="utf-8"))


def _explain(shop: Shop, out: Path) -> Any:
    return explain_catalogue(*shop, None, ExplainSettings(label="shape", max_items=60, **FEW)).to_json()


def _log(shop: Shop, out: Path) -> Any:
    """Two queries ask for each of some items."""
    rows = [{"query": f"{words} {at}", "id": f"i{at:03d}"} for at in range(0, 240, 3) for words in ("red", "old")]
    pq.write_table(pa.Table.from_pylist(rows), out / "log.parquet")
    return retrieve_data(*shop, RetrieveSettings(pairs=out / "log.parquet", ks=(5, 20), resamples=300)).to_json()


def _outliers(shop: Shop, out: Path) -> Any:
    faults = pa.table({"id": [f"i{at:03d}" for at in range(60)], "outlier": ["title"] * 60})
    pq.write_table(faults, out / "truth.parquet")
    settings = OutlierSettings("colour", draws=2, **FEW)
    return find_outliers(*shop, out / "found", settings, truth=out / "truth.parquet").to_json()


def _copies(shop: Shop, out: Path) -> Any:
    return dedup(*shop, DedupSettings(plant=80, **FEW)).to_json()


COMMANDS: dict[str, Callable[[Shop, Path], Any]] = {
    "retrieve": lambda shop, out: retrieve_data(*shop, RetrieveSettings(ks=(1, 5), **FEW)).to_json(),
    "retrieve --pairs": _log,
    "classify": _classify,
    "cluster": lambda shop, out: cluster_data(*shop, out / "found", ClusterSettings(4)).to_json(),
    "complete words": lambda shop, out: complete_attribute(*shop, CompleteSettings("colour", 0.3, **FEW)).to_json(),
    "complete numbers": lambda shop, out: complete_attribute(*shop, CompleteSettings("price", 0.7, **FEW)).to_json(),
    "complete texts": lambda shop, out: complete_words(*shop, WordsSettings("title", words=2, **FEW)).to_json(),
    "dedup": _copies,
    "mismatch": lambda shop, out: mismatch(*shop, MismatchSettings(modality="title", plant=12, **FEW)).to_json(),
    "outliers": _outliers,
    "explain": _explain,
    "evaluate": _evaluate,
}


def _intervals(found: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(found, dict):
        if {"mean", "low", "high", "n"} <= set(found):
            yield at, found
        for name, inner in found.items():
            yield from _intervals(inner, f"{at}/{name}")
    elif isinstance(found, list):
        for number, inner in enumerate(found):
            yield from _intervals(inner, f"{at}/{number}")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_intervals_of_every_command_draw_whole_groups(name, shop, tmp_path, monkeypatch):
    (tmp_path / "groups").mkdir()
    (tmp_path / "items").mkdir()
    grouped = dict(_intervals(COMMANDS[name](shop, tmp_path / "groups")))
    with monkeypatch.context() as patched:
        for module in [m for n, m in sys.modules.items() if n.startswith("polymodal.") and hasattr(m, "clusters_of")]:
            patched.setattr(module, "clusters_of", lambda ids, together: None)
        alone = dict(_intervals(COMMANDS[name](shop, tmp_path / "items")))
    assert grouped.keys() == alone.keys()
    assert grouped
    ends = {where: [(one["low"], one["high"]) for one in (grouped[where], alone[where])] for where in grouped}
    known = {w: e for w, e in ends.items() if all(x is not None and math.isfinite(x) for pair in e for x in pair)}
    for where in known:
        assert grouped[where]["mean"] == alone[where]["mean"]
        assert grouped[where]["n"] == alone[where]["n"]
    wide = {where: e for where, e in known.items() if e[1][1] - e[1][0] > 1e-9}
    assert wide
    same = [where for where, (one, other) in wide.items() if one == other]
    # single ends may coincide where few items are right
    assert len(same) <= 0.25 * len(wide), same


def test_every_command_that_draws_resamples_is_here():
    """Recommendations are measured over cases, which have no groups."""
    tested = {value.__module__ for value in globals().values() if getattr(value, "__name__", "").endswith("Settings")}
    known = set()
    for found in pkgutil.iter_modules(workflow.__path__, "polymodal.workflow."):
        module = importlib.import_module(found.name)
        known |= {
            module.__name__
            for value in vars(module).values()
            if dataclasses.is_dataclass(value)
            and value.__module__ == module.__name__
            and "resamples" in {field.name for field in dataclasses.fields(value)}
        }
    assert known - {"polymodal.workflow.recommend_eval"} <= tested
    assert len(known) > 8


def test_results_say_that_groups_are_drawn(shop, tmp_path):
    found = retrieve_data(*shop, RetrieveSettings(ks=(1,), **FEW))
    assert any(f"{found.queries[0]} queries of 10." in note for note in found.notes)
    made = classify(
        *shop, tmp_path / "p.csv", ClassifySettings("colour", controls=False, **FEW), save=tmp_path / "kept"
    )
    assert any("items of 10." in note for note in made.notes)
    assert groups_note(["a", "b"], {"a": "x"}) == ""
