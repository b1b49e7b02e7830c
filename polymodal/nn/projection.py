"""From a pooled token to the vector that is exported."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.tensors import Embedded

__all__ = ["Projection"]


class Projection(nn.Module):
    """LayerNorm, Linear D -> E, unit length: the vector that is exported."""

    def __init__(self, width: int, embedding: int, relu: bool) -> None:
        super().__init__()
        self.norm, self.linear, self.relu = nn.LayerNorm(width), nn.Linear(width, embedding), relu

    def forward(self, pooled: Embedded, extra: Tensor | None = None) -> Embedded:
        """(B, D) -> (B, E) float32, zero rows where not present; `extra` (B, E) is added before the unit norm."""
        x = self.linear(self.norm(pooled.z)).float()
        x = x if extra is None else x + extra
        z = F.normalize(F.relu(x) if self.relu else x, dim=-1, eps=1e-6)
        return Embedded(z * pooled.present[:, None], pooled.present)
