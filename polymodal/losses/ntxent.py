"""NT-Xent: two views of the same rows find one another among both views of all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from polymodal.losses.contrastive import pairwise_contrast
from polymodal.tensors import Embedded, Term, World

__all__ = ["nt_xent"]


def nt_xent(
    first: Embedded,
    second: Embedded,
    scale: Tensor | float,
    world: World,
    rows: Tensor | None = None,
    ignore: Tensor | None = None,
) -> Term:
    """Contrast of two vectors of each row, with the 2 n - 2 other vectors of both kinds as negatives.

    ::

        l_a = -log  exp(s a . a+) / (exp(s a . a+) + sum over both vectors of all other rows exp(s a . v))

    Args:
        first, second: (B, E) unit vectors of this process's rows.
        scale: logit scale.
        world: gathers the other processes' rows.
        rows: (B,) bool: which rows take part at all; by default all that have both vectors.
        ignore: (B, G) bool: rows that are no negatives of one another.

    Returns:
        The mean over 2 x the rows that take part.

    Source: Chen et al. 2020 (SimCLR, arXiv 2002.05709), equation 1 and algorithm 1.
    Differences: presence, false negatives, processes.
    """
    taking = first.present & second.present
    if rows is not None:
        taking = taking & rows
    z, present = torch.stack([first.z, second.z]), torch.stack([taking, taking])
    return pairwise_contrast(
        z,
        present,
        scale,
        candidates=world.gather(z.transpose(0, 1)).transpose(0, 1),
        candidates_present=world.gather(present.T).T,
        offset=world.rank * len(taking),
        ignore=None if ignore is None else ignore[None, None],
    )[0, 1]
