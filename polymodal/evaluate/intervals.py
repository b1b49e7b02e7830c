"""Bootstrap intervals over queries or items, for one figure and for the paired difference of two.

Items of one group, such as the colours of one shirt, are no independent observations: where a question is answered
right for one of them it mostly is for all. Whole groups are drawn, then, wherever groups are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.values import Result
from polymodal.types import BadInput

__all__ = [
    "Clusters",
    "Difference",
    "Floats",
    "Interval",
    "Together",
    "bounds",
    "clusters_of",
    "groups_note",
    "interval",
    "intervals",
    "paired",
    "resample_weights",
    "resampled_means",
    "within",
]

Floats = npt.NDArray[np.float64]
# id -> group, of the items that are drawn together
Together = Mapping[str, str] | None
# (n,) the code of each row's group; None: each row is one of its own
Clusters = npt.NDArray[np.int64] | None

# numbers of one block of resampling weights (float32): 16 MB, whatever the number of queries
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval(Result):
    """A mean and its bootstrap interval.

    Args:
        mean: mean over the `n` queries (items) that could be judged; NaN when there is none.
        low, high: percentile interval; equal to the mean when n = 1.
        n: how many were averaged.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference(Result):
    """A paired difference, first minus second, over the queries both could be judged on.

    Args:
        mean, low, high, n: as in Interval.
        above: share of resamples in which the difference is above 0 (0.5 counted for exactly 0), in [0, 1].
    """

    mean: float
    low: float
    high: float
    n: int
    above: float

    @property
    def verdict(self) -> str:
        """`first`, `second` or `unclear` (the interval contains 0, or nothing was compared)."""
        if self.low > 0:
            return "first"
        return "second" if self.high < 0 else "unclear"


def clusters_of(ids: Sequence[str], together: Together) -> Clusters:
    """The group of each of n ids as a code, (n,); an id without a group is one of its own. None where all are."""
    known = together or {}
    names = [("group", known[i]) if i in known else ("id", i) for i in ids]
    code = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return np.asarray([code[name] for name in names], np.int64) if len(code) < len(names) else None


def groups_note(ids: Sequence[str], together: Together, what: str = "items") -> str:
    """What to say of intervals over these ids; "" where no two are of one group."""
    clusters = clusters_of(ids, together)
    if clusters is None:
        return ""
    return f"Intervals are of 95 % and draw whole groups: {len(ids)} {what} of {int(clusters.max()) + 1}."


def resample_weights(n: int, resamples: int, seed: int, clusters: Clusters = None) -> Iterator[npt.NDArray[np.float32]]:
    """How often each of n queries is drawn in each resample: blocks (r, n), r summing up to `resamples`.

    Without clusters rows sum to n. With them, as many clusters are drawn as there are, each with all of its queries,
    so that rows sum to n in the mean only and a figure is to be divided by what was drawn. One cluster alone would
    leave nothing to draw from: then queries are drawn.

    The same arguments give the same weights, so figures over one set of queries are paired.

    Args:
        clusters: (n,) a code for each query; any numbers.

    Source: Davison & Hinkley 1997, section 3.8, the first stage of two: whole clusters, as they are.
    """
    if clusters is not None and len(clusters) != n:
        raise BadInput("clusters", f"{n}, one for each value", len(clusters))
    codes, of = (None, None) if clusters is None else np.unique(clusters, return_inverse=True)
    if codes is None or len(codes) == 1:
        yield from _unit_weights(n, n, resamples, seed)
        return
    for weights in _unit_weights(len(codes), n, resamples, seed):
        yield weights[:, of]


def _unit_weights(units: int, columns: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """How often each of some units is drawn, in blocks that leave room for so many columns."""
    if columns * resamples <= _BLOCK:
        yield _small_weights(units, resamples, seed)
        return
    generator = np.random.default_rng([seed, units])
    step = max(1, _BLOCK // columns)
    for start in range(0, resamples, step):
        yield _draw(generator, units, min(step, resamples - start))


@lru_cache(maxsize=16)
def _small_weights(n: int, resamples: int, seed: int) -> npt.NDArray[np.float32]:
    weights = _draw(np.random.default_rng([seed, n]), n, resamples)
    weights.setflags(write=False)
    return weights


def _draw(generator: np.random.Generator, n: int, rows: int) -> npt.NDArray[np.float32]:
    cells = generator.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
    return np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)


def resampled_means(values: Floats, resamples: int, seed: int, clusters: Clusters = None) -> Floats:
    """Means of the columns of `values` (n, m) in every resample: (resamples, m). NaN cells are left out of the mean."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    complete = bool(known.all())
    blocks = []
    for weights in resample_weights(len(values), resamples, seed, clusters):
        counted = weights.sum(1, keepdims=True) if complete else weights @ known.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            blocks.append(np.asarray(weights @ filled / counted, np.float64))
    return np.concatenate(blocks)


def intervals(
    values: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95, clusters: Clusters = None
) -> list[Interval]:
    """Percentile bootstrap of the mean of every column.

    Args:
        values: (n, m), one row per query; NaN where a query cannot be judged.
        resamples: bootstrap resamples; 0 gives intervals without width.
        level: coverage, in (0, 1).
        clusters: (n,) rows that are drawn together (`clusters_of`).

    Returns:
        m intervals. Source: Efron 1979, percentile method (queries, or clusters of them, drawn with replacement, one
        draw for all columns).
    """
    counts = np.isfinite(values).sum(0)
    means = _column_means(values)
    if resamples == 0 or len(values) == 0:
        return [Interval(float(m), float(m), float(m), int(c)) for m, c in zip(means, counts, strict=True)]
    low, high = _percentiles(resampled_means(values, resamples, seed, clusters), level)
    return [Interval(float(m), float(a), float(b), int(c)) for m, a, b, c in zip(means, low, high, counts, strict=True)]


def interval(
    values: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95, clusters: Clusters = None
) -> Interval:
    """`intervals` of one column (n,)."""
    column = np.asarray(values, np.float64)[:, None]
    return intervals(column, resamples=resamples, seed=seed, level=level, clusters=clusters)[0]


def paired(
    first: Floats,
    second: Floats,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    clusters: Clusters = None,
) -> Difference:
    """Paired bootstrap of mean(first - second).

    Args:
        first, second: (n,) the two figures of the same queries in the same order; pairs with a NaN are left out.
        clusters: (n,) rows that are drawn together.
    """
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    clusters = within(clusters, np.isfinite(gap))
    gap = gap[np.isfinite(gap)]
    if len(gap) == 0:
        return Difference(float("nan"), float("nan"), float("nan"), 0, 0.5)
    if resamples == 0:
        mean = float(gap.mean())
        return Difference(mean, mean, mean, len(gap), (float(np.sign(mean)) + 1) / 2)
    drawn = resampled_means(gap[:, None], resamples, seed, clusters)
    low, high = _percentiles(drawn, level)
    above = float((drawn > 0).mean() + 0.5 * (drawn == 0).mean())
    return Difference(float(gap.mean()), float(low[0]), float(high[0]), len(gap), above)


def within(clusters: Clusters, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Clusters:
    """The clusters of some rows (mask or numbers); None for none."""
    return None if clusters is None else clusters[rows]


def bounds(whole: float, drawn: Floats, n: int) -> Interval:
    """The percentile interval (95 %) of a figure from its resamples; those that say nothing (NaN) are left out."""
    kept = drawn[np.isfinite(drawn)]
    low, high = np.percentile(kept, [2.5, 97.5]) if len(kept) else (whole, whole)
    return Interval(whole, float(low), float(high), n)


def _column_means(values: Floats) -> Floats:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(0) / known.sum(0), np.float64)


def _percentiles(drawn: Floats, level: float) -> tuple[Floats, Floats]:
    tail = (1 - level) / 2 * 100
    # a column can be NaN in a resample that drew none of its known queries; such resamples say nothing
    if np.isnan(drawn).any():
        empty = np.isnan(drawn).all(0)
        drawn = np.where(empty, 0.0, drawn)
        low, high = np.nanpercentile(drawn, [tail, 100 - tail], axis=0)
        return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return low, high
