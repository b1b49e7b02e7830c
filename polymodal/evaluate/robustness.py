"""What is left when modalities are missing: every query subset against every target subset, and each subset alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.controls import (
    Comparison,
    ControlDifference,
    ControlScore,
    SizeScore,
    compare_controls,
    item_scores,
    mean_fusion,
    random_like,
)
from polymodal.evaluate.intervals import Floats, Interval, Together, clusters_of, interval, intervals
from polymodal.evaluate.relevance import by_id, by_key
from polymodal.evaluate.retrieval import chance, judge, measure
from polymodal.evaluate.topk import rank_of, top_k
from polymodal.evaluate.values import AS_IS, Result, Subset, subset_order
from polymodal.types import BadInput, Embeddings

__all__ = [
    "AS_IS",
    "MATRIX_METRICS",
    "Cell",
    "Comparison",
    "ControlDifference",
    "ControlScore",
    "SizeScore",
    "SubsetMatrix",
    "SubsetScore",
    "compare_controls",
    "mean_fusion",
    "random_like",
    "subset_matrix",
    "subset_scores",
]

# hit@k is the R@k of cross-modal papers: a right item among the first k
MATRIX_METRICS = ("hit@1", "hit@5", "hit@10", "map", "mrr")


@dataclass(frozen=True)
class Cell(Result):
    """One query subset looking for one target subset of the same items.

    `queries` items have both subsets, `corpus` items have the target; `metrics` and `chance` by MATRIX_METRICS.
    """

    query: Subset
    target: Subset
    queries: int
    corpus: int
    metrics: Mapping[str, Interval]
    chance: Mapping[str, float]


@dataclass(frozen=True)
class SubsetMatrix(Result):
    """All cells. `modalities`: every name that occurs, sorted."""

    modalities: tuple[str, ...]
    cells: tuple[Cell, ...]

    def grid(self, metric: str) -> tuple[list[Subset], Floats]:
        """Subsets in order (singles, pairs, ...) and (n, n) means: row = query, column = target, NaN = not measured."""
        subsets = subset_order({c.query for c in self.cells} | {c.target for c in self.cells})
        at = {s: row for row, s in enumerate(subsets)}
        out = np.full((len(subsets), len(subsets)), np.nan)
        for cell in self.cells:
            out[at[cell.query], at[cell.target]] = cell.metrics[metric].mean
        return subsets, out

    def cell(self, query: Subset, target: Subset) -> Cell | None:
        """The cell of one pair, or None."""
        return next((c for c in self.cells if (c.query, c.target) == (query, target)), None)


@dataclass(frozen=True)
class SubsetScore(Result):
    """One subset's vectors alone: `label_map` and k-NN accuracy `label_knn` (leave one out) over its `items`."""

    subset: Subset
    items: int
    label_map: Interval
    label_knn: Interval


def subset_matrix(
    subsets: Mapping[Subset, Embeddings],
    *,
    equivalents: Mapping[str, str | None] | None = None,
    pairs: Literal["disjoint", "all"] = "disjoint",
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> SubsetMatrix:
    """Instance retrieval between subsets of modalities.

    The query is an item's vector made from one subset; the corpus is every item's vector made from another; right is
    the same item (or, with `equivalents`, any item of its group or content).

    Args:
        subsets: subset -> vectors of the items that have all of it, one width. AS_IS is ignored.
        equivalents: id -> group or content digest; None or no entry = only itself.
        pairs: `disjoint` subsets only, or all (overlapping ones share evidence and are easier).
        together: id -> group of items that are no independent observations: of the intervals.

    Raises: BadInput: no subset with items.
    """
    filled = {s: e for s, e in subsets.items() if s and len(e)}
    if not filled:
        raise BadInput("subsets", "vectors of at least one subset of modalities", "none")
    order = subset_order(filled)
    cells = [
        cell
        for query in order
        for target in order
        if (pairs == "all" or not query & target)
        and (cell := _cell(query, target, filled, equivalents, resamples, seed, together)) is not None
    ]
    return SubsetMatrix(tuple(sorted(frozenset[str]().union(*order))), tuple(cells))


def _cell(
    query: Subset,
    target: Subset,
    subsets: Mapping[Subset, Embeddings],
    equivalents: Mapping[str, str | None] | None,
    resamples: int,
    seed: int,
    together: Together,
) -> Cell | None:
    left, right = subsets[query], subsets[target]
    at = {name: row for row, name in enumerate(right.ids)}
    rows = np.asarray([r for r, i in enumerate(left.ids) if i in at], np.int64)
    if not len(rows):
        return None
    ids = [left.ids[r] for r in rows]
    relevance = by_key(ids, right.ids, equivalents, itself="relevant") if equivalents else by_id(ids, right.ids)
    if bool((relevance.count == 1).all()):
        values = _from_ranks(left.vectors[rows], right, np.asarray([at[i] for i in ids], np.int64))
    else:
        every = np.arange(len(rows))
        found, _ = top_k(left.vectors[rows], right.vectors, len(right), ids=right.ids)
        judged = judge(relevance, every, found)
        values = np.stack([measure(judged, metric) for metric in MATRIX_METRICS], 1)
    figures = intervals(values, resamples=resamples, seed=seed, clusters=clusters_of(ids, together))
    luck = {m: v for m in MATRIX_METRICS if (v := chance(m, relevance, len(right))) is not None}
    return Cell(query, target, len(rows), len(right), dict(zip(MATRIX_METRICS, figures, strict=True)), luck)


def _from_ranks(vectors: npt.NDArray[np.float32], corpus: Embeddings, targets: npt.NDArray[np.int64]) -> Floats:
    """MATRIX_METRICS where one item is right: everything follows from its rank, and nothing needs sorting."""
    rank = rank_of(vectors, corpus.vectors, targets, ids=corpus.ids)
    hits = [(rank <= int(m.partition("@")[2])).astype(np.float64) for m in MATRIX_METRICS if m.startswith("hit")]
    return np.stack([*hits, 1 / rank, 1 / rank], 1)


def subset_scores(
    subsets: Mapping[Subset, Embeddings],
    labels: Mapping[str, str],
    *,
    k: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> tuple[SubsetScore, ...]:
    """Label retrieval and k-NN classification within every subset's vectors, the query left out; AS_IS included.

    Args:
        subsets: subset -> vectors; labels: id -> label; k: neighbours.
        together: id -> group of items that are no independent observations: of the intervals.
    """
    options: Any = {"resamples": resamples, "seed": seed}
    out = []
    for subset in subset_order(s for s, e in subsets.items() if len(e)):
        found = item_scores(subsets[subset], labels, k=k)
        if "label_map" in found:
            options["clusters"] = clusters_of(subsets[subset].ids, together)
            precision, knn = (interval(found[m], **options) for m in ("label_map", "label_knn"))
            out.append(SubsetScore(subset, len(subsets[subset]), precision, knn))
    return tuple(out)
