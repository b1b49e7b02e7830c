"""A model and data in, `report.json` and `report.html` out: everything that is measured, in the order of the page."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.catalogue.rows import Rows
from polymodal.embed import Embedder
from polymodal.evaluate import (
    AS_IS,
    Breakdown,
    Clustering,
    Comparison,
    Report,
    SubsetScore,
    by_band,
    by_id,
    by_key,
    by_pattern,
    cluster,
    compare_controls,
    geometry,
    label_leak,
    leak_warning,
    mean_fusion,
    random_like,
    retrieve,
    statements,
    subset_matrix,
    subset_scores,
    write_report,
)
from polymodal.evaluate.retrieval import Retrieval
from polymodal.evaluate.summary import tally
from polymodal.types import BadInput, Embeddings, Record
from polymodal.workflow import headlines
from polymodal.workflow.harmony import mean_harmony
from polymodal.workflow.opened import open_task
from polymodal.workflow.pictures import curves_of, examples_of, facts_of, thumbnails_of
from polymodal.workflow.probes import ProbePlan, probe_labels
from polymodal.workflow.records import draw_rows, records_of, title_of
from polymodal.workflow.subsets import Evaluated, embed_subsets, subsets_of
from polymodal.workflow.training import split_rows

__all__ = ["EvaluateResult", "EvaluateSettings", "evaluate"]

# stage, rows or steps done, in all
Progress = Callable[[str, int, int], None]
# one item is right: recall@k is hit@k there, and mAP is MRR
_INSTANCE = ("hit@1", "hit@5", "hit@10", "mrr")
_LABEL = ("hit@1", "hit@5", "hit@10", "recall@1", "recall@5", "recall@10", "map", "mrr")


@dataclass(frozen=True)
class EvaluateSettings:
    """What is measured.

    Args:
        split: rows that are evaluated; train_split: rows that probes learn from.
        label: what counts as the same in label retrieval; None: the first label of the data.
        max_items: evaluated at most (the probes learn from twice as many); drawn with `seed`.
        resamples: of the bootstrap. examples: queries shown of each kind.
    """

    split: str = "test"
    train_split: str = "train"
    label: str | None = None
    max_items: int = 1000
    resamples: int = 1000
    seed: int = 0
    examples: int = 4


@dataclass(frozen=True)
class EvaluateResult:
    """Where the report is, its headlines, the sentences about the controls, the tally, the figures of a summary, and a
    warning where the input names the labels that are scored ("" where not)."""

    json_path: Path
    html_path: Path
    items: int
    model: str
    headlines: tuple[dict[str, Any], ...]
    statements: tuple[str, ...]
    tally: str
    figures: dict[str, Any]
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "report": {"json": str(self.json_path), "html": str(self.html_path)},
            "items": self.items,
            "model": self.model,
            "headlines": list(self.headlines),
            "statements": list(self.statements),
            "tally": self.tally,
            "figures": self.figures,
            "warning": self.warning,
        }


@dataclass
class _World:
    """What is being evaluated, and what has been found so far."""

    rows: Rows
    embedder: Embedder
    settings: EvaluateSettings
    say: Progress
    records: list[Record] = field(default_factory=list)
    found: Evaluated = field(default_factory=Evaluated)
    learnt: Evaluated = field(default_factory=Evaluated)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    together: dict[str, str] = field(default_factory=dict)
    label: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The model's modalities that some evaluated row has, in the model's order."""
        return [name for name in self.embedder.modalities if name in self.found.towers and len(self.found.towers[name])]

    @property
    def options(self) -> Any:
        return {"resamples": self.settings.resamples, "seed": self.settings.seed, "together": self.together}

    @property
    def fused(self) -> Embeddings:
        return self.found.fused[AS_IS]

    @property
    def chosen(self) -> dict[str, str]:
        """id -> value of the chosen label."""
        return self.labels[self.label] if self.label is not None else {}


def evaluate(
    model: Path,
    data: Path,
    out: Path,
    settings: EvaluateSettings | None = None,
    *,
    command: str = "polymodal evaluate",
    device: str = "cpu",
    progress: Progress | None = None,
) -> EvaluateResult:
    """Measure a model on a split and write the report.

    Args:
        model: a run directory (whose loss curves are shown too) or a model folder.
        out: a folder; a report in it is replaced.
        command: shown on the page.
        progress: called with the stage, what is done of it, and all of it.

    Raises:
        BadInput: a split or label that the data lacks, data of other modalities than the model's.
        MissingExtra: matplotlib or scikit-learn is not installed.
    """
    settings = settings or EvaluateSettings()
    if out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")
    world = _prepare(model, data, settings, progress or _silent, device)
    _embed(world)
    report = _measure(world, Path(model), Path(data), command)
    world.say("writing the report", 0, 1)
    paths = write_report(out, report, seed=settings.seed)
    world.say("writing the report", 1, 1)
    said = [s for comparison in report.comparisons for s in statements(comparison)]
    return EvaluateResult(
        *paths,
        len(world.records),
        world.embedder.model,
        tuple(h.to_json() for h in report.headlines),
        tuple(s.text for s in said),
        tally(said, "fused") if said else "",
        headlines.figures(report, world.label),
        leak_warning(report.leaks),
    )


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Tells nobody."""


def _prepare(model: Path, data: Path, settings: EvaluateSettings, say: Progress, device: str) -> _World:
    opened = open_task(model, data, device)
    rows, embedder, labels = opened.rows, opened.embedder, opened.labels
    numbers = draw_rows(split_rows(rows, settings.split), settings.max_items, settings.seed)
    if settings.label is not None:
        opened.label(settings.label)
    say("reading", 0, len(numbers))
    records = list(records_of(rows, numbers))
    world = _World(rows, embedder, settings, say, records, labels=labels, together=opened.together)
    world.label = settings.label or next(iter(labels), None)
    if world.label is None:
        world.notes.append("The data has no labels: label retrieval, probes and clusters are left out.")
    say("reading", len(numbers), len(numbers))
    return world


def _embed(world: _World) -> None:
    settings, done = world.settings, 0
    train = _learning_rows(world)
    total = len(world.records) + len(train)

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        world.say("embedding", done, total)

    subsets = subsets_of([name for name in world.embedder.modalities if name in world.rows.modalities])
    world.found = embed_subsets(world.embedder, world.records, subsets, progress=count)
    if not world.found.fused:
        raise BadInput(
            "data", f"rows that have one of {', '.join(world.embedder.modalities)}", f"none in split {settings.split!r}"
        )
    if len(train):
        records = list(records_of(world.rows, train))
        world.learnt = embed_subsets(world.embedder, records, [], control=False, progress=count)


def _learning_rows(world: _World) -> npt.NDArray[np.int64]:
    """Rows that probes learn from: of the training split, and never one that is evaluated."""
    settings = world.settings
    if world.label is None:
        return np.zeros(0, np.int64)
    evaluated = {record.id for record in world.records}
    ids = world.rows.index["id"].to_pylist()
    rows = [row for row in split_rows(world.rows, settings.train_split).tolist() if ids[row] not in evaluated]
    if not rows:
        world.notes.append("No rows are left to learn from beside those evaluated: probes are left out.")
    return draw_rows(np.asarray(rows, np.int64), 2 * settings.max_items, settings.seed)


def _measure(world: _World, model: Path, data: Path, command: str) -> Report:
    found, settings = world.found, world.settings
    steps = ["retrieval", "subsets against subsets", "controls", "probes", "clusters", "examples"]

    def step(name: str) -> None:
        world.say(f"measuring: {name}", steps.index(name), len(steps))

    step("retrieval")
    retrievals = _retrievals(world)
    step("subsets against subsets")
    single = {s: e for s, e in found.fused.items() if s}
    matrix = subset_matrix(single, **world.options)
    comparisons: tuple[Comparison, ...] = ()
    scores: tuple[SubsetScore, ...] = ()
    step("controls")
    if world.label is not None:
        comparisons = (_compare(world),)
        scores = subset_scores(found.fused, world.chosen, **world.options)
    step("probes")
    plan = ProbePlan(world.learnt, found, world.labels, world.names, world.options)
    probes = probe_labels(plan, world.label)
    step("clusters")
    weights, note = mean_harmony(world.embedder.recipe, found)
    world.notes += [note] if note else []
    clusters = _clusters(world)
    step("examples")
    examples = examples_of(
        found, world.embedder.modalities, world.chosen, world.label or "", settings.examples, settings.seed
    )
    shown = thumbnails_of(world.records, world.embedder, found.fused[AS_IS].ids)
    report = Report(
        title=f"{world.embedder.recipe.name} on {data.resolve().parent.name}/{data.name}, {settings.split}",
        command=command,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=facts_of(world.rows, len(world.embedder.quarantine)),
        retrievals=retrievals,
        matrix=matrix,
        subset_scores=scores,
        comparisons=comparisons,
        probes=probes,
        clusterings=clusters,
        weights=weights,
        geometry={
            "fused": geometry(world.fused.vectors),
            **{n: geometry(found.towers[n].vectors) for n in world.names if len(found.towers[n]) > 1},
        },
        breakdowns=_breakdowns(world, comparisons),
        examples=examples,
        curves=curves_of(model),
        space=world.fused,
        space_labels=world.chosen,
        space_label=world.label or "",
        space_presence=found.presence,
        thumbnails=shown,
        titles={r.id: title_of(r) for r in world.records},
        descriptions={i: v for i, v in world.chosen.items() if i in found.presence},
        leaks=tuple(label_leak(world.records, v, name, world.names) for name, v in world.labels.items()),
        notes=_notes(world),
    )
    return headlines.with_headlines(report, world.label)


def _retrievals(world: _World) -> dict[str, Retrieval]:
    """Tower looks for tower, over every ordered pair of modalities; the fused vector looks for items of one label."""
    towers, out = world.found.towers, {}
    for query in world.names:
        for target in world.names:
            wanted = frozenset(towers[target].ids)
            rows = [row for row, name in enumerate(towers[query].ids) if name in wanted]
            if query != target and rows:
                asked = Embeddings(
                    tuple(towers[query].ids[r] for r in rows), towers[query].vectors[rows], towers[query].model
                )
                out[f"{query} → {target}"] = retrieve(
                    asked, towers[target], by_id(asked.ids, towers[target].ids), metrics=_INSTANCE, **world.options
                )
    for label in [world.label] if world.label is not None else []:
        for name, vectors in (("fused", world.fused), *towers.items()):
            relevance = by_key(vectors.ids, vectors.ids, world.labels[label])
            if (relevance.count > 0).any():
                out[f"{name}: same {label}"] = retrieve(vectors, vectors, relevance, metrics=_LABEL, **world.options)
    return out


def _compare(world: _World) -> Comparison:
    """The fused vector against zero imputation, mean fusion of the towers, chance, and each modality alone."""
    found = world.found
    mean = {
        s: mean_fusion({n: _only(found.towers[n], e.ids) for n in (s or world.names) if n in found.towers})
        for s, e in found.fused.items()
    }
    controls = {
        "fused": found.fused,
        "zero imputation": found.imputed,
        "mean fusion": mean,
        "random": {s: random_like(e, seed=world.settings.seed) for s, e in found.fused.items()},
        **{f"{name} alone": {AS_IS: found.towers[name]} for name in world.names},
    }
    return compare_controls(
        {k: v for k, v in controls.items() if v}, world.chosen, label=world.label or "", **world.options
    )


def _only(vectors: Embeddings, ids: Sequence[str]) -> Embeddings:
    wanted = frozenset(ids)
    rows = [row for row, name in enumerate(vectors.ids) if name in wanted]
    return Embeddings(tuple(vectors.ids[r] for r in rows), vectors.vectors[rows], vectors.model)


def _clusters(world: _World) -> tuple[Clustering, ...]:
    out = []
    for label, values in world.labels.items():
        known = {values[i] for i in world.fused.ids if i in values}
        if 1 < len(known) < len(world.fused) / 2 and (label == world.label or len(known) <= 50):
            out.append(cluster(world.fused, values, name=label, starts=4))
    return tuple(sorted(out, key=lambda c: c.name != world.label))


def _breakdowns(world: _World, comparisons: Sequence[Comparison]) -> tuple[Breakdown, ...]:
    out = []
    for comparison in comparisons:
        values = comparison.values["fused", AS_IS, "label_map"]
        title, metric = f"finding the same {world.label}", "mAP"
        out.append(
            Breakdown(
                f"{title}, by what an item has", metric, by_pattern(values, world.found.presence, **world.options)
            )
        )
        counts: dict[str, int] = {}
        for name in world.learnt.presence or world.found.presence:
            if name in world.chosen:
                counts[world.chosen[name]] = counts.get(world.chosen[name], 0) + 1
        labels = {i: world.chosen[i] for i in values if i in world.chosen}
        out.append(
            Breakdown(f"{title}, by how frequent it is", metric, by_band(values, labels, counts, **world.options))
        )
    return tuple(out)


def _notes(world: _World) -> tuple[str, ...]:
    settings, train = world.settings, len(world.learnt.presence)
    told = [
        f"Model {world.embedder.model}, {json.dumps(dict(world.embedder.modalities))}.",
        f"{len(world.records)} items of split {settings.split!r} are evaluated; "
        f"probes learn from {train} items of split {settings.train_split!r}.",
        "A subset's vector is made from its modalities alone, for the items that have all of them; "
        "“as is” means whatever an item has. Zero imputation attends blank cells in place of every modality "
        "left out; mean fusion averages the modalities' own vectors.",
    ]
    if any(record.id in world.together for record in world.records):
        told.append("Variants of a product are different items in instance retrieval. Intervals draw whole groups.")
    if not world.embedder.recipe.objective.aligned:
        told.append(
            f"Nothing in this model's objective ({world.embedder.recipe.objective.kind}) makes the vectors of single "
            "modalities comparable: where one modality looks for another, expect chance."
        )
    return (*told, *world.notes)
