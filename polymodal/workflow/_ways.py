"""The ways of completing an attribute: the model's head, the nearest items, both; and the plain controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from polymodal.complete import Completer
from polymodal.tasks.completion import (
    Calibration,
    blend,
    codes_of,
    neighbour_values,
    neighbour_votes,
)
from polymodal.tasks.dedup import unit
from polymodal.tasks.items import Floats, Ints, Items
from polymodal.types import Record
from polymodal.workflow._attribute import Attribute, Hidden
from polymodal.workflow.items import embed_items
from polymodal.workflow.opened import Opened

__all__ = ["BOTH", "FREQUENT", "HEAD", "MEDIAN", "NEAREST", "Numbers", "Words", "queries"]

HEAD, NEAREST, BOTH = "head", "neighbours", "both"
FREQUENT, MEDIAN = "most frequent", "median"


@dataclass(frozen=True)
class Neighbours:
    """The items that know the attribute, by their whole vectors."""

    ids: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    k: int

    @classmethod
    def of(cls, items: Items, ids: Sequence[str], k: int) -> Neighbours:
        return cls(tuple(ids), unit(items.fused.rows(ids)), min(k, len(ids)))


def queries(opened: Opened, records: Sequence[Record]) -> tuple[npt.NDArray[np.float32], Ints]:
    """Unit vectors of the records that have one, and which those are."""
    kept = [record for record in records if record.values]
    if not kept:
        return np.zeros((0, opened.embedder.width), np.float32), np.zeros(0, np.int64)
    found = embed_items(replace(opened, progress=None), kept, len(kept))
    at = {record.id: row for row, record in enumerate(records)}
    return unit(found.fused.vectors), np.asarray([at[name] for name in found.ids], np.int64)


@dataclass
class Words:
    """Distributions over the known values of an attribute of words.

    Args:
        values: the most frequent first.
        calibrations: (way, what is hidden) -> of `calibrate`.
    """

    opened: Opened
    attribute: Attribute
    near: Neighbours
    values: list[str]
    completer: Completer | None
    calibrations: dict[tuple[str, Hidden], Calibration] = field(default_factory=dict)

    @property
    def ways(self) -> tuple[str, ...]:
        return (BOTH, HEAD, NEAREST) if self.completer is not None else (NEAREST,)

    def frequent(self, rows: int) -> Floats:
        """The control: the shares of the values among the items that know them, whatever the record says."""
        codes = codes_of([self.attribute.values[i] for i in self.near.ids], self.values)
        count = np.bincount(codes[codes >= 0], minlength=len(self.values)) + 0.5
        return np.tile(np.log(count / count.sum()), (rows, 1))

    def calibrate(self, records: Sequence[Record], truth: Sequence[str], how: Hidden) -> None:
        """Calibrate all ways on records in which the value was hidden."""
        codes = codes_of(truth, self.values)
        kept = codes >= 0
        raw = self._raw(records)[0]
        for way in raw:
            self.calibrations[way, how] = Calibration.fit(raw[way][kept], codes[kept])
        if self.completer is not None:
            both = self._blend(raw, how)
            self.calibrations[BOTH, how] = Calibration.fit(both[kept], codes[kept])

    def distributions(self, records: Sequence[Record], how: Hidden) -> tuple[dict[str, Floats], Ints]:
        """Way -> calibrated log-probabilities (n, V), NaN where a record says nothing else; neighbours (n, k)."""
        raw, rows = self._raw(records)
        out = {way: self.calibrations[way, how].apply(raw[way]) for way in raw}
        if self.completer is not None:
            out[BOTH] = self.calibrations[BOTH, how].apply(self._blend(raw, how))
        return {way: out[way] for way in self.ways}, rows

    def _blend(self, raw: Mapping[str, Floats], how: Hidden) -> Floats:
        return blend(*(self.calibrations[way, how].apply(raw[way]) for way in (HEAD, NEAREST)))

    def _raw(self, records: Sequence[Record]) -> tuple[dict[str, Floats], Ints]:
        vectors, at = queries(self.opened, records)
        votes = np.full((len(records), len(self.values)), np.nan)
        rows = np.full((len(records), self.near.k), -1, np.int64)
        codes = codes_of([self.attribute.values[i] for i in self.near.ids], self.values)
        common = np.flatnonzero(codes >= 0)
        if len(at):
            votes[at], found = neighbour_votes(
                vectors, self.near.vectors[common], codes[common], len(self.values), k=self.near.k
            )
            rows[at, : found.shape[1]] = np.where(found >= 0, common[found], -1)
        out = {NEAREST: votes}
        if self.completer is not None:
            out[HEAD] = self.completer.weigh(records, self.attribute.asked, self.values)
        return out, rows


@dataclass
class Numbers:
    """Answers for an attribute of numbers."""

    opened: Opened
    attribute: Attribute
    near: Neighbours
    completer: Completer | None

    @property
    def ways(self) -> tuple[str, ...]:
        return (HEAD, NEAREST) if self.completer is not None else (NEAREST,)

    @property
    def known(self) -> Floats:
        return np.asarray([self.attribute.values[i] for i in self.near.ids], np.float64)

    def answers(self, records: Sequence[Record]) -> tuple[dict[str, Floats], Ints]:
        """Way -> (n,) answers, NaN where a record says nothing else; and the neighbours (n, k)."""
        vectors, at = queries(self.opened, records)
        middle = np.full(len(records), np.nan)
        rows = np.full((len(records), self.near.k), -1, np.int64)
        if len(at):
            middle[at], rows[at] = neighbour_values(vectors, self.near.vectors, self.known, k=self.near.k)
        out = {NEAREST: middle}
        if self.completer is not None:
            said = [None if g is None else g.value for g in self.completer.guesses(records, self.attribute.asked)]
            out[HEAD] = np.asarray([value if isinstance(value, float) else np.nan for value in said], np.float64)
        return {way: out[way] for way in self.ways}, rows
