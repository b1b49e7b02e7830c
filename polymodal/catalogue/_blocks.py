"""The blocks of a catalogue that were read last."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.catalogue.rows import Rows
from polymodal.catalogue.sampler import locate
from polymodal.types import Record

__all__ = ["Blocks"]

Ints = npt.NDArray[np.int64]


class Blocks:
    """The blocks read last, up to `limit` bytes, and always the last one."""

    def __init__(self, rows: Rows, limit: int) -> None:
        self._rows, self._limit, self._bytes = rows, limit, 0
        self._kept: OrderedDict[int, tuple[list[Record], int]] = OrderedDict()
        self._warned = False

    def records(self, rows: Ints) -> list[Record]:
        """The records of `rows`, in that order; each block is read at most once, in the order of the file."""
        block, place = locate(self._rows.blocks, rows)
        found: dict[int, Record] = {}
        needed = np.unique(block)
        for number in needed.tolist():
            records = self._read(number)
            for at in np.flatnonzero(block == number).tolist():
                found[at] = records[place[at]]
        if len(self._kept) < len(needed) and not self._warned:
            self._warned = True
            warnings.warn(
                f"the {len(needed)} blocks of one batch do not fit into cache_bytes={self._limit}: every batch "
                "reads them anew. Give more memory, or prepare with smaller blocks.",
                RuntimeWarning,
                stacklevel=2,
            )
        return [found[at] for at in range(len(rows))]

    def _read(self, number: int) -> list[Record]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number][0]
        records = self._rows.block(number)
        weight = sum(_weight(value) for record in records for value in record.values.values())
        self._kept[number] = records, weight
        self._bytes += weight
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return records


def _weight(value: Any) -> int:
    """About how many bytes a value holds."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes) + 128
    if isinstance(value, (list, tuple)):
        return 64 + sum(_weight(part) for part in value)
    if isinstance(value, Mapping):
        return 64 + sum(_weight(part) for item in value.items() for part in item)
    return 64 + len(value) if isinstance(value, (str, bytes)) else 256
