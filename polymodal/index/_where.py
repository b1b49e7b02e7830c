"""Attributes of items and the filters over them: what a filter means, once, for every index kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from polymodal.config import nearest
from polymodal.types import BadInput, Where

__all__ = [
    "Attributes",
    "Condition",
    "Facet",
    "Schema",
    "Value",
    "clean_attributes",
    "flatten",
    "parse_where",
    "summarise",
]

Value = str | float
# attribute -> its values, always as a tuple: a single value is a list of one
Attributes = dict[str, tuple[Value, ...]]
Kind = Literal["text", "number", "mixed"]
# attribute -> what its values are; it only ever widens (text and number -> mixed)
Schema = dict[str, Kind]

# beyond this many different values an attribute is free text, not something to choose from a list
_MAX_DISTINCT = 10_000
_SHOWN = 50
# more numbers than this in one cell are a vector, which belongs to a modality
_MAX_NUMBERS = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """One attribute's part of a filter: any of `values`, or a number between `low` and `high` (both included)."""

    attribute: str
    values: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def is_range(self) -> bool:
        return not self.values

    def accepts(self, values: Iterable[Value]) -> bool:
        """Whether any of an item's values of this attribute satisfies the condition."""
        if not self.is_range:
            return any(value in self.values for value in values)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return any(not isinstance(value, str) and low <= value <= high for value in values)


@dataclass(frozen=True, slots=True)
class Facet:
    """What can be filtered on one attribute.

    Args:
        kind: "text", "number" or "mixed".
        values: the most frequent values with their number of items, at most 50.
        complete: whether `values` are all there are.
        low, high: range of the numbers, None where there is none.
    """

    kind: Kind
    values: tuple[tuple[Value, int], ...] = ()
    complete: bool = True
    low: float | None = None
    high: float | None = None


def clean_attributes(raw: Mapping[str, Any], schema: Schema) -> tuple[dict[str, Any], Attributes]:
    """An item's attributes, checked: as they are given back (JSON), and as they are filtered (always lists).

    `None` and empty values are dropped; a bool becomes "yes" or "no"; integers keep their value.
    `schema` is widened by what is found.

    Raises:
        BadInput: a name that is not text, a nested object, NaN or infinity, text that is not Unicode.
    """
    shown: dict[str, Any] = {}
    flat: Attributes = {}
    for name, value in raw.items():
        if not isinstance(name, str) or not name:
            raise BadInput("attributes", "names that are non-empty text", repr(name))
        many = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
        values = [_scalar(f"attributes[{name!r}]", v) for v in many if v is not None and v != ""]
        if not values:
            continue
        _encodable("attributes", name)
        if sum(not isinstance(v, str) for v in values) > _MAX_NUMBERS:
            raise BadInput(f"attributes[{name!r}]", f"at most {_MAX_NUMBERS} numbers", f"{len(values)}")
        shown[name] = values if isinstance(value, (list, tuple, set, frozenset)) else values[0]
        flat[name] = tuple(v if isinstance(v, str) else float(v) for v in values)
        for v in values:
            _widen(schema, name, "text" if isinstance(v, str) else "number")
    return shown, flat


def flatten(shown: Mapping[str, Any]) -> Attributes:
    """The filtered form of attributes that `clean_attributes` already returned."""
    return {
        name: tuple(v if isinstance(v, str) else float(v) for v in (value if isinstance(value, list) else [value]))
        for name, value in shown.items()
    }


def _widen(schema: Schema, name: str, kind: Kind) -> None:
    known = schema.setdefault(name, kind)
    if known != kind:
        schema[name] = "mixed"


def _encodable(field: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(field, "Unicode text", repr(text), "It holds half of a surrogate pair.") from None


def _scalar(field: str, value: Any) -> Value:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        _encodable(field, value)
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _scalar(field, value.item())
    if isinstance(value, (int, float)):
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if not finite:
            raise BadInput(field, "a finite number", repr(value), "Leave the attribute out where it is unknown.")
        return value
    raise BadInput(field, "text, a number, yes/no or a list of those", f"{type(value).__name__} {value!r}")


def parse_where(where: Where | None, schema: Mapping[str, Kind]) -> tuple[Condition, ...]:
    """A filter as conditions that must all hold.

    Args:
        where: attribute -> a value, a list of accepted values, or {"min": x, "max": y} (both included, one may lack).
        schema: attribute -> "text", "number" or "mixed".

    Raises:
        BadInput: an attribute the index does not have (with the nearest name), a value of the wrong type,
            an empty list, a range without or with swapped ends.
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise BadInput("where", "an object of attribute -> value", repr(where))
    out = []
    for name, wanted in where.items():
        if name not in schema:
            raise BadInput("where", "an attribute of the index", repr(name), nearest(str(name), list(schema)))
        field = f"where[{name!r}]"
        if isinstance(wanted, Mapping):
            out.append(_range(name, field, wanted, schema[name]))
        else:
            out.append(Condition(name, _values(field, wanted, schema[name])))
    return tuple(out)


def _values(field: str, wanted: Any, kind: Kind) -> tuple[Value, ...]:
    many: Sequence[Any] = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
    if not many:
        raise BadInput(field, "at least one accepted value", "an empty list", "Leave the attribute out for no filter.")
    values = []
    for one in many:
        if one is None:
            raise BadInput(field, "a value", "null", "Leave the attribute out for no filter.")
        value = _scalar(field, one)
        if kind == "number" and isinstance(value, str):
            raise BadInput(field, 'a number, or {"min": x, "max": y}', repr(value), "This attribute holds numbers.")
        if kind == "text" and not isinstance(value, str):
            raise BadInput(field, "text", repr(value), f'This attribute holds text: write "{value}" in quotes.')
        values.append(value if isinstance(value, str) else float(value))
    return tuple(values)


def _range(name: str, field: str, wanted: Mapping[str, Any], kind: Kind) -> Condition:
    unknown = [key for key in wanted if key not in ("min", "max")]
    if unknown or not wanted:
        raise BadInput(field, '{"min": x, "max": y}, or one of them', repr(dict(wanted)))
    if kind == "text":
        raise BadInput(field, "a value or a list of values", "a range", "This attribute holds text, not numbers.")
    ends: dict[str, float] = {}
    for key, raw in wanted.items():
        value = _scalar(f"{field}.{key}", raw) if raw is not None else None
        if isinstance(value, str) or value is None:
            raise BadInput(f"{field}.{key}", "a number", repr(raw))
        ends[key] = float(value)
    condition = Condition(name, (), ends.get("min"), ends.get("max"))
    if condition.low is not None and condition.high is not None and condition.low > condition.high:
        raise BadInput(field, "min <= max", f"min {condition.low:g}, max {condition.high:g}")
    return condition


def summarise(rows: Iterable[Attributes], schema: Mapping[str, Kind]) -> dict[str, Facet]:
    """The facets of all attributes, from the filtered form of every item's attributes; streamed."""
    counts: dict[str, Counter[Value]] = {name: Counter() for name in schema}
    full = dict.fromkeys(schema, True)
    for row in rows:
        for name, values in row.items():
            counter = counts[name]
            for value in dict.fromkeys(values):
                if value in counter or len(counter) < _MAX_DISTINCT:
                    counter[value] += 1
                else:
                    full[name] = False
    return {name: _facet(schema[name], counts[name], full[name]) for name in sorted(schema)}


def _facet(kind: Kind, counter: Counter[Value], full: bool) -> Facet:
    ordered = sorted(counter.items(), key=lambda item: (-item[1], isinstance(item[0], str), item[0]))
    numbers = [value for value in counter if not isinstance(value, str)]
    return Facet(
        kind,
        tuple(ordered[:_SHOWN]),
        full and len(ordered) <= _SHOWN,
        min(numbers, default=None),
        max(numbers, default=None),
    )
