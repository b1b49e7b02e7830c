"""Values without torch: what travels between the reader, the embedder, the index, the metrics and the service.

Everything here can be imported in a process that has neither torch nor a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = [
    "BadInput",
    "CorruptCheckpoint",
    "Embeddings",
    "Embeds",
    "Hit",
    "MediaError",
    "MediaReason",
    "MissingExtra",
    "ModelMismatch",
    "PolymodalError",
    "Record",
    "Searches",
    "Where",
]


class PolymodalError(Exception):
    """Root of the errors this library raises on purpose; the command line prints them without a traceback."""


class BadInput(PolymodalError, ValueError):
    """Something a user handed over is not usable.

    Args:
        field: what was wrong, as the user knows it (`"catalogue.id"`, `"--attr"`, `"Record.values['image']"`).
        expected: what would have been accepted.
        got: what came.
        hint: what to do about it.
    """

    def __init__(self, field: str, expected: str, got: object, hint: str = "") -> None:
        self.field, self.expected, self.got, self.hint = field, expected, str(got), hint
        tail = f" {hint}" if hint else ""
        super().__init__(f"{field}: expected {expected}, got {_short(got)}.{tail}")


class ModelMismatch(BadInput):
    """Vectors or an index were made by another model than the one that reads them."""


class CorruptCheckpoint(PolymodalError):
    """No usable checkpoint is left in a run directory."""


class MissingExtra(PolymodalError, ImportError):
    """An optional dependency is not installed. `extra` is the name to put in `pip install 'polymodal[extra]'`."""

    def __init__(self, package: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"this needs {package}: pip install 'polymodal[{extra}]'")


MediaReason = Literal[
    "missing", "empty", "truncated", "wrong type", "over the limits", "outside the media root", "unreadable"
]


class MediaError(PolymodalError):
    """One cell could not be decoded. It is quarantined with `reason` and counted; it never stops a run."""

    def __init__(self, reason: MediaReason, detail: str = "") -> None:
        self.reason: MediaReason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a catalogue, or one query: a query is a record with most modalities missing.

    Args:
        id: unique in its catalogue.
        values: modality name -> source (a path inside the media root, encoded bytes, text, pairs, an array).
            An absent modality is an absent key; `None`, `""` and empty collections are refused.
        labels: for evaluation, and for objectives that ask for one by name; a model never sees them.
        group: rows of one group (parent SKU, GTIN) are not negatives of one another.

    Raises:
        BadInput: empty id, or a value that says "absent" by being empty.
    """

    id: str
    values: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise BadInput("Record.id", "a non-empty string", repr(self.id))
        for name, value in self.values.items():
            if value is None or (isinstance(value, (str, bytes, list, tuple, dict)) and len(value) == 0):
                raise BadInput(
                    f"Record.values[{name!r}]", "a value", repr(value), "Leave the key out where the item has none."
                )


@dataclass(frozen=True)
class Embeddings:
    """Vectors of one model, one per id.

    Args:
        ids: n unique ids.
        vectors: (n, E) float32, finite, unit length unless the model says otherwise.
        model: digest of the model that made them; an index refuses another model's vectors.

    Raises:
        BadInput: duplicate ids, a wrong shape or type, NaN or infinity.
    """

    ids: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    model: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32 or len(self.ids) != len(self.vectors):
            raise BadInput(
                "Embeddings.vectors",
                f"float32 of shape ({len(self.ids)}, width)",
                f"{self.vectors.dtype} {self.vectors.shape}",
            )
        if len(set(self.ids)) != len(self.ids):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise BadInput("Embeddings.ids", "unique ids", f"{twice!r} twice")
        if not np.isfinite(self.vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(self.vectors).all(1))[0])
            raise BadInput("Embeddings.vectors", "finite numbers", f"NaN or infinity for id {self.ids[bad]!r}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    def rows(self, ids: Iterable[str]) -> npt.NDArray[np.float32]:
        """The vectors of `ids`, in that order. Raises BadInput for an id that is not here."""
        at = {name: row for row, name in enumerate(self.ids)}
        wanted = list(ids)
        unknown = [i for i in wanted if i not in at]
        if unknown:
            raise BadInput("ids", "ids among the embeddings", f"{unknown[0]!r}")
        return self.vectors[[at[i] for i in wanted]]


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: `score` is the inner product of unit vectors, in [-1, 1]; `attributes` are the stored ones."""

    id: str
    score: float
    attributes: Mapping[str, Any] = field(default_factory=dict)


# attribute -> wanted value, a list of accepted values, or {"min": x, "max": y} for numbers
Where = Mapping[str, Any]


@runtime_checkable
class Embeds(Protocol):
    """Whatever turns records into vectors. Index and service know an embedder only as this."""

    @property
    def model(self) -> str:
        """Digest of the model."""

    @property
    def modalities(self) -> Mapping[str, str]:
        """Modality name -> kind ("image", "text", "table", "video", "audio", "features")."""

    @property
    def width(self) -> int: ...

    def embed(self, records: Sequence[Record]) -> Embeddings:
        """Vectors of the records, in their order. Raises BadInput for a record with no usable modality."""


@runtime_checkable
class Searches(Protocol):
    """Whatever finds the nearest stored vectors."""

    def search(self, vectors: npt.NDArray[np.float32], k: int, where: Where | None = None) -> list[list[Hit]]: ...


def _short(value: object, limit: int = 120) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
