"""Packed co-attention against a dense one written from the formulas, a row at a time, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polymodal import presence
from polymodal.nn.attention import pack
from polymodal.nn.blocks import StackConfig, metered
from polymodal.nn.cross import CoAttention, CoStack, Readout, attend, co_layout, cross_layout
from polymodal.tensors import Tokens

TWO, THREE = ("words", "regions"), ("words", "regions", "sound")
LENGTHS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=6)


def streams_of(lengths: Sequence[Sequence[int]], names=THREE, width: int = 8, seed: int = 0) -> dict[str, Tokens]:
    """Row b has lengths[b][m] tokens of stream m, at any places; garbage where none is valid."""
    generator = torch.Generator().manual_seed(seed)
    streams = {}
    for at, name in enumerate(names):
        sizes = torch.tensor([row[at] for row in lengths])
        columns = max(int(sizes.max()), 1) + 2
        valid = torch.rand(len(sizes), columns, generator=generator).argsort(1) < sizes[:, None]
        x = torch.randn(len(sizes), columns, width, generator=generator)
        streams[name] = Tokens(torch.where(valid[..., None], x, 1e4), valid)
    return streams


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.double().T + layer.bias.double()


def normed(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Identity):
        return x
    return nn.functional.layer_norm(x, x.shape[1:], layer.weight.double(), layer.bias.double(), layer.eps)


def heads_of(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    size = q.shape[1] // heads
    parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
    return torch.cat([(q[:, p] @ k[:, p].T / size**0.5).softmax(-1) @ v[:, p] for p in parts], 1)


def mlp(net: nn.Sequential, x: Tensor) -> Tensor:
    return linear(net[2], nn.functional.gelu(linear(net[0], x)))


def sublayer(x: Tensor, norm: nn.Module, post: bool, function) -> Tensor:
    return normed(norm, x + function(x)) if post else x + function(normed(norm, x))


def co_attention(layer, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What every stream of one row learns: queries of its own, keys and values projected by their own streams."""
    cross = layer if isinstance(layer, CoAttention) else layer.cross
    qkv = {n: linear(cross.qkv[cross.leader[n]], x).chunk(3, 1) for n, x in row.items()}
    out = {}
    for name, x in row.items():
        others = [n for n in row if n != name and len(row[n])]
        if others and len(x):
            k, v = (torch.cat([qkv[n][i] for n in others]) for i in (1, 2))
            out[name] = linear(cross.out[cross.leader[name]], heads_of(qkv[name][0], k, v, cross.heads))
        else:
            out[name] = torch.zeros_like(x)
    return out


def dense_row(stack: CoStack, row: dict[str, Tensor], order: str) -> dict[str, Tensor]:
    """Layer by layer as ViLBERT's co-attention layer and transformer layer, or LXMERT's cross-modality layer."""
    for layer in stack.layers:
        norm = {n: layer.norms[layer.cross.leader[n]] for n in row}
        if layer.post:
            learnt = co_attention(layer, row)
            row = {n: normed(norm[n], x + learnt[n]) for n, x in row.items()}
        else:
            learnt = co_attention(layer, {n: normed(norm[n], x) for n, x in row.items()})
            row = {n: x + learnt[n] for n, x in row.items()}
        after = {}
        for name, x in row.items():
            if order == "vilbert":
                feed = layer.feeds[name]
                x = sublayer(x, feed.norm, layer.post, lambda y, f=feed: mlp(f.mlp, y))
            block = layer.blocks[name]

            def itself(y: Tensor, b=block) -> Tensor:
                return linear(b.attention.out, heads_of(*linear(b.attention.qkv, y).chunk(3, 1), b.attention.heads))

            x = sublayer(x, block.norm1, layer.post, itself) if len(x) else x
            after[name] = sublayer(x, block.norm2, layer.post, lambda y, b=block: mlp(b.mlp, y))
        row = after
    return {name: normed(stack.norms[name], x) for name, x in row.items()}


def dense(stack: CoStack, streams: Mapping[str, Tokens], order: str) -> dict[str, Tensor]:
    out = {name: torch.zeros(tokens.x.shape, dtype=torch.double) for name, tokens in streams.items()}
    for at in range(len(next(iter(streams.values())).x)):
        row = {name: tokens.x[at][tokens.valid[at]].double() for name, tokens in streams.items()}
        for name, x in dense_row(stack, row, order).items():
            out[name][at, streams[name].valid[at]] = x
    return out


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module


@pytest.mark.parametrize("order", ["vilbert", "lxmert"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("names", [TWO, THREE], ids=len)
def test_a_layer_is_that_of_the_original(order, norm, share, names):
    """ViLBERT's and LXMERT's layers for two streams, the same formula for three; rows with one stream among them."""
    stack = randomised(CoStack(names, 8, StackConfig(layers=2, heads=2, norm=norm, mlp_ratio=2.0), order, share))
    streams = streams_of([(4, 6, 3), (1, 1, 1), (5, 0, 0), (0, 3, 0), (0, 0, 0), (12, 2, 0), (4, 5, 3)], names)
    found, wanted = stack(streams), dense(stack, streams, order)
    for name in names:
        assert torch.equal(found[name].valid, streams[name].valid)
        assert (found[name].x - wanted[name]).abs().max() < 2e-5
        assert found[name].x[~found[name].valid].eq(0).all()


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.integers(0, 3))
def test_any_lengths_and_their_gradients(lengths, seed):
    stack = randomised(CoStack(THREE, 8, StackConfig(layers=1, heads=2, mlp_ratio=1.0), "vilbert", False), seed)
    streams = streams_of(lengths, seed=seed)
    xs = [tokens.x.requires_grad_() for tokens in streams.values()]
    found, wanted = stack(streams), dense(stack, streams, "vilbert")
    probes = {name: torch.randn(tokens.x.shape) for name, tokens in streams.items()}
    sums = [sum((out * probes[n]).sum() for n, out in o.items()) for o in ({n: t.x for n, t in found.items()}, wanted)]
    leaves = [*xs, *stack.parameters()]
    grads = [torch.autograd.grad(s, leaves, allow_unused=True) for s in sums]
    for name in THREE:
        assert (found[name].x - wanted[name]).abs().max() < 2e-5
    for a, b in zip(*grads, strict=True):
        a, b = (torch.zeros(()) if g is None else g for g in (a, b))
        assert (a - b).abs().max() < 1e-3 * max(1.0, float(b.abs().max()))
    assert all(g is None or g[~t.valid].eq(0).all() for g, t in zip(grads[0], streams.values(), strict=False))


def test_torch_computes_the_same_attention():
    """One direction against torch's own function: queries of one stream, keys and values of the other."""
    cross = randomised(CoAttention(TWO, 8, 2, False))
    streams = streams_of([(5, 3)], TWO)
    packed = {name: pack(tokens) for name, tokens in streams.items()}
    layout = co_layout(streams, {name: own for name, (_, own) in packed.items()})
    xs = {name: x for name, (x, _) in packed.items()}
    found = cross(xs, layout)
    for one, other in (TWO, TWO[::-1]):
        (wq, _, _), (_, wk, wv) = (cross.qkv[n].weight.chunk(3) for n in (one, other))
        (bq, _, _), (_, bk, bv) = (cross.qkv[n].bias.chunk(3) for n in (one, other))
        wanted, _ = nn.functional.multi_head_attention_forward(
            xs[one][:, None],
            xs[other][:, None],
            xs[other][:, None],
            8,
            2,
            torch.cat([wq, wk, wv]),
            torch.cat([bq, bk, bv]),
            None,
            None,
            False,
            0.0,
            cross.out[one].weight,
            cross.out[one].bias,
        )
        assert torch.allclose(found[one], wanted[:, 0], atol=1e-6)


def test_a_row_alone_learns_exactly_nothing_from_others():
    cross = randomised(CoAttention(THREE, 8, 2, False))
    streams = streams_of([(4, 0, 0), (0, 3, 0), (2, 2, 0)])
    packed = {name: pack(tokens) for name, tokens in streams.items()}
    layout = co_layout(streams, {name: own for name, (_, own) in packed.items()})
    found = cross({name: x for name, (x, _) in packed.items()}, layout)
    assert len(found["sound"]) == 0
    for name, lone in (("words", 4), ("regions", 3)):
        lengths = layout.own[name].lengths
        for at, (length, begin) in enumerate(zip(lengths, layout.own[name].starts.tolist(), strict=False)):
            part = found[name][begin : begin + length]
            assert part.eq(0).all() == (length == lone), at
    assert {name: len(p) for name, p in layout.picks.items()} == {"words": 2, "regions": 2, "sound": 0}


def test_no_row_with_two_streams_is_no_error():
    stack = CoStack(THREE, 8, StackConfig(layers=2, heads=2), "vilbert", False)
    for lengths in ([(3, 0, 0), (0, 2, 0)], [(0, 0, 0)], [(0, 0, 4)]):
        streams = streams_of(lengths)
        x = streams["words"].x.requires_grad_()
        out = stack(streams)
        total = sum(tokens.x.sum() for tokens in out.values())
        assert total.isfinite()
        (grad,) = torch.autograd.grad(total, [x])
        assert grad.isfinite().all()
    alone = {"words": streams_of([(3, 1, 1)])["words"]}
    assert stack(alone)["words"].x.isfinite().all()


def test_rows_do_not_see_one_another():
    stack = randomised(CoStack(THREE, 8, StackConfig(layers=2, heads=2), "lxmert", False))
    streams = streams_of([(4, 6, 3), (4, 5, 3), (5, 5, 0)])
    before = stack(streams)
    for name in THREE:
        streams[name].x[1] = streams[name].x[1].flip(-1)
    after = stack(streams)
    for name in THREE:
        valid = streams[name].valid
        assert not torch.allclose(before[name].x[1], after[name].x[1], atol=1e-3)
        for row in (0, 2):
            assert torch.allclose(before[name].x[row][valid[row]], after[name].x[row][valid[row]], atol=1e-6)


def test_a_stream_of_no_row_is_as_one_that_is_not_there():
    stack = randomised(CoStack(THREE, 8, StackConfig(layers=2, heads=2), "vilbert", False))
    streams = streams_of([(4, 6, 0), (4, 5, 0), (5, 0, 0)])
    full, less = stack(streams), stack({name: streams[name] for name in TWO})
    for name in TWO:
        assert torch.equal(full[name].x, less[name].x)


def test_sharing_shares():
    one, each = (CoStack(THREE, 8, StackConfig(layers=1, heads=2), "lxmert", share) for share in (True, False))
    sizes = [sum(p.numel() for p in stack.layers[0].cross.parameters()) for stack in (one, each)]
    assert sizes[1] == 3 * sizes[0] == 3 * (4 * 64 + 4 * 8)
    assert not one.layers[0].feeds
    assert set(CoStack(TWO, 8, StackConfig(layers=1, heads=2), "vilbert", False).layers[0].feeds) == set(TWO)


# -- the layout --------------------------------------------------------------------------------------------------------


@given(LENGTHS)
def test_a_layout_has_every_row_once_and_little_padding(lengths):
    streams = streams_of(lengths)
    places = {}
    for name in TWO:
        valid = streams[name].valid
        places[name] = torch.full_like(valid, -1, dtype=torch.long)
        places[name][valid] = torch.arange(int(valid.sum()))
    layout = cross_layout(places["words"], places["regions"])
    both = sorted((q, k) for q, k, _ in lengths if q and k)
    assert sorted(layout.lengths) == both
    assert sum(bucket.rows for bucket in layout.buckets) == len(both)
    valid, spent = layout.flops(8)
    assert valid == sum(4 * q * k * 8 for q, k in both)
    assert valid <= spent <= valid * 1.25**2
    assert layout.query_starts.tolist() == [0, *itertools.accumulate(q for q, _ in layout.lengths)]
    assert layout.key_starts.tolist() == [0, *itertools.accumulate(k for _, k in layout.lengths)]
    assert layout.query_starts.dtype == layout.key_starts.dtype == torch.int32
    # what a kernel over packed rows would compute is what the buckets compute
    q, kv = torch.randn(sum(r[0] for r in lengths), 8), torch.randn(sum(r[1] for r in lengths), 16)
    found = attend(q, kv, 2, layout)
    assert len(found) == sum(a for a, _ in both)
    for at, (a, b) in enumerate(layout.lengths):
        mine = layout.queries[layout.query_starts[at] : layout.query_starts[at] + a]
        others = layout.keys[layout.key_starts[at] : layout.key_starts[at] + b]
        wanted = heads_of(q[mine].double(), kv[others, :8].double(), kv[others, 8:].double(), 2)
        part = found[layout.query_starts[at] : layout.query_starts[at] + a]
        assert (part - wanted).abs().max() < 1e-5


# -- the summary -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_readout_is_an_attention_over_all_tokens_of_the_row(norm):
    readout = randomised(Readout(8, StackConfig(heads=2, norm=norm, mlp_ratio=2.0)))
    streams = streams_of([(4, 6, 3), (5, 0, 0), (0, 0, 0), (1, 2, 0), (0, 0, 1)])
    found = readout(streams)
    assert found.valid[:, 0].tolist() == [True, True, False, True, True]
    joined = presence.join(streams)
    for at, (x, valid) in enumerate(zip(joined.x, joined.valid, strict=True)):
        tokens = x[valid].double()
        if not len(tokens):
            assert found.x[at].eq(0).all()
            continue
        item = readout.item.double()[None]
        k, v = linear(readout.kv, tokens).chunk(2, 1)
        vector = normed(readout.norm, item + linear(readout.out, heads_of(linear(readout.q, item), k, v, 2)))
        vector = sublayer(vector, readout.feed.norm, norm == "post", lambda y: mlp(readout.feed.mlp, y))
        assert (found.x[at] - vector).abs().max() < 1e-5


# -- operations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["vilbert", "lxmert"])
@pytest.mark.parametrize("lengths", [[(4, 6, 3)] * 3, [(4, 6, 3), (5, 0, 0), (9, 2, 1)], [(0, 3, 0)], [(0, 0, 0)]])
def test_the_meter_agrees_with_torch(order, lengths):
    from torch.utils.flop_counter import FlopCounterMode

    config = StackConfig(layers=2, heads=2, mlp_ratio=2.0)
    for module in (CoStack(THREE, 16, config, order, False), Readout(16, config)):
        with (
            metered() as meter,
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            module(streams_of(lengths, width=16))
        assert meter.valid <= meter.spent <= meter.dense
        assert meter.spent == counter.get_total_flops()


def test_rows_alone_cost_no_co_attention():
    stack = CoStack(THREE, 16, StackConfig(layers=1, heads=2), "lxmert", False)
    with metered() as apart:
        stack(streams_of([(4, 0, 0), (0, 4, 0)], width=16))
    with metered() as together:
        stack(streams_of([(4, 4, 0)], width=16))
    # eight tokens: four projections, and every token attends to the four of the other stream
    assert together.spent - apart.spent == 8 * 4 * 2 * 16 * 16 + 4 * 2 * 4 * 4 * 16
