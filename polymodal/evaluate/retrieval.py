"""Retrieval metrics: functions of embeddings, ranked ids and relevance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.intervals import Floats, Interval, Together, clusters_of, intervals
from polymodal.evaluate.relevance import Relevance
from polymodal.evaluate.topk import Ties, top_k
from polymodal.evaluate.values import Result
from polymodal.types import BadInput, Embeddings

__all__ = [
    "AP",
    "Judged",
    "Retrieval",
    "chance",
    "chance_each",
    "judge",
    "judge_lists",
    "measure",
    "measure_lists",
    "metric_names",
    "retrieve",
]

Ints = npt.NDArray[np.int64]
AP = Literal["standard", "scale"]
_PLACES = 1 << 22  # of ranked lists at a time
_QUERIES = 4096
KINDS = ("hit", "recall", "precision", "map", "mrr", "ndcg")


@dataclass(frozen=True)
class Judged:
    """Ranked lists with every answer judged.

    Args:
        gains: (Q, K) gain of the answer at each rank, 0 = wrong or no answer.
        listed: (Q,) length of each list, at most K.
        relevant: (Q,) number of right answers there are, the query not counted where it is excluded.
        annotated: (Q,) |P| of SCALE's released metric, see Relevance.
        ideal: (Q, >= K) gains of the best possible list; as many as the largest cut of nDCG needs, where lists are
            shorter than that.
    """

    gains: Floats
    listed: Ints
    relevant: Ints
    annotated: Ints
    ideal: Floats


@dataclass(frozen=True)
class Retrieval(Result):
    """What `retrieve` found.

    Args:
        queries, corpus: how many of each.
        unjudged: queries without any right answer; they are left out of every mean (SCALE's AP scores them 0).
        metrics: metric -> Interval.
        chance: metric -> the value a random ranking is expected to reach, where a closed form exists.
        per_query: metric -> (Q,) values, NaN where not judged; not in the JSON.
        query_ids: Q ids; not in the JSON.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"per_query", "query_ids"})
    queries: int
    corpus: int
    unjudged: int
    metrics: Mapping[str, Interval]
    chance: Mapping[str, float]
    per_query: Mapping[str, Floats] = field(repr=False)
    query_ids: tuple[str, ...] = field(repr=False)


def metric_names(ks: Iterable[int] = (1, 5, 10)) -> tuple[str, ...]:
    """`hit@k recall@k precision@k map@k ndcg@k` for every k, then `map` and `mrr` over the whole list."""
    return (*(f"{kind}@{k}" for kind in ("hit", "recall", "precision", "map", "ndcg") for k in ks), "map", "mrr")


def measure(judged: Judged, metric: str, ap: AP = "standard") -> Floats:
    """One metric of every query.

    `hit@k`: 1 if a right answer is among the first k (the R@k of cross-modal papers; equals recall@k where one item is
    right). `recall@k`: found / all right. `precision@k`: found / k. `mrr`: 1 / rank of the first right answer, 0 if
    none is listed. `ndcg@k`: sum gain / log2(rank + 1) over that of the best list. `map@k`, with r(i) = rank of the
    i-th right answer listed at most at k: sum i / r(i) over min(k, |right|) for `ap="standard"`. `ap="scale"` is what
    SCALE's released code computes, with k' = min(k, |P|, listed): precision = found / k' and AP = sum over r(i) <= k'
    of i / r(i), divided by the number *found*, 0 when none is. Without `@k`, k is the length of the list.

    Returns:
        (Q,) in [0, 1]; NaN for a query without a right answer (`ap="scale"`: map and precision are 0 there).

    Source: Xiaodongsuper/SCALE_code, commit 227ae08, metric script, for `scale`; Jarvelin & Kekalainen 2002 for nDCG.
    Differences: trec_eval's map_cut divides by |right| instead of min(k, |right|); equal for `map`.
    Raises: BadInput: unknown metric.
    """
    kind, k = _parse(metric, judged.gains.shape[1])
    right = judged.gains > 0
    if ap == "scale" and kind in ("map", "precision"):
        return _scale(right, judged, kind, k)
    top = right[:, :k]
    values = _standard(kind, top, judged, k)
    return np.where(judged.relevant > 0, values, np.nan)


def _standard(kind: str, top: npt.NDArray[np.bool_], judged: Judged, k: int) -> Floats:
    found = top.sum(1)
    if kind == "hit":
        return np.asarray(found > 0, np.float64)
    if kind == "recall":
        return np.asarray(found / np.maximum(judged.relevant, 1), np.float64)
    if kind == "precision":
        return np.asarray(found / k, np.float64)
    if kind == "mrr":
        return np.where(found > 0, 1.0 / (top.argmax(1) + 1 if top.shape[1] else 1), 0.0)
    if kind == "ndcg":
        return _ndcg(judged, k)
    return _precision_sum(top) / np.maximum(np.minimum(k, judged.relevant), 1)


def _precision_sum(top: npt.NDArray[np.bool_]) -> Floats:
    return np.asarray((np.cumsum(top, 1) / np.arange(1, top.shape[1] + 1) * top).sum(1), np.float64)


def _ndcg(judged: Judged, k: int) -> Floats:
    # the best list may be longer than ours: what a short list lacks is a loss
    got, best = judged.gains[:, :k] @ _discount(judged.gains, k), judged.ideal[:, :k] @ _discount(judged.ideal, k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(got / best, np.float64)


def _discount(gains: Floats, k: int) -> Floats:
    return np.asarray(1 / np.log2(np.arange(min(k, gains.shape[1])) + 2), np.float64)


def _scale(right: npt.NDArray[np.bool_], judged: Judged, kind: str, k: int) -> Floats:
    cut = np.minimum(np.minimum(k, judged.annotated), judged.listed)
    top = right & (np.arange(right.shape[1]) < cut[:, None])
    found = top.sum(1)
    if kind == "precision":
        return np.asarray(found / np.maximum(cut, 1), np.float64)
    return np.asarray(_precision_sum(top) / np.maximum(found, 1), np.float64)


def _parse(metric: str, length: int) -> tuple[str, int]:
    kind, at, k = metric.partition("@")
    if kind not in KINDS or (at and not (k.isdecimal() and int(k) > 0)):
        raise BadInput("metric", f"one of {', '.join(KINDS)}, with or without @k", repr(metric))
    return kind, int(k) if at else max(length, 1)


def judge(relevance: Relevance, queries: Ints, rows: Ints, deepest: int = 0) -> Judged:
    """Ranked corpus rows of some queries, judged.

    Args:
        queries: (b,) query rows of `relevance`.
        rows: (b, K) corpus rows, best first, -1 after the end of a list.
        deepest: the largest cut that will be asked for, where it is above K.
    """
    gains = relevance.gains(queries, rows)
    return Judged(
        gains,
        np.asarray((rows >= 0).sum(1), np.int64),
        relevance.count[queries],
        relevance.annotated[queries],
        relevance.ideal(queries, max(rows.shape[1], deepest)),
    )


def judge_lists(
    lists: Sequence[Sequence[str]],
    right: Sequence[Mapping[str, float]],
    annotated: Sequence[int] | None = None,
) -> Judged:
    """Ranked ids, as an index or another program wrote them, judged.

    Args:
        lists: ids of each query, best first, the query itself left out by the caller.
        right: id -> gain (above 0) of each query's right answers, the query itself left out.
        annotated: |P| of SCALE's metric; len(right) where None.
    """
    longest = max([len(ids) for ids in lists], default=0)
    most = max([longest, *map(len, right)])
    gains, ideal = np.zeros((len(lists), longest)), np.zeros((len(lists), most))
    for row, (ids, gain) in enumerate(zip(lists, right, strict=True)):
        gains[row, : len(ids)] = [gain.get(i, 0.0) for i in ids]
        best = sorted(gain.values(), reverse=True)
        ideal[row, : len(best)] = best
    counts = np.asarray([len(g) for g in right], np.int64)
    labelled = counts if annotated is None else np.asarray(annotated, np.int64)
    return Judged(gains, np.asarray([len(i) for i in lists], np.int64), counts, labelled, ideal)


def retrieve(
    queries: Embeddings,
    corpus: Embeddings,
    relevance: Relevance,
    *,
    metrics: Sequence[str] = metric_names(),
    ap: AP = "standard",
    depth: int | None = None,
    drop_query: Literal["before", "after"] = "before",
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
    block: int | None = None,
) -> Retrieval:
    """Rank the corpus for every query, exactly, and measure.

    Args:
        queries, corpus: vectors of one width.
        relevance: over `queries.ids` and `corpus.ids` in this order (`by_id`, `by_key`, `by_qrels`).
        depth: length of the lists; None = the whole corpus. `map` and `mrr` look no deeper than this.
        drop_query: `after` takes the top `depth` first and then removes the query from its own list, which leaves
            depth - 1 answers: what SCALE's released code does.
        resamples: bootstrap resamples (95 % percentile interval); seed: of the bootstrap.
        together: query id -> group of queries that are no independent observations: of the intervals.
        block: queries ranked at a time; by default as many as keep four million places, whatever the corpus.

    Raises:
        BadInput: different widths, an empty corpus, an unknown metric.
    """
    wanted = len(corpus) if depth is None else depth
    step = block or max(1, _PLACES // max(min(wanted, len(corpus)), 1))
    ties, parts = Ties.by(corpus.ids), [np.zeros((0, len(metrics)))]
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        own = relevance.own[rows]
        exclude = own if drop_query == "before" else None
        found, _ = top_k(queries.vectors[rows], corpus.vectors, wanted, ids=ties, exclude=exclude)
        parts.append(_columns(relevance, rows, found if exclude is not None else _remove(found, own), metrics, ap))
    columns = np.concatenate(parts)
    return _summary(queries.ids, len(corpus), relevance, metrics, columns, resamples, seed, together)


def measure_lists(
    queries: Sequence[str],
    corpus: int,
    rows: Ints,
    relevance: Relevance,
    *,
    metrics: Sequence[str] = metric_names(),
    ap: AP = "standard",
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Retrieval:
    """`retrieve` for lists that something else ranked.

    Args:
        queries: Q ids. corpus: C, how many items were searched.
        rows: (Q, K) corpus rows, best first, the query itself (`relevance.own`) left out, -1 after the end of a list.

    Raises:
        BadInput: an unknown metric.
    """
    parts = [np.zeros((0, len(metrics)))]
    for start in range(0, len(queries), _QUERIES):
        some = np.arange(start, min(start + _QUERIES, len(queries)))
        parts.append(_columns(relevance, some, rows[some], metrics, ap))
    return _summary(tuple(queries), corpus, relevance, metrics, np.concatenate(parts), resamples, seed, together)


def _columns(relevance: Relevance, queries: Ints, rows: Ints, metrics: Sequence[str], ap: AP) -> Floats:
    """(b, metrics) values of some queries."""
    judged = judge(relevance, queries, rows, max(_parse(metric, 0)[1] for metric in metrics))
    return np.stack([measure(judged, metric, ap) for metric in metrics], 1)


def _summary(
    queries: tuple[str, ...],
    corpus: int,
    relevance: Relevance,
    metrics: Sequence[str],
    columns: Floats,
    resamples: int,
    seed: int,
    together: Together,
) -> Retrieval:
    figures = intervals(columns, resamples=resamples, seed=seed, clusters=clusters_of(queries, together))
    return Retrieval(
        len(queries),
        corpus,
        int((relevance.count == 0).sum()),
        dict(zip(metrics, figures, strict=True)),
        {name: value for name in metrics if (value := chance(name, relevance, corpus)) is not None},
        {name: columns[:, i] for i, name in enumerate(metrics)},
        queries,
    )


def _remove(rows: Ints, own: Ints) -> Ints:
    gone = (rows == own[:, None]) & (own[:, None] >= 0)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone, -1, rows), order, 1)


def chance(metric: str, relevance: Relevance, corpus: int) -> float | None:
    """Expected value of a metric (standard definitions, binary relevance) under a random order of the corpus.

    Returns:
        In [0, 1], or None: no query has a right answer, or a graded nDCG is asked for.

    Source: AP: Bestgen 2015, exact expected average precision; the others follow from the hypergeometric distribution.
    """
    each = chance_each(metric, relevance, corpus)
    judged = np.isfinite(each)
    return float(each[judged].mean()) if judged.any() else None


def chance_each(metric: str, relevance: Relevance, corpus: int) -> Floats:
    """`chance` of every query, (Q,); NaN for one without a right answer."""
    kind, k = _parse(metric, corpus)
    sizes = corpus - (relevance.own >= 0)
    pairs, which = np.unique(np.stack([relevance.count, sizes]), axis=1, return_inverse=True)
    values = [_chance(kind, k, int(right), int(size)) if right else np.nan for right, size in pairs.T]
    return np.asarray(values, np.float64)[which.reshape(-1)]


def _chance(kind: str, k: int, right: int, size: int) -> float:
    right, deep = min(right, size), min(k, size)
    ranks = np.arange(1, deep + 1)
    if kind == "precision":
        return right / size * deep / k
    if kind == "recall":
        return deep / size
    if kind == "ndcg":
        discount = 1 / np.log2(ranks + 1)
        return float(right / size * discount.sum() / discount[:right].sum())
    if kind == "map":
        given = (1 + (ranks - 1) * (right - 1) / max(size - 1, 1)) / ranks
        return float(right / size * given.sum() / min(k, right))
    # first right answer at rank i: none before it, one there
    none_before = np.cumprod(np.r_[1.0, np.maximum(size - right - ranks[:-1] + 1, 0) / (size - ranks[:-1] + 1)])
    first = none_before * right / (size - ranks + 1)
    return float(np.minimum(first, 1.0).sum() if kind == "hit" else (first / ranks).sum())
