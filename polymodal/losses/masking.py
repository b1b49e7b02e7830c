"""Masked prediction: the loss of hidden tokens, with the weights of their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from polymodal import presence
from polymodal.tensors import Term

__all__ = ["masked_prediction"]


def masked_prediction(
    prediction: Tensor,
    target: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    weight: Tensor | None = None,
    apply: Literal["logit", "loss"] = "loss",
) -> Term:
    """Mean distance over the hidden tokens of a batch.

    Args:
        prediction: (K, ...) of the hidden tokens only; no head runs on a position without a target.
        target: (K, ...).
        distance: (prediction, target) -> (K,).
        weight: (K,) of the row each token is in; None for 1.
        apply: "loss" multiplies the token's loss. "logit" multiplies the prediction, as the SCALE release does for
            every task: a confidence for cross-entropy, but for a regression it rescales the prediction, which the last
            linear layer can undo.

    Returns:
        Term over K tokens: 0 with zero gradient for K = 0 (cross-entropy over nothing would be NaN).

    Source: SCALE, arXiv 2109.04275, L_M; SCALE_code at 227ae08, losses of the five masked tasks.
    """
    prediction = prediction.float()
    if weight is not None and apply == "logit":
        prediction = prediction * weight.float().view(-1, *[1] * (prediction.ndim - 1))
    loss = distance(prediction, target)
    if weight is not None and apply == "loss":
        loss = loss * weight.float()
    return presence.masked_mean(loss, torch.ones_like(loss, dtype=torch.bool))
