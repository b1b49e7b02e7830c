"""What the model weighs, and what shape its space has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.values import Result
from polymodal.types import BadInput

__all__ = [
    "Geometry",
    "MeanWeights",
    "RankCorrelation",
    "alignment",
    "effective_rank",
    "geometry",
    "mean_weights",
    "spearman",
    "uniformity",
]

Floats = npt.NDArray[np.float64]

# 10! orders are enumerated exactly (spec: 10 pairs of 5 modalities); beyond that they are drawn
_EXACT = 10
_DRAWS = 100_000


@dataclass(frozen=True)
class MeanWeights(Result):
    """Mean harmonised weights.

    Args:
        names: M modality names, in the order of rows and columns.
        mean: (M, M) mean over the items that have both; NaN where none has.
        count: (M, M) how many have both.
    """

    names: tuple[str, ...]
    mean: Floats
    count: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankCorrelation(Result):
    """Spearman's rho in [-1, 1] (NaN when one side is constant), two-sided permutation `p`, `n` points.

    `exact`: all n! orders were enumerated; otherwise 100,000 seeded ones were drawn.
    """

    rho: float
    p: float
    n: int
    exact: bool


@dataclass(frozen=True)
class Geometry(Result):
    """Shape of a set of vectors: `effective_rank` in [1, min(n, E)], `width` E, `uniformity` <= 0, `items` n."""

    items: int
    width: int
    effective_rank: float
    uniformity: float


def mean_weights(
    weights: npt.NDArray[np.floating], present: npt.NDArray[np.bool_], names: Sequence[str]
) -> MeanWeights:
    """Mean weight matrix over the items that have both modalities of a cell.

    Args:
        weights: (n, M, M) per item; what stands in a cell of an absent modality is never read.
        present: (n, M).
        names: M modality names.

    Raises: BadInput: shapes that disagree.
    """
    size = len(names)
    if weights.shape != (len(present), size, size) or present.shape != (len(weights), size):
        raise BadInput("weights, present", f"(n, {size}, {size}) and (n, {size})", f"{weights.shape}, {present.shape}")
    both = present[:, :, None] & present[:, None, :]
    count = both.sum(0)
    total = np.where(both, weights, 0.0).sum(0, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return MeanWeights(tuple(names), np.asarray(total / count, np.float64), count)


def spearman(x: Sequence[float], y: Sequence[float], *, seed: int = 0) -> RankCorrelation:
    """Spearman's rank correlation with a permutation p-value, good for very few points.

    Ties get mean ranks. p = share of the orders of y whose |rho| reaches the observed one (rounding tolerated); with
    drawn orders (n > 10) the observed one is counted too.

    Raises: BadInput: different lengths, fewer than 2 points, or a value that is not finite.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise BadInput("x, y", "two sequences of one length >= 2, finite", f"{a.shape} and {b.shape}")
    left, right = _ranks(a), _ranks(b)
    scale = np.linalg.norm(left) * np.linalg.norm(right)
    exact = len(a) <= _EXACT
    if scale == 0:
        return RankCorrelation(float("nan"), 1.0, len(a), exact)
    rho = float(left @ right / scale)
    reached = total = 0
    for orders in _orders(len(a), exact, seed):
        found = np.abs(right[orders] @ left) / scale
        reached += int((found >= abs(rho) - 1e-12).sum())
        total += len(orders)
    p = reached / total if exact else (reached + 1) / (total + 1)
    return RankCorrelation(rho, p, len(a), exact)


def _ranks(values: Floats) -> Floats:
    """Mean ranks, centred."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    end = np.cumsum(counts)
    ranks = (end - (counts - 1) / 2)[inverse]
    return np.asarray(ranks - ranks.mean(), np.float64)


def _orders(n: int, exact: bool, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """All orders of n things, in blocks by their first thing; or seeded random ones."""
    if not exact:
        generator = np.random.default_rng(seed)
        for _ in range(10):
            yield generator.permuted(np.tile(np.arange(n), (_DRAWS // 10, 1)), axis=1)
        return
    rest = _all_orders(n - 1)
    for first in range(n):
        others = np.delete(np.arange(n), first)
        yield np.concatenate([np.full((len(rest), 1), first), others[rest]], 1)


def _all_orders(n: int) -> npt.NDArray[np.intp]:
    if n <= 1:
        return np.zeros((1, n), np.intp)
    if n <= 6:
        return np.asarray(list(itertools.permutations(range(n))), np.intp)
    smaller = _all_orders(n - 1)
    blocks = [np.insert(smaller, place, n - 1, axis=1) for place in range(n)]
    return np.concatenate(blocks)


def effective_rank(vectors: npt.NDArray[np.floating], *, centred: bool = False) -> float:
    """exp of the entropy of the singular values divided by their sum, in [1, min(n, E)].

    Args:
        vectors: (n, E), not all zero. centred: subtract the mean first.

    Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    Raises: BadInput: no vector, or all zero.
    """
    data = np.asarray(vectors, np.float64)
    data = data - data.mean(0) if centred else data
    sizes = np.linalg.svd(data, compute_uv=False) if data.size else np.zeros(0)
    if sizes.sum() <= 0:
        raise BadInput("vectors", "at least one vector that is not zero", f"shape {data.shape}")
    share = sizes / sizes.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def alignment(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating], *, power: float = 2.0) -> float:
    """Mean |x - y|^power over pairs of rows (n, E) that belong together; 0 = equal.

    Source: Wang & Isola 2020, "Understanding contrastive representation learning ...".
    """
    if first.shape != second.shape or len(first) == 0:
        raise BadInput("first, second", "two non-empty matrices of one shape", f"{first.shape}, {second.shape}")
    gap = np.linalg.norm(np.asarray(first, np.float64) - second, axis=1)
    return float((gap**power).mean())


def uniformity(vectors: npt.NDArray[np.floating], *, t: float = 2.0, block: int = 1024) -> float:
    """log of the mean of exp(-t |x - y|^2) over all pairs of different rows; lower = more even. 0 = all equal.

    Source: Wang & Isola 2020. Raises: BadInput: fewer than two rows.
    """
    data = np.asarray(vectors, np.float64)
    n = len(data)
    if n < 2:
        raise BadInput("vectors", "at least two rows", n)
    norms = (data**2).sum(1)
    total = 0.0
    for start in range(0, n, block):
        part = data[start : start + block]
        squared = np.maximum(norms[start : start + block, None] + norms - 2 * part @ data.T, 0.0)
        kernel = np.exp(-t * squared)
        total += float(kernel.sum()) - float(np.trace(kernel[:, start : start + len(part)]))
    return float(np.log(total / (n * (n - 1))))


def geometry(vectors: npt.NDArray[np.floating]) -> Geometry:
    """Effective rank (not centred) and uniformity of (n, E) vectors."""
    return Geometry(len(vectors), vectors.shape[1], effective_rank(vectors), uniformity(vectors))
