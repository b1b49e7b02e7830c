"""Fixed sine and cosine codes of places on a line, a picture or a clip: functions of the place, nothing to learn."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sincos"]


def sincos(coordinates: Tensor, width: int) -> Tensor:
    """The code of each place.

    ::

        one axis, width d:  w_k = 10000 ** (-k / (d / 2)),  k = 0 ... d/2 - 1;   [sin(p w) | cos(p w)]

    Several axes stand side by side, each with an equal share of the width: of (row, column) the **column first**, as in
    MAE; of (time, row, column) in that order. What the width has beyond an even share for every axis stays zero.

    Args:
        coordinates: (K, n) of n = 1, 2 or 3 axes.
        width: D.

    Returns:
        (K, D) float32; the sum of squares of a row is half the width that is used.

    Source: Vaswani et al. 2017, section 3.5; the halves instead of alternating sines and cosines, and the order of the
        axes, as in MAE and M3AE (arXiv 2205.14204; m3ae_public at a5eb14f).
    Differences: three axes, which neither has; computed in float64 (the release's float32 is off by up to 5e-6).
    """
    axes = coordinates.shape[1]
    ordered = coordinates.flip(1) if axes == 2 else coordinates
    half = width // (2 * axes)
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=coordinates.device) / max(half, 1))
    angle = ordered.double()[:, :, None] * rates
    code = torch.cat([angle.sin(), angle.cos()], 2).flatten(1).float()
    return torch.nn.functional.pad(code, (0, width - code.shape[1]))
