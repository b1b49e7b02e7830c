"""Values with torch: what travels between the loader, the model and the objectives.

One legend: **B** rows, **N** tokens, **K** tokens of all rows packed, **D** model width, **E** embedding width.
Every mask is True = yes: `present` speaks of rows, `valid` of tokens, `hidden` of what is to be predicted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from polymodal.types import BadInput

__all__ = [
    "Batch",
    "Cells",
    "Embedded",
    "Encoded",
    "Fields",
    "Losses",
    "Parts",
    "Term",
    "Tokens",
    "World",
    "stable_hash",
]


def stable_hash(text: str) -> int:
    """A signed 64-bit hash of `text`, the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class World(Protocol):
    """The processes of a run, as losses and heads need to know them."""

    @property
    def rank(self) -> int: ...

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of this process -> (G, ...) of all, rank by rank, with gradient to every rank's part."""


# field name -> tensor; (B, N, ...) in a batch, (K, ...) when packed, (N, ...) for one cell
Fields = Mapping[str, Tensor]


@dataclass(frozen=True)
class Cells:
    """One modality's cells of a batch: fields of shape (B, N, ...) and `valid` (B, N) bool.

    A row without a valid token does not have the modality: padding, an empty cell and an absent modality are one thing.
    """

    fields: Fields
    valid: Tensor

    @property
    def present(self) -> Tensor:
        """(B,) bool: the rows that have at least one valid token."""
        return self.valid.any(1)

    def packed(self) -> Fields:
        """The fields of the valid tokens only, row by row: (K, ...)."""
        return {name: value[self.valid] for name, value in self.fields.items()}

    def to(self, device: torch.device | str) -> Cells:
        moved = {name: value.to(device, non_blocking=True) for name, value in self.fields.items()}
        return Cells(moved, self.valid.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """Rows as the model reads them.

    Args:
        ids: B record ids.
        cells: modality -> Cells. A modality that no row has may be left out.
        digests: modality -> (B,) int64, equal where two cells have equal content; meaningless where absent.
        groups: (B,) int64, equal where two rows are of one group; every row without a group has its own number.
        keys: (B,) int64, a stable hash of the id. Random draws are made per key, so they do not depend on which other
            rows are in the batch, how far it is padded, or which process holds it.
        labels: (B,) int64, equal where two rows have the same label, -1 where it is unknown: of the one label that an
            objective asks for. Objectives alone read it; a model never does.
        hard: (B,) int64, the key of each row's hard negative, a row of another item that is much like it; the row's own
            key where there is none. It need not be in the batch.

    Raises:
        BadInput: shapes that disagree.
    """

    ids: tuple[str, ...]
    cells: Mapping[str, Cells]
    digests: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    hard: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def __post_init__(self) -> None:
        rows = len(self.ids)
        if len(self.keys) == 0:
            object.__setattr__(self, "keys", torch.tensor([stable_hash(i) for i in self.ids], dtype=torch.long))
        defaults = {"groups": self.keys, "labels": torch.full_like(self.keys, -1), "hard": self.keys}
        for name, column in defaults.items():
            if len(getattr(self, name)) == 0:
                object.__setattr__(self, name, column.clone())
        columns = {"keys": self.keys, "groups": self.groups, "labels": self.labels, "hard": self.hard} | {
            f"digests[{n!r}]": d for n, d in self.digests.items()
        }
        for name, column in columns.items():
            if column.shape != (rows,):
                raise BadInput(f"Batch.{name}", f"shape ({rows},)", tuple(column.shape))
        for name, cells in self.cells.items():
            if cells.valid.dtype != torch.bool or cells.valid.ndim != 2 or len(cells.valid) != rows:
                raise BadInput(
                    f"Batch.cells[{name!r}].valid",
                    f"bool ({rows}, N)",
                    f"{cells.valid.dtype} {tuple(cells.valid.shape)}",
                )
            for key, value in cells.fields.items():
                if value.shape[:2] != cells.valid.shape:
                    raise BadInput(
                        f"Batch.cells[{name!r}].fields[{key!r}]",
                        f"leading shape {tuple(cells.valid.shape)}",
                        tuple(value.shape),
                    )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def present(self) -> dict[str, Tensor]:
        """modality -> (B,) bool."""
        return {name: cells.present for name, cells in self.cells.items()}

    def only(self, names: Collection[str]) -> Batch:
        """The same rows with the named modalities alone: what a query of that subset is."""
        return replace(self, cells={name: cells for name, cells in self.cells.items() if name in names})

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            cells={name: cells.to(device) for name, cells in self.cells.items()},
            digests={name: value.to(device, non_blocking=True) for name, value in self.digests.items()},
            groups=self.groups.to(device, non_blocking=True),
            keys=self.keys.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            hard=self.hard.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Tokens:
    """`x` (B, N, D) and `valid` (B, N) bool, inseparable. What stands in `x` where `valid` is False is never read."""

    x: Tensor
    valid: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Tokens:
        """The same tokens with `function` applied to x."""
        return Tokens(function(self.x), self.valid)


# modality name -> Tokens; after a Trunk also "item", the summary token of the row
Parts = Mapping[str, Tokens]


@dataclass(frozen=True)
class Encoded:
    """The parts after every stage of a model, in order; `stages[-1]` is the model's output.

    `source` are the parts that went in, of the modalities that the mixing stages were allowed to see.
    """

    stages: tuple[Parts, ...]
    source: Parts

    @property
    def last(self) -> Parts:
        return self.stages[-1]


@dataclass(frozen=True)
class Embedded:
    """A vector per row and whether it exists: `z` (B, E) unit length where present, `present` (B,) bool."""

    z: Tensor
    present: Tensor


@dataclass(frozen=True)
class Term:
    """One part of a loss: `value`, the mean over `count` things (both scalar tensors).

    An empty term is exactly 0 with exactly zero gradient and count 0.
    """

    value: Tensor
    count: Tensor


@dataclass(frozen=True)
class Losses:
    """Named terms and their weights (1 where not given). `total` is what is minimised.

    `log` holds further scalars for the metrics file, `embedded` the batch's vectors for the collapse alarm; no gradient
    is taken of either.
    """

    terms: Mapping[str, Term]
    weights: Mapping[str, float | Tensor] = field(default_factory=dict)
    log: Mapping[str, Tensor | float] = field(default_factory=dict)
    embedded: Mapping[str, Embedded] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        parts = [term.value * self.weights.get(name, 1.0) for name, term in self.terms.items()]
        return torch.stack(parts).sum()
