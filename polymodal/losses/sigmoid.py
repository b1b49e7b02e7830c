"""The sigmoid loss: each pair of rows is one binary question, so every pair can have a weight of its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from polymodal.losses._exact import products
from polymodal.tensors import Term

__all__ = ["sigmoid_pairs"]


def sigmoid_pairs(
    anchors: Tensor,
    present: Tensor,
    candidates: Tensor,
    candidates_present: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    offset: int = 0,
    ignore: Tensor | None = None,
    normalise: Literal["present", "batch"] = "present",
    chunk: int = 0,
) -> Term:
    """Binary cross-entropy of "is this the same row" over all pairs of an anchor and a candidate that both exist.

    ::

        L = 1/n sum_a sum_b  w_ab softplus(-l_ab (t x_a . y_b + beta)),    l_ab = 1 for the same row, else -1

    w_ab is 1 where row a has the one side and row b the other and the pair is not ignored. A row that lacks a side has
    no part in any pair: also a row that has the other side is a candidate only if it has both.

    Args:
        anchors, present: (B, E) and (B,) of this process; `present` where the row has both sides.
        candidates, candidates_present: (G, E) and (G,) of all processes, likewise; row b is candidate `offset + b`.
        scale, bias: t and beta.
        ignore: (B, G) bool, pairs with weight 0 (same group, identical content); never the row itself.
        normalise: "present": n is the anchors that count; "batch": all B rows of the batch, as published, which makes
            a rare modality weigh less.
        chunk: anchors at a time, computed again in the backward pass: O(chunk G) memory instead of O(B G); 0 for all
            at once.

    Returns:
        Term; its count is n.

    Source: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343), algorithm 1;
        google-research/big_vision, `siglip`.
    Differences: weights by presence and for false negatives; chunks within a process instead of over devices.
    """
    a = anchors.masked_fill(~present[:, None], 0.0).float()
    c = candidates.masked_fill(~candidates_present[:, None], 0.0).float()
    place = torch.arange(len(a), device=a.device) + offset
    parts = [slice(begin, begin + chunk) for begin in range(0, len(a), chunk)] if chunk else [slice(None)]
    sums = []
    for rows in parts:
        positive = torch.arange(len(c), device=a.device) == place[rows, None]
        weight = present[rows, None] & candidates_present[None]
        if ignore is not None:
            weight = weight & (positive | ~ignore[rows])
        if chunk:
            sums.append(checkpoint(_block, a[rows], c, scale, bias, positive, weight, use_reentrant=False))
        else:
            sums.append(_block(a[rows], c, scale, bias, positive, weight))
    count = present.sum() if normalise == "present" else torch.tensor(len(a), device=a.device)
    return Term(torch.stack(sums).sum() / count.clamp(min=1), count)


def _block(a: Tensor, c: Tensor, scale: Tensor, bias: Tensor, positive: Tensor, weight: Tensor) -> Tensor:
    logits = products("be,ge->bg", a, c) * scale.float() + bias.float()
    return F.softplus(torch.where(positive, -logits, logits)).masked_fill(~weight, 0.0).sum()
