"""Transformer blocks. `Stack` is the only place that packs: Tokens in, Tokens out, work on valid tokens only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from pydantic import Field
from torch import Tensor, nn

from polymodal.config import Config
from polymodal.nn.attention import Attention, Layout, attention_flops, pack, unpack
from polymodal.tensors import Tokens

__all__ = ["Block", "FlopMeter", "Stack", "StackConfig", "metered"]


class StackConfig(Config):
    """Depth and shape of a stack. `heads=0` takes one head per 64 of width."""

    layers: int = Field(2, ge=0)
    heads: int = Field(0, ge=0)
    mlp_ratio: float = Field(4.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)

    def heads_for(self, width: int) -> int:
        """Heads for a width; the largest count at most `heads` (or width / 64, at least 2) that divides it."""
        wanted = self.heads or max(2, width // 64)
        return next(h for h in range(wanted, 0, -1) if width % h == 0)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual: x + A(LN(x)), then x + F(LN(x)).

    Source: Xiong et al. 2020 (pre-LN), GELU MLP as in BERT.
    """

    def __init__(self, width: int, config: StackConfig) -> None:
        super().__init__()
        inner = int(width * config.mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, config.heads_for(width))
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(K, D) -> (K, D)."""
        x = x + self.dropout(self.attention(self.norm1(x), layout))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class Stack(nn.Module):
    """Blocks over the valid tokens of each row, with a final LayerNorm.

    Args:
        width: D.
        config: depth and shape.

    A row without a valid token costs nothing; padding costs nothing but a little within attention (`attention.py`).
    """

    def __init__(self, width: int, config: StackConfig) -> None:
        super().__init__()
        self.width, self.config = width, config
        self.blocks = nn.ModuleList(Block(width, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

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


_METER: ContextVar[FlopMeter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[FlopMeter]:
    """Count the operations of every Stack that runs inside."""
    meter = FlopMeter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)
