"""Every objective over every stage order can be trained: it learns, repeats itself, and survives holes."""

from __future__ import annotations

import itertools

import pytest
import torch
from support import (
    OBJECTIVE_CONFIGS,
    STAGE_ORDERS,
    build_model,
    build_objective,
    gradients,
    make_batch,
    normalises_by_batch,
)

from polymodal import presence
from polymodal.recipe import TrainConfig
from polymodal.train.optim import build_optimizer

KINDS = ("text", "table", "features")
FULL = [KINDS] * 6
HOLES = [KINDS, ("text",), ("table", "features"), ("features",), KINDS, ("text", "table")]
CASES = list(itertools.product(OBJECTIVE_CONFIGS, STAGE_ORDERS))


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{'+'.join(c[1])}")
def world(request):
    kind, stages = request.param
    model = build_model(KINDS, stages)
    return model, build_objective(kind, model)


def train(model, objective, batch, steps):
    optimizer = build_optimizer([model, objective], TrainConfig(learning_rate=5e-3, weight_decay=0.0))
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        total = objective(model, [batch] * objective.views, 0).total
        total.backward()
        optimizer.step()
        seen.append(float(total.detach()))
    return seen


@pytest.mark.parametrize("rows", [FULL, HOLES], ids=["complete", "holes"])
def test_it_learns(world, rows):
    model, objective = world
    losses = train(model, objective, make_batch(model, rows), 25)
    assert losses[-1] < 0.8 * losses[0]


def test_it_repeats_itself():
    for kind, stages in CASES:
        runs = []
        for _ in range(2):
            model = build_model(KINDS, stages)
            objective = build_objective(kind, model)
            losses = train(model, objective, make_batch(model, HOLES), 3)
            runs.append((losses, [p.detach().clone() for p in model.parameters()]))
        assert runs[0][0] == runs[1][0]
        assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_everything_that_is_exported_is_trained(world):
    """A parameter of the model that no term reaches is dead weight in every checkpoint."""
    model, objective = world
    grads = None
    for seed in range(4):
        found, _ = gradients(model, objective, make_batch(model, FULL, seed=seed), seed)
        grads = found if grads is None else {n: grads[n] + g.abs() for n, g in found.items()}
    dead = [n for n, g in grads.items() if n.startswith("0.") and not g.abs().sum() > 0]
    assert not [n for n in dead if not may_be_dead(n, objective.trains_unique)], dead


def may_be_dead(name: str, trains_unique: bool) -> bool:
    """Input layers of what the examples do not contain; the unique part, where the objective leaves it alone."""
    return name.startswith("0.modalities.") or (name.startswith("0.uniques.") and not trains_unique)


def test_heads_and_masks_are_the_objectives_own(world):
    """What is thrown away is in the objective: the model alone embeds, with nothing of the objective."""
    model, objective = world
    mine = {id(p) for p in objective.parameters()}
    assert not mine & {id(p) for p in model.parameters()}


@pytest.mark.parametrize("rows", [[KINDS], [("text",)], [(), KINDS], [("text",), ("table",)], [(), ()]], ids=str)
def test_small_and_empty_batches_are_no_error(world, rows):
    """One row, no pair in common, a row with nothing, nothing at all: finite, and a step can be made."""
    model, objective = world
    batch = presence.complete(make_batch(model, rows), {n: model.modality(n).blank() for n in KINDS})
    grads, terms = gradients(model, objective, batch)
    assert all(torch.isfinite(torch.tensor(v)) for v, _ in terms.values())
    assert all(g.isfinite().all() for g in grads.values())
    if not any(rows):
        assert {v for v, _ in terms.values()} == {0.0}
        assert {c for _, c in terms.values()} == {0}
        assert all(g.eq(0).all() for g in grads.values())


def test_autocast_is_near(world):
    model, objective = world
    batch = make_batch(model, HOLES)
    with torch.no_grad():
        exact = objective(model, [batch] * objective.views, 0)
        with torch.autocast("cpu", torch.bfloat16):
            near = objective(model, [batch] * objective.views, 0)
    assert near.total.dtype == torch.float32
    # in absolute terms where nearly nothing is left to learn (SimCLR of identical views: 0.012)
    room = 2e-3 if normalises_by_batch(objective) else None
    assert float(near.total) == pytest.approx(float(exact.total), rel=0.03, abs=room)
