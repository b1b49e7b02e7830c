"""What can be read from the vectors: nearest neighbours, a linear classifier, a linear regression."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.breakdown import GroupScore, breakdown, label_bands
from polymodal.evaluate.intervals import (
    Clusters,
    Floats,
    Interval,
    Together,
    bounds,
    clusters_of,
    interval,
    resample_weights,
    resampled_means,
)
from polymodal.evaluate.topk import top_k
from polymodal.evaluate.values import Result
from polymodal.types import BadInput, Embeddings, MissingExtra

__all__ = [
    "Classification",
    "LinearFit",
    "Regression",
    "classified",
    "fit_linear",
    "knn_probe",
    "knn_votes",
    "linear_probe",
    "ridge_probe",
]

Ints = npt.NDArray[np.int64]

# temperature of the votes, as in the k-NN evaluation of DINO (Caron et al. 2021)
_VOTE_TEMPERATURE = 0.07


@dataclass(frozen=True)
class Classification(Result):
    """How well labels are recovered.

    Args:
        name: what was predicted from what, for people.
        method: `k-NN` or `linear`.
        settings: chosen k, penalty, split.
        classes: distinct labels of the training items; trained, tested: items.
        unseen: tested items whose label no training item has; they count as wrong.
        accuracy: share right. balanced: mean recall over the labels of the tested items.
        chance: share right when always answering the most frequent training label.
        per_class: recall of each tested label, most frequent first.
        bands: accuracy over head, torso and tail labels (`label_bands` of the training labels).
        correct: tested id -> whether it was right; not in the JSON.
        predicted: tested id -> label; not in the JSON.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"correct", "predicted"})
    name: str
    method: str
    settings: Mapping[str, Any]
    classes: int
    trained: int
    tested: int
    unseen: int
    accuracy: Interval
    balanced: Interval
    chance: float
    per_class: tuple[GroupScore, ...]
    bands: tuple[GroupScore, ...]
    correct: Mapping[str, bool] = field(repr=False)
    predicted: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Regression(Result):
    """How well a number is recovered. `r2` is 1 - squared error / spread of the tested items; at most 1."""

    name: str
    penalty: float
    trained: int
    tested: int
    r2: Interval


def knn_votes(scores: Floats, neighbours: Ints, classes: int, *, weighted: bool = True) -> Floats:
    """The votes of each row for every label; the most win, ties go to the smaller code.

    Args:
        scores: (n, k) cosines, best first; neighbours: (n, k) label codes, -1 for no neighbour.
        weighted: a vote counts exp(cosine / 0.07), relative to the best neighbour's, else 1.

    Returns:
        (n, classes).
    """
    weight = np.exp((scores - scores[:, :1]) / _VOTE_TEMPERATURE) if weighted else np.ones(scores.shape)
    weight = np.where(neighbours >= 0, weight, 0.0)
    cells = np.arange(len(scores))[:, None] * classes + np.maximum(neighbours, 0)
    votes = np.bincount(cells.ravel(), weight.ravel(), len(scores) * classes)
    return np.asarray(votes.reshape(len(scores), classes), np.float64)


def knn_probe(
    train: Embeddings,
    test: Embeddings | None,
    labels: Mapping[str, str],
    *,
    k: int = 10,
    weighted: bool = True,
    name: str = "label",
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Classification:
    """Label of each tested item by its k nearest training items (cosine of unit vectors).

    Args:
        test: None classifies the training items themselves, each without itself (leave one out).
        labels: id -> label; items without one are left out.
        k: 1 is the plain nearest neighbour.
        together: id -> group of items that are no independent observations: of the intervals.

    Raises:
        BadInput: no labelled item to learn from or to test.
    """
    known = _labelled(train, labels, "train")
    tested = known if test is None else _labelled(test, labels, "test")
    own = np.arange(len(known.ids)) if test is None else None
    rows, scores = top_k(tested.vectors, known.vectors, k, ids=known.ids, exclude=own)
    names = sorted({labels[i] for i in known.ids})
    code = {label: c for c, label in enumerate(names)}
    held = np.asarray([code[labels[i]] for i in known.ids], np.int64)
    finite = np.where(rows >= 0, scores, -1.0).astype(np.float64)
    votes = knn_votes(finite, np.where(rows >= 0, held[rows], -1), len(names), weighted=weighted)
    settings = {"k": k, "weighted": weighted, "leave one out": test is None}
    answers = [names[v] for v in votes.argmax(1)]
    options: Any = {"resamples": resamples, "seed": seed, "together": together}
    return classified(name, "k-NN", settings, _counts(known, labels), tested.ids, answers, labels, **options)


def linear_probe(
    train: Embeddings,
    test: Embeddings,
    labels: Mapping[str, str],
    *,
    validation: Embeddings | None = None,
    penalties: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0),
    name: str = "label",
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Classification:
    """Multinomial logistic regression on standardised vectors.

    Args:
        validation: chooses the penalty; None holds out a seeded fifth of the training items for that.
        penalties: candidates for C, the inverse strength of the L2 penalty. The classifier is fitted again on all
            training (not validation) items with the best; ties go to the stronger penalty.
        together: as in `knn_probe`.

    Raises:
        BadInput: fewer than two labels; no labelled item.
        MissingExtra: scikit-learn is not installed.
    """
    known, tested = _labelled(train, labels, "train"), _labelled(test, labels, "test")
    fit = fit_linear(known, labels, validation=validation, penalties=penalties, seed=seed)
    answers = [fit.labels[c] for c in fit.scores(tested.vectors).argmax(1)]
    settings = {
        "C": fit.penalty,
        "tuned on": "validation" if validation is not None else "a fifth of the training items",
        "converged": fit.converged,
    }
    options: Any = {"resamples": resamples, "seed": seed, "together": together}
    return classified(name, "linear", settings, _counts(known, labels), tested.ids, answers, labels, **options)


@dataclass(frozen=True)
class LinearFit:
    """A linear classifier of C labels: scores(z) = ((z - centre) / spread) weight^T + bias, whose softmax are chances.

    Args:
        labels: C names, sorted. weight: (C, E); bias: (C,); centre, spread: (E,).
        penalty: the chosen C, the inverse strength of the L2 penalty; converged: whether the solver came to its end.
    """

    labels: tuple[str, ...]
    weight: Floats
    bias: Floats
    centre: Floats
    spread: Floats
    penalty: float
    converged: bool

    def scores(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """(n, E) -> (n, C)."""
        return np.asarray((vectors - self.centre) / self.spread @ self.weight.T + self.bias, np.float64)


def fit_linear(
    train: Embeddings,
    labels: Mapping[str, str],
    *,
    validation: Embeddings | None = None,
    penalties: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0),
    seed: int = 0,
) -> LinearFit:
    """The classifier of `linear_probe`, with the same arguments and errors."""
    known = _labelled(train, labels, "train")
    target = np.asarray([labels[i] for i in known.ids])
    if len(np.unique(target)) < 2:
        raise BadInput("labels", "at least two labels among the training items", f"{len(np.unique(target))}")
    centre, spread = _standard(known.vectors)
    inputs = (known.vectors - centre) / spread
    if validation is None:
        fit, held = _hold_out(target, seed)
        tune_in, tune_target, fit_in, fit_target = inputs[held], target[held], inputs[fit], target[fit]
    else:
        chosen = _labelled(validation, labels, "validation")
        tune_in, fit_in, fit_target = (chosen.vectors - centre) / spread, inputs, target
        tune_target = np.asarray([labels[i] for i in chosen.ids])
    candidates = [_logistic(fit_in, fit_target, c) for c in sorted(penalties)]
    scores = [float((fitted.predict(tune_in) == tune_target).mean()) for fitted in candidates]
    best = sorted(penalties)[int(np.argmax(scores))]
    final = _logistic(inputs, target, best)
    weight, bias = final.coef_, final.intercept_
    if len(final.classes_) == 2:  # one row for the second label: the first has 0
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    names = tuple(map(str, final.classes_))
    return LinearFit(names, weight, bias, centre, spread, best, int(final.n_iter_.max()) < final.max_iter)


def ridge_probe(
    train: Embeddings,
    test: Embeddings,
    values: Mapping[str, float],
    *,
    penalties: Sequence[float] = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3),
    name: str = "number",
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Regression:
    """Ridge regression of a number on standardised vectors, penalty by exact leave-one-out error.

    Args:
        values: id -> number; items without one are left out. together: as in `knn_probe`.

    Source: Allen 1974 (PRESS); the left-out residual of row i is (y_i - f_i) / (1 - h_i).
    Raises: BadInput: no item to learn from or to test, or a value that is not finite.
    """
    known, tested = _labelled(train, values, "train"), _labelled(test, values, "test")
    target = np.asarray([values[i] for i in known.ids], np.float64)
    truth = np.asarray([values[i] for i in tested.ids], np.float64)
    if not (np.isfinite(target).all() and np.isfinite(truth).all()):
        raise BadInput("values", "finite numbers", "NaN or infinity")
    centre, spread = _standard(known.vectors)
    left, sizes, right = np.linalg.svd(((known.vectors - centre) / spread).astype(np.float64), full_matrices=False)
    projected = left.T @ (target - target.mean())
    errors = []
    for penalty in penalties:
        shrink = sizes**2 / (sizes**2 + penalty)
        leverage = (left**2) @ shrink + 1 / len(target)
        residual = (target - target.mean() - left @ (shrink * projected)) / np.maximum(1 - leverage, 1e-9)
        errors.append(float((residual**2).mean()))
    best = penalties[int(np.argmin(errors))]
    slope = right.T @ (sizes / (sizes**2 + best) * projected)
    answer = ((tested.vectors - centre) / spread) @ slope + target.mean()
    return Regression(
        name, best, len(target), len(truth), _r2(truth, answer, resamples, seed, clusters_of(tested.ids, together))
    )


def _r2(truth: Floats, answer: Floats, resamples: int, seed: int, clusters: Clusters) -> Interval:
    columns = np.stack([(truth - answer) ** 2, truth, truth**2], 1)

    def score(means: Floats) -> Floats:
        spread = means[:, 2] - means[:, 1] ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(spread > 1e-12, 1 - means[:, 0] / spread, np.nan), np.float64)

    n = len(truth)
    whole = float(score(columns.mean(0, keepdims=True))[0])
    drawn = score(resampled_means(columns, resamples, seed, clusters)) if resamples else np.asarray([whole])
    return bounds(whole, drawn, n)


def classified(
    name: str,
    method: str,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
    test_ids: Sequence[str],
    answers: Sequence[str],
    labels: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Classification:
    """The Classification that some answers make.

    Args:
        counts: label -> items that were learnt from. test_ids, answers: who was asked, and the labels answered.
        labels: id -> label, of all `test_ids`. together: as in `knn_probe`.
    """
    options: Any = {"resamples": resamples, "seed": seed}
    clusters = clusters_of(test_ids, together)
    truth = [labels[i] for i in test_ids]
    right = np.asarray([a == t for a, t in zip(answers, truth, strict=True)], np.float64)
    scored = dict(zip(test_ids, right, strict=True))
    bands = label_bands(counts)
    most = max(sorted(counts), key=lambda label: counts[label])
    return Classification(
        name,
        method,
        settings,
        len(counts),
        sum(counts.values()),
        len(test_ids),
        sum(t not in counts for t in truth),
        interval(right, clusters=clusters, **options),
        _balanced(right, truth, resamples, seed, clusters),
        sum(t == most for t in truth) / len(truth),
        breakdown(scored, {i: labels[i] for i in test_ids}, together=together, **options),
        breakdown(scored, {i: bands.get(labels[i], "tail") for i in test_ids}, together=together, **options),
        {i: bool(r) for i, r in scored.items()},
        dict(zip(test_ids, answers, strict=True)),
    )


def _balanced(right: Floats, truth: Sequence[str], resamples: int, seed: int, clusters: Clusters) -> Interval:
    """Mean recall over labels; a resample averages over the labels it drew."""
    names, codes = np.unique(np.asarray(truth), return_inverse=True)
    member = np.eye(len(names))[codes]

    def score(weights: Floats) -> Floats:
        size = weights @ member
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.nanmean((weights @ (member * right[:, None])) / size, 1), np.float64)

    whole = float(score(np.ones((1, len(right))))[0])
    blocks = resample_weights(len(right), resamples, seed, clusters) if resamples else ()
    drawn = [score(weights.astype(np.float64)) for weights in blocks]
    return bounds(whole, np.concatenate(drawn) if drawn else np.asarray([whole]), len(right))


def _counts(embeddings: Embeddings, labels: Mapping[str, str]) -> Counter[str]:
    return Counter(labels[i] for i in embeddings.ids)


def _labelled(embeddings: Embeddings, labels: Mapping[str, Any], role: str) -> Embeddings:
    keep = [row for row, i in enumerate(embeddings.ids) if labels.get(i) is not None]
    if not keep:
        raise BadInput("labels", f"a label for at least one {role} item", f"none for {len(embeddings)} items")
    if len(keep) == len(embeddings):
        return embeddings
    return Embeddings(tuple(embeddings.ids[r] for r in keep), embeddings.vectors[keep], embeddings.model)


def _standard(vectors: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    wide = vectors.astype(np.float64)
    spread = wide.std(0)
    # a column without spread carries nothing; dividing by its rounding noise would blow it up
    return wide.mean(0), np.where(spread > 1e-7, spread, 1.0)


def _hold_out(target: npt.NDArray[np.str_], seed: int) -> tuple[Ints, Ints]:
    """A fifth of every label's items (none of a label with a single item), seeded."""
    order = np.random.default_rng(seed).permutation(len(target))
    _, codes = np.unique(target[order], return_inverse=True)
    sizes = np.bincount(codes)
    by_label = np.argsort(codes, kind="stable")
    place = np.empty(len(target), np.int64)
    place[by_label] = np.arange(len(target)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held = place < np.where(sizes > 1, np.maximum(1, sizes // 5), 0)[codes]
    if not held.any():
        held = np.arange(len(target)) < max(1, len(target) // 5)
    return order[~held], order[held]


def _logistic(inputs: Floats, target: npt.NDArray[np.str_], penalty: float) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    if len(np.unique(target)) < 2:
        raise BadInput("labels", "two labels with at least two items each, to hold some out", "fewer")
    with warnings.catch_warnings():
        # a weak penalty on separable labels has no end to converge to; the probe's settings say when it was stopped
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=500, tol=1e-4).fit(inputs, target)
