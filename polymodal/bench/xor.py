"""XOR: of three bits each is the exclusive or of the others; a pair says nothing, all three say everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polymodal.bench._base import Cell, Options, Result, Table, over_seeds
from polymodal.draws import seed_of
from polymodal.modalities.features import FeaturesConfig
from polymodal.model import ITEM, Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objective import Objective
from polymodal.objectives.clip import ClipConfig
from polymodal.objectives.comm import CommConfig
from polymodal.objectives.confu import Confu, ConfuConfig
from polymodal.objectives.gram import GramConfig
from polymodal.objectives.siglip import SiglipConfig
from polymodal.objectives.symile import SymileConfig
from polymodal.recipe import TrainConfig
from polymodal.tensors import Batch, Cells, Embedded
from polymodal.train.optim import build_optimizer

__all__ = ["METHODS", "run"]

QUESTION = (
    "a and b are fair bits, c = a xor b: from two of them, does a method pick the third, when each modality is missing "
    "from training rows with the given chance?"
)
NAMES = ("a", "b", "c")
BATCH = 128
MISSING = (0.0, 0.2, 0.5)
_MLP: dict[str, Any] = {"false_negatives": False}

# name -> (objective, whether the model has a trunk, how two modalities are put together for a query)
METHODS: Mapping[str, tuple[Any, bool, str]] = {
    "CLIP": (ClipConfig(**_MLP), False, "item"),
    "SigLIP": (SiglipConfig(**_MLP), False, "item"),
    "CLIP with a trunk": (ClipConfig(**_MLP), True, "item"),
    "GRAM": (GramConfig(**_MLP), False, "item"),
    "CoMM": (CommConfig(hidden=64, out=32, **_MLP), True, "item"),
    "Symile": (SymileConfig(**_MLP), False, "product"),
    "ConFu by its network": (ConfuConfig(hidden=64, **_MLP), False, "network"),
    "ConFu by the trunk": (ConfuConfig(fuse="model", **_MLP), True, "item"),
}


def run(options: Options) -> Result:
    """Every method at every missing rate.

    Settings: `steps` of training (120); `methods`, a comma-separated part of METHODS (they have no comma themselves).
    """
    steps = int(options.settings.get("steps", "20" if options.quick else "120"))
    rows: list[tuple[str | Cell, ...]] = []
    found: dict[tuple[str, float], float] = {}
    wanted = options.settings.get("methods", "")
    chosen = [name for name in METHODS if not wanted or name in wanted.split(",")]
    for name in chosen:
        cells = []
        for missing in MISSING:
            scores = [_one(name, missing, steps, seed) for seed in options.seeds]
            options.say(f"{name}, missing {missing}: {scores}")
            cells.append(over_seeds(scores))
            found[name, missing] = cells[-1].mean
        rows.append((name, *cells))
    columns = ("method", *(f"{missing:.0%} missing" for missing in MISSING))
    table = Table("Right answers; chance is 0.5", columns, (*rows, ("chance", *["0.500"] * len(MISSING))))
    solved = [name for name in chosen if min(found[name, m] for m in MISSING) > 0.95]
    findings = (
        f"Right in more than 95 % at every missing rate: {', '.join(solved) or 'none'}.",
        f"Not: {', '.join(name for name in chosen if name not in solved) or 'none'}.",
    )
    settings = {"steps": steps, "batch": BATCH, "seeds": list(options.seeds), "quick": options.quick}
    return Result("xor", QUESTION, (table,), findings, settings=settings)


def _one(name: str, missing: float, steps: int, seed: int) -> float:
    config, trunk, how = METHODS[name]
    torch.manual_seed(seed)
    model = _model(trunk)
    objective: Objective = config.build(model)
    generator = torch.Generator().manual_seed(seed)
    optimizer = build_optimizer([model, objective], TrainConfig(learning_rate=1e-2, weight_decay=0.0))
    for step in range(steps):
        batch = _batch(_bits(BATCH, generator), generator, missing)
        optimizer.zero_grad(set_to_none=True)
        objective(model, [batch] * objective.views, seed_of(seed, step)).total.backward()
        optimizer.step()
    return _score(model.eval(), objective, how, generator)


def _model(trunk: bool) -> Model:
    """Linear encoders 2 -> 16, as in Symile's experiment, in front of whatever stages the method has."""
    shape = ModelConfig(
        width=16,
        embedding=16,
        stages=("towers", "trunk") if trunk else ("towers",),
        tower=StackConfig(layers=0),
        trunk=StackConfig(layers=1, heads=2),
    )
    fitted = {"channels": 2, "mean": [0.5] * 2, "spread": [0.5] * 2}
    config = FeaturesConfig(channels=2, ordered=False)
    return Model({name: config.build(shape.width, fitted) for name in NAMES}, shape)


def _bits(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    a, b = torch.randint(0, 2, (2, count), generator=generator)
    return {"a": a, "b": b, "c": a ^ b}


def _batch(bits: Mapping[str, Tensor], generator: torch.Generator, missing: float) -> Batch:
    """Rows in which each modality is there with chance 1 - missing, and at least one of them."""
    count = len(next(iter(bits.values())))
    draws = torch.rand(count, len(NAMES), generator=generator)
    there = (draws >= missing) | (draws == draws.max(1, keepdim=True).values)
    keys = torch.randint(-(2**62), 2**62, (count,), generator=generator)
    cells = {
        name: Cells(
            {
                "vector": torch.nn.functional.one_hot(bits[name], 2).float()[:, None] * 2 - 1,
                "position": torch.zeros(count, 1, dtype=torch.long),
            },
            there[:, at, None],
        )
        for at, name in enumerate(NAMES)
        if name in bits
    }
    return Batch(tuple(map(str, range(count))), cells, {}, keys, keys)


@torch.no_grad()
def _score(model: Model, objective: Objective, how: str, generator: torch.Generator) -> float:
    """Share of rows whose third bit, of the two it can be, is nearer to what the other two make; mean over which of the
    bits is the third. The rows are complete but for it."""
    bits, right = _bits(1000, generator), []
    for target in NAMES:
        rest = [name for name in NAMES if name != target]
        found = model.embeddings(model.encode(model.tokenize(_batch(bits, generator, 0.0).only(rest))))
        both = _batch({target: torch.tensor([0, 1])}, generator, 0.0)
        candidates = model.embeddings(model.encode(model.tokenize(both)), [target])[target].z
        answer = (_together(objective, found, rest, how) @ candidates.T).argmax(1)
        right.append((answer == bits[target]).float().mean())
    return float(torch.stack(right).mean())


def _together(objective: Objective, found: Mapping[str, Embedded], rest: Sequence[str], how: str) -> Tensor:
    one, other = (found[name].z for name in rest)
    if how == "product":
        return one * other
    if how == "network":
        assert isinstance(objective, Confu)
        z = torch.stack([found[name].z if name in rest else torch.zeros_like(one) for name in NAMES])
        present = torch.tensor([name in rest for name in NAMES])[:, None].expand(z.shape[:2])
        fused: Embedded = objective.fuse(z, present)
        return fused.z
    return found[ITEM].z
