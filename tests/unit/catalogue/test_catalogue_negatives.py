"""Hard negatives of a whole set, against the batch's own TF-IDF, and how they come to stand beside their rows."""

from __future__ import annotations

from itertools import islice

import micro
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import build_modality

from polymodal.catalogue import negatives
from polymodal.catalogue.loader import Loader
from polymodal.catalogue.negatives import Counts, Negatives, count_rows, find_negatives, nearest_in_band
from polymodal.catalogue.sampler import BlockShuffle, Cursor
from polymodal.losses.matching import hard_pool, tfidf
from polymodal.tensors import stable_hash
from polymodal.types import BadInput, Record

TITLES = [
    "red summer dress for women",
    "blue summer dress for women",
    "red dress long sleeve",
    "men leather shoes black",
    "women running shoes",
]


def counts_of(table: np.ndarray) -> Counts:
    row, symbol = np.nonzero(table)
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(table)))])
    return Counts(np.arange(len(table)), start.astype(np.int64), symbol, table[row, symbol])


def test_the_published_captions():
    words = sorted({w for title in TITLES for w in title.split()})
    table = np.array([[title.split().count(w) for w in words] for title in TITLES])
    found = nearest_in_band(counts_of(table), np.arange(5), (0.0, 0.5), 2)
    assert found.tolist() == [[2, 4], [4, 2], [0, 1], [4, 0], [3, 0]]


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([(0.0, 0.5), (0.2, 0.9)]))
@settings(max_examples=60, deadline=None)
def test_sparse_and_in_pieces_is_what_a_batch_would_find(rows, top, seed, band):
    random = np.random.default_rng(seed)
    table = random.poisson(0.4, (rows, 8))
    table[:, 0] += table.sum(1) == 0
    groups = random.integers(0, rows + 1, rows)
    alike = tfidf(torch.from_numpy(table), torch.ones(rows, rows, dtype=torch.bool))
    others = torch.from_numpy(groups[:, None] != groups[None])
    wanted = hard_pool(alike, others, band, top).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negatives, "_CHUNK", 3 * rows)
        found = nearest_in_band(counts_of(table), groups, band, top)
    assert found.shape == (rows, top)
    assert (found[:, wanted.shape[1] :] == -1).all()
    assert np.array_equal(found[:, : wanted.shape[1]], wanted)


def test_of_a_large_set_a_part_is_searched():
    table = np.random.default_rng(0).poisson(0.5, (60, 8)) + np.eye(60, 8, dtype=np.int64)
    found = nearest_in_band(counts_of(table), np.arange(60), (0.0, 1.0), 30, among=10)
    assert len(set(found[found >= 0].tolist())) == 10
    assert (found >= 0).any(1).all()


class Grouped(micro.Memory):
    @property
    def index(self) -> pa.Table:
        groups = [r.group for part in self._parts for r in part]
        return super().index.append_column("group", pa.array(groups, pa.string()))


def titled(count=40) -> Grouped:
    random = np.random.default_rng(3)
    words = [f"w{n}" for n in range(12)]
    records = [
        Record(
            f"id{at}",
            {"title": " ".join(random.choice(words, 4))} if at % 7 else {},
            {},
            f"g{at // 2}" if at < 20 else None,
        )
        for at in range(count)
    ]
    return Grouped(records)


def test_rows_of_a_group_and_rows_without_the_cell_are_nobodys_negative():
    rows, text = titled(), build_modality("text")
    numbers = np.arange(3, 40)
    found = find_negatives(rows, numbers, "title", text, band=(0.0, 2.0), top=50)
    assert found.rows.tolist() == [at for at in range(3, 40) if at % 7]
    for row, near in zip(found.rows.tolist(), found.near.tolist(), strict=True):
        kept = [c for c in near if c >= 0]
        assert set(kept) == {
            c for c in found.rows.tolist() if c != row and not (max(c, row) < 20 and c // 2 == row // 2)
        }
    counts = count_rows(rows, numbers, "title", text)
    assert counts.times.sum() == sum(
        len(text.preprocess(r.values["title"])["id"]) for r in map(rows_of(rows), counts.rows)
    )
    with pytest.raises(BadInput, match="counted"):
        find_negatives(micro.Memory(micro.records()), np.arange(20), "vector", build_features())


def rows_of(rows):
    flat = [record for number in range(len(rows.blocks)) for record in rows.block(number)]
    return lambda at: flat[at]


def build_features():
    made = micro.recipe().modalities["vector"]
    return made.build(16, made.fit([made.decoder().decode(np.ones((1, 8), np.float32))]))


def everyones(n: int, share: float = 0.2) -> Negatives:
    near = np.stack([np.random.default_rng(at).permutation(n)[:10] for at in range(n)])
    return Negatives(np.arange(n), np.where(near == np.arange(n)[:, None], -1, near), share)


@given(st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_each_row_still_comes_once_and_its_negative_right_behind_it(window, seed, share, epoch):
    blocks, rows = [9] * 12, np.arange(0, 108, 2)
    hard = everyones(108, share)
    plain = BlockShuffle(blocks, rows, seed, window)
    made = BlockShuffle(blocks, rows, seed, window, hard=hard)
    order, before = made.order(epoch), plain.order(epoch)
    assert sorted(order.tolist()) == rows.tolist()
    after = made.negatives(epoch, order)
    for at in np.flatnonzero(after >= 0).tolist():
        assert order[at + 1] == after[at]
        assert after[at] in hard.near[order[at]]
    assert (after >= 0).sum() <= len(order) / 2
    # a reader needs no other blocks than before, in no other order
    assert blocks_in_turn(order, window) == blocks_in_turn(before, window)
    assert (plain.negatives(epoch, order) == -1).all()


def blocks_in_turn(order, window):
    """The blocks in the order of their windows: each window's as a set."""
    seen: list[int] = []
    for block in (order // 9).tolist():
        if block not in seen:
            seen.append(block)
    return [set(seen[at : at + window]) for at in range(0, len(seen), window)]


def test_about_the_share_asked_for_is_followed_anew_in_every_epoch():
    made = BlockShuffle([100] * 10, np.arange(1000), 0, window=10, hard=everyones(1000, 0.2))
    first, second = (made.negatives(epoch, np.arange(1000)) for epoch in (0, 1))
    assert (first >= 0).mean() == pytest.approx(0.2, abs=0.04)
    both = (first >= 0) & (second >= 0)
    assert (first[both] != second[both]).mean() > 0.7


def loader(workers=0, rank=0, world=1) -> Loader:
    rows, text = titled(), build_modality("text")
    hard = find_negatives(rows, np.arange(40), "title", text, share=0.4)
    sampler = BlockShuffle(rows.blocks, np.arange(40), 1, window=20, hard=hard)
    return Loader(rows, {"title": text}, sampler, batch_size=10, workers=workers, rank=rank, world=world)


def test_batches_name_the_negative_and_hold_it():
    made = loader()
    near = dict(zip(made._sampler._hard.rows.tolist(), made._sampler._hard.near.tolist(), strict=True))
    named = held = 0
    for _, (batch,) in islice(made.batches(made.start()), 8):
        for at, name in enumerate(batch.ids):
            if batch.hard[at] == batch.keys[at]:
                continue
            named += 1
            held += bool((batch.keys == batch.hard[at]).any())
            assert batch.hard[at].item() in {stable_hash(f"id{c}") for c in near[int(name[2:])]}
    assert named > 10
    assert held >= named - 8  # what stands at the end of a batch has its negative in the next


def test_batches_are_the_same_from_any_point_on_with_any_workers_and_ranks():
    wanted = list(islice(loader().batches({"epoch": 0, "position": 0}), 8))
    again = list(islice(loader(workers=1).batches(wanted[2][0]), 5))
    for (state, (one,)), (other_state, (other,)) in zip(wanted[3:], again, strict=True):
        assert state == other_state
        assert torch.equal(one.hard, other.hard)
        assert one.ids == other.ids
    halves = [list(islice(loader(rank=rank, world=2).batches(Cursor()), 8)) for rank in range(2)]
    for at in range(8):
        assert torch.equal(torch.cat([half[at][1][0].hard for half in halves]), wanted[at][1][0].hard)
