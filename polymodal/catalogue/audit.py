"""Audit: what a catalogue holds, lacks and gets wrong, in one pass and bounded memory."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polymodal.catalogue.audit_text import to_text
from polymodal.catalogue.codec import pack
from polymodal.catalogue.quarantine import CUT, Decodes, Quarantined, decode_record, describe
from polymodal.catalogue.reader import Block, Catalogue
from polymodal.catalogue.schema import label_name
from polymodal.catalogue.scripts import SCRIPTS, count_scripts, main_script
from polymodal.types import BadInput, Record

__all__ = ["Audit", "audit"]

_LISTED = 100_000  # entries of the quarantine that are listed; all are counted
_NAMES = 10_000  # attribute names followed
_VALUES = 1_000  # distinct values followed of an attribute
_LEAK_ROWS = 20_000  # rows in which labels are looked for in the text
_SCRIPT_CHARS = 4_000
# rows done, rows to do
Progress = Callable[[int, int], None]


@dataclass
class Audit:
    """What an audit found. All of it is JSON-ready; shares are of the rows audited.

    Args:
        path: the catalogue's folder.
        complete: False where the audit was interrupted or limited; the counts are of the first `rows` rows then.
        decoded: whether media were decoded; if not, a broken file counts as present.
        rows: audited.
        total: in the catalogue.
        dropped: rows without an id or with one that an earlier row has.
        empty: rows with no usable modality.
        modalities: name -> kind, present, share, lengths of texts, identical cells.
        patterns: "image+text" -> rows, most frequent first; "nothing" for rows with none.
        labels: name -> rows, values, head, torso, tail, singletons, top.
        duplicates: ids that occur again, and how often they do.
        groups: number of groups, rows in one, largest, groups that a split cuts.
        splits: split -> rows.
        reasons: modality -> reason -> entries of the quarantine.
        quarantine: the entries, at most 100,000 of them.
        scripts: text modality -> script -> rows of which it is the main one, rows it is in, share of
            all letters and digits.
        attributes: modality -> attribute -> rows, share, numeric, symbolic, values, not_finite, minimum, maximum.
        warnings: sentences for people.
    """

    path: str
    complete: bool = True
    decoded: bool = True
    rows: int = 0
    total: int = 0
    dropped: int = 0
    empty: int = 0
    modalities: dict[str, dict[str, Any]] = field(default_factory=dict)
    patterns: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    quarantine: list[Quarantined] = field(default_factory=list)
    scripts: dict[str, dict[str, Any]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The audit as one JSON object."""
        return {**vars(self), "quarantine": [entry.to_json() for entry in self.quarantine]}

    def to_text(self, listed: int = 20) -> str:
        """The audit as text for a terminal, with at most `listed` entries of each list."""
        return to_text(self.to_json(), listed)


def audit(
    catalogue: Catalogue,
    modalities: Mapping[str, Decodes] | None = None,
    *,
    decode: bool = True,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Read the catalogue once and say what is in it. Ctrl-C ends it early, with what was found until then.

    Args:
        catalogue: the raw catalogue.
        modalities: modality name -> decoder. A modality without one is taken as it is written.
        decode: whether to decode, which finds broken media; without, only paths and cells are looked at.
        limit: rows to look at, from the first on; None for all.
        progress: called after every block with rows done and rows to do.

    Raises:
        BadInput: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise BadInput("limit", "at least 1 row", limit)
    decoders = dict(modalities or {}) if decode else {}
    found = _Collector(catalogue, decoders)
    todo = min(limit or len(catalogue), len(catalogue))
    complete = limit is None or limit >= len(catalogue)
    try:
        for number in range(len(catalogue.blocks)):
            if found.rows >= todo:
                break
            found.take(catalogue.read(number, todo - found.rows))
            if progress is not None:
                progress(found.rows, todo)
    except KeyboardInterrupt:
        complete = False
    return found.result(complete, bool(decoders))


class _Collector:
    """Counters of one audit. What grows with the rows are arrays of 8 bytes a cell; everything else is bounded."""

    def __init__(self, catalogue: Catalogue, decoders: Mapping[str, Decodes]) -> None:
        self.rows = 0
        self._catalogue, self._decoders = catalogue, decoders
        self._forms = {name: source.cell_form(name) for name, source in catalogue.config.modalities.items()}
        self._patterns: Counter[tuple[str, ...]] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._quarantine: list[Quarantined] = []
        self._digests = {name: array("Q") for name in self._forms}
        self._holders = {name: array("Q") for name in self._forms}
        self._lengths = {name: array("I") for name, form in self._forms.items() if form == "text"}
        self._letters = {name: np.zeros(len(SCRIPTS), np.int64) for name in self._lengths}
        self._within = {name: np.zeros(len(SCRIPTS), np.int64) for name in self._lengths}
        self._scripts: dict[str, Counter[str]] = {name: Counter() for name in self._lengths}
        self._attributes = {name: _Attributes() for name, form in self._forms.items() if form == "pairs"}
        self._leaks = {label_name(column): [0, 0] for column in catalogue.config.labels}
        self._report(catalogue.dropped)

    def take(self, block: Block) -> None:
        """Counts one block."""
        self._report(block.quarantined)
        for (name, attribute), count in block.not_finite.items():
            self._attributes[name].not_finite(attribute, count)
        for record in block.records:
            values = dict(record.values)
            if self._decoders:
                decoded, bad = decode_record(record, self._decoders, self._catalogue.media_root)
                self._report(bad)
                kept = {name: value for name, value in values.items() if name not in self._decoders}
                values = {**kept, **decoded.values}
            self._record(record, values)
            self.rows += 1

    def _report(self, entries: list[Quarantined]) -> None:
        for entry in entries:
            self._reasons.setdefault(entry.modality, Counter())[entry.reason] += 1
            if len(self._quarantine) < _LISTED:
                self._quarantine.append(entry)

    def _record(self, record: Record, values: Mapping[str, Any]) -> None:
        self._patterns[tuple(name for name in self._forms if name in values)] += 1
        for name, value in values.items():
            self._digests[name].append(_digest(value))
            self._holders[name].append(self.rows)
            if self._forms[name] == "text":
                counts = count_scripts(value[:_SCRIPT_CHARS])
                self._letters[name] += counts
                self._within[name] += counts > 0
                self._scripts[name][main_script(counts)] += 1
                self._lengths[name].append(len(value))
            elif self._forms[name] == "pairs":
                self._attributes[name].take(value)
        if self.rows < _LEAK_ROWS and self._leaks:
            texts = [values[name] for name in self._lengths if name in values]
            self._look_for_labels(record, "\n".join(texts).casefold())

    def _look_for_labels(self, record: Record, text: str) -> None:
        for name, value in record.labels.items():
            if text and len(value) > 2:
                self._leaks[name][0] += 1
                self._leaks[name][1] += value.casefold() in text

    # -- results --------------------------------------------------------------------------------------------------

    def result(self, complete: bool, decoded: bool) -> Audit:
        index = self._catalogue.index.slice(0, self.rows)
        made = Audit(
            path=self._catalogue.config.path,
            complete=complete,
            decoded=decoded,
            rows=self.rows,
            total=len(self._catalogue),
            dropped=len(self._catalogue.dropped),
            empty=self._patterns[()],
            modalities={name: self._modality(name) for name in self._forms},
            patterns={"+".join(names) or "nothing": n for names, n in self._patterns.most_common()},
            labels={name: _tail(index[f"label_{name}"]) for name in self._leaks},
            duplicates=dict(Counter(e.id for e in self._catalogue.dropped if e.id).most_common(1000)),
            groups=_groups(index),
            splits=dict(sorted(_counts(index["split"]))),
            reasons={name: dict(counts.most_common()) for name, counts in sorted(self._reasons.items())},
            quarantine=self._quarantine,
            scripts={name: self._script(name) for name in self._lengths},
            attributes={name: found.result(self.rows) for name, found in self._attributes.items()},
        )
        made.warnings = self._warnings(made)
        return made

    def _modality(self, name: str) -> dict[str, Any]:
        digests = np.frombuffer(self._digests[name], np.uint64)
        present = len(digests)
        _, first, counts = np.unique(digests, return_index=True, return_counts=True)
        result: dict[str, Any] = {
            "kind": self._catalogue.modalities[name],
            "present": present,
            "share": round(present / max(self.rows, 1), 4),
            "distinct": len(counts),
            "identical": int(counts[counts > 1].sum()),
        }
        if present and counts.max() > 1:
            row = self._holders[name][int(first[counts.argmax()])]
            result["most_repeated"] = {"cells": int(counts.max()), "id": self._catalogue.index["id"][row].as_py()}
        if name in self._lengths and present:
            quantiles = np.quantile(np.frombuffer(self._lengths[name], np.uint32), (0, 0.25, 0.5, 0.75, 0.95, 1))
            result["characters"] = dict(
                zip(("min", "q25", "median", "q75", "q95", "max"), map(int, quantiles), strict=True)
            )
        return result

    def _script(self, name: str) -> dict[str, Any]:
        letters, main = self._letters[name], self._scripts[name]
        found = {
            script: {
                "rows": main[script],
                "in": int(inside),
                "letters": round(int(count) / max(int(letters.sum()), 1), 4),
            }
            for script, count, inside in zip(SCRIPTS, letters, self._within[name], strict=True)
            if count
        }
        if main["other"]:
            found["other"] = {"rows": main["other"], "in": main["other"], "letters": 0.0}
        return dict(sorted(found.items(), key=lambda item: (-item[1]["rows"], -item[1]["letters"])))

    def _warnings(self, made: Audit) -> list[str]:
        told = [f"No row has {name}: absent everywhere." for name, m in made.modalities.items() if not m["present"]]
        if made.empty:
            told.append(f"{made.empty} rows have no usable modality.")
        if made.dropped:
            told.append(f"{made.dropped} rows are left out: no id, or one that an earlier row has.")
        if made.groups.get("cut"):
            told.append(f"{made.groups['cut']} groups have rows in several splits: evaluation would be flattered.")
        for name, reasons in made.reasons.items():
            told += _warn_of_cells(name, reasons) if name else []
        for name, m in made.modalities.items():
            if m["identical"] > 0.1 * max(m["present"], 1):
                told.append(f"{name}: {m['identical']} of {m['present']} cells have a twin; twins are no negatives.")
        for name, (looked, seen) in self._leaks.items():
            if seen > 0.2 * looked:
                told.append(f"Label {name} stands verbatim in the text of {seen} of {looked} rows: text gives it away.")
        broken = sum(a["not_finite"] for found in made.attributes.values() for a in found.values())
        return [*told, f"{broken} attribute numbers are NaN or infinite and were dropped."] if broken else told


def _warn_of_cells(name: str, reasons: Mapping[str, int]) -> list[str]:
    bad = {reason: count for reason, count in reasons.items() if reason != CUT}
    told = [f"{name}: {sum(bad.values())} files or cells cannot be used ({', '.join(bad)})."] if bad else []
    return [*told, f"{name}: {reasons[CUT]} cells were cut to the limit."] if CUT in reasons else told


@dataclass
class _Attribute:
    rows: int = 0
    numeric: int = 0
    symbolic: int = 0
    bad: int = 0
    low: float = np.inf
    high: float = -np.inf
    values: set[str | float] = field(default_factory=set)


class _Attributes:
    """Counters per attribute name, of the first 10,000 names."""

    def __init__(self) -> None:
        self._names: dict[str, _Attribute] = {}

    def _get(self, name: str) -> _Attribute | None:
        if name not in self._names and len(self._names) >= _NAMES:
            return None
        return self._names.setdefault(name, _Attribute())

    def not_finite(self, name: str, count: int) -> None:
        if (found := self._get(name)) is not None:
            found.bad += count

    def take(self, pairs: tuple[tuple[str, str | float], ...]) -> None:
        for name in {name for name, _ in pairs}:
            if (found := self._get(name)) is not None:
                found.rows += 1
        for name, value in pairs:
            found = self._names.get(name)
            if found is None:
                continue
            if len(found.values) < _VALUES:
                found.values.add(value)
            if isinstance(value, str):
                found.symbolic += 1
            else:
                found.numeric += 1
                found.low, found.high = min(found.low, value), max(found.high, value)

    def result(self, rows: int) -> dict[str, Any]:
        ordered = sorted(self._names.items(), key=lambda item: (-item[1].rows, item[0]))
        return {
            name: {
                "rows": a.rows,
                "share": round(a.rows / max(rows, 1), 4),
                "numeric": a.numeric,
                "symbolic": a.symbolic,
                "values": len(a.values),
                "values_capped": len(a.values) >= _VALUES,
                "not_finite": a.bad,
                "minimum": float(a.low) if a.numeric else None,
                "maximum": float(a.high) if a.numeric else None,
            }
            for name, a in ordered
        }


def _digest(value: Any) -> int:
    if isinstance(value, (str, tuple, np.ndarray)):
        content = pack(value)
    else:
        # not decoded: the same path or the same bytes
        parts = value if isinstance(value, list) else [value]
        content = b"\0".join(part if isinstance(part, bytes) else describe(part).encode() for part in parts)
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def _counts(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    found = pc.value_counts(column.drop_null())
    return [(one["values"].as_py(), one["counts"].as_py()) for one in found]


def _tail(column: pa.ChunkedArray) -> dict[str, Any]:
    """The long tail of a label. Head: the most frequent values that hold half of the rows; torso: those that hold the
    next 40 %; tail: the rest."""
    found = pc.value_counts(column.drop_null())
    counts = found.field("counts").to_numpy()
    order = np.lexsort((np.arange(len(counts)), -counts))
    rows = int(counts.sum())
    before = np.concatenate([[0], np.cumsum(counts[order])[:-1]]) / max(rows, 1)
    part = np.select([before < 0.5, before < 0.9], [0, 1], 2)
    names = ("head", "torso", "tail")
    return {
        "rows": rows,
        "values": len(counts),
        "singletons": int((counts == 1).sum()),
        **{
            name: {"values": int((part == i).sum()), "rows": int(counts[order][part == i].sum())}
            for i, name in enumerate(names)
        },
        "top": {found.field("values")[int(i)].as_py(): int(counts[i]) for i in order[:10]},
    }


def _groups(index: pa.Table) -> dict[str, Any]:
    rows = index.select(["group", "split"]).filter(pc.is_valid(index["group"]))
    if not rows.num_rows:
        return {}
    each = rows.group_by("group").aggregate([("split", "count"), ("split", "count_distinct")])
    return {
        "groups": each.num_rows,
        "rows": rows.num_rows,
        "largest": int(pc.max(each["split_count"]).as_py()),
        "of_several_rows": int(pc.sum(pc.greater(each["split_count"], 1)).as_py()),
        "cut": int(pc.sum(pc.greater(each["split_count_distinct"], 1)).as_py()),
    }
