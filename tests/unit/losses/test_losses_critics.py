"""Critics: the same numbers and gradients however they are computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymodal.losses.critics import ConcatCritic, CriticConfig, DotCritic, held, mlp


def concat(**how):
    torch.manual_seed(0)
    return ConcatCritic(5, 7, hidden=16, layers=2, **how)


def vectors(rows=9, others=11):
    generator = torch.Generator().manual_seed(1)
    return torch.randn((others, 5), generator=generator), torch.randn((rows, 7), generator=generator)


def with_gradients(critic, fixed=False):
    a, b = (v.requires_grad_() for v in vectors())
    scores = held(critic, a, b) if fixed else critic(a, b)
    (scores * torch.arange(99.0).view(9, 11).cos()).sum().backward()
    return scores.detach(), a.grad, b.grad, [p.grad for p in critic.parameters()]


@pytest.mark.parametrize("limit", [None, 0.3])
@pytest.mark.parametrize("how", [{"rows": 0}, {"rows": 4}, {"rows": 100}, {"rows": 4, "split": False}], ids=str)
def test_split_chunked_and_plain_concatenation_are_one(how, limit):
    plain = with_gradients(concat(rows=0, split=False, limit=limit))
    other = with_gradients(concat(**how, limit=limit))
    for one, two in zip(plain[:3], other[:3], strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    for one, two in zip(plain[3], other[3], strict=True):
        assert torch.allclose(one, two, atol=1e-4)
        assert one.abs().sum() > 0


def test_the_loop_over_pairs():
    critic = concat()
    a, b = vectors()
    scores = critic(a, b)
    assert scores.shape == (9, 11)
    for i in range(9):
        for j in range(11):
            assert float(scores[i, j]) == pytest.approx(float(critic.net(torch.cat([a[j], b[i]]))), abs=1e-5)
    dot = DotCritic(5, 7, hidden=16, layers=1, width=6)
    scores = dot(a, b)
    for i in range(9):
        for j in range(11):
            assert float(scores[i, j]) == pytest.approx(float(dot.left(a[j]) @ dot.right(b[i])) / 6**0.5, abs=1e-5)


@pytest.mark.parametrize("critic", [concat(), concat(rows=0), DotCritic(5, 7, 16, 1, 6)], ids=["chunks", "once", "dot"])
def test_a_held_critic_passes_gradient_on_and_takes_none(critic):
    critic.zero_grad()
    free, (scores, a, b, kept) = with_gradients(critic), with_gradients_after_clearing(critic)
    assert torch.equal(scores, free[0])
    assert torch.allclose(a, free[1])
    assert torch.allclose(b, free[2])
    assert kept == [None] * len(kept)


def with_gradients_after_clearing(critic):
    critic.zero_grad(set_to_none=True)
    return with_gradients(critic, fixed=True)


def test_scores_stay_within_their_limit_and_keep_their_order():
    free, tight = concat(limit=None), concat(limit=0.05)
    a, b = vectors()
    one, other = free(a, b), tight(a, b)
    assert other.abs().max() < 0.05 < one.abs().max()
    assert torch.allclose(other, 0.05 * torch.tanh(one / 0.05))


def test_autocast_leaves_scores_exact():
    a, b = vectors()
    for critic in (concat(), DotCritic(5, 7, 16, 1, 6)):
        with torch.autocast("cpu", torch.bfloat16):
            near = critic(a, b)
        assert near.dtype == torch.float32
        assert torch.equal(near, critic(a, b))


def test_the_config_builds_what_it_says():
    dot = CriticConfig(hidden=12, layers=3, width=4, limit=2.0).build(5, 7)
    assert isinstance(dot, DotCritic)
    assert [m.out_features for m in dot.left if isinstance(m, nn.Linear)] == [12, 12, 12, 4]
    assert dot.limit == 2.0
    whole = CriticConfig(kind="concat", hidden=12, layers=2, rows=3).build(5, 7)
    assert isinstance(whole, ConcatCritic)
    assert whole.rows == 3
    assert [(m.in_features, m.out_features) for m in whole.net if isinstance(m, nn.Linear)] == [
        (12, 12),
        (12, 12),
        (12, 1),
    ]
    assert len(mlp([3, 4])) == 1
