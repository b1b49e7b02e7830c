"""Vectors of many rows, block by block: fused, from each modality alone, and by the same model before training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from polymodal.catalogue.rows import Rows
from polymodal.embed import Embedder, model_folder
from polymodal.evaluate import AS_IS, Subset
from polymodal.recipe import build_model
from polymodal.train.checkpoint import read_folder
from polymodal.types import BadInput, Embeddings, Record
from polymodal.workflow.records import records_of
from polymodal.workflow.subsets import Evaluated, embed_subsets

__all__ = ["ItemVectors", "embed_rows", "part_of", "untrained", "words_of"]

_CHUNK = 1024  # records decoded and embedded at a time: what memory holds


@dataclass
class ItemVectors:
    """Vectors of some rows.

    Args:
        fused: whatever each row has. alone: modality -> item vectors made from it alone, of the rows that have it.
        towers: modality -> its own vectors before any other was seen, which an aligned model makes comparable.
        records: the rows with their texts and attributes only, which are small.
        presence: id -> the modalities that could be read. empty: rows with nothing that the model reads.
    """

    fused: Embeddings
    alone: dict[str, Embeddings]
    towers: dict[str, Embeddings]
    records: list[Record]
    presence: dict[str, Subset] = field(default_factory=dict)

    @property
    def empty(self) -> list[str]:
        """Ids without a vector."""
        return [record.id for record in self.records if record.id not in self.presence]


def embed_rows(
    embedder: Embedder,
    rows: Rows,
    numbers: np.ndarray,
    *,
    alone: bool = False,
    towers: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ItemVectors:
    """Embed rows in the order of the file.

    Args:
        alone: also from each modality alone; towers: also each modality's own vectors.
        progress: called with the rows done since.

    Raises:
        BadInput: no row has anything that the model reads.
    """
    stream = records_of(rows, numbers)
    subsets = [frozenset({name}) for name in embedder.modalities] if alone else []
    parts: list[Evaluated] = []
    kept: list[Record] = []
    while chunk := list(islice(stream, _CHUNK)):
        names = None if towers else ()
        found = embed_subsets(embedder, chunk, subsets, control=False, names=names, progress=progress)
        parts.append(found)
        kept += [words_of(record) for record in chunk]
    fused = [part.fused[AS_IS] for part in parts if AS_IS in part.fused]
    if not fused:
        raise BadInput("data", f"rows that have one of {', '.join(embedder.modalities)}", f"none of {len(numbers)}")
    single = {name: [p.fused[s] for p in parts if (s := frozenset({name})) in p.fused] for name in embedder.modalities}
    own = {name: [p.towers[name] for p in parts if name in p.towers] for name in embedder.modalities}
    presence = {i: had for part in parts for i, had in part.presence.items() if had}
    return ItemVectors(
        _joined(fused),
        {name: _joined(some) for name, some in single.items() if some},
        {name: _joined(some) for name, some in own.items() if some and sum(map(len, some))},
        kept,
        presence,
    )


def words_of(record: Record) -> Record:
    """The record with its texts and attributes only."""
    values = {
        name: value
        for name, value in record.values.items()
        if isinstance(value, (str, dict))
        or (isinstance(value, (tuple, list)) and all(isinstance(part, (tuple, list)) for part in value))
    }
    return Record(record.id, values, record.labels, record.group)


def part_of(vectors: Embeddings, ids: Sequence[str]) -> Embeddings:
    """The vectors of those of some ids that have one, in the order of `ids`."""
    at = {name: row for row, name in enumerate(vectors.ids)}
    found = [i for i in ids if i in at]
    return Embeddings(tuple(found), vectors.vectors[[at[i] for i in found]], vectors.model)


def untrained(model: Path, seed: int, device: str = "cpu") -> Embedder:
    """The model as its training began: the same shape and vocabulary, weights drawn anew."""
    folder = model_folder(model)
    embedder = Embedder.load(model, device)
    _, files = read_folder(folder)
    torch.manual_seed(seed)
    fresh = build_model(embedder.recipe, json.loads(files["fitted.json"]))
    return Embedder(fresh, embedder.recipe, f"untrained-{seed}", device)


def _joined(parts: Sequence[Embeddings]) -> Embeddings:
    return Embeddings(
        tuple(i for part in parts for i in part.ids), np.concatenate([p.vectors for p in parts]), parts[0].model
    )
