"""Decoded values as bytes and back, safely: arrays as .npy without pickle, text as UTF-8, pairs as JSON.

The first byte says which, so that a cell explains itself. Nothing that is read can make us run code.
"""

from __future__ import annotations

import ast
import json
import struct
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

from polymodal.types import BadInput

__all__ = ["pack", "unpack"]

_ARRAY, _TEXT, _JSON = b"N", b"T", b"J"


def pack(value: Any) -> bytes:
    """A decoded value as bytes: a numpy array without objects, a str, or pairs of texts and finite numbers.

    Raises:
        BadInput: another type, an array of objects, NaN among the pairs.
    """
    if isinstance(value, str):
        return _TEXT + value.encode("utf-8", "replace")
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        stream = BytesIO()
        np.lib.format.write_array(stream, np.asarray(value, order="C"), version=(1, 0), allow_pickle=False)
        return _ARRAY + stream.getvalue()
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
            return _array(body)
    except (ValueError, TypeError, SyntaxError, struct.error) as error:
        raise BadInput(
            "shard", "a cell as `polymodal prepare` writes it", error, "Prepare the catalogue again."
        ) from None
    raise BadInput("shard", "a cell as `polymodal prepare` writes it", repr(kind), "Prepare the catalogue again.")


def _array(body: bytes) -> np.ndarray[Any, Any]:
    if body[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("no .npy content")
    start = 10 + struct.unpack("<H", body[8:10])[0]
    dtype, shape = _header(body[10:start])
    # a copy, because torch warns of arrays that cannot be written
    return np.frombuffer(body, dtype, offset=start).reshape(shape).copy()


@lru_cache(maxsize=4096)
def _header(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of a .npy header; cached, because the cells of a column have few different ones."""
    fields = ast.literal_eval(text.decode("latin1").strip())
    dtype, shape = np.dtype(fields["descr"]), fields["shape"]
    if dtype.hasobject or fields["fortran_order"] or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array of objects or of another order")
    return dtype, tuple(shape)
