"""Catalogue in, model folder out."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow.compute as pc
import torch
from rich.console import Console

from polymodal.catalogue.loader import Loader
from polymodal.catalogue.negatives import Negatives, find_negatives
from polymodal.catalogue.prepare import Prepared, prepare
from polymodal.catalogue.quarantine import Quarantined, decode_record
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.sampler import BlockShuffle
from polymodal.catalogue.shards import Shards
from polymodal.config import discover, nearest
from polymodal.embed import export, model_folder
from polymodal.modality import Fitted, Modality
from polymodal.model import Model
from polymodal.objective import Objective
from polymodal.recipe import Recipe, build_model
from polymodal.train.distributed import Group, join_group
from polymodal.train.trainer import Trainer
from polymodal.types import BadInput
from polymodal.workflow.records import check_shapes

__all__ = [
    "TrainResult",
    "decoders",
    "find_recipe",
    "fit_modalities",
    "open_rows",
    "prepare_data",
    "resume",
    "split_rows",
    "train",
]

# Statistics of continuous inputs settle long before this many cells; text and tables are read whole for their words.
_MEDIA_SAMPLE = 2000


def open_rows(path: Path) -> Rows:
    """Prepared shards where `path` holds a manifest of them, else the raw catalogue."""
    if not path.exists():
        raise BadInput(
            "data", "a catalogue or prepared shards", path, "Make a toy one with: polymodal demo --only-data"
        )
    return Shards.open(path) if (path / "manifest.json").exists() else Catalogue.open(path)


def split_rows(rows: Rows, split: str | None) -> np.ndarray:
    """Row numbers of a split; all rows where the catalogue has no splits at all or `split` is None.

    Raises BadInput for a split without rows, naming those there are.
    """
    column = rows.index.column("split")
    names = sorted(set(pc.unique(column).to_pylist()) - {""})
    if split is None or not names:
        return np.arange(len(rows))
    found = np.flatnonzero(np.asarray(column.to_pylist()) == split)
    if not len(found):
        raise BadInput("split", f"one of {', '.join(names)}", repr(split), nearest(split, names))
    return found


def find_recipe(name: str, kinds: Mapping[str, str], size: str | None = None) -> Recipe:
    """The recipe "scale", or "scale/reference" for another function of the module, for these modalities."""
    module_name, _, function = name.partition("/")
    modules = discover("polymodal.recipes")
    if module_name not in modules:
        raise BadInput("recipe", "a recipe", repr(module_name), nearest(module_name, list(modules)))
    module = modules[module_name]
    functions = [n for n in module.__all__ if inspect.isfunction(getattr(module, n))]
    if (function or "recipe") not in functions:
        raise BadInput("recipe", f"one of {', '.join(functions)}", repr(function), nearest(function, functions))
    made = getattr(module, function or "recipe")
    return cast(Recipe, made(kinds, size) if size is not None else made(kinds))


def decoders(recipe: Recipe) -> dict[str, Modality]:
    """Modality name -> a modality good for `decode`, with nothing fitted."""
    return {name: config.decoder() for name, config in recipe.modalities.items()}


def prepare_data(
    data: Path,
    out: Path,
    recipe: Recipe,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> Prepared:
    """Decode a catalogue once into shards that recipes of this size read."""
    return prepare(Catalogue.open(data), decoders(recipe), out, workers=workers, progress=progress, force=force)


def fit_modalities(recipe: Recipe, rows: Rows, numbers: np.ndarray) -> dict[str, Fitted]:
    """What each modality learns from the training rows before training: words, means, spreads."""
    return {
        name: config.fit(_cells(name, config.decoder(), rows, numbers)) for name, config in recipe.modalities.items()
    }


def _cells(name: str, modality: Modality, rows: Rows, numbers: np.ndarray) -> Iterator[Any]:
    wanted, start, given = set(numbers.tolist()), 0, 0
    for block, size in enumerate(rows.blocks):
        inside = [row for row in range(start, start + size) if row in wanted]
        records = rows.block(block) if inside else []
        for row in inside:
            record, _ = decode_record(records[row - start], {name: modality}, None)
            if name in record.values:
                yield record.values[name]
                given += 1
                if modality.is_media and given >= _MEDIA_SAMPLE:
                    return
        start += size


@dataclass(frozen=True)
class TrainResult:
    """What a training run left: its folder, the model's folder, steps, rows, the last losses, cells left out."""

    run: Path
    model: Path
    steps: int
    rows: int
    parameters: int
    precision: str
    last: Mapping[str, Any]
    quarantined: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "run": str(self.run), "model": str(self.model)}


def train(recipe: Recipe, run: Path, console: Console | None = None, device: str | None = None) -> TrainResult:
    """Train a recipe on its data into a new run directory.

    Raises:
        BadInput: the directory holds something already; a modality that the data does not have.
        Interrupted, Diverged: see `train.trainer`.
    """
    if run.exists() and any(run.iterdir()):
        raise BadInput("run", "a new or empty directory", run, f"Go on with it by: polymodal train --resume {run}")
    rows = open_rows(Path(recipe.data))
    recipe = recipe.replace(data=str(Path(recipe.data).resolve()))
    unknown = [name for name in recipe.modalities if name not in rows.modalities]
    if unknown:
        raise BadInput(
            "recipe.modalities", "modalities of the data", unknown[0], nearest(unknown[0], list(rows.modalities))
        )
    check_shapes(rows, decoders(recipe))
    fitted = fit_modalities(recipe, rows, split_rows(rows, recipe.split))
    parts = _parts(recipe, fitted, rows, again=False)
    run.mkdir(parents=True, exist_ok=True)
    # the recipe last and at once: with it the run can be resumed, even before its first checkpoint
    (run / "fitted.json").write_text(json.dumps(fitted, ensure_ascii=False, sort_keys=True))
    (run / "recipe.json.part").write_text(recipe.model_dump_json(indent=1))
    (run / "recipe.json.part").replace(run / "recipe.json")
    return _fit(parts, fitted, rows, run, console, device, again=False)


def resume(run: Path, console: Console | None = None, device: str | None = None) -> TrainResult:
    """Go on with an interrupted run; the result is that of never having stopped.

    Raises BadInput when `run` is no run directory, CorruptCheckpoint when none of its checkpoints is whole.
    """
    if not (run / "recipe.json").exists():
        raise BadInput("--resume", "a run directory", run, "Start one with: polymodal train RECIPE DATA --run DIR")
    recipe = Recipe.parse(json.loads((run / "recipe.json").read_text()))
    fitted = json.loads((run / "fitted.json").read_text())
    rows = open_rows(Path(recipe.data))
    return _fit(_parts(recipe, fitted, rows, again=True), fitted, rows, run, console, device, again=True)


class _Parts(NamedTuple):
    """What a run is made of, and the list that bad cells are put on."""

    recipe: Recipe
    model: Model
    objective: Objective
    loader: Loader
    group: Group | None
    bad: list[Quarantined]


def _parts(recipe: Recipe, fitted: Mapping[str, Fitted], rows: Rows, again: bool) -> _Parts:
    """Everything that can be refused, before anything is written."""
    group = join_group()
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, dict(fitted))
    objective = recipe.objective.build(model)
    if not again:
        model.start_from_bert(objective.decoders())
    bad: list[Quarantined] = []
    loader = _loader(recipe, rows, {name: model.modality(name) for name in model.names}, objective, group, bad)
    return _Parts(recipe, model, objective, loader, group, bad)


def _fit(
    parts: _Parts,
    fitted: Mapping[str, Fitted],
    rows: Rows,
    run: Path,
    console: Console | None,
    device: str | None,
    again: bool,
) -> TrainResult:
    recipe, model, objective, loader, group, bad = parts
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    trainer = Trainer(model, objective, recipe, loader, run, where, group, console)
    warnings = trainer.resume() if again and any((run / "checkpoints").glob("step-*")) else []
    for text in warnings if console is not None else ():
        console.print(f"[yellow]warning[/] {text}", highlight=False) if console is not None else None
    trainer.fit()
    folder = (
        export(run / "model", recipe, fitted, trainer.exported()) if group is None or group.rank == 0 else run / "model"
    )
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return TrainResult(
        run,
        model_folder(folder),
        trainer.step,
        len(split_rows(rows, recipe.split)),
        sum(p.numel() for p in model.parameters()),
        str(trainer.dtype).removeprefix("torch."),
        json.loads(lines[-1]) if lines else {},
        len(bad),
        tuple(warnings),
    )


def _loader(
    recipe: Recipe,
    rows: Rows,
    modalities: Mapping[str, Modality],
    objective: Objective,
    group: Group | None,
    bad: list[Quarantined],
) -> Loader:
    config = recipe.train
    numbers = split_rows(rows, recipe.split)
    size = config.batch_size // config.accumulate
    if size > len(numbers):
        raise BadInput(
            "train.batch_size",
            f"at most the {len(numbers)} training rows",
            size,
            f"--set train.batch_size={len(numbers)}",
        )
    known = sorted(c.removeprefix("label_") for c in rows.index.column_names if c.startswith("label_"))
    if objective.label and objective.label not in known:
        raise BadInput("objective.label", "a label of the data", objective.label, nearest(objective.label, known))
    sampler = BlockShuffle(rows.blocks, numbers, config.seed, hard=_negatives(rows, numbers, modalities, objective))
    return Loader(
        rows,
        modalities,
        sampler,
        batch_size=size,
        seed=config.seed,
        views=objective.views,
        label=objective.label,
        augment=config.augment,
        impute=config.zero_imputation,
        workers=config.workers,
        rank=0 if group is None else group.rank,
        world=1 if group is None else group.size,
        quarantine=bad.append,
    )


def _negatives(
    rows: Rows, numbers: np.ndarray, modalities: Mapping[str, Modality], objective: Objective
) -> Negatives | None:
    """Found anew when a run goes on: they follow from the rows and what was fitted on them."""
    wanted = objective.hard
    if wanted is None:
        return None
    name = wanted.modality
    return find_negatives(rows, numbers, name, modalities[name], share=wanted.share, band=wanted.band, top=wanted.top)
