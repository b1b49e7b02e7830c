from __future__ import annotations

import math

import pytest
import torch

from polymodal.draws import uniform
from polymodal.losses.pairing import choose, eligible_partners, partners, same_or_not

KEYS = torch.arange(2000) * 7919 + 13


def test_what_is_chosen_is_allowed_and_each_as_often():
    allowed = torch.tensor([[True, False, True, True]]).expand(2000, -1)
    which, some = choose(allowed, uniform(5, KEYS, 4))
    assert some.all()
    counts = torch.bincount(which, minlength=4)
    assert counts[1] == 0
    assert all(600 < int(n) < 735 for n in counts[[0, 2, 3]])  # 667, four deviations of 21 each way
    _, some = choose(torch.zeros(3, 4, dtype=torch.bool), uniform(5, KEYS[:3], 4))
    assert not some.any()


def test_who_may_stand_in_for_whom():
    present = torch.tensor([True, True, True, False, True])
    groups = torch.tensor([1, 1, 2, 3, 4])
    digests = torch.tensor([10, 11, 12, 13, 12])  # the last repeats the content of the third
    wanted = [
        [0, 0, 1, 0, 1],  # not itself, not its sibling, not the one that lacks it
        [0, 0, 1, 0, 1],
        [1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
    ]
    assert eligible_partners(present, groups, digests).int().tolist() == wanted


def test_partners_are_eligible_or_oneself():
    eligible = torch.rand(40, 40) < 0.2
    eligible[3] = False
    which, some = partners(eligible, KEYS[:40], 1)
    assert eligible[some, which[some]].all()
    assert not some[3]
    assert which[3] == 3


def test_a_partner_does_not_depend_on_who_else_is_there():
    """Deleting rows that are nobody's partner, or turning the order round, leaves every row its partner."""
    rows = 30
    keys, able = KEYS[:rows], torch.arange(rows) % 3 != 0
    eligible = able[:, None] & able[None] & ~torch.eye(rows, dtype=torch.bool)
    which, _ = partners(eligible, keys, 9)
    keep = able.nonzero()[:, 0]
    fewer, some = partners(eligible[keep][:, keep], keys[keep], 9)
    assert some.all()
    assert torch.equal(keys[keep][fewer], keys[which[keep]])
    turned, _ = partners(eligible.flip(0, 1), keys.flip(0), 9)
    assert torch.equal(keys.flip(0)[turned].flip(0), keys[which])


def test_partners_are_drawn_evenly_anew_and_not_in_couples():
    rows = 8
    eligible = ~torch.eye(rows, dtype=torch.bool)
    drawn = torch.stack([partners(eligible, KEYS[:rows], seed)[0] for seed in range(700)])
    counts = torch.stack([(drawn == c).sum(0) for c in range(rows)])
    assert counts.diagonal().eq(0).all()
    off = counts[eligible]
    assert int(off.min()) > 62  # 100 with a deviation of 9
    assert int(off.max()) < 138
    mutual = (drawn.gather(1, drawn) == torch.arange(rows)).float().mean()
    assert float(mutual) == pytest.approx(1 / 7, abs=0.03)


def test_matching_is_binary_cross_entropy_of_those_asked():
    logits = torch.tensor([0.0, 2.0, -1.0, 5.0, 1e4], requires_grad=True)
    same = torch.tensor([True, True, False, False, True])
    kind = torch.tensor([0, 2, 2, 0, 2])
    counted = torch.tensor([True, True, True, False, False])
    first, none, third = same_or_not(logits, same, kind, counted, [0, 1, 2])
    assert float(first.value.detach()) == pytest.approx(math.log(2))
    assert float(third.value.detach()) == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2)
    assert [int(t.count) for t in (first, none, third)] == [1, 0, 2]
    assert float(none.value.detach()) == 0
    (first.value + none.value + third.value).backward()
    assert logits.grad[3:].eq(0).all()
