from __future__ import annotations

import itertools

import numpy as np
import pytest

from polymodal.evaluate.relevance import by_id
from polymodal.evaluate.retrieval import retrieve
from polymodal.evaluate.robustness import (
    AS_IS,
    MATRIX_METRICS,
    compare_controls,
    mean_fusion,
    random_like,
    subset_matrix,
    subset_scores,
)
from polymodal.evaluate.summary import statements, tally
from polymodal.types import BadInput, Embeddings

NAMES = ("audio", "image", "text")


def space(n: int = 90, classes: int = 5, width: int = 16, seed: int = 0):
    """Vectors of every subset of three modalities for the items that have it, labels, and presence."""
    rng = np.random.default_rng(seed)
    code = rng.integers(0, classes, n)
    item = 2 * rng.standard_normal((classes, width))[code] + rng.standard_normal((n, width))
    raw = {m: item + s * rng.standard_normal((n, width)) for m, s in zip(NAMES, (1.2, 0.5, 0.4), strict=True)}
    present = rng.random((n, 3)) < 0.8
    present[~present.any(1), 2] = True
    ids = tuple(f"i{k:03d}" for k in range(n))

    def embed(values: np.ndarray, keep: np.ndarray) -> Embeddings:
        rows = np.flatnonzero(keep)
        unit = values[rows] / np.linalg.norm(values[rows], axis=1, keepdims=True)
        return Embeddings(tuple(ids[r] for r in rows), unit.astype(np.float32), "m")

    subsets = {}
    for size in (1, 2, 3):
        for names in itertools.combinations(NAMES, size):
            keep = present[:, [NAMES.index(m) for m in names]].all(1)
            subsets[frozenset(names)] = embed(sum(raw[m] for m in names), keep)
    per = {m: subsets[frozenset({m})] for m in NAMES}
    return subsets, per, {i: str(c) for i, c in zip(ids, code, strict=True)}


def test_every_disjoint_pair_and_the_same_numbers_as_retrieve():
    subsets, _, _ = space()
    matrix = subset_matrix(subsets, resamples=200)
    assert len(matrix.cells) == 12  # 3^3 - 2 * 2^3 + 1
    for query, target in (
        (frozenset({"text"}), frozenset({"image"})),
        (frozenset({"image", "text"}), frozenset({"audio"})),
    ):
        cell = matrix.cell(query, target)
        corpus = subsets[target]
        both = tuple(i for i in subsets[query].ids if i in set(corpus.ids))
        asked = Embeddings(both, subsets[query].rows(both), "m")
        found = retrieve(asked, corpus, by_id(both, corpus.ids), metrics=MATRIX_METRICS, resamples=200)
        assert cell.metrics == found.metrics
        assert cell.chance == found.chance
        assert (cell.queries, cell.corpus) == (len(both), len(corpus))
    subsets_, grid = matrix.grid("hit@1")
    assert len(subsets_) == 6  # all three together have nothing left to look for
    assert np.isfinite(grid).sum() == 12


def test_all_pairs_find_themselves_and_groups_only_help():
    subsets, _, _ = space()
    every = subset_matrix(subsets, pairs="all", resamples=0)
    assert len(every.cells) == 49
    assert all(c.metrics["mrr"].mean == 1 for c in every.cells if c.query == c.target)
    ids = subsets[frozenset({"text"})].ids
    groups = {i: f"g{n // 3}" for n, i in enumerate(ids)}
    grouped = subset_matrix(subsets, equivalents=groups, resamples=0)
    plain = subset_matrix(subsets, resamples=0)
    assert all(
        g.metrics["hit@1"].mean >= p.metrics["hit@1"].mean for g, p in zip(grouped.cells, plain.cells, strict=True)
    )
    assert grouped != plain


def test_a_subset_nobody_has_is_left_out():
    empty = Embeddings((), np.zeros((0, 4), np.float32), "m")
    with pytest.raises(BadInput):
        subset_matrix({frozenset({"text"}): empty})
    apart = {
        frozenset({m}): Embeddings((m,), np.eye(1, 4, dtype=np.float32), "m") for m in NAMES
    }  # no item has two modalities
    assert subset_matrix(apart).cells == ()


def test_mean_fusion():
    one = Embeddings(("a", "b"), np.asarray([[3, 0], [0, 1]], np.float32), "m")
    two = Embeddings(("b", "c"), np.asarray([[5, 0], [-1, 0]], np.float32), "m")
    found = mean_fusion({"x": one, "y": two})
    assert found.ids == ("a", "b", "c")
    np.testing.assert_allclose(found.vectors, [[1, 0], [0.5**0.5, 0.5**0.5], [-1, 0]], atol=1e-6)
    against = Embeddings(("a",), np.asarray([[-1, 0]], np.float32), "m")
    np.testing.assert_allclose(mean_fusion({"x": one, "y": against}).rows(["a"]), [[1, 0]])
    with pytest.raises(BadInput):
        mean_fusion({})


def test_controls_are_paired_and_told_apart():
    subsets, per, labels = space()
    fused = {**subsets, AS_IS: mean_fusion(per)}
    controls = {
        "fused": fused,
        "copy": fused,
        "random": {s: random_like(e, seed=1) for s, e in fused.items()},
        "audio alone": {AS_IS: per["audio"]},
    }
    found = compare_controls(controls, labels, label="category", resamples=200)
    same = found.difference("copy")
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert found.difference("random").verdict == "first"
    alone = found.difference("audio alone")
    assert alone.n == len(per["audio"])
    assert alone.verdict == "first"
    said = statements(found)
    assert {s.verdict for s in said if s.control == "copy"} == {"unclear"}
    assert "are unclear" in tally(said, "fused")
    turned = compare_controls(controls, labels, reference="random", resamples=200)
    lost = [s for s in statements(turned) if s.control == "fused"]
    assert all(s.verdict == "second" and "random does not win: fused is better" in s.text for s in lost)
    assert "does not win against" in tally(statements(turned), "random")
    assert {s.size for s in found.sizes} == {1, 2, 3}
    assert found.to_json()["scores"]
    with pytest.raises(BadInput, match="nobody"):
        compare_controls(controls, labels, reference="nobody")


def test_scores_of_controls_are_those_of_their_own_items():
    subsets, per, labels = space()
    scores = {s.subset: s for s in subset_scores(subsets, labels, resamples=0)}
    found = compare_controls({"fused": subsets}, labels, resamples=0)
    for row in found.scores:
        if row.metric == "label_map":
            assert row.score.mean == pytest.approx(scores[row.subset].label_map.mean)
    text = frozenset({"text"})
    mrr = next(r.score for r in found.scores if (r.subset, r.metric) == (text, "instance_mrr"))
    # mean over the items of their mean over the other single modalities, each searched among the same items
    shares: dict[str, list[float]] = {}
    for other in ("audio", "image"):
        ids = tuple(i for i in per[other].ids if i in set(per["text"].ids))
        asked, corpus = (Embeddings(ids, per[m].rows(ids), "m") for m in ("text", other))
        values = retrieve(asked, corpus, by_id(ids, ids), metrics=("mrr",), resamples=0).per_query["mrr"]
        for i, value in zip(ids, values, strict=True):
            shares.setdefault(i, []).append(value)
    assert mrr.n == len(shares)
    assert mrr.mean == pytest.approx(np.mean([np.mean(v) for v in shares.values()]))
