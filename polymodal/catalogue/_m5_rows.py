"""One entry of the M5Product release as the cells of one row."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from polymodal.catalogue._m5_grammar import Refused, parse_pv
from polymodal.catalogue._m5_ids import RegionFiles
from polymodal.catalogue._m5_layout import ENDINGS, Layout
from polymodal.catalogue.cells import MediaRoot
from polymodal.catalogue.codec import write_npy
from polymodal.types import MediaError

__all__ = ["FIELDS", "RowMaker", "id_of"]

# how the release and its documentation call a field
FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("item_id", "id"),
    "title": ("title", "caption"),
    "attributes": ("pv", "tabular"),
    "category": ("label",),
    "url": ("url",),
    "image": ("image", "images"),
    "video": ("video", "videos"),
    "audio": ("audio", "audios"),
}
_LONGEST_ID, _MOST_NUMBERS = 200, 1 << 26
_LINK = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//")
Report = Callable[[str, str, str, str, str], None]  # id, modality, source, reason, detail
Row = dict[str, Any]


def id_of(name: object) -> str:
    """An id as text, without what follows a `#`; "" where it is none."""
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        return ""
    plain = str(name).split("#")[0].strip()
    return plain if len(plain) <= _LONGEST_ID and plain.isprintable() else ""


class RowMaker:
    """Makes rows of entries; everything that cannot be used is reported and left out.

    Args:
        source: the folder of the release, which no path may leave.
        layout: of it.
        regions: the lines of its region files.
        labels: texts of labels that are written as numbers.
        report: told id, modality, source, reason and detail.
    """

    def __init__(
        self, source: Path, layout: Layout, regions: RegionFiles, labels: Sequence[str], report: Report
    ) -> None:
        self._root, self._layout, self._regions, self._labels = MediaRoot(source), layout, regions, labels
        self._report = report
        self._channels: int | None = None
        self.links: Counter[str] = Counter()
        self._id = ""

    def row(self, name: str, entry: Mapping[str, Any]) -> Row:
        """The cells of one entry by column; None where absent."""
        self._id = name
        fields = {
            field: next((entry[n] for n in names if _given(entry.get(n))), None) for field, names in FIELDS.items()
        }
        row: Row = {
            "title": self._text("text", fields["title"]),
            "attributes": self._pairs(fields["attributes"]),
            "category": self._label(fields["category"]),
            "url": self._text("", fields["url"]),
            "regions": self._region(),
        }
        for kind in ENDINGS:
            found = self._media(kind, fields[kind])
            row[kind] = (found or None) if kind == "image" else next(iter(found), None)
        return row | {modality: self._features(modality, folder) for modality, folder in self._layout.features.items()}

    def _bad(self, modality: str, source: str, reason: str, detail: str = "") -> None:
        self._report(self._id, modality, source, reason, detail)

    # -- what stands in the entry ---------------------------------------------------------------------------------

    def _text(self, modality: str, value: Any) -> str | None:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if value is None or isinstance(value, str):
            return (value or "").replace("\0", " ").strip() or None
        self._bad(modality, "title or url", "malformed", f"a text is needed, not {type(value).__name__}")
        return None

    def _pairs(self, value: Any) -> list[list[str]] | None:
        if value is None:
            return None
        if isinstance(value, str):
            pairs, bad = parse_pv(value)
        else:
            pairs, bad = _loose_pairs(value)
        if bad:
            self._bad("table", "pv", "malformed", f"{len(bad)} pieces are no name and value, such as {bad[0][:60]!r}")
        return [[name.replace("\0", " "), text.replace("\0", " ")] for name, text in pairs] or None

    def _label(self, value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and self._labels:
            if 0 <= value < len(self._labels):
                return self._labels[value]
            self._bad("", "label", "malformed", f"{value} is no place in a list of {len(self._labels)} labels")
            return None
        if isinstance(value, (str, int)):
            return str(value).strip() or None
        if value is not None:
            self._bad("", "label", "malformed", f"a text is needed, not {type(value).__name__}")
        return None

    # -- what lies beside it --------------------------------------------------------------------------------------

    def _media(self, kind: str, value: Any) -> list[str]:
        """Paths relative to the source: those that the entry names, or else the file called by its id."""
        found = []
        for part in value if isinstance(value, list) else [value]:
            if part is None:
                continue
            if not isinstance(part, str):
                self._bad(kind, kind, "malformed", f"a path is needed, not {type(part).__name__}")
            elif _LINK.match(part.strip()):
                self.links[kind] += 1
            elif (path := self._resolve(kind, part.strip())) is not None:
                found.append(path)
        folder = self._layout.media.get(kind)
        if found or folder is None:
            return found
        paths = (self._by_id(kind, folder, ending) for ending in ENDINGS[kind])
        return [path for path in (next(filter(None, paths), None),) if path is not None]

    def _resolve(self, modality: str, path: str) -> str | None:
        try:
            return self._root.resolve(path).relative_to(self._root.path).as_posix()
        except MediaError as error:
            self._bad(modality, path, error.reason, error.detail)
            return None

    def _by_id(self, modality: str, folder: str, ending: str) -> str | None:
        # an id is a plain name here: one with a slash would be a path of its own choice
        if not re.fullmatch(r"[\w-][\w.-]*", self._id):
            return None
        path = f"{folder}/{self._id}.{ending}"
        return self._resolve(modality, path) if os.path.lexists(self._root.path / path) else None

    def _features(self, modality: str, folder: str) -> str | None:
        path = self._by_id(modality, folder, "npy")
        if path is None:
            return None
        try:
            _check_npy(self._root.path / path)
        except Refused as error:
            self._bad(modality, path, error.reason, error.detail)
            return None
        return path

    def _region(self) -> bytes | None:
        try:
            found = self._regions.get(self._id)
            if found is None:
                return None
            cell = found[0].cell()
            self._channels = self._channels or cell.shape[1]
            if cell.shape[1] != self._channels:
                raise Refused(
                    "malformed", f"{cell.shape[1] - 4} channels where earlier lines have {self._channels - 4}"
                )
        except Refused as error:
            self._bad("regions", "regions", error.reason, error.detail)
            return None
        return write_npy(cell)


def _given(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def _loose_pairs(value: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs out of a JSON object, or a list of pairs or of {"key" or "name": ..., "value": ...}."""
    found: Iterable[Any] = value.items() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    pairs: list[tuple[str, str]] = []
    bad: list[str] = []
    for one in found:
        if isinstance(one, dict):
            one = (one.get("key", one.get("name")), one.get("value"))
        name, content = one if isinstance(one, (list, tuple)) and len(one) == 2 else (None, None)
        for part in content if isinstance(content, list) else [content]:
            if part is None and name is not None:
                continue
            texts = [str(t).strip() for t in (name, part) if isinstance(t, (str, int, float))]
            if len(texts) == 2 and all(texts):
                pairs.append((texts[0], texts[1]))
            else:
                bad.append(str(one))
    return pairs, bad


def _check_npy(path: Path) -> None:
    """Raises Refused for what is no .npy file of vectors, by its header and size alone."""
    try:
        if path.stat().st_size == 0:
            raise Refused("empty", "0 bytes")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Refused:
        raise
    except (OSError, ValueError, EOFError, TypeError, OverflowError, TokenError) as error:
        raise Refused("unreadable", str(error)[:100]) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise Refused("wrong type", "an archive, not one array")
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise Refused("wrong type", f"{array.dtype} of shape {array.shape}")
    if array.size == 0:
        raise Refused("empty", f"shape {array.shape}")
    if array.size > _MOST_NUMBERS:
        raise Refused("over the limits", f"{array.size} numbers")
