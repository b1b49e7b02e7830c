from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score, normalized_mutual_info_score, r2_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from polymodal.evaluate.breakdown import by_band, by_pattern, label_bands
from polymodal.evaluate.clustering import ari, cluster, k_means, nmi, purity
from polymodal.evaluate.explain import alignment, effective_rank, mean_weights, spearman, uniformity
from polymodal.evaluate.probe import knn_probe, linear_probe, ridge_probe
from polymodal.types import BadInput, Embeddings, MissingExtra


def blobs(n: int = 120, classes: int = 4, width: int = 8, noise: float = 0.6, seed: int = 0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, n)
    x = np.random.default_rng(99).standard_normal((classes, width))[codes] + noise * rng.standard_normal((n, width))
    ids = tuple(f"{seed}-{i}" for i in range(n))
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Embeddings(ids, vectors, "m"), {i: f"c{c}" for i, c in zip(ids, codes, strict=True)}


def test_knn_agrees_with_scikit_learn():
    (train, a), (test, b) = blobs(), blobs(60, seed=1)
    for k in (1, 10):
        ours = knn_probe(train, test, a | b, k=k, weighted=k > 1)
        weights = (lambda d: np.exp((1 - d) / 0.07)) if k > 1 else "uniform"
        theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
        theirs.fit(train.vectors, [a[i] for i in train.ids])
        expected = theirs.predict(test.vectors)
        assert [ours.predicted[i] for i in test.ids] == expected.tolist()
        truth = [b[i] for i in test.ids]
        assert ours.accuracy.mean == pytest.approx((expected == truth).mean())
        assert ours.balanced.mean == pytest.approx(balanced_accuracy_score(truth, expected))
        assert ours.accuracy.low <= ours.accuracy.mean <= ours.accuracy.high


def test_knn_leaves_the_item_itself_out():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((80, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = tuple(map(str, range(80)))
    labels = {i: str(rng.integers(4)) for i in ids}
    found = knn_probe(Embeddings(ids, vectors, "m"), None, labels, k=1)
    assert found.accuracy.mean < 0.6  # with itself it would be 1


def test_linear_probe_recovers_a_linear_factor_and_nothing_else():
    (train, a), (test, b) = blobs(200), blobs(80, seed=1)
    assert linear_probe(train, test, a | b).accuracy.mean > 0.9
    noise = np.random.default_rng(2)
    random = {i: str(noise.integers(2)) for i in (*train.ids, *test.ids)}
    assert linear_probe(train, test, random).accuracy.mean < 0.72
    chosen = linear_probe(train, test, a | b, validation=test, penalties=(1e-6, 1.0))
    assert chosen.settings["C"] == 1.0
    assert chosen.settings["tuned on"] == "validation"


def test_unseen_labels_count_as_wrong():
    (train, a), (test, b) = blobs(), blobs(40, seed=1)
    b[test.ids[0]] = "new"
    found = knn_probe(train, test, a | b)
    assert found.unseen == 1
    assert not found.correct[test.ids[0]]
    with pytest.raises(BadInput, match="label"):
        knn_probe(train, test, a)


def test_missing_scikit_learn_says_what_to_install(monkeypatch):
    train, labels = blobs(40)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtra, match=r"polymodal\[report\]"):
        linear_probe(train, train, labels)
    assert knn_probe(train, None, labels).accuracy.mean > 0.5


def test_ridge_agrees_with_scikit_learn():
    (train, _), (test, _) = blobs(100), blobs(50, seed=1)
    slope = np.random.default_rng(4).standard_normal(8)
    values = {i: float(v) for e in (train, test) for i, v in zip(e.ids, e.vectors @ slope, strict=True)}
    noise = np.random.default_rng(5)
    values = {i: v + 0.3 * float(noise.standard_normal()) for i, v in values.items()}
    ours = ridge_probe(train, test, values, penalties=(10.0,))
    scaler = StandardScaler().fit(train.vectors)
    theirs = Ridge(10.0).fit(scaler.transform(train.vectors), [values[i] for i in train.ids])
    expected = r2_score([values[i] for i in test.ids], theirs.predict(scaler.transform(test.vectors)))
    assert ours.r2.mean == pytest.approx(expected, abs=1e-6)
    assert ours.r2.low < ours.r2.mean < ours.r2.high
    with pytest.raises(BadInput):
        ridge_probe(train, test, values | {train.ids[0]: float("nan")})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_cluster_scores_agree_with_scikit_learn(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    assert nmi(a, b) == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)
    assert ari(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-9)
    assert 0 < purity(a, b) <= 1
    assert purity(a, a) == 1


def test_k_means_is_as_good_as_scikit_learn():
    embeddings, labels = blobs(200, classes=6)
    ours = k_means(embeddings.vectors, 6, metric="euclidean", starts=8)
    theirs = KMeans(6, n_init=8, random_state=0).fit(embeddings.vectors)
    assert ours.inertia <= theirs.inertia_ * 1.01
    np.testing.assert_array_equal(ours.assigned, k_means(embeddings.vectors, 6, metric="euclidean", starts=8).assigned)
    assert cluster(embeddings, labels, k=6).nmi > 0.6
    with pytest.raises(BadInput):
        k_means(embeddings.vectors, 0)


def test_k_means_never_has_an_empty_cluster():
    same = np.ones((5, 3))
    assert len(set(k_means(same, 3).assigned.tolist())) == 3


def test_bands_and_patterns():
    counts = {"a": 50, "b": 30, "c": 15, "d": 5}
    assert label_bands(counts) == {"a": "head", "b": "torso", "c": "tail", "d": "tail"}
    values = {"1": 1.0, "2": 0.0, "3": float("nan"), "4": 1.0}
    found = by_band(values, {"1": "a", "2": "new", "3": "a", "4": "b"}, counts)
    assert [(g.name, g.n, g.score.mean) for g in found] == [("head", 1, 1.0), ("torso", 1, 1.0), ("tail", 1, 0.0)]
    pattern = by_pattern(
        values, {"1": frozenset({"text"}), "2": frozenset({"text"}), "4": frozenset({"text", "image"})}
    )
    assert [(g.name, g.n, g.score.mean) for g in pattern] == [("text", 2, 0.5), ("image + text", 1, 1.0)]


def test_mean_weights_never_reads_absent_cells():
    weights = np.full((3, 2, 2), np.nan)
    present = np.asarray([[True, True], [True, False], [True, False]])
    weights[0], weights[1, 0, 0], weights[2, 0, 0] = [[0.5, 0.2], [0.3, 0.6]], 0.7, 0.9
    found = mean_weights(weights, present, ("image", "text"))
    np.testing.assert_allclose(found.mean, [[0.7, 0.2], [0.3, 0.6]])
    np.testing.assert_array_equal(found.count, [[3, 1], [1, 1]])
    nobody = mean_weights(weights, np.zeros((3, 2), bool), ("image", "text"))
    assert np.isnan(nobody.mean).all()
    assert nobody.to_json()["mean"] == [[None, None], [None, None]]


def test_spearman_is_exact_for_few_points():
    assert spearman([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]).p == pytest.approx(2 / 120)
    found = spearman([1, 2, 3, 4], [1, 3, 2, 4])
    assert (found.rho, found.exact) == (pytest.approx(0.8), True)
    assert found.p == pytest.approx(8 / 24)  # counted by hand: |rho| >= .8 in 4 orders each way
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 10), rng.integers(0, 6, 10)
    assert spearman(x, y).rho == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(x, y).exact
    many = spearman(rng.random(30), rng.random(30))
    assert not many.exact
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]).rho)


def test_shape_of_the_space():
    assert effective_rank(np.eye(5)) == pytest.approx(5)
    assert effective_rank(np.ones((7, 5))) == pytest.approx(1)
    x = np.random.default_rng(0).standard_normal((50, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gaps = [np.exp(-2 * ((x[i] - x[j]) ** 2).sum()) for i in range(50) for j in range(50) if i != j]
    assert uniformity(x, block=7) == pytest.approx(np.log(np.mean(gaps)))
    assert alignment(x, x) == 0
    assert alignment(np.eye(2), np.eye(2)[::-1]) == pytest.approx(2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("penalty", "converged"), [(1e-3, True), (1e3, False)])
def test_a_probe_that_was_stopped_says_so_and_warns_nobody(penalty, converged, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    begin = LogisticRegression.__init__
    monkeypatch.setattr(LogisticRegression, "__init__", lambda self, **k: begin(self, **{**k, "max_iter": 6}))
    labels = {f"i{n}": "ab"[n % 2] for n in range(80)}
    noise = np.random.default_rng(0).normal(size=(80, 200)).astype(np.float32)  # more columns than rows: separable
    vectors = Embeddings(tuple(labels), noise, "m")
    found = linear_probe(vectors, vectors, labels, penalties=(penalty,), resamples=0)
    assert found.settings["converged"] is converged
