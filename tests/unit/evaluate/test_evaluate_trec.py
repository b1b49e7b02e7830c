from __future__ import annotations

import io

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.evaluate import by_key, by_qrels, measure_lists, read_qrels, retrieve, write_qrels, write_run
from polymodal.evaluate.topk import Ties, top_k
from polymodal.types import BadInput, Embeddings

NAMES = {"mrr": "recip_rank", "map": "map"} | {
    f"{ours}@{k}": f"{theirs}_{k}"
    for k in (1, 5)
    for ours, theirs in (("recall", "recall"), ("precision", "P"), ("ndcg", "ndcg_cut"), ("hit", "success"))
}
ASKED = {"recip_rank", "map", "recall.1,5", "P.1,5", "ndcg_cut.1,5", "success.1,5"}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), kinds=st.integers(1, 12), depth=st.integers(1, 14))
def test_trec_eval_reads_our_files_and_agrees(tmp_path_factory, seed, kinds, depth):
    """The same figures from the exported run and qrels, although many scores are equal."""
    rng = np.random.default_rng(seed)
    space = rng.standard_normal((kinds, 4)).astype(np.float32)
    corpus, queries = space[rng.integers(0, kinds, 12)], rng.standard_normal((5, 4)).astype(np.float32)
    ids, asked = tuple(f"d{i}" for i in rng.permutation(12)), tuple(f"q{i}" for i in range(5))
    right = [{ids[i]: float(rng.integers(0, 4)) for i in rng.permutation(12)[: rng.integers(0, 7)]} for _ in asked]
    rows, scores = top_k(queries, corpus, depth, ids=Ties.by(ids))
    run, qrels = io.StringIO(), io.StringIO()
    write_run(run, asked, ids, rows, scores, "ours")
    write_qrels(qrels, asked, right)
    given_ = pytrec_eval.parse_qrel(io.StringIO(qrels.getvalue()))
    judged = pytrec_eval.RelevanceEvaluator(given_, ASKED).evaluate(pytrec_eval.parse_run(io.StringIO(run.getvalue())))
    relevance = by_qrels(asked, ids, dict(zip(asked, right, strict=True)))
    found = measure_lists(asked, len(ids), rows, relevance, metrics=tuple(NAMES), resamples=0)
    for at, query in enumerate(asked):
        if relevance.count[at] == 0:
            continue
        for ours, theirs in NAMES.items():
            if ours != "map" or depth >= relevance.count[at]:  # trec_eval divides by all right answers
                assert found.per_query[ours][at] == pytest.approx(judged[query][theirs], abs=1e-6), (ours, query)
    path = tmp_path_factory.mktemp("qrels") / "q"
    path.write_text(qrels.getvalue())
    if any(gain > 0 for judged in right for gain in judged.values()):
        assert read_qrels(path) == {q: judged for q, judged in zip(asked, right, strict=True) if judged}
    lines = [line.split() for line in run.getvalue().splitlines()]
    for query in asked:
        written = [np.float32(line[4]) for line in lines if line[0] == query]
        assert (np.diff(written) < 0).all()  # in single precision, as trec_eval has it


def test_measured_lists_are_what_retrieve_measures():
    rng = np.random.default_rng(0)
    ids = tuple(f"i{n:02d}" for n in range(30))
    space = Embeddings(ids, rng.standard_normal((30, 4)).astype(np.float32), "m")
    relevance = by_key(ids, ids, {name: str(n % 4) for n, name in enumerate(ids)})
    whole = retrieve(space, space, relevance, resamples=50, depth=12)
    rows, _ = top_k(space.vectors, space.vectors, 12, ids=ids, exclude=relevance.own)
    assert measure_lists(ids, 30, rows, relevance, resamples=50).to_json() == whole.to_json()
    for name, values in retrieve(space, space, relevance, depth=12, block=7).per_query.items():
        np.testing.assert_allclose(values, whole.per_query[name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q 0 d\n", "line 1"),
        ("q 0 d 1\n\nq 0 e much\n", "line 3"),
        ("q 0 d 1\nq 0 d 0\n", "again"),
        ("q 0 d nan\n", "line 1"),
        ("q 0 d 0\nq 0 e -1\n", "right answer"),
        ("", "right answer"),
    ],
)
def test_bad_qrels_say_which_line(tmp_path, text, said):
    path = tmp_path / "bad.qrels"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_qrels(path)


def test_other_refusals(tmp_path):
    with pytest.raises(BadInput, match="a file"):
        read_qrels(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        read_qrels(tmp_path / "bytes")
    with pytest.raises(BadInput, match="spaces"):
        write_run(io.StringIO(), ["a b"], ["d"], np.zeros((1, 1), int), np.zeros((1, 1), np.float32), "t")
    with pytest.raises(BadInput, match="whole number"):
        write_qrels(io.StringIO(), ["q"], [{"d": 0.5}])
    (tmp_path / "less").write_text("q 0 d 1\nq 0 e -2\n")
    assert read_qrels(tmp_path / "less") == {"q": {"d": 1.0, "e": 0.0}}
