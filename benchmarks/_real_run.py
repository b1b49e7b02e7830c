"""What the real data sets share: a catalogue folder, a training run, figures per query, and their table."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from polymodal.catalogue.audit import audit
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.schema import CONFIG_NAME, CatalogueConfig
from polymodal.embed import Embedder
from polymodal.evaluate import Relevance, interval, retrieve
from polymodal.evaluate.intervals import clusters_of
from polymodal.recipe import Recipe
from polymodal.types import Embeddings, Record
from polymodal.workflow.records import groups_of
from polymodal.workflow.training import decoders, find_recipe, open_rows, prepare_data, split_rows, train

Floats = npt.NDArray[np.float64]
CANDIDATES = "candidates"


@dataclass
class Scores:
    """Figure -> (n,) value of each query, NaN where it cannot be judged. Every system judges the same queries.

    `chance` holds the expected value of a random order (or of the most frequent label), `sizes` the candidates,
    `queries` the ids.
    """

    values: dict[str, Floats] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    queries: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def ranked(
        self, name: str, queries: Embeddings, corpus: Embeddings, relevance: Relevance, metrics: Mapping[str, str]
    ) -> None:
        """Rank `corpus` for `queries`; `metrics` maps a metric of `evaluate.retrieve` to how the table calls it."""
        found = retrieve(queries, corpus, relevance, metrics=tuple(metrics), resamples=0)
        for metric, shown in metrics.items():
            self.values[f"{name} {shown}"] = found.per_query[metric]
            self.chance[f"{name} {shown}"] = found.chance[metric]
            self.sizes[f"{name} {shown}"] = len(corpus)
            self.queries[f"{name} {shown}"] = queries.ids

    def answered(
        self, name: str, correct: Mapping[str, bool], order: Sequence[str], chance: float, classes: int
    ) -> None:
        """Right or wrong answers of a classifier."""
        self.values[name] = np.asarray([correct[i] for i in order], np.float64)
        self.chance[name], self.sizes[name], self.queries[name] = chance, classes, tuple(order)


class Task(Protocol):
    """One data set: how it becomes a catalogue, how it is trained on, what is measured."""

    settings: tuple[str, ...]
    epochs: int
    recipe: str

    def catalogue(self, folder: Path) -> None:
        """Write the catalogue's table and `catalogue.toml` into `folder`."""

    def modalities(self) -> tuple[str, ...]:
        """Modalities of the catalogue that the model has."""

    def measure(self, embedder: Embedder, rows: Rows, on: str) -> Scores:
        """The figures of a model on the split `on`."""

    def controls(self, rows: Rows, on: str) -> dict[str, Scores]:
        """The same figures of what needs no training."""

    def facts(self, rows: Rows) -> list[str]:
        """What one must know to read the figures."""


def write_catalogue(folder: Path, table: pa.Table, config: CatalogueConfig) -> None:
    """A table and its `catalogue.toml` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "items.parquet")
    config.replace(table="items.parquet").write(folder / CONFIG_NAME)


def records(rows: Rows, split: str | None) -> list[Record]:
    """The records of a split, in order."""
    wanted = set(split_rows(rows, split).tolist())
    found, start = [], 0
    for number, size in enumerate(rows.blocks):
        inside = [row - start for row in range(start, start + size) if row in wanted]
        if inside:
            block = rows.block(number)
            found += [block[place] for place in inside]
        start += size
    return found


def products_of(rows: Rows) -> dict[str, list[str]]:
    """Split -> the group of each of its rows, from the index alone."""
    found: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for split, group in zip(rows.index["split"].to_pylist(), rows.index["group"].to_pylist(), strict=True):
        found.setdefault(split, []).append(group)
    return found


def pixels(sources: Mapping[str, npt.NDArray[np.uint8]], side: int = 16) -> Embeddings:
    """Id -> picture (H, W, 3) as unit vectors of side x side RGB levels, each picture's mean taken away."""
    small = [
        np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BOX), np.float32).ravel()
        for p in sources.values()
    ]
    return unit(tuple(sources), np.stack([v - v.mean() for v in small]), "pixels")


def unit(ids: Sequence[str], vectors: npt.NDArray[Any], model: str) -> Embeddings:
    """Rows scaled to length 1; a zero row stays zero."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return Embeddings(tuple(ids), np.asarray(vectors / lengths, np.float32), model)


def by_product(vectors: Embeddings, product: Mapping[str, str]) -> Embeddings:
    """One vector a product: the mean of its items' vectors."""
    names = sorted({product[i] for i in vectors.ids})
    member = np.asarray([[product[i] == name for i in vectors.ids] for name in names], np.float64)
    return unit(names, member @ vectors.vectors, vectors.model)


# -- one data set from end to end -----------------------------------------------------------------------------------


def run_task(
    task: Task, name: str, out: Path, seeds: Sequence[int], on: str, extra: Sequence[str], epochs: int | None
) -> dict[str, Any]:
    """Catalogue, audit, shards, one model a seed, controls: everything as JSON-ready values."""
    task.catalogue(out / "catalogue")
    catalogue = Catalogue.open(out / "catalogue")
    recipe = recipe_of(task, catalogue, extra, epochs)
    findings = audit(catalogue, decoders(recipe))
    shards = prepare_data(out / "catalogue", out / "shards", recipe, workers=1, force=True).folder
    rows = open_rows(shards)
    results = {seed: _learn(task, recipe, rows, shards, out / f"seed-{seed}", seed, on) for seed in seeds}
    systems = {
        **task.controls(rows, on),
        "untrained": _learn(task, recipe, rows, shards, out / "untrained", seeds[0], on, False)[0],
    }
    return {
        "data": name,
        "measured_on": on,
        "seeds": list(seeds),
        "seconds_of_training": [round(results[seed][1], 1) for seed in seeds],
        "recipe": json.loads(recipe.model_dump_json()),
        "facts": task.facts(rows),
        "audit": findings.warnings
        + [f"{m}: {n} x {reason}" for m, all_ in findings.reasons.items() for reason, n in all_.items()],
        "figures": summarise([results[seed][0] for seed in seeds], systems, groups_of(rows)),
    }


def recipe_of(
    task: Task, catalogue: Catalogue, extra: Sequence[str] = (), epochs: int | None = None, other: str | None = None
) -> Recipe:
    """The recipe of a task, or another one with what was chosen for it that is no part of model and objective."""
    settings = ["train.checkpoint_every=1000000", f"train.epochs={epochs or task.epochs}"]
    settings += [one for one in task.settings if not other or not one.startswith(("model.", "objective."))]
    kinds = {m: catalogue.modalities[m] for m in task.modalities()}
    return find_recipe(other or task.recipe, kinds, "tiny").override([*settings, *extra])


def recipe_on(recipe: Recipe, shards: Path, seed: int, trained: bool = True) -> Recipe:
    """The recipe with its data and a seed; not `trained`: of one step that changes nothing that can be seen."""
    settings = [f"data={json.dumps(str(shards))}", f"train.seed={seed}"]
    settings += [] if trained else ["train.steps=1", "train.learning_rate=1e-9"]
    return recipe.override(settings)


def _learn(
    task: Task, recipe: Recipe, rows: Rows, shards: Path, run: Path, seed: int, on: str, trained: bool = True
) -> tuple[Scores, float]:
    begun = time.monotonic()
    train(recipe_on(recipe, shards, seed, trained), run)
    seconds = time.monotonic() - begun
    return task.measure(Embedder.load(run), rows, on), seconds


def summarise(
    models: Sequence[Scores], controls: Mapping[str, Scores], together: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A line a figure: mean over seeds, 95 % bootstrap interval over queries (groups of them), spread over seeds,
    chance, controls."""
    lines = []
    for name in models[0].values:
        per_query = np.stack([scores.values[name] for scores in models])
        clusters = clusters_of(models[0].queries[name], together)
        whole = interval(per_query.mean(0), clusters=clusters)
        others = {c: interval(s.values[name], clusters=clusters) for c, s in controls.items() if name in s.values}
        seeds = [float(np.nanmean(row)) for row in per_query]
        lines.append(
            {
                "figure": name,
                CANDIDATES: models[0].sizes[name],
                "queries": whole.n,
                "mean": whole.mean,
                "low": whole.low,
                "high": whole.high,
                "per_seed": seeds,
                "sd": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                "chance": models[0].chance[name],
                "controls": {control: found.to_json() for control, found in others.items()},
            }
        )
    return lines


def show(report: Mapping[str, Any], console: Console) -> None:
    """The report as a table for people."""
    names = list(dict.fromkeys(name for line in report["figures"] for name in line["controls"]))
    table = Table(
        title=f"{report['data']}, {report['measured_on']} split, seeds {report['seeds']}", title_justify="left"
    )
    for column in ("figure", "of", "n", "polymodal [95 %]", "sd of seeds", "chance", *names):
        table.add_column(column, justify="left" if column == "figure" else "right", no_wrap=True)
    for line in report["figures"]:
        own = f"{line['mean']:.3f} [{line['low']:.3f}, {line['high']:.3f}]"
        spread = "-" if line["sd"] is None else f"{line['sd']:.3f}"
        others = [f"{line['controls'][name]['mean']:.3f}" if name in line["controls"] else "-" for name in names]
        table.add_row(
            line["figure"], str(line[CANDIDATES]), str(line["queries"]), own, spread, f"{line['chance']:.3f}", *others
        )
    console.print(table)
    console.print("seconds of training:", report["seconds_of_training"], highlight=False)
    for text in report["facts"]:
        console.print("-", text, highlight=False)
    for text in report["audit"]:
        console.print("audit:", text, highlight=False)
