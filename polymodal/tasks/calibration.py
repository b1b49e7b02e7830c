"""Does a confidence of 0.8 mean right eight times of ten? One number that makes it so, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.intervals import Clusters, Interval, bounds, resampled_means
from polymodal.evaluate.values import Result
from polymodal.tasks.probability import BINS, bin_of, expected_error

__all__ = [
    "Bin",
    "Calibration",
    "calibration",
    "error_interval",
    "log_softmax",
    "negative_log_likelihood",
    "temperature",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SIMULATED = 200
_COLDEST, _HOTTEST = np.log(0.02), np.log(50.0)


@dataclass(frozen=True)
class Bin(Result):
    """Items whose confidence lies in (low, high]: how many, their mean confidence, the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration(Result):
    """How honest confidences are.

    Args:
        ece: expected calibration error, the mean distance between confidence and accuracy over 15 equal bins, with its
            bootstrap interval.
        before: the same before the temperature.
        floor: what a perfectly honest classifier with these confidences would show on so few items, by simulation: an
            ECE near it is as good as can be told.
        temperature: that divides the scores; above 1 makes less sure. bins: those that hold items.
        sure: confidence from which on -> (share of the items, accuracy of those).
    """

    ece: Interval
    before: float
    floor: float
    temperature: float
    bins: tuple[Bin, ...]
    sure: tuple[tuple[float, float, float], ...]


def log_softmax(scores: Floats) -> Floats:
    """Logarithms of softmax over the last axis."""
    top = scores - scores.max(-1, keepdims=True)
    return np.asarray(top - np.log(np.exp(top).sum(-1, keepdims=True)), np.float64)


def negative_log_likelihood(scores: Floats, truth: Ints, weight: Floats | None = None) -> float:
    """Mean of -log p of the right labels: scores (n, C), truth (n,), weight (n,) or equal."""
    rows = -log_softmax(scores)[np.arange(len(truth)), truth]
    return float(np.average(rows, weights=weight))


def temperature(scores: Floats, truth: Ints, weight: Floats | None = None) -> float:
    """The T in [0.02, 50] for which scores / T have the least negative log-likelihood, by golden-section search.

    Args:
        scores: (n, C) of items that were not learnt from. truth: (n,) codes of their labels.

    The likelihood is convex in 1 / T, so that the one minimum is found.
    Source: Guo et al. 2017, section 4.2; they descend by L-BFGS.
    """

    def loss(log_t: float) -> float:
        return negative_log_likelihood(scores / np.exp(log_t), truth, weight)

    golden = (np.sqrt(5) - 1) / 2
    low, high = float(_COLDEST), float(_HOTTEST)
    inner = [high - golden * (high - low), low + golden * (high - low)]
    values = [loss(t) for t in inner]
    while high - low > 1e-4:
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - golden * (high - low)
            values[0] = loss(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + golden * (high - low)
            values[1] = loss(inner[1])
    return float(np.exp((low + high) / 2))


def error_interval(
    probabilities: npt.ArrayLike,
    right: npt.ArrayLike,
    *,
    bins: int = BINS,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> Interval:
    """`probability.expected_error` with its bootstrap interval; NaN of nothing. Few answers have an error above 0
    however honest they are, and resampled ones a larger one.

    Args:
        probabilities, right: (n,).
        clusters: (n,) answers that are drawn together: those of one case, or of one group of items.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    whole = expected_error(p, y, bins)
    if not len(p) or not resamples:
        return Interval(whole, whole, whole, len(p))
    gaps = np.eye(bins)[bin_of(p, bins)] * (p - y)[:, None]
    return bounds(whole, np.abs(resampled_means(gaps, resamples, seed, clusters)).sum(1), len(p))


def calibration(
    confidence: Floats,
    right: Floats,
    *,
    before: Floats | None = None,
    temperature: float = 1.0,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> Calibration:
    """How honest the confidences (n,) in [0, 1] of answers are that are right (n,) 1 or 0.

    Args:
        before: (n,) the confidences before the temperature.
        clusters: (n,) answers that are drawn together, in the bootstrap.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3, with 15 bins.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    at = bin_of(confidence)
    bins = tuple(
        Bin(b / BINS, (b + 1) / BINS, int(rows.sum()), float(confidence[rows].mean()), float(right[rows].mean()))
        for b in range(BINS)
        if (rows := at == b).any()
    )
    sure = tuple(
        (t, float(rows.mean()), float(right[rows].mean()) if rows.any() else float("nan"))
        for t in (0.5, 0.8, 0.9, 0.95)
        for rows in [confidence >= t]
    )
    return Calibration(
        error_interval(confidence, right, resamples=resamples, seed=seed, clusters=clusters),
        expected_error(confidence if before is None else before, right),
        _floor(confidence, seed),
        temperature,
        bins,
        sure,
    )


def _floor(confidence: Floats, seed: int) -> float:
    drawn = np.random.default_rng([seed, len(confidence)]).random((_SIMULATED, len(confidence))) < confidence
    return float(np.mean([expected_error(confidence, right) for right in drawn]))
