"""Exact nearest neighbours in blocks: bounded memory, ties by id, the same answer at every block size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = ["rank_of", "top_k"]

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

QUERIES = 512
CORPUS = 8192


def top_k(
    queries: Vectors,
    corpus: Vectors,
    k: int,
    *,
    ids: Sequence[str] | None = None,
    exclude: Ints | None = None,
    blocks: tuple[int, int] = (QUERIES, CORPUS),
) -> tuple[Ints, Vectors]:
    """The k rows of `corpus` with the largest inner product, exactly.

    Products are summed in float64 and rounded to float32, so equal vectors have equal scores wherever they stand in
    a block; equal scores are ordered by id (by row where no ids are given).

    Args:
        queries: (Q, E); corpus: (C, E); unit vectors make the score a cosine.
        k: how many, at least 1; k >= C gives the complete ranking.
        ids: C ids that order ties.
        exclude: (Q,) the corpus row that must not be an answer of each query (the query itself), -1 for none.
        blocks: rows of queries and of corpus per block; memory is about 20 bytes times their product.

    Returns:
        rows (Q, min(k, C)) int64, -1 where the list is shorter, and scores (same shape) float32, -inf there.
    """
    _check(queries, corpus, k)
    order, place = _tie_order(ids, len(corpus))
    sorted_corpus = corpus if ids is None else corpus[order]
    banned = np.full(len(queries), -1, np.int64) if exclude is None else np.where(exclude < 0, -1, place[exclude])
    width = min(k, len(corpus))
    rows = np.empty((len(queries), width), np.int64)
    scores = np.empty((len(queries), width), np.float32)
    for start in range(0, len(queries), blocks[0]):
        part = slice(start, start + blocks[0])
        rows[part], scores[part] = _best_of_block(queries[part], sorted_corpus, banned[part], width, blocks[1])
    found = scores > -np.inf
    return np.where(found, order[rows], -1), scores


def _best_of_block(queries: Vectors, corpus: Vectors, banned: Ints, width: int, step: int) -> tuple[Ints, Vectors]:
    left = queries.astype(np.float64)
    best_rows = np.empty((len(queries), 0), np.int64)
    best_scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(corpus), step):
        scores = (left @ corpus[start : start + step].T.astype(np.float64)).astype(np.float32)
        here = np.flatnonzero((banned >= start) & (banned < start + step))
        scores[here, banned[here] - start] = -np.inf
        rows, values = _best(scores, min(width, scores.shape[1]))
        # what was found before has the smaller ids: standing first, it wins ties under a stable sort
        best_rows = np.concatenate([best_rows, rows + start], 1)
        best_scores = np.concatenate([best_scores, values], 1)
        if start:
            keep = np.argsort(-best_scores, axis=1, kind="stable")[:, :width]
            best_rows = np.take_along_axis(best_rows, keep, 1)
            best_scores = np.take_along_axis(best_scores, keep, 1)
    return best_rows, best_scores


def _best(scores: Vectors, k: int) -> tuple[Ints, Vectors]:
    """The k best columns of every row, best first, equal scores by column."""
    width = scores.shape[1]
    if k == width:
        columns = _order(scores)
        return columns, np.take_along_axis(scores, columns, 1)
    edge = np.partition(scores, width - k, axis=1)[:, width - k, None]
    chosen = scores >= edge
    crowded = np.flatnonzero(chosen.sum(1) > k)
    if len(crowded):
        tie = scores[crowded] == edge[crowded]
        above = scores[crowded] > edge[crowded]
        chosen[crowded] = above | (tie & (np.cumsum(tie, 1) <= k - above.sum(1, keepdims=True)))
    columns = np.nonzero(chosen)[1].reshape(len(scores), k)
    values = np.take_along_axis(scores, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)


def _order(scores: Vectors) -> Ints:
    """Columns of every row by falling score, equal scores by column.

    Score and column are packed into one integer, because sorting integers is several times faster than a stable
    argsort of floats, and breaks ties by itself.
    """
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    rising = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    packed = (-rising << 32) + np.arange(scores.shape[1])
    packed.sort(axis=1)
    return np.asarray(packed & 0xFFFFFFFF, np.int64)


def rank_of(
    queries: Vectors,
    corpus: Vectors,
    targets: Ints,
    *,
    ids: Sequence[str] | None = None,
    blocks: tuple[int, int] = (QUERIES, CORPUS),
) -> Ints:
    """The rank, from 1, at which `top_k` would list the corpus row `targets[q]` for query q, without sorting.

    Args:
        targets: (Q,) corpus rows.

    Returns:
        (Q,) int64.
    """
    _check(queries, corpus, 1)
    order, place = _tie_order(ids, len(corpus))
    sorted_corpus = corpus if ids is None else corpus[order]
    wanted = place[targets]
    ranks = np.ones(len(queries), np.int64)
    for start in range(0, len(queries), blocks[0]):
        part = slice(start, start + blocks[0])
        ranks[part] += _better(queries[part].astype(np.float64), sorted_corpus, wanted[part], blocks[1])
    return ranks


def _better(left: npt.NDArray[np.float64], corpus: Vectors, wanted: Ints, step: int) -> Ints:
    """How many corpus rows stand before row `wanted` of each query."""
    own = np.einsum("qe,qe->q", left, corpus[wanted].astype(np.float64)).astype(np.float32)[:, None]
    count = np.zeros(len(left), np.int64)
    for start in range(0, len(corpus), step):
        scores = (left @ corpus[start : start + step].T.astype(np.float64)).astype(np.float32)
        earlier = np.arange(start, start + scores.shape[1]) < wanted[:, None]
        before = (scores > own) | ((scores == own) & earlier)
        # another order of summation must not put an item before itself
        here = np.flatnonzero((wanted >= start) & (wanted < start + scores.shape[1]))
        before[here, wanted[here] - start] = False
        count += before.sum(1)
    return count


def _tie_order(ids: Sequence[str] | None, n: int) -> tuple[Ints, Ints]:
    if ids is None:
        rows = np.arange(n, dtype=np.int64)
        return rows, rows
    order = np.argsort(np.asarray(ids, dtype=str), kind="stable").astype(np.int64)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    return order, place


def _check(queries: Vectors, corpus: Vectors, k: int) -> None:
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise BadInput("queries, corpus", "two matrices of one width", f"{queries.shape} and {corpus.shape}")
    if k < 1:
        raise BadInput("k", "at least 1", k)
    if len(corpus) == 0:
        raise BadInput("corpus", "at least one vector", "none")
