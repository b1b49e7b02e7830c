"""Embedder: records in, vectors out. Search, evaluation and the service all go through it, on the path of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from polymodal.catalogue.loader import collate
from polymodal.catalogue.quarantine import Quarantined
from polymodal.modality import Fitted, Modality
from polymodal.model import ITEM, Model
from polymodal.recipe import Recipe, build_model
from polymodal.tensors import Batch, Embedded
from polymodal.train.checkpoint import read_folder, write_folder
from polymodal.train.optim import autocast, pick_precision
from polymodal.types import BadInput, Embeddings, MediaError, MediaReason, Record

__all__ = ["Embedder", "export", "model_files", "model_folder"]


def export(folder: Path, recipe: Recipe, fitted: Mapping[str, Fitted], weights: Mapping[str, Tensor]) -> Path:
    """Write a model folder: weights (safetensors), recipe and fitted (JSON), checksums. No code, nothing pickled."""
    return write_folder(folder, model_files(recipe, fitted, weights))


def model_files(recipe: Recipe, fitted: Mapping[str, Fitted], weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The files that make a folder a model folder, by name."""
    return {
        "model.safetensors": save_tensors({name: value.contiguous().cpu() for name, value in weights.items()}),
        "recipe.json": recipe.model_dump_json(indent=1).encode(),
        "fitted.json": json.dumps(fitted, ensure_ascii=False, sort_keys=True).encode(),
    }


def model_folder(path: Path) -> Path:
    """The model folder that `path` is or, for a run directory, has inside. Raises BadInput when there is none."""
    for folder in (path, path / "model"):
        if (folder / "model.safetensors").exists():
            return folder
    raise BadInput("model", "a run directory or a model folder", path, "Train one with: polymodal train")


class Embedder:
    """A trained model that embeds records, whatever subset of modalities they have.

    Args:
        model: in evaluation mode.
        recipe: it was trained by.
        digest: of its folder.
        batch_size: records at a time.
    """

    def __init__(self, model: Model, recipe: Recipe, digest: str, device: str = "cpu", batch_size: int = 128) -> None:
        self.network, self.recipe, self._digest, self.batch_size = model.to(device).eval(), recipe, digest, batch_size
        self.device = torch.device(device)
        self.dtype = pick_precision(recipe.train.precision, self.device, recipe.model.width)
        self.quarantine: list[Quarantined] = []

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """From a run directory or a model folder. Raises BadInput, or CorruptCheckpoint for a damaged folder."""
        folder = model_folder(Path(path))
        tensors, files = read_folder(folder)
        recipe = Recipe.parse(json.loads(files["recipe.json"]))
        model = build_model(recipe, json.loads(files["fitted.json"]))
        model.load_state_dict(tensors["model"])
        return cls(model, recipe, hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()[:16], device)

    @property
    def model(self) -> str:
        """Digest of the model folder, 16 hexadecimal digits."""
        return self._digest

    @property
    def modalities(self) -> dict[str, str]:
        """Modality name -> kind."""
        return {name: config.kind for name, config in self.recipe.modalities.items()}

    @property
    def width(self) -> int:
        """Numbers in an item vector."""
        return self.recipe.model.item_width(len(self.recipe.modalities))

    def embed(self, records: Sequence[Record]) -> Embeddings:
        """The item vectors of queries, in their order. Unlike `vectors` it leaves nothing out.

        Raises:
            MediaError: a cell that cannot be decoded: whoever asked must know that it was not looked at.
            BadInput: a record that has no modality of the model.
        """
        bad: list[Quarantined] = []
        blocks = []
        for begin in range(0, len(records), self.batch_size):
            batch = self._collate(records[begin : begin + self.batch_size], False, bad.append)
            if bad:
                raise MediaError(cast(MediaReason, bad[0].reason), f"{bad[0].modality}: {bad[0].detail}".rstrip(": "))
            item = self.run(batch, [ITEM])[ITEM] if batch.cells else None
            for row, record in enumerate(records[begin : begin + self.batch_size]):
                if item is None or not bool(item.present[row]):
                    known = ", ".join(self.modalities)
                    raise BadInput(
                        f"record {record.id!r}", f"at least one of {known}", ", ".join(record.values) or "nothing"
                    )
            if item is not None:
                blocks.append(item.z.float().cpu().numpy())
        return self._join([record.id for record in records], blocks)

    def unknown(self, record: Record) -> tuple[str, ...]:
        """The record's modalities of which no part was seen in training, such as a text in a script the catalogue does
        not have: its vector means nothing. Raises MediaError for a cell that cannot be decoded."""
        modalities = {name: self.network.modality(name) for name in record.values if name in self.modalities}
        return tuple(name for name, m in modalities.items() if not m.knows(m.decode(record.values[name])))

    def vectors(
        self,
        records: Iterable[Record],
        names: Collection[str] | None = None,
        *,
        only: Collection[str] | None = None,
        zero_imputation: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Embeddings]:
        """Vectors by name: each modality's own, and "item". Rows without one are left out of it.

        Args:
            records: any number, streamed.
            names: which vectors; all by default.
            only: embed as if the records had these modalities alone.
            zero_imputation: attend blank cells for the absent modalities, the control.
            progress: called with the number of records done.
        """
        found: dict[str, tuple[list[str], list[np.ndarray]]] = {}
        for batch in self.batches(records, zero_imputation):
            subset = batch if only is None else batch.only(only)
            if subset.cells:
                for name, embedded in self.run(subset, names).items():
                    _collect(found.setdefault(name, ([], [])), batch.ids, embedded)
            if progress is not None:
                progress(len(batch))
        wanted = names if names is not None else [*self.modalities, ITEM]
        return {name: self._join(*found.get(name, ([], [])), name) for name in wanted}

    def batches(self, records: Iterable[Record], zero_imputation: bool = False) -> Iterator[Batch]:
        """The records as batches; cells that cannot be read are noted in `quarantine` and left out."""
        chunk: list[Record] = []
        for record in records:
            chunk.append(record)
            if len(chunk) == self.batch_size:
                yield self._collate(chunk, zero_imputation, self.quarantine.append)
                chunk = []
        if chunk:
            yield self._collate(chunk, zero_imputation, self.quarantine.append)

    def _collate(
        self, records: Sequence[Record], zero_imputation: bool, report: Callable[[Quarantined], None]
    ) -> Batch:
        modalities: dict[str, Modality] = {name: self.network.modality(name) for name in self.network.names}
        impute = (
            zero_imputation or self.recipe.train.zero_imputation
        )  # a model of that control is used as it was trained
        return collate(records, modalities, impute=impute, quarantine=report)

    @torch.inference_mode()
    def run(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, Embedded]:
        """The vectors of one batch, on the device."""
        batch = batch.to(self.device)
        with autocast(self.dtype, self.device):
            return self.network.embeddings(self.network.encode(self.network.tokenize(batch)), names)

    def _join(self, ids: list[str], blocks: list[np.ndarray], name: str = ITEM) -> Embeddings:
        width = self.width if name == ITEM else self.recipe.model.embedding
        vectors = np.concatenate(blocks) if blocks else np.zeros((0, width), np.float32)
        return Embeddings(tuple(ids), vectors, self.model)


def _collect(into: tuple[list[str], list[np.ndarray]], ids: Sequence[str], embedded: Embedded) -> None:
    present = embedded.present.cpu().numpy()
    into[0].extend(i for i, there in zip(ids, present, strict=True) if there)
    into[1].append(embedded.z.float().cpu().numpy()[present])
