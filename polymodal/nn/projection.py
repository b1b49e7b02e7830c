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

    def forward(self, pooled: Embedded) -> Embedded:
        """(B, D) -> (B, E) float32, zero rows where not present."""
        return self._unit(self._raw(pooled), pooled.present)

    def correct(self, pooled: Embedded, mean: Embedded, rows: Tensor) -> Embedded:
        """`mean` (B, E), with the projection added in `rows` (B,) bool, of unit length: late fusion, corrected."""
        return self._unit(mean.z + rows[:, None] * self._raw(pooled), pooled.present)

    def _raw(self, pooled: Embedded) -> Tensor:
        out: Tensor = self.linear(self.norm(pooled.z)).float()
        return out

    def _unit(self, x: Tensor, present: Tensor) -> Embedded:
        z = F.normalize(F.relu(x) if self.relu else x, dim=-1, eps=1e-6)
        return Embedded(z * present[:, None], present)
