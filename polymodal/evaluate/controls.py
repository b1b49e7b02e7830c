"""The fused vector against what must be beaten: zero imputation, the mean of the towers, chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.intervals import Difference, Floats, Interval, Together, clusters_of, interval, paired
from polymodal.evaluate.probe import knn_votes
from polymodal.evaluate.relevance import by_key
from polymodal.evaluate.retrieval import judge, measure
from polymodal.evaluate.topk import rank_of, top_k
from polymodal.evaluate.values import AS_IS, Result, Subset, subset_order
from polymodal.types import BadInput, Embeddings

__all__ = [
    "METRICS",
    "Comparison",
    "ControlDifference",
    "ControlScore",
    "SizeScore",
    "compare_controls",
    "item_scores",
    "mean_fusion",
    "random_like",
]

# label_map: average precision of finding items of the same label with the same kind of vector; label_knn: k-NN
# accuracy, leaving one out; instance_mrr: finding the same item by each single modality that the query lacks
METRICS = ("label_map", "label_knn", "instance_mrr")


@dataclass(frozen=True)
class ControlScore(Result):
    """One control on one subset: mean of a metric over the items the control has a vector for."""

    control: str
    subset: Subset
    metric: str
    score: Interval


@dataclass(frozen=True)
class ControlDifference(Result):
    """Reference minus control on one subset, over the items both have; the corpus is these items too."""

    control: str
    subset: Subset
    metric: str
    difference: Difference


@dataclass(frozen=True)
class SizeScore(Result):
    """A control over all subsets of one size: every item's mean over its subsets, then the mean over items.

    `difference` is reference minus control, paired by item; None for the reference itself.
    """

    control: str
    size: int
    metric: str
    score: Interval
    difference: Difference | None


@dataclass(frozen=True)
class Comparison(Result):
    """The reference against its controls.

    Args:
        reference: name of the control that is ours (`fused`).
        label: what the labels are.
        scores, differences: by control, subset and metric; AS_IS is the subset "whatever each item has".
        sizes: by control, number of modalities and metric.
        values: (control, subset, metric) -> {id: figure}; not in the JSON.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"values"})
    reference: str
    label: str
    scores: tuple[ControlScore, ...]
    differences: tuple[ControlDifference, ...]
    sizes: tuple[SizeScore, ...]
    values: Mapping[tuple[str, Subset, str], Mapping[str, float]] = field(repr=False)

    def difference(self, control: str, subset: Subset = AS_IS, metric: str = "label_map") -> Difference | None:
        """The paired difference reference minus `control`, or None if it was not measured."""
        for row in self.differences:
            if (row.control, row.subset, row.metric) == (control, subset, metric):
                return row.difference
        return None


def mean_fusion(per_modality: Mapping[str, Embeddings]) -> Embeddings:
    """Late fusion: the mean of the unit vectors of the modalities an item has, made unit length again.

    Args:
        per_modality: modality -> vectors of the items that have it; all of one width and one model.

    Returns:
        Vectors of every item that has any, in order of first appearance. Where the unit vectors cancel out exactly,
        the first modality's vector (by name) stands, because no direction is left.

    Raises: BadInput: nothing given, or different widths.
    """
    given = [per_modality[name] for name in sorted(per_modality)]
    if not given or len({e.width for e in given}) != 1:
        raise BadInput("per_modality", "vectors of one width", sorted({e.width for e in given}))
    ids = tuple(dict.fromkeys(i for e in given for i in e.ids))
    at = {name: row for row, name in enumerate(ids)}
    total = np.zeros((len(ids), given[0].width))
    first = np.zeros_like(total)
    for embeddings in given:
        rows = np.asarray([at[i] for i in embeddings.ids], np.int64)
        unit = _unit(embeddings.vectors.astype(np.float64))
        fresh = ~first[rows].any(1)
        first[rows[fresh]] = unit[fresh]
        total[rows] += unit
    lost = np.linalg.norm(total, axis=1) < 1e-9
    total[lost] = first[lost]
    return Embeddings(ids, _unit(total).astype(np.float32), given[0].model)


def random_like(embeddings: Embeddings, *, seed: int = 0) -> Embeddings:
    """Random unit vectors (uniform on the sphere) for the same ids."""
    drawn = np.random.default_rng(seed).standard_normal(embeddings.vectors.shape)
    return Embeddings(embeddings.ids, _unit(drawn).astype(np.float32), "random")


def _unit(data: Floats) -> Floats:
    return np.asarray(data / np.maximum(np.linalg.norm(data, axis=1, keepdims=True), 1e-12), np.float64)


def item_scores(
    embeddings: Embeddings,
    labels: Mapping[str, str],
    *,
    others: Sequence[Embeddings] = (),
    equivalents: Mapping[str, str | None] | None = None,
    k: int = 10,
) -> dict[str, Floats]:
    """The METRICS of every item.

    Args:
        labels: id -> label; items without one have NaN and are not in the corpus of the label metrics.
        others: vectors of the same items made from other modalities, searched one by one for `instance_mrr`; an item's
            value is its mean over those that have it. Empty leaves the metric out.
        equivalents: id -> group; items of one group are all right answers of `instance_mrr`.
        k: neighbours of label_knn (weighted votes).

    Returns:
        metric -> (n,) in the order of `embeddings.ids`.
    """
    out: dict[str, Floats] = {}
    rows = np.asarray([r for r, i in enumerate(embeddings.ids) if labels.get(i) is not None], np.int64)
    if len(rows) > 1:
        out["label_map"], out["label_knn"] = np.full((2, len(embeddings)), np.nan)
        out["label_map"][rows], out["label_knn"][rows] = _label_scores(embeddings, rows, labels, k)
    if others:
        found = np.stack([_instance_mrr(embeddings, corpus, equivalents or {}) for corpus in others])
        known = np.isfinite(found).sum(0)
        total = np.where(np.isfinite(found), found, 0.0).sum(0)
        out["instance_mrr"] = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    return out


def _label_scores(
    embeddings: Embeddings, rows: npt.NDArray[np.int64], labels: Mapping[str, str], k: int
) -> tuple[Floats, Floats]:
    ids = [embeddings.ids[r] for r in rows]
    vectors = embeddings.vectors[rows]
    relevance = by_key(ids, ids, labels)
    precision, right = [], []
    for start in range(0, len(rows), 512):
        part = np.arange(start, min(start + 512, len(rows)))
        found, scores = top_k(vectors[part], vectors, len(rows), ids=ids, exclude=part)
        precision.append(measure(judge(relevance, part, found), "map"))
        near, cosine = found[:, :k], np.where(found[:, :k] >= 0, scores[:, :k], -1.0).astype(np.float64)
        codes = np.where(near >= 0, relevance.corpus[near], -1)
        votes = knn_votes(cosine, codes, int(relevance.corpus.max()) + 1).argmax(1)
        right.append((votes == relevance.queries[part]).astype(np.float64))
    return np.concatenate(precision), np.concatenate(right)


def _instance_mrr(queries: Embeddings, corpus: Embeddings, equivalents: Mapping[str, str | None]) -> Floats:
    """1 / rank of the first right answer; NaN where the corpus has none."""
    out = np.full(len(queries), np.nan)
    if not equivalents:
        at = {name: row for row, name in enumerate(corpus.ids)}
        known = np.asarray([r for r, i in enumerate(queries.ids) if i in at], np.int64)
        targets = np.asarray([at[queries.ids[r]] for r in known], np.int64)
        out[known] = 1 / rank_of(queries.vectors[known], corpus.vectors, targets, ids=corpus.ids)
        return out
    relevance = by_key(queries.ids, corpus.ids, equivalents, itself="relevant")
    for start in range(0, len(queries), 512):
        part = np.arange(start, min(start + 512, len(queries)))
        found, _ = top_k(queries.vectors[part], corpus.vectors, len(corpus), ids=corpus.ids)
        out[part] = measure(judge(relevance, part, found), "mrr")
    return out


class _Bench:
    """Scores of every control on every subset, computed once for each set of items."""

    def __init__(
        self,
        controls: Mapping[str, Mapping[Subset, Embeddings]],
        labels: Mapping[str, str],
        modalities: Subset,
        equivalents: Mapping[str, str | None] | None,
        k: int,
    ) -> None:
        self.controls, self.labels, self.modalities = controls, labels, modalities
        self.equivalents, self.k = equivalents, k
        self.known: dict[tuple[str, Subset, tuple[str, ...]], dict[str, Floats]] = {}

    def scores(self, control: str, subset: Subset, ids: tuple[str, ...]) -> dict[str, Floats]:
        """The metrics of `ids` (in that order) within the corpus of `ids`."""
        key = (control, subset, ids)
        if key not in self.known:
            given = self.controls[control]
            rest = [frozenset({m}) for m in sorted(self.modalities - subset)] if subset else []
            found = [_only(given[other], frozenset(ids)) for other in rest if other in given]
            others = [e for e in found if len(e)]
            self.known[key] = item_scores(
                _ordered(given[subset], ids), self.labels, others=others, equivalents=self.equivalents, k=self.k
            )
        return self.known[key]


def _only(embeddings: Embeddings, ids: frozenset[str]) -> Embeddings:
    rows = [r for r, i in enumerate(embeddings.ids) if i in ids]
    return Embeddings(tuple(embeddings.ids[r] for r in rows), embeddings.vectors[rows], embeddings.model)


def _ordered(embeddings: Embeddings, ids: tuple[str, ...]) -> Embeddings:
    return embeddings if embeddings.ids == ids else Embeddings(ids, embeddings.rows(ids), embeddings.model)


def compare_controls(
    controls: Mapping[str, Mapping[Subset, Embeddings]],
    labels: Mapping[str, str],
    *,
    reference: str = "fused",
    label: str = "label",
    equivalents: Mapping[str, str | None] | None = None,
    k: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Comparison:
    """Every control on every subset it shares with the reference, with paired bootstrap differences.

    Args:
        controls: control -> subset -> vectors of the items that have the subset. AS_IS (the empty subset) holds the
            vectors made from whatever each item has; a control "image alone" is the image vectors under AS_IS.
        labels: id -> label.
        reference: the control that all others are compared with.
        together: id -> group of items that are no independent observations: of the intervals.

    Returns:
        Scores on each control's own items; differences on the items both have (scored again on these).

    Raises: BadInput: the reference is missing, or has no subset.
    """
    if not controls.get(reference):
        raise BadInput("controls", f"vectors of {reference!r}", sorted(controls))
    modalities = frozenset[str]().union(*controls[reference])
    bench = _Bench(controls, labels, modalities, equivalents, k)
    options: Any = {"resamples": resamples, "seed": seed}
    scores: list[ControlScore] = []
    differences: list[ControlDifference] = []
    values: dict[tuple[str, Subset, str], Mapping[str, float]] = {}
    gaps: dict[tuple[str, Subset, str], Mapping[str, float]] = {}
    for control, given in controls.items():
        for subset in subset_order(s for s in given if s in controls[reference] and len(given[s])):
            ids = given[subset].ids
            drawn = clusters_of(ids, together)
            for metric, found in bench.scores(control, subset, ids).items():
                scores.append(ControlScore(control, subset, metric, interval(found, clusters=drawn, **options)))
                values[control, subset, metric] = dict(zip(ids, found.tolist(), strict=True))
            if control == reference:
                continue
            shared = _shared(controls[reference][subset].ids, ids)
            drawn = clusters_of(shared, together)
            ours, theirs = (bench.scores(name, subset, shared) for name in (reference, control))
            for metric in [m for m in METRICS if m in ours and m in theirs]:
                gap = paired(ours[metric], theirs[metric], clusters=drawn, **options)
                differences.append(ControlDifference(control, subset, metric, gap))
                gaps[control, subset, metric] = dict(zip(shared, (ours[metric] - theirs[metric]).tolist(), strict=True))
    sizes = _by_size(list(controls), reference, values, gaps, together, options)
    return Comparison(reference, label, tuple(scores), tuple(differences), sizes, values)


def _shared(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    if first == second:
        return tuple(first)
    other = frozenset(second)
    return tuple(i for i in first if i in other)


def _by_size(
    controls: Sequence[str],
    reference: str,
    values: Mapping[tuple[str, Subset, str], Mapping[str, float]],
    gaps: Mapping[tuple[str, Subset, str], Mapping[str, float]],
    together: Together,
    options: Any,
) -> tuple[SizeScore, ...]:
    out: list[SizeScore] = []
    sizes = sorted({len(subset) for _, subset, _ in values if subset})
    for control in controls:
        for size in sizes:
            for metric in METRICS:
                ids, score = _item_means(values, control, size, metric)
                if not len(score):
                    continue
                shared, gap = _item_means(gaps, control, size, metric)
                against = None
                if control != reference:
                    against = paired(gap, np.zeros(len(gap)), clusters=clusters_of(shared, together), **options)
                whole = interval(score, clusters=clusters_of(ids, together), **options)
                out.append(SizeScore(control, size, metric, whole, against))
    return tuple(out)


def _item_means(
    values: Mapping[tuple[str, Subset, str], Mapping[str, float]], control: str, size: int, metric: str
) -> tuple[list[str], Floats]:
    """Ids, and their means over the subsets of one size."""
    total: dict[str, list[float]] = {}
    for (name, subset, kind), found in values.items():
        if (name, len(subset), kind) == (control, size, metric):
            for item, value in found.items():
                if np.isfinite(value):
                    total.setdefault(item, []).append(value)
    return list(total), np.asarray([float(np.mean(v)) for v in total.values()], np.float64)
