"""Exact nearest neighbours in blocks: bounded memory, ties by id, the same answer at every block size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = ["Ties", "rank_of", "scored_top", "top_k"]

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

QUERIES = 512
CORPUS = 8192
# no candidate: behind everything that has a score
_NONE = np.int64(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Ties:
    """In which order equal scores stand.

    Args:
        order: (C,) corpus rows by id. place: (C,) where each row stands in it.
    """

    order: Ints
    place: Ints

    @classmethod
    def by(cls, ids: Sequence[str]) -> Ties:
        """By id; `top_k` and `rank_of` take this in place of ids, so that it is sorted once for many calls."""
        order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return cls(order, place)


def top_k(
    queries: Vectors,
    corpus: Vectors | Iterable[Vectors],
    k: int,
    *,
    ids: Sequence[str] | Ties | None = None,
    exclude: Ints | None = None,
    blocks: tuple[int, int] = (QUERIES, CORPUS),
) -> tuple[Ints, Vectors]:
    """The k rows of `corpus` with the largest inner product, exactly.

    Products are summed in float64 and rounded to float32, so equal vectors have equal scores wherever they stand in
    a block; equal scores are ordered by id (by row where no ids are given).

    Memory: 8 bytes for each of queries x k, about 40 for each place of a block (queries x corpus), and the corpus as it
    is given: it is read once, in order, and never copied whole, so it may be a memory map or an iterator. Work: 2 Q C E
    operations.

    Args:
        queries: (Q, E); corpus: (C, E), or its rows in pieces of any length; unit vectors make the score a cosine.
        k: how many, at least 1; k >= C gives the complete ranking.
        ids: C ids that order ties, or `Ties.by(ids)`.
        exclude: (Q,) the corpus row that must not be an answer of each query (the query itself), -1 for none.
        blocks: rows of queries and of corpus per block.

    Returns:
        rows (Q, min(k, C)) int64, -1 where the list is shorter, and scores (same shape) float32, -inf there.

    Raises:
        BadInput: different widths, k below 1, an empty corpus, another number of ids than of rows.
    """
    if k < 1:
        raise BadInput("k", "at least 1", k)
    ties = ids if ids is None or isinstance(ids, Ties) else Ties.by(ids)
    best = np.full((len(queries), 0), _NONE)
    done = 0
    for block in _pieces(queries, corpus, blocks[1]):
        place = _places(ties, done, len(block))
        best = _merge(queries, block, place, best, k, _columns(exclude, done, len(block)), blocks[0])
        done += len(block)
    _check_count(done, ties)
    return _unpack(best[:, :done], ties)


def _pieces(queries: Vectors, corpus: Vectors | Iterable[Vectors], step: int) -> Iterator[Vectors]:
    """At most `step` rows of the corpus at a time."""
    parts: Iterable[Vectors] = [corpus] if isinstance(corpus, np.ndarray) else corpus
    for part in parts:
        if queries.ndim != 2 or part.ndim != 2 or queries.shape[1] != part.shape[1]:
            raise BadInput("queries, corpus", "two matrices of one width", f"{queries.shape} and {part.shape}")
        for start in range(0, len(part), step):
            yield part[start : start + step]


def _places(ties: Ties | None, start: int, count: int) -> Ints:
    """The places of some corpus rows in the order of ties."""
    if ties is None:
        return np.arange(start, start + count, dtype=np.int64)
    if start + count > len(ties.place):
        raise BadInput("ids", "one for each row of the corpus", f"{len(ties.place)} for more rows")
    return ties.place[start : start + count]


def _check_count(rows: int, ties: Ties | None) -> None:
    if not rows:
        raise BadInput("corpus", "at least one vector", "none")
    if ties is not None and rows != len(ties.place):
        raise BadInput("ids", f"{rows}, one for each row of the corpus", len(ties.place))


def _columns(exclude: Ints | None, start: int, count: int) -> Ints | None:
    """What each query must not find, as columns of a block; -1 for nothing in it."""
    if exclude is None:
        return None
    inside = (exclude >= start) & (exclude < start + count)
    return np.where(inside, exclude - start, -1)


def _merge(queries: Vectors, block: Vectors, place: Ints, best: Ints, k: int, banned: Ints | None, step: int) -> Ints:
    """The best keys of every query with those of one more block, (Q, min(k, seen)), the best first."""
    width = min(k, best.shape[1] + len(block))
    out = np.empty((len(queries), width), np.int64)
    right = block.astype(np.float64).T
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores = (queries[part].astype(np.float64) @ right).astype(np.float32)
        if banned is not None:
            here = np.flatnonzero(banned[part] >= 0)
            scores[here, banned[part][here]] = -np.inf
        out[part] = _best(scores, place, best[part], width)
    return out


def _best(scores: Vectors, place: Ints, before: Ints, width: int) -> Ints:
    """The `width` least keys of each row among those known before and those of new scores."""
    if before.shape[1] == width:
        # full lists: only what reaches the last of them can enter, a few of thousands, so nothing else is sorted
        edge = _score(before[:, -1])
        # one dimension: ten times faster than np.nonzero of two
        rows, columns = np.divmod(np.flatnonzero(scores >= edge[:, None]), scores.shape[1])
        entering = _keys(scores[rows, columns], place[columns])
        counts = np.bincount(rows, minlength=len(scores))
        fresh = np.full((len(scores), int(counts.max(initial=0))), _NONE)
        fresh[rows, np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]] = entering
    else:
        fresh = _keys(scores, place)
    keys = np.concatenate([before, fresh], 1)
    if keys.shape[1] > 2 * width:
        keys = np.partition(keys, width - 1, axis=1)[:, :width]
    keys.sort(axis=1)
    return keys[:, :width]


def _keys(scores: Vectors, place: Ints) -> Ints:
    """Score and place in one integer, the best least: integers sort several times faster than a stable argsort of
    floats, and break ties by themselves."""
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    rising = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return np.asarray(np.where(scores > -np.inf, (-rising << 32) + place, _NONE), np.int64)


def _score(keys: Ints) -> Vectors:
    """The scores of some keys, -inf for none."""
    rising = -(keys >> 32)
    bits = np.where(rising < 0, rising ^ 0x7FFFFFFF, rising).astype(np.int32)
    return np.where(keys == _NONE, np.float32(-np.inf), bits.view(np.float32))


def _unpack(keys: Ints, ties: Ties | None) -> tuple[Ints, Vectors]:
    place = np.where(keys == _NONE, 0, keys & 0xFFFFFFFF)
    rows = place if ties is None else ties.order[place]
    return np.where(keys == _NONE, -1, rows), _score(keys)


def scored_top(scores: Vectors, k: int, ties: Ties | None = None, exclude: Ints | None = None) -> tuple[Ints, Vectors]:
    """`top_k` of scores that something else computed.

    Args:
        scores: (Q, C) float32; -inf is never listed.
        exclude: as in `top_k`.

    Returns:
        As `top_k`.
    """
    if exclude is not None:
        here = np.flatnonzero(exclude >= 0)
        scores = scores.copy()
        scores[here, exclude[here]] = -np.inf
    width = min(k, scores.shape[1])
    place = _places(ties, 0, scores.shape[1])
    return _unpack(_best(scores, place, np.full((len(scores), 0), _NONE), width), ties)


def rank_of(
    queries: Vectors,
    corpus: Vectors,
    targets: Ints,
    *,
    ids: Sequence[str] | Ties | None = None,
    blocks: tuple[int, int] = (QUERIES, CORPUS),
) -> Ints:
    """The rank, from 1, at which `top_k` would list the corpus row `targets[q]` for query q, without sorting.

    Args:
        targets: (Q,) corpus rows.

    Returns:
        (Q,) int64.
    """
    _check_count(len(corpus), None)
    ties = ids if ids is None or isinstance(ids, Ties) else Ties.by(ids)
    own = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), blocks[0]):
        part = slice(start, start + blocks[0])
        wanted = corpus[targets[part]].astype(np.float64)
        own[part] = np.einsum("qe,qe->q", queries[part].astype(np.float64), wanted)
    ranks, done = np.ones(len(queries), np.int64), 0
    limit = targets if ties is None else ties.place[targets]
    for block in _pieces(queries, corpus, blocks[1]):
        place, right = _places(ties, done, len(block)), block.astype(np.float64).T
        mine = cast(Ints, _columns(targets, done, len(block)))
        for start in range(0, len(queries), blocks[0]):
            part = slice(start, start + blocks[0])
            scores = (queries[part].astype(np.float64) @ right).astype(np.float32)
            ranks[part] += _before(scores, own[part, None], place < limit[part, None], mine[part])
        done += len(block)
    return ranks


def _before(scores: Vectors, own: Vectors, earlier: npt.NDArray[np.bool_], mine: Ints) -> Ints:
    """How many columns stand before a score of each row."""
    before = (scores > own) | ((scores == own) & earlier)
    # another order of summation must not put an item before itself
    here = np.flatnonzero(mine >= 0)
    before[here, mine[here]] = False
    return np.asarray(before.sum(1), np.int64)
