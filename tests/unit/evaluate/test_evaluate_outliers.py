from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from polymodal.evaluate.outliers import Mahalanobis, auroc
from polymodal.types import BadInput


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_is_that_of_scikit_learn(seed, levels):
    random = np.random.default_rng(seed)
    known, strange = random.integers(0, levels, 40), random.integers(0, levels, 25) + levels // 3
    truth = np.repeat([0, 1], [40, 25])
    assert auroc(known, strange) == pytest.approx(roc_auc_score(truth, np.concatenate([known, strange])), abs=1e-12)


def test_auroc_by_hand():
    assert auroc([1, 2, 3], [2, 4, 5]) == pytest.approx(7.5 / 9)
    assert auroc([0, 0], [0, 0, 0]) == 0.5
    assert auroc([2, 3], [0, 1]) == 0.0
    for bad in (([], [1.0]), ([1.0], []), ([np.nan], [1.0])):
        with pytest.raises(BadInput, match="scores"):
            auroc(*bad)


def test_distances_are_those_of_the_formula():
    random = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 30)
    mixing = random.normal(size=(4, 4))
    z = random.normal(size=(90, 4)) @ mixing + np.repeat(5 * random.normal(size=(3, 4)), 30, 0)
    fitted, strange = Mahalanobis.fit(z, labels), 9 * random.normal(size=(7, 4))
    means = [z[labels == name].mean(0) for name in "abc"]
    off = np.concatenate([z[labels == name] - m for name, m in zip("abc", means, strict=True)])
    inverse = np.linalg.inv(off.T @ off / 90)
    wanted = [min((q - m) @ inverse @ (q - m) for m in means) for q in strange]
    assert fitted.score(strange) == pytest.approx(wanted, rel=1e-8)
    assert auroc(fitted.score(z), fitted.score(strange)) > 0.9


def test_a_column_without_spread_does_not_count():
    z = np.random.default_rng(0).normal(size=(20, 3))
    z[:, 2] = 4.0
    fitted = Mahalanobis.fit(z, np.zeros(20))
    moved = z[:3] + np.array([0, 0, 100.0])
    assert fitted.score(moved) == pytest.approx(fitted.score(z[:3]), abs=1e-6)
    assert (fitted.score(z) >= 0).all()


@pytest.mark.parametrize(
    ("vectors", "labels"), [(np.zeros((0, 2)), []), (np.zeros((2, 2)), [1]), ([[np.nan, 0.0]], [1])], ids=str
)
def test_what_cannot_be_fitted_is_said(vectors, labels):
    with pytest.raises(BadInput, match="vectors"):
        Mahalanobis.fit(vectors, labels)
