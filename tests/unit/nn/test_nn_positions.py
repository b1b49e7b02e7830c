from __future__ import annotations

import pytest
import torch

from polymodal.nn.positions import sincos


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("width", [6, 8, 12, 50])
def test_places_differ_and_what_is_left_over_is_zero(axes, width):
    places = torch.cartesian_prod(*[torch.arange(3)] * axes).reshape(-1, axes)
    code = sincos(places, width)
    used = 2 * axes * (width // (2 * axes))
    assert code.shape == (3**axes, width)
    assert code.dtype == torch.float32
    assert not code[:, used:].any()
    assert torch.allclose(code.square().sum(1), torch.tensor(used / 2), atol=1e-5)
    assert len(torch.unique(code, dim=0)) == 3**axes


def test_three_axes_are_in_the_order_given():
    code = sincos(torch.tensor([[5, 0, 0], [0, 5, 0], [0, 0, 5]]), 12)
    still = torch.tensor([0, 0, 1, 1.0])
    for row in range(3):
        for third in range(3):
            assert torch.equal(code[row, 4 * third : 4 * third + 4], still) == (row != third)


def test_no_place_is_no_error():
    assert sincos(torch.zeros(0, 2, dtype=torch.long), 8).shape == (0, 8)
