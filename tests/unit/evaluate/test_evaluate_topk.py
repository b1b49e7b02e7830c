from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.evaluate.topk import Ties, rank_of, scored_top, top_k
from polymodal.types import BadInput


def made(n: int, kinds: int, seed: int, width: int = 5) -> np.ndarray:
    """Vectors with many equal ones among them; small whole numbers, so that every sum is exact in any order."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 4, (kinds, width)).astype(np.float32)[rng.integers(0, kinds, n)]


def plainly(queries, corpus, ids, k, exclude):
    out = []
    for q in range(len(queries)):
        scores = queries[q].astype(np.float64) @ corpus.T.astype(np.float64)
        order = sorted((c for c in range(len(corpus)) if c != exclude[q]), key=lambda c: (-scores[c], ids[c]))
        out.append((order + [-1] * k)[: min(k, len(corpus))])
    return np.asarray(out)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60), k=st.integers(1, 65), kinds=st.integers(1, 9), seed=st.integers(0, 999),
    blocks=st.sampled_from([(1, 1), (3, 7), (2, 16), (512, 8192)]), cuts=st.lists(st.integers(0, 60), max_size=4),
)  # fmt: skip
def test_a_corpus_in_pieces_gives_the_lists_of_the_whole(n, k, kinds, seed, blocks, cuts):
    """Whatever the pieces and the blocks, also with lists that are full long before the end (k far below n)."""
    corpus, queries = made(n, kinds, seed), made(6, 4, seed + 1)
    rng = np.random.default_rng(seed)
    ids, exclude = [f"id{i}" for i in rng.permutation(n)], rng.integers(-1, n, 6)
    pieces = np.split(corpus, sorted(min(cut, n) for cut in cuts))
    rows, scores = top_k(queries, iter(pieces), k, ids=ids, exclude=exclude, blocks=blocks)
    np.testing.assert_array_equal(rows, plainly(queries, corpus, ids, k, exclude))
    whole = top_k(queries, corpus, k, ids=Ties.by(ids), exclude=exclude)
    np.testing.assert_array_equal(rows, whole[0])
    np.testing.assert_array_equal(scores, whole[1])
    found = rows >= 0
    expected = np.einsum("qe,qke->qk", queries, corpus[rows])
    np.testing.assert_array_equal(scores[found], expected[found])
    assert (scores[~found] == -np.inf).all()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), kinds=st.integers(1, 5), seed=st.integers(0, 99), step=st.integers(1, 31))
def test_rank_of_is_the_place_in_the_list(n, kinds, seed, step):
    corpus, queries = made(n, kinds, seed), made(4, 4, seed + 1)
    rng = np.random.default_rng(seed)
    ids, targets = [f"{i:02d}" for i in rng.permutation(n)], rng.integers(0, n, 4)
    rows, _ = top_k(queries, corpus, n, ids=ids)
    expected = [row.tolist().index(target) + 1 for row, target in zip(rows, targets, strict=True)]
    assert rank_of(queries, corpus, targets, ids=ids, blocks=(3, step)).tolist() == expected


def test_scores_computed_elsewhere_are_listed_alike():
    corpus, queries = made(40, 6, 1), made(5, 4, 2)
    ids, own = [f"{i * 7 % 40:02d}" for i in range(40)], np.asarray([3, -1, 0, 39, 8])
    rows, scores = top_k(queries, corpus, 9, ids=ids, exclude=own)
    given_ = queries @ corpus.T
    found = scored_top(given_, 9, Ties.by(ids), own)
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_array_equal(found[1], scores)
    assert np.isfinite(given_).all()  # what was handed in is left alone
    given_[0, :36] = -np.inf
    assert (scored_top(given_, 9, Ties.by(ids), own)[0][0] >= 0).sum() == 4


def test_a_memory_map_is_read_and_never_copied(tmp_path):
    """Peak memory of the search, numpy's buffers included, stays far below the size of the corpus."""
    rows, width = 60_000, 64
    corpus = np.memmap(tmp_path / "corpus", np.float32, "w+", shape=(rows, width))
    corpus[:] = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    corpus.flush()
    ids = [f"{i * 7919 % rows:06d}" for i in range(rows)]
    queries, ties = np.array(corpus[:4]), Ties.by(ids)
    tracemalloc.start()
    found, _ = top_k(queries, corpus, 10, ids=ties, blocks=(4, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < corpus.nbytes / 4  # 15 MB; a copy in order of ids would be all of it
    np.testing.assert_array_equal(found, top_k(queries, np.array(corpus), 10, ids=ids)[0])


def test_refusals():
    queries = made(2, 2, 0)
    with pytest.raises(BadInput, match="width"):
        top_k(queries, iter([made(3, 2, 0), made(3, 2, 0, width=4)]), 1)
    with pytest.raises(BadInput, match="at least one vector"):
        top_k(queries, iter([]), 1)
    with pytest.raises(BadInput, match="one for each row"):
        top_k(queries, iter([made(3, 2, 0)]), 1, ids=["a", "b"])
    with pytest.raises(BadInput, match="one for each row"):
        top_k(queries, made(3, 2, 0), 1, ids=["a", "b", "c", "d"])
    with pytest.raises(BadInput, match="at least 1"):
        top_k(queries, made(3, 2, 0), 0)
