"""What the golden numbers (tests/parity) do not say: absence, gradients, bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polymodal.losses.harmonise import agreement, harmonise, mean_one, similarity

CASES = st.tuples(st.integers(0, 2**31), st.floats(0, 1))


def world(case: tuple[int, float], rows: int = 5, modalities: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(case[0])
    z = torch.randn(modalities, rows, 6, generator=generator)
    return z, torch.rand(modalities, rows, generator=generator) < case[1]


@given(CASES)
def test_similarity_reads_the_present_only(case):
    z, present = world(case)
    s = similarity(torch.where(present[..., None], z, torch.nan), present)
    pairs = present.T[:, :, None] & present.T[:, None, :]
    assert s[~pairs].eq(0).all()
    assert torch.equal(s, s.transpose(1, 2))
    assert (s.diagonal(dim1=1, dim2=2)[present.T] - 1).abs().max() < 1e-5 if present.any() else True
    assert s.abs().max() < 1 + 1e-5


@pytest.mark.parametrize("form", ["none", "paper", "code", "free"])
@pytest.mark.parametrize("floor", [None, 0.1])
@given(CASES)
def test_weights_are_finite_forward_and_backward(form, floor, case):
    z, present = world(case)
    present[:, 0] = False  # a row with nothing
    present[0] = False  # a modality that no row has
    leaf = z.clone().requires_grad_()
    w = harmonise(similarity(leaf, present), present.T, form, floor)
    pairs = present.T[:, :, None] & present.T[:, None, :]
    assert w.isfinite().all()
    assert w[~pairs].eq(0).all()
    if floor is not None and pairs.any():
        assert w[pairs].min() >= floor - 1e-7
    if w.requires_grad:
        w.sum().backward()
        assert leaf.grad.isfinite().all()
        assert leaf.grad[~present].eq(0).all()


@given(CASES)
def test_counting_the_absent_changes_the_weights_of_the_present(case):
    z, present = world((case[0], 1.0))
    s = similarity(z, present)
    present[0] = False
    aware = harmonise(s, present.T, "paper")
    release = harmonise(s, None, "paper")
    assert (aware[:, 1:, 1:] >= release[:, 1:, 1:] - 1e-7).logical_or(s[:, 1:, 1:] < 0).all()
    assert not torch.allclose(aware[:, 1:, 1:], release[:, 1:, 1:])


def test_the_softmax_is_over_the_others_of_a_row():
    s = torch.tensor([[[1.0, 0.9, 0.1], [0.9, 1.0, 0.5], [0.1, 0.5, 1.0]]])
    w = harmonise(s, None, "paper")
    assert torch.allclose((w / s).sum(2), torch.ones(1, 3), atol=1e-6)
    assert not torch.allclose((w / s).sum(1), torch.ones(1, 3), atol=1e-3)
    assert torch.allclose(harmonise(s, None, "code").square().sum(2), torch.ones(1, 3), atol=1e-6)


@given(CASES)
def test_agreement_has_mean_one_over_the_present(case):
    z, present = world(case)
    level = agreement(harmonise(similarity(z, present), present.T, "code", 0.1), present.T)
    assert level[~present.T].eq(0).all()
    for row in range(len(level)):
        here = level[row][present.T[row]]
        assert (here >= 0).all()
        if len(here):
            assert float(here.mean()) == pytest.approx(1.0, abs=1e-4)


@given(CASES)
def test_mean_one_keeps_proportions(case):
    z, present = world(case)
    w = harmonise(similarity(z, present), present.T, "paper", 0.05)
    even = mean_one(w, present.T)
    assert torch.equal(even.diagonal(dim1=1, dim2=2), w.diagonal(dim1=1, dim2=2))
    for row in range(len(w)):
        upper = (present[:, row, None] & present[:, row]).triu(1)
        if upper.any():
            assert float(even[row][upper].mean()) == pytest.approx(1.0, abs=1e-5)
            ratio = even[row][upper] / w[row][upper]
            assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)


def test_mean_one_of_weights_that_cancel_is_left_alone():
    w = torch.zeros(2, 3, 3)
    w[1, 0, 1], w[1, 0, 2] = 0.5, -0.5
    assert torch.equal(mean_one(w, torch.ones(2, 3, dtype=torch.bool)), w)


def test_agreement_is_the_mean_of_the_others():
    w = torch.tensor([[[0.5, 0.2, 0.4], [0.2, 0.9, 0.1], [0.4, 0.1, 0.3]]])
    level = agreement(w, torch.ones(1, 3, dtype=torch.bool))
    assert level[0].tolist() == pytest.approx([0.3 / 0.7 * 3, 0.15 / 0.7 * 3, 0.25 / 0.7 * 3])
    level = agreement(w, torch.tensor([[True, True, False]]))
    assert level[0].tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_agreement_favours_who_agrees():
    s = torch.tensor([[[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]]])
    present = torch.ones(1, 3, dtype=torch.bool)
    level = agreement(harmonise(s, present), present)[0]
    literal = harmonise(s, present).diagonal(dim1=1, dim2=2)[0]
    assert level[0] > level[2]
    assert literal[0] < literal[2]
    one = torch.tensor([[False, True, False]])
    assert agreement(harmonise(s, one), one).tolist() == [[0.0, 1.0, 0.0]]
