"""Attention between the streams of a row: the tokens of one modality attend to those of all the others.

Tokens are packed as in `attention.py`, and rows are taken in buckets in which both the queries and the keys have nearly
equal numbers (CPU, fp32) or by a kernel that reads the packed form (CUDA, half precision). A row with one stream has
nobody to attend to: it is in no bucket, so there is no softmax over nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal import presence
from polymodal.nn.attention import Layout, attention_flops, pack, unpack
from polymodal.nn.blocks import Block, StackConfig, meter
from polymodal.tensors import Tokens

__all__ = ["CoAttention", "CoLayer", "CoLayout", "CoStack", "CrossLayout", "Order", "Readout", "attend", "cross_layout"]

Order = Literal["vilbert", "lxmert"]

# Lengths of a bucket differ by at most this factor, in queries and in keys. With 1.11, as in attention.py, two lengths
# a row would leave buckets of one or two rows, and on a CPU each bucket costs a call.
_EVEN = 1.25


@dataclass(frozen=True)
class CrossBucket:
    """Rows that attend together: at most `queries` tokens of each attend to at most `keys`.

    `take_queries` (rows * queries,) and `take_keys` (rows * keys,) say where they lie packed (padding repeats the
    first); the masks are None where every row is full.
    """

    rows: int
    queries: int
    keys: int
    take_queries: Tensor
    take_keys: Tensor
    queries_valid: Tensor | None
    keys_valid: Tensor | None


@dataclass(frozen=True)
class CrossLayout:
    """Who attends to whom. `queries` (Q,) and `keys` (K,) are places in packed tensors, row by row in one order."""

    queries: Tensor
    keys: Tensor
    lengths: tuple[tuple[int, int], ...]  # (queries, keys) of each row
    buckets: tuple[CrossBucket, ...]
    query_starts: Tensor  # (rows + 1,) int32 offsets, as varlen kernels want them
    key_starts: Tensor

    def flops(self, width: int) -> tuple[int, int]:
        """Operations of the two matrix products, forward: (on valid tokens, as spent)."""
        valid = sum(4 * q * k * width for q, k in self.lengths)
        return valid, sum(4 * b.rows * b.queries * b.keys * width for b in self.buckets)


def cross_layout(queries: Tensor, keys: Tensor) -> CrossLayout:
    """The layout of an attention from places of tokens: (B, Nq) and (B, Nk) int64, -1 where there is no token.

    A row without a query or without a key does not appear.
    """
    has_query, has_key = queries >= 0, keys >= 0
    sizes = torch.stack([has_query.sum(1), has_key.sum(1)], 1).tolist()
    rows = sorted((at for at, (q, k) in enumerate(sizes) if q and k), key=lambda at: _level(sizes[at]))
    order = torch.tensor(rows, dtype=torch.long, device=queries.device)
    at_queries, at_keys = queries[order][has_query[order]], keys[order][has_key[order]]
    lengths = [(q, k) for q, k in (sizes[at] for at in rows)]
    buckets, begin_q, begin_k = [], 0, 0
    for _, group in itertools.groupby(lengths, _level):
        own_q, own_k = zip(*group, strict=True)
        take_q, valid_q = _padded(own_q, at_queries[begin_q : begin_q + sum(own_q)])
        take_k, valid_k = _padded(own_k, at_keys[begin_k : begin_k + sum(own_k)])
        buckets.append(CrossBucket(len(own_q), max(own_q), max(own_k), take_q, take_k, valid_q, valid_k))
        begin_q, begin_k = begin_q + sum(own_q), begin_k + sum(own_k)
    starts = torch.tensor([(0, 0), *lengths], dtype=torch.int32).cumsum(0).int().to(queries.device)
    return CrossLayout(
        at_queries, at_keys, tuple(lengths), tuple(buckets), starts[:, 0].contiguous(), starts[:, 1].contiguous()
    )


def _level(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(math.log(n, _EVEN)) for n in sizes)


def _padded(lengths: Sequence[int], places: Tensor) -> tuple[Tensor, Tensor | None]:
    longest = max(lengths)
    if min(lengths) == longest:
        return places, None
    sizes = torch.tensor(lengths)
    column = torch.arange(longest)
    valid = column[None] < sizes[:, None]
    starts = sizes.cumsum(0) - sizes
    index = torch.where(valid, starts[:, None] + column[None], torch.zeros(()).long())
    return places[index.flatten().to(places.device)], valid.to(places.device)


def attend(q: Tensor, kv: Tensor, heads: int, layout: CrossLayout) -> Tensor:
    """Scaled dot-product attention over a layout.

    Args:
        q: (P, D) packed queries. kv: (P', 2 D) packed keys and values.

    Returns:
        (Q, D) in the order of `layout.queries`.
    """
    if not layout.buckets:
        return q.index_select(0, layout.queries)
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        return _varlen(q, kv, heads, layout)
    return torch.cat([_bucket(q, kv, heads, bucket) for bucket in layout.buckets])


def _bucket(q: Tensor, kv: Tensor, heads: int, bucket: CrossBucket) -> Tensor:
    queries = q.index_select(0, bucket.take_queries).view(bucket.rows, bucket.queries, heads, -1).transpose(1, 2)
    keys, values = (
        kv.index_select(0, bucket.take_keys).view(bucket.rows, bucket.keys, 2, heads, -1).permute(2, 0, 3, 1, 4)
    )
    mask = None if bucket.keys_valid is None else bucket.keys_valid[:, None, None, :]
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
    return mixed.flatten(0, 1) if bucket.queries_valid is None else mixed[bucket.queries_valid]


def _varlen(q: Tensor, kv: Tensor, heads: int, layout: CrossLayout) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    queries = q.index_select(0, layout.queries).view(len(layout.queries), heads, -1)
    both = kv.index_select(0, layout.keys).view(len(layout.keys), 2, heads, -1)
    keys, values = (part.contiguous() for part in both.unbind(1))
    most_queries, most_keys = (max(column) for column in zip(*layout.lengths, strict=True))
    mixed = varlen_attn(queries, keys, values, layout.query_starts, layout.key_starts, most_queries, most_keys)
    assert isinstance(mixed, Tensor)
    return mixed.flatten(1)


@dataclass(frozen=True)
class CoLayout:
    """The streams of a batch, packed.

    Args:
        own: stream -> how its tokens lie packed.
        picks: stream -> (P,) those of its packed tokens that stand in rows with another stream. Nothing is computed for
            the others. The tokens that co-attention sees are all streams' picks, one stream after the other.
        cross: stream -> who of it attends to whom, as places among all picks.
        back: stream -> (Q,) where the results of `cross` belong among the stream's packed tokens.
    """

    own: Mapping[str, Layout]
    picks: Mapping[str, Tensor]
    cross: Mapping[str, CrossLayout]
    back: Mapping[str, Tensor]


def co_layout(streams: Mapping[str, Tokens], own: Mapping[str, Layout]) -> CoLayout:
    """The layout of co-attention between all streams."""
    several = torch.stack([tokens.valid.any(1) for tokens in streams.values()]).sum(0) > 1
    picks, places, begin = {}, {}, 0
    for name, tokens in streams.items():
        chosen = tokens.valid & several[:, None]
        packed = torch.full_like(tokens.valid, -1, dtype=torch.long).flatten()
        packed[own[name].at] = torch.arange(len(own[name].at), device=packed.device)
        picks[name] = packed.view(chosen.shape)[chosen]
        places[name] = torch.full_like(chosen, -1, dtype=torch.long)
        places[name][chosen] = torch.arange(begin, begin + len(picks[name]), device=packed.device)
        begin += len(picks[name])
    every = torch.cat(list(picks.values()))
    nobody = several.new_empty((len(several), 0), dtype=torch.long)
    cross = {
        name: cross_layout(places[name], torch.cat([nobody, *(p for n, p in places.items() if n != name)], 1))
        for name in streams
    }
    return CoLayout(own, picks, cross, {name: every[layout.queries] for name, layout in cross.items()})


class CoAttention(nn.Module):
    """What each token learns from the other streams of its row.

    ::

        A_m(x) = softmax(q_m K' / sqrt(d)) V W_m,    K, V = the keys and values of all streams but m,

    each projected by the stream that it comes from.

    Args:
        names: of the streams.
        width: D. heads: must divide D.
        share: one set of weights for all streams (LXMERT), or one for each (ViLBERT).

    Source: Lu et al. 2019 (ViLBERT), section 2.2; Tan and Bansal 2019 (LXMERT), section 2.2.
    Differences: any number of streams; for two it is theirs. A token without another stream in its row gets exactly 0.
    """

    def __init__(self, names: Collection[str], width: int, heads: int, share: bool) -> None:
        super().__init__()
        self.heads = heads
        self.leader = {name: "all" if share else name for name in names}
        self.qkv = nn.ModuleDict({name: nn.Linear(width, 3 * width) for name in sorted(set(self.leader.values()))})
        self.out = nn.ModuleDict({name: nn.Linear(width, width) for name in self.qkv})

    def forward(self, xs: Mapping[str, Tensor], layout: CoLayout) -> dict[str, Tensor]:
        """Stream -> (K, D) packed, and the same of what they learn."""
        qkv = torch.cat([self.qkv[self.leader[name]](x.index_select(0, layout.picks[name])) for name, x in xs.items()])
        width = qkv.shape[1] // 3
        found = {}
        for name, x in xs.items():
            mixed = attend(qkv[:, :width], qkv[:, width:], self.heads, layout.cross[name])
            learnt = self.out[self.leader[name]](mixed)
            found[name] = learnt.new_zeros((len(x), width)).index_copy(0, layout.back[name], learnt)
        return found


class Feed(nn.Module):
    """MLP with a residual: x + F(LN(x)), or LN(x + F(x)) where norms stand after."""

    def __init__(self, width: int, config: StackConfig) -> None:
        super().__init__()
        inner = int(width * config.mlp_ratio)
        self.post = config.norm == "post"
        self.norm = nn.LayerNorm(width, config.eps)
        activation = nn.GELU("tanh" if config.activation == "gelu_tanh" else "none")
        self.mlp = nn.Sequential(nn.Linear(width, inner), activation, nn.Linear(inner, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(K, D) -> (K, D)."""
        out: Tensor = (
            self.norm(x + self.dropout(self.mlp(x))) if self.post else x + self.dropout(self.mlp(self.norm(x)))
        )
        return out


class CoLayer(nn.Module):
    """One layer of all streams: co-attention, then each stream alone.

    ::

        vilbert: co-attention, MLP (its co-attention layer), then self-attention, MLP (its transformer layer)
        lxmert:  co-attention, self-attention, MLP (its cross-modality layer)

    each with a residual and a LayerNorm where `config.norm` says.

    Source: ViLBERT, figures 1 and 2b; LXMERT, section 2.2, "cross-modality encoder". LXMERT shares the co-attention
        with its norm between the directions (`share`).
    Differences: all streams have one width (ViLBERT: 768 and 1024) and one depth.
    """

    def __init__(self, names: Collection[str], width: int, config: StackConfig, order: Order, share: bool) -> None:
        super().__init__()
        self.post = config.norm == "post"
        self.cross = CoAttention(names, width, config.heads_for(width), share)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width, config.eps) for name in self.cross.qkv})
        self.feeds = nn.ModuleDict({name: Feed(width, config) for name in names} if order == "vilbert" else {})
        self.blocks = nn.ModuleDict({name: Block(width, config) for name in names})
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, xs: Mapping[str, Tensor], layout: CoLayout) -> dict[str, Tensor]:
        """Stream -> (K, D) packed, in and out."""
        if self.post:
            found = self.cross(xs, layout)
            xs = {name: self._norm(name, x + self.dropout(found[name])) for name, x in xs.items()}
        else:
            found = self.cross({name: self._norm(name, x) for name, x in xs.items()}, layout)
            xs = {name: x + self.dropout(found[name]) for name, x in xs.items()}
        if self.feeds:
            xs = {name: self.feeds[name](x) for name, x in xs.items()}
        return {name: self.blocks[name](x, layout.own[name]) for name, x in xs.items()}

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return cast(Tensor, self.norms[self.cross.leader[name]](x))


class CoStack(nn.Module):
    """Layers of streams that attend to one another; a final LayerNorm for each where norms stand before.

    Args:
        names: of all streams there can be; `forward` takes any of them.
        width: D.
        config: depth and shape. order, share: see `CoLayer`, `CoAttention`.

    A row without a stream costs that stream nothing; a row with a single stream costs no co-attention.
    """

    def __init__(self, names: Collection[str], width: int, config: StackConfig, order: Order, share: bool) -> None:
        super().__init__()
        self.width, self.config = width, config
        self.layers = nn.ModuleList(CoLayer(names, width, config, order, share) for _ in range(config.layers))
        last = [nn.LayerNorm(width, config.eps) if config.norm == "pre" else nn.Identity() for _ in names]
        self.norms = nn.ModuleDict(dict(zip(names, last, strict=True)))

    def forward(self, streams: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """Stream -> Tokens (B, N, D), and the same; what is not valid comes out as zeros."""
        packed = {name: pack(tokens) for name, tokens in streams.items()}
        own = {name: layout for name, (_, layout) in packed.items()}
        xs = {name: x for name, (x, _) in packed.items()}
        layout = co_layout(streams, own)
        self._count(layout)
        for layer in self.layers:
            xs = layer(xs, layout)
        return {name: unpack(self.norms[name](x), own[name], streams[name].valid) for name, x in xs.items()}

    def _count(self, layout: CoLayout) -> None:
        counted = meter()
        if counted is None or not self.layers:
            return
        width, ratio, layers = self.width, self.config.mlp_ratio, self.config.layers
        square, slots = 2 * width * width, {name: math.prod(own.shape) for name, own in layout.own.items()}
        feeds = 2 if cast(CoLayer, self.layers[0]).feeds else 1
        alone = int((4 + feeds * 2 * ratio) * square)
        for name, own in layout.own.items():
            valid, spent = attention_flops(own, width)
            linear = alone * sum(own.lengths) + 4 * square * len(layout.picks[name])
            others = sum(slots.values()) // own.shape[0] - own.shape[1] if own.shape[0] else 0
            dense = (alone + 4 * square) * slots[name] + 4 * slots[name] * (own.shape[1] + others) * width
            across = layout.cross[name].flops(width)
            counted.count(layers * (linear + valid + across[0]), layers * (linear + spent + across[1]), layers * dense)


class Readout(nn.Module):
    """One vector of a row from all its tokens: a learned query attends to them, then an MLP.

    ::

        x = LN(item + A(item, tokens)),  then  F with a residual

    The streams do not see it, so that they are what they would be without it.

    Source: pooling by attention, Lee et al. 2019 (Set Transformer), section 3.2, with one seed.
    """

    def __init__(self, width: int, config: StackConfig) -> None:
        super().__init__()
        self.width, self.ratio, self.heads = width, config.mlp_ratio, config.heads_for(width)
        self.item = nn.Parameter(torch.randn(width) * 0.02)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm, self.feed = nn.LayerNorm(width, config.eps), Feed(width, config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, streams: Mapping[str, Tokens]) -> Tokens:
        """Stream -> Tokens (B, N, D), to Tokens (B, 1, D); a row without a valid token has no valid one here."""
        joined = presence.join(streams)
        valid, rows = joined.valid, joined.valid.shape[0]
        places = torch.full_like(valid, -1, dtype=torch.long)
        x = joined.x[valid]
        places[valid] = torch.arange(len(x), device=x.device)
        asked = torch.arange(rows, device=x.device).where(valid.any(1), -1)[:, None]
        layout = cross_layout(asked, places)
        self._count(layout, rows, valid.shape[1])
        query = self.q(self.item[None]).expand(rows, -1)
        mixed = self.out(attend(query, self.kv(x), self.heads, layout))
        vector = self.feed(self.norm(self.item + self.dropout(mixed)))
        out = vector.new_zeros((rows, self.width)).index_copy(0, layout.queries, vector)
        return Tokens(out[:, None], valid.any(1, keepdim=True))

    def _count(self, layout: CrossLayout, rows: int, columns: int) -> None:
        counted = meter()
        if counted is None:
            return
        square = 2 * self.width * self.width
        valid, spent = layout.flops(self.width)
        each = int((1 + 2 * self.ratio) * square)  # of a row that has a token; the query itself is made once
        linear = square + each * len(layout.lengths) + 2 * square * len(layout.keys)
        dense = square + each * rows + 2 * square * rows * columns + 4 * rows * columns * self.width
        counted.count(linear + valid, linear + spent, dense)
