"""Results as files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from polymodal.types import BadInput

__all__ = ["check_table_path", "write_json", "write_table", "write_text"]

_ENDINGS = (".parquet", ".csv")


def check_table_path(field: str, path: Path) -> None:
    """Raises BadInput for a folder, or a name that ends neither in .parquet nor in .csv."""
    if path.is_dir() or path.suffix.lower() not in _ENDINGS:
        raise BadInput(field, f"a file that ends in {' or '.join(_ENDINGS)}", path)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Columns of equal length as Parquet or CSV, whichever the name ends in."""
    table = pa.table({name: list(values) for name, values in columns.items()})
    part = _aside(path)
    try:
        if path.suffix.lower() == ".csv":
            pacsv.write_csv(table, part)
        else:
            pq.write_table(table, part, compression="zstd")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_json(path: Path, content: Any) -> Path:
    """JSON with one space of indentation; NaN is refused."""
    return write_text(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """A text file in UTF-8."""
    part = _aside(path)
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _aside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")
