"""Two gloo processes against one: losses, gradients, training and resuming are the same to rounding."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from support import build_model, build_objective, make_batch, select

from polymodal import presence
from polymodal.objectives.interbert import Grouping, Replacement
from polymodal.objectives.scale import HarmoniseConfig
from polymodal.tensors import Batch
from polymodal.train.distributed import Group, join_group
from polymodal.train.trainer import Interrupted
from polymodal.types import BadInput

KINDS = ("text", "table", "features")
# rank 1 has no features at all; rows of rank 0 lack text in one and have nothing but text in another
ROWS = [KINDS, ("text",), ("table", "features"), KINDS, ("text", "table"), ("table",), ("text",), ("text", "table")]
GROUPS = [0, 1, 2, 3, 0, 4, 5, 5]  # siblings on both sides of the cut, and on one
MANY = [KINDS] * 2 + ROWS[:2] + [("text", "table"), KINDS, ("text", "table"), ("table",)]  # matching wants company
CASES: dict[str, dict[str, Any]] = {
    "default": {"mask_ratio": 0.5},
    "release": {
        "heads_input": "encoder",
        "harmonise": HarmoniseConfig(
            source="split", detach=False, diagonal="literal", presence=False, floor=None, mean_one=False
        ),
        "modality_dropout": 0.0,
        "mask_ratio": 0.5,
    },
    "free": {
        "harmonise": HarmoniseConfig(form="free"),
        "negatives": "cross",
        "mask_ratio": 0.5,
        "modality_dropout": 0.1,
    },
    "equal": {
        "harmonise": HarmoniseConfig(form="none"),
        "false_negatives": False,
        "modality_dropout": 0.2,
        "mask_ratio": 0.5,
    },
    "interbert": {
        "replacement": Replacement(share=1.0, hard=0.5, band=(-1.0, 0.9)),
        "group": Grouping(probability=0.4),
        "modality_dropout": 0.0,
    },
    "interbert, negatives at hand": {"replacement": Replacement(share=1.0, corpus="text"), "modality_dropout": 0.0},
    "streams": {"mismatch": 1.0, "mask_ratio": 0.5},
    "streams masked": {"mismatch": 0.5, "matching_masked": True, "matching_reads": "item", "mask_ratio": 0.5},
}
STAGES = {
    "default": ("towers", "trunk"),
    "release": ("towers", "trunk"),
    "free": ("trunk", "towers"),
    "equal": ("trunk",),
    "interbert": ("trunk", "towers"),
    "interbert, negatives at hand": ("trunk", "towers"),
    "streams": ("towers", "cotrunk"),
    "streams masked": ("trunk",),
}


def of_case(case: str) -> tuple[Any, Any, Batch]:
    model = build_model(KINDS, STAGES[case])
    kind = next((kind for kind in ("interbert", "streams") if kind in case), "scale")
    batch = make_batch(model, ROWS if kind == "scale" else MANY, groups=GROUPS)
    digests = {n: d.clone() for n, d in batch.digests.items()}
    digests["table"][4] = digests["table"][0]  # the same content on two ranks
    return (
        model,
        build_objective(kind, model, **CASES[case]),
        replace(batch, digests=digests, hard=batch.keys.flip(0)),  # each row's negative is on the other side
    )


def named_gradients(*modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{at}.{n}": p.grad.clone()
        for at, m in enumerate(modules)
        for n, p in m.named_parameters()
        if p.grad is not None
    }


def _losses(group: Group, folder: str) -> None:
    rank = group.rank
    for case in CASES:
        model, objective, batch = of_case(case)
        objective.world = group
        own = select(batch, range(rank * 4, rank * 4 + 4))
        # as the loader makes it: padded to its own longest row, and without the modality that no row has
        cells = {
            n: presence.fill([{k: v[at][c.valid[at]] for k, v in c.fields.items()} for at in range(4)])
            for n, c in own.cells.items()
        }
        own = replace(own, cells={n: c for n, c in cells.items() if c is not None})
        assert ("features" in own.cells) == (rank == 0 or objective.config.kind != "scale")
        own = presence.complete(own, {n: model.modality(n).blank() for n in KINDS})
        losses = objective(model, [own], 11)
        part = group.share(losses)
        part.backward()
        group.sum_gradients([*model.parameters(), *objective.parameters()])
        whole = group.whole(losses)
        total = part.detach().clone()
        dist.all_reduce(total)
        if rank == 1:  # the one that lacks a modality
            save_file(named_gradients(model, objective), f"{folder}/{case}.safetensors")
            terms = {n: [float(t.value), int(t.count)] for n, t in whole.terms.items()}
            said = {"total": float(total), "whole": float(whole.total), "terms": terms}
            Path(f"{folder}/{case}.json").write_text(json.dumps(said))
    flags = [group.any(False), group.any(rank == 1), group.any(True)]
    assert flags == [False, True, True]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_losses_and_gradients_of_one(two, case):
    model, objective, batch = of_case(case)
    losses = objective(model, [batch], 11)
    losses.total.backward()
    said = json.loads((two / f"{case}.json").read_text())
    assert said["total"] == pytest.approx(float(losses.total.detach()), abs=1e-5)
    assert said["whole"] == pytest.approx(said["total"], abs=1e-5)
    assert set(said["terms"]) == set(losses.terms)
    for name, term in losses.terms.items():
        assert said["terms"][name][1] == int(term.count), name
        assert said["terms"][name][0] == pytest.approx(float(term.value.detach()), abs=1e-5), name
    one, other = named_gradients(model, objective), load_file(two / f"{case}.safetensors")
    assert set(one) == set(other)
    largest = max(float(g.abs().max()) for g in one.values())
    assert largest > 1e-2
    for name, gradient in one.items():
        assert (gradient - other[name]).abs().max() < 1e-5 * max(1.0, largest), name


def test_the_cases_exercise_what_they_should():
    for case in CASES:
        model, objective, batch = of_case(case)
        counts = {n: int(t.count) for n, t in objective(model, [batch], 11).terms.items()}
        # dropout may take one side of a rare pair from every row, where vectors are read after the trunk
        assert sum(count == 0 for count in counts.values()) <= 1, (case, counts)


def test_cells_are_lent_from_one_process_to_the_other():
    model, objective, batch = of_case("interbert")
    swap = objective.swap(model, batch, KINDS, 11)
    rows = torch.arange(len(batch))
    across = [swap.rows[n] & ((swap.donors[n] < 4) != (rows < 4)) for n in KINDS]
    assert torch.stack(across).any(1).sum() > 1
    assert torch.stack(list(swap.rows.values())).any(0)[:4].any()
    model, objective, batch = of_case("interbert, negatives at hand")
    swap = objective.swap(model, batch, KINDS, 11)
    flipped = [swap.rows[n] & (swap.donors[n] == 7 - rows) for n in KINDS]
    assert torch.stack(flipped).any(0).sum() > 2
    model, objective, batch = of_case("streams")
    asked = objective._ask(model, batch, 11)
    assert ((asked.source < 4) != (rows < 4)).any(0).sum() >= 2


# -- training ----------------------------------------------------------------------------------------------------------

THREE = micro.recipe(steps=3, checkpoint_every=2, ema=0.9)
SIX = micro.recipe(steps=6, checkpoint_every=2, ema=0.9)


def _train(group: Group, folder: str) -> None:
    run = Path(folder)
    micro.trainer(run / "three", THREE, group=group).fit()
    on = micro.trainer(run / "three", SIX, group=group)
    assert on.resume() == []
    assert on.step == 3
    on.run = run / "six"
    on.run.mkdir(exist_ok=True)
    on.fit()
    odd = THREE.replace(train=THREE.train.replace(batch_size=9))
    with pytest.raises(BadInput, match="divides among 2 processes"):
        micro.trainer(run / "odd", odd, group=group)
    # Ctrl-C on one rank stops both after the same step, saved
    stopped = micro.trainer(
        run / "stopped", THREE.replace(train=THREE.train.replace(steps=500, checkpoint_every=500)), group=group
    )
    update = stopped._update

    def pressing(micro_batches: Any) -> Any:
        if group.rank == 1 and stopped.step == 1:
            os.kill(os.getpid(), 2)
        return update(micro_batches)

    stopped._update = pressing  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="after step 2"):
        stopped.fit()


def _work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    _losses(Group(), folder)
    _train(Group(), folder)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes left; they are started once for all tests here."""
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(_work, (2, str(folder)), nprocs=2, start_method="spawn")
    return folder


def without_key_bias(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A bias on the keys shifts all logits of a query alike: its true gradient is 0, and Adam walks on the rounding."""
    return {n: v[: len(v) // 3].clone() if n.endswith("qkv.bias") else v for n, v in values.items()} | {
        f"{n}/values": v[len(v) // 3 * 2 :].clone() for n, v in values.items() if n.endswith("qkv.bias")
    }


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    one, other = without_key_bias(one), without_key_bias(other)
    assert set(one) == set(other)
    far = {n: float((one[n].double() - other[n].double()).abs().max()) for n in one}
    assert max(far.values()) < tolerance, sorted(far.items(), key=lambda item: -item[1])[:3]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_three_steps_of_two_are_three_steps_of_one(two, tmp_path):
    one = micro.trainer(tmp_path, THREE)
    one.fit()
    other = micro.trainer(two / "three", THREE)
    other.resume()
    assert other.step == 3
    assert other.state == one.state
    close(micro.weights(one), micro.weights(other), 2e-5)
    alone, together = metrics(tmp_path), metrics(two / "three")
    assert len(alone) == len(together) == 3
    for a, b in zip(alone, together, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-5)
        assert a["effective_rank"] == pytest.approx(b["effective_rank"], rel=1e-3)
        assert {n: c for n, (_, c) in a["terms"].items()} == {n: c for n, (_, c) in b["terms"].items()}


def test_a_run_of_two_goes_on_as_one(two, tmp_path):
    """3 steps of two processes, 3 more of one, against 3 more of two."""
    both = micro.trainer(two / "six", SIX)
    both.resume()
    assert both.step == 6
    one = micro.trainer(two / "three", SIX)
    one.resume()
    one.run = tmp_path
    one.fit()
    close(micro.weights(one), micro.weights(both), 5e-5)


def test_an_interrupt_of_one_rank_stops_all(two):
    stopped = micro.trainer(two / "stopped", THREE)
    assert stopped.resume() == []
    assert stopped.step == 2


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_group() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join_group() is None
