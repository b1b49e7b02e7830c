"""Heads: what an objective puts on top of the model and throws away after training."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal import presence
from polymodal.tensors import Embedded, World

__all__ = ["HeadNorm", "PresentBatchNorm", "ProjectionHead", "TiedHead", "predict"]

HeadNorm = Literal["batch", "layer"]


class PresentBatchNorm(nn.Module):
    """Batch normalisation by the mean and variance of the rows that are present, of all processes.

    Rows that are absent change nothing: leaving them out of the batch gives the same. A single present row has no
    variance and becomes the offset.

    Source: Ioffe, Szegedy 2015 (arXiv 1502.03167); over processes as in SimCLR, so that a head cannot tell the rows of
        one process by their statistics.
    Differences from torch.nn.BatchNorm1d: absence; float32 whatever comes in.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor, present: Tensor, world: World) -> Tensor:
        """(B, D), (B,) -> (B, D) float32; what stands in absent rows must not be used.

        Evaluated by the running mean and variance of the training."""
        x = x.float()
        if self.training:
            mean, variance, count = presence.moments(x, present, world)
            self._remember(mean.detach(), variance.detach(), count)
        else:
            mean, variance = self.mean, self.variance
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        # where a batch has one row or none, there is no variance to remember
        rate = self.momentum * (count > 1)
        self.mean.lerp_(mean, rate)
        self.variance.lerp_(variance * count / (count - 1).clamp(min=1), rate)


class ProjectionHead(nn.Module):
    """Three linear layers with BatchNorm (or LayerNorm) and ReLU between them, unit length.

    Args:
        norm: "batch", as published: it spreads the rows of a batch, and methods that contrast them learn several times
            as fast (`docs/results.md`, Trifeature); "layer" for batches of a few rows.

    Source: the heads of SimCLR v2 (Chen et al. 2020, arXiv 2006.10029) and CoMM.
    Differences: statistics over present rows.
    """

    def __init__(self, width: int, hidden: int, out: int, norm: HeadNorm = "batch") -> None:
        super().__init__()
        kind = PresentBatchNorm if norm == "batch" else nn.LayerNorm
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            kind(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            kind(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out),
        )

    def forward(self, embedded: Embedded, world: World) -> Embedded:
        """(B, E) -> (B, out) float32, zero rows where not present."""
        x = embedded.z
        for layer in self.layers:
            x = layer(x, embedded.present, world) if isinstance(layer, PresentBatchNorm) else layer(x)
        z = F.normalize(x.float(), dim=-1, eps=1e-6)
        return Embedded(z.masked_fill(~embedded.present[:, None], 0.0), embedded.present)


class TiedHead(nn.Module):
    """A symbol head whose last matrix is the model's table of symbols: the parameters here are the rest of it.

    Source: Devlin et al. 2019 (BERT), the masked language model; Press and Wolf 2017 (arXiv 1608.05859) for the tie.
    """

    def __init__(self, head: nn.Sequential) -> None:
        super().__init__()
        self.transform, self.bias = head[:-1], nn.Parameter(cast(nn.Linear, head[-1]).bias.detach().clone())

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """(K, D) and (V, D) -> (K, V)."""
        return F.linear(self.transform(x), table, self.bias)


def predict(head: nn.Module, x: Tensor, table: Tensor | None) -> Tensor:
    """What a head says of hidden tokens (K, D), with the table where it is tied to one."""
    return cast(Tensor, head(x, table) if isinstance(head, TiedHead) else head(x))
