"""Attention over packed rows: work is done for valid tokens, whatever the batch lacks.

A batch of catalogue rows has rows of very different length (one has a title only, the next five modalities). Tokens
travel packed, `(K, D)`, rows sorted by length; only attention itself needs rows, and it takes them in buckets of nearly
equal length (CPU, fp32) or by a kernel that reads the packed form (CUDA, half precision).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.tensors import Tokens

__all__ = ["Attention", "Bucket", "Layout", "attention_flops", "pack", "unpack"]

# A bucket ends where a row is shorter than this share of its longest. Attention is 10-20 % of a block's operations and
# its waste is quadratic in the padding, so 0.9 keeps the waste of the whole block near 1 %.
_EVEN = 0.9


@dataclass(frozen=True)
class Bucket:
    """Rows that attend together: `rows` rows of at most `length` tokens, `tokens` valid ones in all.

    `pad` (rows * length,) indexes the bucket's packed tokens (padding repeats the first), `valid` (rows, length) says
    which are real; both are None where every row has exactly `length` tokens, and then nothing is copied.
    """

    rows: int
    length: int
    tokens: int
    pad: Tensor | None
    valid: Tensor | None


@dataclass(frozen=True)
class Layout:
    """How the valid tokens of (B, N) lie packed: rows by falling length, `at` (K,) their places in (B * N)."""

    shape: tuple[int, int]
    at: Tensor
    lengths: tuple[int, ...]
    buckets: tuple[Bucket, ...]
    starts: Tensor  # (rows + 1,) int32 offsets, as varlen kernels want them


def pack(tokens: Tokens) -> tuple[Tensor, Layout]:
    """The valid tokens (K, D) and how to put them back. Rows without a valid token do not appear at all."""
    valid = tokens.valid
    lengths = valid.sum(1)
    order = lengths.argsort(descending=True, stable=True)
    row, column = valid[order].nonzero(as_tuple=True)
    at = order[row] * valid.shape[1] + column
    sizes = [n for n in lengths[order].tolist() if n]
    starts = torch.zeros(len(sizes) + 1, dtype=torch.int32)
    starts[1:] = torch.tensor(sizes, dtype=torch.int32).cumsum(0)
    layout = Layout(
        (valid.shape[0], valid.shape[1]), at, tuple(sizes), _buckets(sizes, valid.device), starts.to(valid.device)
    )
    return tokens.x.flatten(0, 1).index_select(0, at), layout


def unpack(packed: Tensor, layout: Layout, valid: Tensor) -> Tokens:
    """`pack` undone: (K, D) -> Tokens (B, N, D), zeros where not valid."""
    rows, columns = layout.shape
    flat = packed.new_zeros((rows * columns, packed.shape[-1])).index_copy(0, layout.at, packed)
    return Tokens(flat.view(rows, columns, -1), valid)


def _buckets(sizes: Sequence[int], device: torch.device) -> tuple[Bucket, ...]:
    buckets, begin = [], 0
    while begin < len(sizes):
        end = begin
        while end < len(sizes) and sizes[end] >= _EVEN * sizes[begin]:
            end += 1
        buckets.append(_bucket(sizes[begin:end], device))
        begin = end
    return tuple(buckets)


def _bucket(sizes: Sequence[int], device: torch.device) -> Bucket:
    length, total = sizes[0], sum(sizes)
    if sizes[-1] == length:
        return Bucket(len(sizes), length, total, None, None)
    lengths = torch.tensor(sizes)
    column = torch.arange(length)
    valid = column[None] < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    pad = torch.where(valid, starts[:, None] + column[None], torch.zeros(()).long())
    return Bucket(len(sizes), length, total, pad.flatten().to(device), valid.to(device))


class Attention(nn.Module):
    """Multi-head self-attention within each row, on packed tokens.

    Args:
        width: D.
        heads: must divide D.

    Source: Vaswani et al. 2017, eq. 1; biases as in BERT.
    Differences: no dropout on attention weights, so that the fused kernels apply.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(K, D) and its layout -> (K, D)."""
        qkv: Tensor = self.qkv(x)
        mixed = self._attend(qkv, layout) if len(qkv) else qkv[:, : self.out.in_features]
        out: Tensor = self.out(mixed)
        return out

    def weights(self, x: Tensor, layout: Layout) -> list[Tensor]:
        """What every token attends to, (heads, n, n) for each row of the layout, rows summing to 1.

        For looking at: the fused kernels of `forward` never build these.
        """
        q, k, _ = self.qkv(x).float().view(len(x), 3, self.heads, -1).unbind(1)
        rows = zip(q.split(layout.lengths), k.split(layout.lengths), strict=True)
        return [(torch.einsum("ihd,jhd->hij", a, b) * a.shape[-1] ** -0.5).softmax(-1) for a, b in rows]

    def _attend(self, qkv: Tensor, layout: Layout) -> Tensor:
        if qkv.is_cuda and qkv.dtype in (torch.float16, torch.bfloat16):
            return self._varlen(qkv, layout)
        pieces = torch.split(qkv, [bucket.tokens for bucket in layout.buckets])
        return torch.cat([self._bucket(piece, bucket) for piece, bucket in zip(pieces, layout.buckets, strict=True)])

    def _bucket(self, qkv: Tensor, bucket: Bucket) -> Tensor:
        if bucket.pad is not None:
            qkv = qkv.index_select(0, bucket.pad)
        q, k, v = qkv.view(bucket.rows, bucket.length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if bucket.valid is None else bucket.valid[:, None, None, :]
        mixed = _attention(q, k, v, mask).transpose(1, 2).flatten(2)
        return mixed.flatten(0, 1) if bucket.valid is None else mixed[bucket.valid]

    def _varlen(self, qkv: Tensor, layout: Layout) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (part.contiguous() for part in qkv.view(len(qkv), 3, self.heads, -1).unbind(1))
        longest = max(layout.lengths, default=0)
        mixed = varlen_attn(q, k, v, layout.starts, layout.starts, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed.flatten(1)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; on a CPU always in fp32.

    Rows of a catalogue are short, and for those the half-precision kernel of CPUs costs about eight times that of fp32;
    for long rows they take the same time (`benchmarks/attention.py --precision`).
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).to(q.dtype)


def attention_flops(layout: Layout, width: int) -> tuple[int, int]:
    """Operations of the two matrix products of one attention layer, forward: (on valid tokens, as spent)."""
    valid = sum(4 * n * n * width for n in layout.lengths)
    spent = sum(4 * bucket.rows * bucket.length**2 * width for bucket in layout.buckets)
    return valid, spent
