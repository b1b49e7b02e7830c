"""Models of the three sizes and batches of generated rows, shared by the benchmarks; and the dense form of a stack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polymodal import presence
from polymodal.model import Model
from polymodal.nn.blocks import Block, Stack
from polymodal.objective import Objective
from polymodal.recipe import Recipe, build_model
from polymodal.recipes.scale import recipe
from polymodal.tensors import Batch, Tokens

FIVE = ("text", "image", "table", "video", "audio")


def make(size: str, layers: int | None = None, seed: int = 0) -> tuple[Recipe, Model, Objective]:
    """The SCALE recipe of a size over five modalities, fitted on examples; `layers` per stage where given."""
    made = recipe({kind: kind for kind in FIVE}, size)  # type: ignore[arg-type]
    if layers is not None:
        shape = made.model
        made = made.replace(
            model=shape.replace(tower=shape.tower.replace(layers=layers), trunk=shape.trunk.replace(layers=layers))
        )
    torch.manual_seed(seed)
    fitted = {
        name: config.fit([config.decoder().example(s) for s in range(8)]) for name, config in made.modalities.items()
    }
    model = build_model(made, fitted)
    return made, model, made.objective.build(model)


def batch_of(model: Model, rows: int, share: float = 0.6, seed: int = 0) -> Batch:
    """Rows in which each modality is there with probability `share`, at least one in every row."""
    random, cells = np.random.default_rng(seed), {}
    there = random.random((rows, len(model.names))) < share
    there[~there.any(1), 0] = True
    for at, name in enumerate(model.names):
        modality = model.modality(name)
        examples = [modality.example(seed * 1000 + row) if there[row, at] else None for row in range(rows)]
        filled = presence.fill([None if e is None else modality.preprocess(e) for e in examples])
        if filled is not None:
            cells[name] = filled
    return Batch(tuple(f"row{row}" for row in range(rows)), cells)


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Count the operations of every matrix product inside. Attention runs as plain products, which are all counted."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        yield counter


def dense(stack: Stack, tokens: Tokens) -> Tokens:
    """What a padded implementation does: every slot through every layer, a mask in attention alone."""
    x, valid = tokens.x.masked_fill(~tokens.valid[..., None], 0.0), tokens.valid
    if not valid.shape[1]:
        return tokens
    mask = (valid | ~valid.any(1, keepdim=True))[:, None, None, :]  # a row without a token must attend something
    for block in stack.blocks:
        assert isinstance(block, Block)
        x = x + _attend(block, block.norm1(x), mask)
        x = x + block.mlp(block.norm2(x))
    return Tokens(stack.norm(x).masked_fill(~valid[..., None], 0.0), valid)


def _attend(block: Block, x: Tensor, mask: Tensor) -> Tensor:
    rows, count, width = x.shape
    q, k, v = block.attention.qkv(x).view(rows, count, 3, block.attention.heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(rows, count, width)
    out: Tensor = block.attention.out(mixed)
    return out


@contextmanager
def densely() -> Iterator[None]:
    """Every Stack inside computes densely."""
    real = Stack.forward
    Stack.forward = dense  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stack.forward = real  # type: ignore[method-assign]


class Clock:
    """Seconds of the work done inside, on whichever device."""

    now = staticmethod(time.perf_counter)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Clock:
        self._sync()
        self.begun = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self.seconds = self.now() - self.begun

    def _sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain columns."""
    cells = [[str(c) for c in row] for row in [head, *rows]]
    wide = [max(len(row[at]) for row in cells) for at in range(len(head))]
    return "\n".join(
        "  ".join(c.rjust(w) if at else c.ljust(w) for at, (c, w) in enumerate(zip(row, wide, strict=True)))
        for row in cells
    )
