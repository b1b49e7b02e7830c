"""Bounds against loops over pairs, against known information, and with rows that lack a side."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from polymodal.bench._synthetic import gaussian, gaussian_pairs
from polymodal.losses.critics import DotCritic, held
from polymodal.losses.information import (
    capacity,
    club,
    codes,
    kernel_club,
    kernel_nce,
    kernel_weights,
    nce,
    pairing,
    rbf,
    same_class,
)


def slow(scores, present, labels=None, diagonal=True):
    """NCE and CLUB by loops: a row without a side, or of a class of one, is in no sum at all."""
    low, high = [], []
    for i in range(len(scores)):
        others = [
            j
            for j in range(len(scores))
            if present[j] and (labels is None or (labels[j] == labels[i] and labels[i] >= 0))
        ]
        if not present[i] or i not in others or len(others) < 2:
            continue
        total = sum(math.exp(float(scores[i, j])) for j in others)
        low.append(float(scores[i, i]) - math.log(total) + math.log(len(others)))
        marginal = [float(scores[i, j]) for j in others if diagonal or j != i]
        high.append(float(scores[i, i]) - sum(marginal) / len(marginal))
    return (sum(low) / len(low), sum(high) / len(high), len(low)) if low else (0.0, 0.0, 0)


@pytest.fixture(params=range(3))
def table(request):
    generator = torch.Generator().manual_seed(request.param)
    scores = torch.randn((12, 12), generator=generator, dtype=torch.float64) * 2
    present = torch.rand(12, generator=generator) < 0.7
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, -1, -1, 1])
    return scores, present, labels


@pytest.mark.parametrize(("classes", "diagonal"), list(itertools.product([False, True], repeat=2)))
def test_bounds_are_the_loops(table, classes, diagonal):
    scores, present, labels = table
    pairs = pairing(present, present, 0, same_class(labels, labels) if classes else None)
    low, high, count = slow(scores, present.tolist(), labels.tolist() if classes else None, diagonal)
    assert count > 2
    term = nce(scores, pairs)
    assert int(term.count) == int(pairs.counted.sum()) == count
    assert float(capacity(pairs) - term.value) == pytest.approx(low, abs=1e-6)
    assert float(club(scores, pairs, diagonal).value) == pytest.approx(high, abs=1e-6)


def test_what_stands_where_a_side_is_absent_is_never_read(table):
    scores, present, labels = table
    dirty = torch.where(present[:, None] & present[None], scores, torch.full_like(scores, 1e6))
    gram = rbf(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), 1.0).double()
    for same in (None, same_class(labels, labels)):
        pairs = pairing(present, present, 0, same)
        weights = kernel_weights(gram, present, 0.1)
        for bound in (
            nce,
            club,
            lambda s, p, w=weights: kernel_nce(s, w, p),
            lambda s, p, w=weights: kernel_club(s, w, p),
        ):
            clean = scores.clone().requires_grad_()
            one, other = bound(clean, pairs), bound(dirty, pairs)
            assert float(one.value) == float(other.value)
            one.value.backward()
            assert clean.grad.isfinite().all()
            assert clean.grad.abs().sum() > 0
            assert not clean.grad[~present].any()
            assert not clean.grad[:, ~present].any()


def test_absent_rows_are_as_deleted_ones(table):
    scores, present, labels = table
    kept = present.nonzero()[:, 0]
    gram = rbf(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), 1.0)
    for classes in (False, True):
        every, y = torch.ones(len(kept), dtype=torch.bool), labels[kept]
        whole = pairing(present, present, 0, same_class(labels, labels) if classes else None)
        fewer = pairing(every, every, 0, same_class(y, y) if classes else None)
        small = scores[kept][:, kept]
        for bound in (nce, club):
            assert float(bound(scores, whole).value) == pytest.approx(float(bound(small, fewer).value), abs=1e-9)
            assert int(bound(scores, whole).count) == int(bound(small, fewer).count)
    weights, others = kernel_weights(gram, present, 0.1), kernel_weights(gram[kept][:, kept], every, 0.1)
    whole, fewer = pairing(present, present), pairing(every, every)
    for bound in (kernel_nce, kernel_club):
        assert float(bound(scores, weights, whole).value) == pytest.approx(
            float(bound(small, others, fewer).value), abs=1e-5
        )


@pytest.mark.parametrize("present", [[False] * 4, [True, False, False, False]], ids=["nobody", "one"])
def test_nothing_to_compare_is_exactly_nothing(present):
    there = torch.tensor(present)
    scores = torch.randn(4, 4, requires_grad=True)
    pairs = pairing(there, there)
    weights = kernel_weights(torch.eye(4), there, 0.1)
    for term in (nce(scores, pairs), club(scores, pairs), kernel_nce(scores, weights, pairs)):
        assert (float(term.value), int(term.count)) == (0.0, 0)
        (gradient,) = torch.autograd.grad(term.value, scores, retain_graph=True)
        assert not gradient.any()
    assert float(capacity(pairs)) == 0.0


def test_rows_of_two_processes_are_those_of_one(table):
    scores, present, labels = table
    same = same_class(labels, labels)
    whole = pairing(present, present, 0, same)
    halves = [pairing(present[at : at + 6], present, at, same[at : at + 6]) for at in (0, 6)]
    for bound in (nce, club):
        parts = [bound(scores[at : at + 6], pairs) for at, pairs in zip((0, 6), halves, strict=True)]
        count = sum(int(p.count) for p in parts)
        assert count == int(bound(scores, whole).count)
        mean = sum(float(p.value) * int(p.count) for p in parts) / count
        assert mean == pytest.approx(float(bound(scores, whole).value), abs=1e-9)


def test_nce_is_at_most_log_n_and_below_club(table):
    scores, present, labels = table
    for factor in (0.1, 1.0, 30.0):
        for same in (None, same_class(labels, labels)):
            pairs = pairing(present, present, 0, same)
            low = capacity(pairs) - nce(scores * factor, pairs).value
            assert float(low) <= float(capacity(pairs)) + 1e-9
            assert float(low) <= float(club(scores * factor, pairs).value) + 1e-9
    sure = pairing(torch.ones(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool))
    assert float(capacity(sure) - nce(torch.eye(12) * 99, sure).value) == pytest.approx(math.log(12), abs=1e-6)


# -- given something ---------------------------------------------------------------------------------------------------


def test_a_kernel_of_classes_takes_its_negatives_within_the_class():
    """K = 1[y_i = y_j]: W is 1 / (n_y + ridge) within the class, so the negatives are n times the mean over it."""
    generator = torch.Generator().manual_seed(0)
    labels, ridge = torch.tensor([0, 0, 0, 1, 1, 1, 1]), 1e-4
    scores = torch.randn((7, 7), generator=generator)
    there = torch.ones(7, dtype=torch.bool)
    weights = kernel_weights(same_class(labels, labels).float(), there, ridge)
    pairs = pairing(there, there)
    by_hand_nce, by_hand_club = [], []
    for i in range(7):
        within = [j for j in range(7) if labels[j] == labels[i]]
        mean = sum(math.exp(float(scores[i, j])) for j in within) / (len(within) + ridge)
        own = math.exp(float(scores[i, i]))
        by_hand_nce.append(-math.log(own / (own + 7 * mean)))
        by_hand_club.append(math.log(own) - math.log(mean))
    assert float(kernel_nce(scores, weights, pairs).value) == pytest.approx(sum(by_hand_nce) / 7, abs=1e-3)
    assert float(kernel_club(scores, weights, pairs).value) == pytest.approx(sum(by_hand_club) / 7, abs=1e-3)


def test_an_equal_condition_is_none():
    """Where all rows are given the same, the kernel form is the plain one with the positive counted once more."""
    there = torch.ones(6, dtype=torch.bool)
    scores = torch.randn((6, 6), generator=torch.Generator().manual_seed(1))
    weights = kernel_weights(torch.ones(6, 6), there, 1e-5)
    plain = torch.cat([scores, scores.diagonal()[:, None]], 1).logsumexp(1) - scores.diagonal()
    assert float(kernel_nce(scores, weights, pairing(there, there)).value) == pytest.approx(
        float(plain.mean()), abs=1e-3
    )


def test_the_kernel_is_near_for_the_near():
    x = torch.tensor([[0.0], [0.1], [3.0]])
    gram = rbf(x, 1.0)
    assert gram[0, 1] == pytest.approx(math.exp(-0.005), abs=1e-6)
    assert gram[0, 2] == pytest.approx(math.exp(-4.5), abs=1e-6)
    weights = kernel_weights(gram, torch.tensor([True, True, True]), 0.1)
    assert weights[1, 0] > weights[2, 0]
    assert (weights >= 0).all()


def test_codes_of_labels():
    labels = torch.tensor([3, 5, 3, -1])
    code = codes(labels, 32)
    assert torch.equal(code[0], code[2])
    assert not torch.equal(code[0], code[1])
    assert set(code[:3].unique().tolist()) == {-1.0, 1.0}
    assert not code[3].any()
    assert len({tuple(row) for row in codes(torch.arange(2000), 32).tolist()}) == 2000


# -- known information -------------------------------------------------------------------------------------------------


def test_the_gaussians_have_the_information_they_should():
    x, y = gaussian(2.0, 20, 200_000, torch.Generator().manual_seed(0))
    rho = (x * y).mean(0)
    assert rho.mean() == pytest.approx(math.sqrt(1 - math.exp(-0.2)), abs=2e-3)
    assert float(-0.5 * (1 - rho**2).log().sum()) == pytest.approx(2.0, abs=0.05)
    assert y.var(0).mean() == pytest.approx(1.0, abs=0.01)


def test_nce_and_club_enclose_two_nats_of_twenty_gaussians():
    """2 nats over 20 coordinates, 128 rows a step: the bounds of one trained critic lie on either side of the truth."""
    torch.manual_seed(0)
    critic = DotCritic(20, 20, hidden=128, layers=1, width=64)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    there = torch.ones(128, dtype=torch.bool)
    pairs, low, high = pairing(there, there), [], []
    for step, (x, y) in enumerate(gaussian_pairs(2.0, 20, 128, seed=0)):
        if step == 700:
            break
        if step >= 500:
            with torch.no_grad():
                scores = held(critic, x, y)
                low.append(float(capacity(pairs) - nce(scores, pairs).value))
                high.append(float(club(scores, pairs, diagonal=False).value))
        optimizer.zero_grad()
        nce(critic(x, y), pairs).value.backward()
        optimizer.step()
    below, above = sum(low) / len(low), sum(high) / len(high)
    assert 1.0 < below < 2.0 < above < 6.0
    assert all(a <= b for a, b in zip(low, high, strict=True))
