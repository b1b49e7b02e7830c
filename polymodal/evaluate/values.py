"""What every result of the evaluation shares: subsets of modalities, their names, and the way to JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

__all__ = ["AS_IS", "Result", "Subset", "plain", "subset_name", "subset_order"]

# the modalities a vector was made from
Subset = frozenset[str]

# the condition "whatever each item has": items differ in what they were made from
AS_IS: Subset = frozenset()


class Result:
    """Base of the frozen result dataclasses: `to_json` gives plain values, without the arrays per query.

    Fields named in `unwritten` stay out of the JSON (they are long and can be computed again).
    """

    unwritten: ClassVar[frozenset[str]] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings; NaN and infinity become None."""
        return {
            field.name: plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if field.name not in self.unwritten
        }


def subset_name(subset: Subset) -> str:
    """`image + text` for people; `as is` for AS_IS."""
    return " + ".join(sorted(subset)) if subset else "as is"


def subset_order(subsets: Iterable[Subset]) -> list[Subset]:
    """Singles first, then pairs, and so on; by name within one size."""
    return sorted(subsets, key=lambda s: (len(s), sorted(s)))


def plain(value: Any) -> Any:
    """`value` as JSON can hold it. Subsets become their names, bytes are left out (None)."""
    if isinstance(value, Result):
        return value.to_json()
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return subset_name(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return None if value is None or isinstance(value, bytes) else str(value)


def _key(key: Any) -> str:
    return subset_name(key) if isinstance(key, frozenset) else str(key)
