"""Heads of objectives: batch normalisation over present rows, and the unit vectors that come out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymodal.nn.heads import PresentBatchNorm, ProjectionHead
from polymodal.objective import Alone
from polymodal.tensors import Embedded

PRESENT = torch.tensor([True, False, True, True, False, True])
ALONE = Alone()


def rows(seed=0, width=4, count=6):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def plain(norm):
    """torch's layer with the same weights."""
    made = nn.BatchNorm1d(len(norm.weight), eps=norm.eps, momentum=norm.momentum)
    made.load_state_dict(
        {
            "weight": norm.weight,
            "bias": norm.bias,
            "running_mean": norm.mean,
            "running_var": norm.variance,
            "num_batches_tracked": torch.tensor(0),
        }
    )
    return made


def unlike_one(norm):
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    return norm


def test_batch_norm_is_torchs_on_the_rows_that_are_there():
    torch.manual_seed(0)
    norm = unlike_one(PresentBatchNorm(4))
    reference = plain(norm)
    for step in range(3):
        x, y = rows(step).requires_grad_(), rows(step)[PRESENT].requires_grad_()
        ours, theirs = norm(x, PRESENT, ALONE)[PRESENT], reference(y)
        assert torch.allclose(ours, theirs, atol=1e-5)
        weight = torch.arange(ours.numel()).view_as(ours).float().cos()
        (ours * weight).sum().backward()
        (theirs * weight).sum().backward()
        assert torch.allclose(x.grad[PRESENT], y.grad, atol=1e-5)
        assert not x.grad[~PRESENT].any()
    assert torch.allclose(norm.mean, reference.running_mean, atol=1e-6)
    assert torch.allclose(norm.variance, reference.running_var, atol=1e-5)
    assert torch.allclose(norm.eval()(rows(9), PRESENT, ALONE), reference.eval()(rows(9)), atol=1e-5)


def test_batch_norm_never_reads_absent_rows():
    norm, again = PresentBatchNorm(4), PresentBatchNorm(4)
    x = rows()
    dirty = torch.where(PRESENT[:, None], x, torch.nan)
    ours, theirs = norm(x, PRESENT, ALONE)[PRESENT], again(dirty, PRESENT, ALONE)[PRESENT]
    assert torch.equal(ours, theirs)
    assert torch.equal(norm.variance, again.variance)


@pytest.mark.parametrize("count", [0, 1])
def test_batch_norm_of_one_row_or_none_says_nothing_and_remembers_nothing(count):
    norm = unlike_one(PresentBatchNorm(4))
    x, present = rows().requires_grad_(), torch.arange(6) < count
    out = norm(x, present, ALONE)[present]
    assert torch.equal(out, norm.bias.expand(count, 4))
    out.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad.any()
    assert torch.equal(norm.mean, torch.zeros(4))
    assert torch.equal(norm.variance, torch.ones(4))


def test_a_small_variance_keeps_its_digits():
    x = 1000 + rows() / 1000
    out = PresentBatchNorm(4, eps=1e-12)(x, PRESENT, ALONE)[PRESENT]
    exact = x.double()[PRESENT]
    exact = (exact - exact.mean(0)) / exact.std(0, correction=0)
    assert torch.allclose(out.double(), exact, atol=0.05)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_head_gives_unit_vectors_of_the_rows_that_are_there(norm, kind):
    head = ProjectionHead(4, 8, 5, norm)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
        out = head(Embedded(rows().to(kind), PRESENT), ALONE)
    assert out.z.dtype is torch.float32
    assert torch.equal(out.present, PRESENT)
    assert torch.allclose(out.z.norm(dim=1), PRESENT.float(), atol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_leaving_absent_rows_out_changes_nothing(norm):
    head = ProjectionHead(4, 8, 5, norm)
    whole = head(Embedded(rows(), PRESENT), ALONE).z[PRESENT]
    few = head(Embedded(rows()[PRESENT], torch.ones(4, dtype=torch.bool)), ALONE).z
    assert torch.allclose(whole, few, atol=1e-5)


def test_only_batch_normalisation_lets_rows_know_of_one_another():
    for norm, alike in (("batch", False), ("layer", True)):
        head = ProjectionHead(4, 8, 5, norm)
        everyone = torch.ones(6, dtype=torch.bool)
        whole = head(Embedded(rows(), everyone), ALONE).z[:3]
        few = head(Embedded(rows()[:3], everyone[:3]), ALONE).z
        assert torch.allclose(whole, few, atol=1e-5) is alike
