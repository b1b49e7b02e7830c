"""Contrast between modalities, for any number of them with any subset missing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from polymodal import presence
from polymodal.losses._exact import products
from polymodal.tensors import Term

__all__ = ["contrast", "false_negatives", "pairwise_contrast"]


def pairwise_contrast(
    anchors: Tensor,
    present: Tensor,
    scale: Tensor | float,
    *,
    candidates: Tensor | None = None,
    candidates_present: Tensor | None = None,
    offset: int = 0,
    weights: Tensor | None = None,
    apply: Literal["logit", "loss"] = "logit",
    ignore: Tensor | None = None,
    negatives: Literal["both", "cross"] = "both",
) -> dict[tuple[int, int], Term]:
    """Contrast of every pair of modalities in one Gram product.

    For a pair (i, j) and an anchor a of row b in one of the two, the positive is the same row in the other modality::

        l_a = -log  exp(s_a+ k) / (exp(s_a+ k) + sum over negatives exp(s_a- k)),    k = scale * w_ij(b)

    and the term of the pair is the mean over the anchors of both sides. Rows that lack either side of a pair are
    neither anchors nor candidates of it.

    Args:
        anchors: (M, B, E) unit vectors of this process's rows; what stands where `present` is False is never read.
        present: (M, B) bool.
        scale: logit scale, the inverse temperature.
        candidates, candidates_present: (M, G, E) and (M, G) of all processes' rows, with gradient; by default the
            anchors themselves. Row b of this process is candidate `offset + b`.
        weights: (B, M, M) harmonised weights; anchors of row b use w_ij(b), i < j, on either side. None: all 1.
        apply: "logit" multiplies every logit of the anchor, a temperature of its own; "loss" multiplies its loss.
        ignore: (M, M, B, G) or broadcastable bool: candidates that are no negatives of the anchor (same group,
            identical content). The positive itself is never ignored.
        negatives: "both": the rest of both modalities, 2 B - 2 of them; "cross": of the other modality only (CLIP).

    Returns:
        (i, j) -> Term for every i < j; its count is the number of anchors.

    Source: NT-Xent over two modalities as SCALE uses it (arXiv 2109.04275, section 4.2; SCALE_code at 227ae08,
        `info_nce_loss`), logits times w.
    Differences: presence masks, false negatives, a learnable scale; one product instead of ten loops.
    """
    if candidates is None or candidates_present is None:
        candidates, candidates_present = anchors, present
    rows = anchors.shape[1]
    a = anchors.masked_fill(~present[..., None], 0.0).float()
    c = candidates.masked_fill(~candidates_present[..., None], 0.0).float()
    gram = products("mbe,nge->mnbg", a, c) * scale
    both = candidates_present[:, None] & candidates_present[None]  # (M, M, G)
    positive = torch.arange(c.shape[1], device=a.device) == torch.arange(rows, device=a.device)[:, None] + offset
    negative = both[:, :, None, :] & ~positive
    if ignore is not None:
        negative = negative & ~ignore
    own = gram.diagonal(dim1=0, dim2=1).permute(2, 0, 1)[:, None]  # (M, 1, B, G): anchors against their own modality
    factor = _anchor_weights(weights, len(a), a.device)
    sharpen = factor if apply == "logit" else torch.ones_like(factor)
    cross = (gram * sharpen[..., None]).masked_fill(~(negative | positive), -torch.inf)
    logits = cross
    if negatives == "both":
        logits = torch.cat([cross, (own * sharpen[..., None]).masked_fill(~negative, -torch.inf)], -1)
    score = (gram * sharpen[..., None]).masked_fill(~positive, 0.0).sum(-1)
    loss = logits.logsumexp(-1) - score  # (M, M, B)
    if apply == "loss":
        loss = loss * factor
    counts = present[:, None] & present[None]
    return {(i, j): _both_ways(loss, counts, i, j) for i in range(len(a)) for j in range(i + 1, len(a))}


def _anchor_weights(weights: Tensor | None, modalities: int, device: torch.device) -> Tensor:
    """(B, M, M) -> (M, M, B) with the upper triangle on both sides; ones without weights."""
    if weights is None:
        return torch.ones(modalities, modalities, 1, device=device)
    upper = weights.triu(1)
    return (upper + upper.transpose(1, 2)).permute(1, 2, 0).float()


def _both_ways(loss: Tensor, counts: Tensor, i: int, j: int) -> Term:
    return presence.masked_mean(torch.stack([loss[i, j], loss[j, i]]), torch.stack([counts[i, j], counts[j, i]]))


def contrast(
    anchors: Tensor,
    present: Tensor,
    candidates: Tensor,
    candidates_present: Tensor,
    scale: Tensor | float,
    *,
    all_anchors: Tensor | None = None,
    all_present: Tensor | None = None,
    offset: int = 0,
    ignore: Tensor | None = None,
) -> Term:
    """InfoNCE of one set of anchors against one set of candidates, in both directions.

    Args:
        anchors, present: (B, E) and (B,); rows that lack either side do not count.
        candidates, candidates_present: (G, E) and (G,) of all processes, row b being candidate `offset + b`.
        scale: logit scale.
        all_anchors, all_present: (G, E) and (G,), the anchors of all processes, which the candidates are contrasted
            with on the way back; by default the anchors themselves.
        ignore: (B, G) bool, rows that are no negatives of one another; a symmetric relation, used both ways.

    Returns:
        The mean over 2 x the rows that have both sides.

    Source: van den Oord et al. 2018, eq. 4, symmetric as in CLIP (Radford et al. 2021, figure 3).
    Differences: presence.
    """
    if all_anchors is None or all_present is None:
        all_anchors, all_present = anchors, present
    here = slice(offset, offset + len(anchors))
    block, block_present = candidates[here], candidates_present[here]
    counted = present & block_present
    forward = _one_way(anchors, present, candidates, candidates_present, scale, offset, ignore)
    backward = _one_way(block, block_present, all_anchors, all_present, scale, offset, ignore)
    return presence.masked_mean(torch.stack([forward, backward]), torch.stack([counted, counted]))


def _one_way(
    anchors: Tensor,
    present: Tensor,
    candidates: Tensor,
    candidates_present: Tensor,
    scale: Tensor | float,
    offset: int,
    ignore: Tensor | None,
) -> Tensor:
    """-log softmax of each anchor's own candidate, (B,); meaningless where a row lacks a side."""
    a = anchors.masked_fill(~present[:, None], 0.0).float()
    c = candidates.masked_fill(~candidates_present[:, None], 0.0).float()
    gram = products("be,ge->bg", a, c) * scale
    positive = torch.arange(len(c), device=a.device) == torch.arange(len(a), device=a.device)[:, None] + offset
    negative = candidates_present[None] & ~positive
    if ignore is not None:
        negative = negative & ~ignore
    score = gram.masked_fill(~positive, 0.0).sum(1)
    return gram.masked_fill(~(negative | positive), -torch.inf).logsumexp(1) - score


def false_negatives(
    groups: Tensor, digests: Tensor, *, all_groups: Tensor | None = None, all_digests: Tensor | None = None
) -> Tensor:
    """Candidates that are no negatives: rows of the anchor's group, and rows whose cell is identical to the anchor's.

    Args:
        groups: (B,) int64. digests: (M, B) int64, content of each modality's cell; 0 where absent.
        all_groups, all_digests: (G,) and (M, G) of all processes; by default the same.

    Returns:
        (M, M, B, G) bool: for the pair (i, j) True where the group, the content in i or the content in j is the same.

    Source: ours. Supervised contrast (Khosla et al. 2020) would make such rows positives; here they only do not count.
    """
    every_group = groups if all_groups is None else all_groups
    every_digest = digests if all_digests is None else all_digests
    same = (digests[:, :, None] == every_digest[:, None, :]) & (digests != 0)[:, :, None]
    return (groups[:, None] == every_group[None])[None, None] | same[:, None] | same[None]
