"""Attributes in whatever form a cell holds them, as pairs of name and plain value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from polymodal.types import MediaError

__all__ = ["flatten", "parse"]

_DEEPEST = 8


def parse(text: str) -> Any:
    """JSON. Raises MediaError, "unreadable"."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MediaError("unreadable", f"not JSON: {type(error).__name__}") from None


def flatten(name: str, node: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Names with plain values, outer names before inner ones."""
    if depth > _DEEPEST:
        raise MediaError("over the limits", f"attributes nested deeper than {_DEEPEST} levels")
    if isinstance(node, Mapping):
        for key, inner in node.items():
            yield from flatten(f"{name}.{key}" if name else str(key) or "?", inner, depth + 1)
    elif isinstance(node, (list, tuple, np.ndarray, set, frozenset)):
        for inner in node:
            yield from flatten(*_pair(name, inner), depth + 1)
    elif not name:
        raise MediaError("wrong type", f"expected attributes, got {type(node).__name__}")
    elif node is not None:
        yield name, node


def _pair(name: str, item: Any) -> tuple[str, Any]:
    """One item of a list: a value of `name`, or, where the list is the whole table, a pair or a mapping."""
    if name or isinstance(item, Mapping):
        return name, item
    if not isinstance(item, (list, tuple, np.ndarray)) or len(item) != 2 or not isinstance(item[0], str):
        raise MediaError("wrong type", "expected pairs of name and value")
    return item[0] or "?", item[1]
