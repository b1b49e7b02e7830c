"""Cells of a table -> the sources that modalities decode. What a cell may look like is written here and nowhere else.

One function per form of `schema.Form`. They return None for an absent cell and report what they leave out.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from polymodal.catalogue.codec import read_npy
from polymodal.catalogue.quarantine import CUT, Quarantined
from polymodal.catalogue.schema import CatalogueConfig, Form, ModalitySource
from polymodal.catalogue.tables import Row, parse_json
from polymodal.types import MediaError

__all__ = ["CellReader", "MediaRoot", "as_name", "is_filled"]

_MAX_VALUE = 1000
_MAX_DEPTH = 4
Pair = tuple[str, str | float]


def as_name(cell: Any) -> str:
    """A cell as an id, group, split or label: text; whole numbers without a point; "" if empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    if isinstance(cell, (list, tuple)):
        return " > ".join(as_name(part) for part in cell)
    return str(cell).strip()


def is_filled(cell: Any) -> bool:
    """Whether a cell holds anything: not None, NaN, infinity, blank text or an empty collection."""
    if cell is None:
        return False
    if isinstance(cell, float):
        return math.isfinite(cell)
    if isinstance(cell, str):
        return bool(cell) and not cell.isspace() and cell.strip() not in ("[]", "{}")
    if isinstance(cell, dict):
        return any(is_filled(part) for part in cell.values())
    if isinstance(cell, (list, tuple)):
        return any(is_filled(part) for part in cell)
    return not isinstance(cell, bytes) or bool(cell)


class MediaRoot:
    """Resolves media paths of the table and lets none leave the root: no absolute path, no URL, no `..` that climbs
    out, no link that leads out, nothing but regular files.

    Args:
        root: the folder; need not exist while no path is asked for.
    """

    def __init__(self, root: Path) -> None:
        self.path = Path(os.path.realpath(root))
        self._folder = lru_cache(maxsize=65_536)(os.path.realpath)

    def resolve(self, text: str) -> Path:
        """The file that `text` names. Raises MediaError: outside the media root, missing, empty, or no regular file."""
        if os.path.isabs(text) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) or text.startswith(("\\\\", "//")):
            raise MediaError("outside the media root", "an absolute path or a URL")
        if "\0" in text:
            raise MediaError("missing", "a path with a NUL character")
        written = os.path.normpath(os.path.join(self.path, text))
        # `..` is judged as written too: a/../../x must not depend on what a is
        place = os.path.join(self._folder(os.path.dirname(os.path.join(self.path, text))), os.path.basename(text))
        if os.path.islink(place) or os.path.basename(text) in ("..", "."):
            place = os.path.realpath(place)
        if not (self._holds(written) and self._holds(place)):
            raise MediaError("outside the media root", "the path or a link in it leads out")
        return self._regular(place)

    def _holds(self, place: str) -> bool:
        return place.startswith(os.path.join(str(self.path), ""))

    def _regular(self, place: str) -> Path:
        try:
            status = os.stat(place)
        except (OSError, ValueError) as error:
            raise MediaError("missing", getattr(error, "strerror", "") or "no such file") from None
        if not stat.S_ISREG(status.st_mode):
            # a pipe would make the decoder wait for ever
            raise MediaError("wrong type", "not a regular file")
        if status.st_size == 0:
            raise MediaError("empty", "0 bytes")
        return Path(place)


class CellReader:
    """Turns the cells of one block's rows into sources; made anew for each block, whose reports it collects.

    Args:
        config: the catalogue's.
        root: the media root.
    """

    def __init__(self, config: CatalogueConfig, root: MediaRoot) -> None:
        self._config, self._root = config, root
        self.quarantined: list[Quarantined] = []
        # (modality, attribute) -> NaN and infinite numbers dropped
        self.not_finite: Counter[tuple[str, str]] = Counter()
        self._id, self._modality = "", ""
        self._forms: dict[Form, Callable[[ModalitySource, list[tuple[str, Any]]], Any]] = {
            "files": self._files,
            "file": self._file,
            "text": self._text,
            "pairs": self._pairs,
            "numbers": self._numbers,
        }

    def values(self, row_id: str, row: Row) -> dict[str, Any]:
        """Modality name -> source of one row; what it lacks has no key."""
        values = {}
        for name, source in self._config.modalities.items():
            self._id, self._modality = row_id, name
            cells = [(column, row.get(column)) for column in source.columns]
            value = self._forms[source.cell_form(name)](source, cells)
            if value is not None:
                values[name] = value
        return values

    def _bad(self, source: str, reason: str, detail: str = "") -> None:
        self.quarantined.append(Quarantined(self._id, self._modality, source[:300], reason, detail[:300]))

    # -- files ----------------------------------------------------------------------------------------------------

    def _files(self, source: ModalitySource, cells: list[tuple[str, Any]]) -> Any:
        found: list[Path | bytes] = []
        limit = self._config.max_files
        for item in self._items(source, cells):
            if len(found) == limit:
                self._bad(", ".join(source.columns), CUT, f"more than {limit} files")
                break
            media = self._open(item)
            if media is not None:
                found.append(media)
        return None if not found else found[0] if len(found) == 1 else found

    def _file(self, source: ModalitySource, cells: list[tuple[str, Any]]) -> Any:
        return next((media for item in self._items(source, cells) if (media := self._open(item)) is not None), None)

    def _items(self, source: ModalitySource, cells: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        for column, cell in cells:
            if isinstance(cell, str) and cell.lstrip().startswith("["):
                cell = self._list(cell)
            elif isinstance(cell, str) and source.separator:
                cell = cell.split(source.separator)
            for part in cell if isinstance(cell, (list, tuple)) else [cell]:
                if is_filled(part):
                    yield column, part

    def _list(self, text: str) -> Any:
        try:
            value = parse_json(text)
        except ValueError:
            return text  # a file may be called "[1].jpg"
        return value if isinstance(value, list) else text

    def _open(self, item: tuple[str, Any]) -> Path | bytes | None:
        column, cell = item
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return cell
        if not isinstance(cell, str):
            self._bad(column, "wrong type", f"a path or bytes are needed, not {type(cell).__name__}")
            return None
        try:
            return self._root.resolve(cell.strip())
        except MediaError as error:
            self._bad(cell, error.reason, error.detail)
            return None

    # -- text -----------------------------------------------------------------------------------------------------

    def _text(self, source: ModalitySource, cells: list[tuple[str, Any]]) -> str | None:
        text = "\n".join(part for _, cell in cells for part in _texts(cell))
        limit = self._config.max_text
        if len(text) > limit:
            self._bad(", ".join(source.columns), CUT, f"{len(text)} characters, {limit} kept")
            text = text[:limit]
        return text or None

    # -- pairs ----------------------------------------------------------------------------------------------------

    def _pairs(self, source: ModalitySource, cells: list[tuple[str, Any]]) -> tuple[Pair, ...] | None:
        pairs: list[Pair] = []
        for column, cell in cells:
            if isinstance(cell, str) and cell.lstrip()[:1] in ("{", "["):
                alone = len(source.columns) == 1
                cell = self._object(column, cell, alone)
            cell = _pair_list(cell)
            pairs += self._walk("" if isinstance(cell, (dict, _PairList)) else column, cell, 0)
        limit = self._config.max_attributes
        if len(pairs) > limit:
            self._bad(", ".join(source.columns), CUT, f"{len(pairs)} pairs, {limit} kept")
        return tuple(pairs[:limit]) or None

    def _object(self, column: str, text: str, alone: bool) -> Any:
        try:
            value = parse_json(text)
        except ValueError as error:
            if text.lstrip().startswith("{") or alone:
                self._bad(column, "malformed", f"JSON: {error}")
                return None
            return text  # "[new] red" among plain columns is a value
        return value

    def _walk(self, name: str, value: Any, depth: int) -> Iterator[Pair]:
        value = _pair_list(value)
        if depth > _MAX_DEPTH:
            self._bad(name, "malformed", f"attributes nested deeper than {_MAX_DEPTH}")
        elif isinstance(value, dict):
            for key, part in value.items():
                yield from self._walk(f"{name}.{key}" if name else str(key), part, depth + 1)
        elif isinstance(value, _PairList):
            for key, part in value:
                yield from self._walk(f"{name}.{key}" if name else as_name(key), part, depth + 1)
        elif isinstance(value, (list, tuple)):
            for part in value:
                yield from self._walk(name, part, depth + 1)
        elif (scalar := self._scalar(name, value)) is not None and name.strip():
            yield name.strip()[:_MAX_VALUE], scalar

    def _scalar(self, name: str, value: Any) -> str | float | None:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (int, float, decimal.Decimal)):
            number = _float(value)
            if not math.isfinite(number):
                self.not_finite[self._modality, name] += 1
                return None
            return number
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat()
        if value is None or isinstance(value, bytes):
            return None
        return str(value).strip()[:_MAX_VALUE] or None

    # -- numbers --------------------------------------------------------------------------------------------------

    def _numbers(self, source: ModalitySource, cells: list[tuple[str, Any]]) -> Any:
        filled = [(column, cell) for column, cell in cells if cell is not None and cell != "" and cell != []]
        if not filled:
            return None
        first = filled[0][1]
        if isinstance(first, str) and not first.lstrip().startswith("["):
            return self._open(filled[0])
        if isinstance(first, bytes):
            return self._npy(*filled[0])
        try:
            rows = [parse_json(cell) if isinstance(cell, str) else cell for _, cell in filled]
            array = np.asarray(rows if len(rows) > 1 or not isinstance(rows[0], (list, tuple)) else rows[0], np.float32)
        except (ValueError, TypeError) as error:
            self._bad(filled[0][0], "malformed", f"numbers: {error}")
            return None
        if len(filled) != len(cells) and array.ndim == 1:
            self._bad(
                ", ".join(source.columns), "malformed", f"{len(cells) - len(filled)} of {len(cells)} numbers missing"
            )
            return None
        return array[None] if array.ndim == 1 else array

    def _npy(self, column: str, content: bytes) -> Any:
        """The content of an .npy file in a cell: what a million files would be, without the files."""
        try:
            array = read_npy(content)
            if array.dtype.kind not in "fiu":
                raise ValueError(f"numbers are needed, not {array.dtype}")
        except ValueError as error:
            self._bad(column, "malformed", f".npy content: {error}")
            return None
        array = array.astype(np.float32, copy=False)
        return array[None] if array.ndim == 1 else array


class _PairList(tuple[tuple[Any, Any], ...]):
    """A list that was recognised as name and value pairs."""


def _pair_list(value: Any) -> Any:
    """`value` as pairs if it is a list of [name, value], (name, value) or {"name": ..., "value": ...}."""
    if isinstance(value, _PairList) or not isinstance(value, (list, tuple)) or not value:
        return value
    if all(isinstance(part, (list, tuple)) and len(part) == 2 and isinstance(part[0], str) for part in value):
        return _PairList((part[0], part[1]) for part in value)
    for key in ("name", "key"):
        if all(isinstance(part, dict) and set(part) == {key, "value"} for part in value):
            return _PairList((part[key], part["value"]) for part in value)
    return value


def _float(value: int | float | decimal.Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _texts(cell: Any) -> Sequence[str]:
    """The pieces of text of a cell: of a JSON object or list its values, in their order."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            cell = parse_json(cell)
    if isinstance(cell, dict):
        return [text for part in cell.values() for text in _texts(part)]
    if isinstance(cell, (list, tuple)):
        return [text for part in cell for text in _texts(part)]
    text = as_name(cell) if isinstance(cell, (bool, float, int)) else "" if cell is None else str(cell).strip()
    return [text] if text else []
