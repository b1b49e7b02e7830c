"""What keeps two groups of vectors apart, makes two views of one thing agree in every direction, or finds what they
share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from polymodal.tensors import Term

__all__ = ["Canonical", "agree", "apart", "spread"]


def _standard(x: Tensor, counted: Tensor) -> Tensor:
    """Columns of mean 0 and deviation 1 over the rows that count, zeros elsewhere."""
    n = counted.sum().clamp(min=1)
    x = x.float().masked_fill(~counted[:, None], 0.0)
    x = (x - x.sum(0) / n).masked_fill(~counted[:, None], 0.0)
    return x * (x.square().sum(0) / n + 1e-6).rsqrt()


def _correlation(a: Tensor, b: Tensor, counted: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):
        return _standard(a, counted).T @ _standard(b, counted) / counted.sum().clamp(min=1)


def _term(value: Tensor, counted: Tensor, mine: Tensor) -> Term:
    """A figure of all rows, 0 where there are fewer than two; its count is that of this process's rows."""
    enough = counted.sum() >= 2
    return Term(torch.where(enough, value, value * 0.0), mine.sum() * enough)


def agree(a: Tensor, b: Tensor, counted: Tensor, mine: Tensor, off: float = 0.5) -> Term:
    """Column k of a says what column k of b says, and no two columns the same.

    ::

        mean_k (1 - C_kk)^2  +  off * (sum of C_kl^2, k != l) / d,      C the correlation of a with b

    What only one side knows cannot agree, and as every column has deviation 1, there is no direction to hide it in.

    Args:
        a, b: (G, d) of all processes. counted: (G,) bool. mine: (B,) bool, this process's rows of it.
        off: weight of the rest of C.

    Source: Zbontar et al. 2021, "Barlow Twins", equation 1. Step 1 of DisentangledSSL (Wang et al. 2025), which pulls
        the two shared codes together by a KL term, has the same aim.
    Differences: between modalities, not augmentations; divided by d; presence.
    """
    c = _correlation(a, b, counted)
    own = torch.diagonal(c)
    value = (1 - own).square().mean() + off * (c.square().sum() - own.square().sum()) / len(c)
    return _term(value, counted, mine)


def spread(a: Tensor, counted: Tensor, mine: Tensor) -> Term:
    """Columns that say different things: (sum of C_kl^2, k != l) / d, C the correlation of a with itself.

    Source: the covariance term of VICReg, Bardes et al. 2022, equation 4.
    Differences: of correlations.
    """
    c = _correlation(a, a, counted)
    return _term((c.square().sum() - torch.diagonal(c).square().sum()) / len(c), counted, mine)


def apart(
    a: Tensor, b: Tensor, counted: Tensor, mine: Tensor, kind: Literal["correlation", "hsic"] = "correlation"
) -> Term:
    """How much a says of b: nothing is 0.

    Args:
        a, b: (G, d), (G, e). counted, mine: as in `agree`.
        kind: "correlation": (sum of C_kl^2) / min(d, e), linear. "hsic": the normalised Hilbert-Schmidt criterion of
            RBF kernels whose width is the mean distance, which sees any dependence, in [0, 1].

    Source: DisentangledSSL (Wang et al. 2025), orthogonality of step 2; Gretton et al. 2005 (HSIC), normalised as in
        Kornblith et al. 2019 (CKA).
    Differences: correlations instead of raw products, so that small directions count as large ones.
    """
    if kind == "correlation":
        value = _correlation(a, b, counted).square().sum() / min(a.shape[1], b.shape[1])
    else:
        with torch.autocast(a.device.type, enabled=False):
            k, m = (_centred(_standard(x, counted), counted) for x in (a, b))
            value = (k * m).sum() / (k.square().sum() * m.square().sum() + 1e-12).sqrt()
    return _term(value, counted, mine)


def _centred(x: Tensor, counted: Tensor) -> Tensor:
    """RBF Gram matrix of the rows that count, centred; zeros elsewhere."""
    pairs, n = counted[:, None] & counted[None], counted.sum().clamp(min=1)
    square = x.square().sum(1)
    distance = (square[:, None] + square[None] - 2 * x @ x.T).clamp(min=0).masked_fill(~pairs, 0.0)
    k = (-distance / (distance.detach().sum() / n**2 + 1e-6)).exp().masked_fill(~pairs, 0.0)
    mean = k.sum(0) / n
    return (k - mean[None] - mean[:, None] + mean.sum() / n).masked_fill(~pairs, 0.0)


class Canonical(nn.Module):
    """What two vectors of the same rows share, and the rest of each: linear maps in closed form, nothing is trained.

    Both vectors are whitened; the singular values of their covariance are the canonical correlations. Directions whose
    correlation is above `threshold` are what both share, all others are a side's own. Moments are running means over
    batches, so vectors may move while they are gathered.

    Args:
        width: d of either side.
        threshold: correlation above which a direction counts as shared.
        decay: of the running moments per batch.
        ridge: added to the variances before whitening, relative to their mean: a direction with less is not stretched.

    Source: Hotelling 1936, "Relations between two sets of variates". As what splits the vectors of trained encoders,
        which are left alone, it is the second of two steps, as the private codes of DisentangledSSL (Wang et al. 2025).
    Differences: their second step trains private encoders.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, width: int, threshold: float = 0.5, decay: float = 0.99, ridge: float = 1e-4) -> None:
        super().__init__()
        self.threshold, self.decay, self.ridge = threshold, decay, ridge
        # float64: small directions beside a large mean would drown in fewer digits
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(2 * width, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(2 * width, 2 * width, dtype=torch.float64))

    @torch.no_grad()
    def update(self, a: Tensor, b: Tensor, counted: Tensor) -> None:
        """Gather moments of rows (G, d) that have both sides; of all processes, so that each has the same."""
        x = torch.cat([a, b], 1)[counted].double()
        if len(x):
            keep = self.decay
            self.weight.mul_(keep).add_(1 - keep)
            self.mean.mul_(keep).add_(x.mean(0), alpha=1 - keep)
            self.square.mul_(keep).add_(x.T @ x / len(x), alpha=1 - keep)

    @torch.no_grad()
    def split(self, x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Shared and own part of one side's vectors (n, d): (n, k) and (n, d - k), whitened.

        Before any row was seen, or where nothing correlates, k is 0.
        """
        mean = self.mean / self.weight.clamp(min=1e-12)
        covariance = self.square / self.weight.clamp(min=1e-12) - mean.outer(mean)
        d = len(mean) // 2
        sides = slice(d), slice(d, None)
        left, right = (self._whitening(covariance[part, part]) for part in sides)
        u, correlation, v = torch.linalg.svd(left @ covariance[sides[0], sides[1]] @ right)
        turn = left @ u if side == 0 else right @ v.T
        z = ((x.double() - mean[sides[side]]) @ turn).to(x.dtype)
        k = int((correlation > self.threshold).sum())
        return z[:, :k], z[:, k:]

    def _whitening(self, covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)
        least = self.ridge * values.mean().clamp(min=1e-12)
        made: Tensor = vectors * (values.clamp(min=0) + least).rsqrt() @ vectors.T
        return made
