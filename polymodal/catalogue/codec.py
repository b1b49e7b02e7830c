"""Decoded values as bytes and back, safely: arrays as .npy without pickle, text as UTF-8, pairs as JSON.

The first byte says which, so that a cell explains itself. Nothing that is read can make us run code.
"""

from __future__ import annotations

import ast
import json
import math
import struct
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

from polymodal.types import BadInput

__all__ = ["pack", "read_npy", "unpack", "write_npy"]

_LONGEST_HEADER = 1024

_ARRAY, _TEXT, _JSON = b"N", b"T", b"J"


def pack(value: Any) -> bytes:
    """A decoded value as bytes: a numpy array without objects, a str, or pairs of texts and finite numbers.

    Raises:
        BadInput: another type, an array of objects, NaN among the pairs.
    """
    if isinstance(value, str):
        return _TEXT + value.encode("utf-8", "replace")
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _ARRAY + write_npy(value)
    if isinstance(value, (tuple, list)):
        try:
            return _JSON + json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        except (TypeError, ValueError) as error:
            raise BadInput("decoded value", "pairs of texts and finite numbers", error) from None
    raise BadInput(
        "decoded value", "an array, a text or pairs", type(value).__name__, "`decode` must return one of them."
    )


def unpack(data: bytes) -> Any:
    """The value that `pack` was given. Arrays are writable copies; pairs come back as a tuple of tuples.

    Raises:
        BadInput: bytes that `pack` did not write.
    """
    kind, body = data[:1], data[1:]
    try:
        if kind == _TEXT:
            return body.decode("utf-8")
        if kind == _JSON:
            return tuple(tuple(pair) for pair in json.loads(body))
        if kind == _ARRAY:
            return read_npy(body)
    except (ValueError, TypeError) as error:
        raise BadInput(
            "shard", "a cell as `polymodal prepare` writes it", error, "Prepare the catalogue again."
        ) from None
    raise BadInput("shard", "a cell as `polymodal prepare` writes it", repr(kind), "Prepare the catalogue again.")


def write_npy(array: np.ndarray[Any, Any]) -> bytes:
    """An array without objects as the content of an .npy file (version 1.0, C order)."""
    stream = BytesIO()
    np.lib.format.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def read_npy(body: bytes) -> np.ndarray[Any, Any]:
    """The array in the content of an .npy file, as a writable copy. Raises ValueError for anything else."""
    if body[:8] != b"\x93NUMPY\x01\x00" or len(body) < 10:
        raise ValueError("no .npy content")
    length = struct.unpack("<H", body[8:10])[0]
    if length > _LONGEST_HEADER:
        raise ValueError(f"an .npy header of {length} bytes")
    dtype, shape = _header(body[10 : 10 + length])
    if len(body) - 10 - length != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(body) - 10 - length} bytes for shape {shape} of {dtype}")
    # a copy, because torch warns of arrays that cannot be written
    return np.frombuffer(body, dtype, offset=10 + length).reshape(shape).copy()


@lru_cache(maxsize=4096)
def _header(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of a .npy header; cached, because the cells of a column have few different ones."""
    try:
        fields = ast.literal_eval(text.decode("latin1").strip())
        dtype, shape, turned = np.dtype(fields["descr"]), fields["shape"], fields["fortran_order"]
    except (SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"an .npy header that says nothing: {error}") from None
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    if dtype.hasobject or dtype.itemsize == 0 or turned:
        raise ValueError("an array of objects or of another order")
    return dtype, shape
