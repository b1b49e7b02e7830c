"""Labels in a batch: of the one that is asked for, the same in every process, -1 where there is none."""

from __future__ import annotations

from itertools import islice

import micro
import numpy as np
import pytest
import torch
from support import build_modality

from polymodal.catalogue.loader import Loader, collate
from polymodal.catalogue.sampler import BlockShuffle
from polymodal.tensors import Batch
from polymodal.types import BadInput, Record

TEXT = {"title": build_modality("text")}
ROWS = [
    Record("a", {"title": "one"}, {"colour": "red", "shape": "shoe"}),
    Record("b", {"title": "two"}, {"colour": "red"}),
    Record("c", {"title": "three"}, {"colour": "blue"}),
    Record("d", {"title": "four"}),
]


def test_collate_fills_what_is_asked_for():
    red, again, blue, none = collate(ROWS, TEXT, label="colour").labels.tolist()
    assert red == again != blue
    assert none == -1
    assert min(red, blue) >= 0
    assert collate(ROWS, TEXT).labels.tolist() == [-1] * 4
    assert collate(ROWS[:1], TEXT, label="colour").labels.tolist() == [red]
    shape = collate(ROWS, TEXT, label="shape").labels.tolist()
    assert shape[1:] == [-1] * 3


def test_a_batch_keeps_them():
    batch = collate(ROWS, TEXT, label="colour")
    assert torch.equal(batch.to("cpu").labels, batch.labels)
    assert torch.equal(batch.only(["title"]).labels, batch.labels)
    assert batch.labels.dtype == torch.long
    with pytest.raises(BadInput, match="labels"):
        Batch(batch.ids, batch.cells, labels=torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_them_in_every_view(workers):
    memory = micro.Memory(micro.records(16))
    colours = {r.id: r.labels["colour"] for r in micro.records(16)}
    sampler = BlockShuffle(memory.blocks, np.arange(16), 0)
    loader = Loader(memory, TEXT, sampler, batch_size=8, views=2, workers=workers, label="colour")
    stream = loader.batches(loader.start())
    seen = {}
    for _, views in islice(stream, 2):
        assert torch.equal(views[0].labels, views[1].labels)
        seen |= dict(zip(views[0].ids, views[0].labels.tolist(), strict=True))
    stream.close()
    assert len(seen) == 16
    assert len({(colours[i], y) for i, y in seen.items()}) == len(set(colours.values())) > 1
