"""Why two items match: what each modality of the one adds to their similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.intervals import Floats
from polymodal.evaluate.shapley import leave_one_out, shapley, subset_code
from polymodal.evaluate.values import Result, Subset
from polymodal.types import BadInput

__all__ = ["Match", "Side", "explain_match"]

Vectors = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Side(Result):
    """One side of a match, the other side held still.

    Args:
        id: of the item or query.
        contributions: modality -> Shapley value of the cosine; they sum to the score.
        without: modality -> what the cosine loses without it.
        alone: modality -> the cosine of that modality alone with the whole other side.
    """

    id: str
    contributions: Mapping[str, float]
    without: Mapping[str, float]
    alone: Mapping[str, float]


@dataclass(frozen=True)
class Match(Result):
    """Why `query` and `item` have the cosine `score`.

    Args:
        sides: the query, and the item where its own modalities are known.
        cross: cosine of each modality of the query alone with each of the item alone; empty where unknown.
    """

    query: str
    item: str
    score: float
    sides: tuple[Side, ...]
    cross: Mapping[str, Mapping[str, float]]


def explain_match(
    query: tuple[str, Mapping[Subset, Vectors]],
    item: tuple[str, Mapping[Subset, Vectors]],
    names: Sequence[str],
) -> Match:
    """Shapley values of the cosine between two items, over the modalities of either side.

    v(S) is the cosine of the vector made from the modalities S of one side with the whole other side, and 0 for
    nothing, so contributions sum to the score exactly, and one below zero says that this modality pulls them apart.

    Args:
        query, item: id, and subset -> its vector (E,) of unit length, for every subset of what it has. An item that is
            known by its vector alone has one subset, the empty one.
        names: modalities of the model.

    Raises: BadInput: a side without a vector.
    """
    if not query[1] or not item[1]:
        raise BadInput("query, item", "a vector for each", "none")
    whole = [_whole(side[1]) for side in (query, item)]
    sides = [_side(*query, whole[1], names)]
    if max(map(len, item[1])):
        sides.append(_side(*item, whole[0], names))
    cross = {
        a: {b: _cosine(query[1][frozenset({a})], item[1][frozenset({b})]) for b in names if frozenset({b}) in item[1]}
        for a in names
        if frozenset({a}) in query[1]
    }
    known = {a: row for a, row in cross.items() if row}
    return Match(query[0], item[0], _cosine(*whole), tuple(sides), known)


def _whole(vectors: Mapping[Subset, Vectors]) -> Vectors:
    return vectors[max(vectors, key=len)]


def _cosine(a: Vectors, b: Vectors) -> float:
    return float(np.asarray(a, np.float64) @ np.asarray(b, np.float64))


def _side(name: str, vectors: Mapping[Subset, Vectors], other: Vectors, names: Sequence[str]) -> Side:
    own = [n for n in names if frozenset({n}) in vectors]
    table = np.full((1, 1 << len(own)), np.nan)
    for subset, vector in vectors.items():
        table[0, subset_code(subset, own)] = _cosine(vector, other)
    table[0, 0] = 0.0
    present = np.ones((1, len(own)), np.bool_)
    alone = {n: float(table[0, 1 << at]) for at, n in enumerate(own)}
    return Side(name, _named(own, shapley(table, present)), _named(own, leave_one_out(table, present)), alone)


def _named(names: Sequence[str], values: Floats) -> dict[str, float]:
    return dict(zip(names, values[0].tolist(), strict=True))
