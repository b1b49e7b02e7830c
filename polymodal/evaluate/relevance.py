"""Which corpus items are right answers to which queries: the same item, the same label or group, or given qrels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = ["Keyed", "Qrels", "Relevance", "by_id", "by_key", "by_qrels"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Relevance(Protocol):
    """Right answers, asked for in blocks, so that a matrix of queries x corpus need not exist.

    Attributes:
        count: (Q,) how many right answers there are, the query itself not counted where it is excluded.
        annotated: (Q,) the |P| of SCALE's released metric: the right answers and, where excluded, the query itself.
        own: (Q,) the corpus row that is the query itself and must not be listed, -1 for none.
    """

    @property
    def count(self) -> Ints: ...

    @property
    def annotated(self) -> Ints: ...

    @property
    def own(self) -> Ints: ...

    def gains(self, rows: Ints, columns: Ints) -> Floats:
        """Gain of listing corpus row `columns[i, j]` for query `rows[i]`: (b, k), 0 = wrong; column -1 is wrong."""

    def ideal(self, rows: Ints, k: int) -> Floats:
        """The k largest gains of each query, best first, (b, k), padded with 0."""


@dataclass(frozen=True)
class Keyed:
    """Right = equal key. Keys are numbers, so any corpus size costs one number per item.

    Args:
        queries, corpus: (Q,), (C,) keys; -1 is equal to nothing.
        count, annotated, own: as in Relevance.
    """

    queries: Ints
    corpus: Ints
    count: Ints
    annotated: Ints
    own: Ints

    def gains(self, rows: Ints, columns: Ints) -> Floats:
        key = self.queries[rows, None]
        same = (self.corpus[columns] == key) & (key >= 0) & (columns >= 0)
        return np.asarray(same & (columns != self.own[rows, None]), np.float64)

    def ideal(self, rows: Ints, k: int) -> Floats:
        return (np.arange(k) < self.count[rows, None]).astype(np.float64)


@dataclass(frozen=True)
class Qrels:
    """Right = listed with a gain above 0.

    Args:
        codes: sorted numbers query row x corpus size + corpus row of the judged pairs inside the corpus.
        values: gain of each.
        best: (Q, most) gains of each query, best first, padded with 0; items outside the corpus count.
        size: C.
    """

    codes: Ints
    values: Floats
    best: Floats
    size: int
    count: Ints
    annotated: Ints
    own: Ints

    def gains(self, rows: Ints, columns: Ints) -> Floats:
        wanted = rows[:, None] * self.size + columns
        if len(self.codes) == 0:
            return np.zeros(wanted.shape)
        at = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        known = (self.codes[at] == wanted) & (columns >= 0)
        return np.where(known, self.values[at], 0.0)

    def ideal(self, rows: Ints, k: int) -> Floats:
        out = np.zeros((len(rows), k))
        width = min(k, self.best.shape[1])
        out[:, :width] = self.best[rows, :width]
        return out


def by_id(queries: Sequence[str], corpus: Sequence[str]) -> Keyed:
    """The same item is right, and nothing else: one subset's vector looks for the other subset's vector of its item."""
    return by_key(queries, corpus, {}, itself="relevant")


def by_key(
    queries: Sequence[str],
    corpus: Sequence[str],
    keys: Mapping[str, str | None],
    *,
    itself: Literal["relevant", "excluded"] = "excluded",
) -> Keyed:
    """Items with an equal key are right: labels, groups, or digests of identical content.

    Args:
        keys: id -> key; None or no entry = no key.
        itself: `excluded` (label retrieval): the query's own id is not listed, and a query without a key has no right
            answer. `relevant` (instance retrieval with equivalents): the query's own id is right too, and an item
            without a key is only equal to itself.
    """
    codes: dict[tuple[str, str], int] = {}
    alone = itself == "relevant"

    def code(name: str) -> int:
        key = keys.get(name)
        if key is None:
            return codes.setdefault(("id", name), len(codes)) if alone else -1
        return codes.setdefault(("key", key), len(codes))

    asked = np.asarray([code(i) for i in queries], np.int64)
    held = np.asarray([code(i) for i in corpus], np.int64)
    sizes = np.bincount(held[held >= 0], minlength=max(len(codes), 1))
    count = np.where(asked >= 0, sizes[asked], 0).astype(np.int64)
    if alone:
        return Keyed(asked, held, count, count, np.full(len(asked), -1, np.int64))
    own = _own(queries, corpus)
    count = np.where(asked >= 0, count - (own >= 0), 0)
    return Keyed(asked, held, count, count + 1, own)


def by_qrels(
    queries: Sequence[str],
    corpus: Sequence[str],
    qrels: Mapping[str, Mapping[str, float]],
    *,
    exclude_query: bool = False,
) -> Qrels:
    """Right answers as given.

    Args:
        qrels: query id -> {corpus id: gain}; 0 = wrong. Right items outside the corpus count as not found.
        exclude_query: never list, and never count, the query's own id.

    Raises:
        BadInput: a negative or non-finite gain.
    """
    at = {name: row for row, name in enumerate(corpus)}
    pairs: list[tuple[int, float]] = []
    per_query: list[list[float]] = []
    for row, name in enumerate(queries):
        judged = {i: g for i, g in qrels.get(name, {}).items() if not (exclude_query and i == name)}
        if any(not np.isfinite(g) or g < 0 for g in judged.values()):
            raise BadInput(f"qrels[{name!r}]", "finite gains of at least 0", judged)
        per_query.append(sorted((g for g in judged.values() if g > 0), reverse=True))
        pairs += [(row * len(corpus) + at[i], g) for i, g in judged.items() if g > 0 and i in at]
    pairs.sort()
    best = np.zeros((len(queries), max([len(g) for g in per_query], default=0)))
    for row, gains in enumerate(per_query):
        best[row, : len(gains)] = gains
    count = np.asarray([len(g) for g in per_query], np.int64)
    own = _own(queries, corpus) if exclude_query else np.full(len(queries), -1, np.int64)
    codes = np.asarray([code for code, _ in pairs], np.int64)
    values = np.asarray([gain for _, gain in pairs], np.float64)
    return Qrels(codes, values, best, len(corpus), count, count + int(exclude_query), own)


def _own(queries: Sequence[str], corpus: Sequence[str]) -> Ints:
    at = {name: row for row, name in enumerate(corpus)}
    return np.asarray([at.get(name, -1) for name in queries], np.int64)
