from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.catalogue.sampler import BlockShuffle, Cursor, locate
from polymodal.types import BadInput


@st.composite
def samplers(draw: st.DrawFn) -> BlockShuffle:
    blocks = draw(st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(sum))
    rows = draw(st.lists(st.integers(0, sum(blocks) - 1), unique=True, min_size=1))
    return BlockShuffle(
        blocks,
        np.asarray(rows),
        draw(st.integers(-(2**40), 2**70)),
        window=draw(st.integers(1, 5)),
        drop_last=draw(st.booleans()),
    )


def whole(sampler: BlockShuffle, cursor: Cursor, size: int, world: int, count: int) -> list[list[int]]:
    """Global batches, put together from the slices of all ranks."""
    ranks = [islice(sampler.batches(cursor, size, rank, world, epochs=None), count) for rank in range(world)]
    out = []
    for parts in zip(*ranks, strict=True):
        assert len({after for after, _ in parts}) == 1
        sizes = [len(rows) for _, rows in parts]
        assert max(sizes) - min(sizes) <= 1
        out.append(np.concatenate([rows for _, rows in parts]).tolist())
    return out


@given(samplers(), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_every_row_exactly_once_an_epoch(sampler: BlockShuffle, epoch: int) -> None:
    order = sampler.order(epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == sampler._rows.tolist()


@given(samplers(), st.data())
@settings(max_examples=80, deadline=None)
def test_resuming_anywhere_at_any_world_gives_the_same_batches(sampler: BlockShuffle, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(sampler)))
    reference = whole(sampler, Cursor(), size, 1, 12)
    stop = data.draw(st.integers(0, 11))
    world, other = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    cursor = Cursor()
    for after, _ in islice(sampler.batches(cursor, size, world - 1, world, epochs=None), stop):
        cursor = after
    assert whole(sampler, cursor, size, other, 12 - stop) == reference[stop:]


@given(samplers(), st.data())
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_the_promised_steps_and_ends_at_the_next(sampler: BlockShuffle, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(sampler)))
    taken = list(sampler.batches(Cursor(3), size))
    assert len(taken) == sampler.steps(size)
    assert taken[-1][0] == Cursor(4)
    rows = np.concatenate([rows for _, rows in taken])
    assert rows.tolist() == sampler.order(3)[: len(rows)].tolist()
    if not sampler._drop_last:
        assert len(rows) == len(sampler)


def test_order_is_pinned() -> None:
    """A change of numpy or of our code that changed the order would break every resumed run."""
    assert BlockShuffle([3, 3, 3], np.arange(9), seed=7, window=2).order(1).tolist() == [8, 7, 4, 5, 6, 3, 0, 1, 2]


def test_reading_stays_within_a_window() -> None:
    blocks = [10] * 40
    sampler = BlockShuffle(blocks, np.arange(400), seed=1, window=4)
    block, place = locate(blocks, sampler.order(0))
    assert place.max() == 9
    for start in range(0, 400, 40):
        assert len(set(block[start : start + 40].tolist())) == 4
    assert len(set(block[:40].tolist())) == 4
    assert block.tolist() != sorted(block.tolist())
    assert sampler.order(0).tolist() != sampler.order(1).tolist()
    assert sampler.order(0).tolist() != BlockShuffle(blocks, np.arange(400), seed=2, window=4).order(0).tolist()


def test_blocks_without_a_row_take_no_place_in_a_window() -> None:
    rows = np.concatenate([np.arange(0, 10), np.arange(990, 1000)])
    order = BlockShuffle([10] * 100, rows, seed=0, window=2).order(0)
    assert len(set((order[:10] // 10).tolist())) == 2


@pytest.mark.parametrize(
    ("rows", "message"), [([], "at least one row"), ([1, 1], "once"), ([9], "catalogue of 4"), ([-1], "catalogue of 4")]
)
def test_bad_rows(rows: list[int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        BlockShuffle([2, 2], np.asarray(rows, np.int64), seed=0)


def test_bad_requests() -> None:
    sampler = BlockShuffle([4], np.arange(4), seed=0)
    with pytest.raises(BadInput, match="batch_size"):
        sampler.batches(Cursor(), 5)
    with pytest.raises(BadInput, match="rank"):
        sampler.batches(Cursor(), 2, rank=2, world=2)
    with pytest.raises(BadInput, match="window"):
        BlockShuffle([4], np.arange(4), seed=0, window=0)
    with pytest.raises(BadInput, match="Cursor"):
        Cursor(0, -1)
