"""What could not be used, and why; and decoding cells without letting a bad one stop anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from polymodal.types import MediaError, Record

__all__ = ["CUT", "Decodes", "DecodesEach", "Quarantined", "decode_record", "describe"]

# the reason of entries whose cell is kept, but shorter than it was written
CUT = "cut to the limit"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One cell, one file of a cell, or (modality "") one row that is left out.

    Args:
        id: of the row, as far as it has one.
        modality: name, or "" for a whole row.
        source: what was to be read: a path relative to the media root, a column, or a word for inline content.
        reason: one of `MediaReason`, "malformed", "duplicate id", "no id", or `CUT` (kept, but shortened).
        detail: for people.
    """

    id: str
    modality: str
    source: str
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """The entry as a JSON object of texts."""
        return asdict(self)


@runtime_checkable
class Decodes(Protocol):
    """What the catalogue needs of a modality: `decode` as `Modality.decode` has it."""

    def decode(self, source: Any) -> Any: ...


@runtime_checkable
class DecodesEach(Protocol):
    """A modality whose cells hold several files, and which can do without the bad ones among them."""

    def decode_each(self, sources: Sequence[Any]) -> tuple[Any | None, list[tuple[int, MediaError]]]:
        """The value of the good sources (None if there is none), and place and error of each bad one."""


def decode_record(
    record: Record, decoders: Mapping[str, Decodes], root: Path | None = None
) -> tuple[Record, list[Quarantined]]:
    """The record with decoded values, and what had to be left out.

    Args:
        record: with sources; its modalities that `decoders` lacks are left out silently.
        decoders: modality name -> what decodes it.
        root: media root, which the paths in the entries are shortened by.

    Returns:
        A record of the same id, and one entry per bad cell or per bad file of a cell.
    """
    values: dict[str, Any] = {}
    bad: list[Quarantined] = []
    for name, source in record.values.items():
        decoder = decoders.get(name)
        if decoder is None:
            continue
        value, errors = _decode(decoder, source)
        bad += [
            Quarantined(record.id, name, describe(part, root), error.reason, _shorten(error.detail, root))
            for part, error in errors
        ]
        if value is not None and not _is_empty(value):
            values[name] = value
    return Record(record.id, values, record.labels, record.group), bad


def _decode(decoder: Decodes, source: Any) -> tuple[Any | None, list[tuple[Any, MediaError]]]:
    if isinstance(source, list) and isinstance(decoder, DecodesEach):
        value, errors = decoder.decode_each(source)
        return value, [(source[place], error) for place, error in errors]
    try:
        return decoder.decode(source), []
    except MediaError as error:
        return None, [(source, error)]


def _is_empty(value: Any) -> bool:
    # a table of which nothing was left, a text of spaces: the same as no cell
    return isinstance(value, (str, bytes, list, tuple, dict)) and len(value) == 0


def describe(source: Any, root: Path | None = None) -> str:
    """A source in few words: a path relative to `root` where it is inside, the size of inline content."""
    if isinstance(source, Path):
        inside = root is not None and source.is_relative_to(root)
        return source.relative_to(root).as_posix() if inside and root is not None else str(source)
    if isinstance(source, bytes):
        return f"inline, {len(source)} bytes"
    if isinstance(source, list):
        return ", ".join(describe(part, root) for part in source[:8]) + (" …" if len(source) > 8 else "")
    return f"{type(source).__name__}"


def _shorten(detail: str, root: Path | None) -> str:
    return detail if root is None else detail.replace(f"{root}/", "")
