"""Cells that do not belong to their item: a wrong picture for a title, found by how modalities agree elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import rank_of, top_k
from polymodal.evaluate.outliers import auroc
from polymodal.tasks.items import Bools, Floats, Ints, Items
from polymodal.tasks.probability import logistic
from polymodal.types import BadInput, Embeddings

__all__ = ["Disagreement", "Fit", "disagreement", "fit_share", "nearest_by", "raw_disagreement", "swap_cells"]

_LEAST = 20  # cells of two modalities, from which on it can be said what is usual for them
_DRAWS = 5  # exchanged cells for every true one
_RIDGE = 1e-4


@dataclass(frozen=True)
class Disagreement:
    """How strongly the rest of each item speaks against each of its cells.

    Args:
        ids: n items. modalities: M names.
        odds: (n, M) logarithm of how much likelier the cell is one of another item than its own, before any prior;
            -inf where the item lacks the modality or has no other.
        pairs: (i, j) names -> (n,) what that pair adds to the odds of both; 0 where one is absent.
        judged: (n,) whether the item has two modalities that can be compared.
        told: (i, j) -> chance that a true pair agrees more than an exchanged one, 0.5 where they say nothing of one
            another.
    """

    ids: tuple[str, ...]
    modalities: tuple[str, ...]
    odds: Floats
    pairs: Mapping[tuple[str, str], Floats]
    judged: Bools
    told: Mapping[tuple[str, str], float]

    def score(self, modality: str | None = None) -> Floats:
        """(n,) odds of one modality, or of the one that fits worst; -inf where the item cannot be judged."""
        if modality is None:
            return np.asarray(self.odds.max(1), np.float64)
        return np.asarray(self.odds[:, self.modalities.index(modality)], np.float64)

    def suspects(self, row: int, modality: str | None = None) -> tuple[str, ...]:
        """The modality that fits worst; both where an item has two, which cannot be told apart."""
        if modality is not None:
            return (modality,)
        odds = self.odds[row]
        return tuple(name for name, one in zip(self.modalities, odds, strict=True) if one >= odds.max() - 1e-9)

    def against(self, row: int, modality: str) -> list[str]:
        """The other modalities that speak against this cell, the strongest first."""
        said = {
            (b if a == modality else a): float(values[row])
            for (a, b), values in self.pairs.items()
            if modality in (a, b) and values[row] != 0
        }
        return sorted((name for name in said if said[name] > 0), key=lambda name: (-said[name], name))


def disagreement(items: Items, parts: Sequence[Bools] = (), *, seed: int = 0) -> Disagreement:
    """Evidence for every cell of every item that it belongs to another one.

    ::

        z_ij = mean of (s_ij - mean s_i.) / std s_i.  and  (s_ij - mean s_.j) / std s_.j,    s = cosine
        odds_i = sum over the other modalities j of the item of  log p(z_ij | exchanged) / p(z_ij | true)

    z says how well two cells fit, against all other partners of each, so that a cell that fits everything says little.
    The likelihood ratio of a pair of modalities is a logistic regression of true against exchanged cells of the same
    items (the slope at least 0): a pair that says nothing of one another adds nothing. One cell is taken to be wrong
    and the pairs to be independent given that.

    Args:
        parts: (n,) masks of items to which different things are usual, such as those that the model was trained on,
            whose cells it has seen together; none for all alike.
        seed: of the exchanges.

    Raises:
        BadInput: no two modalities that at least 20 items have.

    Source: the exchanged cells are those of permutation tests; the sum of log ratios is naive Bayes.
    Differences: nothing is known of true faults, which are among the "true" cells; few, they change little.
    """
    n, names = len(items), tuple(items.towers)
    cells = {name: items.tower(name) for name in names}
    odds = np.zeros((n, len(names)))
    compared = np.zeros((n, len(names)), np.bool_)
    pairs: dict[tuple[str, str], Floats] = {}
    told: dict[tuple[str, str], float] = {}
    for at, (a, b) in enumerate(combinations(names, 2)):
        fit = Fit.of(cells[a], cells[b])
        if len(fit.both) < _LEAST:
            continue
        pairs[a, b], told[a, b] = _evidence(fit, parts, np.random.default_rng([seed, at]), n)
        for name in (a, b):
            odds[:, names.index(name)] += pairs[a, b]
            compared[fit.both, names.index(name)] = True
    if not pairs:
        raise BadInput("data", f"two modalities that {_LEAST} items have both of", ", ".join(names) or "none")
    return Disagreement(
        items.ids, names, np.where(compared, odds, -np.inf), pairs, np.asarray(compared.any(1), np.bool_), told
    )


@dataclass(frozen=True)
class Fit:
    """Two modalities: unit vectors of every item, and what is usual for the cosines of each.

    Args:
        both: rows that have both.
        left, right: (n, E) vectors; of each row mean and spread of its cosines with all cells of the other side.
    """

    both: Ints
    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]
    left_usual: tuple[Floats, Floats]
    right_usual: tuple[Floats, Floats]

    @classmethod
    def of(cls, left: tuple[npt.NDArray[np.float32], Bools], right: tuple[npt.NDArray[np.float32], Bools]) -> Fit:
        """From vectors and which rows have one. Means and spreads are exact, without any n x n matrix."""
        both = np.flatnonzero(left[1] & right[1])
        return cls(both, left[0], right[0], _usual(left[0], right[0][right[1]]), _usual(right[0], left[0][left[1]]))

    def z(self, one: Ints, other: Ints) -> Floats:
        """How well the left cell of each row `one` fits the right cell of the row `other`, in spreads."""
        cosine = np.einsum("ne,ne->n", self.left[one], self.right[other], dtype=np.float64)
        first = (cosine - self.left_usual[0][one]) / self.left_usual[1][one]
        return np.asarray((first + (cosine - self.right_usual[0][other]) / self.right_usual[1][other]) / 2, np.float64)


def _usual(vectors: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the cosines of each vector with all others, from the second moments alone."""
    mean = (
        np.asarray(vectors @ others.astype(np.float64).mean(0), np.float64) if len(others) else np.zeros(len(vectors))
    )
    moment = others.T.astype(np.float64) @ others / max(len(others), 1)
    square = np.einsum("ne,ef,nf->n", vectors, moment, vectors, optimize=True)
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-12))


def _evidence(fit: Fit, parts: Sequence[Bools], rng: np.random.Generator, n: int) -> tuple[Floats, float]:
    """(n,) log p(exchanged) - log p(true) of the rows that have both, by the usual of their part; how much it tells."""
    found = np.zeros(n)
    calibrated = [part for part in parts if int(part[fit.both].sum()) >= _LEAST]
    rest = np.ones(n, np.bool_)
    true_of, exchanged_of = [], []
    for part in calibrated:
        rest &= ~part
    # rows of no part, or of one too small to know what is usual there, are judged by what is usual everywhere
    for part, among in [*((part, part) for part in calibrated), (rest, np.ones(n, np.bool_))]:
        rows = fit.both[part[fit.both]]
        if not len(rows):
            continue
        base = fit.both[among[fit.both]]
        one = np.repeat(base, _DRAWS)
        other = rng.choice(base, len(one))
        kept = one != other
        true, exchanged = fit.z(base, base), fit.z(one[kept], other[kept])
        slope, offset = _logistic(exchanged, true)
        found[rows] = -(slope * fit.z(rows, rows) + offset)
        true_of.append(true)
        exchanged_of.append(exchanged)
    return found, auroc(np.concatenate(exchanged_of), np.concatenate(true_of))


def _logistic(false: Floats, true: Floats) -> tuple[float, float]:
    """Slope (at least 0) and offset of log p(true) / p(false), both taken to be equally frequent."""
    target = np.concatenate([np.ones(len(true)), np.zeros(len(false))])
    weight = np.where(target > 0, 0.5 / len(true), 0.5 / len(false))
    # the ridge keeps the slope finite where no exchanged pair agrees as well as any true one
    slope, offset = logistic(np.concatenate([true, false]), target, weight, ridge=_RIDGE)
    return (slope, offset) if slope > 0 else (0.0, 0.0)


def raw_disagreement(items: Items, modality: str | None = None) -> Floats:
    """The control: minus the mean cosine of a modality (of all) with the others of its item, nothing calibrated.

    -inf where there is nothing to compare.
    """
    cells = {name: items.tower(name) for name in items.towers}
    total, count = np.zeros(len(items)), np.zeros(len(items))
    for a, b in combinations(cells, 2):
        if modality is not None and modality not in (a, b):
            continue
        both = cells[a][1] & cells[b][1]
        total += np.where(both, np.einsum("ne,ne->n", cells[a][0], cells[b][0], dtype=np.float64), 0.0)
        count += both
    return np.where(count > 0, -total / np.maximum(count, 1), -np.inf)


def swap_cells(
    items: Items,
    modality: str,
    count: int,
    seed: int = 0,
    *,
    among: Bools | None = None,
    label: Mapping[str, str] | None = None,
) -> tuple[Items, Bools]:
    """The items with the cells of one modality exchanged between pairs of them, of different groups and labels.

    A modality's own vector depends on its cell alone, so exchanging vectors is exchanging cells.

    Args:
        count: items to change, even. among: (n,) those that may be.

    Returns:
        The items, and (n,) which of them were changed.

    Raises:
        BadInput: not enough items that have the modality and another one.
    """
    _, there = items.tower(modality)
    free = there & (np.sum([items.tower(name)[1] for name in items.towers], axis=0) > 1)
    free = free if among is None else free & among
    left = np.random.default_rng([seed, count]).permutation(np.flatnonzero(free)).tolist()
    own = {row: (items.groups.get(items.ids[row], items.ids[row]), (label or {}).get(items.ids[row])) for row in left}
    partner: dict[int, int] = {}
    while len(partner) < count and left:
        one = left.pop()
        other = next((row for row in left if _unlike(own[one], own[row])), None)
        if other is not None:
            left.remove(other)
            partner |= {one: other, other: one}
    if len(partner) < count or count < 2:
        raise BadInput("--plant", f"2 to {int(free.sum())} items with {modality} and more, of several groups", count)
    vectors = items.towers[modality]
    at = {name: row for row, name in enumerate(vectors.ids)}
    rows = [at[items.ids[partner.get(row, row)]] for row in (items.places()[name] for name in vectors.ids)]
    changed = Embeddings(vectors.ids, vectors.vectors[rows], vectors.model)
    wrong = np.zeros(len(items), np.bool_)
    wrong[list(partner)] = True
    return replace(items, towers={**items.towers, modality: changed}), wrong


def _unlike(one: tuple[str, str | None], other: tuple[str, str | None]) -> bool:
    return one[0] != other[0] and (one[1] is None or other[1] is None or one[1] != other[1])


def fit_share(items: Items, rows: Ints, modality: str, by: str) -> Floats:
    """The share of all other cells of `modality` that fit each item's cell of `by` better than its own does, (n,)."""
    (left, _), (right, there) = items.tower(by), items.tower(modality)
    known = np.flatnonzero(there)
    ranks = rank_of(left[rows], right[known], np.searchsorted(known, rows))
    return np.asarray((ranks - 1) / max(len(known) - 1, 1), np.float64)


def nearest_by(items: Items, row: int, modality: str, k: int = 3) -> list[str]:
    """Ids of the items whose cell of a modality is most like this item's."""
    vectors, there = items.tower(modality)
    rows = np.flatnonzero(there)
    found, _ = top_k(vectors[[row]], vectors[rows], k, exclude=np.flatnonzero(rows == row))
    return [items.ids[rows[at]] for at in found[0] if at >= 0]
