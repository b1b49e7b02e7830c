"""Thumbnails for the report, from encoded pictures that were handed in."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

__all__ = ["data_uri", "pixels"]


def pixels(encoded: bytes, side: int) -> npt.NDArray[np.uint8] | None:
    """The picture with its longer side at `side` pixels, (H, W, 3) uint8; None if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            small = picture.convert("RGBA")
            small.thumbnail((side, side))
            paper = Image.new("RGBA", small.size, (255, 255, 255, 255))
            paper.alpha_composite(small)
            return np.asarray(paper.convert("RGB"), np.uint8)
    # what Pillow raises for broken files: a picture that cannot be shown is left out, the report is written
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def data_uri(encoded: bytes, side: int = 176) -> str | None:
    """The picture as a small JPEG in a data URI; None if it cannot be read."""
    from PIL import Image

    array = pixels(encoded, side)
    if array is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
