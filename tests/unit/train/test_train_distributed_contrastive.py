"""Two gloo processes against one, for every contrastive objective: losses and gradients are the same to rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from support import build_model, build_objective, make_batch, select

from polymodal import presence
from polymodal.tensors import Batch
from polymodal.train.distributed import Group

KINDS = ("text", "table", "features")
# rank 1 has no features at all
ROWS = [KINDS, ("text",), ("table", "features"), KINDS, ("text", "table"), ("table",), ("text",), ("text", "table")]
GROUPS = [0, 1, 2, 3, 0, 4, 5, 5]
CASES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "clip": ("clip", ("towers", "trunk"), {}),
    "clip, anchor": ("clip", ("towers",), {"graph": "anchor", "negatives": "both"}),
    "siglip": ("siglip", ("towers", "trunk"), {"chunk": 3}),
    "siglip, published": ("siglip", ("towers",), {"normalise": "batch"}),
    "simclr": ("simclr", ("towers", "trunk"), {"across": True}),
    "supcon": ("supcon", ("towers", "trunk"), {}),
    "cross_self": ("cross_self", ("towers",), {}),
    "comm": ("comm", ("towers", "trunk"), {"masks": 2}),
    "symile": ("symile", ("towers",), {"shuffles": 2}),
    "confu": ("confu", ("towers",), {}),
    "confu, model": ("confu", ("towers", "trunk"), {"fuse": "model"}),
    "gram": ("gram", ("towers",), {}),
}


def of_case(case: str) -> tuple[Any, Any, Batch]:
    kind, stages, fields = CASES[case]
    model = build_model(KINDS, stages)
    batch = make_batch(model, ROWS, groups=GROUPS)
    batch.digests["table"][4] = batch.digests["table"][0]  # the same content on two ranks
    return model, build_objective(kind, model, **fields), batch


def named_gradients(*modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{at}.{n}": p.grad.clone()
        for at, m in enumerate(modules)
        for n, p in m.named_parameters()
        if p.grad is not None
    }


def _work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    group = Group()
    for case in CASES:
        model, objective, batch = of_case(case)
        objective.world = group
        own = select(batch, range(rank * 4, rank * 4 + 4))
        cells = {
            n: presence.fill([{k: v[at][c.valid[at]] for k, v in c.fields.items()} for at in range(4)])
            for n, c in own.cells.items()
        }
        own = Batch(own.ids, {n: c for n, c in cells.items() if c is not None}, own.digests, own.groups, own.keys)
        assert ("features" in own.cells) == (rank == 0)
        own = presence.complete(own, {n: model.modality(n).blank() for n in KINDS})
        losses = objective(model, [own] * objective.views, 11)
        group.share(losses).backward()
        group.sum_gradients([*model.parameters(), *objective.parameters()])
        whole = group.whole(losses)
        if rank == 1:
            save_file(named_gradients(model, objective), f"{folder}/{case}.safetensors")
            terms = {n: [float(t.value), int(t.count)] for n, t in whole.terms.items()}
            Path(f"{folder}/{case}.json").write_text(json.dumps({"total": float(whole.total), "terms": terms}))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes left; they are started once for all cases."""
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(_work, (2, str(folder)), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_losses_and_gradients_of_one(two, case):
    model, objective, batch = of_case(case)
    losses = objective(model, [batch] * objective.views, 11)
    losses.total.backward()
    said = json.loads((two / f"{case}.json").read_text())
    assert said["total"] == pytest.approx(float(losses.total.detach()), abs=1e-5)
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
