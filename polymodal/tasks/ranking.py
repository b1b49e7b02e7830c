"""How well a ranking finds what is wrong: the figures that all searches for faults report, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Difference, Interval, interval, paired
from polymodal.evaluate.intervals import Clusters
from polymodal.evaluate.values import Result
from polymodal.types import BadInput

__all__ = ["Ranked", "compare_rankings", "rank_figures"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranked(Result):
    """How one score ranks what is sought.

    Args:
        name: of the score.
        auroc: chance that what is sought scores higher than what is not, ties counted half.
        average_precision: mean over what is sought of the precision where it stands.
        precision: among the first `k`.
        k: how many are sought, all repetitions together.
        better: our score minus this one, paired by what is sought, in average precision; None for our own.
    """

    name: str
    auroc: Interval
    average_precision: Interval
    precision: Interval
    k: int
    better: Difference | None = None


def rank_figures(scores: Floats, sought: Bools, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """One ranking, judged.

    Args:
        scores: (n,), highest first; equal scores stand in a random order, so that a score that says nothing gets what
            chance gets, however the rows are ordered.
        sought: (n,), at least one True and one False.

    Returns:
        Of each sought row its AUROC and its precision, (k,) each, and whether each of the first k is sought, (k,).
        Means of the first two are the AUROC and the average precision of the ranking; a sought row that no score
        reached (-inf) has precision 0.

    Raises:
        BadInput: nothing is sought, or everything.
    """
    return _judged(scores, sought, seed)[:3]


def _judged(scores: Floats, sought: Bools, seed: int) -> tuple[Floats, Floats, Floats, Ints]:
    """`rank_figures`, and the first k rows."""
    if not sought.any() or sought.all():
        raise BadInput(
            "sought", "some rows that are sought and some that are not", f"{int(sought.sum())} of {len(sought)}"
        )
    others = np.sort(scores[~sought])
    below = np.searchsorted(others, scores[sought], "left") + np.searchsorted(others, scores[sought], "right")
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    order = np.asarray(shuffled[np.argsort(-scores[shuffled], kind="stable")], np.int64)
    hits = sought[order]
    precision = np.empty(len(scores))
    precision[order] = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision[np.isneginf(scores)] = 0.0
    top = order[: int(sought.sum())]
    first = sought[top] & ~np.isneginf(scores[top])
    return below / (2 * len(others)), precision[sought], first.astype(np.float64), top


def compare_rankings(
    runs: Mapping[str, list[tuple[Floats, Bools]]],
    *,
    clusters: Sequence[Ints] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Ranked, ...]:
    """Several scores on the same rows; the first is ours, the others its controls.

    Args:
        runs: name -> one (scores, sought) a repetition; all names have the same `sought`.
        clusters: of each repetition (n,), rows that are drawn together in the intervals; rows of one cluster in several
            repetitions are drawn together as well.
    """
    options: Any = {"resamples": resamples, "seed": seed}
    out: list[Ranked] = []
    ours: Floats | None = None
    for name, each in runs.items():
        found = [_judged(scores, sought, seed) for scores, sought in each]
        auroc, precision, first = (np.concatenate([one[part] for one in found]) for part in range(3))
        wanted = _drawn(clusters, [np.flatnonzero(sought) for _, sought in each])
        better = None if ours is None else paired(ours, precision, clusters=wanted, **options)
        ours = precision if ours is None else ours
        area, average = (interval(values, clusters=wanted, **options) for values in (auroc, precision))
        among = interval(first, clusters=_drawn(clusters, [one[3] for one in found]), **options)
        out.append(Ranked(name, area, average, among, len(first), better))
    return tuple(out)


def _drawn(clusters: Sequence[Ints] | None, rows: Sequence[Ints]) -> Clusters:
    """The clusters of some rows of each repetition, one after the other."""
    return None if clusters is None else np.concatenate([c[some] for c, some in zip(clusters, rows, strict=True)])
