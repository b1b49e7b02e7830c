from __future__ import annotations

import micro
import numpy as np
import torch

from polymodal.embed import Embedder
from polymodal.match import Matcher
from polymodal.objectives.interbert import InterbertConfig
from polymodal.recipe import build_model
from polymodal.types import Record
from polymodal.workflow.opened import Opened
from polymodal.workflow.sides import side_of_records, side_of_rows


def opened() -> Opened:
    recipe = micro.recipe(("trunk", "towers"))
    recipe = recipe.replace(model=recipe.model.replace(match=12), objective=InterbertConfig())
    torch.manual_seed(0)
    rows = [
        Record("good", {"title": "red shoe", "vector": np.ones((1, 8), np.float32)}, {"colour": "red"}, "g1"),
        Record("bad", {"title": "blue lamp", "vector": np.full((1, 8), np.nan, np.float32)}, {}, "g2"),
        Record("words", {"title": "green vase"}),
        Record("nothing", {"vector": np.full((1, 8), np.nan, np.float32)}),
    ]
    embedder = Embedder(build_model(recipe, micro.fit(recipe, micro.records())), recipe, "digest")
    return Opened(micro.Memory(rows), embedder, {})


def test_a_cell_that_cannot_be_read_is_absent_in_both_stages():
    """Left out of the vector, it must not stop the second stage, nor count as one of the modalities asked for."""
    found = opened()
    side = side_of_rows(found, np.arange(4), (), "corpus")
    assert side.ids == ("good", "bad", "words")
    assert [set(r.values) for r in side.fetch([0, 1, 2])] == [{"title", "vector"}, {"title"}, {"title"}]
    asked = [Record("q", {"facts": (("colour", "red"),)})]
    scores = Matcher(found.embedder).pairs(asked, side.fetch([0, 1, 2]), np.zeros(3, int), np.arange(3))
    assert np.isfinite(scores).all()
    assert side_of_rows(found, np.arange(4), ("vector",), "corpus").ids == ("good",)
    alone = found.embedder.vectors([Record("bad", {"title": "blue lamp"})], ["item"])["item"].vectors
    np.testing.assert_allclose(side.vectors.vectors[1:2], alone, atol=1e-6)


def test_records_that_are_not_of_the_data():
    side = side_of_records(opened(), [Record("q1", {"title": "red"}), Record("q2", {"title": "lamp"})], "queries")
    assert [r.id for r in side.fetch([1])] == ["q2"]
    assert side.texts == ["red", "lamp"]
    assert len(side.rows) == 0
