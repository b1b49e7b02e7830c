"""Self-harmonised weights: how much each pair of modalities of a row should count, from their own similarity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from polymodal.losses._exact import products

__all__ = ["agreement", "harmonise", "harmonise_batch", "mean_one", "similarity"]

Form = Literal["none", "paper", "matrix", "code", "free"]


def similarity(z: Tensor, present: Tensor) -> Tensor:
    """S, the cosine of every pair of a row's modality vectors: (M, B, E) and (M, B) -> (B, M, M), 0 where absent.

    Source: SCALE, arXiv 2109.04275, section 4.3: the relation graph of one sample.
    """
    unit = F.normalize(z.float().masked_fill(~present[..., None], 0.0), dim=-1, eps=1e-8)
    return products("ibe,jbe->bij", unit, unit)


def harmonise(s: Tensor, present: Tensor | None, form: Form = "code", floor: float | None = None) -> Tensor:
    """W from S, per row of a batch.

    * "paper": W = S * softmax(S), the softmax over each row of the matrix.
    * "matrix": the same with one softmax over the whole matrix, the other reading of the paper's formula.
    * "code": as "paper", each row then divided by its L2 norm.
    * "none": 1 for every present pair.
    * "free": "paper"; the caller hands in a learned S instead of cosines.

    Args:
        s: (B, M, M).
        present: (B, M) bool, so that absent modalities take no part and get 0; None counts all, as the release does.
        form: above.
        floor: weights of present pairs are at least this. Without it a pair whose cosine is negative is pushed apart
            by its own contrast, and one near 0 stops learning (a weight is a temperature: below 0.1 nothing is left).

    Returns:
        (B, M, M).

    Source: SCALE, arXiv 2109.04275, section 4.3; SCALE_code at 227ae08, `graph_construct_per_sample`.
    Differences: `present`, `floor`; 19 tensor operations instead of a loop over rows.
    """
    everything = torch.ones_like(s, dtype=torch.bool)
    pairs = everything if present is None else present[:, :, None] & present[:, None, :]
    if form == "none":
        return pairs.to(s.dtype)
    scores = s.masked_fill(~pairs, -torch.inf)
    share = scores.flatten(1).softmax(-1).view_as(s) if form == "matrix" else scores.softmax(-1)
    share = share.nan_to_num(0.0)
    weight = (s * share).masked_fill(~pairs, 0.0)
    if form == "code":
        weight = F.normalize(weight, dim=-1, eps=1e-12)
    if floor is not None:
        weight = torch.where(pairs, weight.clamp(min=floor), weight)
    return weight


def harmonise_batch(s: Tensor) -> tuple[Tensor, Tensor]:
    """One W for a whole batch, and the weights of the masked tasks: the variant the release defines and never calls.

    Args:
        s: (B, M, M).

    Returns:
        W (M, M), its columns of unit length, and its diagonal with sum 1, (M,).

    Source: SCALE_code at 227ae08, `graph_construct`; the sum over the batch is divided by M there, not by B.
    Differences: none; it is here so that the published numbers can be reproduced.
    """
    total = s.sum(0) / s.shape[1]
    weight = F.normalize(total * total.softmax(1), dim=0, eps=1e-12)
    diagonal = weight.diagonal()
    return weight, diagonal / diagonal.sum()


def mean_one(weights: Tensor, present: Tensor) -> Tensor:
    """Each row's pair weights W_ij, i < j, divided by their mean over the pairs it has; the diagonal as it is.

    A weight on a logit is a temperature. S * softmax(S) alone makes every logit several times flatter (at most 0.2,
    with the release's norm at most about 0.45), which early in training, when cosines are near 0, leaves nothing to
    learn from. With mean 1 a row's weights say which of its pairs count more, and the logit scale keeps its meaning.

    Args:
        weights: (B, M, M). present: (B, M) bool.

    Returns:
        (B, M, M), both triangles scaled alike.

    Source: ours.
    """
    upper = (present[:, :, None] & present[:, None, :]).triu(1)
    mean = weights.masked_fill(~upper, 0.0).sum((1, 2)) / upper.sum((1, 2)).clamp(min=1)
    factor = torch.where(mean > 1e-6, 1 / mean.clamp(min=1e-6), torch.ones_like(mean))[:, None, None]
    diagonal = torch.eye(weights.shape[1], dtype=torch.bool, device=weights.device)
    return torch.where(diagonal, weights, weights * factor)


def agreement(weights: Tensor, present: Tensor) -> Tensor:
    """Weight of each modality's own loss: how well it agrees with the others, mean 1 over those present.

    d_i is the mean of W_ij over the other present modalities j, then divided by the mean of d over the present ones.
    The literal diagonal W_ii does the opposite: S_ii is always 1, so the modality that agrees least gets the most.

    Args:
        weights: (B, M, M). present: (B, M) bool.

    Returns:
        (B, M), 0 where absent, 1 where a row has a single modality.

    Source: ours, for the diagonal of SCALE's W (arXiv 2109.04275, section 4.3).
    """
    others = (
        present[:, None, :]
        & present[:, :, None]
        & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    )
    count = others.sum(-1)
    d = weights.masked_fill(~others, 0.0).sum(-1).clamp(min=0.0) / count.clamp(min=1)
    total = present.sum(-1, keepdim=True).clamp(min=1)
    mean = d.sum(-1, keepdim=True) / total
    level = torch.where(mean > 0, d / mean.clamp(min=1e-12), torch.ones_like(d))
    return level.masked_fill(~present, 0.0)
