"""Rows: what the raw catalogue and the prepared shards have in common, so that training reads either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from polymodal.types import Record

__all__ = ["Rows"]


class Rows(Protocol):
    """Random access by block, in the order of the file: a block is what is read at once (a Parquet row group)."""

    @property
    def modalities(self) -> Mapping[str, str]:
        """Modality name -> kind."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Rows in each block; row r of the catalogue is at `r - sum(blocks[:b])` of its block b."""

    @property
    def index(self) -> pa.Table:
        """One line a row, without media: `id`, `split` ("" if none), `group` (null if none), one string column
        `label_<name>` per label (null if none), one bool column `has_<modality>` per modality."""

    def block(self, number: int) -> list[Record]:
        """The records of one block. A cell that cannot be read is left out of its record and quarantined."""

    def __len__(self) -> int: ...
