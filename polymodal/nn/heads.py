"""Heads: what an objective puts on top of the model and throws away after training."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.tensors import Embedded

__all__ = ["ProjectionHead", "TiedHead", "predict"]


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
