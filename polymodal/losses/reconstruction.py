"""Reconstruction: what was hidden of a row, averaged over the row first and over rows after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from polymodal import presence
from polymodal.tensors import Term

__all__ = ["per_row", "reconstruction"]


def reconstruction(
    prediction: Tensor,
    target: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    batch: int,
    divide: Literal["rows", "batch"] = "rows",
) -> Term:
    """Mean over rows of the mean distance of a row's tokens.

    ::

        l_b = sum_i m_bi d(o_bi, t_bi) / sum_i m_bi        L = mean of l_b over the rows b with a target

    Args:
        prediction: (K, ...) of the tokens with a target only.
        target: (K, ...).
        distance: (prediction, target) -> (K,).
        rows: (K,) int64, the row of each token.
        batch: B.
        divide: "rows" counts the rows that have a target; "batch" divides by all B, as the release does for text: with
            a share q of captioned rows its text term is q times what it would be.

    Returns:
        Term over rows.

    Source: M3AE, arXiv 2205.14204; m3ae_public at a5eb14f: the patch loss and the masked cross-entropy.
    Differences: a row without a target does not count (`divide="batch"` brings it back).
    """
    each, counted = per_row(distance(prediction.float(), target), rows, batch)
    if divide == "batch":
        return Term(each.sum() / max(batch, 1), torch.full_like(counted.sum(), batch))
    return presence.masked_mean(each, counted)


def per_row(values: Tensor, rows: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Mean of each row's values: (K,) and (K,) int64 -> (B,), 0 for a row without any, and (B,) bool, whether it has.

    Source: none; a segment mean.
    """
    count = values.new_zeros(batch).index_add(0, rows, torch.ones_like(values))
    total = values.new_zeros(batch).index_add(0, rows, values)
    return total / count.clamp(min=1), count > 0
