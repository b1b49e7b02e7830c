"""Projection heads: what an objective puts on top of exported vectors and throws away after training."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from polymodal.tensors import Embedded

__all__ = ["ProjectionHead"]


class ProjectionHead(nn.Module):
    """Three linear layers with LayerNorm and ReLU between them, unit length.

    Source: the heads of SimCLR v2 (Chen et al. 2020, arXiv 2006.10029) and CoMM.
    Differences: LayerNorm instead of BatchNorm: the statistics of a batch would depend on which rows lack what.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out),
        )

    def forward(self, embedded: Embedded) -> Embedded:
        """(B, E) -> (B, out) float32, zero rows where not present."""
        z = F.normalize(self.layers(embedded.z).float(), dim=-1, eps=1e-6)
        return Embedded(z.masked_fill(~embedded.present[:, None], 0.0), embedded.present)
