"""Two-stage retrieval: vectors find candidates, the matching head looks at each of them and ranks them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput, Record

__all__ = ["Cost", "Pairs", "Reranked", "rerank"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# candidates of one chunk of queries by their corpus rows -> their records, in that order
Fetch = Callable[[Sequence[int]], Sequence[Record]]

# different candidates whose tokens are held at a time
_HELD = 2048


class Pairs(Protocol):
    """What scores pairs: a `match.Matcher`."""

    def pairs(self, queries: Sequence[Record], candidates: Sequence[Record], left: Ints, right: Ints) -> Floats:
        """The probability that query `left[p]` and candidate `right[p]` belong together, (P,); NaN where it cannot be
        said."""


@dataclass(frozen=True)
class Cost:
    """What a way of searching costs.

    Args:
        encodings: passes of one query or one item alone.
        pairs: passes of a query together with an item.
        seconds: of CPU time, of all threads.
    """

    encodings: int
    pairs: int
    seconds: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.encodings + other.encodings, self.pairs + other.pairs, round(self.seconds + other.seconds, 2))


@dataclass(frozen=True)
class Reranked:
    """Lists ranked again.

    Args:
        rows: (Q, K) corpus rows, best first, -1 after the end of a list.
        scores: (Q, K) probability of a match in [0, 1] where a pair was compared, else minus the rank in the list
            before; -inf after the end.
        compared: pairs that have a probability.
        cost: of this stage alone.
    """

    rows: Ints
    scores: Floats
    compared: int
    cost: Cost


def rerank(
    matcher: Pairs,
    queries: Sequence[Record],
    fetch: Fetch,
    rows: Ints,
    most: int,
    *,
    held: int = _HELD,
    progress: Callable[[int], None] | None = None,
) -> Reranked:
    """Rank the first `most` answers of every list again, by the probability that they match.

    Equal probabilities keep the order of the first stage. Candidates that cannot be compared with the query (they have
    no modality but the query's) come after those that can, and then the rest of the list, both as they stood.

    Each side is encoded once for all queries of a chunk, and a chunk is as many queries as have `held` candidates
    between them: a corpus of no more than that is encoded once in all.

    Args:
        queries: Q records. rows: (Q, K) lists of the first stage, best first, -1 after the end.
        fetch: corpus rows -> their records.
        most: how many of each list; K or more scores every pair of the lists.
        progress: called with the number of pairs done.

    Source: InterBERT, arXiv 2003.13198: the matching probability ranks the pictures for a text. That it ranks a short
        list, found by vectors, is how such models are deployed; the paper scores every pair.
    Raises:
        BadInput: `most` below 1, or no pair can be compared. MediaError: a cell that cannot be decoded.
    """
    if most < 1:
        raise BadInput("rerank", "at least 1", most)
    start, encodings, pairs = time.process_time(), 0, 0
    top = rows[:, :most]
    probability = np.full(top.shape, np.nan, np.float32)
    for some in _chunks(top, held):
        candidates = np.unique(top[some][top[some] >= 0])
        left, places = np.nonzero(top[some] >= 0)
        right = np.searchsorted(candidates, top[some][left, places])
        asked = [queries[row] for row in some.tolist()]
        probability[some[left], places] = matcher.pairs(asked, fetch(candidates.tolist()), left, right)
        encodings, pairs = encodings + len(some) + len(candidates), pairs + len(left)
        if progress is not None:
            progress(len(left))
    compared = int(np.isfinite(probability).sum())
    if pairs and not compared:
        raise BadInput(
            "rerank", "queries and corpus of different modalities", "no pair that the matching head can compare"
        )
    ranked, scores = _again(rows, probability)
    return Reranked(ranked, scores, compared, Cost(encodings, pairs, round(time.process_time() - start, 2)))


def _chunks(top: Ints, held: int) -> Iterator[Ints]:
    """Consecutive queries with at most `held` different candidates; a longer list is a chunk of its own."""
    chunk: list[int] = []
    seen: set[int] = set()
    for row, listed in enumerate(top.tolist()):
        more = seen | {item for item in listed if item >= 0}
        if chunk and len(more) > held:
            yield np.asarray(chunk, np.int64)
            chunk, more = [], {item for item in listed if item >= 0}
        chunk.append(row)
        seen = more
    if chunk:
        yield np.asarray(chunk, np.int64)


def _again(rows: Ints, probability: Floats) -> tuple[Ints, Floats]:
    place = np.arange(1, rows.shape[1] + 1, dtype=np.float32)
    scores = np.where(rows >= 0, -place, -np.inf).astype(np.float32)
    top = scores[:, : probability.shape[1]]
    scores[:, : probability.shape[1]] = np.where(np.isfinite(probability), probability, top)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
