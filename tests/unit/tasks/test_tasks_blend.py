"""Blends of searches: weights that find planted ones, features of what is not listed, and lists that can be trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polymodal.evaluate import by_qrels, judge, measure
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


def precision(rows, relevance, k=10):
    """Mean average precision of the first k, of queries that have a right answer."""
    asked = np.flatnonzero(relevance.count > 0)
    return float(np.mean(measure(judge(relevance, asked, rows[asked, :k]), f"map@{k}")))


def test_planted_weights_are_found():
    x, relevance, _ = world([2.0, 0.0, 1.0], 2000)
    lists = {name: ranked(part) for name, part in zip("abc", x, strict=True)}
    blend = Blend.fit(lists, relevance)
    told = blend.told()
    assert np.linalg.norm(blend.weights) == pytest.approx(1)
    assert told["c"] / told["a"] == pytest.approx(0.5, abs=0.15)
    assert told["b"] == pytest.approx(0, abs=0.1)


def test_a_search_that_says_the_opposite_gets_no_weight_and_not_a_negative_one():
    x, relevance, _ = world([1.0, -1.0], 1000)
    told = Blend.fit({name: ranked(part) for name, part in zip("ab", x, strict=True)}, relevance).told()
    assert told == {"a": pytest.approx(1), "b": pytest.approx(0, abs=1e-9)}


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.3), (0.2, 1.0)])
def test_no_single_search_and_no_even_blend_is_better_where_it_learnt(weights):
    x, relevance, _ = world(list(weights), 300, seed=2)
    lists = {name: ranked(part) for name, part in zip("ab", x, strict=True)}
    blend = Blend.fit(lists, relevance)
    own = precision(blend.rank(lists, len(CORPUS), 10)[0], relevance)
    even = replace(blend, weights=np.full(2, 0.5**0.5))
    others = [found for found, _ in lists.values()] + [even.rank(lists, len(CORPUS), 10)[0]]
    assert all(own > precision(rows, relevance) - 0.003 for rows in others)


def test_the_first_answers_count_and_not_all_of_them():
    """One search knows two of twenty right answers for certain, the other a little of all: likelihood asks for the
    second, the first ten answers for the first."""
    rng = np.random.default_rng(3)
    right = np.stack([rng.permutation(len(CORPUS)) < 20 for _ in range(200)])
    sure = np.zeros(right.shape)
    for row, of in zip(sure, right, strict=True):
        row[rng.choice(np.flatnonzero(of), 2, replace=False)] = 1.0
    vague = right * 0.6 + rng.normal(size=right.shape)
    known = {f"q{at}": dict.fromkeys(np.asarray(CORPUS)[of].tolist(), 1.0) for at, of in enumerate(right)}
    relevance = by_qrels(list(known), CORPUS, known)
    lists = {"sure": ranked(sure), "vague": ranked(vague)}
    blend = Blend.fit(lists, relevance)
    rows, _ = blend.rank(lists, len(CORPUS), 10)
    assert np.take_along_axis(right, rows[:, :2], 1).all()  # what is certain comes first
    assert precision(rows, relevance) > max(precision(found, relevance) for found, _ in lists.values()) + 0.05


def test_a_hill_is_climbed_and_not_a_lucky_peak(monkeypatch):
    def value(self, weights):
        angle = np.degrees(np.arctan2(weights[1], weights[0]))
        return 0.6 if abs(angle - 30) < 1 else 0.5 * np.exp(-(((angle - 63) / 15) ** 2))

    monkeypatch.setattr("polymodal.tasks.blend._Learnt.value", value)
    x, relevance, _ = world([1.0, 1.0], 30)
    weights = Blend.fit({name: ranked(part) for name, part in zip("ab", x, strict=True)}, relevance).weights
    assert np.degrees(np.arctan2(*weights[::-1])) == pytest.approx(63)


def test_learning_twice_is_the_same():
    x, relevance, _ = world([1.0, 0.7, 0.2], 100)
    lists = {name: ranked(part) for name, part in zip("abc", x, strict=True)}
    assert np.array_equal(Blend.fit(lists, relevance).weights, Blend.fit(lists, relevance).weights)


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
    blend = Blend.fit(lists, relevance)
    assert np.array_equal(blend.rank(lists, len(CORPUS), 10)[0], lists["a"][0][:, :10])


def test_of_many_queries_some_are_enough(monkeypatch):
    x, relevance, _ = world([1.0, 1.0])
    lists = {name: ranked(part) for name, part in zip("ab", x, strict=True)}
    monkeypatch.setattr("polymodal.tasks.blend._MOST", 100)
    few = Blend.fit(lists, relevance)
    assert few.queries == 100
    assert few.weights == pytest.approx([0.5**0.5] * 2, abs=0.15)


def test_what_no_search_ranks_high_is_not_looked_at():
    x, relevance, right = world([1.0, 0.5], 60)
    lists = {name: ranked(part) for name, part in zip("ab", x, strict=True)}
    near = np.min([(rows == right[:, None]).argmax(1) for rows, _ in lists.values()], axis=0)
    assert 20 <= (near < 10).sum() < 60
    assert Blend.fit(lists, relevance, k=1).queries == (near < 10).sum()


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
