"""Critics: functions f(a, b) of two vectors whose scores the bounds of `losses.information` are made of, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from polymodal.config import Config

__all__ = ["ConcatCritic", "CriticConfig", "DotCritic", "held", "mlp"]


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of those widths with ReLU between them.

    Source: FactorCL's code (`mlp`), every head and critic.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def bounded(scores: Tensor, limit: float | None) -> Tensor:
    """c tanh(s / c): scores between -c and c; unchanged for None."""
    return scores if limit is None else limit * torch.tanh(scores / limit)


def held(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """The scores of a critic as a fixed function: gradient to a and b, none to its parameters.

    Source: FactorCL, arXiv 2306.05268, algorithm 3: the critics of CLUB are not moved by the main step.
    """
    fixed = {name: p.detach() for name, p in critic.named_parameters()}
    scores: Tensor = functional_call(critic, fixed, (a, b))
    return scores


class DotCritic(nn.Module):
    """f(a, b) = g(a) . h(b) / sqrt(width), g and h MLPs: O(B) passes and one matrix product.

    Args:
        left, right: widths of a and b.
        hidden: width of the hidden layers, `layers` of them.
        width: of g and h.
        limit: c of c tanh(s / c), None for none.

    Source: FactorCL, arXiv 2306.05268, section 3.3 (separable critics); van den Oord et al. 2018.
    Differences: the released code has concatenating critics only (`ConcatCritic`).
    """

    def __init__(
        self, left: int, right: int, hidden: int = 512, layers: int = 2, width: int = 128, limit: float | None = None
    ) -> None:
        super().__init__()
        self.left, self.right = (mlp([inputs, *[hidden] * layers, width]) for inputs in (left, right))
        self.scale, self.limit = width**-0.5, limit

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(G, left) and (B, right) -> scores (B, G)."""
        with torch.autocast(a.device.type, enabled=False):
            return bounded(self.right(b.float()) @ self.left(a.float()).T * self.scale, self.limit)


class ConcatCritic(nn.Module):
    """f(a, b) = MLP([a, b]): B x G passes of an MLP.

    The first layer is affine, W [a; b] + c = W_a a + W_b b + c, so it takes O(B) products and a sum: the same numbers,
    fewer operations. Rows are scored some at a time and scored again when the gradient is taken, so no more than
    rows x G x hidden activations are alive.

    Args:
        left, right, hidden, layers, limit: as in `DotCritic`.
        rows: scored at a time; 0 for all at once, kept for the gradient.
        split: False computes every concatenation, as the released code does.

    Source: FactorCL, arXiv 2306.05268, appendix; pliang279/FactorCL, `critic.py`, `MLPCritic`.
    """

    def __init__(
        self,
        left: int,
        right: int,
        hidden: int = 512,
        layers: int = 2,
        limit: float | None = None,
        rows: int = 16,
        split: bool = True,
    ) -> None:
        super().__init__()
        self.net = mlp([left + right, *[hidden] * layers, 1])
        self.cut, self.limit, self.rows, self.split = left, limit, rows, split

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(G, left) and (B, right) -> scores (B, G)."""
        with torch.autocast(a.device.type, enabled=False):
            a, b = a.float(), b.float()
            # handed over as they are now: a recomputation must not see other weights, or weights that `held` detached
            weights = [w for layer in self.net if isinstance(layer, nn.Linear) for w in (layer.weight, layer.bias)]
            if self.split:
                a = F.linear(a, weights[0][:, : self.cut])
                b = F.linear(b, weights[0][:, self.cut :], weights[1])
            if not self.rows or not torch.is_grad_enabled():
                step = self.rows or max(len(b), 1)
                parts = [self._score(a, part, *weights) for part in torch.split(b, step)]
            else:
                parts = [
                    checkpoint(self._score, a, part, *weights, use_reentrant=False)
                    for part in torch.split(b, self.rows)
                ]
            return bounded(torch.cat(parts) if parts else a.new_zeros((0, len(a))), self.limit)

    def _score(self, a: Tensor, b: Tensor, *weights: Tensor) -> Tensor:
        pairs = (len(b), len(a))
        if self.split:
            x = a[None] + b[:, None]
        else:
            both = torch.cat([a[None].expand(*pairs, -1), b[:, None].expand(*pairs, -1)], -1)
            x = F.linear(both, weights[0], weights[1])
        for at in range(2, len(weights), 2):
            x = F.linear(F.relu(x), weights[at], weights[at + 1])
        return x[..., 0]


class CriticConfig(Config):
    """Critics and the heads before them.

    Args:
        kind: "dot" is a product of two MLPs; "concat" an MLP of both vectors, as released, B^2 passes (see
            `losses.critics`).
        hidden, layers: of a critic's MLPs. width: of the vectors that a dot critic multiplies.
        rows: that a concat critic scores at a time.
        limit: scores lie between -limit and limit (limit tanh(s / limit)); None for no bound.
        head: width of the heads, 0 for that of what they read. head_layers: hidden layers of a head.
    """

    kind: Literal["dot", "concat"] = "dot"
    hidden: int = Field(256, ge=1)
    layers: int = Field(1, ge=0)
    width: int = Field(128, ge=1)
    rows: int = Field(16, ge=0)
    limit: float | None = Field(None, gt=0)
    head: int = Field(0, ge=0)
    head_layers: int = Field(1, ge=0)

    def build(self, left: int, right: int) -> nn.Module:
        """The critic of vectors of those widths."""
        if self.kind == "dot":
            return DotCritic(left, right, self.hidden, self.layers, self.width, self.limit)
        return ConcatCritic(left, right, self.hidden, self.layers, self.limit, self.rows)
