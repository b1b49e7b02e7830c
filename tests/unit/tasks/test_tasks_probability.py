"""Scores as probabilities: against scikit-learn, against the truth that drew them, and on what is not usable."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polymodal.tasks.calibration import error_interval
from polymodal.tasks.probability import Isotonic, Platt, brier, expected_error, parse_calibrator
from polymodal.types import BadInput


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores like cosines of a pool, and outcomes of the logistic truth 1 / (1 + exp(-(20 s - 14)))."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.4, 0.9, n)
    return scores, random.random(n) < 1 / (1 + np.exp(-(20 * scores - 14)))


def test_platt_finds_the_truth_that_drew_the_pairs() -> None:
    found = Platt.fit(*drawn(20_000, 0))
    assert found.slope == pytest.approx(20, rel=0.05)
    assert found.offset == pytest.approx(-14, rel=0.05)


def test_platt_agrees_with_an_unregularised_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    scores, right = drawn(5000, 1)
    other = linear.LogisticRegression(C=1e9).fit(scores[:, None], right)
    ours = Platt.fit(scores, right)(scores)
    # the smoothed targets move it by the order of 1 / n
    assert np.abs(ours - other.predict_proba(scores[:, None])[:, 1]).max() < 3e-3


def test_isotonic_agrees_with_scikit_learn() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    scores, right = drawn(400, 2)
    scores = scores.round(2)  # ties
    other = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, right)
    asked = np.linspace(0, 1, 101)
    assert np.allclose(Isotonic.fit(scores, right)(asked), other.predict(asked), atol=1e-9)


@example([(5e-324, True), (-5e-324, False)])
@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=2, max_size=60))
def test_both_keep_the_order_and_stay_probabilities(pairs: list[tuple[float, bool]]) -> None:
    scores, right = np.array([s for s, _ in pairs]), np.array([r for _, r in pairs])
    if right.all() or not right.any():
        return
    grid = np.linspace(-1.5, 1.5, 31)
    step = Isotonic.fit(scores, right)(grid)
    assert ((step >= 0) & (step <= 1)).all()
    assert (np.diff(step) >= -1e-12).all()
    smooth = Platt.fit(scores, right)(grid)
    assert np.isfinite(smooth).all()
    assert ((smooth >= 0) & (smooth <= 1)).all()


def test_calibration_helps_on_other_pairs_than_it_was_fitted_on() -> None:
    fitted, (scores, right) = drawn(3000, 3), drawn(3000, 4)
    raw = expected_error(scores, right)
    for kind in (Platt, Isotonic):
        calibrated = kind.fit(*fitted)(scores)
        assert expected_error(calibrated, right) < 0.04 < raw
        assert brier(calibrated, right) < brier(np.full(len(right), right.mean()), right)


def test_the_error_of_copies_is_as_sure_as_that_of_one() -> None:
    scores, right = drawn(60, 3)
    once = error_interval(scores, right, resamples=60)
    cases = np.repeat(np.arange(60), 4)
    many = error_interval(np.repeat(scores, 4), np.repeat(right, 4), resamples=60, clusters=cases)
    assert (many.mean, many.low, many.high) == pytest.approx((once.mean, once.low, once.high))
    assert many.n == 240
    # what a resample says is the error of what it drew
    rng = np.random.default_rng([0, 60])
    rows = rng.integers(0, 60, (60, 60))
    by_hand = [expected_error(scores[some], right[some]) for some in rows]
    assert (once.low, once.high) == pytest.approx(tuple(np.percentile(by_hand, [2.5, 97.5])))
    assert error_interval([], []).n == 0


def test_expected_error_by_hand() -> None:
    # one bin [0.8, 0.867): two at 0.8, one of them right; one at 0 that is right
    assert expected_error([0.82, 0.82, 0.0], [True, False, True]) == pytest.approx((2 * 0.32 + 1.0) / 3)
    assert expected_error([0.82, 0.82], [True, False]) == pytest.approx(0.32)
    assert expected_error([1.0], [True]) == 0
    assert brier([0.5, 1.0], [True, False]) == pytest.approx(0.625)


def test_what_is_kept_comes_back() -> None:
    for kind in (Platt, Isotonic):
        fitted = kind.fit(*drawn(50, 5))
        assert parse_calibrator(json.loads(json.dumps(fitted.to_json()))) == fitted
    for bad in ({}, {"kind": "sigmoid"}, {"kind": "platt", "slope": "x", "offset": 0}):
        with pytest.raises(BadInput, match="calibration"):
            parse_calibrator(bad)


@pytest.mark.parametrize(
    ("scores", "right"),
    [([0.1, 0.2], [True, True]), ([0.1, 0.2], [False, False]), ([0.1], [True, False]), ([np.nan, 0], [True, False])],
)
def test_pairs_that_teach_nothing_are_refused(scores: list[float], right: list[bool]) -> None:
    for kind in (Platt, Isotonic):
        with pytest.raises(BadInput):
            kind.fit(scores, right)
