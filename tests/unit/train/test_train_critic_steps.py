"""Steps that alternate: the critics' own steps move the critics alone, and resuming stays exact."""

from __future__ import annotations

import json
import signal

import micro
import pytest
import torch

from polymodal.objectives.factorcl import FactorCLConfig
from polymodal.train.trainer import Interrupted


def made(critic_steps=1, **train):
    plain = micro.recipe(**train)
    stack = plain.model.tower
    objective = FactorCLConfig(critic_steps=critic_steps, readout="factors", align=0.1, separate=0.1)
    return plain.replace(objective=objective, model=plain.model.replace(unique=4, tower=stack, trunk=stack))


def snapshot(parameters):
    return [p.detach().clone() for p in parameters]


def changed(one, other):
    return any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_who_moves_when(tmp_path, turns):
    run = micro.trainer(tmp_path, made(turns))
    mine = {id(p) for p in run.objective.critic_parameters()}
    others = [p for p in run.modules.parameters() if id(p) not in mine]
    moved = []
    descend = run._descend

    def watching(compute, batches, parameters, *turn):
        before = snapshot(run.objective.critic_parameters()), snapshot(others)
        out = descend(compute, batches, parameters, *turn)
        after = snapshot(run.objective.critic_parameters()), snapshot(others)
        moved.append(
            tuple(
                any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))
                for a, b in zip(before, after, strict=True)
            )
        )
        return out

    run._descend = watching
    run._update([run._take(run.stream.batches(run.state))])
    assert moved == [(False, True)] + [(True, False)] * turns


def test_decay_leaves_what_stands_still(tmp_path):
    """AdamW decays whatever has a gradient, of zero too: who has no turn must have none."""
    run = micro.trainer(tmp_path, made(0, weight_decay=0.9, learning_rate=0.1))
    before = snapshot(run.objective.critic_parameters())
    run.fit()
    assert all(torch.equal(a, b) for a, b in zip(before, run.objective.critic_parameters(), strict=True))


@pytest.mark.parametrize("train", [{}, {"ema": 0.9, "accumulate": 2}], ids=["plain", "ema+accumulation"])
def test_a_resumed_run_with_critics_is_the_run_that_never_stopped(tmp_path, train):
    recipe = made(2, **train)
    whole = micro.trainer(tmp_path / "whole", recipe)
    whole.fit()
    first = micro.trainer(tmp_path / "cut", recipe)
    update = first._update

    def pressing(batches):
        if first.step == 3:
            signal.raise_signal(signal.SIGINT)
        return update(batches)

    first._update = pressing
    with pytest.raises(Interrupted):
        first.fit()
    torch.manual_seed(12345)
    again = micro.trainer(tmp_path / "cut", recipe)
    again.resume()
    assert again.step == 4
    again.fit()
    one, other = micro.weights(again), micro.weights(whole)
    assert set(one) == set(other)
    assert all(torch.equal(one[n], other[n]) for n in one)
    read = [
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("cut", "whole")
    ]
    clean = [[{k: v for k, v in line.items() if k != "items_per_second"} for line in lines] for lines in read]
    assert clean[0] == clean[1]
    assert any(name.startswith("gap/") for name in clean[0][-1]["log"])


def test_labels_reach_the_objective_through_the_loader(tmp_path):
    recipe = made()
    recipe = recipe.replace(objective=recipe.objective.replace(label="colour", conditional="within_class"))
    run = micro.trainer(tmp_path, recipe)
    run.stream._maker.label = run.objective.label
    run.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["terms"]["task/title"][1] > 0 for line in lines)
    assert all(line["log"]["gap/club_given/title"] >= -1e-5 for line in lines)
    # 4 colours among 8 rows: what is given leaves fewer to tell apart
    given = [line["terms"]["cross_given/title"][1] <= line["terms"]["cross/title"][1] for line in lines]
    assert all(given)
