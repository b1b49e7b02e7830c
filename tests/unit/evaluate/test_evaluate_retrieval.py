from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from polymodal.evaluate.intervals import interval, intervals, paired
from polymodal.evaluate.relevance import by_id, by_key, by_qrels
from polymodal.evaluate.retrieval import chance, judge, judge_lists, measure, metric_names, retrieve
from polymodal.evaluate.topk import rank_of, top_k
from polymodal.types import BadInput, Embeddings


def unit(n: int, width: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def plainly(queries, corpus, ids, k, exclude):
    """The same ranking, written out."""
    out = []
    for q in range(len(queries)):
        scores = (queries[q].astype(np.float64) @ corpus.T.astype(np.float64)).astype(np.float32)
        order = sorted((c for c in range(len(corpus)) if c != exclude[q]), key=lambda c: (-scores[c], ids[c]))
        out.append((order + [-1] * k)[: min(k, len(corpus))])
    return np.asarray(out)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40), k=st.integers(1, 45), kinds=st.integers(1, 6), seed=st.integers(0, 999),
    blocks=st.sampled_from([(1, 1), (3, 7), (512, 8192)]),
)  # fmt: skip
def test_top_k_is_exact_with_ties_by_id(n, k, kinds, seed, blocks):
    rng = np.random.default_rng(seed)
    corpus = unit(kinds, 5, seed)[rng.integers(0, kinds, n)]  # many equal vectors
    queries, ids = unit(6, 5, seed + 1), [f"id{i}" for i in rng.permutation(n)]
    exclude = rng.integers(-1, n, 6)
    rows, scores = top_k(queries, corpus, k, ids=ids, exclude=exclude, blocks=blocks)
    np.testing.assert_array_equal(rows, plainly(queries, corpus, ids, k, exclude))
    assert (np.diff(np.where(rows >= 0, scores, -9), axis=1) <= 0).all()


@pytest.mark.parametrize("blocks", [(4, 5), (512, 8192)])
def test_rank_of_agrees_with_top_k(blocks):
    corpus = unit(9, 4)[np.random.default_rng(1).integers(0, 9, 30)]
    queries, ids = unit(30, 4, 2), [f"{i * 7 % 30:02d}" for i in range(30)]
    rows, _ = top_k(queries, corpus, 30, ids=ids)
    expected = [list(row).index(q) + 1 for q, row in enumerate(rows)]
    np.testing.assert_array_equal(rank_of(queries, corpus, np.arange(30), ids=ids, blocks=blocks), expected)


def test_top_k_refuses_nonsense():
    with pytest.raises(BadInput):
        top_k(unit(2, 3), unit(2, 4), 1)
    with pytest.raises(BadInput):
        top_k(unit(2, 3), unit(2, 3), 0)
    with pytest.raises(BadInput):
        top_k(unit(2, 3), unit(2, 3)[:0], 1)


def test_against_trec_eval():
    rng = np.random.default_rng(3)
    docs = [f"d{i:02d}" for i in range(30)]
    lists = [[docs[i] for i in rng.permutation(30)] for _ in range(20)]
    right = [{docs[i]: int(rng.integers(1, 4)) for i in rng.permutation(30)[: rng.integers(1, 9)]} for _ in range(20)]
    run = {f"q{q}": {d: float(30 - r) for r, d in enumerate(ids)} for q, ids in enumerate(lists)}
    names = {"recip_rank", "map", "recall.5,10", "P.5,10", "ndcg_cut.5,10", "success.5,10"}
    judged_by = pytrec_eval.RelevanceEvaluator({f"q{q}": gains for q, gains in enumerate(right)}, names).evaluate(run)
    judged = judge_lists(lists, right)
    pairs = {"mrr": "recip_rank", "map": "map"}
    for k in (5, 10):
        pairs |= {f"recall@{k}": f"recall_{k}", f"precision@{k}": f"P_{k}", f"ndcg@{k}": f"ndcg_cut_{k}"}
        pairs[f"hit@{k}"] = f"success_{k}"
    for ours, theirs in pairs.items():
        expected = [judged_by[f"q{q}"][theirs] for q in range(20)]
        np.testing.assert_allclose(measure(judged, ours), expected, atol=1e-6, err_msg=ours)


def test_against_scikit_learn():
    queries, corpus = unit(12, 6), unit(50, 6, 1)
    ids = [f"c{i}" for i in range(50)]
    labels = {f"c{i}": str(i % 7) for i in range(50)} | {f"q{i}": str(i % 7) for i in range(12)}
    asked = [f"q{i}" for i in range(12)]
    found = retrieve(
        Embeddings(tuple(asked), queries, "m"), Embeddings(tuple(ids), corpus, "m"), by_key(asked, ids, labels),
        metrics=("map", "ndcg@10"), resamples=50,
    )  # fmt: skip
    truth = np.asarray([[labels[c] == labels[q] for c in ids] for q in asked], float)
    scores = queries @ corpus.T
    expected = [average_precision_score(t, s) for t, s in zip(truth, scores, strict=True)]
    np.testing.assert_allclose(found.per_query["map"], expected, atol=1e-6)
    assert found.metrics["ndcg@10"].mean == pytest.approx(ndcg_score(truth, scores, k=10), abs=1e-6)


def test_queries_are_not_their_own_answers():
    same = Embeddings(("a", "b", "c"), unit(3, 4), "m")
    labels = {"a": "x", "b": "x", "c": "y"}
    found = retrieve(same, same, by_key(same.ids, same.ids, labels), resamples=10)
    assert found.unjudged == 1
    assert np.isnan(found.per_query["map"][2])
    assert found.metrics["mrr"].n == 2
    # the released code keeps the lonely query, scores it 0, and loses one answer of the list
    scale = retrieve(
        same, same, by_key(same.ids, same.ids, labels), metrics=("map@2",), ap="scale", depth=2, drop_query="after"
    )
    assert scale.per_query["map@2"][2] == 0
    assert scale.metrics["map@2"].n == 3


def test_instance_retrieval_with_equivalents():
    ids = ("a", "b", "c", "d")
    plain, grouped = by_id(ids, ids), by_key(ids, ids, {"a": "g", "b": "g", "c": None}, itself="relevant")
    np.testing.assert_array_equal(plain.count, [1, 1, 1, 1])
    np.testing.assert_array_equal(grouped.count, [2, 2, 1, 1])
    rows = np.asarray([[1, 0, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0], [3, 2, 1, 0]])
    np.testing.assert_allclose(measure(judge(plain, np.arange(4), rows), "hit@1"), [0, 1, 0, 1])
    np.testing.assert_allclose(measure(judge(grouped, np.arange(4), rows), "hit@1"), [1, 1, 0, 1])


def test_qrels_count_what_the_corpus_lacks():
    qrels = by_qrels(["q"], ["a", "b"], {"q": {"a": 1, "gone": 1, "b": 0}})
    judged = judge(qrels, np.asarray([0]), np.asarray([[0, 1]]))
    assert measure(judged, "recall@2")[0] == 0.5
    with pytest.raises(BadInput, match="gains"):
        by_qrels(["q"], ["a"], {"q": {"a": -1}})
    with pytest.raises(BadInput, match="metric"):
        measure(judged, "recall@none")


@pytest.mark.parametrize("metric", metric_names((1, 2, 3)))
@pytest.mark.parametrize("right", [1, 2, 4])
def test_chance_is_the_mean_over_all_orders(metric, right):
    orders = np.asarray(list(permutations(range(5))))
    names = [str(i) for i in range(5)]
    relevance = by_qrels(["q"], names, {"q": {str(i): 1.0 for i in range(right)}})
    judged = judge(relevance, np.zeros(len(orders), int), orders)
    assert chance(metric, relevance, 5) == pytest.approx(measure(judged, metric).mean(), abs=1e-12)


def test_bootstrap_covers_and_is_seeded():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        found = interval(rng.random(60), resamples=300, seed=trial)
        hits += found.low <= 0.5 <= found.high
    assert 178 <= hits <= 199  # 95 % of 200, give or take three standard deviations
    values = rng.random((40, 2))
    values[3, 1] = np.nan
    assert intervals(values, seed=1) == intervals(values, seed=1) != intervals(values, seed=2)
    assert intervals(values)[1].n == 39
    half = np.where(np.arange(40) < 20, np.nan, 1.0)
    assert interval(half).low == interval(half).high == 1.0  # a query that cannot be judged weighs nothing
    assert intervals(values)[1].mean == pytest.approx(np.nanmean(values[:, 1]))


def test_paired_difference_sees_what_unpaired_does_not():
    base = np.random.default_rng(0).random(100) * 10
    gap = paired(base + 0.1, base)
    assert gap.verdict == "first"
    assert paired(base, base + 0.1).verdict == "second"
    assert paired(base, base).verdict == "unclear"
    assert paired(np.full(3, np.nan), np.ones(3)).n == 0
    first, second = interval(base + 0.1), interval(base)
    assert first.low < second.high


def test_large_bootstrap_goes_by_blocks():
    values = np.random.default_rng(0).random(9000)
    found = interval(values, resamples=1000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 9000**0.5, rel=0.15)
