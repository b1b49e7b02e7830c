from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polymodal import presence
from polymodal.objective import Alone
from polymodal.tensors import Batch, Cells, Embedded, Tokens

_SOME = st.integers(1, 6)
lengths = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def rows_of(sizes: list[int]) -> list[dict[str, torch.Tensor] | None]:
    """Fields whose content says whose they are; a 0 is None or empty by turns."""
    made = []
    for at, n in enumerate(sizes):
        fields = {"x": torch.full((n, 2), float(at + 1)), "id": torch.arange(n) + 10 * at}
        made.append(None if n == 0 and at % 2 else fields)
    return made


def masks(
    rows: st.SearchStrategy[int] = _SOME, columns: st.SearchStrategy[int] = _SOME
) -> st.SearchStrategy[torch.Tensor]:
    return st.tuples(rows, columns, st.randoms(use_true_random=False)).map(
        lambda t: torch.tensor([[t[2].random() < 0.6 for _ in range(t[1])] for _ in range(t[0])])
    )


# -- fill, scatter, complete ------------------------------------------------------------------------------------------


@given(lengths)
def test_fill(sizes):
    cells = presence.fill(rows_of(sizes))
    if max(sizes) == 0:
        assert cells is None
        return
    assert cells.valid.sum(1).tolist() == sizes
    assert cells.valid.shape[1] == max(sizes)
    assert cells.present.tolist() == [n > 0 for n in sizes]
    assert cells.fields["id"].dtype == torch.long
    for at, n in enumerate(sizes):
        assert cells.fields["x"][at, :n].eq(at + 1).all()
        assert cells.fields["x"][at, n:].eq(0).all()
        assert cells.valid[at, :n].all()


@given(lengths)
def test_fill_with_blanks_attends_them(sizes):
    blank = {"x": torch.full((2, 2), 7.0), "id": torch.tensor([5, 6])}
    cells = presence.fill(rows_of(sizes), blank)
    assert cells.present.all()
    for at, n in enumerate(sizes):
        assert cells.valid[at].sum() == (n or 2)
        if n == 0:
            assert cells.fields["x"][at, :2].eq(7).all()


@given(masks())
def test_scatter_undoes_packing(valid):
    packed = torch.randn(int(valid.sum()), 3, requires_grad=True)
    tokens = presence.scatter(packed, valid)
    assert torch.equal(tokens.x[valid], packed)
    assert tokens.x[~valid].eq(0).all()
    tokens.x.sum().backward()
    assert packed.grad.eq(1).all()


def test_complete_adds_what_no_row_has():
    batch = Batch(("a", "b"), {"m": presence.fill(rows_of([1, 2]))})
    blank = {"y": torch.ones(4, 3, 2, dtype=torch.uint8), "id": torch.ones(4, dtype=torch.long)}
    full = presence.complete(batch, {"m": {}, "n": blank})
    assert full.cells["m"] is batch.cells["m"]
    assert full.cells["n"].fields["y"].shape == (2, 1, 3, 2)
    assert full.cells["n"].fields["y"].dtype == torch.uint8
    assert not full.cells["n"].valid.any()
    assert full.digests["n"].tolist() == [0, 0]
    assert (full.ids, full.keys is batch.keys) == (batch.ids, True)
    assert presence.complete(full, {"n": blank}) is full


# -- restrict, keep_only, drop -----------------------------------------------------------------------------------------


def parts_of(valid: torch.Tensor) -> dict[str, Tokens]:
    """A part of two tokens per column of `valid` (B, M)."""
    return {
        f"m{at}": Tokens(torch.ones(len(valid), 2, 3), valid[:, at : at + 1].expand(-1, 2))
        for at in range(valid.shape[1])
    }


def test_restrict_and_keep_only():
    parts = parts_of(torch.tensor([[True, True], [True, False]]))
    restricted = presence.restrict(parts["m0"], torch.tensor([False, True]))
    assert restricted.valid.tolist() == [[False, False], [True, True]]
    assert restricted.x is parts["m0"].x
    assert list(presence.keep_only(parts, ["m1", "unknown"])) == ["m1"]


@given(masks(), st.floats(0, 1), st.integers(0, 2**31))
def test_drop_takes_away_but_never_the_last(valid, probability, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = parts_of(valid)
    draws = {name: torch.rand(len(valid), 2, generator=generator) for name in parts}
    dropped = presence.drop(parts, probability, draws)
    after = torch.stack([t.valid.any(1) for t in dropped.values()], 1)
    assert list(dropped) == list(parts)
    assert not (after & ~valid).any()
    assert torch.equal(after.any(1), valid.any(1))
    if probability == 0:
        assert torch.equal(after, valid)
    if probability == 1:
        assert after.sum(1).tolist() == valid.any(1).long().tolist()


def test_drop_takes_the_share_it_says_and_keeps_each_equally():
    rows = 20000
    generator = torch.Generator().manual_seed(0)
    parts = parts_of(torch.ones(rows, 3, dtype=torch.bool))
    draws = {name: torch.rand(rows, 2, generator=generator) for name in parts}
    kept = torch.stack([t.valid[:, 0] for t in presence.drop(parts, 0.3, draws).values()], 1).double().mean(0)
    # kept by fate, or else because it is the one that is kept in any case
    assert (kept - (0.7 + 0.3 / 3)).abs().max() < 0.02
    last = torch.stack([t.valid[:, 0] for t in presence.drop(parts, 1.0, draws).values()], 1).double().mean(0)
    assert (last - 1 / 3).abs().max() < 0.02


def test_drop_of_a_row_does_not_depend_on_other_rows():
    valid = torch.tensor([[True, True, False], [True, True, True]])
    draws = {f"m{at}": torch.rand(2, 2) for at in range(3)}
    both = presence.drop(parts_of(valid), 0.5, draws)
    alone = presence.drop(parts_of(valid[1:]), 0.5, {n: d[1:] for n, d in draws.items()})
    assert all(torch.equal(both[n].valid[1:], alone[n].valid) for n in both)


# -- hide --------------------------------------------------------------------------------------------------------------


@given(masks(), st.floats(0, 1), st.integers(0, 2**31), st.booleans())
def test_hide_takes_valid_tokens_and_whole_units(valid, ratio, seed, tie):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(valid.shape, generator=generator)
    unit = torch.randint(0, 3, valid.shape, generator=generator)
    overlap = unit[:, :, None] == unit[:, None, :] if tie else None
    hidden = presence.hide(valid, ratio, draws, overlap)
    assert not (hidden & ~valid).any()
    if ratio == 0:
        assert not hidden.any()
    if ratio == 1:
        assert torch.equal(hidden, valid)
    if overlap is not None:
        together = overlap & valid[:, None, :] & valid[:, :, None]
        assert not (together & (hidden[:, :, None] != hidden[:, None, :])).any()
    else:
        assert torch.equal(hidden, valid & (draws < ratio))


@given(masks(), st.integers(0, 2**31), st.integers(1, 4))
def test_hide_is_blind_to_padding_and_to_what_stands_in_it(valid, seed, extra):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand((len(valid), valid.shape[1] + extra), generator=generator)
    unit = torch.randint(0, 3, draws.shape, generator=generator)
    overlap = unit[:, :, None] == unit[:, None, :]
    more = torch.cat([valid, torch.zeros(len(valid), extra, dtype=torch.bool)], 1)
    n = valid.shape[1]
    for tied, tied_more in ((None, None), (overlap[:, :n, :n], overlap)):
        assert torch.equal(
            presence.hide(more, 0.5, draws, tied_more)[:, :n], presence.hide(valid, 0.5, draws[:, :n], tied)
        )


def test_units_of_every_size_are_hidden_with_the_same_chance():
    rows = 20000
    valid = torch.ones(rows, 6, dtype=torch.bool)
    unit = torch.tensor([0, 1, 1, 2, 2, 2]).expand(rows, -1)
    draws = torch.rand(rows, 6, generator=torch.Generator().manual_seed(1))
    share = presence.hide(valid, 0.15, draws, unit[:, :, None] == unit[:, None, :]).double().mean(0)
    assert (share - 0.15).abs().max() < 0.015


# -- pool, average, masked_mean, clean ---------------------------------------------------------------------------------


@given(masks())
def test_pool_is_the_mean_of_what_is_valid(valid):
    x = torch.randn(*valid.shape, 3)
    pooled = presence.pool(Tokens(torch.where(valid[..., None], x, torch.nan), valid))
    assert torch.equal(pooled.present, valid.any(1))
    for row in range(len(valid)):
        want = x[row][valid[row]].mean(0) if valid[row].any() else torch.zeros(3)
        assert torch.allclose(pooled.z[row], want, atol=1e-6)


@given(masks())
def test_average_is_over_those_present(present):
    z = torch.randn(*present.shape, 3)
    mean = presence.average(
        [Embedded(torch.where(p[:, None], v, torch.nan), p) for v, p in zip(z, present, strict=True)]
    )
    assert torch.equal(mean.present, present.any(0))
    for row in range(present.shape[1]):
        want = z[:, row][present[:, row]].mean(0) if present[:, row].any() else torch.zeros(3)
        assert torch.allclose(mean.z[row], want, atol=1e-6)


def test_moments_are_those_of_the_rows_that_are_there():
    x = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf], [3.0, -2.0], [8.0, 0.0]])
    mean, variance, count = presence.moments(x, torch.tensor([True, False, True, True]), Alone())
    assert count == 3
    assert torch.allclose(mean, torch.tensor([4.0, 0.0]))
    assert torch.allclose(variance, torch.tensor([26 / 3, 8 / 3]))
    for nothing in presence.moments(x, torch.zeros(4, dtype=torch.bool), Alone()):
        assert not nothing.any()


@given(masks())
def test_masked_mean_counts_only_what_counts(mask):
    values = torch.randn(mask.shape)
    term = presence.masked_mean(torch.where(mask, values, torch.nan), mask)
    assert int(term.count) == int(mask.sum())
    assert float(term.value) == pytest.approx(float(values[mask].mean()) if mask.any() else 0.0, abs=1e-6)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_an_empty_term_is_exactly_zero_with_exactly_zero_gradient(bad):
    leaf = torch.full((3,), 2.0, requires_grad=True)
    term = presence.masked_mean(leaf * 3 + bad, torch.zeros(3, dtype=torch.bool))
    assert (float(term.value.detach()), int(term.count)) == (0.0, 0)
    term.value.backward()
    assert leaf.grad.tolist() == [0, 0, 0]


def test_what_is_not_valid_gets_no_gradient():
    valid = torch.tensor([[True, False], [False, False]])
    x = torch.randn(2, 2, 3, requires_grad=True)
    (presence.pool(Tokens(x, valid)).z.sum() + presence.clean(Tokens(x, valid)).x.sum()).backward()
    assert x.grad[~valid].eq(0).all()
    assert x.grad[valid].eq(2).all()


def test_attention_mask():
    valid = torch.tensor([[True, False]])
    assert presence.attention_mask(valid).tolist() == [[[[True, False]]]]


# -- join, split -------------------------------------------------------------------------------------------------------


@given(st.lists(masks(rows=st.just(3)), min_size=1, max_size=4))
def test_split_undoes_join(valids):
    parts = {f"m{at}": Tokens(torch.randn(3, v.shape[1], 2), v) for at, v in enumerate(valids)}
    joined = presence.join(parts)
    assert joined.valid.sum() == sum(v.sum() for v in valids)
    back = presence.split(joined, parts)
    assert list(back) == list(parts)
    for name, tokens in parts.items():
        assert torch.equal(back[name].x, tokens.x)
        assert torch.equal(back[name].valid, tokens.valid)


# -- what stays visible ----------------------------------------------------------------------------------------

DRAWS = torch.tensor([[0.5, 0.1, 0.9, 0.3], [0.5, 0.1, 0.9, 0.3]])
THERE = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0]], dtype=torch.bool)


def test_show_takes_the_smallest_draws_of_what_is_there():
    shown = presence.show(THERE, torch.tensor([2, 1]), DRAWS)
    assert shown.tolist() == [[False, True, False, True], [True, False, False, False]]
    assert not presence.show(THERE, torch.tensor([0, 0]), DRAWS).any()
    assert torch.equal(presence.show(THERE, torch.tensor([9, 9]), DRAWS), THERE)


def test_tied_tokens_are_shown_together_and_counted_once():
    unit = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    overlap = unit[:, :, None] == unit[:, None, :]
    assert presence.leads(THERE, overlap).tolist() == [[True, False, True, False], [True, False, True, False]]
    assert torch.equal(presence.leads(THERE, None), THERE)
    shown = presence.show(THERE, torch.tensor([1, 1]), DRAWS, overlap)
    assert shown.tolist() == [[True, True, False, False], [True, False, False, False]]


def test_a_row_with_nothing_visible_keeps_its_smallest_draw():
    nothing = {"a": torch.zeros(2, 4, dtype=torch.bool), "b": torch.tensor([[0, 0], [1, 0]], dtype=torch.bool)}
    valid = {"a": THERE, "b": torch.ones(2, 2, dtype=torch.bool)}
    draws = {"a": DRAWS, "b": torch.tensor([[0.2, 0.6], [0.0, 0.0]])}
    shown = presence.at_least_one(nothing, valid, draws)
    assert shown["a"].tolist() == [[False, True, False, False], [False] * 4]
    assert torch.equal(shown["b"], nothing["b"])
    absent = {"a": torch.zeros(2, 4, dtype=torch.bool)}
    assert not presence.at_least_one(absent, absent, {"a": DRAWS})["a"].any()
    assert presence.at_least_one({}, {}, {}) == {}


def test_reveal_takes_tokens_out_of_a_batch():
    batch = Batch(("x", "y"), {"a": Cells({"v": DRAWS}, THERE), "b": Cells({"v": DRAWS}, THERE)})
    seen = presence.reveal(batch, {"a": THERE & (DRAWS < 0.4)})
    assert seen.cells["a"].packed()["v"].tolist() == pytest.approx([0.1, 0.3])
    assert seen.cells["b"] is batch.cells["b"]


# -- groups, exchange, first, summarise --------------------------------------------------------------------------------


@given(masks(), st.integers(0, 2**31), st.booleans())
def test_anchors_of_their_own_and_what_follows_them(valid, seed, each):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(valid.shape, generator=generator)
    extra = torch.randint(0, 3, valid.shape, generator=generator)
    place = torch.arange(valid.shape[1]).expand_as(valid)
    hidden = presence.hide(valid, 0.4, draws, reach=(place, extra), each=each)
    wanted = torch.zeros_like(valid)
    for row, anchor in (valid & (draws < 0.4)).nonzero().tolist():
        wanted[row, anchor : anchor + int(extra[row, anchor]) + 1] = True
    assert torch.equal(hidden, wanted & valid)


@given(masks(), st.floats(0, 1), st.integers(0, 2**31), st.booleans())
def test_at_least_one_where_it_is_asked_for(valid, ratio, seed, tie):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(valid.shape, generator=generator)
    unit = torch.randint(0, 3, valid.shape, generator=generator)
    overlap = unit[:, :, None] == unit[:, None, :] if tie else None
    rows = torch.rand(len(valid), generator=generator) < 0.5
    plain = presence.hide(valid, ratio, draws, overlap)
    hidden = presence.hide(valid, ratio, draws, overlap, at_least_one=rows)
    assert torch.equal(hidden.any(1), plain.any(1) | (rows & valid.any(1)))
    unchanged = plain.any(1) | ~rows
    assert torch.equal(hidden[unchanged], plain[unchanged])
    if overlap is not None:
        together = overlap & valid[:, None, :] & valid[:, :, None]
        assert not (together & (hidden[:, :, None] != hidden[:, None, :])).any(), "one unit, not one token"


def test_exchange_takes_whole_cells():
    cells = presence.fill(rows_of([2, 3, 1]))
    donors = presence.take(cells, torch.tensor([1, 0, 2]))
    other = presence.exchange(cells, torch.tensor([True, False, True]), donors)
    assert other.valid.sum(1).tolist() == [3, 3, 1]
    assert torch.equal(other.fields["x"][0], cells.fields["x"][1])
    assert all(torch.equal(other.fields[n][1:], cells.fields[n][1:]) for n in ("x", "id"))
    longer = presence.exchange(cells, torch.tensor([True, False, False]), presence.lengthen(donors, 5))
    assert longer.valid.sum(1).tolist() == [3, 3, 1]
    assert longer.fields["x"].shape[1] == longer.valid.shape[1] == 5


@given(masks())
def test_first_is_the_first_valid_token(valid):
    x = torch.randn(*valid.shape, 3)
    found = presence.first(Tokens(torch.where(valid[..., None], x, torch.nan), valid))
    assert torch.equal(found.present, valid.any(1))
    for row in range(len(valid)):
        assert torch.equal(found.z[row], x[row][valid[row]][0] if valid[row].any() else torch.zeros(3))


@given(masks(), st.integers(0, 2**31))
def test_summarise_is_the_mean_of_the_others_of_the_row(valid, seed):
    content = torch.randn(int(valid.sum()), 3, generator=torch.Generator().manual_seed(seed))
    row = valid.nonzero()[:, 0]
    whole = torch.ones_like(row, dtype=torch.bool)
    whole[1:] = row[1:] != row[:-1]  # the first token of each row
    found = presence.summarise(content, whole, valid)
    assert torch.equal(found[~whole], content[~whole])
    for at in whole.nonzero()[:, 0].tolist():
        others = content[(row == row[at]) & ~whole]
        assert torch.allclose(found[at], others.mean(0) if len(others) else content[at], atol=1e-6)
