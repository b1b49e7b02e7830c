"""Two notations of the M5Product release and back: the attribute string `pv`, and a line of a region file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = ["MAX_LINE", "Refused", "Region", "format_pv", "parse_pv", "read_region", "write_region"]

# 256 boxes of 2,048 numbers are 2.8 MB in base64
MAX_LINE = 1 << 24
_PAIR, _PART = "#;#", "#:#"
_MAX_BOXES, _MAX_CHANNELS, _MAX_SIDE = 1024, 65_536, 100_000
Floats = npt.NDArray[np.float32]


class Refused(ValueError):
    """A line, an entry or a cell that is not used; `reason` as `Quarantined` has it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def parse_pv(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs of an attribute string, and the pieces that are none.

    Args:
        text: `name#:#value#;#name#:#value`; at most one character means "no table". A value may hold `#:#`; blanks
            around names and values do not count; a name may come again.

    Returns:
        (name, value) in their order, neither empty; and the pieces without a mark, a name or a value.
    """
    pairs: list[tuple[str, str]] = []
    bad: list[str] = []
    if len(text.strip()) <= 1:
        return pairs, bad
    for piece in text.split(_PAIR):
        name, mark, value = (part.strip() for part in piece.partition(_PART))
        if mark and name and value:
            pairs.append((name, value))
        elif piece.strip():
            bad.append(piece.strip())
    return pairs, bad


def format_pv(pairs: Sequence[tuple[str, str]]) -> str:
    """The attribute string of `pairs`; "0" for none.

    Raises:
        BadInput: pairs that would be read as others: empty parts, blanks at their ends, marks inside.
    """
    text = _PAIR.join(f"{name}{_PART}{value}" for name, value in pairs) or "0"
    if parse_pv(text) != (list(pairs), []):
        raise BadInput("pv", f"names and values without {_PART}, {_PAIR} and outer blanks", repr(pairs))
    return text


@dataclass(frozen=True, eq=False)
class Region:
    """What a detector saw on one picture.

    Args:
        id: of the product.
        width, height: of the picture, pixels.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels.
        features: (n, C) float32.
        title: of the product, "" where the file has none.
    """

    id: str
    width: int
    height: int
    boxes: Floats
    features: Floats
    title: str = ""

    def cell(self) -> npt.NDArray[np.floating]:
        """(n, C + 4) as `Features` with boxes takes it: the vectors, then x1 y1 x2 y2 relative to the picture and cut
        at its border. float16 where its range is enough, which is half the size of the release.

        Raises:
            Refused: a box that is not inside the picture at all.
        """
        sides = np.array([self.width, self.height] * 2, np.float32)
        boxes = self.boxes / sides
        inside = np.clip(boxes, 0, 1)
        if (inside[:, 2:] < inside[:, :2]).any() or (boxes[:, 2:] < 0).any() or (boxes[:, :2] > 1).any():
            raise Refused("malformed", "a box outside the picture, or with its corners exchanged")
        whole = np.concatenate([self.features, inside], 1)
        return whole.astype(np.float16) if np.abs(whole).max() < 65_504 else whole


def read_region(line: bytes) -> Region:
    """One line of a region file: image_id, image_w, image_h, num_boxes, boxes, features, title, separated by tabs.

    `boxes` is base64 of float32 (n, 4), `features` of float32 (n, C), little-endian; the title may be left out. Sizes
    are checked before anything is decoded.

    Raises:
        Refused: malformed, empty (no box), over the limits (16 MiB, 1,024 boxes, 65,536 channels).
    """
    if len(line) > MAX_LINE:
        raise Refused("over the limits", f"a line of more than {MAX_LINE} bytes")
    fields = line.rstrip(b"\r\n").split(b"\t", 6)
    if len(fields) < 6:
        raise Refused("malformed", f"{len(fields)} of 7 columns")
    try:
        name, *rest = (field.decode("utf-8") for field in (fields[0], *fields[6:]))
    except UnicodeDecodeError as error:
        raise Refused("malformed", f"not UTF-8: {error.reason}") from None
    width, height, count = (_whole(field, most) for field, most in zip(fields[1:4], _MOST, strict=True))
    if count == 0:
        raise Refused("empty", "no box")
    if width == 0 or height == 0:
        raise Refused("malformed", "a picture without an area")
    boxes = _floats(fields[4], count, 4)
    features = _floats(fields[5], count, None)
    return Region(name, width, height, boxes, features, rest[0] if rest else "")


_MOST = (_MAX_SIDE, _MAX_SIDE, _MAX_BOXES)


def write_region(region: Region) -> bytes:
    """The line that `read_region` reads back equal, with its end.

    Raises:
        BadInput: a tab in the id, an end of line in the id or title, arrays of other shapes.
    """
    if re.search(r"[\t\r\n]", region.id) or re.search(r"[\r\n]", region.title):
        raise BadInput("region", "an id and a title of one line, no tab in the id", repr((region.id, region.title)))
    if region.boxes.shape != (len(region.features), 4) or region.features.ndim != 2:
        raise BadInput("region", "boxes (n, 4) and features (n, C)", (region.boxes.shape, region.features.shape))
    arrays = (base64.b64encode(np.ascontiguousarray(a, "<f4").tobytes()) for a in (region.boxes, region.features))
    numbers = (str(n).encode() for n in (region.width, region.height, len(region.boxes)))
    return b"\t".join([region.id.encode(), *numbers, *arrays, region.title.encode()]) + b"\n"


def _whole(field: bytes, most: int) -> int:
    # a float is what a data frame makes of a column of whole numbers
    found = re.fullmatch(rb"\s*([0-9]{1,9})(?:\.0*)?\s*", field)
    if found is None:
        raise Refused("malformed", f"a whole number is needed, not {field[:20]!r}")
    if int(found[1]) > most:
        raise Refused("over the limits", f"{int(found[1])}, at most {most}")
    return int(found[1])


def _floats(field: bytes, count: int, channels: int | None) -> Floats:
    """(count, channels) numbers out of base64; None: as many channels as there are."""
    field = field.strip()
    room = 4 * (-(-count * (channels or _MAX_CHANNELS) * 4 // 3))
    if len(field) > room:
        raise Refused("over the limits", f"{len(field)} characters of base64 for {count} boxes")
    try:
        data = base64.b64decode(field, validate=True)
    except binascii.Error as error:
        raise Refused("malformed", f"base64: {error}") from None
    if not data or len(data) % (4 * count) or (channels is not None and len(data) != 4 * count * channels):
        raise Refused("malformed", f"{len(data)} bytes for {count} boxes")
    numbers = np.frombuffer(data, "<f4").reshape(count, -1).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise Refused("malformed", "NaN or infinity among the numbers")
    return numbers
