"""Missing attributes: how sure a proposal is, said in a way that holds, and how often it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Difference, Interval, interval, paired, top_k
from polymodal.evaluate.intervals import Clusters, within
from polymodal.evaluate.values import Result
from polymodal.tasks.calibration import error_interval
from polymodal.tasks.items import Bools, Floats, Ints
from polymodal.types import BadInput

__all__ = [
    "Calibration",
    "Judged",
    "Measured",
    "blend",
    "codes_of",
    "judge",
    "judge_numbers",
    "neighbour_values",
    "neighbour_votes",
    "radius",
    "skewed",
]

_VOTE = 0.07  # temperature of the votes of neighbours, as of the k-NN probe
_DOUBTS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
_BINS = 10  # of the calibration error: a hundred cells are too few for fifteen


@dataclass(frozen=True)
class Judged(Result):
    """One way of completing, on cells that were hidden.

    Args:
        name: of the way.
        accuracy: share of right proposals.
        calibration: expected calibration error in [0, 1], with its bootstrap interval.
        sure: share of proposals of at least the least confidence; right: accuracy of those.
        better: ours minus this in accuracy, paired; None for ours.
    """

    name: str
    accuracy: Interval
    calibration: Interval
    sure: Interval
    right: Interval
    better: Difference | None = None


@dataclass(frozen=True)
class Measured(Result):
    """One way of completing a number, on cells that were hidden.

    Args:
        error: mean absolute error in the attribute's own units.
        covered: share of the true values inside the interval of the prediction; None without one.
        width: mean width of those intervals, in units.
        better: error of this minus ours, paired: above 0 where ours is better; None for ours.
    """

    name: str
    error: Interval
    covered: Interval | None
    width: float | None
    better: Difference | None = None


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities that hold.

    ::

        p_v = (1 - doubt) softmax(scores / temperature)_v + doubt / V

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", temperature scaling.
    Differences: the doubt. A temperature alone must make every answer unsure to explain the few cells that are simply
    wrong, or of which no neighbour has the value.
    """

    temperature: float = 1.0
    doubt: float = 0.0

    @classmethod
    def fit(cls, scores: Floats, truth: Ints) -> Self:
        """Under which hidden cells are likeliest: scores (n, V), NaN where nothing is known; truth (n,) codes.

        The best of a grid, since two numbers need no optimiser; of equally good ones the first.
        """
        known = np.asarray(np.isfinite(scores).any(1), np.bool_)
        if not known.any():
            return cls()
        rows, best = np.arange(int(known.sum())), (np.inf, cls())
        for temperature in np.geomspace(0.05, 20, 80).tolist():
            likely = np.exp(cls(temperature).apply(scores[known]))[rows, truth[known]]
            for doubt in _DOUBTS:
                loss = -float(np.log(np.maximum((1 - doubt) * likely + doubt / scores.shape[1], 1e-12)).mean())
                if loss < best[0] - 1e-12:
                    best = loss, cls(temperature, doubt)
        return best[1]

    def apply(self, scores: Floats) -> Floats:
        """Log-probabilities (n, V). NaN rows stay NaN; a row in which no value is possible (-inf) is uniform."""
        scaled = scores / self.temperature
        top = scaled.max(1, keepdims=True)
        scaled = np.where(np.isneginf(top), 0.0, scaled - np.where(np.isfinite(top), top, 0.0))
        share = np.exp(scaled)
        share /= share.sum(1, keepdims=True)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log((1 - self.doubt) * share + self.doubt / scores.shape[1]), np.float64)


def neighbour_votes(
    queries: npt.NDArray[np.float32],
    corpus: npt.NDArray[np.float32],
    codes: Ints,
    values: int,
    *,
    k: int = 20,
) -> tuple[Floats, Ints]:
    """What the nearest items say: log shares (n, V) of the votes, weighed by exp(cosine / 0.07), and the neighbours.

    A value that none of them has is left 1e-4 of a vote.

    Args:
        queries: (n, E), corpus: (C, E) unit vectors; codes: (C,) value of each corpus item.
    """
    rows, scores = top_k(queries, corpus, k)
    weight = np.where(rows >= 0, np.exp((scores - scores[:, :1]) / _VOTE), 0.0)
    shares = np.zeros((len(queries), values))
    np.add.at(shares, (np.arange(len(queries))[:, None], codes[np.maximum(rows, 0)]), weight)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-12)
    return np.log(shares + 1e-4), rows


def neighbour_values(
    queries: npt.NDArray[np.float32], corpus: npt.NDArray[np.float32], numbers: Floats, *, k: int = 20
) -> tuple[Floats, Ints]:
    """The median of a number over the nearest items, (n,), and the neighbours."""
    rows, _ = top_k(queries, corpus, k)
    return np.asarray(np.median(numbers[rows], 1), np.float64), rows


def blend(first: Floats, second: Floats) -> Floats:
    """The product of two calibrated distributions (n, V), not normalised; where one says nothing (NaN), the other."""
    gone: Bools = np.asarray(np.isnan(first).all(1) & np.isnan(second).all(1), np.bool_)
    both = np.maximum(np.nan_to_num(first, nan=0.0, neginf=-30.0), -30.0) + np.nan_to_num(second, nan=0.0, neginf=-30.0)
    return np.where(gone[:, None], np.nan, both)


def judge(
    ways: Mapping[str, Floats],
    truth: Ints,
    least: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> tuple[Judged, ...]:
    """Several ways on the same hidden cells; the first is ours.

    Args:
        ways: name -> (n, V) log-probabilities, calibrated; NaN rows are wrong, with confidence 0.
        truth: (n,) codes; -1 for a value that was never seen, which nobody can propose.
        least: confidence that counts as sure.
        clusters: (n,) cells that are drawn together, in the intervals.
    """
    plain: Any = {"resamples": resamples, "seed": seed}
    options = {**plain, "clusters": clusters}
    out: list[Judged] = []
    ours: Floats | None = None
    for name, logs in ways.items():
        share = np.nan_to_num(np.exp(logs))
        confidence = share.max(1)
        right = ((share.argmax(1) == truth) & (confidence > 0)).astype(np.float64)
        sure = confidence >= least
        better = None if ours is None else paired(ours, right, **options)
        ours = right if ours is None else ours
        out.append(
            Judged(
                name,
                interval(right, **options),
                error_interval(confidence, right, bins=_BINS, **options),
                interval(sure.astype(np.float64), **options),
                interval(right[sure], **plain, clusters=within(clusters, sure)),
                better,
            )
        )
    return tuple(out)


def skewed(numbers: Floats) -> bool:
    """Whether numbers are better told by factors than by differences, as prices are."""
    return bool(numbers.min() > 0 and numbers.max() > 5 * np.median(numbers))


def radius(truth: Floats, answers: Floats, level: float, logarithmic: bool = False) -> float:
    """Half the width of the interval around a prediction that holds the true value with probability `level`.

    On a logarithmic scale it is a factor: from answer / factor to answer * factor.

    Source: split conformal prediction, Vovk et al. 2005; Lei et al. 2018: the ceil((n + 1) level)-th smallest error of
    n held-out ones; infinite where n is too small for the level.
    Raises:
        BadInput: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise BadInput("--min-confidence", "above 0 and below 1", level)
    scale = np.log if logarithmic else np.asarray
    errors = np.abs(scale(truth) - scale(np.maximum(answers, 1e-12) if logarithmic else answers))
    place = int(np.ceil((len(errors) + 1) * level))
    reach = float("inf") if place > len(errors) else float(np.sort(errors)[place - 1])
    return float(np.exp(reach)) if logarithmic else reach


def judge_numbers(
    ways: Mapping[str, Floats],
    truth: Floats,
    bounds: Mapping[str, tuple[Floats, Floats]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> tuple[Measured, ...]:
    """Several ways of completing a number on the same hidden cells; the first is ours.

    Args:
        ways: name -> (n,) answers. bounds: name -> lower and upper ends (n,) of their intervals.
        clusters: (n,) cells that are drawn together, in the intervals.
    """
    options: Any = {"resamples": resamples, "seed": seed, "clusters": clusters}
    out: list[Measured] = []
    ours: Floats | None = None
    for name, answers in ways.items():
        error = np.abs(answers - truth)
        better = None if ours is None else paired(error, ours, **options)
        ours = error if ours is None else ours
        covered, width = None, None
        if name in bounds:
            low, high = bounds[name]
            covered = interval(((truth >= low) & (truth <= high)).astype(np.float64), **options)
            width = float((high - low).mean())
        out.append(Measured(name, interval(error, **options), covered, width, better))
    return tuple(out)


def codes_of(values: Sequence[str], known: Sequence[str]) -> Ints:
    """The place of each value among the known ones, -1 for an unknown one."""
    at = {value: code for code, value in enumerate(known)}
    return np.asarray([at.get(value, -1) for value in values], np.int64)
