"""Bounds of mutual information from a matrix of scores: NCE below, CLUB above, plain or given something.

Everywhere `scores[i, j] = f(a_j, b_i)`: row i is a vector b of this process, column j a vector a of any process, and
the critic f is somebody else's (`losses.critics`). A row that lacks either side is neither positive nor negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polymodal import presence
from polymodal.draws import seed_of, uniform
from polymodal.tensors import Term

__all__ = [
    "Pairing",
    "capacity",
    "club",
    "codes",
    "kernel_club",
    "kernel_nce",
    "kernel_weights",
    "nce",
    "pairing",
    "rbf",
    "same_class",
]


@dataclass(frozen=True)
class Pairing:
    """Who is compared with whom: `positive` and `allowed` (B, G) bool, the positive always among the allowed;
    `counted` (B,) bool, the rows that have both sides and at least one negative."""

    positive: Tensor
    allowed: Tensor
    counted: Tensor


def pairing(present: Tensor, candidates: Tensor, offset: int = 0, same: Tensor | None = None) -> Pairing:
    """The pairs of a batch.

    Args:
        present: (B,) bool, rows of this process that have both sides.
        candidates: (G,) bool, the same of all processes; row b of this process is candidate `offset + b`.
        same: (B, G) bool, pairs of one class (`same_class`): negatives then come from p(.|y). A class with one row has
            no negative and does not count.

    Source: FactorCL, arXiv 2306.05268, section 3.2: negatives from p(b), or from p(b|y).
    Differences: its code draws the negatives of conditional bounds from the whole batch, whatever their label; that is
        `same=None`.
    """
    places = torch.arange(len(candidates), device=present.device)
    positive = places == torch.arange(len(present), device=present.device)[:, None] + offset
    allowed = present[:, None] & candidates[None]
    if same is not None:
        allowed = allowed & same
    return Pairing(positive, allowed | positive, (allowed & positive).any(1) & (allowed.sum(1) >= 2))


def same_class(labels: Tensor, others: Tensor) -> Tensor:
    """(B,) and (G,) int64 -> (B, G) bool: both labels are known (not negative) and equal.

    Source: FactorCL, arXiv 2306.05268, section 3.2: positives and negatives of one label.
    """
    return (labels[:, None] == others[None]) & (labels >= 0)[:, None]


def codes(labels: Tensor, width: int) -> Tensor:
    """What a critic sees of a label: (B,) int64 -> (B, width) of -1 and 1, drawn from the label itself.

    Labels are hashes of names, so there is no table of classes to keep. Two labels share all of 32 signs with chance
    2 ** -32. An unknown label is all zeros.

    Source: FactorCL's code concatenates one-hot labels (FactorCL, `critic.py`, `OneHot` of the synthetic notebook).
    Differences: random signs instead of one-hots; the first layer of a critic can turn one into the other.
    """
    signs = (uniform(seed_of("label code"), labels, width) >= 0.5).float() * 2 - 1
    return signs * (labels >= 0)[:, None]


def nce(scores: Tensor, pairs: Pairing) -> Term:
    """The loss of the lower bound NCE: a cross-entropy, `capacity` minus the bound.

    ::

        NCE(A; B) = mean_i [ F_ii - log (1/n_i) sum_j exp F_ij ],     value = mean_i log n_i - NCE

    over the j allowed to row i, itself among them; n_i is how many there are. NCE is at most log n.

    Args:
        scores: (B, G) float32.
        pairs: of `pairing`; with classes this is NCE(A; B | Y).

    Returns:
        Term over the rows that count.

    Source: van den Oord et al. 2018; FactorCL, arXiv 2306.05268, equation 5, one direction as in its code.
    Differences: presence; within-class negatives (see `pairing`).
    """
    positive = scores.masked_fill(~pairs.positive, 0.0).sum(1)
    every = scores.masked_fill(~pairs.allowed, -torch.inf).logsumexp(1)
    return presence.masked_mean(every - positive, pairs.counted)


def capacity(pairs: Pairing, extra: int = 0) -> Tensor:
    """The most that NCE can be: mean of log n_i over the rows that count, without gradient; 0 where none does.

    Source: Poole et al. 2019, "On variational bounds of mutual information", section 2.3: NCE is at most log n.
    """
    return presence.masked_mean((pairs.allowed.sum(1) + extra).float().log(), pairs.counted).value


def club(scores: Tensor, pairs: Pairing, diagonal: bool = True) -> Term:
    """The upper bound NCE-CLUB, with the critic that maximises NCE.

    ::

        CLUB(A; B) = mean_i [ F_ii - (1/n_i) sum_j F_ij ]

    Args:
        scores: (B, G) of a critic whose parameters are held fixed.
        pairs: of `pairing`.
        diagonal: the positive is among the j, as in FactorCL's code, which makes the bound smaller by 1 - 1/n.

    Source: Cheng et al. 2020 (CLUB); FactorCL, arXiv 2306.05268, equation 6 (NCE-CLUB).
    Differences: presence; within-class negatives.
    """
    positive = scores.masked_fill(~pairs.positive, 0.0).sum(1)
    others = pairs.allowed if diagonal else pairs.allowed & ~pairs.positive
    mean = scores.masked_fill(~others, 0.0).sum(1) / others.sum(1).clamp(min=1)
    return presence.masked_mean(positive - mean, pairs.counted)


def rbf(x: Tensor, width: float) -> Tensor:
    """Gram matrix exp(-|x_i - x_j|^2 / (2 width^2)) of (G, d): float32 (G, G).

    Source: Tsai et al. 2022, "Conditional contrastive learning with kernel", table 1.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        square = x.square().sum(1)
        apart = (square[:, None] + square[None] - 2 * x @ x.T).clamp(min=0)
        return (-apart / (2 * width**2)).exp()


def kernel_weights(gram: Tensor, counted: Tensor, ridge: float) -> Tensor:
    """How much candidate j says about p(.|c_i): W = (K + ridge I)^-1 K, at least 0, zero where a row does not count.

    Args:
        gram: (G, G) of what is given, K; no gradient is taken of it.
        counted: (G,) bool.
        ridge: lambda > 0.

    Source: Tsai et al. 2022, proposition 3.3; FactorCL, arXiv 2306.05268, appendix on conditional bounds.
    Differences: negative weights are set to 0, so that the logarithm of the weighted sum exists.
    """
    k = gram.detach().float() * (counted[:, None] & counted[None])
    weights = torch.linalg.solve(k + ridge * torch.eye(len(k), device=k.device), k)
    # a row that does not count is its own and only candidate: finite, and never looked at
    return torch.where(counted[:, None] & counted[None], weights.clamp(min=0), torch.eye(len(k), device=k.device))


def kernel_nce(scores: Tensor, weights: Tensor, pairs: Pairing) -> Term:
    """The loss of NCE given a continuous variable: negatives weighted by how near theirs is.

    ::

        value = mean_i -log ( e^{F_ii} / (e^{F_ii} + n sum_j e^{F_ij} W_ji) ),     NCE = log(n + 1) - value

    Args:
        scores: (B, G). weights: (G, B), the columns of `kernel_weights` that belong to this process's rows.
        pairs: of `pairing`, without classes.

    Source: Tsai et al. 2022, equation 5; FactorCL, arXiv 2306.05268, appendix. Not in its released code.
    Differences: computed by log-sum-exp; presence.
    """
    positive = scores.masked_fill(~pairs.positive, 0.0).sum(1)
    count = pairs.allowed.sum(1).float()
    negatives = _weighted(scores, weights) + count.log()
    return presence.masked_mean(torch.logaddexp(positive, negatives) - positive, pairs.counted)


def kernel_club(scores: Tensor, weights: Tensor, pairs: Pairing) -> Term:
    """CLUB given a continuous variable: mean_i F_ii - log sum_j e^{F_ij} W_ji; arguments as in `kernel_nce`.

    Source: FactorCL, arXiv 2306.05268, appendix on conditional bounds. Not in its released code.
    Differences: as `kernel_nce`.
    """
    positive = scores.masked_fill(~pairs.positive, 0.0).sum(1)
    return presence.masked_mean(positive - _weighted(scores, weights), pairs.counted)


def _weighted(scores: Tensor, weights: Tensor) -> Tensor:
    """log sum_j e^{F_ij} W_ji, (B,)."""
    return (scores + weights.T.log()).logsumexp(1)
