"""Supervised contrast: every candidate of the anchor's class is a positive."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from polymodal import presence
from polymodal.losses._exact import products
from polymodal.tensors import Term

__all__ = ["supervised_contrast"]


def supervised_contrast(
    anchors: Tensor,
    present: Tensor,
    classes: Tensor,
    scale: Tensor | float,
    *,
    candidates: Tensor | None = None,
    candidates_present: Tensor | None = None,
    candidates_classes: Tensor | None = None,
    offset: int = 0,
    candidates_from: Literal["both", "cross"] = "both",
) -> dict[tuple[int, int], Term]:
    """Contrast of every pair of modalities with as many positives as the class has.

    For a pair (i, j) and an anchor of row b in one of the two, with A its candidates (the rows that have both, in both
    modalities, without the anchor itself) and P those of its class, its own row in the other modality among them::

        l_b = -1/|P| sum_{p in P} log( exp(s_p k) / sum_{a in A} exp(s_a k) )

    Args:
        anchors: (M, B, E) unit vectors. present: (M, B) bool. classes: (B,) int64; equal means positive. A row of
            unknown class needs a number of its own.
        scale: logit scale k.
        candidates, candidates_present, candidates_classes: (M, G, E), (M, G), (G,) of all processes; row b of this
            process is candidate `offset + b`. By default the anchors themselves.
        candidates_from: "both" modalities, or "cross": the other one only.

    Returns:
        (i, j) -> Term for i < j; its count is the number of anchors, 2 x the rows that have both.

    Source: Khosla et al. 2020 (arXiv 2004.11362), equation 2 (L_out).
    Differences: the two views are two modalities; presence. Every row a class of its own gives `pairwise_contrast`.
    """
    if candidates is None or candidates_present is None or candidates_classes is None:
        candidates, candidates_present, candidates_classes = anchors, present, classes
    a = anchors.masked_fill(~present[..., None], 0.0).float()
    c = candidates.masked_fill(~candidates_present[..., None], 0.0).float()
    gram = products("mbe,nge->mnbg", a, c) * scale
    both = (candidates_present[:, None] & candidates_present[None])[:, :, None, :]
    itself = torch.arange(c.shape[1], device=a.device) == torch.arange(a.shape[1], device=a.device)[:, None] + offset
    same = (classes[:, None] == candidates_classes[None]) | itself
    blocks = [(gram, (both | itself).expand_as(gram), ((both & same) | itself).expand_as(gram))]
    if candidates_from == "both":
        own = gram.diagonal(dim1=0, dim2=1).permute(2, 0, 1)[:, None].expand_as(gram)
        blocks.append((own, (both & ~itself).expand_as(gram), (both & same & ~itself).expand_as(gram)))
    logits, allowed, positive = (torch.cat(parts, -1) for parts in zip(*blocks, strict=True))
    mean = logits.masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1)
    loss = logits.masked_fill(~allowed, -torch.inf).logsumexp(-1) - mean  # (M, M, B)
    counts = present[:, None] & present[None]
    return {
        (i, j): presence.masked_mean(torch.stack([loss[i, j], loss[j, i]]), torch.stack([counts[i, j], counts[j, i]]))
        for i in range(len(a))
        for j in range(i + 1, len(a))
    }
