"""A convolutional stem: what a small data set cannot teach a linear map of raw pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ConvStem"]


class ConvStem(nn.Module):
    """Pixels of a patch, or of a tube of several frames -> a token, by 3 x 3 convolutions of stride 2 down to 2 x 2.

    Args:
        patch: side P of a patch, pixels.
        frames: T of a tube; 1 for a picture.
        width: D.
        first: filters of the first convolution; each further one has twice as many.

    Each patch is convolved by itself, so hidden patches cost nothing and cannot leak into their neighbours.

    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better".
    Differences: within the patch, where theirs sees across patches; added to the linear map of ViT, which keeps colour;
        no normalisation over the batch, since rows can be absent.
    """

    def __init__(self, patch: int, frames: int, width: int, first: int = 24) -> None:
        super().__init__()
        self.shape = (frames, patch, patch, 3)
        layers: list[nn.Module] = []
        side, into, filters = patch, 3 * frames, first
        while side > 2:
            layers += [nn.Conv2d(into, filters, 3, stride=2, padding=1), nn.GroupNorm(1, filters), nn.GELU()]
            side, into, filters = (side + 1) // 2, filters, 2 * filters
        self.convolutions = nn.Sequential(*layers)
        self.last = nn.Linear(into * side * side, width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Standardised pixels (K, T * P * P * 3), frame, row, column, channel -> (K, D)."""
        frames = pixels.view(-1, *self.shape).permute(0, 1, 4, 2, 3).flatten(1, 2)
        picture = frames.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.last(self.convolutions(picture).flatten(1))
        return out
