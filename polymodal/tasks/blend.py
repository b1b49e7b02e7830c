"""Several searches blended by their scores, with weights learnt from queries whose right answers are known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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

    Source: a list-wise cross-entropy against the right answers (ListNet's with one right answer, Cao et al. 2007),
        for linear models convex, minimised by Newton's method with a small ridge.
    Related: `lexical.fuse`, which needs no right answers and knows ranks alone.
    """

    searches: tuple[str, ...]
    probable: tuple[str, ...]
    weights: Floats
    means: Floats
    deviations: Floats
    queries: int

    @classmethod
    def fit(
        cls, lists: Mapping[str, Lists], relevance: Relevance, probable: Collection[str] = (), ridge: float = 1e-3
    ) -> Self:
        """Learn from the lists of every search for the same queries.

        Args:
            lists: search -> its lists. relevance: of those queries.

        Raises:
            BadInput: fewer than 20 queries for which something right and something wrong is listed.
        """
        kept = tuple(name for name in lists if name in probable)
        blocks, right = [], []
        for query, (rows, x) in enumerate(_candidates(lists, kept)):
            gain = relevance.gains(np.asarray([query]), rows[None])[0] > 0
            if gain.any() and not gain.all():
                blocks.append(x)
                right.append(gain)
        if len(blocks) < LEAST:
            raise BadInput("queries", f"at least {LEAST} that find something right, to learn from", len(blocks))
        x = np.concatenate(blocks)
        means, deviations = x.mean(0), x.std(0)
        deviations = np.where(deviations > 0, deviations, 1.0)
        weights = _newton((x - means) / deviations, [len(block) for block in blocks], np.concatenate(right), ridge)
        return cls(tuple(lists), kept, weights, means, deviations, len(blocks))

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
        scores[rows] = ((x - self.means) / self.deviations) @ self.weights
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


def _newton(x: Floats, sizes: list[int], right: npt.NDArray[np.bool_], ridge: float) -> Floats:
    """The weights under which the right answers of every query are likeliest, (F,)."""
    starts = np.cumsum([0, *sizes[:-1]])
    of = np.repeat(np.arange(len(sizes)), sizes)
    share = right / np.add.reduceat(right.astype(np.float64), starts)[of]
    wanted = x.T @ share

    def loss(w: Floats) -> tuple[float, Floats]:
        z = x @ w
        z = z - np.maximum.reduceat(z, starts)[of]
        total = np.add.reduceat(np.exp(z), starts)
        value = (np.log(total).sum() - share @ z) / len(sizes) + ridge / 2 * w @ w
        return float(value), np.exp(z) / total[of]

    w = np.zeros(x.shape[1])
    value, p = loss(w)
    for _ in range(100):
        slope = (x.T @ p - wanted) / len(sizes) + ridge * w
        if np.abs(slope).max() < 1e-9:
            break
        means = np.add.reduceat(x * p[:, None], starts)
        bend = ((x * p[:, None]).T @ x - means.T @ means) / len(sizes) + ridge * np.eye(len(w))
        step, size = np.linalg.solve(bend, slope), 1.0
        while (after := loss(w - size * step))[0] > value and size > 1e-6:
            size /= 2
        w = w - size * step
        done, (value, p) = value - after[0] < 1e-12, after
        if done:
            break
    return np.asarray(w, np.float64)
