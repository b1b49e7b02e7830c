from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from support import build_model, build_objective
from torch import nn

from polymodal.recipe import TrainConfig
from polymodal.train.optim import (
    Average,
    autocast,
    build_optimizer,
    learning_rate,
    optimizer_state,
    pick_precision,
    restore_optimizer,
)


def test_schedule():
    config = TrainConfig(learning_rate=2.0, warmup=0.1, final=0.1)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[99] == pytest.approx(0.2, abs=2e-3)
    assert rates[99] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 89 / 90))))
    assert all(a > b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 1), (0.0, 5), (1.0, 5), (0.5, 2), (0.1, 3)])
def test_schedule_of_short_runs(warmup, steps):
    rates = [learning_rate(TrainConfig(learning_rate=1.0, warmup=warmup), step, steps) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1.0


def test_only_matrices_of_linear_layers_decay():
    model = build_model(("text", "table", "features"))
    objective = build_objective("scale", model, learn_temperature=False)
    optimizer = build_optimizer([model, objective], TrainConfig(weight_decay=0.3, learning_rate=0.5, betas=(0.8, 0.9)))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {(g["lr"], g["betas"]) for g in optimizer.param_groups} == {(0.5, (0.8, 0.9))}
    linear = {id(m.weight) for owner in (model, objective) for m in owner.modules() if isinstance(m, nn.Linear)}
    assert {id(p) for p in decayed["params"]} == linear
    everything = [p for owner in (model, objective) for p in owner.parameters() if p.requires_grad]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in everything}
    assert id(objective.log_scale) not in {id(p) for g in optimizer.param_groups for p in g["params"]}


def test_a_shared_parameter_is_in_the_optimizer_once():
    module = nn.Sequential(nn.Linear(3, 3))
    tied = nn.ModuleList([module, module[0]])
    groups = build_optimizer([tied], TrainConfig()).param_groups
    assert sum(len(g["params"]) for g in groups) == 2


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        module(torch.randn(5, 4, generator=generator)).square().sum().backward()
        optimizer.step()


def test_optimizer_state_goes_on_exactly():
    def pair():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
        module[1].weight.requires_grad_(False)
        return module, build_optimizer([module], TrainConfig())

    whole, whole_optimizer = pair()
    steps(whole, whole_optimizer, 3, 1)
    state = {n: v.clone() for n, v in optimizer_state(whole_optimizer).items()}
    other, other_optimizer = pair()
    other.load_state_dict(whole.state_dict())
    restore_optimizer(other_optimizer, state)
    for module, optimizer in ((whole, whole_optimizer), (other, other_optimizer)):
        steps(module, optimizer, 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))


def test_average_follows_slowly():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(1.0)
    expected = 0.0
    for step in range(200):
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        if step in (0, 5, 199):
            assert float(average.values["weight"]) == pytest.approx(expected, abs=1e-6)
    assert float(module.weight.detach()) == 1.0


def test_precision(monkeypatch):
    cpu = torch.device("cpu")
    assert pick_precision("bf16", cpu, 8) == torch.bfloat16
    assert pick_precision("fp32", cpu, 768) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert pick_precision("auto", cpu, 768) == (torch.bfloat16 if amx else torch.float32)
        assert pick_precision("auto", cpu, 128) == torch.float32  # narrow models lose by it
    layer = nn.Linear(2, 2)
    with autocast(torch.float32, cpu):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    with autocast(torch.bfloat16, cpu):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
