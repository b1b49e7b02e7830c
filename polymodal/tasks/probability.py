"""Calibration: what a score is worth as a probability, learnt from known pairs, and how far off it is on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = [
    "BINS",
    "Calibrator",
    "Isotonic",
    "Platt",
    "bin_of",
    "brier",
    "expected_error",
    "logistic",
    "parse_calibrator",
]

Floats = npt.NDArray[np.float64]

BINS = 15


@dataclass(frozen=True)
class Platt:
    """p = 1 / (1 + exp(-(slope * score + offset))).

    Source: Platt 1999, with the targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2); Newton's method with halved steps as in
    Lin, Lin, Weng 2007, "A note on Platt's probabilistic outputs for support vector machines".
    """

    slope: float
    offset: float

    @classmethod
    def fit(cls, scores: npt.ArrayLike, right: npt.ArrayLike) -> Self:
        """From scores (n,) and whether each pair was right, (n,). Raises BadInput where all pairs are of one kind."""
        s, y = _pairs(scores, right)
        # centred and scaled, because cosines of one pool lie close together
        middle, spread = float(s.mean()), float(s.std()) or 1.0
        positive = float(y.sum())
        target = np.where(y, (positive + 1) / (positive + 2), 1 / (len(y) - positive + 2))
        start = float(np.log((positive + 1) / (len(y) - positive + 1)))
        slope, offset = logistic((s - middle) / spread, target, np.ones(len(s)), start=start)
        return cls(slope / spread, offset - slope * middle / spread)

    def __call__(self, scores: npt.ArrayLike) -> Floats:
        """Probabilities (n,) in [0, 1]."""
        return _sigmoid(self.slope * np.asarray(scores, np.float64) + self.offset)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"kind": "platt", "slope": self.slope, "offset": self.offset}


@dataclass(frozen=True)
class Isotonic:
    """The best step function that never falls, linear between its steps and constant beyond the scores it saw.

    Args:
        scores: of the corners, rising; probabilities: at them, never falling.

    Source: Zadrozny, Elkan 2002, with pool adjacent violators (Ayer et al. 1955).
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def fit(cls, scores: npt.ArrayLike, right: npt.ArrayLike) -> Self:
        """As `Platt.fit`; equal scores have one value."""
        s, y = _pairs(scores, right)
        unique, of = np.unique(s, return_inverse=True)
        weight = np.bincount(of).astype(np.float64)
        mean = np.bincount(of, y) / weight
        blocks: list[tuple[float, float, int]] = []  # value, weight, how many of the unique scores
        for value, mass in zip(mean.tolist(), weight.tolist(), strict=True):
            block = (value, mass, 1)
            while blocks and blocks[-1][0] >= block[0]:
                before = blocks.pop()
                total = before[1] + block[1]
                block = ((before[0] * before[1] + block[0] * block[1]) / total, total, before[2] + block[2])
            blocks.append(block)
        ends = np.cumsum([count for _, _, count in blocks])
        corners: dict[float, float] = {}
        for (value, _, count), end in zip(blocks, ends.tolist(), strict=True):
            corners[float(unique[end - count])] = corners[float(unique[end - 1])] = value
        return cls(tuple(corners), tuple(corners.values()))

    def __call__(self, scores: npt.ArrayLike) -> Floats:
        """Probabilities (n,) in [0, 1]."""
        found = np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities)
        # between two scores that hardly differ the slope is infinite
        return np.asarray(np.clip(found, self.probabilities[0], self.probabilities[-1]), np.float64)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"kind": "isotonic", "scores": list(self.scores), "probabilities": list(self.probabilities)}


Calibrator = Platt | Isotonic


def parse_calibrator(data: Mapping[str, Any]) -> Calibrator:
    """What `to_json` wrote. Raises BadInput for anything else."""
    try:
        if data["kind"] == "platt":
            return Platt(float(data["slope"]), float(data["offset"]))
        if data["kind"] == "isotonic":
            return Isotonic(tuple(map(float, data["scores"])), tuple(map(float, data["probabilities"])))
    except (KeyError, TypeError, ValueError):
        pass
    raise BadInput("calibration", "a calibrator of kind platt or isotonic", repr(data), "Fit it again.")


def logistic(
    scores: Floats, target: Floats, weight: Floats, *, ridge: float = 0.0, start: float = 0.0
) -> tuple[float, float]:
    """Slope and offset of the logistic regression of one score, by Newton's method with halved steps.

    Args:
        scores, target, weight: (n,) score, wished probability and weight of each pair.
        ridge: of the squares of both; start: the first offset.
    """
    x, w = np.stack([scores, np.ones(len(scores))], 1), np.array([0.0, start])
    for _ in range(100):
        p = _sigmoid(x @ w)
        gradient = x.T @ (weight * (p - target)) + ridge * w
        if np.abs(gradient).max() < 1e-9 * weight.sum():
            break
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + (ridge + 1e-12) * np.eye(2)
        step = np.asarray(np.linalg.solve(hessian, gradient), np.float64)
        w = _descend(w, step, lambda w: _loss(w, x, target, weight) + ridge / 2 * float(w @ w))
    return float(w[0]), float(w[1])


def expected_error(probabilities: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error, in [0, 1]: sum over bins of share * |mean probability - share that is right|.

    Args:
        probabilities, right: (n,).
        bins: of equal width over [0, 1].

    Source: Naeini, Cooper, Hauskrecht 2015; 15 bins as in Guo et al. 2017. A constant at the base rate has an error
    near 0 and knows nothing, so read it beside `brier`.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    if not len(p):
        return float("nan")
    return float(np.abs(np.bincount(bin_of(p, bins), p - y, minlength=bins)).sum() / len(p))


def bin_of(probabilities: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each probability (n,) among bins of equal width, open below and closed above; 0 is in the first."""
    return np.asarray(np.clip(np.ceil(probabilities * bins) - 1, 0, bins - 1), np.int64)


def brier(probabilities: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Mean squared difference of probability and outcome, in [0, 1]. Source: Brier 1950."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    return float(((p - y) ** 2).mean())


def _pairs(scores: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    s, y = np.asarray(scores, np.float64), np.asarray(right, np.bool_)
    if s.shape != y.shape or s.ndim != 1 or not np.isfinite(s).all():
        raise BadInput("scores", "finite numbers, one per pair", f"shapes {s.shape} and {y.shape}, or NaN")
    if y.all() or not y.any():
        raise BadInput(
            "pairs", "pairs that are right and pairs that are wrong", f"{int(y.sum())} right ones of {len(y)}"
        )
    return s, y


def _sigmoid(x: Floats) -> Floats:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1 + small), np.float64)


def _loss(w: Floats, x: Floats, target: Floats, weight: Floats) -> float:
    z = x @ w
    return float((weight * (np.logaddexp(0.0, z) - target * z)).sum())


def _descend(w: Floats, step: Floats, loss: Callable[[Floats], float]) -> Floats:
    """One step of Newton, halved until the loss does not rise."""
    now, size = loss(w), 1.0
    while size > 1e-10:
        fresh = np.asarray(w - size * step, np.float64)
        if loss(fresh) <= now:
            return fresh
        size /= 2
    return w
