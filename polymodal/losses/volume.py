"""The volume that unit vectors span, and a contrast in which the smallest volume wins."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from polymodal import presence
from polymodal.losses._exact import products
from polymodal.tensors import Term

__all__ = ["volume_contrast", "volumes"]


def volumes(anchors: Tensor, tuples: Tensor, present: Tensor, eps: float = 1e-3) -> Tensor:
    """Log-volume of each anchor with each tuple.

    ::

        log V(a, t_1, ..., t_k) = 1/2 logdet(Gram + eps I)

    A vector that is not present has no row in the Gram matrix, so log V is that of the vectors that are. Only the k x k
    Gram of each tuple is factorised; the anchor comes in by the Schur complement, as one product of A x T.

    Args:
        anchors: (A, E) unit vectors. tuples: (K, T, E) unit vectors. present: (K, T) bool.
        eps: keeps the gradient finite where the vectors are dependent.

    Returns:
        (A, T) float32.

    Source: Cicchetti et al., ICLR 2025 (GRAM, arXiv 2412.11959), equation 4, V = sqrt(det Gram).
    Differences: logarithm and eps; absent vectors.
    """
    t = tuples.masked_fill(~present[..., None], 0.0).float()
    diagonal = torch.where(present, 1 + eps, 1.0)  # 1 alone on its row: a factor of 1
    gram = products("kte,lte->tkl", t, t)
    gram = gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2)) + torch.diag_embed(diagonal.T)
    lower = torch.linalg.cholesky(gram)
    across = products("ae,kte->tka", anchors.float(), t)
    explained = torch.linalg.solve_triangular(lower, across, upper=False).square().sum(1).T
    own: Tensor = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(1)
    squared: Tensor = own + (1 + eps - explained).clamp(min=eps / 2).log()
    return squared / 2


def volume_contrast(
    anchors: Tensor,
    others: Tensor,
    present: Tensor,
    counted: Tensor,
    every_anchor: Tensor,
    every_other: Tensor,
    every_present: Tensor,
    every_counted: Tensor,
    scale: Tensor | float,
    *,
    offset: int = 0,
    form: Literal["log", "volume"] = "log",
    eps: float = 1e-3,
    ignore: Tensor | None = None,
) -> Term:
    """InfoNCE both ways between an anchor and the tuple of the row's other vectors, the score being minus the volume.

    Volumes of different numbers of vectors cannot be compared, and neither can those of different modalities: an anchor
    chooses among tuples of the same subset of modalities as its own row's. A tuple chooses among all anchors, since
    there the subset is its own in every comparison.

    Args:
        anchors: (B, E). others: (K, B, E), present: (K, B) bool: the same rows' other modalities.
        counted: (B,) bool: rows with an anchor and at least one other.
        every_anchor, every_other, every_present, every_counted: the same of all processes, G rows.
        scale: 1 / tau.
        offset: row b of this process is row `offset + b` of all.
        form: "log": the score is -log V; "volume": -V, as published.
        ignore: (B, G) bool: rows that are no negatives of one another.

    Returns:
        The mean over 2 x the rows that count.

    Source: Cicchetti et al., ICLR 2025 (GRAM, arXiv 2412.11959), equations 7 and 8.
    Differences: groups by subset; presence; no label smoothing.
    """
    a = anchors.masked_fill(~counted[:, None], 0.0).float()
    every_a = every_anchor.masked_fill(~every_counted[:, None], 0.0).float()
    # there: (B, G), this process's anchors with all tuples; back: its tuples with all anchors
    there = volumes(a, every_other, every_present, eps)
    back = volumes(every_a, others, present, eps).T
    itself = torch.arange(len(every_a), device=a.device) == torch.arange(len(a), device=a.device)[:, None] + offset
    same_subset = (present[:, :, None] == every_present[:, None, :]).all(0)
    negative = every_counted[None] & ~itself
    if ignore is not None:
        negative = negative & ~ignore
    losses = []
    for volume, allowed in ((there, negative & same_subset), (back, negative)):
        score = -(volume if form == "log" else volume.exp()) * scale
        positive = score.masked_fill(~itself, 0.0).sum(1)
        losses.append(score.masked_fill(~(allowed | itself), -torch.inf).logsumexp(1) - positive)
    return presence.masked_mean(torch.stack(losses), torch.stack([counted, counted]))
