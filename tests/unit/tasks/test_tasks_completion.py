"""Calibration, votes and intervals against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.tasks.calibration import error_interval
from polymodal.tasks.completion import (
    Calibration,
    blend,
    judge,
    judge_numbers,
    neighbour_values,
    neighbour_votes,
    radius,
)
from polymodal.types import BadInput


def logits(n, values, sharp, seed=0):
    """Scores whose softmax is the truth, times `sharp`; truths drawn from it."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, values)) * 2
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = np.asarray([rng.choice(values, p=p) for p in share])
    return scores * sharp, truth


@pytest.mark.parametrize("sharp", [0.3, 1.0, 4.0])
def test_calibration_undoes_a_wrong_temperature(sharp):
    scores, truth = logits(3000, 5, sharp)
    found = Calibration.fit(scores, truth)
    assert found.temperature == pytest.approx(sharp, rel=0.25)
    assert found.doubt <= 0.03
    fresh, answers = logits(3000, 5, sharp, seed=1)
    share = np.exp(found.apply(fresh))
    assert error_interval(share.max(1), (share.argmax(1) == answers).astype(float)).mean < 0.03
    raw = np.exp(Calibration().apply(fresh))
    if sharp != 1.0:
        assert error_interval(raw.max(1), (raw.argmax(1) == answers).astype(float)).mean > 0.06


def test_doubt_explains_cells_that_are_simply_wrong():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 2000)
    scores = np.where(np.eye(4, dtype=bool)[truth], 0.0, -9.0)
    odd = rng.random(2000) < 0.2
    truth = np.where(odd, rng.integers(0, 4, 2000), truth)
    found = Calibration.fit(scores, truth)
    share = np.exp(found.apply(scores))
    assert share.max(1).mean() == pytest.approx((share.argmax(1) == truth).mean(), abs=0.03)


@given(st.integers(0, 10_000))
def test_probabilities_add_up_and_nothing_known_stays_nothing(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(6, 4)) * 20
    scores[0], scores[1], scores[2, 1] = np.nan, -np.inf, -np.inf
    share = np.exp(Calibration(float(rng.uniform(0.1, 5)), 0.05).apply(scores))
    assert np.isnan(share[0]).all()
    assert np.allclose(share[1], 0.25)
    assert np.allclose(share[1:].sum(1), 1)
    assert share[2, 1] == pytest.approx(0.05 / 4)


def test_calibration_error_by_hand():
    confidence = np.asarray([0.95, 0.91, 0.15, 1.0])
    right = np.asarray([1.0, 0.0, 0.0, 1.0])
    by_hand = (abs(0.95 + 0.91 + 1.0 - 2) + 0.15) / 4
    found = error_interval(confidence, right, bins=10)
    assert found.mean == pytest.approx(by_hand)
    assert found.low <= found.mean <= found.high + 0.2


def test_votes_by_brute_force():
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(30, 4)).astype(np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    queries, codes = corpus[:5] + 0.01, rng.integers(0, 3, 30)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    logs, rows = neighbour_votes(queries, corpus, codes, 3, k=7)
    for q in range(5):
        cosines = corpus @ queries[q]
        best = np.argsort(-cosines)[:7]
        assert rows[q].tolist() == best.tolist()
        weight = np.exp((cosines[best] - cosines[best[0]]) / 0.07)
        share = np.asarray([weight[codes[best] == c].sum() for c in range(3)]) / weight.sum()
        assert np.allclose(np.exp(logs[q]), share + 1e-4, atol=1e-5)
    numbers = rng.normal(size=30)
    middle, _ = neighbour_values(queries, corpus, numbers, k=7)
    assert middle[0] == pytest.approx(np.median(numbers[rows[0]]))


def test_a_blend_is_a_product_and_one_way_that_says_nothing_leaves_the_other():
    one, other = np.log(np.asarray([[0.8, 0.2], [0.5, 0.5]])), np.log(np.asarray([[0.5, 0.5], [0.1, 0.9]]))
    assert np.allclose(blend(one, other), one + other)
    gone = np.full((2, 2), np.nan)
    assert np.allclose(blend(one, gone), one)
    assert np.allclose(blend(gone, other), other)
    assert np.isnan(blend(gone, gone)).all()


def test_judged_ways():
    sure = np.log(np.asarray([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [np.nan, np.nan]]))
    even = np.log(np.full((4, 2), 0.5))
    ours, control = judge({"ours": sure, "even": even}, np.asarray([0, 1, 1, 0]), 0.9, resamples=50)
    assert ours.accuracy.mean == 0.5
    assert ours.sure.mean == 0.5
    assert ours.right.mean == 0.5
    assert control.accuracy.mean == 0.5
    assert control.right.n == 0
    unseen = judge({"ours": sure}, np.full(4, -1), 0.9, resamples=0)[0]
    assert unseen.accuracy.mean == 0


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9]))
def test_interval_is_the_conformal_quantile(seed, level):
    rng = np.random.default_rng(seed)
    truth, answers = rng.normal(size=40), rng.normal(size=40)
    reach = radius(truth, answers, level)
    inside = (np.abs(truth - answers) <= reach).sum()
    assert inside == int(np.ceil(41 * level))


def test_intervals_hold_what_they_promise():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        truth = np.exp(rng.normal(size=60))
        reach = radius(truth[:50], np.ones(50), 0.8, logarithmic=True)
        held.append(((truth[50:] <= reach) & (truth[50:] >= 1 / reach)).mean())
    assert np.mean(held) == pytest.approx(0.8, abs=0.03)


def test_too_few_cells_promise_nothing():
    assert radius(np.zeros(5), np.ones(5), 0.9) == np.inf
    with pytest.raises(BadInput, match="confidence"):
        radius(np.zeros(5), np.ones(5), 1.0)


def test_judged_numbers():
    truth = np.asarray([1.0, 2.0, 3.0])
    bounds = {"ours": (truth - 0.5, truth + 0.5)}
    ours, control = judge_numbers({"ours": truth + 0.1, "median": np.full(3, 2.0)}, truth, bounds, resamples=50)
    assert ours.error.mean == pytest.approx(0.1)
    assert ours.covered is not None
    assert ours.covered.mean == 1.0
    assert ours.width == pytest.approx(1.0)
    assert control.covered is None
    assert control.better is not None
    assert control.better.mean == pytest.approx(2 / 3 - 0.1)
