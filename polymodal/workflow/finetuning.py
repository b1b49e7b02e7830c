"""Fine-tuning on a catalogue: batches from its rows, checkpoints beside the folder that the classifier is going to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from polymodal.catalogue.loader import Loader, collate
from polymodal.catalogue.sampler import BlockShuffle
from polymodal.embed import Embedder, model_files, model_folder
from polymodal.evaluate import LinearFit
from polymodal.tasks.finetune import Epoch, Finetune, FinetuneConfig
from polymodal.train.checkpoint import read_folder
from polymodal.types import BadInput
from polymodal.workflow.opened import Opened
from polymodal.workflow.records import draw_rows, records_of

__all__ = ["Tuned", "as_tuned", "tune"]

_HELD = 2000  # validation items at most: they are kept in memory
_CLAIM = "claim.json"


class Tuned:
    """A fine-tuned model: its head, every epoch, the kept one, and the files of its folder."""

    def __init__(self, made: Finetune, head: LinearFit, files: Mapping[str, bytes], work: Path) -> None:
        self.head, self.epochs, self.files, self._work = head, tuple(made.epochs), files, work
        self.kept: Epoch = made.best_epoch

    def finish(self) -> None:
        """Remove the checkpoints, which nobody needs once the classifier is saved."""
        shutil.rmtree(self._work, ignore_errors=True)


def tune(
    opened: Opened,
    model: Path,
    start: LinearFit,
    label: str,
    train: np.ndarray,
    held: np.ndarray,
    counts: Mapping[str, int],
    config: FinetuneConfig,
    save: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Fine-tune the opened model, from a checkpoint where the same work was interrupted.

    Args:
        model: where it was opened from. start: the probe of its vectors.
        train, held: rows to learn from and to choose the epoch by. counts: label value -> rows of `train`.
        save: the folder that the classifier is going to; checkpoints are kept in NAME.training beside it.

    Raises:
        BadInput: that folder is of other work. Interrupted: after Ctrl-C, saved.
    """
    embedder, rows = opened.embedder, opened.rows
    work = save.with_name(f"{save.name}.training")
    claim = {"model": embedder.model, "label": label, "config": config.model_dump(), "rows": len(train)}
    _claim(work, claim)
    modalities = {name: embedder.network.modality(name) for name in embedder.network.names}
    loader = Loader(
        rows,
        modalities,
        BlockShuffle(rows.blocks, train, config.seed, drop_last=False),
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augment,
        impute=embedder.recipe.train.zero_imputation,
        label=label,
        quarantine=embedder.quarantine.append,
    )
    records = list(records_of(rows, draw_rows(held, _HELD, config.seed)))
    batches = [
        collate(
            records[at : at + embedder.batch_size],
            modalities,
            impute=embedder.recipe.train.zero_imputation,
            label=label,
        )
        for at in range(0, len(records), embedder.batch_size)
    ]
    made = Finetune(
        embedder.network,
        start,
        loader,
        batches,
        counts,
        config,
        work / "checkpoints",
        embedder.dtype,
        embedder.device,
    )
    head = made.fit(progress)
    _, files = read_folder(model_folder(model))
    own = model_files(embedder.recipe, json.loads(files["fitted.json"]), embedder.network.state_dict())
    return Tuned(made, head, own, work)


def _claim(work: Path, mine: Mapping[str, object]) -> None:
    place = work / _CLAIM
    if place.is_file() and json.loads(place.read_text(encoding="utf-8")) != mine:
        raise BadInput(
            "--save", "a place where no other fine-tuning was interrupted", work, "Delete it, or choose another."
        )
    work.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(mine, indent=1), encoding="utf-8")


def as_tuned(embedder: Embedder) -> Embedder:
    """The opened model with the weights it has now, under a name that is not that of its folder."""
    return Embedder(embedder.network, embedder.recipe, "tuned", str(embedder.device), embedder.batch_size)
