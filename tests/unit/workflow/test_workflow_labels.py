"""A label that an objective asks for must be there before anything is trained."""

from __future__ import annotations

import micro
import pyarrow as pa
import pytest

from polymodal.objectives.factorcl import FactorCLConfig
from polymodal.recipe import build_model
from polymodal.types import BadInput
from polymodal.workflow.training import _loader


class Labelled(micro.Memory):
    @property
    def index(self):
        count = sum(self.blocks)
        return pa.table({"id": list(map(str, range(count))), "split": [""] * count, "label_colour": ["red"] * count})


def made(label):
    recipe = micro.recipe().replace(objective=FactorCLConfig(label=label))
    rows = micro.records()
    model = build_model(recipe, micro.fit(recipe, rows))
    modalities = {name: model.modality(name) for name in model.names}
    return _loader(recipe, Labelled(rows), modalities, recipe.objective.build(model), None, [])


def test_the_loader_is_told_of_the_label():
    _, (batch,) = next(made("colour").batches({"epoch": 0, "position": 0}))
    assert (batch.labels >= 0).all()
    assert len(batch.labels.unique()) > 1
    _, (one, _) = next(made("").batches({"epoch": 0, "position": 0}))
    assert (one.labels == -1).all()


def test_an_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match=r"objective\.label.*Did you mean 'colour'"):
        made("color")
