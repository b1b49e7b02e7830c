"""Several searches blended by their scores, with weights learnt from queries whose right answers are known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Relevance, Ties, scored_top
from polymodal.tasks.lexical import Lists, joined, queries_at_once
from polymodal.types import BadInput

__all__ = ["LEAST", "Blend"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST = 20  # queries to learn from
_MOST = 2000  # a handful of weights needs no more
_NEAR = 10  # times k: places of each search within which an item may come to the top of the blend
_STEP = 3  # degrees between two weights that are tried
_BETTER = 1e-6
_EDGE = 1e-6  # of probabilities: beyond, their logits say nothing


@dataclass(frozen=True)
class Blend:
    """A linear score of what several searches say of an item, among all items that any of them lists.

    ::

        s(q, d) = sum over features f of   w_f (x_f(q, d) - mean_f) / deviation_f

    A search gives one feature, its score: where it does not list an item, that of the last one it lists, or 0 where its
    list ends early, as that of BM25 does at items that share no word. A matching head gives two: the logit of its
    probability, and whether it looked at the pair at all.

    Args:
        searches: in the order of the features. probable: those whose scores are probabilities; below 0: not looked at.
        weights, means, deviations: of the features.
        queries: learnt from.

    The weights have length 1, and none of a search is negative.

    Source: coordinate ascent on the measure itself (Metzler and Croft, Information Retrieval 2007), here mean average
        precision among the first k of the queries to learn from.
    Differences: a step turns one weight against all others on a grid of angles, whose values are smoothed; the starts
        are all searches alike and each alone, instead of random ones, so that a run can be repeated.
    Related: `lexical.fuse`, which needs no right answers and knows ranks alone.
    """

    searches: tuple[str, ...]
    probable: tuple[str, ...]
    weights: Floats
    means: Floats
    deviations: Floats
    queries: int

    @classmethod
    def fit(cls, lists: Mapping[str, Lists], relevance: Relevance, probable: Collection[str] = (), k: int = 10) -> Self:
        """Learn from the lists of every search for the same queries.

        Args:
            lists: search -> its lists. relevance: of those queries.
            k: the right answers among the first k are what counts. Items that no search has among its first 10 k are
                not looked at, and of more than 2,000 queries that many, evenly spread.

        Raises:
            BadInput: fewer than 20 queries for which something right and something wrong is listed.
        """
        kept = tuple(name for name in lists if name in probable)
        blocks, right, asked = [], [], []
        for query, (rows, x) in enumerate(_candidates(lists, kept)):
            near = np.isin(rows, np.concatenate([found[query, : _NEAR * k] for found, _ in lists.values()]))
            gain = relevance.gains(np.asarray([query]), rows[None, near])[0] > 0
            if gain.any() and not gain.all():
                blocks.append(x[near])
                right.append(gain)
                asked.append(query)
        if len(blocks) < LEAST:
            raise BadInput("queries", f"at least {LEAST} that find something right, to learn from", len(blocks))
        spread = np.unique(np.linspace(0, len(blocks) - 1, min(len(blocks), _MOST)).round().astype(int)).tolist()
        blocks, right, asked = ([some[at] for at in spread] for some in (blocks, right, asked))
        every = np.concatenate(blocks)
        means, deviations = every.mean(0), every.std(0)
        deviations = np.where(deviations > 0, deviations, 1.0)
        names = _features(tuple(lists), kept)
        learnt = _Learnt(
            _padded([(block - means) / deviations for block in blocks]),
            _padded([np.ones(len(block), bool) for block in blocks]),
            _padded(right),
            relevance.count[asked],
            k,
            np.asarray([name not in lists for name in names]),
        )
        return cls(tuple(lists), kept, learnt.best(), means, deviations, len(blocks))

    def rank(self, lists: Mapping[str, Lists], corpus: int, depth: int, ties: Ties | None = None) -> Lists:
        """Lists by the blended score.

        Args:
            lists: of the searches that it was learnt from, and maybe others.
            corpus: C. depth: length of the lists. ties: as in `evaluate.top_k`.

        Returns:
            rows and scores (Q, min(depth, C)), as `evaluate.top_k`.
        """
        own = {name: lists[name] for name in self.searches}
        # only the scores of a block are held, never its features
        scores = (self._scores(rows, x, corpus) for rows, x in _candidates(own, self.probable))
        parts = []
        while block := list(islice(scores, queries_at_once(corpus))):
            parts.append(scored_top(np.stack(block), depth, ties))
        return joined(parts, min(depth, corpus))

    def _scores(self, rows: Ints, x: Floats, corpus: int) -> npt.NDArray[np.float32]:
        scores = np.full(corpus, -np.inf, np.float32)
        scores[rows] = _weighed((x - self.means) / self.deviations, self.weights)
        return scores

    def told(self) -> dict[str, float]:
        """Feature -> its weight a deviation."""
        return dict(zip(_features(self.searches, self.probable), self.weights.tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """As JSON: everything that ranking needs."""
        names = _features(self.searches, self.probable)
        columns = {"weight": self.weights, "mean": self.means, "deviation": self.deviations}
        features = [{"feature": n, **{c: float(v[at]) for c, v in columns.items()}} for at, n in enumerate(names)]
        return {"queries": self.queries, "features": features}


def _features(searches: Collection[str], probable: Collection[str]) -> list[str]:
    return [f for name in searches for f in ((name, f"{name}: looked at") if name in probable else (name,))]


def _candidates(lists: Mapping[str, Lists], probable: Collection[str]) -> Iterator[tuple[Ints, Floats]]:
    """For each query the rows that any search lists, rising (n,), and their features (n, F)."""
    for query in range(len(next(iter(lists.values()))[0])):
        found = {name: (rows[query][rows[query] >= 0], scores[query]) for name, (rows, scores) in lists.items()}
        union = np.unique(np.concatenate([rows for rows, _ in found.values()]))
        columns: list[Floats] = []
        for name, (rows, scores) in found.items():
            said, at = scores[: len(rows)].astype(np.float64), np.searchsorted(union, rows)
            if name in probable:
                looked, logits = np.zeros(len(union)), np.zeros(len(union))
                p = np.clip(np.where(said >= 0, said, 0.5), _EDGE, 1 - _EDGE)
                looked[at], logits[at] = said >= 0, np.log(p) - np.log1p(-p)
                columns += [logits, looked]
            else:
                full = len(rows) == lists[name][0].shape[1]
                column = np.full(len(union), said[-1] if full and len(said) else 0.0)
                column[at] = said
                columns.append(column)
        yield union, np.stack(columns, 1)


@dataclass(frozen=True)
class _Learnt:
    """What the queries to learn from say of a direction of weights.

    Args:
        x: (Q, n, F) features in deviations; rows after the end of a query's candidates are not `listed` (Q, n).
        right: (Q, n). totals: (Q,) right answers in the whole corpus. k: cut of the measure.
        free: (F,) whether a weight may be negative.
    """

    x: Floats
    listed: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    totals: Ints
    k: int
    free: npt.NDArray[np.bool_]

    def value(self, weights: Floats) -> float:
        """Mean average precision among the first k."""
        behind = np.where(self.listed, -_weighed(self.x, weights), np.inf)
        k = min(self.k, behind.shape[1])
        first = np.sort(np.argpartition(behind, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(np.take_along_axis(behind, first, 1), axis=1, kind="stable")
        hit = np.take_along_axis(self.right, np.take_along_axis(first, order, 1), 1)
        precision = np.cumsum(hit, 1) / np.arange(1, hit.shape[1] + 1)
        return float(np.mean((precision * hit).sum(1) / np.minimum(self.totals, self.k)))

    def best(self) -> Floats:
        """The best of the hills above all features alike and each search alone."""
        starts = [np.where(self.free, 0.0, 1.0), *np.eye(len(self.free))[~self.free]]
        return max((self.climb(start) for start in starts), key=self.value)

    def climb(self, weights: Floats, sweeps: int = 5) -> Floats:
        """Turn one weight at a time against all others together, as long as that helps; length 1.

        The value is a step function of few queries. It is smoothed over neighbouring angles, so that a lucky peak is
        not taken for a hill.
        """
        weights = weights / np.linalg.norm(weights)
        for _ in range(sweeps):
            before = weights
            for at in range(len(weights)):
                weights = self._turned(weights, at)
            if np.array_equal(before, weights):
                break
        return weights

    def _turned(self, weights: Floats, at: int) -> Floats:
        rest = weights.copy()
        rest[at] = 0.0
        length = np.linalg.norm(rest)
        if length == 0:
            return weights
        angles = np.arange(-90 if self.free[at] else 0, 91, _STEP)
        ways = np.where(np.abs(angles) < 90, np.cos(np.radians(angles)), 0.0)[:, None] * rest / length
        ways[:, at] = np.sin(np.radians(angles))
        values = _smooth(np.asarray([self.value(way) for way in ways]))
        now = np.abs(angles - np.degrees(np.arctan2(weights[at], length))).argmin()
        best = values.argmax()
        return np.asarray(ways[best]) if values[best] > values[now] + _BETTER else weights


def _weighed(x: Floats, weights: Floats) -> Floats:
    """Sums (...,) of features (..., F). Added up one by one: a matrix product's last digit depends on where x lies in
    memory, and would decide ties."""
    out = np.zeros(x.shape[:-1])
    for at, weight in enumerate(weights.tolist()):
        out += weight * x[..., at]
    return out


def _padded(blocks: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Arrays (n_q, ...) as one (Q, max n, ...), with zeros after the end of each."""
    out = np.zeros((len(blocks), max(map(len, blocks)), *blocks[0].shape[1:]), blocks[0].dtype)
    for row, block in zip(out, blocks, strict=True):
        row[: len(block)] = block
    return out


def _smooth(values: Floats, reach: int = 2) -> Floats:
    """The mean of each value and its neighbours; the ends are repeated."""
    return np.convolve(np.pad(values, reach, mode="edge"), np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")
