"""The generators have the information they should, and the experiments run, keep what is finished and read it back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from polymodal.bench import mutual_information, shared_unique
from polymodal.bench._base import Options
from polymodal.bench._synthetic import augmented, disentangled, factorised
from polymodal.types import BadInput

pytest.importorskip("sklearn")


def r2(x, w):
    half = len(x) // 2
    return shared_unique.explained(x[:half], w[:half], x[half:], w[half:])


def test_what_each_side_sees():
    world = factorised(4000, {"12": 10, "1": 6, "2": 6}, 0)
    assert {k: v.shape[1] for k, v in world.blocks.items()} == {"12": 10, "1": 6, "2": 6}
    assert {v.shape for v in world.inputs.values()} == {(4000, 100)}
    for name in ("1", "2"):
        seen = {block: r2(world.inputs[name], w) for block, w in world.blocks.items()}
        assert all((value > 0.99) == (name in block) for block, value in seen.items()), seen
        assert seen["2" if name == "1" else "1"] < 0.02
    assert np.concatenate(list(world.blocks.values()), 1).var() == pytest.approx(0.5, abs=0.01)
    assert world.labels["all"].mean() == pytest.approx(0.5, abs=0.05)
    # what is known of the label by the shared block alone: 1/2 + arcsin(sqrt(10 / 22)) / pi
    guess = world.blocks["12"].mean(1) >= 0
    assert (guess == world.labels["all"]).mean() == pytest.approx(0.5 + np.arcsin((10 / 22) ** 0.5) / np.pi, abs=0.02)


def test_three_modalities_and_every_block():
    keys = ("1", "2", "3", "12", "13", "23", "123")
    world = factorised(100, dict.fromkeys(keys, 2), 0)
    assert sorted(world.inputs) == ["1", "2", "3"]
    assert np.linalg.matrix_rank(world.inputs["1"]) == 8


def test_labels_of_blocks():
    world = disentangled(3000, 0, dim=10)
    assert set(world.labels) == {"12", "1", "2"}
    assert all(y.mean() == pytest.approx(0.5, abs=0.01) for y in world.labels.values())
    for block, y in world.labels.items():
        for other, w in world.blocks.items():
            right = shared_unique.accuracy(w[:2000], y[:2000], w[2000:], y[2000:])
            assert (right > 0.65) == (block == other), (block, other, right)


def test_augmentations_are_the_four():
    x = torch.arange(1.0, 101).repeat(4000, 1)
    y = augmented(x, torch.Generator().manual_seed(0))
    same = (y == x).all(1)
    swapped = (y[:, 0] == 51) & ~same
    zeroed = (y == 0).any(1)
    noisy = ~same & ~swapped & ~zeroed
    for which in (same, swapped, zeroed, noisy):
        assert float(which.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((y[zeroed] == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float((y - x)[noisy].std()) == pytest.approx(0.01, rel=0.05)


def test_own_and_foreign():
    one = {"R2 shared/1 12": 0.9, "R2 shared/1 1": 0.2, "R2 shared/1 2": -0.1}
    one |= {"R2 shared/2 12": 0.7, "R2 shared/2 1": 0.0, "R2 shared/2 2": 0.4}
    one |= {"R2 unique/1 12": 0.3, "R2 unique/1 1": 0.8, "R2 unique/1 2": 0.0}
    assert shared_unique._own_and_foreign(one, "shared") == pytest.approx((0.8, 0.3))
    assert shared_unique._own_and_foreign(one, "unique") == pytest.approx((0.8, 0.3))


def test_the_experiment_keeps_what_is_finished(tmp_path):
    methods = "raw input;SimCLR;SupCon;FactorCL-SSL, factorised;FactorCL-SUP"
    options = Options(seeds=(0,), quick=True, out=tmp_path, settings={"methods": methods, "rows": "600", "batch": "64"})
    one = shared_unique.run(options)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 5
    assert len(one.tables[0].rows) == 5
    assert [row[:2] for row in one.tables[1].rows] == [
        (m, head) for m in ("FactorCL-SSL, factorised", "FactorCL-SUP") for head in ("shared", "unique")
    ]
    assert "mean nothing" in one.findings[0]
    changed = json.loads(kept[-1].read_text())
    changed["value"]["accuracy all"] = 0.25
    kept[-1].write_text(json.dumps(changed))
    again = shared_unique.run(options)
    assert again.to_json() != one.to_json()
    assert json.dumps(again.to_json())
    with pytest.raises(BadInput, match="methods"):
        shared_unique.run(Options(settings={"methods": "SimCRL"}))
    with pytest.raises(BadInput, match="world"):
        shared_unique.run(Options(settings={"world": "round"}))


def test_information_of_gaussians():
    pytest.importorskip("matplotlib")
    made = mutual_information.run(Options(seeds=(0, 1), quick=True, settings={"steps": "6"}))
    assert len(made.tables[0].rows) == 5
    assert made.pictures["mutual_information.png"].startswith(b"\x89PNG")
    curve = mutual_information.estimate(20, 3, 0)
    assert {len(v) for v in curve.values()} == {15}
    assert max(curve["NCE"]) <= np.log(64) + 1e-6
    assert all(a <= b + 1e-6 for a, b in zip(curve["NCE"], curve["NCE-CLUB"], strict=True))


def test_plain_club_by_a_loop():
    """CLUB over all pairs, by the moments of y, is the mean of log q over a double loop."""
    torch.manual_seed(0)
    q = mutual_information.Gaussian(3).requires_grad_(False)
    x, y = torch.randn(7, 3), torch.randn(7, 3)
    high, _ = q(x, y)
    mean, spread = q.mean(x), torch.tanh(q.spread(x)).exp()

    def log_q(i, j):
        return float((-0.5 * (mean[i] - y[j]).square() / spread[i]).sum())

    by_hand = sum(log_q(i, i) - sum(log_q(i, j) for j in range(7)) / 7 for i in range(7)) / 7
    assert float(high) == pytest.approx(by_hand, abs=1e-4)
