"""What a hidden token looks like to the model that is to predict it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from polymodal.config import Config

__all__ = ["Corruption"]


class Corruption(Config):
    """What happens to a hidden token: replaced by another token of its row, kept, or (the rest) by the mask.

    Args:
        random: share that become another token of the row, whether that one is hidden or not.
        keep: share that stay as they are.
        vector: the mask: the objective's learned vector, or zeros.

    Source: Devlin et al. 2019 (BERT), 80 / 10 / 10.
    Differences: another token of the row where BERT takes any word, since pictures and sounds have no vocabulary.
    """

    random: float = Field(0.1, ge=0, le=1)
    keep: float = Field(0.1, ge=0, le=1)
    vector: Literal["learned", "zero"] = "learned"

    @model_validator(mode="after")
    def _sums(self) -> Corruption:
        if self.random + self.keep > 1:
            raise ValueError("random + keep must be at most 1")
        return self

    def apply(
        self, content: Tensor, valid: Tensor, hidden: Tensor, mask: Tensor, fate: Tensor, donor: Tensor
    ) -> Tensor:
        """The content with the hidden tokens replaced.

        Args:
            content: (K, D) of the valid tokens of all rows, packed.
            valid, hidden: (B, N) bool.
            mask: (D,) the learned vector.
            fate, donor: (B, N) uniform in [0, 1): what becomes of a token, and which token of its row it may become.

        Returns:
            (K, D).
        """
        what, lengths = fate[valid], valid.sum(1)
        starts, own = (x[:, None].expand_as(valid)[valid] for x in (lengths.cumsum(0) - lengths, lengths))
        other = content.index_select(0, starts + (donor[valid] * own).long().clamp(max=own - 1))
        vector = mask if self.vector == "learned" else torch.zeros_like(mask)
        chosen = hidden[valid]
        masked = torch.where((chosen & (what >= self.random + self.keep))[:, None], vector.to(content.dtype), content)
        return torch.where((chosen & (what < self.random))[:, None], other, masked)
