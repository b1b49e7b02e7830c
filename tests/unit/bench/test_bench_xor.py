"""XOR: the experiment at the size of a test, and its data."""

from __future__ import annotations

import torch

from polymodal.bench import xor
from polymodal.bench._base import Options


def test_bits_and_what_is_missing():
    generator = torch.Generator().manual_seed(0)
    bits = xor._bits(500, generator)
    assert torch.equal(bits["a"] ^ bits["b"], bits["c"])
    for name in ("a", "b", "c"):
        assert 0.4 < float(bits[name].float().mean()) < 0.6
    batch = xor._batch(bits, generator, 0.5)
    there = torch.stack([cells.present for cells in batch.cells.values()])
    assert there.any(0).all()
    assert 0.5 < float(there.float().mean()) < 0.65  # a half, and the last one is never taken


def test_what_pairs_cannot_say_a_product_and_a_network_can():
    scores = {name: xor._one(name, 0.2, steps, 0) for name, steps in (("Symile", 80), ("ConFu by its network", 80))}
    assert min(scores.values()) > 0.95, scores
    assert xor._one("CLIP", 0.2, 40, 0) <= 0.75


def test_it_runs_and_says_what_it_found():
    said: list[str] = []
    options = Options(seeds=(0,), quick=True, say=said.append, settings={"steps": "2", "methods": "CLIP,Symile"})
    result = xor.run(options)
    (table,) = result.tables
    assert [row[0] for row in table.rows] == ["CLIP", "Symile", "chance"]
    assert len(said) == 6
    assert result.settings["quick"] is True
    assert "Not:" in result.findings[1]
