"""Classifiers of vectors, honest confidences, scores against controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polymodal.tasks.calibration import calibration, log_softmax, negative_log_likelihood, temperature
from polymodal.tasks.classify import fit_neighbours, fit_probe, usable
from polymodal.tasks.scoring import against, score
from polymodal.types import BadInput, Embeddings, ModelMismatch


def blobs(n, seed=0, classes=4, width=6, noise=0.5, share=None, prefix="i"):
    """Unit vectors round the centres of classes a, b, c, ..., the same centres for every seed."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((classes, width))
    codes = random.choice(classes, n, p=share)
    z = centres[codes] + noise * random.standard_normal((n, width))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    ids = tuple(f"{prefix}{at}" for at in range(n))
    return Embeddings(ids, z.astype(np.float32), "m"), {i: "abcdefgh"[c] for i, c in zip(ids, codes, strict=True)}


def three(noise=0.5, share=None):
    parts = [
        blobs(n, seed, noise=noise, share=share, prefix=p)
        for n, seed, p in ((200, 1, "r"), (80, 2, "v"), (120, 3, "t"))
    ]
    labels = {i: v for _, found in parts for i, v in found.items()}
    return *(vectors for vectors, _ in parts), labels


@pytest.mark.parametrize("fit", [fit_probe, fit_neighbours])
def test_chances_sum_to_one_and_the_likeliest_is_the_prediction(fit):
    train, held, test, labels = three()
    found = fit(train, held, labels).predict(test)
    assert found.probabilities.sum(1) == pytest.approx(np.ones(len(test)))
    columns = found.columns()
    order = np.sort(found.probabilities, 1)
    assert columns["confidence"] == pytest.approx(order[:, -1])
    assert columns["runner_up_confidence"] == pytest.approx(order[:, -2])
    assert all(a != b for a, b in zip(columns["prediction"], columns["runner_up"], strict=True))
    assert np.mean([a == labels[i] for i, a in zip(found.ids, found.best, strict=True)]) > 0.7


def test_two_labels_have_the_chances_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    train, held, test, _ = three()
    labels = {
        i: "yes" if z[0] > 0 else "no" for e in (train, held, test) for i, z in zip(e.ids, e.vectors, strict=True)
    }
    made = fit_probe(train, held, labels)
    z = (train.vectors - made.head.centre) / made.head.spread
    theirs = LogisticRegression(C=made.head.penalty, max_iter=500, tol=1e-4).fit(z, [labels[i] for i in train.ids])
    wanted = theirs.predict_proba((test.vectors - made.head.centre) / made.head.spread)
    assert replace(made, temperature=1.0).predict(test).probabilities == pytest.approx(wanted, abs=1e-6)


def test_neighbours_vote_as_counted_by_hand():
    train = Embeddings(tuple("abc"), np.eye(3, dtype=np.float32), "m")
    made = fit_neighbours(train, train, {"a": "x", "b": "y", "c": "y"}, k=1)
    found = made.head.scores(np.asarray([[1, 0, 0], [0, 0, 1]], np.float32))
    assert np.exp(found) == pytest.approx(np.asarray([[0.99 + 0.01 / 3, 0.01 * 2 / 3], [0.01 / 3, 0.99 + 0.02 / 3]]))


def test_balancing_finds_more_of_the_rare_and_fewer_of_the_frequent():
    train, held, test, labels = three(noise=1.2, share=(0.85, 0.05, 0.05, 0.05))
    plain, even = (fit_probe(train, held, labels, balanced=b).predict(test).best for b in (False, True))
    rare = [labels[i] != "a" for i in test.ids]
    right = np.asarray([[p == labels[i] for i, p in zip(test.ids, some, strict=True)] for some in (plain, even)])
    assert right[1][rare].mean() > right[0][rare].mean() + 0.1
    assert right[1][~np.asarray(rare)].mean() < right[0][~np.asarray(rare)].mean()


def test_vectors_of_another_model_are_refused():
    train, held, test, labels = three()
    made = fit_probe(train, held, labels)
    with pytest.raises(ModelMismatch, match="which it learnt from"):
        made.predict(replace(test, model="another"))


def test_what_cannot_be_learnt_is_said():
    ids = [f"i{n}" for n in range(7)]
    labels = dict(zip(ids, "aaabbbc", strict=True))
    assert usable(ids, labels) == (["a", "b"], {"c": 1})
    assert usable(ids, labels, 1)[0] == ["a", "b", "c"]
    with pytest.raises(BadInput, match="4 or more items"):
        usable(ids, labels, 4)
    with pytest.raises(BadInput, match=r"got 0 \(items: none\)"):
        usable(ids, {})


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (12, 3), elements=st.floats(-8, 8)), st.integers(0, 2**31))
def test_the_temperature_is_where_the_likelihood_is_best(scores, seed):
    truth = np.random.default_rng(seed).integers(0, 3, 12)
    found = temperature(scores, truth)
    best = min(negative_log_likelihood(scores / t, truth) for t in np.geomspace(0.02, 50, 400))
    assert negative_log_likelihood(scores / found, truth) <= best + 1e-4


def test_a_temperature_undoes_overconfidence():
    random = np.random.default_rng(0)
    scores = random.standard_normal((4000, 5)) * 2
    truth = np.asarray([random.choice(5, p=np.exp(row)) for row in log_softmax(scores)])
    assert temperature(scores * 3, truth) == pytest.approx(3, rel=0.1)
    p = np.exp(log_softmax(scores))
    hot = np.exp(log_softmax(scores * 3))
    right = scores.argmax(1) == truth
    honest = calibration(p.max(1), right, before=hot.max(1))
    assert honest.ece.mean < 0.03 < 0.15 < honest.before
    assert honest.ece.mean < 2 * honest.floor


def test_the_error_is_that_of_the_formula():
    random = np.random.default_rng(1)
    confidence, right = random.random(300), random.random(300) < 0.6
    wanted = 0.0
    for low in range(15):
        rows = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if rows.any():
            wanted += rows.mean() * abs(confidence[rows].mean() - right[rows].mean())
    found = calibration(confidence, right)
    assert found.ece.mean == pytest.approx(wanted)
    assert found.ece.low < found.ece.high
    assert sum(b.n for b in found.bins) == 300
    assert {t: n for t, n, _ in found.sure}[0.9] == pytest.approx((confidence >= 0.9).mean())


def test_scores_by_label_and_against_controls():
    train, held, test, labels = three(share=(0.6, 0.3, 0.06, 0.04))
    made = fit_probe(train, held, labels)
    found = made.predict(test)
    counts = {v: sum(labels[i] == v for i in train.ids) for v in "abcd"}
    scored = score(found, made, test, labels, counts, "kind")
    answers = dict(zip(found.ids, found.best, strict=True))
    for one in scored.classes:
        said = [i for i in test.ids if answers[i] == one.name]
        are = [i for i in test.ids if labels[i] == one.name]
        assert (one.trained, one.tested, one.predicted) == (counts[one.name], len(are), len(said))
        assert one.recall.mean == pytest.approx(np.mean([answers[i] == one.name for i in are]))
        if said:
            assert one.precision.mean == pytest.approx(np.mean([labels[i] == one.name for i in said]))
    assert scored.balanced.mean == pytest.approx(np.mean([one.recall.mean for one in scored.classes]))
    assert scored.bands[0].name == "head"
    most = against("most", answers, dict.fromkeys(answers, "a"), labels)
    assert most.difference.mean == pytest.approx(scored.accuracy.mean - most.accuracy.mean)
    assert most.difference_balanced.mean == pytest.approx(scored.balanced.mean - most.balanced.mean)
    some = against("some", answers, {i: labels[i] for i in test.ids[:10]}, labels)
    assert (some.items, some.accuracy.mean) == (10, 1.0)


def test_a_label_that_was_not_learnt_counts_as_wrong():
    train, held, test, labels = three()
    labels = {**labels, test.ids[0]: "new"}
    made = fit_probe(train, held, labels)
    scored = score(made.predict(test), made, test, labels, {"a": 1, "b": 1, "c": 1, "d": 1}, "kind")
    assert scored.unseen == 1
    assert next(one for one in scored.classes if one.name == "new").recall.mean == 0
    with pytest.raises(BadInput, match="a label for each"):
        score(made.predict(test), made, test, {}, {"a": 1}, "kind")


def test_the_temperature_is_fitted_on_what_was_held_out_and_used():
    train, held, test, labels = three(noise=1.0)
    made = fit_probe(train, held, labels)
    truth = np.asarray(["abcd".index(labels[i]) for i in held.ids])
    assert made.temperature == pytest.approx(temperature(made.adjusted(held.vectors), truth))
    hot = replace(made, temperature=2.0)
    wanted = np.exp(log_softmax(made.head.scores(test.vectors) / 2))
    assert hot.predict(test).probabilities == pytest.approx(wanted)
    few = replace(held, ids=held.ids[:9], vectors=held.vectors[:9])
    assert replace(made, temperature=1.0).calibrated(few, labels).temperature == 1.0
