"""How well a ranking finds what is wrong: the figures that all searches for faults report, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Difference, Interval, interval, paired
from polymodal.evaluate.intervals import Clusters, within
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
    if not sought.any() or sought.all():
        raise BadInput(
            "sought", "some rows that are sought and some that are not", f"{int(sought.sum())} of {len(sought)}"
        )
    others = np.sort(scores[~sought])
    below = np.searchsorted(others, scores[sought], "left") + np.searchsorted(others, scores[sought], "right")
    order = _order(scores, seed)
    hits = sought[order]
    precision = np.empty(len(scores))
    precision[order] = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision[np.isneginf(scores)] = 0.0
    first = hits[: int(sought.sum())] & ~np.isneginf(scores[order[: int(sought.sum())]])
    return below / (2 * len(others)), precision[sought], first.astype(np.float64)


def _order(scores: Floats, seed: int) -> Ints:
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    return np.asarray(shuffled[np.argsort(-scores[shuffled], kind="stable")], np.int64)


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
    judged = {
        name: [np.concatenate(part) for part in zip(*(rank_figures(s, y, seed) for s, y in each), strict=True)]
        for name, each in runs.items()
    }
    options: Any = {"resamples": resamples, "seed": seed}
    wanted, top = _clusters(runs, clusters, seed)
    out: list[Ranked] = []
    ours: Floats | None = None
    for name, (auroc, precision, first) in judged.items():
        better = None if ours is None else paired(ours, precision, clusters=wanted, **options)
        ours = precision if ours is None else ours
        area, average = (interval(values, clusters=wanted, **options) for values in (auroc, precision))
        among = interval(first, clusters=top[name], **options)
        out.append(Ranked(name, area, average, among, len(first), better))
    return tuple(out)


def _clusters(
    runs: Mapping[str, list[tuple[Floats, Bools]]], clusters: Sequence[Ints] | None, seed: int
) -> tuple[Clusters, dict[str, Clusters]]:
    """Those of the sought rows, all repetitions together, and by name those of the rows that stand first."""
    if clusters is None:
        return None, dict.fromkeys(runs)
    top: dict[str, Clusters] = {}
    for name, each in runs.items():
        rows = [c[_order(s, seed)[: int(y.sum())]] for c, (s, y) in zip(clusters, each, strict=True)]
        top[name] = within(np.concatenate(rows), np.arange(sum(map(len, rows))))
    every = [c[y] for c, (_, y) in zip(clusters, next(iter(runs.values())), strict=True)]
    return within(np.concatenate(every), np.arange(sum(map(len, every)))), top
