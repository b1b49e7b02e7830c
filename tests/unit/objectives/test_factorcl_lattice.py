"""Three modalities, a hidden block for every subset of them: what heads of one against the rest hold of each block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymodal.bench._synthetic import factorised
from polymodal.bench.shared_unique import explained
from polymodal.losses.critics import CriticConfig, mlp
from polymodal.objectives._factors import Inputs
from polymodal.objectives.factorcl import FactorCL, FactorCLConfig
from polymodal.tensors import Embedded

NAMES = ("1", "2", "3")
KEYS = ("1", "2", "3", "12", "13", "23", "123")


@pytest.fixture(scope="module")
def found():
    """head -> block -> R2 on rows not trained on, for modality by modality; a fifth of the cells absent in training."""
    world = factorised(3000, dict.fromkeys(KEYS, 2), 0, width=24, low=-1.0)
    x = {n: torch.from_numpy(v) for n, v in world.inputs.items()}
    torch.manual_seed(0)
    encoders = nn.ModuleDict({n: mlp([24, 48, 24]) for n in NAMES})
    config = FactorCLConfig(
        context="all",
        critic=CriticConfig(hidden=32, layers=1, width=16, head=8),
        align=10.0,
        separate=10.0,
        heads="core",
    )
    objective = FactorCL(config, NAMES, 24)
    optimizer = torch.optim.Adam([*encoders.parameters(), *objective.parameters()], lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    nothing = torch.zeros(128, dtype=torch.long)
    for step in range(250):
        rows = torch.randint(0, 2000, (128,), generator=generator)
        there = {n: torch.rand(128, generator=generator) < 0.8 for n in NAMES}
        views = []
        for noise in (0.0, 0.1):
            seen = {n: v[rows] + noise * torch.randn((128, 24), generator=generator) for n, v in x.items()}
            views.append({n: Embedded(encoders[n](v) * there[n][:, None], there[n]) for n, v in seen.items()})
        inputs = Inputs(views, views, rows, nothing)
        for compute in (objective.terms, objective.critic_terms):
            optimizer.zero_grad(set_to_none=True)
            compute(inputs, step).total.backward()
            optimizer.step()
            views = [{n: Embedded(v.z.detach(), v.present) for n, v in view.items()} for view in views]
            inputs = Inputs(views, views, rows, nothing)
    with torch.no_grad():
        whole = {n: Embedded(encoders[n](v), torch.ones(3000, dtype=torch.bool)) for n, v in x.items()}
        zeros = torch.zeros(3000, dtype=torch.long)
        heads = objective.factors(Inputs([whole], [whole], zeros, zeros))
    r2 = {}
    for name, z in heads.items():
        kind, _, side = name.split("/")
        z = z.numpy()
        r2[f"{kind}/{side}"] = {k: explained(z[:2000], w[:2000], z[2000:], w[2000:]) for k, w in world.blocks.items()}
    return r2


@pytest.mark.parametrize("name", NAMES)
def test_unique_heads_hold_what_one_alone_knows(found, name):
    unique, shared = found[f"unique/{name}"], found[f"shared/{name}"]
    foreign = [v for block, v in unique.items() if name not in block]
    assert max(foreign) < 0.05
    assert unique[name] > 0.4
    assert unique[name] > max(v for block, v in unique.items() if block != name) + 0.2
    assert unique[name] > shared[name] + 0.3


@pytest.mark.parametrize("name", NAMES)
def test_shared_heads_hold_what_others_know_too(found, name):
    unique, shared = found[f"unique/{name}"], found[f"shared/{name}"]
    others = [block for block in KEYS if name in block and len(block) > 1]
    assert max(v for block, v in shared.items() if name not in block) < 0.05
    assert all(shared[block] > shared[name] + 0.2 for block in others)
    assert all(shared[block] > unique[block] for block in others)
