"""The trainer with every objective that exists: rows from the loader, as many views as it asks for, a checkpoint."""

from __future__ import annotations

import json
import math

import micro
import pytest
from support import OBJECTIVE_CONFIGS

from polymodal.recipe import Recipe


@pytest.mark.parametrize("kind", [k for k in OBJECTIVE_CONFIGS if k != "scale"])
def test_it_trains_from_a_catalogue_and_goes_on(kind, tmp_path):
    made: Recipe = micro.recipe(steps=2, checkpoint_every=1).replace(objective=OBJECTIVE_CONFIGS[kind]())
    first = micro.trainer(tmp_path, made)
    first.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(math.isfinite(line["loss"]) for line in lines)
    again = micro.trainer(tmp_path, made)
    assert again.resume() == []
    assert again.step == 2
    before, after = micro.weights(first), micro.weights(again)
    assert all(before[name].equal(after[name]) for name in before)
