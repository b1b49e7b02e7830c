"""Results as files and folders that are there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from polymodal.types import BadInput

__all__ = [
    "aside",
    "check_table_path",
    "folder_aside",
    "write_bytes",
    "write_json",
    "write_rows",
    "write_table",
    "write_text",
]

_ENDINGS = (".csv", ".parquet")


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Another name for a file to be written under; it is renamed when the block ends without an error."""
    part = _other_name(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """An empty folder to write into; it replaces `path` when the block ends without an error."""
    part = _other_name(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_table_path(field: str, path: Path | None) -> None:
    """Raises BadInput for a folder, or a name that ends neither in .csv nor in .parquet: before anything is done."""
    if path is None:
        return
    if path.is_dir():
        raise BadInput(field, "a file", f"the folder {path}", "Name a file, such as found.csv.")
    if path.suffix.lower() not in _ENDINGS:
        raise BadInput(field, f"a name that ends in {' or '.join(_ENDINGS)}", path.name)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Columns of equal length as CSV or Parquet, whichever the name ends in."""
    return _write(path, pa.table({name: list(values) for name, values in columns.items()}))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> Path:
    """The rows under the columns of `schema`, as `write_table`."""
    return _write(path, pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema))


def _write(path: Path, table: pa.Table) -> Path:
    check_table_path("--out", path)
    with aside(path) as part:
        if path.suffix.lower() == ".csv":
            pacsv.write_csv(table, part)
        else:
            pq.write_table(table, part, compression="zstd")
    return path


def write_json(path: Path, content: Any) -> Path:
    """JSON with one space of indentation; NaN is refused."""
    return write_text(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """A text file in UTF-8."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> Path:
    """A file of these bytes."""
    with aside(path) as part:
        part.write_bytes(content)
    return path


def _other_name(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")
