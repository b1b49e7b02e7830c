"""How good recommendations are, offline: known right items, several methods, the same cases for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Difference, Interval, interval, judge_lists, measure, paired
from polymodal.evaluate.values import Result
from polymodal.tasks.calibration import error_interval
from polymodal.tasks.probability import Calibrator, Isotonic, Platt, brier
from polymodal.types import BadInput, Embeddings, Record

__all__ = [
    "Calibrated",
    "Case",
    "Key",
    "Method",
    "Pool",
    "alike_labels",
    "calibrate",
    "compare_lists",
    "halves",
    "popular",
    "shortlist",
    "shuffled",
]

Floats = npt.NDArray[np.float64]
# id -> what makes two items the same recommendation: the group, or the id where there is none
Key = Callable[[str], str]


@dataclass(frozen=True)
class Case:
    """What is asked, and what would have been right.

    Args:
        topic: the record, or None where a history is asked.
        history: ids, the oldest first.
        right: ids; nothing of the history's groups is among them.
    """

    name: str
    right: frozenset[str]
    topic: Record | None = None
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method(Result):
    """What one method reached over the measured cases.

    Args:
        metrics: `recall@k`, `ndcg@k`, `hit@k`, `diversity` (1 minus the mean cosine of two items of a list) and, where
            labels are known, `variety` (the share of the labels in which two items of a list differ).
        coverage: share of the catalogue's groups that are in any list.
        behind: the reference's recall@k and ndcg@k minus this method's; {} for the reference itself.
    """

    name: str
    metrics: Mapping[str, Interval]
    coverage: float
    behind: Mapping[str, Difference]


@dataclass(frozen=True)
class Pool:
    """The nearest items of one case: `scores` (n,) and whether each is `right` (n,)."""

    scores: Floats
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Calibrated(Result):
    """How far probabilities are off, on cases that fitted nothing.

    Args:
        pairs, right: case and item pairs measured, and the share of them that is right.
        error: "score as it is", "constant" (the share that was right where it was fitted), "platt", "isotonic" ->
            expected calibration error; brier: the same -> Brier score, which sees whether they know anything.
    """

    pairs: int
    right: float
    error: Mapping[str, Interval]
    brier: Mapping[str, float]


def halves(cases: Sequence[Case], seed: int) -> tuple[list[Case], list[Case]]:
    """Cases to fit on (popularity, calibration) and cases to measure on, drawn with the seed.

    Raises:
        BadInput: fewer than four cases.
    """
    if len(cases) < 4:
        raise BadInput("cases", "at least 4 (two to fit on, two to measure on)", len(cases))
    order = np.random.default_rng(seed).permutation(len(cases))
    cut = len(cases) // 2
    return [cases[at] for at in sorted(order[:cut])], [cases[at] for at in sorted(order[cut:])]


def popular(cases: Sequence[Case], catalogue: Sequence[str]) -> list[str]:
    """The control of popularity: the catalogue, first what most cases have, seen or right; equal ones as they stand."""
    counts = Counter(name for case in cases for name in (*case.right, *set(case.history)))
    return sorted(catalogue, key=lambda name: -counts[name])


def shuffled(case: Case, catalogue: Sequence[str], seed: int) -> list[str]:
    """The catalogue in an order that the seed and the case decide: the control that knows nothing."""
    generator = np.random.default_rng([seed, *case.name.encode()])
    return [catalogue[at] for at in generator.permutation(len(catalogue))]


def shortlist(ranked: Sequence[str], key: Key, history: Sequence[str], k: int) -> list[str]:
    """The first k of a ranking, one of each group and nothing of the history's: what every method is held to."""
    taken = {key(name) for name in history}
    out: list[str] = []
    for name in ranked:
        if len(out) == k:
            break
        if key(name) not in taken:
            taken.add(key(name))
            out.append(name)
    return out


def compare_lists(
    lists: Mapping[str, Sequence[Sequence[str]]],
    cases: Sequence[Case],
    key: Key,
    vectors: Embeddings,
    *,
    k: int,
    labels: Sequence[Mapping[str, str]] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> list[Method]:
    """Measure lists of several methods on the same cases; the first method is the reference of the others.

    Args:
        lists: method -> the list of each case, at most k ids, one of each group.
        vectors: of the catalogue, for `diversity` and as what `coverage` is a share of.
        labels: label -> {id: value}, for `variety`.

    Recall counts groups: of a group that is right one item can be listed. Intervals: bootstrap over cases.
    """
    keys = len({key(name) for name in vectors.ids})
    at = {name: row for row, name in enumerate(vectors.ids)}
    options: Any = {"resamples": resamples, "seed": seed}
    columns = {name: _columns(found, cases, key, k) for name, found in lists.items()}
    reference = next(iter(columns.values()))
    out = []
    for name, found in lists.items():
        metrics = {metric: interval(values, **options) for metric, values in columns[name].items()}
        metrics["diversity"] = interval(np.array([_unlike(one, vectors, at) for one in found]), **options)
        if labels:
            metrics["variety"] = interval(np.array([1 - alike_labels(one, labels) for one in found]), **options)
        behind = {
            metric: paired(reference[metric], values, **options)
            for metric, values in columns[name].items()
            if columns[name] is not reference and not metric.startswith("hit")
        }
        out.append(Method(name, metrics, len({key(i) for one in found for i in one}) / keys, behind))
    return out


def _columns(lists: Sequence[Sequence[str]], cases: Sequence[Case], key: Key, k: int) -> dict[str, Floats]:
    # a right item stands for its group; a wrong one of the same group is wrong
    named = [
        [key(name) if name in case.right else f"\0{name}" for name in found]
        for found, case in zip(lists, cases, strict=True)
    ]
    judged = judge_lists(named, [dict.fromkeys(map(key, case.right), 1.0) for case in cases])
    return {metric: measure(judged, metric) for metric in (f"recall@{k}", f"ndcg@{k}", f"hit@{k}")}


def _unlike(found: Sequence[str], vectors: Embeddings, at: Mapping[str, int]) -> float:
    if len(found) < 2:
        return float("nan")
    rows = vectors.vectors[[at[name] for name in found]].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    total = float((rows.sum(0) ** 2).sum() - (rows**2).sum())
    return 1 - total / (len(found) * (len(found) - 1))


def alike_labels(found: Sequence[str], labels: Sequence[Mapping[str, str]]) -> float:
    """Mean share of the labels that two items of a list have in common; NaN where no two have any."""
    same = [one[a] == one[b] for a, b in combinations(found, 2) for one in labels if a in one and b in one]
    return float(np.mean(same)) if same else float("nan")


def calibrate(
    fitting: Sequence[Pool], measured: Sequence[Pool], *, resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, Calibrator], Calibrated]:
    """Fit both calibrators on some cases' pools, and measure them on others'.

    Pools are what a recommender looks at, so the share of right pairs is that of use, not one that was chosen: a head
    trained on as many matches as mismatches says far too much there.

    Raises:
        BadInput: no right pair, or no wrong one, among the fitting pools.
    """
    scores, right = (np.concatenate([getattr(pool, f) for pool in fitting]) for f in ("scores", "right"))
    calibrators: dict[str, Calibrator] = {"platt": Platt.fit(scores, right), "isotonic": Isotonic.fit(scores, right)}
    share = float(right.mean())
    ways: dict[str, Callable[[Floats], Floats]] = {
        "score as it is": lambda s: np.clip(s, 0.0, 1.0),
        "constant": lambda s: np.full(len(s), share),
        **calibrators,
    }
    errors, briers = {}, {}
    outcome = np.concatenate([pool.right for pool in measured])
    for name, way in ways.items():
        said = [way(pool.scores) for pool in measured]
        errors[name] = _error(said, [pool.right for pool in measured], resamples, seed)
        briers[name] = brier(np.concatenate(said), outcome)
    return calibrators, Calibrated(len(outcome), float(outcome.mean()), errors, briers)


def _error(said: Sequence[Floats], right: Sequence[npt.NDArray[np.bool_]], resamples: int, seed: int) -> Interval:
    """Expected calibration error with its bootstrap interval over cases."""
    cases = np.repeat(np.arange(len(said)), [len(p) for p in said])
    found = error_interval(np.concatenate(said), np.concatenate(right), resamples=resamples, seed=seed, clusters=cases)
    return replace(found, n=len(said))
