"""Every recipe there is trains two steps on a few rows, most of them incomplete, and embeds any subset."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping
from typing import Any

import micro
import numpy as np
import pytest
import torch

from polymodal.config import discover
from polymodal.embed import Embedder
from polymodal.modalities.image import ImageConfig
from polymodal.recipe import Recipe
from polymodal.types import Record

KINDS = {"photo": "image", "title": "text", "facts": "table", "vector": "features"}
RECIPES = {
    f"{name}.{function}": getattr(module, function)
    for name, module in discover("polymodal.recipes").items()
    for function in module.__all__
    if inspect.isfunction(getattr(module, function))
}
SUBSETS = [subset for n in range(1, 5) for subset in itertools.combinations(KINDS, n)]


class Rows(micro.Memory):
    @property
    def modalities(self) -> Mapping[str, str]:
        return KINDS


def records(count: int = 16) -> list[Record]:
    """Rows of which many lack something, and four that have everything."""
    picture = ImageConfig(size=32).decoder()
    rows = [
        Record(row.id, {**row.values, **({"photo": picture.example(at)} if at % 2 else {})}, row.labels, row.group)
        for at, row in enumerate(micro.records(count))
    ]
    everything = {name: value for row in rows for name, value in row.values.items()}
    whole = [{**everything, "title": f"all of number {at}", "photo": picture.example(100 + at)} for at in range(4)]
    return [*rows, *(Record(f"whole{at}", values, {"colour": "red"}) for at, values in enumerate(whole))]


def small(made: Recipe) -> Recipe:
    """The recipe with inputs as small as they get: what is to be seen is that it runs."""
    inputs: Mapping[str, Mapping[str, Any]] = {
        "image": {"size": 32, "patch": 16},
        "text": {"vocabulary": 300, "max_tokens": 24},
        "table": {"vocabulary": 300},
        "features": {"max_vectors": 4, "boxes": False, "whole": False, "classes": 0},
    }
    modalities = {name: c.replace(**inputs[c.kind]) for name, c in made.modalities.items()}
    train = made.train.replace(steps=2, batch_size=10, accumulate=1, log_every=1, precision="fp32", workers=0)
    return made.replace(modalities=modalities, train=train)


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_embeds_any_subset(name, tmp_path, monkeypatch):
    monkeypatch.setattr(micro, "Memory", Rows)
    made, rows = small(RECIPES[name](KINDS, "tiny")), records()
    assert made.name == name.removesuffix(".recipe").replace(".", "/")
    assert set(made.modalities) <= set(KINDS)
    run = micro.trainer(tmp_path, made, rows)
    before = {n: p.detach().clone() for n, p in run.model.named_parameters()}
    run.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert np.isfinite([line["loss"], line["gradient_norm"], *(v for v, _ in line["terms"].values())]).all()
    assert sum(line["gradient_norm"] for line in lines) > 0  # in one of them there may be nothing to predict
    moved = [n for n, p in run.model.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > len(before) / 3
    assert all(p.isfinite().all() for p in run.model.parameters())

    embedder = Embedder(run.model, made, "of this test")
    subsets = [s for s in SUBSETS if set(s) & set(made.modalities)]
    queries = [Record("+".join(s), {n: rows[-1].values[n] for n in s}) for s in subsets]
    found = embedder.embed(queries)
    assert found.vectors.shape == (len(queries), embedder.width)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-4)
    # alone or in company, a record has the same vector
    for at in (0, len(queries) // 2, -1):
        assert np.allclose(embedder.embed([queries[at]]).vectors[0], found.vectors[at], atol=1e-4)
    named = embedder.vectors(queries)
    assert set(named) == {*made.modalities, "item"}
    for modality in made.modalities:
        assert len(named[modality].ids) == sum(modality in subset for subset in subsets)
