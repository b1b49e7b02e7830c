"""Intervals over groups: copies say nothing new, and an interval of groups holds what it says it holds."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.evaluate import (
    by_band,
    by_key,
    by_pattern,
    classified,
    compare_controls,
    interval,
    intervals,
    measure_lists,
    paired,
    ridge_probe,
    subset_matrix,
    subset_scores,
)
from polymodal.evaluate.intervals import clusters_of, resample_weights
from polymodal.types import BadInput, Embeddings

FEW = {"resamples": 40, "seed": 3}
VALUES = st.lists(st.floats(-5, 5) | st.just(float("nan")), min_size=2, max_size=9)


def variants(ids: list[str], copies: int) -> tuple[list[str], dict[str, str]]:
    """Each id so many times, the copies beside it, and the groups they make."""
    every = [f"{i}.{copy}" for i in ids for copy in range(copies)]
    return every, {name: name.split(".")[0] for name in every}


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(2, 4))
def test_copies_of_a_row_change_no_interval(values, copies):
    once = np.asarray(values)
    many, groups = np.repeat(once, copies), np.repeat(np.arange(len(once)), copies)
    plain, drawn = interval(once, **FEW), interval(many, clusters=groups, **FEW)
    np.testing.assert_allclose([drawn.mean, drawn.low, drawn.high], [plain.mean, plain.low, plain.high])
    assert drawn.n == plain.n * copies
    gap, other = np.zeros(len(once)), paired(once, np.zeros(len(once)), **FEW)
    known = np.isfinite(once)
    if known.sum() > 1:
        same = paired(many, np.repeat(gap, copies), clusters=groups, **FEW)
        np.testing.assert_allclose([same.low, same.high, same.above], [other.low, other.high, other.above])


def test_an_interval_of_groups_holds_the_truth_as_often_as_it_says():
    """Four variants that share most of what decides: items drawn alone hold the true mean in 70 % of cases."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    held = {"groups": 0, "items": 0}
    for draw in range(300):
        values = 0.9 * np.repeat(random.standard_normal(60), 4) + 0.44 * random.standard_normal(240)
        for name, clusters in (("groups", groups), ("items", None)):
            found = interval(values, resamples=300, seed=draw, clusters=clusters)
            held[name] += found.low <= 0 <= found.high
    assert 0.90 <= held["groups"] / 300 <= 0.98
    assert held["items"] / 300 < 0.8


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_whole_clusters_are_drawn_as_many_as_there_are(codes):
    # any numbers may name clusters
    weights = np.concatenate(list(resample_weights(len(codes), 20, 0, 7 * np.asarray(codes))))
    _, clusters = np.unique(codes, return_inverse=True)
    assert weights.shape == (20, len(codes))
    units = len(set(codes))
    if units == 1:
        assert (weights.sum(1) == len(codes)).all()
        return
    first = [clusters.tolist().index(code) for code in range(units)]
    assert (weights[:, first].sum(1) == units).all()
    assert (weights == weights[:, first][:, clusters]).all()


def test_one_cluster_alone_leaves_its_rows_to_draw_from():
    values = np.asarray([0.0, 1, 1, 0, 1])
    assert interval(values, clusters=np.zeros(5, np.int64), **FEW) == interval(values, **FEW)


def test_many_rows_are_drawn_in_blocks(monkeypatch):
    random = np.random.default_rng(0)
    values, clusters = random.random((30, 2)), np.repeat(np.arange(10), [1, 5] * 5)
    # the package has a function of the module's name
    monkeypatch.setattr(sys.modules["polymodal.evaluate.intervals"], "_BLOCK", 100)
    blocks = list(resample_weights(30, 50, 0, clusters))
    assert max(len(block) for block in blocks) == 3
    found = intervals(values, resamples=50, seed=0, clusters=clusters)
    assert sum(map(len, blocks)) == 50
    drawn = np.concatenate(blocks).astype(np.float64)
    means = drawn @ values / drawn.sum(1, keepdims=True)
    np.testing.assert_allclose([one.low for one in found], np.percentile(means, 2.5, axis=0))


def test_codes_of_groups():
    assert clusters_of(["a", "b", "c"], None) is None
    assert clusters_of(["a", "b", "c"], {"a": "x", "c": "y"}) is None
    assert clusters_of(["a", "b", "c"], {"a": "x", "c": "x"}).tolist() == [0, 1, 0]  # type: ignore[union-attr]
    # an id that is named like a group is not of that group
    assert clusters_of(["a", "x", "c"], {"a": "x", "c": "x"}).tolist() == [0, 1, 0]  # type: ignore[union-attr]
    # the same item twice is one observation, whatever groups there are
    assert clusters_of(["a", "b", "a"], None).tolist() == [0, 1, 0]  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="clusters"):
        interval(np.zeros(3), clusters=np.asarray([0, 1]))


# -- every figure of this package, asked for items once and for each of them three times -----------------------------


IDS = [f"i{at}" for at in range(12)]
RANDOM = np.random.default_rng(5)
VECTORS = RANDOM.standard_normal((12, 4)).astype(np.float32)
LABELS = ["a", "b", "b", "a", "c", "b", "a", "c", "b", "a", "a", "b"]
GUESSES = ["a", "b", "a", "a", "b", "b", "c", "c", "b", "a", "b", "b"]


def _embeddings(ids: list[str], copies: int) -> Embeddings:
    return Embeddings(tuple(ids), np.repeat(VECTORS, copies, 0), "m")


def _classified(ids: list[str], copies: int, together):
    labels = dict(zip(ids, np.repeat(LABELS, copies).tolist(), strict=True))
    answers = np.repeat(GUESSES, copies).tolist()
    made = classified("x", "y", {}, {"a": 5, "b": 3, "c": 1}, ids, answers, labels, together=together, **FEW)
    return [made.accuracy, made.balanced, *(g.score for g in (*made.per_class, *made.bands))]


def _ridge(ids: list[str], copies: int, together):
    learnt = Embeddings(tuple(IDS), VECTORS, "m")
    values = dict(zip(ids, np.repeat(np.arange(12.0), copies).tolist(), strict=True))
    known = dict(zip(IDS, np.arange(12.0), strict=True))
    return [ridge_probe(learnt, _embeddings(ids, copies), known | values, together=together, **FEW).r2]


def _lists(ids: list[str], copies: int, together):
    """What each query finds among three items, of which the third is never right."""
    corpus = ["p", "q", "r"]
    key = dict(zip(ids, np.repeat(list("pqqppqppqpqp"), copies).tolist(), strict=True)) | {c: c for c in corpus}
    rows = np.repeat(np.asarray([[0, 1, 2], [2, 1, 0], [1, 0, 2]] * 4), copies, 0)
    relevance = by_key(ids, corpus, key)
    found = measure_lists(ids, 3, rows, relevance, metrics=("hit@1", "map@3"), together=together, **FEW)
    return list(found.metrics.values())


def _breakdowns(ids: list[str], copies: int, together):
    values = dict(zip(ids, np.repeat(VECTORS[:, 0], copies).tolist(), strict=True))
    has = [frozenset({"x"}), frozenset({"x", "y"})]
    presence = {i: has[at // copies % 2] for at, i in enumerate(ids)}
    labels = dict(zip(ids, np.repeat(LABELS, copies).tolist(), strict=True))
    found = [*by_pattern(values, presence, together=together, **FEW)]
    found += by_band(values, labels, {"a": 5, "b": 3, "c": 1}, together=together, **FEW)
    return [one.score for one in found]


@pytest.mark.parametrize("figures", [_classified, _ridge, _lists, _breakdowns])
def test_variants_that_are_copies_say_nothing_new(figures: Callable[..., list]):
    ids, groups = variants(IDS, 3)
    once, many, alone = figures(IDS, 1, None), figures(ids, 3, groups), figures(ids, 3, None)
    assert len(once) == len(many) > 0
    for plain, drawn in zip(once, many, strict=True):
        np.testing.assert_allclose([drawn.mean, drawn.low, drawn.high], [plain.mean, plain.low, plain.high])
    # the test can fail: drawn alone, copies make an interval narrower
    assert alone[0].high - alone[0].low < 0.8 * (many[0].high - many[0].low)


def test_subsets_and_controls_draw_groups():
    """Copies change what is near here, so that only the interval is compared, with and without groups."""
    random = np.random.default_rng(1)
    ids, groups = variants([f"i{at}" for at in range(20)], 3)
    subsets = {}
    for name in ("x", "y"):
        vectors = np.repeat(random.standard_normal((20, 3)), 3, 0) + 0.01 * random.standard_normal((60, 3))
        subsets[frozenset({name})] = Embeddings(tuple(ids), vectors.astype(np.float32), "m")
    labels = {i: "abcd"[int(i[1:].split(".")[0]) % 4] for i in ids}

    def cells(together):
        options = {"together": together, "resamples": 200}
        found = list(subset_matrix(subsets, **options).cells[0].metrics.values())
        found += [s.label_map for s in subset_scores(subsets, labels, **options)]
        controls = {"fused": subsets, "other": {s: subsets[t] for s, t in zip(subsets, reversed(subsets), strict=True)}}
        made = compare_controls(controls, labels, **options)
        found += [s.score for s in (*made.scores, *made.sizes)]
        return [*found, *(d.difference for d in made.differences), *(s.difference for s in made.sizes if s.difference)]

    for plain, drawn in zip(cells(None), cells(groups), strict=True):
        assert drawn.mean == plain.mean
        assert drawn.n == plain.n
        assert (drawn.low, drawn.high) != (plain.low, plain.high) or plain.low == plain.high
