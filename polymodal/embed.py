"""Embedder: records in, vectors out. Search, evaluation and the service all go through it, on the path of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from polymodal.catalogue.loader import collate
from polymodal.model import ITEM, Model
from polymodal.modality import Fitted, Modality
from polymodal.recipe import Recipe, build_model
from polymodal.tensors import Batch, Embedded
from polymodal.train.checkpoint import read_folder, write_folder
from polymodal.train.optim import autocast, pick_precision
from polymodal.types import BadInput, Embeddings, Record

__all__ = ["Embedder", "export", "model_folder"]


def export(folder: Path, recipe: Recipe, fitted: Mapping[str, Fitted], weights: Mapping[str, Tensor]) -> Path:
    """Write a model folder: weights (safetensors), recipe and fitted (JSON), checksums. No code, nothing pickled."""
    files = {
        "model.safetensors": save_tensors({name: value.contiguous().cpu() for name, value in weights.items()}),
        "recipe.json": recipe.model_dump_json(indent=1).encode(),
        "fitted.json": json.dumps(fitted, ensure_ascii=False, sort_keys=True).encode(),
    }
    return write_folder(folder, files)


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
        self.dtype = pick_precision(recipe.train.precision, self.device)
        self.quarantine: list[tuple[str, str, str]] = []

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
        """E."""
        return self.recipe.model.embedding

    def embed(self, records: Sequence[Record]) -> Embeddings:
        """The item vectors, in the order of the records.

        Raises:
            BadInput: a record in which the model can use nothing, with what it has and what the model knows.
        """
        found = self.vectors(records, [ITEM])[ITEM]
        if len(found) < len(records):
            have = set(found.ids)
            lost = next(record for record in records if record.id not in have)
            why = "; ".join(f"{m}: {text}" for i, m, text in self.quarantine if i == lost.id)
            raise BadInput(
                f"record {lost.id!r}",
                f"at least one usable modality of {', '.join(self.modalities)}",
                ", ".join(lost.values) or "none",
                why,
            )
        return found

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
        return {name: self._join(*found.get(name, ([], []))) for name in wanted}

    def batches(self, records: Iterable[Record], zero_imputation: bool = False) -> Iterator[Batch]:
        """The records as batches; cells that cannot be read are noted in `quarantine` and left out."""
        chunk: list[Record] = []
        for record in records:
            chunk.append(record)
            if len(chunk) == self.batch_size:
                yield self._collate(chunk, zero_imputation)
                chunk = []
        if chunk:
            yield self._collate(chunk, zero_imputation)

    def _collate(self, records: Sequence[Record], zero_imputation: bool) -> Batch:
        modalities: dict[str, Modality] = {name: self.network.modality(name) for name in self.network.names}
        return collate(records, modalities, impute=zero_imputation, quarantine=self._note)

    def _note(self, entry: object) -> None:
        self.quarantine.append((str(getattr(entry, "id", "")), str(getattr(entry, "modality", "")), str(getattr(entry, "reason", ""))))

    @torch.inference_mode()
    def run(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, Embedded]:
        """The vectors of one batch, on the device."""
        batch = batch.to(self.device)
        with autocast(self.dtype, self.device):
            return self.network.embeddings(self.network.encode(self.network.tokenize(batch)), names)

    def _join(self, ids: list[str], blocks: list[np.ndarray]) -> Embeddings:
        vectors = np.concatenate(blocks) if blocks else np.zeros((0, self.width), np.float32)
        return Embeddings(tuple(ids), vectors, self.model)


def _collect(into: tuple[list[str], list[np.ndarray]], ids: Sequence[str], embedded: Embedded) -> None:
    present = embedded.present.cpu().numpy()
    into[0].extend(i for i, there in zip(ids, present, strict=True) if there)
    into[1].append(embedded.z.float().cpu().numpy()[present])
