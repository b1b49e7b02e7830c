"""Transformer blocks. `Stack` is the only place that packs: Tokens in, Tokens out, work on valid tokens only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from polymodal.config import Config
from polymodal.nn.attention import Attention, Layout, attention_flops, pack, unpack
from polymodal.tensors import Tokens

__all__ = ["Block", "FlopMeter", "Stack", "StackConfig", "meter", "metered"]


class StackConfig(Config):
    """Depth and shape of a stack.

    Args:
        layers, heads: `heads=0` takes one head per 64 of width.
        mlp_ratio: width of the MLP's hidden layer, in widths.
        dropout: of what each residual branch adds.
        norm: where LayerNorm stands: "pre" in the branches, with one after the last block (ViT, GPT-2); "post" on each
            sum, with none after it (BERT).
        activation: "gelu" exact, as in BERT; "gelu_tanh" its approximation, the default of flax.
        eps: of every LayerNorm; BERT has 1e-12, MAE and M3AE 1e-6.
    """

    layers: int = Field(2, ge=0)
    heads: int = Field(0, ge=0)
    mlp_ratio: float = Field(4.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    eps: float = Field(1e-5, gt=0)

    def heads_for(self, width: int) -> int:
        """Heads for a width; the largest count at most `heads` (or width / 64, at least 2) that divides it."""
        wanted = self.heads or max(2, width // 64)
        return next(h for h in range(wanted, 0, -1) if width % h == 0)


class Block(nn.Module):
    """Attention and MLP, each with a residual.

    ::

        pre:   x + A(LN(x)),  then  x + F(LN(x))
        post:  LN(x + A(x)),  then  LN(x + F(x))

    Source: Vaswani et al. 2017 and BERT (post); Xiong et al. 2020 (pre).
    """

    def __init__(self, width: int, config: StackConfig) -> None:
        super().__init__()
        inner = int(width * config.mlp_ratio)
        self.post = config.norm == "post"
        self.norm1, self.norm2 = nn.LayerNorm(width, config.eps), nn.LayerNorm(width, config.eps)
        self.attention = Attention(width, config.heads_for(width))
        activation = nn.GELU("tanh" if config.activation == "gelu_tanh" else "none")
        self.mlp = nn.Sequential(nn.Linear(width, inner), activation, nn.Linear(inner, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(K, D) -> (K, D)."""
        if self.post:
            x = self.norm1(x + self.dropout(self.attention(x, layout)))
            return self.norm2(x + self.dropout(self.mlp(x)))  # type: ignore[no-any-return]
        x = x + self.dropout(self.attention(self.norm1(x), layout))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class Stack(nn.Module):
    """Blocks over the valid tokens of each row; a final LayerNorm where the blocks are pre-norm.

    Args:
        width: D.
        config: depth and shape.

    A row without a valid token costs nothing; padding costs nothing but a little within attention (`attention.py`).
    """

    def __init__(self, width: int, config: StackConfig) -> None:
        super().__init__()
        self.width, self.config = width, config
        self.blocks = nn.ModuleList(Block(width, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, config.eps) if config.norm == "pre" else nn.Identity()

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens (B, N, D) -> Tokens (B, N, D); what is not valid comes out as zeros."""
        x, layout = pack(tokens)
        meter = _METER.get()
        if meter is not None:
            meter.add(self, layout, tokens.valid.numel())
        for block in self.blocks:
            x = block(x, layout)
        return unpack(self.norm(x), layout, tokens.valid)


@dataclass
class FlopMeter:
    """Matrix-product operations of the stacks, forward: `valid` on real tokens, `spent` as done, `dense` as a padded
    implementation would have done.
    """

    valid: int = 0
    spent: int = 0
    dense: int = 0

    def add(self, stack: Stack, layout: Layout, slots: int) -> None:
        """Count one pass of `stack`."""
        width, tokens = stack.width, sum(layout.lengths)
        linear = int((4 + 2 * stack.config.mlp_ratio) * 2 * width * width)
        valid, spent = attention_flops(layout, width)
        layers, rows = stack.config.layers, layout.shape[0]
        self.valid += layers * (linear * tokens + valid)
        self.spent += layers * (linear * tokens + spent)
        self.dense += layers * (linear * slots + 4 * rows * layout.shape[1] ** 2 * width)

    def count(self, valid: int, spent: int, dense: int) -> None:
        """Count operations of anything else."""
        self.valid, self.spent, self.dense = self.valid + valid, self.spent + spent, self.dense + dense


_METER: ContextVar[FlopMeter | None] = ContextVar("meter", default=None)


def meter() -> FlopMeter | None:
    """The meter that is counting now, if one is."""
    return _METER.get()


@contextmanager
def metered() -> Iterator[FlopMeter]:
    """Count the operations of every Stack that runs inside."""
    meter = FlopMeter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)
