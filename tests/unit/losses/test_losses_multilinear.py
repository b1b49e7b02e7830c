"""The multilinear contrast by brute force, and the shuffles it is taken against."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polymodal.losses.multilinear import multilinear_contrast, shuffled_rows
from polymodal.tensors import stable_hash

KEYS = torch.tensor([stable_hash(f"row{at}") for at in range(9)])
SOME = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1, 1]).bool()


def test_a_shuffle_is_one_among_the_eligible():
    partners = shuffled_rows(KEYS, SOME, ("a", "b"), 5)
    for of in partners:
        assert sorted(of[SOME].tolist()) == SOME.nonzero()[:, 0].tolist()
    assert not torch.equal(partners[0], partners[1])
    assert not torch.equal(partners, shuffled_rows(KEYS, SOME, ("a", "b"), 6))
    assert torch.equal(partners[0], shuffled_rows(KEYS, SOME, ("a",), 5)[0])


def test_a_shuffle_does_not_know_other_rows_nor_their_order():
    partners = shuffled_rows(KEYS, SOME, ("a", "b"), 5)
    want = {int(KEYS[g]): [int(KEYS[p]) for p in partners[:, g]] for g in SOME.nonzero()[:, 0].tolist()}
    kept = KEYS[SOME].flip(0)
    fewer = shuffled_rows(kept, torch.ones(len(kept)).bool(), ("a", "b"), 5)
    assert {int(k): [int(kept[p]) for p in fewer[:, g]] for g, k in enumerate(kept.tolist())} == want


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_it_is_the_loop(seed, shuffles):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(3, 9, 4, generator=generator), dim=-1)
    own = torch.rand(shuffles, 9, 9, generator=generator) < 0.1
    partners = torch.stack([shuffled_rows(KEYS, SOME, ("a", "b"), s) for s in range(shuffles)])
    losses = []
    for b in SOME.nonzero()[:, 0].tolist():
        positive = sum(float(z[0, b, k]) * float(z[1, b, k]) * float(z[2, b, k]) for k in range(4)) * 7
        total = math.exp(positive)
        for s in range(shuffles):
            for g in SOME.nonzero()[:, 0].tolist():
                if g != b and not own[s, b, g]:
                    p, q = partners[s, :, g].tolist()
                    total += math.exp(7 * sum(float(z[0, b, k] * z[1, p, k] * z[2, q, k]) for k in range(4)))
        losses.append(math.log(total) - positive)
    dirty = torch.where(SOME[None, :, None], z, torch.nan).requires_grad_()
    term = multilinear_contrast(dirty[0], dirty[1:], SOME, dirty[1:], SOME, partners, 7.0, own=own)
    assert int(term.count) == len(losses)
    assert float(term.value.detach()) == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    term.value.backward()
    assert dirty.grad[:, ~SOME].eq(0).all()
    parts = [
        multilinear_contrast(z[0, s], z[1:, s], SOME[s], z[1:], SOME, partners, 7.0, offset=s.start, own=own[:, s])
        for s in (slice(0, 4), slice(4, 9))
    ]
    assert sum(float(p.value) * int(p.count) for p in parts) / len(losses) == pytest.approx(
        float(term.value.detach()), abs=1e-5
    )
