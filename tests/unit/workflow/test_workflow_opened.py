"""A model and data opened for a task."""

from __future__ import annotations

import pytest

from polymodal.evaluate import AS_IS
from polymodal.types import BadInput
from polymodal.workflow.opened import open_task


def test_records_vectors_and_labels_of_a_split(micro_shop):
    said = []
    opened = open_task(*micro_shop, progress=lambda *step: said.append(step))
    records = opened.records("test")
    found = opened.vectors(records)
    assert found.fused[AS_IS].ids == tuple(r.id for r in records if r.values)
    assert set(found.towers) == {"title", "facts"}
    assert said[-1] == ("embedding", len(records), len(records))
    assert opened.label(None)[0] == "colour"
    assert opened.label("shape")[1][records[0].id] in ("shoe", "lamp", "vase", "chair")


def test_fewer_rows_are_drawn_by_the_seed(micro_shop):
    opened = open_task(*micro_shop)
    some = [r.id for r in opened.records(None, 10, seed=1)]
    assert len(some) == 10
    assert some == sorted(some) == [r.id for r in opened.records(None, 10, seed=1)]
    assert some != [r.id for r in opened.records(None, 10, seed=2)]


def test_what_is_refused(micro_shop):
    opened = open_task(*micro_shop)
    with pytest.raises(BadInput, match="a label of the data"):
        opened.label("color")
    with pytest.raises(BadInput, match="split"):
        opened.records("validation")
    opened.labels = {}
    with pytest.raises(BadInput, match="Name them in"):
        opened.label(None)
