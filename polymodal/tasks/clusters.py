"""Clusters of items with what tells them apart: how stable they are, how they agree with labels, typical items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Interval, ari, k_means
from polymodal.evaluate.clustering import ari_of, contingency, nmi_of, purity_of
from polymodal.evaluate.intervals import Together, clusters_of
from polymodal.evaluate.values import Result
from polymodal.tasks.telling import Telling, telling_terms
from polymodal.types import BadInput, Embeddings, Record

__all__ = ["Agreement", "Card", "Clusters", "agreement", "best_k", "cluster_items", "make_cards", "silhouette"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SAMPLED = 1000  # items of a silhouette at most: it compares all with all
_SHUFFLES = 20
_MOST_K = 64
_MEASURES: Mapping[str, Callable[[Floats], float]] = {"nmi": nmi_of, "ari": ari_of, "purity": purity_of}


@dataclass(frozen=True)
class Clusters:
    """k-means of unit vectors, the best of several starts; the largest cluster has number 0.

    Args:
        ids: n. assigned: (n,) number of each item's cluster. cosine: (n,) to its centre.
        second: (n,) the next nearest cluster; -1 where there is one only.
        stability: mean adjusted Rand index between the best start and each other one; 1 for the same clusters, NaN for
            one start.
        each: (k,) the same for every cluster: its mean Jaccard similarity with the most similar one of another start.
        starts: how many. inertia: sum of squared distances of the best.
    """

    ids: tuple[str, ...]
    assigned: Ints
    cosine: Floats
    second: Ints
    stability: float
    each: Floats
    starts: int
    inertia: float

    @property
    def k(self) -> int:
        """How many clusters."""
        return len(self.each)


@dataclass(frozen=True)
class Agreement(Result):
    """How clusters agree with a label, over the items that have it.

    Args:
        nmi, ari, purity: with intervals by the jackknife: items (groups of them) come and go, the clusters stay.
        by_chance: measure -> its mean when the labels are shuffled. NMI and purity are not 0 then.
    """

    label: str
    items: int
    values: int
    nmi: Interval
    ari: Interval
    purity: Interval
    by_chance: Mapping[str, float]


@dataclass(frozen=True)
class Card(Result):
    """One cluster.

    Args:
        number: from 0, by size. size, share: items, of all. cosine: mean to the centre. stability: see `Clusters.each`.
        typical: (id, title, cosine to the centre), the nearest first.
        telling: what its items say more often than the others. labels: label -> its most frequent values in it.
    """

    number: int
    size: int
    share: float
    cosine: float
    stability: float
    typical: tuple[tuple[str, str, float], ...]
    telling: tuple[Telling, ...]
    labels: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)


def cluster_items(vectors: Embeddings, k: int, *, starts: int = 8, seed: int = 0) -> Clusters:
    """Cluster items by the cosine of their vectors.

    Args:
        k: in [1, n]. starts: from different seeds, whose results are also compared.

    Raises: BadInput: k is larger than the number of items, or below 1.
    Source: `evaluate.k_means`; the similarity of each cluster as in Hennig 2007, "Cluster-wise assessment of cluster
        stability", with starts in place of resampled data.
    """
    if starts < 1:
        raise BadInput("--starts", "at least 1", starts)
    if not 1 <= k <= len(vectors):
        raise BadInput("-k", f"between 1 and the {len(vectors)} items that have a vector", k)
    runs = [k_means(vectors.vectors, k, starts=1, seed=seed * 100_003 + start) for start in range(starts)]
    best = min(range(starts), key=lambda run: (runs[run].inertia, run))
    order = np.argsort(-np.bincount(runs[best].assigned, minlength=k), kind="stable")
    place = np.empty(k, np.int64)
    place[order] = np.arange(k)
    assigned = place[runs[best].assigned]
    centres = runs[best].centres[order]
    data = np.asarray(vectors.vectors, np.float64)
    cosines = data @ centres.T / np.maximum(np.linalg.norm(data, axis=1, keepdims=True), 1e-12)
    rows = np.arange(len(data))
    others = cosines.copy()
    others[rows, assigned] = -np.inf
    second = others.argmax(1) if k > 1 else np.full(len(data), -1)
    rest = [run.assigned for at, run in enumerate(runs) if at != best]
    stable = float(np.mean([ari(assigned.tolist(), run.tolist()) for run in rest])) if rest else float("nan")
    each = np.mean([_jaccard(assigned, run, k) for run in rest], 0) if rest else np.full(k, np.nan)
    return Clusters(
        vectors.ids, assigned, cosines[rows, assigned], second, stable, each, starts, float(runs[best].inertia)
    )


def _jaccard(one: Ints, other: Ints, k: int) -> Floats:
    """Of each cluster of `one` with the most similar of `other`: (k,)."""
    both = np.bincount(one * k + other, minlength=k * k).reshape(k, k).astype(np.float64)
    union = both.sum(1, keepdims=True) + both.sum(0) - both
    return np.asarray((both / np.maximum(union, 1)).max(1), np.float64)


def agreement(
    clusters: Clusters, labels: Mapping[str, str], label: str, *, seed: int = 0, together: Together = None
) -> Agreement:
    """How the clusters agree with a label: id -> value; items without one are left out.

    Resampling items with replacement would count an item together with itself and raise all three measures; the
    jackknife leaves one item out at a time, or one group of `together` (id -> group of items that are no independent
    observations), which is exact and needs one evaluation for each different set of (value, cluster) left out.
    Source: Efron & Tibshirani 1993, chapter 11; groups: Shao & Tu 1995, section 2.3.

    Raises: BadInput: fewer than two labelled items.
    """
    rows = [row for row, i in enumerate(clusters.ids) if i in labels]
    if len(rows) < 2:
        raise BadInput("label", f"at least two items with a {label}", len(rows))
    truth, assigned = [labels[clusters.ids[row]] for row in rows], clusters.assigned[rows].tolist()
    counts = contingency(truth, assigned)
    left = _left_out(truth, assigned, clusters_of([clusters.ids[row] for row in rows], together))
    found = {name: _jackknife(measure, counts, left) for name, measure in _MEASURES.items()}
    generator = np.random.default_rng(seed)
    shuffled = [contingency([truth[i] for i in generator.permutation(len(truth))], assigned) for _ in range(_SHUFFLES)]
    chance = {name: float(np.mean([measure(one) for one in shuffled])) for name, measure in _MEASURES.items()}
    return Agreement(label, len(rows), len(set(truth)), found["nmi"], found["ari"], found["purity"], chance)


def _left_out(truth: Sequence[str], assigned: Sequence[int], units: Ints | None) -> list[tuple[Ints, int]]:
    """What a unit takes from the contingency table, as places of its cells; and how many units take the same."""
    _, rows = np.unique(np.asarray(truth), return_inverse=True)
    numbers, columns = np.unique(np.asarray(assigned), return_inverse=True)
    cells = np.asarray(rows * len(numbers) + columns, np.int64)
    # a single unit leaves nothing: its items are left out one by one
    each = np.arange(len(cells)) if units is None or int(units.max()) == 0 else units
    order = np.lexsort((cells, each))
    parts = np.split(cells[order], np.flatnonzero(np.diff(each[order])) + 1)
    alike = Counter(tuple(part.tolist()) for part in parts)
    return [(np.asarray(part, np.int64), count) for part, count in alike.items()]


def _jackknife(measure: Callable[[Floats], float], counts: Floats, left: Sequence[tuple[Ints, int]]) -> Interval:
    whole, n = measure(counts), int(counts.sum())
    values = []
    for cells, _ in left:
        less = counts.copy()
        np.subtract.at(less.reshape(-1), cells, 1.0)
        values.append(measure(less))
    found, weight = np.asarray(values), np.asarray([count for _, count in left], np.float64)
    mean, units = np.average(found, weights=weight), float(weight.sum())
    error = float(np.sqrt((units - 1) / units * (weight * (found - mean) ** 2).sum()))
    return Interval(whole, max(whole - 1.96 * error, -1.0), min(whole + 1.96 * error, 1.0), n)


def make_cards(
    clusters: Clusters,
    records: Sequence[Record],
    titles: Mapping[str, str],
    labels: Mapping[str, Mapping[str, str]],
    *,
    typical: int = 6,
    terms: int = 8,
) -> tuple[Card, ...]:
    """A card for each cluster.

    Args:
        records: of the items, with texts and attributes. titles: id -> title.
        labels: label -> {id: value}, shown on the cards.
        typical, terms: how many items and how many telling terms a card has.
    """
    by_id = {record.id: record for record in records}
    told = telling_terms([by_id[i] for i in clusters.ids], clusters.assigned, clusters.k, most=terms)
    cards = []
    for number in range(clusters.k):
        rows = np.flatnonzero(clusters.assigned == number)
        nearest = rows[np.argsort(-clusters.cosine[rows], kind="stable")][:typical]
        ids = [clusters.ids[row] for row in rows]
        cards.append(
            Card(
                number,
                len(rows),
                len(rows) / len(clusters.ids),
                float(clusters.cosine[rows].mean()),
                float(clusters.each[number]),
                tuple((clusters.ids[r], titles.get(clusters.ids[r], ""), float(clusters.cosine[r])) for r in nearest),
                told[number],
                {name: _frequent(values, ids) for name, values in labels.items()},
            )
        )
    return tuple(cards)


def _frequent(values: Mapping[str, str], ids: Sequence[str], most: int = 3) -> tuple[tuple[str, int], ...]:
    counts = Counter(values[i] for i in ids if i in values)
    return tuple(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:most])


def silhouette(vectors: npt.NDArray[np.floating], assigned: Ints) -> float:
    """Mean of (b - a) / max(a, b): a an item's mean distance (1 - cosine) to its own cluster, b to the nearest other.

    Source: Rousseeuw 1987; an item that is alone in its cluster has 0. In [-1, 1], higher for clearer clusters.
    """
    data = np.asarray(vectors, np.float64)
    data = data / np.maximum(np.linalg.norm(data, axis=1, keepdims=True), 1e-12)
    _, at = np.unique(assigned, return_inverse=True)
    member = np.eye(int(at.max()) + 1)[at]
    size = member.sum(0)
    if len(size) < 2:
        return 0.0
    away = (1 - data @ data.T) @ member
    rows = np.arange(len(data))
    own = away[rows, at] / np.maximum(size[at] - 1, 1)
    other = away / size
    other[rows, at] = np.inf
    nearest = other.min(1)
    value = (nearest - own) / np.maximum(np.maximum(own, nearest), 1e-12)
    return float(np.where(size[at] > 1, value, 0.0).mean())


def best_k(vectors: Embeddings, *, seed: int = 0) -> tuple[int, dict[int, float]]:
    """The number of clusters, of a grid from 2 to 64, with the highest silhouette over at most 1000 drawn items, and
    the silhouette of each; ties to the smaller.

    Raises: BadInput: fewer than four items.
    """
    if len(vectors) < 4:
        raise BadInput("-k auto", "at least four items", len(vectors))
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:_SAMPLED])
    grid = [k for k in (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, _MOST_K) if k <= len(vectors) // 2]
    found = {}
    for k in grid:
        assigned = k_means(vectors.vectors, k, starts=2, seed=seed).assigned
        found[k] = silhouette(vectors.vectors[rows], assigned[rows])
    return max(found, key=lambda k: (found[k], -k)), found
