"""Packed attention against a dense one written from the formula: a padded row at a time, softmax over valid keys."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polymodal.nn.attention import Attention, attention_flops, pack, unpack
from polymodal.nn.blocks import Block, FlopMeter, Stack, StackConfig, metered
from polymodal.tensors import Tokens

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=7)


def tokens_of(lengths: list[int], width: int = 8, seed: int = 0, scattered: bool = False) -> Tokens:
    """Rows of the given lengths; garbage where not valid; valid tokens first, or anywhere where `scattered`."""
    generator = torch.Generator().manual_seed(seed)
    columns = max(max(lengths), 1) + 3
    place = (
        torch.rand(len(lengths), columns, generator=generator).argsort(1)
        if scattered
        else torch.arange(columns).expand(len(lengths), -1)
    )
    valid = place < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), columns, width, generator=generator)
    return Tokens(torch.where(valid[..., None], x, 1e4), valid)


def dense_attention(attention: Attention, x: Tensor) -> Tensor:
    """(n, D) of one row -> (n, D), in float64, head by head."""
    width = x.shape[1]
    size = width // attention.heads
    w, b = attention.qkv.weight.double(), attention.qkv.bias.double()
    q, k, v = (x @ w[i * width : (i + 1) * width].T + b[i * width : (i + 1) * width] for i in range(3))
    heads = []
    for h in range(attention.heads):
        part = slice(h * size, (h + 1) * size)
        heads.append((q[:, part] @ k[:, part].T / size**0.5).softmax(-1) @ v[:, part])
    return torch.cat(heads, 1) @ attention.out.weight.double().T + attention.out.bias.double()


def dense_stack(stack: Stack, tokens: Tokens) -> Tensor:
    """The stack over each row's valid tokens alone, in float64; zeros elsewhere."""
    norm = nn.functional.layer_norm

    def normed(x: Tensor, layer: nn.LayerNorm) -> Tensor:
        return norm(x, (x.shape[1],), layer.weight.double(), layer.bias.double(), layer.eps)

    rows = []
    for x, valid in zip(tokens.x, tokens.valid, strict=True):
        row = x[valid].double()
        for block in stack.blocks:
            assert isinstance(block, Block)
            if len(row):
                row = row + dense_attention(block.attention, normed(row, block.norm1))
            inner = nn.functional.gelu(
                normed(row, block.norm2) @ block.mlp[0].weight.double().T + block.mlp[0].bias.double()
            )
            row = row + inner @ block.mlp[2].weight.double().T + block.mlp[2].bias.double()
        rows.append(
            torch.zeros(len(x), x.shape[1], dtype=torch.double).index_copy(
                0, valid.nonzero()[:, 0], normed(row, stack.norm)
            )
        )
    return torch.stack(rows)


@given(LENGTHS, st.booleans())
def test_unpack_undoes_pack(lengths, scattered):
    tokens = tokens_of(lengths, scattered=scattered)
    packed, layout = pack(tokens)
    assert len(packed) == sum(lengths)
    assert list(layout.lengths) == sorted((n for n in lengths if n), reverse=True)
    assert layout.starts.tolist() == [sum(layout.lengths[:at]) for at in range(len(layout.lengths) + 1)]
    assert sum(b.tokens for b in layout.buckets) == sum(lengths)
    assert sum(b.rows for b in layout.buckets) == len(layout.lengths)
    back = unpack(packed, layout, tokens.valid)
    assert torch.equal(back.x[tokens.valid], tokens.x[tokens.valid])
    assert back.x[~tokens.valid].eq(0).all()


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.booleans(), st.integers(0, 3))
def test_packed_equals_dense(lengths, scattered, seed):
    torch.manual_seed(seed)
    stack = Stack(8, StackConfig(layers=2, heads=2))
    tokens = tokens_of(lengths, seed=seed, scattered=scattered)
    x = tokens.x.requires_grad_()
    dense = dense_stack(stack, tokens)
    packed = stack(tokens)
    assert torch.equal(packed.valid, tokens.valid)
    assert (packed.x - dense).abs().max() < 1e-5
    probe = torch.randn(packed.x.shape)
    wanted = torch.autograd.grad((dense * probe.double()).sum(), [x, *stack.parameters()], allow_unused=True)
    found = torch.autograd.grad((packed.x * probe).sum(), [x, *stack.parameters()], allow_unused=True)
    for a, b in zip(wanted, found, strict=True):
        if a is None or b is None:
            assert not any(lengths)
            continue
        assert (a - b).abs().max() < 1e-4
    assert found[0][~tokens.valid].eq(0).all()


@pytest.mark.parametrize("lengths", [[5, 5, 5], [7], [1, 1], [20, 19, 18, 3], [0, 0], [0, 4], [30, 1, 0, 28, 27, 27]])
def test_shapes_that_take_each_path(lengths):
    torch.manual_seed(0)
    stack = Stack(8, StackConfig(layers=1, heads=2))
    tokens = tokens_of(lengths)
    assert (stack(tokens).x - dense_stack(stack, tokens)).abs().max() < 1e-5


def test_rows_do_not_see_one_another():
    torch.manual_seed(0)
    stack = Stack(8, StackConfig(layers=2, heads=2)).eval()
    tokens = tokens_of([20, 19, 19, 4])
    before = stack(tokens).x
    other = Tokens(tokens.x.clone(), tokens.valid)
    other.x[1] = other.x[1].flip(-1)
    after = stack(other).x
    assert not torch.allclose(before[1], after[1], atol=1e-3)
    for row in (0, 2, 3):
        assert torch.allclose(before[row], after[row], atol=1e-6)


@given(LENGTHS.filter(any))
def test_operations_counted(lengths):
    _, layout = pack(tokens_of(lengths))
    valid, spent = attention_flops(layout, 8)
    assert valid == sum(4 * n * n * 8 for n in lengths)
    dense = 4 * len(lengths) * max(lengths) ** 2 * 8
    assert valid <= spent <= dense
    # every row of a bucket has at least nine tenths of its longest, so at most 1/0.81 of what is needed is done
    assert spent <= valid / 0.81 + 1e-6


@pytest.mark.parametrize("lengths", [[12, 12, 12], [30, 29, 28, 7, 7, 1], [5], [0, 3]])
def test_meter_agrees_with_torch(lengths):
    """What the meter says was spent is what torch counts of matrix products in the forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    stack = Stack(16, StackConfig(layers=3, heads=2, mlp_ratio=2.0))
    with (
        metered() as meter,
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        stack(tokens_of(lengths, width=16))
    assert meter.valid <= meter.spent <= meter.dense
    assert meter.spent == counter.get_total_flops()
    assert meter.valid == sum(3 * (n * (4 + 4) * 2 * 16 * 16 + 4 * n * n * 16) for n in lengths)


def test_meter_counts_all_stacks_inside_and_none_outside():
    stack = Stack(8, StackConfig(layers=1, heads=2))
    tokens = tokens_of([4, 4])
    stack(tokens)
    with metered() as outer:
        stack(tokens)
        with metered() as inner:
            stack(tokens)
        stack(tokens)
    assert outer.spent == 2 * inner.spent > 0
    assert isinstance(outer, FlopMeter)


@pytest.mark.parametrize(
    ("heads", "width", "expected"), [(0, 768, 12), (0, 64, 2), (0, 32, 2), (8, 12, 6), (5, 7, 1), (0, 9, 1)]
)
def test_heads_divide_the_width(heads, width, expected):
    assert StackConfig(heads=heads).heads_for(width) == expected


def test_dropout_only_in_training():
    stack = Stack(8, StackConfig(layers=1, heads=2, dropout=0.5))
    tokens = tokens_of([5, 3])
    assert not torch.equal(stack(tokens).x, stack(tokens).x)
    stack.eval()
    assert torch.equal(stack(tokens).x, stack(tokens).x)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast_runs_and_is_near(dtype):
    torch.manual_seed(0)
    stack = Stack(16, StackConfig(layers=2, heads=2))
    tokens = tokens_of([9, 8, 3, 0], width=16)
    exact = stack(tokens).x
    with torch.autocast("cpu", dtype):
        near = stack(tokens).x
    assert (near.float() - exact).abs().max() < 0.1
    assert not torch.equal(near.float(), exact)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_a_block_is_the_encoder_layer_of_torch(norm, activation, approximate):
    """Both places of the norm and both activations, against torch's own layer with the same weights."""
    torch.manual_seed(0)
    block = Block(8, StackConfig(heads=2, norm=norm, activation=activation, eps=1e-6, mlp_ratio=2.0))
    layer = nn.TransformerEncoderLayer(
        8,
        2,
        16,
        dropout=0.0,
        activation=nn.GELU(approximate),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=norm == "pre",
    )
    with torch.no_grad():
        for ours, theirs in (
            (block.attention.qkv.weight, layer.self_attn.in_proj_weight),
            (block.attention.qkv.bias, layer.self_attn.in_proj_bias),
            (block.attention.out.weight, layer.self_attn.out_proj.weight),
            (block.attention.out.bias, layer.self_attn.out_proj.bias),
            (block.mlp[0].weight, layer.linear1.weight),
            (block.mlp[0].bias, layer.linear1.bias),
            (block.mlp[2].weight, layer.linear2.weight),
            (block.mlp[2].bias, layer.linear2.bias),
        ):
            ours.normal_()
            theirs.copy_(ours)
    tokens = tokens_of([5, 3, 0, 4])
    packed, layout = pack(tokens)
    found = block(packed, layout)
    starts = layout.starts.tolist()
    for begin, end in itertools.pairwise(starts):
        wanted = layer(packed[begin:end][None])[0]
        assert torch.allclose(found[begin:end], wanted, atol=1e-5)


def test_a_post_norm_stack_ends_on_its_last_block():
    assert isinstance(Stack(8, StackConfig(norm="post")).norm, nn.Identity)
    assert isinstance(Stack(8, StackConfig(norm="pre")).norm, nn.LayerNorm)
