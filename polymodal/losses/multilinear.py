"""The multilinear inner product of more than two vectors, and its contrast against shuffled tuples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from polymodal import presence
from polymodal.draws import seed_of, uniform
from polymodal.losses._exact import products
from polymodal.tensors import Term

__all__ = ["multilinear_contrast", "shuffled_rows"]


def shuffled_rows(keys: Tensor, eligible: Tensor, names: Sequence[str], seed: int) -> Tensor:
    """Whose vectors stand in each row's shuffled tuple: one joint shuffle of the eligible rows.

    The row that comes r-th in an order drawn for the tuples gets, of each modality, the vector of the row that comes
    r-th in an order drawn for that modality. Orders are of draws per row, so other rows change nothing.

    Args:
        keys: (G,) of all processes' rows. eligible: (G,) bool.
        names: M modalities.

    Returns:
        (M, G) int64: for each modality the row whose vector the tuple of row g has; eligible rows get eligible ones.

    Source: Symile (arXiv 2411.01053), section 3.3, the negatives "n".
    Differences: drawn per row instead of by a global generator.
    """

    def order(what: str) -> Tensor:
        draws = uniform(seed_of(seed, "order", what), keys, 1)[:, 0]
        return draws.masked_fill(~eligible, 2.0).argsort(stable=True)

    tuples = order("")
    partners = torch.stack([order(name) for name in names])
    return torch.empty_like(partners).scatter(1, tuples.expand_as(partners), partners)


def multilinear_contrast(
    anchors: Tensor,
    others: Tensor,
    counted: Tensor,
    every: Tensor,
    every_counted: Tensor,
    partners: Tensor,
    scale: Tensor | float,
    *,
    offset: int = 0,
    own: Tensor | None = None,
) -> Term:
    """InfoNCE of one modality's vectors against tuples of all the others', scored by the multilinear inner product.

    ::

        MIP(z_1, ..., z_M) = sum_k prod_m z_m[k]
        l_b = -log  exp(s MIP(a_b, o_b)) / (exp(s MIP(a_b, o_b)) + sum_t exp(s MIP(a_b, t)))

    t are the shuffled tuples of the other rows.

    Args:
        anchors: (B, E). others: (M-1, B, E), vectors of the same rows in the other modalities, absent ones replaced.
        counted: (B,) bool: rows that take part.
        every: (M-1, G, E) others of all processes. every_counted: (G,) bool, the same condition.
        partners: (S, M-1, G) int64, S shuffles as `shuffled_rows` makes them.
        scale: s.
        offset: row b of this process is row `offset + b` of all.
        own: (S, B, G) bool: tuples that are row b's own after all and no negatives of it.

    Returns:
        The mean over the rows that count.

    Source: Saporta et al., NeurIPS 2024 (Symile, arXiv 2411.01053), equations 2 and 3.
    Differences: presence; several shuffles; tuples that happen to be the row's own do not count.
    """
    a = anchors.masked_fill(~counted[:, None], 0.0).float()
    o = others.masked_fill(~counted[None, :, None], 0.0).float()
    e = every.masked_fill(~every_counted[None, :, None], 0.0).float()
    positive = (a * _product(o)).sum(-1) * scale
    tuples = torch.stack([_product(torch.stack([z[p] for z, p in zip(e, of, strict=True)])) for of in partners])
    itself = torch.arange(e.shape[1], device=a.device) == torch.arange(len(a), device=a.device)[:, None] + offset
    negative = (every_counted[None] & ~itself).expand(len(partners), -1, -1)
    if own is not None:
        negative = negative & ~own
    logits = (products("be,sge->sbg", a, tuples) * scale).masked_fill(~negative, -torch.inf)
    against = torch.cat([positive[:, None], logits.transpose(0, 1).flatten(1)], 1)
    return presence.masked_mean(against.logsumexp(1) - positive, counted)


def _product(vectors: Tensor) -> Tensor:
    return reduce(torch.mul, vectors.unbind(0))
