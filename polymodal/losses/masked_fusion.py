"""InfMasking's term: a fused vector against many masked fusions of the same row, through their mean and spread."""

from __future__ import annotations

import torch
from torch import Tensor

from polymodal import presence
from polymodal.losses._exact import products
from polymodal.tensors import Embedded, Term, World

__all__ = ["masked_fusion"]


def masked_fusion(
    whole: Embedded,
    masked: Tensor,
    scale: float,
    spread: float,
    world: World,
    rows: Tensor | None = None,
    ignore: Tensor | None = None,
) -> Term:
    """The fused vector q of each row against T fusions k_t of masked tokens, as if there were infinitely many.

    With mu and Sigma the mean and covariance of a row's k_t, S = r Sigma / tau::

        l = -log( exp(p) / (exp(p) + sum over other rows n (sum_t exp(q . k_t^n / tau) + exp(q . q^n / tau))) )
            + 1/2 q^T S q / tau,        p = q . (mu + 1/2 S q) / tau

    q^T Sigma q is the variance of q . k_t over t, so no E x E matrix is made.

    Args:
        whole: q, (B, E) unit vectors.
        masked: k, (T, B, E) unit vectors.
        scale: 1 / tau. spread: r.
        world: gathers the other processes' rows.
        rows: (B,) bool: which rows take part; by default all that have a q.
        ignore: (B, G) bool: rows that are no negatives of one another.

    Returns:
        The mean over the rows that take part.

    Source: InfMasking (NeurIPS 2025), the masked-fusion term beside CoMM's, as in specs/factorcl.md 4.3.
    Differences: the covariance is divided by T; r is fixed, where the paper lets it grow over the epochs; presence.
    """
    taking = whole.present if rows is None else whole.present & rows
    q = whole.z.masked_fill(~taking[:, None], 0.0).float()
    k = masked.masked_fill(~taking[None, :, None], 0.0).float()
    every, every_q, every_k = world.gather(taking), world.gather(q), world.gather(k.transpose(0, 1))
    dots = products("be,tbe->tb", q, k)
    quadratic = dots.var(0, correction=0) * spread * scale
    positive = (dots.mean(0) + quadratic / 2) * scale
    itself = (
        torch.arange(len(every), device=q.device)
        == (torch.arange(len(q), device=q.device) + world.rank * len(q))[:, None]
    )
    negative = every[None] & ~itself
    if ignore is not None:
        negative = negative & ~ignore
    against = torch.cat([products("be,gte->btg", q, every_k), products("be,ge->bg", q, every_q)[:, None]], 1) * scale
    against = against.masked_fill(~negative[:, None], -torch.inf).flatten(1)
    loss = torch.cat([positive[:, None], against], 1).logsumexp(1) - positive + quadratic * scale / 2
    return presence.masked_mean(loss, taking)
