"""Rows of a result as a file, CSV or Parquet by its name, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from polymodal.config import nearest
from polymodal.types import BadInput

__all__ = ["check_out", "read_pairs", "write_rows"]


def check_out(out: Path | None) -> None:
    """Raises BadInput for a file that `write_rows` would not write: before anything is computed."""
    if out is None:
        return
    if out.is_dir():
        raise BadInput("--out", "a file", f"the folder {out}", "Name a file, such as found.csv.")
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise BadInput("--out", "a name that ends in .csv or .parquet", out.name)


def write_rows(out: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """The rows under the columns of `schema`; the file is written under another name and renamed when whole.

    Raises:
        BadInput: a name that says neither CSV nor Parquet.
    """
    check_out(out)
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if out.suffix.lower() == ".csv":
            pc.write_csv(table, part)
        else:
            pq.write_table(table, part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


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
