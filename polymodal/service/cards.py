"""Cards: what a result shows to people. One Parquet file beside the index; media stay in the catalogue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.types import BadInput, MediaError

__all__ = ["Card", "CardMedia", "Cards", "MediaFile", "content_type", "write_cards"]

FILE = "cards.parquet"
STORED = "media"
_BATCH = 1000
_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "group", "title", "attributes", "media")])
# what browsers show, by first bytes: (offset, bytes, type). Never by name: a page named .jpg must not become a page
_MAGIC = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1a\x45\xdf\xa3", "video/webm"),
)


@dataclass(frozen=True, slots=True)
class CardMedia:
    """One file of an item: `path` is relative to the media root, or to the index where it is `stored` there."""

    modality: str
    kind: str
    path: str
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """What a result shows: a title, attributes (JSON values), and its media in the order of the catalogue; and the
    group of the item, None where it has none."""

    id: str
    title: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[CardMedia, ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file that may be served: inside its root, and of a type that a browser only shows."""

    path: Path
    content_type: str


def content_type(path: Path) -> str:
    """The media type, by the first bytes. Raises MediaError for anything a browser does not plainly show."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if not head:
        raise MediaError("empty", path.name)
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    raise MediaError("wrong type", f"{path.name} is neither picture, sound nor clip that a browser shows")


def write_cards(directory: Path, rows: Iterable[Mapping[str, Any]], media_root: Path) -> int:
    """Write the cards of an index; whoever has them open keeps the old ones.

    Args:
        directory: the index directory.
        rows: mappings with `id`, and where there are any `group`, `title` (text), `attributes` (mapping of JSON values)
            and `media`: a sequence of {"modality", "kind", "source"}, source being a path (relative to `media_root`, or
            absolute below it) or encoded bytes, which are stored beside the index.
        media_root: the only folder besides the index's own that media are ever served from.

    Returns:
        How many cards were written.

    Raises:
        BadInput: a row without id.
    """
    directory, root = Path(directory), Path(media_root).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"{FILE}.{os.getpid()}.part"
    schema = _SCHEMA.with_metadata({"polymodal-cards": "1", "media_root": str(root)})
    count, stream = 0, iter(rows)
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while some := list(islice(stream, _BATCH)):
            lines = [_line(directory, root, row) for row in some]
            writer.write_table(pa.Table.from_pylist(lines, schema=schema))
            count += len(some)
    part.replace(directory / FILE)
    return count


def _line(directory: Path, root: Path, row: Mapping[str, Any]) -> dict[str, str | None]:
    if not isinstance(row.get("id"), str) or not row["id"]:
        raise BadInput("cards.id", "non-empty text", repr(row.get("id")))
    media = [_media(directory, root, entry) for entry in row.get("media") or ()]
    return {
        "id": row["id"],
        "group": row.get("group"),
        "title": str(row.get("title") or ""),
        "attributes": json.dumps(row.get("attributes") or {}, ensure_ascii=False, default=str),
        "media": json.dumps(media, ensure_ascii=False),
    }


def _media(directory: Path, root: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    source = entry["source"]
    out: dict[str, Any] = {"modality": str(entry["modality"]), "kind": str(entry["kind"])}
    if isinstance(source, (bytes, bytearray)):
        name = hashlib.sha256(source).hexdigest()[:32]
        path = directory / STORED / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(source)
            part.replace(path)
        return {**out, "path": name, "stored": True}
    path = Path(source)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    return {**out, "path": str(path)}


class Cards:
    """Cards by id, and the files they name; serves from the media root and the index's own folder, nothing else.

    Args:
        table: as `write_cards` wrote it.
        directory: the index directory.
        media_root: where the catalogue's media are now; default: where they were when the cards were written.
    """

    def __init__(self, table: pa.Table, directory: Path, media_root: Path | None = None) -> None:
        written = (table.schema.metadata or {}).get(b"media_root", b"").decode()
        self._root = Path(media_root or written).resolve()
        self._stored = (Path(directory) / STORED).resolve()
        self._table = table
        self._at = {name: row for row, name in enumerate(table["id"].to_pylist())}
        self._groups: list[str | None] = table["group"].to_pylist()

    @classmethod
    def open(cls, directory: Path, media_root: Path | None = None) -> Self:
        """The cards beside an index. Raises BadInput where there are none or the file is not one of cards."""
        path = Path(directory) / FILE
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            raise BadInput(str(path), "the cards of an index", "no such file", "Build the index again.") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(str(path), "the file as it was written", str(error), "Build the index again.") from None
        if table.schema.names != _SCHEMA.names or b"polymodal-cards" not in (table.schema.metadata or {}):
            raise BadInput(str(path), "a file of cards", f"columns {table.schema.names}", "Build the index again.")
        return cls(table, directory, media_root)

    def __len__(self) -> int:
        return len(self._at)

    @property
    def ids(self) -> tuple[str, ...]:
        """All that have a card."""
        return tuple(self._at)

    def card(self, name: str) -> Card | None:
        """The card of an id, or None."""
        row = self._at.get(name)
        if row is None:
            return None
        line = self._table.slice(row, 1).to_pylist()[0]
        media: Sequence[dict[str, Any]] = json.loads(line["media"])
        shown = tuple(CardMedia(**one) for one in media)
        return Card(name, line["title"], json.loads(line["attributes"]), shown, line["group"])

    def groups(self, ids: Sequence[str]) -> list[str | None]:
        """The group of each id; None where it has none, or there is no card."""
        return [self._groups[self._at[name]] if name in self._at else None for name in ids]

    def media(self, name: str, number: int) -> MediaFile:
        """The file of an item's medium, counted from 0.

        Raises:
            MediaError: there is none, it lies outside its root (links followed), or it is not plainly showable.
        """
        card = self.card(name)
        if card is None or not 0 <= number < len(card.media):
            raise MediaError("missing", f"medium {number} of {name!r}")
        entry = card.media[number]
        root = self._stored if entry.stored else self._root
        try:
            path = (root / entry.path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            raise MediaError("missing", entry.path) from None
        if not path.is_relative_to(root):
            raise MediaError("outside the media root", entry.path)
        if not path.is_file():
            raise MediaError("missing", entry.path)
        return MediaFile(path, content_type(path))
