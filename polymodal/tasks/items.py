"""Items: what the tasks about faults in a catalogue know of its rows, in memory: vectors, hashes, words; no media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput, Embeddings

__all__ = ["Bools", "Floats", "Ints", "Items"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Items:
    """Some rows that a model could read.

    Args:
        fused: n item vectors; their order is that of the items.
        towers: modality -> vectors of the items that have it, made before any other modality was seen.
        digests: modality -> {id: hash of the decoded cell}.
        cells: modality -> {id: text, or pairs of name and value}; media are not kept.
        groups: id -> group, of the items that have one.
        splits: id -> split.
    """

    fused: Embeddings
    towers: Mapping[str, Embeddings]
    digests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        return self.fused.ids

    def __len__(self) -> int:
        return len(self.fused)

    def places(self) -> dict[str, int]:
        """Id -> row."""
        return {name: row for row, name in enumerate(self.ids)}

    def tower(self, modality: str) -> tuple[npt.NDArray[np.float32], Bools]:
        """A modality's own unit vectors (n, E), and which items have one (n,); the other rows are never to be read."""
        if modality not in self._kept:
            self._kept[modality] = self._tower(modality)
        return self._kept[modality]

    @cached_property
    def _kept(self) -> dict[str, tuple[npt.NDArray[np.float32], Bools]]:
        return {}

    def _tower(self, modality: str) -> tuple[npt.NDArray[np.float32], Bools]:
        own = self.towers[modality]
        there, at = np.zeros(len(self), np.bool_), self.places()
        vectors = np.zeros((len(self), own.width), np.float32)
        rows = np.asarray([at[name] for name in own.ids], np.int64)
        there[rows] = True
        vectors[rows] = own.vectors / np.maximum(np.linalg.norm(own.vectors, axis=1, keepdims=True), 1e-12)
        return vectors, there

    @classmethod
    def join(cls, parts: Sequence[Items]) -> Items:
        """The items of several, in their order. Raises BadInput where there is none, or an id is in two of them."""
        if not parts:
            raise BadInput("items", "at least one row that the model can read", "none")
        names = dict.fromkeys(name for part in parts for name in part.towers)
        towers = {name: _join([p.towers[name] for p in parts if name in p.towers]) for name in names}
        merged: list[dict[str, dict[str, Any]]] = [{}, {}]
        for part in parts:
            for into, given in zip(merged, (part.digests, part.cells), strict=True):
                for name, values in given.items():
                    into.setdefault(name, {}).update(values)
        groups = {i: g for part in parts for i, g in part.groups.items()}
        splits = {i: s for part in parts for i, s in part.splits.items()}
        return cls(_join([part.fused for part in parts]), towers, merged[0], merged[1], groups, splits)


def _join(parts: Sequence[Embeddings]) -> Embeddings:
    ids = tuple(name for part in parts for name in part.ids)
    return Embeddings(ids, np.concatenate([part.vectors for part in parts]), parts[0].model)
