"""The sigmoid loss against its double loop, and what absence, chunks and the normaliser do to it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polymodal.losses.sigmoid import sigmoid_pairs

T, BETA = torch.tensor(10.0), torch.tensor(-10.0)


def world(rows=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = F.normalize(torch.randn(2, rows, 5, generator=generator), dim=-1)
    return x, y, torch.rand(rows, generator=generator) < 0.7, torch.rand(rows, rows, generator=generator) < 0.2


def slow(x, y, both, ignore, scale, bias, rows):
    total = 0.0
    for a in range(len(x)):
        for b in range(len(y)):
            if both[a] and both[b] and (a == b or not ignore[a][b]):
                logit = float(x[a].double() @ y[b].double()) * scale + bias
                total -= math.log(1 / (1 + math.exp(-logit if a == b else logit)))
    return total / rows if rows else 0.0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(["present", "batch"]), st.sampled_from([0, 1, 3, 100]))
def test_it_is_the_double_loop(seed, normalise, chunk):
    x, y, both, ignore = world(seed=seed)
    term = sigmoid_pairs(x, both, y, both, T, BETA, ignore=ignore, normalise=normalise, chunk=chunk)
    count = len(x) if normalise == "batch" else int(both.sum())
    assert int(term.count) == count
    assert float(term.value) == pytest.approx(slow(x, y, both, ignore, 10.0, -10.0, count), rel=1e-5, abs=1e-6)


def test_a_toy_by_hand():
    """Two rows, orthogonal vectors: positives have the logit t + beta = 0, negatives beta = -10."""
    x = torch.eye(2)
    term = sigmoid_pairs(x, torch.ones(2).bool(), x, torch.ones(2).bool(), T, BETA)
    assert float(term.value) == pytest.approx(math.log(2) + math.log1p(math.exp(-10)), abs=1e-6)


def test_published_form_on_complete_rows():
    x, y, _, _ = world()
    every = torch.ones(7).bool()
    labels = 2 * torch.eye(7) - 1
    published = -F.logsigmoid(labels * (x @ y.T * T + BETA)).sum() / 7
    for normalise in ("present", "batch"):
        term = sigmoid_pairs(x, every, y, every, T, BETA, normalise=normalise)
        assert float(term.value) == pytest.approx(float(published), rel=1e-6)


def test_chunks_change_neither_loss_nor_gradients():
    found = []
    for chunk in (0, 1, 3, 7, 50):
        x, y, both, ignore = world()
        leaves = [v.clone().requires_grad_() for v in (x, y, T, BETA)]
        term = sigmoid_pairs(leaves[0], both, leaves[1], both, leaves[2], leaves[3], ignore=ignore, chunk=chunk)
        term.value.backward()
        found.append([term.value.detach(), *(leaf.grad for leaf in leaves)])
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found[0], other, strict=True))


def test_rows_with_an_absent_side_have_no_part():
    x, y, _, _ = world()
    both = torch.tensor([1, 1, 0, 1, 0, 1, 1]).bool()
    dirty = [torch.where(both[:, None], v, torch.nan).requires_grad_() for v in (x, y)]
    term = sigmoid_pairs(dirty[0], both, dirty[1], both, T, BETA)
    term.value.backward()
    kept = sigmoid_pairs(x[both], both[both], y[both], both[both], T, BETA)
    assert float(term.value.detach()) == pytest.approx(float(kept.value), rel=1e-6)
    assert all(leaf.grad[~both].eq(0).all() for leaf in dirty)
    # as published the same rows weigh less, because the batch has more
    batch = sigmoid_pairs(x, both, y, both, T, BETA, normalise="batch")
    assert float(batch.value) == pytest.approx(float(kept.value) * int(both.sum()) / len(x), rel=1e-6)


def test_nothing_is_exactly_zero():
    x, y, _, _ = world()
    none = torch.zeros(7).bool()
    leaf = x.clone().requires_grad_()
    term = sigmoid_pairs(leaf, none, y, none, T, BETA)
    term.value.backward()
    assert (float(term.value.detach()), int(term.count)) == (0.0, 0)
    assert leaf.grad.eq(0).all()


@pytest.mark.parametrize("normalise", ["present", "batch"])
def test_two_processes_are_one(normalise):
    x, y, both, ignore = world(rows=8)
    whole = sigmoid_pairs(x, both, y, both, T, BETA, ignore=ignore, normalise=normalise)
    parts = [
        sigmoid_pairs(x[s], both[s], y, both, T, BETA, offset=s.start, ignore=ignore[s], normalise=normalise)
        for s in (slice(0, 4), slice(4, 8))
    ]
    count = sum(int(p.count) for p in parts)
    assert count == int(whole.count)
    assert sum(float(p.value) * int(p.count) for p in parts) / count == pytest.approx(float(whole.value), rel=1e-6)
