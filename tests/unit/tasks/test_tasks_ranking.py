"""The figures of a ranking against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from polymodal.tasks.ranking import compare_rankings, rank_figures
from polymodal.types import BadInput


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_means_are_auroc_and_average_precision(seed, n):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n).astype(float)
    sought = np.zeros(n, bool)
    sought[rng.choice(n, int(rng.integers(1, n)), replace=False)] = True
    auroc, precision, first = rank_figures(scores, sought)
    assert auroc.mean() == pytest.approx(roc_auc_score(sought, scores))
    assert precision.mean() == pytest.approx(average_precision_score(sought, scores))
    order = np.argsort(-scores)[: sought.sum()]
    assert first.mean() == pytest.approx(sought[order].mean())


def test_a_score_that_says_nothing_gets_what_chance_gets_however_the_rows_are_ordered():
    sought = np.arange(400) < 40  # all of them first
    found = [rank_figures(np.zeros(400), sought, seed)[2].mean() for seed in range(30)]
    assert np.mean(found) == pytest.approx(0.1, abs=0.03)
    assert rank_figures(np.zeros(400), sought)[0].mean() == 0.5


def test_what_no_score_reached_counts_as_not_found():
    scores = np.asarray([3.0, -np.inf, 1.0, -np.inf])
    _, precision, first = rank_figures(scores, np.asarray([True, True, False, False]))
    assert precision.tolist() == [1.0, 0.0]
    assert first.sum() == 1


def test_repetitions_are_pooled_and_paired_with_the_first():
    y = np.asarray([True, False, False, True, False])
    good, bad = np.asarray([5.0, 1, 2, 4, 0]), np.asarray([0.0, 5, 4, 1, 3])
    ours, control = compare_rankings({"ours": [(good, y), (good, y)], "control": [(bad, y), (bad, y)]}, resamples=50)
    assert ours.average_precision.mean == 1.0
    assert ours.k == 4
    assert ours.better is None
    assert control.better is not None
    assert control.better.verdict == "first"
    assert control.better.mean == pytest.approx(1 - control.average_precision.mean)


def test_repetitions_of_the_same_rows_make_nothing_surer():
    """Three repetitions that say the same of the same rows are as sure as one."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 3 == 0
    ours, control = random.random(60) + 0.3 * y, random.random(60)
    rows = np.arange(60)

    def figures(times: int, clusters):
        runs = {"ours": [(ours, y)] * times, "control": [(control, y)] * times}
        one, other = compare_rankings(runs, clusters=clusters, resamples=60)
        found = [one.auroc, one.average_precision, other.precision, other.better]
        return np.asarray([(f.mean, f.low, f.high) for f in found])

    np.testing.assert_allclose(figures(3, [rows] * 3), figures(1, [rows]))
    thrice = figures(3, None)
    once = figures(1, None)
    assert ((thrice[:, 2] - thrice[:, 1]) < 0.8 * (once[:, 2] - once[:, 1])).all()


def test_nothing_sought_is_refused():
    with pytest.raises(BadInput, match="sought"):
        rank_figures(np.zeros(3), np.zeros(3, bool))
