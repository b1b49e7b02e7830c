"""Groups of tokens that are hidden as one, beyond what `presence.hide` draws token by token."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["own_row", "span"]


def own_row(valid: Tensor, draws: Tensor) -> Tensor:
    """For each packed token the packed place of a random token of its row: (B, N) bool, (K,) draws -> (K,) int64.

    Source: ours; BERT (Devlin et al. 2019, section 3.1) takes a random word of the vocabulary.
    """
    lengths = valid.sum(1)
    starts = (lengths.cumsum(0) - lengths)[:, None].expand_as(valid)[valid]
    own = lengths[:, None].expand_as(valid)[valid]
    return starts + torch.minimum((draws * own).long(), own - 1)


def span(valid: Tensor, draws: Tensor, share: float = 0.3) -> Tensor:
    """One run of tokens in each row, hidden as a whole: (B, N) bool.

    ::

        start ~ U{0 .. n},    length ~ U{1 .. n},    hidden = {start .. min(start + length, n) - 1}

    A start of n hides nothing, and so does a row with floor(share * n) = 0.

    Args:
        valid: (B, N) bool, the n tokens of each row that may be hidden, in order.
        draws: (B, 2) uniform in [0, 1).
        share: only says which rows are too short.

    Source: black4321/InterBERT at 7ccabb1, `--span_mask`; its 30 per cent are overwritten before they are used.
    Differences: none. The paper describes segments at anchors instead: `presence.hide` with `reach`.
    """
    count = valid.sum(1)
    start = (draws[:, 0] * (count + 1)).long()
    length = 1 + (draws[:, 1] * count).long()
    place = valid.long().cumsum(1) - 1
    inside = (place >= start[:, None]) & (place < (start + length)[:, None])
    return valid & inside & (count * share >= 1)[:, None]
