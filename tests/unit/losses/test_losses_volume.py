"""Volumes against determinants, and a contrast in which those of different subsets never meet."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polymodal.losses.volume import volume_contrast, volumes

SEEDS = st.integers(0, 2**31)


def world(seed=0, rows=6):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(4, rows, 5, generator=generator), dim=-1)
    present = torch.rand(3, rows, generator=generator) < 0.6
    anchor = torch.rand(rows, generator=generator) < 0.8
    return z[0], z[1:], present, anchor & present.any(0)


def determinant(vectors: list[torch.Tensor], eps: float) -> float:
    """1/2 log det of the Gram matrix of an anchor (first) and its tuple, in float64."""
    v = torch.stack(vectors).double()
    return float(torch.logdet(v @ v.T + eps * torch.eye(len(v), dtype=torch.float64))) / 2


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_it_is_the_determinant(seed):
    anchors, tuples, present, _ = world(seed)
    got = volumes(anchors, tuples, present, eps=1e-3)
    for a in range(6):
        for t in range(6):
            kept = [tuples[k, t] for k in range(3) if present[k, t]]
            assert float(got[a, t]) == pytest.approx(determinant([anchors[a], *kept], 1e-3), abs=1e-4)


def test_known_volumes():
    """A cube, a square root of 3 / 4 at 60 degrees, and a flat one, whose gradient is finite."""
    e = torch.eye(3)
    one = torch.ones(2, 1).bool()
    assert float(volumes(e[:1], e[1:, None], one, 1e-9).exp()) == pytest.approx(1.0, abs=1e-4)
    turned = torch.tensor([[math.cos(math.pi / 3), math.sin(math.pi / 3), 0.0]])
    assert float(volumes(e[:1], turned[None], one[:1], 1e-9).exp()) == pytest.approx(math.sqrt(0.75), abs=1e-4)
    flat = e[:1].clone().requires_grad_()
    value = volumes(flat, e[:1][None], one[:1], 1e-3)
    value.sum().backward()
    assert float(value.detach()) == pytest.approx(math.log((1 + 1e-3) ** 2 - 1) / 2, abs=1e-3)
    assert flat.grad.isfinite().all()


def slow(anchors, tuples, present, counted, scale, form):
    rows = [b for b in range(len(anchors)) if counted[b]]

    def score(a, t):
        log = determinant([anchors[a], *[tuples[k, t] for k in range(3) if present[k, t]]], 1e-3)
        return -(log if form == "log" else math.exp(log)) * scale

    losses = []
    for b in rows:
        alike = [g for g in rows if torch.equal(present[:, g], present[:, b])]
        losses.append(math.log(sum(math.exp(score(b, g)) for g in alike)) - score(b, b))
        losses.append(math.log(sum(math.exp(score(g, b)) for g in rows)) - score(b, b))
    return (sum(losses) / len(losses) if losses else 0.0), len(losses)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from(["log", "volume"]))
def test_the_contrast_is_the_loop(seed, form):
    anchors, tuples, present, counted = world(seed)
    a = torch.where(counted[:, None], anchors, torch.nan).requires_grad_()
    t = torch.where(present[..., None], tuples, torch.nan).requires_grad_()
    term = volume_contrast(a, t, present, counted, a, t, present, counted, 5.0, form=form)
    value, count = slow(anchors, tuples, present, counted, 5.0, form)
    assert int(term.count) == count
    assert float(term.value.detach()) == pytest.approx(value, abs=2e-4)
    term.value.backward()
    assert a.grad.isfinite().all()
    assert a.grad[~counted].eq(0).all()
    assert t.grad[~present].eq(0).all()
    parts = [
        volume_contrast(
            anchors[s], tuples[:, s], present[:, s], counted[s], anchors, tuples, present, counted, 5.0,
            offset=s.start, form=form,
        )
        for s in (slice(0, 3), slice(3, 6))
    ]  # fmt: skip
    total = sum(float(p.value) * int(p.count) for p in parts) / max(count, 1)
    # determinants of nearly dependent vectors, in single precision and in blocks of other sizes
    assert total == pytest.approx(float(term.value.detach()), rel=1e-5, abs=1e-5)
