"""Recommendation: items for a topic or a history, from vectors alone.

Nobody needs to have bought or seen anything: an item can be recommended from the moment it is in the index. The list is
made in four steps, each of which may be left out::

    nearest items (a pool) -> ranked again by the matching head -> one of each group, likely enough -> k of them by MMR

Never imports torch: the service uses it; whatever is a network is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from polymodal.index import Index
from polymodal.types import BadInput, Embeddings, Embeds, Hit, MediaError, Record, Where

__all__ = [
    "Blend",
    "Groups",
    "Judge",
    "Knows",
    "Recommended",
    "Recommender",
    "Rerank",
    "Wanted",
    "check_topic",
    "middle",
    "mmr",
    "recency",
]

Blend = Literal["mean", "max"]
Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
# ids -> the group of each, None where it has none
Groups = Callable[[Sequence[str]], Sequence[str | None]]
# scores -> probabilities
Calibrates = Callable[[npt.ArrayLike], Floats]


class Judge(Protocol):
    """Whatever says how likely a query and an item belong together, such as `match.Matcher`."""

    def pairs(
        self,
        queries: Sequence[Record],
        candidates: Sequence[Record],
        left: npt.NDArray[np.int64],
        right: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """Probabilities of query `left[p]` with candidate `right[p]`, (P,); NaN where they cannot be compared."""


@runtime_checkable
class Knows(Protocol):
    """An embedder that can say what it never saw."""

    def unknown(self, record: Record) -> tuple[str, ...]:
        """The record's modalities of which the model knows nothing."""


@dataclass(frozen=True)
class Wanted:
    """How a list is made.

    Args:
        k: length of the list, at least 1.
        diversity: 0 takes the most relevant items; up to 1, which looks only at how unlike the chosen ones they are.
        least: the calibrated probability below which an item is not recommended; None for no threshold.
        pool: how many of the nearest items are considered (at least k), each of another group.

    Raises:
        BadInput: one of them out of range.
    """

    k: int = 10
    diversity: float = 0.0
    least: float | None = None
    pool: int = 100

    def __post_init__(self) -> None:
        for name in ("k", "pool"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise BadInput(name, "a whole number of at least 1", repr(value))
        for name in ("diversity", "least"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BadInput(name, "a number from 0 to 1", repr(value))


@dataclass(frozen=True, slots=True)
class Recommended:
    """One recommended item.

    Args:
        score: by which it was ranked, before MMR: the cosine, or the matching head's probability.
        by: which of the two, "vectors" or "match".
        probability: the calibrated one; None without a calibration.
        group: of the item; None where it has none.
    """

    id: str
    score: float
    by: Literal["vectors", "match"] = "vectors"
    probability: float | None = None
    group: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rerank:
    """What ranking again takes.

    Args:
        judge: the matching head.
        queries: topic id -> its record; topics without one (clusters) are not ranked again.
        items: item id -> its record; items without one are not either.
    """

    judge: Judge
    queries: Mapping[str, Record]
    items: Mapping[str, Record]

    def scores(self, topic: str, ids: Sequence[str]) -> Floats:
        """Probability of the topic with each item, (n,); NaN where they cannot be compared, or the item not read."""
        out = np.full(len(ids), np.nan)
        here = [at for at, name in enumerate(ids) if name in self.items]
        if topic not in self.queries or not here:
            return out
        records = [self.items[ids[at]] for at in here]
        try:
            out[here] = self._judged(topic, records)
        except MediaError:  # one broken file: find out which, and keep the others
            for at, record in zip(here, records, strict=True):
                try:
                    out[at] = self._judged(topic, [record])[0]
                except MediaError:
                    continue
        return out

    def _judged(self, topic: str, records: Sequence[Record]) -> npt.NDArray[np.float32]:
        right = np.arange(len(records))
        return self.judge.pairs([self.queries[topic]], records, np.zeros_like(right), right)


def check_topic(embedder: Embeds, topic: Record) -> None:
    """Raises BadInput for a topic with nothing in it, or of which the model knows nothing (a script it never saw)."""
    if not topic.values:
        raise BadInput("topic", "at least one of " + ", ".join(embedder.modalities), "nothing")
    if isinstance(embedder, Knows) and set(embedder.unknown(topic)) == set(topic.values):
        raise BadInput(
            "topic",
            "words that the model has seen",
            ", ".join(str(value) for value in topic.values.values()),
            "Nothing of it is known to the model: write it in a language of the catalogue.",
        )


def mmr(relevance: npt.ArrayLike, vectors: npt.NDArray[np.floating], k: int, diversity: float) -> list[int]:
    """Maximal marginal relevance: at most k rows, one after the other the row with the largest ::

        (1 - diversity) * relevance_i - diversity * max over the chosen j of cos(v_i, v_j)

    Args:
        relevance: (n,). vectors: (n, E), of any length but 0.
        diversity: in [0, 1]; 0 is the order of relevance. Ties go to the earlier row.

    Source: Carbonell, Goldstein 1998, "The use of MMR"; its lambda is 1 - diversity. The first row has nothing to be
    unlike, so it is the most relevant one.
    """
    gain = np.asarray(relevance, np.float64)
    wide = np.asarray(vectors, np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    chosen: list[int] = []
    free, alike = np.ones(len(gain), bool), np.full(len(gain), -np.inf)
    for _ in range(min(k, len(gain))):
        value = gain if not chosen else (1 - diversity) * gain - diversity * alike
        best = int(np.where(free, value, -np.inf).argmax())
        chosen.append(best)
        free[best] = False
        alike = np.maximum(alike, unit @ unit[best])
    return chosen


def recency(length: int, half_life: float) -> Floats:
    """Weights (length,) of a history, the oldest first: the last counts 1, `half_life` places before it a half.

    Raises:
        BadInput: a half-life that is not above 0; infinity counts all the same.
    """
    if not half_life > 0:
        raise BadInput("half_life", "a number above 0", repr(half_life))
    return np.asarray(0.5 ** (np.arange(length)[::-1] / half_life), np.float64)


def middle(vectors: npt.NDArray[np.floating], weights: Floats | None = None) -> Vectors:
    """The direction of the (weighted) mean, (1, E) of length 1. Raises BadInput where the vectors cancel out."""
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)[None]
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadInput("ids", "items that have a direction in common", "items that cancel out", "Take fewer of them.")
    return (mean / length).astype(np.float32)


class Recommender:
    """Lists of items for topics and histories.

    Args:
        index: the catalogue's vectors.
        groups: of items; of one group one item is recommended. No item has one by default.
        calibration: "topic", "topic match" (scores of the matching head) and "history" -> scores to probabilities.

    Source: InterBERT, arXiv 2003.13198 v4, deployed for topic-based recommendation; the paper gives the use, not the
    method. Calibration of a head that was trained at another share of matches than it meets: `calibrate`.
    """

    def __init__(
        self, index: Index, groups: Groups | None = None, calibration: Mapping[str, Calibrates] | None = None
    ) -> None:
        self.index = index
        self._groups: Groups = groups or (lambda ids: [None] * len(ids))
        self._calibration = calibration or {}

    def for_topics(
        self, topics: Embeddings, wanted: Wanted, where: Where | None = None, rerank: Rerank | None = None
    ) -> list[list[Recommended]]:
        """A list for each topic; a topic is a vector of the index's model, however it was made.

        Args:
            where: a filter, as `Index.search`.
            rerank: ranks the pool again by the matching head. Items that it cannot judge count as unlikely (0), and
                stand behind the others in the order of their vectors.

        Raises:
            ModelMismatch: vectors of another model.
            BadInput: a filter the index cannot answer; a threshold without a calibration.
        """
        self.index.check_model(topics.model, "these topics")
        self._check_threshold("topic match" if rerank is not None else "topic", wanted)
        out = []
        for name, vector in zip(topics.ids, topics.vectors, strict=True):
            pool = self._nearest(vector[None], wanted, where)
            scores = np.array([hit.score for hit in pool])
            judged = np.full(len(pool), np.nan) if rerank is None else rerank.scores(name, [hit.id for hit in pool])
            out.append(self._list(pool, scores, judged, wanted, "topic"))
        return out

    def for_history(
        self,
        history: Sequence[str],
        wanted: Wanted,
        where: Where | None = None,
        *,
        blend: Blend = "mean",
        half_life: float = 5.0,
    ) -> list[Recommended]:
        """A list for somebody who saw these items, none of them and nothing of their groups in it.

        Args:
            history: ids of the index, the oldest first; an item seen twice counts twice.
            blend: "mean": near the recency-weighted mean. "max": near any one of them, by the largest of weight times
                cosine, which keeps apart what a mean would mix.
            half_life: places after which an item of the history counts half.

        Raises:
            UnknownId: an id that is not in the index.
            BadInput: an empty history; items that cancel out; as `for_topics`.
        """
        if isinstance(history, str) or not history:
            raise BadInput("history", "at least one id", repr(history) if history else "none")
        if blend not in ("mean", "max"):
            raise BadInput("blend", "mean or max", repr(blend))
        self._check_threshold("history", wanted)
        weights, vectors = recency(len(history), half_life), self.index.get(history).rows(history)
        queries, factors = (middle(vectors, weights), np.ones(1)) if blend == "mean" else (vectors, weights)
        pool = self._nearest(queries, wanted, where, factors, list(dict.fromkeys(history)))
        return self._list(pool, np.array([hit.score for hit in pool]), np.full(len(pool), np.nan), wanted, "history")

    def _nearest(
        self,
        queries: Vectors,
        wanted: Wanted,
        where: Where | None,
        factors: Floats | None = None,
        seen: Sequence[str] = (),
    ) -> list[Hit]:
        """The pool: by falling score one hit of each group, none of what was seen; `ask` grows until it is full."""
        need = max(wanted.pool, wanted.k)
        weights = np.ones(len(queries)) if factors is None else factors
        barred = set(self._keys(seen)) | {("id", name) for name in seen}
        ask = need + len(seen)
        while True:
            hits = self._search(queries, ask, where, weights)
            kept = self._distinct(hits, barred)
            if len(kept) >= need or len(hits) < ask:
                return kept[:need]
            ask *= 2

    def _search(self, queries: Vectors, ask: int, where: Where | None, weights: Floats) -> list[Hit]:
        lists = self.index.search(queries, ask, where)
        if len(lists) == 1:
            return lists[0]
        # the best by the largest of several scores are among the best by each
        found = {hit.id: hit for hits in lists for hit in hits}
        if not found:
            return []
        scores = (self.index.get(found).vectors.astype(np.float64) @ queries.T.astype(np.float64)) * weights
        best = zip(found.values(), scores.max(1).tolist(), strict=True)
        ranked = sorted((Hit(hit.id, score, hit.attributes) for hit, score in best), key=lambda h: (-h.score, h.id))
        return ranked[:ask]

    def _keys(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        return [("id", n) if g is None else ("group", g) for n, g in zip(ids, self._groups(ids), strict=True)]

    def _distinct(self, hits: Sequence[Hit], barred: set[tuple[str, str]]) -> list[Hit]:
        taken, out = set(barred), []
        for hit, key in zip(hits, self._keys([hit.id for hit in hits]), strict=True):
            if key not in taken and ("id", hit.id) not in barred:
                taken.add(key)
                out.append(hit)
        return out

    def _list(
        self, pool: Sequence[Hit], scores: Floats, judged: Floats, wanted: Wanted, asked: str
    ) -> list[Recommended]:
        ranked_again = np.isfinite(judged)
        relevance = np.where(ranked_again, judged, 0.0) if ranked_again.any() else scores
        shown = np.where(ranked_again, judged, scores)
        likely = self._likely(shown, ranked_again, asked)
        order = [int(at) for at in np.argsort(-relevance, kind="stable")]
        if wanted.least is not None:
            order = [at for at in order if likely[at] >= wanted.least]
        if not order:
            return []
        vectors = self.index.get([pool[at].id for at in order]).vectors
        chosen = [order[at] for at in mmr(relevance[order], vectors, wanted.k, wanted.diversity)]
        groups = self._groups([pool[at].id for at in chosen])
        return [
            Recommended(
                pool[at].id,
                float(shown[at]),
                "match" if ranked_again[at] else "vectors",
                float(likely[at]) if np.isfinite(likely[at]) else None,
                group,
                pool[at].attributes,
            )
            for at, group in zip(chosen, groups, strict=True)
        ]

    def _likely(self, scores: Floats, ranked_again: npt.NDArray[np.bool_], asked: str) -> Floats:
        """Calibrated probabilities, NaN where there is no calibration."""
        out = np.full(len(scores), np.nan)
        for name, rows in ((asked, ~ranked_again), (f"{asked} match", ranked_again)):
            if name in self._calibration and rows.any():
                out[rows] = self._calibration[name](scores[rows])
        return out

    def _check_threshold(self, name: str, wanted: Wanted) -> None:
        if wanted.least is not None and name not in self._calibration:
            raise BadInput(
                "least",
                f"an index with a calibration for {name!r}",
                f"one for {', '.join(self._calibration)}" if self._calibration else "none",
                "Fit one to known pairs: polymodal recommend-eval INDEX PAIRS --write",
            )
