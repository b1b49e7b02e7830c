from __future__ import annotations

import pytest
import torch

from polymodal.losses.reconstruction import per_row, reconstruction


def squared(prediction, target):
    return (prediction - target).square().mean(1)


PREDICTION = torch.tensor([[1.0], [3.0], [2.0]])
ROWS = torch.tensor([0, 0, 2])


def test_rows_weigh_alike_however_much_they_hide():
    term = reconstruction(PREDICTION, torch.zeros(3, 1), squared, ROWS, 4)
    assert (float(term.value), int(term.count)) == ((5 + 4) / 2, 2)


def test_dividing_by_the_batch_counts_rows_without_a_target():
    term = reconstruction(PREDICTION, torch.zeros(3, 1), squared, ROWS, 4, "batch")
    assert (float(term.value), int(term.count)) == ((5 + 4) / 4, 4)


def test_means_of_rows():
    values, there = per_row(torch.tensor([1.0, 3.0, 2.0]), ROWS, 4)
    assert values.tolist() == [2.0, 0.0, 2.0, 0.0]
    assert there.tolist() == [True, False, True, False]


def test_nothing_to_predict_is_zero_with_zero_gradient():
    weight = torch.ones(1, 1, requires_grad=True)
    term = reconstruction(torch.zeros(0, 1) @ weight, torch.zeros(0, 1), squared, torch.zeros(0, dtype=torch.long), 3)
    term.value.backward()
    assert (float(term.value.detach()), int(term.count), float(weight.grad)) == (0.0, 0, 0.0)


def test_half_precision_is_summed_in_full():
    term = reconstruction(PREDICTION.bfloat16(), torch.zeros(3, 1), squared, ROWS, 4)
    assert term.value.dtype == torch.float32
    assert float(term.value) == pytest.approx(4.5)
