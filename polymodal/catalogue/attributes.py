"""The name and value pairs of a record, whichever of its modalities holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polymodal.types import Record

__all__ = ["attributes_of"]


def attributes_of(record: Record) -> dict[str, Any]:
    """Name -> value of every pair that the record has, a list where a name has several."""
    out: dict[str, Any] = {}
    for value in record.values.values():
        for name, content in _pairs(value):
            before = out.get(name)
            out[name] = (
                content if before is None else [*before, content] if isinstance(before, list) else [before, content]
            )
    return out


def _pairs(value: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)) and all(
        isinstance(p, (tuple, list)) and len(p) == 2 and isinstance(p[0], str) for p in value
    ):
        return [(name, content) for name, content in value]
    return []
