"""Blends of searches: weights that find planted ones, features of what is not listed, and lists that can be trusted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from polymodal.evaluate import by_qrels
from polymodal.tasks.blend import LEAST, Blend
from polymodal.types import BadInput

CORPUS = [f"i{at}" for at in range(40)]


def ranked(scores, depth=40):
    """(Q, C) scores as lists."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return order.astype(np.int64), np.take_along_axis(scores, order, 1).astype(np.float32)


def world(weights, queries=400, seed=0):
    """Scores of as many searches as weights, and one right answer of each query, drawn as a softmax of them says."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(weights), queries, len(CORPUS)))
    z = np.einsum("f,fqc->qc", weights, x) + rng.gumbel(size=(queries, len(CORPUS)))
    names = [f"q{at}" for at in range(queries)]
    right = {q: {CORPUS[at]: 1.0} for q, at in zip(names, z.argmax(1).tolist(), strict=True)}
    return x, by_qrels(names, CORPUS, right), z.argmax(1)


def test_planted_weights_are_found():
    x, relevance, _ = world([2.0, 0.0, -1.0], 2000)
    lists = {name: ranked(part) for name, part in zip("abc", x, strict=True)}
    told = Blend.fit(lists, relevance).told()
    assert told == {
        "a": pytest.approx(2, abs=0.15),
        "b": pytest.approx(0, abs=0.15),
        "c": pytest.approx(-1, abs=0.15),
    }


def test_the_loss_is_that_of_the_right_answers_and_its_slope_is_nothing():
    x, relevance, right = world([1.0, 0.5], 60)
    lists = {name: ranked(part) for name, part in zip("ab", x, strict=True)}
    found = Blend.fit(lists, relevance, ridge=0.0)

    def loss(weights):
        features = np.stack(
            [(p.astype(np.float32) - m) / d for p, m, d in zip(x, found.means, found.deviations, strict=True)], -1
        )
        z = features @ weights
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(60), right]))

    best = loss(found.weights)
    for sign, at in itertools.product((-1, 1), range(2)):
        assert loss(found.weights + sign * 0.01 * np.eye(2)[at]) > best


def test_a_blend_ranks_held_out_queries_better_than_its_parts():
    x, relevance, _ = world([1.5, 1.5])
    lists = {name: ranked(part) for name, part in zip("ab", x, strict=True)}
    blend = Blend.fit(lists, relevance)
    x, _, right = world([1.5, 1.5], seed=1)
    lists = {name: ranked(part) for name, part in zip("ab", x, strict=True)}
    rows, scores = blend.rank(lists, len(CORPUS), 10)
    assert rows.shape == (400, 10)
    assert (np.diff(scores) <= 0).all()
    hits = {"blend": (rows[:, 0] == right).mean()}
    hits |= {name: (found[:, 0] == right).mean() for name, (found, _) in lists.items()}
    assert hits["blend"] > max(hits["a"], hits["b"]) + 0.1


def test_what_a_search_does_not_list_has_its_last_score_or_none():
    full = (np.asarray([[2, 0]]), np.asarray([[0.9, 0.4]], np.float32))
    ended = (np.asarray([[1, -1]]), np.asarray([[5.0, -np.inf]], np.float32))
    head = (np.asarray([[0, 2]]), np.asarray([[0.75, -2.0]], np.float32))
    blend = Blend(("full", "ended", "head"), ("head",), np.zeros(4), np.zeros(4), np.ones(4), 20)
    lists = {"full": full, "ended": ended, "head": head}
    expected = {"full": [0.4, 0.4, 0.9], "ended": [0, 5, 0], "head": [np.log(3), 0, 0], "head: looked at": [1, 0, 0]}
    assert list(blend.told()) == list(expected)
    for at, values in enumerate(expected.values()):
        one = Blend(blend.searches, ("head",), np.eye(4)[at], np.zeros(4), np.ones(4), 20)
        rows, scores = one.rank(lists, 3, 3)
        assert scores[0, np.argsort(rows[0])] == pytest.approx(values, abs=1e-6)


def test_items_that_nobody_lists_are_not_listed_and_blocks_change_nothing(monkeypatch):
    x, relevance, _ = world([1.0, 1.0])
    lists = {name: ranked(part, 5) for name, part in zip("ab", x, strict=True)}
    blend = Blend.fit(lists, relevance)
    rows, scores = blend.rank(lists, len(CORPUS), 40)
    for query in range(0, 400, 37):
        listed = set(lists["a"][0][query]) | set(lists["b"][0][query])
        assert set(rows[query][rows[query] >= 0]) == listed
        assert (scores[query] == -np.inf).sum() == 40 - len(listed)
    monkeypatch.setattr("polymodal.tasks.lexical._PLACES", 7 * len(CORPUS))
    again = blend.rank(lists, len(CORPUS), 40)
    assert np.array_equal(again[0], rows)
    assert np.array_equal(again[1], scores)


def test_a_feature_that_never_changes_does_no_harm():
    x, relevance, _ = world([1.0])
    lists = {"a": ranked(x[0]), "still": ranked(np.zeros_like(x[0]))}
    assert Blend.fit(lists, relevance).told() == {"a": pytest.approx(1, abs=0.2), "still": pytest.approx(0, abs=1e-9)}


def test_too_few_queries_are_refused():
    x, relevance, _ = world([1.0], LEAST - 1)
    with pytest.raises(BadInput, match="at least 20"):
        Blend.fit({"a": ranked(x[0])}, relevance)


def test_json_has_all_that_ranking_needs():
    x, relevance, _ = world([1.0, 1.0])
    blend = Blend.fit({name: ranked(part) for name, part in zip("ab", x, strict=True)}, relevance)
    data = blend.to_json()
    assert data["queries"] == 400
    assert [f["feature"] for f in data["features"]] == ["a", "b"]
    assert [f["weight"] for f in data["features"]] == blend.weights.tolist()
