"""A catalogue written as it comes: Parquet parts of small row groups in a folder that appears when it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.catalogue.tables import BLOCK
from polymodal.types import BadInput

__all__ = ["Parts", "new_folder"]

_COLUMNS = dict[str, list[object]]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the place of `out` when the block ends without an error, and goes
    away when it does not.

    Raises:
        BadInput: `out` holds something already.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise BadInput("OUT", "a new or empty folder", out, "Delete it first, or choose another.")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class Parts:
    """Writes rows into `folder/part-000000.parquet` and so on; at most one row group is in memory.

    Args:
        folder: made here.
        schema: of the columns.
        rows_per_part: rows of a file, rounded up to row groups.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_part: int = 1 << 16) -> None:
        folder.mkdir()
        self._folder, self._schema, self._most = folder, schema, rows_per_part
        # binary cells are all different: a dictionary of them would only be built and thrown away
        self._words = [field.name for field in schema if not pa.types.is_large_binary(field.type)]
        self._writer: pq.ParquetWriter | None = None
        self._parts = self._inside = 0
        self.rows = 0

    def write(self, columns: _COLUMNS) -> None:
        """Adds one row group of at most `BLOCK` rows. Raises ValueError for more."""
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        if table.num_rows > BLOCK:
            raise ValueError(f"a row group of {table.num_rows} rows; readers want at most {BLOCK}")
        if not table.num_rows:
            return
        if self._writer is None:
            path = self._folder / f"part-{self._parts:06d}.parquet"
            self._writer = pq.ParquetWriter(
                path, self._schema, compression="zstd", use_dictionary=self._words, write_statistics=False
            )
        self._writer.write_table(table, row_group_size=BLOCK)
        self.rows, self._inside = self.rows + table.num_rows, self._inside + table.num_rows
        if self._inside >= self._most:
            self.close()

    def close(self) -> None:
        """Ends the part that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._parts, self._inside = self._parts + 1, 0

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
