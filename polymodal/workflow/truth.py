"""Known faults: a table of two ids a row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from polymodal.config import nearest
from polymodal.types import BadInput

__all__ = ["read_pairs"]


def read_pairs(path: Path, column: str) -> list[tuple[str, str]]:
    """Two ids a row of a table with the columns `id` and `column`; rows where the second is empty are left out.

    Raises:
        BadInput: no such file, not CSV or Parquet, a column that it lacks, no row.
    """
    if not path.is_file():
        raise BadInput("--truth", "a CSV or Parquet file", f"no file {path}")
    try:
        table = pq.read_table(path) if path.suffix.lower() == ".parquet" else pc.read_csv(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput("--truth", "a CSV or Parquet file", f"{path}: {error}") from None
    for name in ("id", column):
        if name not in table.column_names:
            raise BadInput(
                "--truth", f"a column {name!r}", ", ".join(table.column_names), nearest(name, table.column_names)
            )
    pairs = zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)
    found = [(str(a), str(b)) for a, b in pairs if a not in (None, "") and b not in (None, "")]
    if not found:
        raise BadInput("--truth", f"rows with a {column}", f"none in {path}")
    return found
