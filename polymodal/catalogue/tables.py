"""Tables on disk as blocks of plain cells: Parquet, CSV, TSV, JSONL, or several of them one after the other.

A block is at most `BLOCK` rows and can be read alone. Nothing here holds a table as Python objects.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from polymodal.types import BadInput

__all__ = ["BLOCK", "Row", "Table", "Tables", "find_tables", "parse_json"]

BLOCK = 256
# a Parquet file with larger row groups would be decoded again and again for each block of 256
_LARGEST_GROUP = 1024
_SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson")

Row = dict[str, Any]


class Table(Protocol):
    """One file of rows."""

    columns: tuple[str, ...]
    blocks: tuple[int, ...]

    def read(self, number: int, columns: Sequence[str], typed: Collection[str] = (), light: bool = False) -> list[Row]:
        """Block `number`: the cells of `columns` that the file has, as Python values.

        Args:
            number: of the block.
            columns: those wanted; one that the file lacks is not in the rows.
            typed: columns of which a file of text alone (CSV) gives numbers and truth values instead of their text.
            light: True or None in place of binary cells, where only their presence is asked for.
        """


class Tables:
    """Several files as one table; a column that a file lacks is None in its rows.

    Args:
        files: at least one.

    Raises:
        BadInput: an unreadable file, or no row in any of them.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._tables = [_open(file) for file in files]
        self.columns = tuple(dict.fromkeys(name for table in self._tables for name in table.columns))
        self._where = [(table, b) for table in self._tables for b in range(len(table.blocks))]
        self.blocks = tuple(rows for table in self._tables for rows in table.blocks)
        if not self.blocks:
            names = ", ".join(file.name for file in self.files)
            raise BadInput("table", "at least one row", f"no rows in {names}", "The catalogue is empty.")

    def read(self, number: int, columns: Sequence[str], typed: Collection[str] = (), light: bool = False) -> list[Row]:
        table, block = self._where[number]
        return table.read(block, columns, typed, light)

    def digest(self) -> str:
        """SHA-256 of the names and contents of the files."""
        total = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                total.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def find_tables(folder: Path, table: str) -> list[Path]:
    """The files that `table` names: a file, a folder or a pattern, relative to `folder`, sorted.

    Raises:
        BadInput: nothing there, or a file of a type that is not read.
    """
    where = folder / table
    if where.is_file():
        if where.suffix.lower() not in _SUFFIXES:
            raise BadInput("table", f"a file ending in {', '.join(_SUFFIXES)}", where.name)
        return [where]
    if where.is_dir():
        found = [file for file in where.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file()]
    elif any(mark in table for mark in "*?["):
        found = [file for file in folder.glob(table) if file.suffix.lower() in _SUFFIXES and file.is_file()]
    else:
        raise BadInput("table", f"a file, folder or pattern in {folder}", repr(table))
    if not found:
        raise BadInput("table", f"files ending in {', '.join(_SUFFIXES)}", f"none in {where}")
    return sorted(found)


def parse_json(text: str | bytes) -> Any:
    """JSON, with text that UTF-8 cannot hold (lone surrogates) replaced. Raises ValueError for the malformed."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    mark = b"\\ud" if isinstance(text, bytes) else "\\ud"
    return _clean(value) if mark in text.lower() else value  # type: ignore[operator]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value


def _open(file: Path) -> Table:
    suffix = file.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            return _open_parquet(file)
        if suffix in (".csv", ".tsv"):
            return _csv(file, "\t" if suffix == ".tsv" else ",")
        return _JsonLines(file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise BadInput(str(file), f"a readable {suffix[1:]} file", error) from None


def _sizes(rows: int) -> list[int]:
    return [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]


def _dicts(batch: pa.Table | pa.RecordBatch, names: Sequence[str], light: bool) -> list[Row]:
    columns = []
    for name in names:
        column = batch.column(batch.schema.get_field_index(name))
        if light and (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            full = pc.greater(pc.binary_length(column), 0)
            column = pc.if_else(full, True, pa.scalar(None, pa.bool_()))
        columns.append(column.to_pylist())
    return (
        [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
        if names
        else [{} for _ in range(batch.num_rows)]
    )


class _Parquet:
    """A Parquet file whose row groups are small enough to be read one at a time."""

    def __init__(self, file: Path) -> None:
        self._file = pq.ParquetFile(file, memory_map=True)
        self._lock = threading.Lock()
        self.columns = tuple(self._file.schema_arrow.names)
        sizes = [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        self._where = [(g, start) for g, rows in enumerate(sizes) for start in range(0, rows, BLOCK)]
        self.blocks = tuple(size for rows in sizes for size in _sizes(rows))

    def read(
        self,
        number: int,
        columns: Sequence[str],
        typed: Collection[str] = (),
        light: bool = False,
    ) -> list[Row]:
        group, start = self._where[number]
        names = [name for name in columns if name in self.columns]
        with self._lock:
            table = self._file.read_row_group(group, columns=names)
        return _dicts(table.slice(start, self.blocks[number]), names, light)


class _Spooled:
    """Rows rewritten once into an unnamed temporary file in batches of `BLOCK`, because the original can only be read
    from its start. The file goes away with the process."""

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        self.columns = tuple(schema.names)
        self._lock = threading.Lock()
        self.kinds: dict[str, Callable[[str], Any]] = {}
        sizes = []
        with tempfile.NamedTemporaryFile(prefix="polymodal-", suffix=".arrow") as spool:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_file(spool.name, schema, options=options) as writer:
                for batch in _rebatch(schema, batches):
                    writer.write_batch(batch)
                    sizes.append(batch.num_rows)
            self._reader = pa.ipc.open_file(pa.memory_map(spool.name))
        self.blocks = tuple(sizes)

    def read(self, number: int, columns: Sequence[str], typed: Collection[str] = (), light: bool = False) -> list[Row]:
        with self._lock:
            batch = self._reader.get_batch(number)
        rows = _dicts(batch, [name for name in columns if name in self.columns], light)
        for name in columns:
            convert = self.kinds.get(name) if name in typed else None
            if convert is not None:
                for row in rows:
                    row[name] = convert(row[name]) if row[name] else None
        return rows


def _rebatch(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `BLOCK`, the last one shorter."""
    rest = schema.empty_table()
    for batch in batches:
        rest = pa.concat_tables([rest, pa.Table.from_batches([batch], schema)])
        whole = rest.num_rows - rest.num_rows % BLOCK
        yield from (rest.slice(start, BLOCK).combine_chunks().to_batches()[0] for start in range(0, whole, BLOCK))
        rest = rest.slice(whole)
    if rest.num_rows:
        yield rest.combine_chunks().to_batches()[0]


def _open_parquet(file: Path) -> Table:
    stored = pq.ParquetFile(file, memory_map=True)
    groups = [stored.metadata.row_group(g).num_rows for g in range(stored.num_row_groups)]
    _unique(file, stored.schema_arrow.names)
    if max(groups, default=0) <= _LARGEST_GROUP:
        return _Parquet(file)
    # not kept as dictionaries: the spool's schema must hold for every batch
    return _Spooled(stored.schema_arrow, stored.iter_batches(BLOCK * 4))


def _unique(file: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise BadInput(str(file), "columns with different names", f"{twice[0]!r} twice")


def _csv(file: Path, delimiter: str) -> Table:
    """CSV with every cell read as text (so that id 007 stays 007); a column is numeric if all of its cells are."""
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    # a block must hold the longest row: a title may be 10 MB
    read = pa.csv.ReadOptions(block_size=1 << 25)
    with file.open("rb") as stream:
        head = stream.readline(1 << 20).decode("utf-8-sig", "strict") if file.stat().st_size else ""
    if not head.strip():
        raise BadInput(str(file), "a line of column names", "an empty file", "The catalogue is empty.")
    names = pa.csv.read_csv(pa.BufferReader(head.encode()), parse_options=parse).column_names
    _unique(file, names)
    schema = pa.schema([(name, pa.string()) for name in names])
    convert = pa.csv.ConvertOptions(column_types=schema, strings_can_be_null=False)
    seen = _Kinds(names)
    with pa.csv.open_csv(file, read, parse, convert) as reader:
        table = _Spooled(schema, seen.watch(reader))
    table.kinds = seen.kinds()
    return table


_TRUTH = {"true": True, "false": False}
_NUMBER = r"^\s*[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*$"
_NOT_FINITE = r"^\s*[-+]?(?i:nan|inf|infinity)\s*$"


class _Kinds:
    """Finds out, while batches of text go by, which columns are numbers or truth values throughout."""

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers, self._truths, self._filled = set(names), set(names), set[str]()

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for name in batch.schema.names:
                cells = batch.column(batch.schema.get_field_index(name))
                cells = cells.filter(pc.not_equal(cells, ""))
                if len(cells):
                    self._look(name, cells)
            yield batch

    def _look(self, name: str, cells: pa.Array) -> None:
        number = pc.match_substring_regex(cells, _NUMBER) if name in self._numbers else None
        if number is not None:
            odd = pc.match_substring_regex(cells, _NOT_FINITE)
            if pc.any(number).as_py():
                self._filled.add(name)
            if not pc.all(pc.or_(number, odd)).as_py():
                self._numbers.discard(name)
        if name in self._truths and not pc.all(pc.is_in(pc.utf8_lower(cells), pa.array(list(_TRUTH)))).as_py():
            self._truths.discard(name)

    def kinds(self) -> dict[str, Callable[[str], Any]]:
        numbers: dict[str, Callable[[str], Any]] = dict.fromkeys(self._numbers & self._filled, _number)
        return {**dict.fromkeys(self._truths, _truth), **numbers}


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text.strip()) else float(text)


def _truth(text: str) -> Any:
    return _TRUTH[text.lower()]


class _JsonLines:
    """One JSON object a line; a block is found again by the place where it starts."""

    def __init__(self, file: Path) -> None:
        self._path = file
        starts, sizes, count, place = [0], list[int](), 0, 0
        names: dict[str, None] = {}
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                place += len(line)
                row = self._parse(line, number)
                if row is None:
                    continue
                names.update(dict.fromkeys(row))
                count += 1
                if count == BLOCK:
                    starts, sizes, count = [*starts, place], [*sizes, count], 0
        self._starts = [*starts, place]
        self.blocks = tuple(sizes + ([count] if count else []))
        self.columns = tuple(names)

    def _parse(self, line: bytes, number: int) -> Row | None:
        text = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            return None
        where = f"{self._path}:{number}"
        try:
            row = parse_json(text)
        except ValueError as error:
            raise BadInput(where, "a JSON object a line", error, "Correct or delete this line.") from None
        if not isinstance(row, dict):
            raise BadInput(where, "a JSON object a line", type(row).__name__)
        return row

    def read(
        self,
        number: int,
        columns: Sequence[str],
        typed: Collection[str] = (),
        light: bool = False,
    ) -> list[Row]:
        start, end = self._starts[number], self._starts[number + 1]
        with self._path.open("rb") as stream:
            stream.seek(start)
            lines = stream.read(end - start).split(b"\n")
        first = number * BLOCK + 1
        rows = [row for at, line in enumerate(lines, first) if (row := self._parse(line, at)) is not None]
        return [{name: row[name] for name in columns if name in row} for row in rows]
