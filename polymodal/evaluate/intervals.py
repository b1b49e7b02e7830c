"""Bootstrap intervals over queries, for one figure and for the paired difference of two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.values import Result

__all__ = ["Difference", "Floats", "Interval", "interval", "intervals", "paired", "resample_weights"]

Floats = npt.NDArray[np.float64]

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


def resample_weights(n: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """How often each of n queries is drawn in each resample: blocks (r, n), r summing up to `resamples`.

    Rows sum to n. The same (n, resamples, seed) gives the same weights, so figures over one set of queries are paired.
    """
    if n * resamples <= _BLOCK:
        yield _small_weights(n, resamples, seed)
        return
    generator = np.random.default_rng([seed, n])
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        yield _draw(generator, n, min(step, resamples - start))


@lru_cache(maxsize=16)
def _small_weights(n: int, resamples: int, seed: int) -> npt.NDArray[np.float32]:
    weights = _draw(np.random.default_rng([seed, n]), n, resamples)
    weights.setflags(write=False)
    return weights


def _draw(generator: np.random.Generator, n: int, rows: int) -> npt.NDArray[np.float32]:
    cells = generator.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
    return np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of the columns of `values` (n, m) in every resample: (resamples, m). NaN cells are left out of the mean."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    complete = bool(known.all())
    blocks = []
    for weights in resample_weights(len(values), resamples, seed):
        counted = float(len(values)) if complete else weights @ known.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            blocks.append(np.asarray(weights @ filled / counted, np.float64))
    return np.concatenate(blocks)


def intervals(values: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> list[Interval]:
    """Percentile bootstrap of the mean of every column.

    Args:
        values: (n, m), one row per query; NaN where a query cannot be judged.
        resamples: bootstrap resamples; 0 gives intervals without width.
        level: coverage, in (0, 1).

    Returns:
        m intervals. Source: Efron 1979, percentile method (queries drawn with replacement, one draw for all columns).
    """
    counts = np.isfinite(values).sum(0)
    means = _column_means(values)
    if resamples == 0 or len(values) == 0:
        return [Interval(float(m), float(m), float(m), int(c)) for m, c in zip(means, counts, strict=True)]
    low, high = _percentiles(resampled_means(values, resamples, seed), level)
    return [Interval(float(m), float(a), float(b), int(c)) for m, a, b, c in zip(means, low, high, counts, strict=True)]


def interval(values: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """`intervals` of one column (n,)."""
    return intervals(np.asarray(values, np.float64)[:, None], resamples=resamples, seed=seed, level=level)[0]


def paired(first: Floats, second: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Difference:
    """Paired bootstrap of mean(first - second).

    Args:
        first, second: (n,) the two figures of the same queries in the same order; pairs with a NaN are left out.
    """
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    gap = gap[np.isfinite(gap)]
    if len(gap) == 0:
        return Difference(float("nan"), float("nan"), float("nan"), 0, 0.5)
    if resamples == 0:
        mean = float(gap.mean())
        return Difference(mean, mean, mean, len(gap), (float(np.sign(mean)) + 1) / 2)
    drawn = resampled_means(gap[:, None], resamples, seed)
    low, high = _percentiles(drawn, level)
    above = float((drawn > 0).mean() + 0.5 * (drawn == 0).mean())
    return Difference(float(gap.mean()), float(low[0]), float(high[0]), len(gap), above)


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
