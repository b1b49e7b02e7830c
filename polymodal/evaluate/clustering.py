"""k-means over embeddings and how well its clusters agree with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.values import Result
from polymodal.types import BadInput, Embeddings

__all__ = [
    "Clustering",
    "KMeans",
    "ari",
    "ari_of",
    "cluster",
    "contingency",
    "k_means",
    "nmi",
    "nmi_of",
    "purity",
    "purity_of",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KMeans:
    """`assigned` (n,) cluster of each row, `centres` (k, E), `inertia` sum of squared distances, `rounds` it took."""

    assigned: Ints
    centres: Floats
    inertia: float
    rounds: int


@dataclass(frozen=True)
class Clustering(Result):
    """Agreement of k-means with labels; means and standard deviations over `seeds` runs (population deviation).

    Args:
        name: what the labels are; k: clusters; items: clustered items; starts: restarts in each run.
        nmi: arithmetic normalisation, in [0, 1]. purity in (0, 1]. ari: adjusted Rand index, in [-0.5, 1].
    """

    name: str
    k: int
    items: int
    starts: int
    seeds: tuple[int, ...]
    nmi: float
    purity: float
    ari: float
    nmi_std: float
    purity_std: float
    ari_std: float


def k_means(
    vectors: npt.NDArray[np.floating],
    k: int,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    starts: int = 8,
    rounds: int = 100,
    seed: int = 0,
) -> KMeans:
    """Lloyd's k-means from k-means++ seeds, the best of several starts.

    Args:
        vectors: (n, E). metric: `cosine` works on unit vectors with unit centres (spherical k-means).
        k: in [1, n].

    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (seeding); Dhillon & Modha 2001 (spherical).
    Differences: a cluster that lost all rows takes the row that is farthest from its centre.
    Raises: BadInput: k out of range.
    """
    data = np.asarray(vectors, np.float64)
    if not 1 <= k <= len(data):
        raise BadInput("k", f"between 1 and the number of vectors ({len(data)})", k)
    if metric == "cosine":
        data = _unit(data)
    generator = np.random.default_rng(seed)
    runs = [_lloyd(data, _seeds(data, k, generator), metric == "cosine", rounds) for _ in range(starts)]
    return min(runs, key=lambda run: run.inertia)


def _unit(data: Floats) -> Floats:
    return np.asarray(data / np.maximum(np.linalg.norm(data, axis=1, keepdims=True), 1e-12), np.float64)


def _distances(data: Floats, centres: Floats) -> Floats:
    squared = (data**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * data @ centres.T
    return np.asarray(np.maximum(squared, 0.0), np.float64)


def _seeds(data: Floats, k: int, generator: np.random.Generator) -> Floats:
    chosen = [int(generator.integers(len(data)))]
    nearest = _distances(data, data[chosen])[:, 0]
    for _ in range(k - 1):
        total = nearest.sum()
        odds = nearest / total if total > 0 else None
        chosen.append(int(generator.choice(len(data), p=odds)))
        nearest = np.minimum(nearest, _distances(data, data[chosen[-1:]])[:, 0])
    return np.array(data[chosen], dtype=np.float64)


def _lloyd(data: Floats, centres: Floats, spherical: bool, rounds: int) -> KMeans:
    assigned = np.full(len(data), -1, np.int64)
    turn = 0
    for turn in range(1, rounds + 1):  # noqa: B007
        distance = _distances(data, centres)
        fresh = distance.argmin(1)
        _fill_empty(fresh, distance, len(centres))
        if (fresh == assigned).all():
            break
        assigned = fresh
        member = np.zeros((len(centres), len(data)))
        member[assigned, np.arange(len(data))] = 1
        centres = member @ data / member.sum(1, keepdims=True)
        centres = _unit(centres) if spherical else centres
    inertia = float(_distances(data, centres)[np.arange(len(data)), assigned].sum())
    return KMeans(assigned, centres, inertia, turn)


def _fill_empty(assigned: Ints, distance: Floats, k: int) -> None:
    """Give every empty cluster the row farthest from its centre, from clusters that keep another row."""
    sizes = np.bincount(assigned, minlength=k)
    for empty in np.flatnonzero(sizes == 0):
        own = distance[np.arange(len(assigned)), assigned]
        row = int(np.where(sizes[assigned] > 1, own, -1.0).argmax())
        sizes[assigned[row]] -= 1
        assigned[row] = empty
        sizes[empty] += 1


def contingency(truth: Sequence[object], assigned: Sequence[object]) -> Floats:
    """Contingency table: (labels, clusters) counts."""
    if len(truth) != len(assigned) or len(truth) == 0:
        raise BadInput("labels, clusters", "two non-empty sequences of one length", f"{len(truth)} and {len(assigned)}")
    rows, a = np.unique(np.asarray(truth), return_inverse=True)
    columns, b = np.unique(np.asarray(assigned), return_inverse=True)
    counts = np.bincount(a * len(columns) + b, minlength=len(rows) * len(columns))
    return counts.reshape(len(rows), len(columns)).astype(np.float64)


def nmi(truth: Sequence[object], assigned: Sequence[object]) -> float:
    """Normalised mutual information I(U;V) / ((H(U) + H(V)) / 2), in [0, 1]; 1 when both have one class.

    Source: Strehl & Ghosh 2002 with the arithmetic mean (scikit-learn's default since 0.22).
    """
    return nmi_of(contingency(truth, assigned))


def nmi_of(counts: Floats) -> float:
    """`nmi` of a contingency table."""
    share = counts / counts.sum()
    left, right = share.sum(1), share.sum(0)
    entropies = _entropy(left) + _entropy(right)
    if entropies == 0:
        return 1.0
    mutual = _entropy(left) + _entropy(right) - _entropy(share.ravel())
    return float(np.clip(2 * mutual / entropies, 0.0, 1.0))


def _entropy(share: Floats) -> float:
    known = share[share > 0]
    return float(-(known * np.log(known)).sum())


def purity(truth: Sequence[object], assigned: Sequence[object]) -> float:
    """Share of items that have the most frequent label of their cluster, in (0, 1]."""
    return purity_of(contingency(truth, assigned))


def purity_of(counts: Floats) -> float:
    """`purity` of a contingency table."""
    return float(counts.max(0).sum() / counts.sum())


def ari(truth: Sequence[object], assigned: Sequence[object]) -> float:
    """Adjusted Rand index, 0 expected by chance, 1 for equal partitions. Source: Hubert & Arabie 1985."""
    return ari_of(contingency(truth, assigned))


def ari_of(counts: Floats) -> float:
    """`ari` of a contingency table."""

    def pairs(n: Floats) -> float:
        return float((n * (n - 1) / 2).sum())

    both, left, right = pairs(counts), pairs(counts.sum(1)), pairs(counts.sum(0))
    total = pairs(np.asarray([counts.sum()]))
    expected = left * right / total if total else 0.0
    most = (left + right) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def cluster(
    embeddings: Embeddings,
    labels: Mapping[str, str],
    *,
    k: int | None = None,
    metric: Literal["cosine", "euclidean"] = "cosine",
    starts: int = 8,
    seeds: Sequence[int] = (0, 1, 2),
    name: str = "label",
) -> Clustering:
    """k-means of the labelled items, compared with their labels.

    Args:
        k: clusters; None = number of labels.

    Raises: BadInput: no labelled item, or k out of range.
    """
    rows = [row for row, i in enumerate(embeddings.ids) if labels.get(i) is not None]
    if not rows:
        raise BadInput("labels", "a label for at least one item", "none")
    truth = [labels[embeddings.ids[r]] for r in rows]
    clusters = len(set(truth)) if k is None else k
    runs = [k_means(embeddings.vectors[rows], clusters, metric=metric, starts=starts, seed=s).assigned for s in seeds]
    scores = np.asarray([[f(truth, run.tolist()) for f in (nmi, purity, ari)] for run in runs])
    mean, spread = scores.mean(0).tolist(), scores.std(0).tolist()
    return Clustering(name, clusters, len(rows), starts, tuple(seeds), *mean, *spread)
