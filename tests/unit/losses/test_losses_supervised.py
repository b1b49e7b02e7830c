"""Supervised contrast and NT-Xent against their loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polymodal.losses.contrastive import pairwise_contrast
from polymodal.losses.ntxent import nt_xent
from polymodal.losses.supervised import supervised_contrast
from polymodal.objective import Alone
from polymodal.tensors import Embedded

SEEDS = st.integers(0, 2**31)


def world(rows=6, modalities=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(modalities, rows, 4, generator=generator), dim=-1)
    classes = torch.randint(0, 3, (rows,), generator=generator)
    return z, torch.rand(modalities, rows, generator=generator) < 0.7, classes


def slow(z, present, classes, scale, candidates_from):
    z, found = z.double(), {}
    for i, j in itertools.combinations(range(len(z)), 2):
        both = [b for b in range(z.shape[1]) if present[i, b] and present[j, b]]
        losses = []
        for (m, n), b in itertools.product(((i, j), (j, i)), both):
            against = [(n, g) for g in both]
            if candidates_from == "both":
                against += [(m, g) for g in both if g != b]
            logits = torch.stack([z[m, b] @ z[o, g] * scale for o, g in against])
            log = logits.log_softmax(0)
            positive = [at for at, (_, g) in enumerate(against) if classes[g] == classes[b]]
            losses.append(-log[positive].mean())
        found[i, j] = (float(torch.stack(losses).mean()) if losses else 0.0, len(losses))
    return found


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.sampled_from(["both", "cross"]))
def test_it_is_the_loop(seed, candidates_from):
    z, present, classes = world(seed=seed)
    got = supervised_contrast(z, present, classes, 5.0, candidates_from=candidates_from)
    for pair, (value, count) in slow(z, present, classes, 5.0, candidates_from).items():
        assert int(got[pair].count) == count
        assert float(got[pair].value) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("which", ["both", "cross"])
def test_classes_of_one_row_are_plain_contrast(which):
    z, present, _ = world(rows=8, seed=1)
    got = supervised_contrast(z, present, torch.arange(8), 5.0, candidates_from=which)
    want = pairwise_contrast(z, present, 5.0, negatives=which)
    for pair, term in want.items():
        assert float(got[pair].value) == pytest.approx(float(term.value), abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_absent_rows_are_never_read_and_two_processes_are_one(seed):
    z, present, classes = world(rows=8, seed=seed)
    leaf = torch.where(present[..., None], z, torch.nan).requires_grad_()
    whole = supervised_contrast(leaf, present, classes, 5.0)
    sum(t.value for t in whole.values()).backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad[~present].eq(0).all()
    parts = [
        supervised_contrast(
            z[:, s],
            present[:, s],
            classes[s],
            5.0,
            candidates=z,
            candidates_present=present,
            candidates_classes=classes,
            offset=s.start,
        )
        for s in (slice(0, 4), slice(4, 8))
    ]
    for pair, term in whole.items():
        count = sum(int(p[pair].count) for p in parts)
        value = sum(float(p[pair].value) * int(p[pair].count) for p in parts) / max(count, 1)
        assert count == int(term.count)
        assert value == pytest.approx(float(term.value.detach()), abs=1e-5)


def test_nt_xent_is_simclr():
    """Algorithm 1 of SimCLR, 2 N views in one list, row by row."""
    (a, b), _, _ = world(rows=5, modalities=2, seed=2)
    every = torch.ones(5).bool()
    views = torch.cat([a, b]).double()
    losses = []
    for k in range(10):
        logits = torch.stack([views[k] @ views[g] / 0.1 for g in range(10) if g != k])
        losses.append(logits.logsumexp(0) - views[k] @ views[(k + 5) % 10] / 0.1)
    term = nt_xent(Embedded(a, every), Embedded(b, every), 10.0, Alone())
    assert float(term.value) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    assert int(term.count) == 10


def test_nt_xent_of_some_rows_is_that_of_those_alone():
    (a, b), (one, other), _ = world(rows=9, modalities=2, seed=4)
    rows = torch.arange(9) % 4 != 0
    kept = one & other & rows
    assert 1 < kept.sum() < 9
    part = nt_xent(Embedded(a, one), Embedded(b, other), 10.0, Alone(), rows)
    alone = nt_xent(Embedded(a[kept], one[kept]), Embedded(b[kept], other[kept]), 10.0, Alone())
    assert int(part.count) == int(alone.count) == 2 * int(kept.sum())
    assert float(part.value) == pytest.approx(float(alone.value), abs=1e-6)
