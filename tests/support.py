"""Small worlds for tests: every modality, objective and stage order that exists, found by walking the packages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from polymodal import presence
from polymodal.config import discover
from polymodal.modality import Modality, ModalityConfig
from polymodal.model import Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.nn.heads import PresentBatchNorm
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Cells, stable_hash

KINDS: tuple[str, ...] = tuple(discover("polymodal.modalities"))
FIVE = ("image", "text", "table", "video", "audio")
SUBSETS = [tuple(s) for n in range(1, 6) for s in itertools.combinations(FIVE, n)]
STAGE_ORDERS = [
    ("towers",),
    ("trunk",),
    ("towers", "trunk"),
    ("trunk", "towers"),
    ("towers", "cotrunk"),
    ("cotrunk",),
]


def _configs(package: str, base: type) -> dict[str, type]:
    found = {}
    for name, module in discover(package).items():
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, base)
                and value.__module__ == module.__name__
                and "kind" in value.model_fields
            ):
                found[name] = value
    return found


MODALITY_CONFIGS: Mapping[str, type[ModalityConfig]] = _configs("polymodal.modalities", ModalityConfig)
OBJECTIVE_CONFIGS: Mapping[str, type[ObjectiveConfig]] = _configs("polymodal.objectives", ObjectiveConfig)


def example_values(kind: str, count: int = 8) -> list[object]:
    decoder = MODALITY_CONFIGS[kind]().decoder()
    return [decoder.example(seed) for seed in range(count)]


def build_modality(kind: str, width: int = 16, seed: int = 0) -> Modality:
    torch.manual_seed(seed)
    config = MODALITY_CONFIGS[kind]()
    return config.build(width, config.fit(example_values(kind)))


def build_model(
    kinds: Sequence[str] = FIVE,
    stages: Sequence[str] = ("towers", "trunk"),
    width: int = 16,
    layers: int = 1,
    seed: int = 0,
) -> Model:
    torch.manual_seed(seed)
    stack = StackConfig(layers=layers, heads=2)
    config = ModelConfig(width=width, embedding=12, unique=4, stages=tuple(stages), tower=stack, trunk=stack)
    return Model({kind: build_modality(kind, width) for kind in kinds}, config)


def build_objective(kind: str, model: Model, seed: int = 0, **fields: object) -> Objective:
    torch.manual_seed(seed)
    return OBJECTIVE_CONFIGS[kind](**fields).build(model)


def normalises_by_batch(objective: Objective) -> bool:
    """Whether small differences between two or three rows are divided by themselves, which enlarges rounding."""
    return any(isinstance(part, PresentBatchNorm) for part in objective.modules())


def make_batch(
    model: Model, rows: Sequence[Iterable[str]], seed: int = 0, groups: Sequence[int] | None = None
) -> Batch:
    """A batch in which row i has exactly the modalities `rows[i]`."""
    rows = [set(row) for row in rows]
    cells, digests = {}, {}
    for name in model.names:
        modality = model.modality(name)
        fields = [
            modality.preprocess(modality.example(seed * 1000 + at)) if name in row else None
            for at, row in enumerate(rows)
        ]
        filled = presence.fill(fields)
        if filled is not None:
            cells[name] = filled
            digests[name] = torch.tensor(
                [stable_hash(f"{name}{seed}{at}") if name in row else 0 for at, row in enumerate(rows)]
            )
    keep = {} if groups is None else {"groups": torch.tensor(groups)}
    return Batch(tuple(f"row{seed}-{at}" for at in range(len(rows))), cells, digests, **keep)


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, as stored (no re-padding)."""
    at = torch.tensor(list(rows), dtype=torch.long)
    cells = {n: Cells({k: v[at] for k, v in c.fields.items()}, c.valid[at]) for n, c in batch.cells.items()}
    digests = {n: d[at] for n, d in batch.digests.items()}
    columns = (column[at] for column in (batch.groups, batch.keys, batch.labels, batch.hard))
    return Batch(tuple(batch.ids[i] for i in rows), cells, digests, *columns)


def garbage(batch: Batch, seed: int) -> Batch:
    """The batch with every stored number that is not a valid token's overwritten, and the digests of absent cells."""
    generator = torch.Generator().manual_seed(seed)
    cells = {}
    for name, cell in batch.cells.items():
        fields = {}
        for key, value in cell.fields.items():
            noise = torch.randint(0, 2 if value.dtype == torch.bool else 100, value.shape, generator=generator).to(
                value.dtype
            )
            invalid = ~cell.valid.view(*cell.valid.shape, *[1] * (value.ndim - 2))
            fields[key] = torch.where(invalid, noise, value)
        cells[name] = Cells(fields, cell.valid)
    digests = {n: torch.where(cells[n].present, d, torch.full_like(d, 7)) for n, d in batch.digests.items()}
    return replace(batch, cells=cells, digests=digests)


def pad(batch: Batch, extra: int = 5) -> Batch:
    """The batch with `extra` more columns of padding in every modality."""
    cells = {}
    for name, cell in batch.cells.items():
        fields = {k: torch.cat([v, v.new_zeros((len(v), extra, *v.shape[2:]))], 1) for k, v in cell.fields.items()}
        cells[name] = Cells(fields, torch.cat([cell.valid, cell.valid.new_zeros((len(cell.valid), extra))], 1))
    return replace(batch, cells=cells)


def gradients(
    model: Model, objective: Objective, batch: Batch, seed: int = 3
) -> tuple[dict[str, torch.Tensor], dict[str, tuple[float, int]]]:
    """Every parameter's gradient (None as zeros) and every term as (value, count)."""
    for module in (model, objective):
        module.zero_grad(set_to_none=True)
    losses = objective(model, [batch] * objective.views, seed)
    losses.total.backward()
    named = {f"{at}.{n}": p for at, m in enumerate((model, objective)) for n, p in m.named_parameters()}
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named.items()}
    return grads, {n: (float(t.value.detach()), int(t.count)) for n, t in losses.terms.items()}
