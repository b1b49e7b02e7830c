from __future__ import annotations

import copy

import micro
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.embed import Embedder
from polymodal.match import Matcher
from polymodal.objectives.interbert import InterbertConfig
from polymodal.recipe import build_model
from polymodal.tasks.tune_matcher import TuneConfig, Wrong, likely_wrong, tune_matcher
from polymodal.types import BadInput, Embeddings, Record


def unit(prefix: str, n: int, seed: int) -> Embeddings:
    x = np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)
    return Embeddings(tuple(f"{prefix}{i}" for i in range(n)), x / np.linalg.norm(x, axis=1, keepdims=True), "m")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), queries=st.integers(1, 6), items=st.integers(1, 8), pool=st.integers(1, 5))
def test_likely_wrong_is_the_top_of_the_wrong_on_both_sides(seed, queries, items, pool):
    rng = np.random.default_rng(seed)
    asked, found = unit("q", queries, seed), unit("i", items, seed + 1)
    right = {q: set(np.flatnonzero(rng.random(items) < 0.4).tolist()) for q in range(queries)}
    wrong = likely_wrong(asked, found, right, pool)
    scores = (asked.vectors.astype(np.float64) @ found.vectors.T.astype(np.float64)).astype(np.float32)
    for q in range(queries):
        order = sorted((i for i in range(items) if i not in right[q]), key=lambda i: (-scores[q, i], i))
        assert wrong.items[q].tolist() == (order[:pool] + [-1] * pool)[:pool]
    for i in range(items):
        order = sorted((q for q in range(queries) if i not in right[q]), key=lambda q: (-scores[q, i], q))
        assert wrong.queries[i].tolist() == (order[:pool] + [-1] * pool)[:pool]
    for q, i in ((query, item) for query, some in right.items() for item in some):
        drawn = list(wrong.draw(q, i, 2, 3, np.random.default_rng(seed)))
        assert all(item not in right[query] for query, item in drawn)
        assert all(query == q or item == i for query, item in drawn)
        hard = [pair for pair in drawn if pair[0] == q][:2]
        assert {item for _, item in hard[: min(2, (wrong.items[q] >= 0).sum())]} <= set(wrong.items[q].tolist())


def made(seed: int = 0) -> Embedder:
    recipe = micro.recipe(("trunk", "towers"), learning_rate=5e-3)
    recipe = recipe.replace(model=recipe.model.replace(match=12), objective=InterbertConfig())
    torch.manual_seed(seed)
    return Embedder(build_model(recipe, micro.fit(recipe, micro.records())), recipe, "digest")


def world() -> tuple[list[Record], list[Record], np.ndarray, Wrong]:
    """A query says colour and shape, the item of the same number shows them."""
    eye = np.eye(4, dtype=np.float32)
    kinds = [(c, s) for c in range(4) for s in range(4)]
    queries = [Record(f"q{c}{s}", {"title": f"{micro.COLOURS[c]} {micro.SHAPES[s]}"}) for c, s in kinds]
    items = [Record(f"i{c}{s}", {"vector": np.concatenate([eye[c], eye[s]])[None]}) for c, s in kinds]
    right = {n: {n} for n in range(16)}
    # hard: another shape of the same colour
    near = np.asarray([[k for k in range(16) if k != n and k // 4 == n // 4] for n in range(16)])
    return queries, items, np.stack([np.arange(16)] * 2, 1), Wrong(right, near, near)


CONFIG = TuneConfig(epochs=150, batch_size=16, learning_rate=1e-2)


def test_tuning_teaches_which_item_a_query_means():
    queries, items, pairs, wrong = world()
    embedder = made()
    losses = tune_matcher(embedder, queries, items, pairs, wrong, CONFIG)
    assert len(losses) == 150
    assert losses[-1] < 0.5 * losses[0]
    scores = Matcher(embedder).match(queries, items)
    own, others = scores.diagonal(), scores[~np.eye(16, dtype=bool)].reshape(16, 15)
    assert (own[:, None] > others).mean() > 0.9
    assert not embedder.network.training


def test_the_head_alone_leaves_the_vectors():
    queries, items, pairs, wrong = world()
    whole, head, before = made(), made(), made()
    short = CONFIG.replace(epochs=2)
    tune_matcher(head, queries, items, pairs, wrong, short.replace(part="head"))
    tune_matcher(whole, queries, items, pairs, wrong, short)
    wanted = before.vectors(items, ["item"])["item"].vectors
    np.testing.assert_array_equal(head.vectors(items, ["item"])["item"].vectors, wanted)
    assert not np.allclose(whole.vectors(items, ["item"])["item"].vectors, wanted)
    old, new = before.network.matching.state_dict(), head.network.matching.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)
    assert all(p.requires_grad for p in head.network.parameters())


def test_the_same_seed_gives_the_same_head():
    queries, items, pairs, wrong = world()
    config = CONFIG.replace(epochs=2)
    found = []
    for seed in (1, 1, 2):
        embedder = made()
        tune_matcher(embedder, queries, items, pairs, wrong, config.replace(seed=seed))
        found.append(copy.deepcopy(embedder.network.state_dict()))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_refusals():
    queries, items, pairs, wrong = world()
    with pytest.raises(BadInput, match="right pair"):
        tune_matcher(made(), queries, items, pairs[:0], wrong, CONFIG)
    with pytest.raises(BadInput, match="different modalities"):
        tune_matcher(made(), queries, queries, pairs, wrong, CONFIG)
    recipe = micro.recipe(("trunk", "towers"))
    without = Embedder(build_model(recipe, micro.fit(recipe, micro.records())), recipe, "digest")
    with pytest.raises(BadInput, match="matching head"):
        tune_matcher(without, queries, items, pairs, wrong, CONFIG)
