"""InfMasking's term against the formula with its E x E covariance written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polymodal.losses.masked_fusion import masked_fusion
from polymodal.objective import Alone
from polymodal.tensors import Embedded

SCALE, SPREAD = 5.0, 0.3


def slow(q, k, rows):
    q, k, losses = q.double(), k.double(), []
    for b in rows:
        mean = k[:, b].mean(0)
        off = k[:, b] - mean
        sigma = off.T @ off / len(k) * SPREAD * SCALE
        positive = q[b] @ (mean + sigma @ q[b] / 2) * SCALE
        against = [q[b] @ k[t, n] * SCALE for t in range(len(k)) for n in rows if n != b]
        against += [q[b] @ q[n] * SCALE for n in rows if n != b]
        losses.append(torch.stack([positive, *against]).logsumexp(0) - positive + q[b] @ sigma @ q[b] * SCALE / 2)
    return float(torch.stack(losses).mean()) if losses else 0.0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_it_is_the_formula(seed, masks):
    generator = torch.Generator().manual_seed(seed)
    q = F.normalize(torch.randn(6, 4, generator=generator), dim=-1)
    k = F.normalize(torch.randn(masks, 6, 4, generator=generator), dim=-1)
    there, chosen = (torch.rand(6, generator=generator) < 0.8 for _ in range(2))
    rows = (there & chosen).nonzero()[:, 0].tolist()
    dirty = torch.where((there & chosen)[:, None], q, torch.nan).requires_grad_()
    term = masked_fusion(Embedded(dirty, there), k, SCALE, SPREAD, Alone(), chosen)
    assert int(term.count) == len(rows)
    assert float(term.value.detach()) == pytest.approx(slow(q, k, rows), abs=1e-5)
    term.value.backward()
    assert dirty.grad.isfinite().all()


def test_one_mask_has_no_spread():
    q = F.normalize(torch.randn(5, 4), dim=-1)
    every = torch.ones(5).bool()
    found = [float(masked_fusion(Embedded(q, every), q[None], SCALE, s, Alone()).value) for s in (0.0, 9.0)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
