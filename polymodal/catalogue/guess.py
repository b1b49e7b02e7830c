"""What the columns of a table probably are, for a catalogue without `catalogue.toml`; each guess with its reason."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from polymodal.catalogue.cells import as_name, is_filled
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource, to_toml
from polymodal.catalogue.tables import Row, Tables, find_tables, parse_json
from polymodal.types import BadInput

__all__ = ["Guess", "guess"]

_SAMPLE_BLOCKS = 8
_EXTENSIONS: Mapping[str, frozenset[str]] = {
    "image": frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"]),
    "video": frozenset(["mp4", "m4v", "mov", "webm", "mkv", "avi"]),
    "audio": frozenset(["wav", "flac", "ogg", "oga", "opus", "mp3", "m4a", "aac"]),
    "features": frozenset(["npy"]),
}
_MAGIC: tuple[tuple[str, bytes], ...] = (
    ("image", rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\x00|MM\x00\*|RIFF....WEBP"),
    ("audio", rb"RIFF....WAVE|OggS|fLaC|ID3|\xff[\xfb\xf3\xf2]"),
    ("video", rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "),
)
_IDS = ("id", "sku", "item_id", "record_id", "product_id", "asin", "uid", "uuid", "key", "query_id")
_GROUPS = ("group_id", "group", "item_group_id", "parent_id", "parent_sku", "parent", "product_id", "model_id", "gtin")
_SPLIT_NAMES = ("split", "fold", "partition", "subset")
_SPLIT_VALUES = frozenset(["train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"])
_TEXTS = (
    "title", "name", "caption", "text", "headline", "description", "short_description", "summary", "body", "review",
    "query", "captions", "translations", "title_translated",
)  # fmt: skip
_LABELS = ("label", "category", "class", "target", "subcategory")
# what describes a file or a web page and not the item
_TECHNICAL = re.compile(
    r"(^|_)(width|height|url|uri|href|link|checksum|md5|sha1|sha256|filename|file_size|mime)$", re.IGNORECASE
)
_TABLES = ("items", "records", "catalogue", "catalog", "products", "data")

Role = Literal["id", "group", "split", "label", "text", "table", "image", "video", "audio", "features", "left out"]


@dataclass(frozen=True)
class Guess:
    """A config, and for every column of the table its role and why it was given it."""

    config: CatalogueConfig
    reasons: Mapping[str, tuple[str, str]]

    def to_text(self) -> str:
        """The config as TOML under comments that give the reasons; can be saved as `catalogue.toml`."""
        width = max(map(len, self.reasons), default=0)
        lines = [f"# {name:<{width}}  {role}: {why}" for name, (role, why) in self.reasons.items()]
        return "\n".join(
            ["# guessed; correct what is wrong and save as catalogue.toml", *lines, "", to_toml(self.config)]
        )


def guess(path: Path | str) -> Guess:
    """Guess the config of a table file, or of the tables in a folder.

    Of several tables in a folder those of the same columns are one catalogue; else the one with the usual name
    (items, records, catalogue, products, data) or with most rows is taken.

    Raises:
        BadInput: no table, no rows, or nothing in it that could be a modality.
    """
    where = Path(path)
    if not where.exists():
        raise BadInput("catalogue", "a folder or a table file", f"nothing at {where}")
    folder, table, tables = (where, *_choose(where)) if where.is_dir() else (where.parent, where.name, Tables([where]))
    return _Guesser(folder.resolve(), table, tables).guess()


def _choose(folder: Path) -> tuple[str, Tables]:
    files = find_tables(folder, ".")
    opened = [Tables([file]) for file in files]
    if len(files) > 1 and len({frozenset(table.columns) for table in opened}) == 1:
        if len({file.suffix for file in files}) == 1:
            return f"*{files[0].suffix}", Tables(files)
        return ".", Tables(files)
    rank = {name: place for place, name in enumerate(_TABLES)}
    order = sorted(
        range(len(files)),
        key=lambda i: (rank.get(files[i].stem.lower(), len(rank)), -sum(opened[i].blocks), files[i].name),
    )
    return files[order[0]].name, opened[order[0]]


class _Column:
    """What a sample of one column shows."""

    def __init__(self, name: str, cells: Sequence[Any]) -> None:
        self.name, self.low = name, name.lower()
        self.cells = [cell for cell in cells if is_filled(cell)]
        self.items = [item for cell in self.cells for item in _items(cell)]
        self.texts = [item for item in self.items if isinstance(item, str)]
        # per row, so that columns can be compared
        self.files = [
            frozenset(i for i in _items(c) if isinstance(i, str)) if is_filled(c) else frozenset() for c in cells
        ]
        self.distinct = len({as_name(cell) for cell in self.cells if not isinstance(cell, (dict, bytes))})

    @property
    def lists(self) -> bool:
        return any(isinstance(cell, (list, tuple)) or _is_json(cell, "[") for cell in self.cells)

    def is_objects(self) -> bool:
        def one(cell: Any) -> bool:
            pairs = isinstance(cell, (list, tuple)) and all(isinstance(p, (tuple, dict)) for p in cell)
            return isinstance(cell, dict) or _is_json(cell, "{") or (bool(cell) and pairs)

        return bool(self.cells) and sum(map(one, self.cells)) >= 0.9 * len(self.cells)

    def is_unique(self, rows: int) -> bool:
        return len(self.cells) == rows == self.distinct and not self.lists and not self.is_objects()

    def is_numbers(self) -> bool:
        return bool(self.items) and all(isinstance(item, (int, float)) for item in self.items)

    def is_vector(self) -> bool:
        return self.lists and self.is_numbers() and len(self.items) >= 4 * len(self.cells)

    def media(self) -> str | None:
        """The kind of media of the column, by the extensions of its paths or the first bytes of its contents."""
        votes = [kind for item in self.items[:500] if (kind := _kind_of(item))]
        if not votes or len(votes) < 0.6 * min(len(self.items), 500):
            return None
        return max(sorted(set(votes)), key=votes.count)


def _within(column: _Column, others: Sequence[_Column]) -> bool:
    """Whether each row's files of `column` are among those that `others` have in that row."""
    rows = zip(column.files, *(other.files for other in others), strict=True)
    return all(files <= frozenset[str]().union(*more) for files, *more in rows)


def _items(cell: Any) -> Iterator[Any]:
    if _is_json(cell, "["):
        with contextlib.suppress(ValueError):
            cell = parse_json(cell)
    if isinstance(cell, (list, tuple)):
        yield from cell
    else:
        yield cell


def _is_json(cell: Any, start: str) -> bool:
    return isinstance(cell, str) and cell.lstrip().startswith(start)


def _kind_of(item: Any) -> str | None:
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes):
        return next((kind for kind, magic in _MAGIC if re.match(magic, item[:16], re.DOTALL)), None)
    if not isinstance(item, str) or "\n" in item or re.match(r"[a-z]+://", item):
        return None
    extension = item.strip().rpartition(".")[2].lower()
    return next((kind for kind, known in _EXTENSIONS.items() if extension in known), None)


class _Guesser:
    def __init__(self, folder: Path, table: str, tables: Tables) -> None:
        self._folder, self._table = folder, table
        names = tables.columns
        # spread over the table: sorted tables have one split, one category at a time
        step = -(-len(tables.blocks) // _SAMPLE_BLOCKS)
        rows: list[Row] = [
            row for number in range(0, len(tables.blocks), step) for row in tables.read(number, names, names)
        ]
        self._rows = len(rows)
        self._columns = {name: _Column(name, [row.get(name) for row in rows]) for name in names}
        self.reasons: dict[str, tuple[str, str]] = {}

    def guess(self) -> Guess:
        media = self._media()
        row_id = self._one("id", self._id())
        group = self._one("group", self._named(_GROUPS))
        split = self._one("split", self._split())
        labels = self._labels()
        modalities = {**self._media_sources(media), **self._texts(), **self._tables(media)}
        for name in self._left():
            self.reasons[name] = ("left out", "empty, or neither a file, a text nor an attribute of few values")
        if not modalities:
            known = ", ".join(self._columns)
            raise BadInput(
                "catalogue", "a column of pictures, texts or attributes", f"columns {known}", "Write a catalogue.toml."
            )
        config = CatalogueConfig(
            path=str(self._folder), table=self._table, media_root=self._media_root(media), id=row_id, group=group,
            split=split, labels=tuple(labels), modalities=modalities,
        )  # fmt: skip
        return Guess(config, {name: self.reasons[name] for name in self._columns})

    def _left(self) -> list[str]:
        return [name for name in self._columns if name not in self.reasons]

    def _one(self, role: Role, found: tuple[str, str] | None) -> str:
        if found is None:
            return ""
        self.reasons[found[0]] = (role, found[1])
        return found[0]

    def _named(self, names: Sequence[str]) -> tuple[str, str] | None:
        by_name = {self._columns[name].low: name for name in self._left() if self._columns[name].cells}
        return next(((by_name[name], "by its name") for name in names if name in by_name), None)

    def _id(self) -> tuple[str, str] | None:
        usable = [self._columns[name] for name in self._left() if self._columns[name].is_unique(self._rows)]
        for wanted in _IDS:
            for column in usable:
                if column.low == wanted:
                    return column.name, "by its name, and its values are unique"
        strings = [
            c for c in usable if not any(isinstance(cell, (bytes, float)) for cell in c.cells) and c.low not in _TEXTS
        ]
        return (strings[0].name, "the first column of unique values") if strings else self._fallback_id()

    def _fallback_id(self) -> tuple[str, str] | None:
        """An id column with a few duplicates is still the id column: the audit names them."""
        for wanted in _IDS:
            for name in self._left():
                column = self._columns[name]
                if column.low == wanted and column.distinct >= 0.9 * self._rows:
                    return name, "by its name, although some values occur twice"
        return None

    def _split(self) -> tuple[str, str] | None:
        for name in self._left():
            column = self._columns[name]
            values = {as_name(cell).lower() for cell in column.cells}
            if column.low in _SPLIT_NAMES and values and values <= _SPLIT_VALUES:
                return name, f"its values are {', '.join(sorted(values))}"
        return None

    def _labels(self) -> list[str]:
        found = []
        for name in self._left():
            low = self._columns[name].low
            if low.startswith("label_") or low in _LABELS:
                number_of = low.removesuffix("_id")
                if number_of != low and number_of in (column.low for column in self._columns.values()):
                    self.reasons[name] = ("left out", f"the number of label {number_of}")
                elif self._columns[name].cells:
                    self.reasons[name] = ("label", "by its name; for evaluation only")
                    found.append(name)
        return found

    # -- modalities -----------------------------------------------------------------------------------------------

    def _media(self) -> dict[str, list[_Column]]:
        """Kind -> its columns, the fullest first, those named like the kind before all."""
        media: dict[str, list[_Column]] = {}
        for name, column in self._columns.items():
            kind = column.media() or ("features" if column.is_vector() else None)
            if kind is not None:
                self.reasons[name] = (kind, "lists of numbers" if column.is_vector() else "its values are such files")
                media.setdefault(kind, []).append(column)
        for kind, columns in media.items():
            columns.sort(key=lambda c, kind=kind: (not c.low.startswith(kind), -len(c.items)))  # type: ignore[misc]
        return media

    def _media_sources(self, media: Mapping[str, list[_Column]]) -> dict[str, ModalitySource]:
        """One modality per column; numbered columns (image_1, image_2) are one; a column whose files another one of
        the kind has already (the main picture among all) is left out."""
        sources: dict[str, ModalitySource] = {}
        for kind, columns in media.items():
            stems: dict[str, list[_Column]] = {}
            for column in columns:
                others = [c for group in stems.values() for c in group]
                if column.texts and _within(column, others):
                    self.reasons[column.name] = ("left out", f"its files are in another {kind} column")
                else:
                    stems.setdefault(re.sub(r"[\W_]*\d+$", "", column.low), []).append(column)
            for place, group in enumerate(stems.values()):
                names = tuple(c.name for c in sorted(group, key=lambda c: list(self._columns).index(c.name)))
                sources[kind if place == 0 else _modality_name(group[0].name)] = ModalitySource(
                    kind=kind, columns=names
                )
        return sources

    def _texts(self) -> dict[str, ModalitySource]:
        found: list[str] = []
        for name in self._left():
            column = self._columns[name]
            long = column.texts and sum(map(len, column.texts)) > 40 * len(column.texts)
            if not column.texts or len(column.texts) != len(column.items):
                continue
            if column.low in _TEXTS:
                self.reasons[name] = ("text", "by its name")
            elif (
                long and not column.is_objects() and not _TECHNICAL.search(name) and any(" " in t for t in column.texts)
            ):
                self.reasons[name] = ("text", "long texts")
            else:
                continue
            found.append(name)
        found.sort(key=lambda name: _TEXTS.index(name.lower()) if name.lower() in _TEXTS else len(_TEXTS))
        return {"text": ModalitySource(kind="text", columns=tuple(found))} if found else {}

    def _tables(self, media: Mapping[str, list[_Column]]) -> dict[str, ModalitySource]:
        about = tuple(f"{column.low}_" for columns in media.values() for column in columns)
        found = []
        for name in self._left():
            column = self._columns[name]
            if not column.cells:
                continue
            if column.is_objects():
                self.reasons[name] = ("table", "objects or pairs of attributes")
            elif _TECHNICAL.search(name) or column.low.startswith(about):
                self.reasons[name] = ("left out", "describes a file or a page, not the item")
                continue
            elif column.low.endswith("_id"):
                self.reasons[name] = ("left out", "an identifier")
                continue
            elif column.is_numbers() or len({as_name(i) for i in column.items}) <= max(20, 0.3 * len(column.items)):
                self.reasons[name] = ("table", "numbers" if column.is_numbers() else "few different values")
            else:
                continue
            found.append(name)
        return {"table": ModalitySource(kind="table", columns=tuple(found))} if found else {}

    def _media_root(self, media: Mapping[str, list[_Column]]) -> str:
        """The folder in which most of a few sampled paths exist."""
        paths = [text for columns in media.values() for column in columns for text in column.texts[:20]]
        places = [".", *(name for name in ("media", "images", "files") if (self._folder / name).is_dir())]
        return max(places, key=lambda place: sum((self._folder / place / path).is_file() for path in paths))


def _modality_name(column: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", column).strip("_")
    return name if name[:1].isalpha() and name != "item" else f"m_{name}"
