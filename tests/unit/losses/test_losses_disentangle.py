"""Penalties: zero where they should be, large where not, and only the rows that count."""

from __future__ import annotations

import pytest
import torch

from polymodal.losses.disentangle import Canonical, agree, apart, spread


def draws(rows=400, columns=6, seed=0):
    return torch.randn((rows, columns), generator=torch.Generator().manual_seed(seed))


EVERY = torch.ones(400, dtype=torch.bool)


def test_agreeing_in_every_direction_costs_nothing():
    x = draws()
    assert float(agree(x, 3 * x + 1, EVERY, EVERY, off=0.0).value) == pytest.approx(0, abs=1e-4)
    assert float(agree(x, draws(seed=1), EVERY, EVERY, off=0.0).value) == pytest.approx(1, abs=0.2)
    # a tiny direction that only one side has counts like a large one
    odd = torch.cat([x[:, :5], 1e-2 * draws(seed=2)[:, :1]], 1)
    assert float(agree(x, odd, EVERY, EVERY, off=0.0).value) == pytest.approx(1 / 6, abs=0.05)


def test_agree_is_the_formula():
    x, y = draws(50), draws(50, seed=1)
    there = torch.ones(50, dtype=torch.bool)
    c = torch.corrcoef(torch.cat([x, y], 1).T)[:6, 6:]
    own = c.diagonal()
    by_hand = (1 - own).square().mean() + 0.5 * (c.square().sum() - own.square().sum()) / 6
    assert float(agree(x, y, there, there, off=0.5).value) == pytest.approx(float(by_hand), abs=1e-4)


def test_spread():
    x = draws()
    assert float(spread(x, EVERY, EVERY).value) < 0.05
    assert float(spread(x[:, [0] * 6], EVERY, EVERY).value) == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("kind", ["correlation", "hsic"])
def test_apart(kind):
    x, y = draws(), draws(seed=1)
    near, far = (float(apart(x, other, EVERY, EVERY, kind).value) for other in (x, y))
    assert near == pytest.approx(1, abs=0.1)
    assert far < 0.1 if kind == "correlation" else far < 0.5
    assert near > far + 0.4


def test_hsic_sees_what_correlation_does_not():
    x = draws(200, columns=1)
    x = torch.cat([x, -x])
    y = x**2
    assert float(apart(x, y, EVERY, EVERY, "correlation").value) < 1e-6
    assert float(apart(x, y, EVERY, EVERY, "hsic").value) > 0.15
    assert float(apart(x, draws(columns=1, seed=3), EVERY, EVERY, "hsic").value) < 0.05


@pytest.mark.parametrize("function", [agree, apart, lambda *a: apart(*a, "hsic"), lambda a, b, *r: spread(a, *r)])
def test_only_rows_that_count(function):
    x, y = draws(30).requires_grad_(), draws(30, seed=1)
    there = torch.arange(30) % 3 != 0
    kept = there.nonzero()[:, 0]
    term = function(x, y, there, there)
    every = torch.ones(len(kept), dtype=torch.bool)
    fewer = function(x[kept], y[kept], every, every)
    assert int(term.count) == int(fewer.count) == len(kept)
    assert float(term.value) == pytest.approx(float(fewer.value), abs=1e-5)
    (gradient,) = torch.autograd.grad(term.value, x)
    assert not gradient[~there].any()
    assert gradient.abs().sum() > 0
    dirty = torch.where(there[:, None], x.detach(), torch.full_like(x, 1e4))
    assert float(function(dirty, y, there, there).value) == float(term.value)
    for few in (torch.zeros(30, dtype=torch.bool), torch.arange(30) == 3):
        nothing = function(x, y, few, few)
        assert (float(nothing.value), int(nothing.count)) == (0.0, 0)
        (gradient,) = torch.autograd.grad(nothing.value, x)
        assert gradient.isfinite().all()
        assert not gradient.any()


def explained(z, w):
    """R2 of w from z, ordinary least squares with a constant."""
    z = torch.cat([z, torch.ones(len(z), 1)], 1)
    rest = w - z @ torch.linalg.lstsq(z, w).solution
    return float(1 - rest.square().sum() / (w - w.mean(0)).square().sum())


def two_sides(rows=4000):
    """Three shared and two own directions each, mixed into eight columns, the own ones a hundred times as large."""
    shared, first, second = draws(rows, 3), draws(rows, 2, 1), draws(rows, 2, 2)
    sides = [torch.cat([shared, 100 * own], 1) @ draws(5, 8, 3 + at) + 5 for at, own in enumerate((first, second))]
    return shared, (first, second), sides


def test_canonical_directions_tell_the_shared_from_the_own():
    shared, own, sides = two_sides()
    split = Canonical(8, ridge=1e-9)
    for at in torch.arange(4000).split(500):
        split.update(sides[0][at], sides[1][at], torch.ones(500, dtype=torch.bool))
    for side in (0, 1):
        common, rest = split.split(sides[side], side)
        assert common.shape[1] == 3
        assert explained(common, shared) > 0.99
        assert explained(common, own[side]) < 0.02
        assert explained(rest, own[side]) > 0.99
        assert explained(rest, shared) < 0.02
        assert common.std(0).tolist() == pytest.approx([1] * 3, abs=0.05)


def test_canonical_moments_are_those_of_rows_that_count():
    _, _, (a, b) = two_sides(300)
    every = torch.arange(300) % 3 > 0
    holes, whole, none = Canonical(8), Canonical(8), Canonical(8)
    wild = torch.where(every[:, None], a, 1e6)
    for begin in (0, 150):
        part = slice(begin, begin + 150)
        holes.update(wild[part], b[part], every[part])
        whole.update(a[part][every[part]], b[part][every[part]], torch.ones(100, dtype=torch.bool))
    torch.testing.assert_close(holes.square, whole.square)
    before = {k: v.clone() for k, v in holes.state_dict().items()}
    holes.update(a, b, torch.zeros(300, dtype=torch.bool))
    assert all(torch.equal(v, before[k]) for k, v in holes.state_dict().items())
    # before any row was seen nothing is shared
    assert [x.shape for x in none.split(a, 0)] == [(300, 0), (300, 8)]
