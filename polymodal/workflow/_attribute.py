"""One attribute of a catalogue: who has it, who lacks it, and the same records with it hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from polymodal.catalogue.quarantine import decode_record
from polymodal.config import nearest
from polymodal.tasks.items import Items
from polymodal.tensors import stable_hash
from polymodal.types import BadInput, Record
from polymodal.workflow.opened import Opened
from polymodal.workflow.records import records_of, rows_of_ids

__all__ = ["Attribute", "Hidden", "Shares", "decoded_records", "find_attribute", "hide", "shares_of"]

# what is missing: the attribute of a cell that has others, or the whole cell
Hidden = Literal["attribute", "cell"]
_MOST_VALUES = 500
_FEW = 20


@dataclass(frozen=True)
class Attribute:
    """An attribute and its values.

    Args:
        modality: that has it. name: in the cell.
        values: id -> value of the items that have exactly one: words, or numbers where `numeric`.
        missing: id -> what is missing, of the items that have none.
        several: items with several values, which are left alone.
    """

    modality: str
    name: str
    numeric: bool
    values: dict[str, Any]
    missing: dict[str, Hidden]
    several: int

    @property
    def asked(self) -> str:
        """As a `Completer` wants it."""
        return f"{self.modality}.{self.name}"


@dataclass(frozen=True)
class Shares:
    """Ids with a known value: those that proposals are drawn from, those that calibrate, those that measure.

    `trained`: the last two had to be taken from the rows that the model was trained on.
    """

    known: tuple[str, ...]
    calibrate: tuple[str, ...]
    measure: tuple[str, ...]
    trained: bool = False


def find_attribute(opened: Opened, items: Items, wanted: str) -> Attribute:
    """The attribute `wanted`, "colour" or "facts.colour".

    Raises:
        BadInput: no attribute of that name (with the nearest one), one that several modalities have, one that has a
            single value, one of which most items have several.
    """
    cells = {
        m: {i: network.decode(v) for i, v in items.cells.get(m, {}).items()}
        for m in opened.embedder.modalities
        if (network := opened.embedder.network.modality(m)).parts()
    }
    names = {m: Counter(n for pairs in each.values() for n, _ in pairs) for m, each in cells.items()}
    found = [(m, n) for m, known in names.items() for n in known if wanted in (n, f"{m}.{n}")]
    if not found:
        known = [n for each in names.values() for n, _ in each.most_common()]
        raise BadInput("--attribute", "an attribute of the data", repr(wanted), nearest(wanted, known))
    if len(found) > 1:
        raise BadInput("--attribute", f"one of {', '.join(f'{m}.{n}' for m, n in found)}", repr(wanted))
    modality, name = found[0]
    values: dict[str, Any] = {}
    missing: dict[str, Hidden] = {}
    several = 0
    for item in items.ids:
        own = [v for n, v in cells[modality].get(item, ()) if n == name]
        if len(own) == 1:
            values[item] = own[0]
        elif own:
            several += 1
        else:
            missing[item] = "attribute" if item in cells[modality] else "cell"
    return _checked(Attribute(modality, name, _numeric(values), values, missing, several))


def _numeric(values: dict[str, Any]) -> bool:
    return sum(isinstance(v, float) for v in values.values()) > 0.95 * len(values)


def _checked(found: Attribute) -> Attribute:
    if found.several > len(found.values):
        raise BadInput(
            "--attribute", "an attribute with one value an item", f"{found.several} items with several {found.name}"
        )
    if found.numeric:
        values: dict[str, Any] = {i: v for i, v in found.values.items() if isinstance(v, float)}
    else:
        values = {i: v if isinstance(v, str) else f"{v:g}" for i, v in found.values.items()}
    if len(set(values.values())) < 2:
        raise BadInput(
            "--attribute", "an attribute with two values or more", f"{found.name} with {set(values.values())}"
        )
    return Attribute(found.modality, found.name, found.numeric, values, found.missing, found.several)


def known_values(attribute: Attribute, ids: Collection[str]) -> list[str]:
    """The words that the attribute has among some items, the most frequent first, at most 500."""
    count = Counter(attribute.values[i] for i in ids)
    return sorted(count, key=lambda value: (-count[value], value))[:_MOST_VALUES]


def shares_of(items: Items, attribute: Attribute, trained: str | None, most: int) -> Shares:
    """Who calibrates and who measures: rows that the model was not trained on, where there are enough of them.

    The split "test" measures and the others calibrate; where there is none, groups are halved by a hash.

    Raises:
        BadInput: too few items with a value.
    """
    known = [i for i in items.ids if i in attribute.values]
    held = [i for i in known if items.splits and items.splits.get(i) != trained]
    borrowed = len(held) < 2 * _FEW
    if borrowed:
        held = [i for i in known if _draw(items, i) % 5 < 2]
    measure = [] if borrowed else [i for i in held if items.splits.get(i) == "test"]
    calibrate = [i for i in held if i not in frozenset(measure)]
    if min(len(measure), len(calibrate)) < _FEW:
        measure = [i for i in held if _draw(items, i) // 5 % 2]
        calibrate = [i for i in held if not _draw(items, i) // 5 % 2]
    rest = frozenset(held)
    corpus = [i for i in known if i not in rest]
    if len(corpus) < _FEW or not measure or not calibrate:
        raise BadInput("--attribute", f"at least {3 * _FEW} items that have it", f"{len(known)} with {attribute.name}")
    order = [sorted(part, key=lambda i: stable_hash(i))[:most] for part in (calibrate, measure)]
    return Shares(tuple(corpus), tuple(order[0]), tuple(order[1]), borrowed)


def _draw(items: Items, item: str) -> int:
    return stable_hash(f"share\0{items.groups.get(item, item)}") & (2**62 - 1)


def decoded_records(opened: Opened, ids: Sequence[str]) -> list[Record]:
    """The records of some ids with decoded values, in that order."""
    decoders = {name: opened.embedder.network.modality(name) for name in opened.embedder.modalities}
    numbers = rows_of_ids(opened.rows, ids, "id")
    found = {r.id: decode_record(r, decoders)[0] for r in records_of(opened.rows, np.asarray(numbers))}
    return [found[name] for name in ids]


def hide(record: Record, attribute: Attribute, how: Hidden) -> Record:
    """The record without the attribute, or without the whole cell that has it."""
    values = {name: value for name, value in record.values.items() if name != attribute.modality}
    if how == "attribute":
        rest = tuple(pair for pair in record.values.get(attribute.modality, ()) if pair[0] != attribute.name)
        if rest:
            values[attribute.modality] = rest
    return Record(record.id, values, record.labels, record.group)
