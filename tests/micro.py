"""A catalogue of a few rows in memory and models of a few thousand parameters: what tests of training are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console

from polymodal.catalogue.loader import Loader
from polymodal.catalogue.sampler import BlockShuffle
from polymodal.modalities.features import FeaturesConfig
from polymodal.modalities.table import TableConfig
from polymodal.modalities.text import TextConfig
from polymodal.modality import Fitted
from polymodal.model import ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objectives.scale import ScaleConfig
from polymodal.recipe import Recipe, TrainConfig, build_model
from polymodal.train.distributed import Group
from polymodal.train.trainer import Trainer
from polymodal.types import Record

NAMES = ("title", "facts", "vector")
COLOURS = ("red", "blue", "green", "black")
SHAPES = ("shoe", "lamp", "vase", "chair")


def records(count: int = 24, seed: int = 0) -> list[Record]:
    """Rows in which every cell says the same two factors; about a third of the cells are missing, never all."""
    random, made = np.random.default_rng(seed), []
    for at in range(count):
        colour, shape = int(random.integers(4)), int(random.integers(4))
        vector = np.concatenate([np.eye(4)[colour], np.eye(4)[shape]]) + 0.1 * random.standard_normal(8)
        values: dict[str, Any] = {
            "title": f"{COLOURS[colour]} {SHAPES[shape]} number {at}",
            "facts": (("colour", COLOURS[colour]), ("shape", SHAPES[shape]), ("price", float(random.integers(9)))),
            "vector": vector.astype(np.float32)[None].repeat(1 + at % 3, 0),
        }
        keep = [name for name in NAMES if random.random() < 0.65] or [NAMES[at % 3]]
        group = f"g{at // 2}" if at % 5 == 0 else None
        made.append(Record(f"id{at:03d}", {n: values[n] for n in keep}, {"colour": COLOURS[colour]}, group))
    return made


class Memory:
    """Rows in memory, four to a block."""

    def __init__(self, rows: Sequence[Record]) -> None:
        self._parts = [list(rows[at : at + 4]) for at in range(0, len(rows), 4)]

    @property
    def modalities(self) -> Mapping[str, str]:
        return {"title": "text", "facts": "table", "vector": "features"}

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(map(len, self._parts))

    @property
    def index(self) -> pa.Table:
        return pa.table({"id": [r.id for part in self._parts for r in part]})

    def block(self, number: int) -> list[Record]:
        return self._parts[number]

    def __len__(self) -> int:
        return sum(self.blocks)


def recipe(
    stages: Sequence[str] = ("towers", "trunk"), objective: Mapping[str, Any] | None = None, **train: Any
) -> Recipe:
    stack = StackConfig(layers=1, heads=2, mlp_ratio=2.0)
    settings = {
        "steps": 6,
        "batch_size": 8,
        "log_every": 1,
        "checkpoint_every": 3,
        "learning_rate": 3e-3,
        "precision": "fp32",
        **train,
    }
    return Recipe(
        name="micro",
        modalities={
            "title": TextConfig(vocabulary=300, max_tokens=8),
            "facts": TableConfig(vocabulary=300),
            "vector": FeaturesConfig(channels=8, max_vectors=4),
        },
        model=ModelConfig(width=16, embedding=8, stages=tuple(stages), tower=stack, trunk=stack),
        objective=ScaleConfig(**(objective or {})),
        train=TrainConfig(**settings),
    )


def fit(made: Recipe, rows: Sequence[Record]) -> dict[str, Fitted]:
    found = {}
    for name, config in made.modalities.items():
        decoder = config.decoder()
        found[name] = config.fit([decoder.decode(r.values[name]) for r in rows if name in r.values])
    return found


def trainer(
    run: Path,
    made: Recipe | None = None,
    rows: Sequence[Record] | None = None,
    group: Group | None = None,
    console: Console | None = None,
) -> Trainer:
    """What `workflow.training` builds, over rows in memory."""
    made, rows = made or recipe(), rows or records()
    config = made.train
    torch.manual_seed(config.seed)
    model = build_model(made, fit(made, rows))
    objective = made.objective.build(model)
    memory = Memory(rows)
    loader = Loader(
        memory,
        {name: model.modality(name) for name in model.names},
        BlockShuffle(memory.blocks, np.arange(len(memory)), config.seed),
        batch_size=config.batch_size // config.accumulate,
        seed=config.seed,
        views=objective.views,
        augment=config.augment,
        workers=config.workers,
        rank=0 if group is None else group.rank,
        world=1 if group is None else group.size,
    )
    run.mkdir(parents=True, exist_ok=True)
    return Trainer(model, objective, made, loader, run, torch.device("cpu"), group, console)


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    """Everything that training changes, by name."""
    from polymodal.train.optim import optimizer_state

    found = {f"model.{n}": v for n, v in of.model.state_dict().items()}
    found |= {f"objective.{n}": v for n, v in of.objective.state_dict().items()}
    found |= {f"optimizer.{n}": v for n, v in optimizer_state(of.optimizer).items()}
    if of.average is not None:
        found |= {f"average.{n}": v for n, v in of.average.values.items()}
    return {name: value.detach().clone() for name, value in found.items()}
