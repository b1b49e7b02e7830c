from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polymodal.losses.masking import masked_prediction


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean(1)


def entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(prediction, target[:, 0], reduction="none")


def test_mean_over_the_hidden():
    prediction, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])
    term = masked_prediction(prediction, target, squared)
    assert (float(term.value), int(term.count)) == (5.0, 2)
    weight = torch.tensor([2.0, 0.0])
    assert float(masked_prediction(prediction, target, squared, weight).value) == 1.0
    assert float(masked_prediction(prediction, target, squared, weight, "logit").value) == 2.0


def test_logit_weights_are_confidence():
    prediction, target = torch.tensor([[2.0, 0.0]]), torch.tensor([[0]])
    sure = masked_prediction(prediction, target, entropy, torch.tensor([1.0]), "logit").value
    unsure = masked_prediction(prediction, target, entropy, torch.tensor([0.1]), "logit").value
    assert unsure > sure
    assert float(masked_prediction(prediction, target, entropy, torch.tensor([0.0]), "logit").value) == pytest.approx(
        0.6931472
    )


@pytest.mark.parametrize("distance", [squared, entropy])
@pytest.mark.parametrize("apply", ["loss", "logit"])
def test_nothing_hidden_is_zero_with_zero_gradient(distance, apply):
    head = torch.nn.Linear(4, 3)
    target = torch.zeros(0, 3 if distance is squared else 1, dtype=torch.float if distance is squared else torch.long)
    term = masked_prediction(head(torch.zeros(0, 4)), target, distance, torch.zeros(0), apply)
    term.value.backward()
    assert (float(term.value.detach()), int(term.count)) == (0.0, 0)
    assert head.weight.grad.eq(0).all()


def test_half_precision_predictions_are_compared_in_full():
    term = masked_prediction(torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3), squared)
    assert term.value.dtype == torch.float32
