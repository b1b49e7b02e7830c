"""The head that says whether two cells belong to one item."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MatchHead"]


class MatchHead(nn.Module):
    """A pooler for each modality and one classifier for every pair of them.

    ::

        p_m = ReLU(W_m h_m + b_m),    s_ij = W (p_i * p_j) + b,    the first of two logits says "match"

    Args:
        names: of the modalities.
        width: D.
        hidden: width of the poolers; 1,024 in the paper.

    Source: InterBERT, arXiv 2003.13198; black4321/InterBERT at 7ccabb1, `BertPreTrainingHeads`, `fusion_method="mul"`.
    Differences: any pair of modalities, by one classifier; with two modalities it is the original. No dropout on the
        product.
    """

    def __init__(self, names: Collection[str], width: int, hidden: int) -> None:
        super().__init__()
        self.poolers = nn.ModuleDict({name: nn.Linear(width, hidden) for name in names})
        self.classifier = nn.Linear(hidden, 2)

    def pool(self, name: str, state: Tensor) -> Tensor:
        """What a modality is compared by: (B, D) -> (B, hidden), not negative."""
        return F.relu(cast(Tensor, self.poolers[name](state)))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two pooled sides (B, hidden) -> logits (B, 2)."""
        return cast(Tensor, self.classifier(one * other))
