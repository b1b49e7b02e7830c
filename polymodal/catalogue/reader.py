"""Catalogue: tables and media on disk as records, block by block, with the index in memory as an Arrow table."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from polymodal.catalogue.cells import CellReader, MediaRoot, as_name, is_filled
from polymodal.catalogue.guess import guess
from polymodal.catalogue.quarantine import Quarantined
from polymodal.catalogue.schema import CONFIG_NAME, CatalogueConfig, label_name
from polymodal.catalogue.tables import Row, Tables, find_tables
from polymodal.config import nearest
from polymodal.types import BadInput, Record

__all__ = ["Block", "Catalogue"]

_SPLITS = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "eval": "val",
    "testing": "test",
}


@dataclass(frozen=True)
class Block:
    """Some consecutive rows.

    Args:
        start: row of the first one, in the order of `Rows`.
        records: with sources.
        quarantined: what was left out of them.
        not_finite: (modality, attribute) -> NaN and infinite numbers dropped.
    """

    start: int
    records: list[Record]
    quarantined: list[Quarantined]
    not_finite: Counter[tuple[str, str]] = field(default_factory=Counter)


class Catalogue:
    """A catalogue as it lies on disk. Satisfies `Rows`; its records hold sources (paths, bytes, text, pairs, arrays).

    Rows without an id, and rows whose id an earlier row has, are left out of everything but `dropped`. In `index`,
    `has_<modality>` says that the cell is filled; a file that turns out bad is left out by `read` and quarantined.

    Args:
        config: with the folder in `config.path`.

    Raises:
        BadInput: no rows, a column that the table lacks (with the nearest name), a media root that is not there,
            no row with an id.
    """

    def __init__(self, config: CatalogueConfig) -> None:
        config.check()
        self.config = config
        folder = Path(config.path)
        self._tables = Tables(find_tables(folder, config.table))
        self._check_columns()
        root = folder / config.media_root
        if not root.is_dir():
            raise BadInput("media_root", "a folder", str(root))
        self._root = MediaRoot(root)
        self._typed = frozenset(
            column
            for name, source in config.modalities.items()
            if source.cell_form(name) in ("pairs", "numbers")
            for column in source.columns
        )
        self.dropped: list[Quarantined] = []
        self._quarantine: dict[Quarantined, None] = {}
        self._build()

    @classmethod
    def open(cls, path: Path | str) -> Catalogue:
        """The catalogue at `path`: a folder with `catalogue.toml`, a TOML file, or, with the columns guessed, a folder
        of tables or one table file.

        Raises:
            BadInput: nothing there, or what the constructor refuses.
        """
        where = Path(path)
        if where.is_dir() and (where / CONFIG_NAME).is_file():
            where = where / CONFIG_NAME
        if where.suffix.lower() == ".toml":
            return cls(CatalogueConfig.read(where))
        return cls(guess(where).config)

    def __reduce__(self) -> tuple[type[Catalogue], tuple[CatalogueConfig]]:
        # a spawned loader worker opens the files itself
        return Catalogue, (self.config,)

    # -- Rows -----------------------------------------------------------------------------------------------------

    @property
    def modalities(self) -> Mapping[str, str]:
        return {name: source.kind for name, source in self.config.modalities.items()}

    @property
    def blocks(self) -> tuple[int, ...]:
        return self._blocks

    @property
    def index(self) -> pa.Table:
        return self._index

    def block(self, number: int) -> list[Record]:
        block = self.read(number)
        self._quarantine.update(dict.fromkeys(block.quarantined))
        return block.records

    def __len__(self) -> int:
        return int(self._index.num_rows)

    # -- more than Rows -------------------------------------------------------------------------------------------

    @property
    def media_root(self) -> Path:
        """The folder that no media path may leave, links resolved."""
        return self._root.path

    @property
    def quarantine(self) -> list[Quarantined]:
        """Everything left out so far: rows dropped, and bad cells of the blocks that `block` has read, each once."""
        return [*self.dropped, *self._quarantine]

    def read(self, number: int, most: int | None = None) -> Block:
        """Block `number`, or its first `most` rows, with what was left out of it; remembers nothing, so that threads
        may share the catalogue."""
        stored, skipped, start = self._places[number]
        rows = self._tables.read(stored, self._columns, self._typed)
        cells = CellReader(self.config, self._root)
        kept = [row for place, row in enumerate(rows) if place not in skipped][:most]
        ids = self._index["id"].slice(start, len(kept)).to_pylist()
        records = [self._record(row_id, row, cells) for row_id, row in zip(ids, kept, strict=True)]
        return Block(start, records, cells.quarantined, cells.not_finite)

    def __iter__(self) -> Iterator[Record]:
        for number in range(len(self.blocks)):
            yield from self.read(number).records

    def digest(self) -> str:
        """SHA-256 of the tables' content and of the mapping. Media files count by their paths, not by their content."""
        mapping = self.config.replace(path=".").model_dump_json()
        return hashlib.sha256(f"{mapping}\n{self._tables.digest()}".encode()).hexdigest()

    # -- building -------------------------------------------------------------------------------------------------

    def _check_columns(self) -> None:
        known = self._tables.columns
        for role, columns in self.config.roles().items():
            for column in columns:
                if column not in known:
                    raise BadInput(role, "a column of the table", repr(column), nearest(column, known))
        self._columns = [name for name in known if any(name in columns for columns in self.config.roles().values())]

    def _record(self, row_id: str, row: Row, cells: CellReader) -> Record:
        labels = {label_name(c): text for c in self.config.labels if (text := as_name(row.get(c)))}
        group = as_name(row.get(self.config.group)) if self.config.group else ""
        return Record(row_id, cells.values(row_id, row), labels, group or None)

    def _schema(self) -> pa.Schema:
        fields = [("id", pa.string()), ("split", pa.string()), ("group", pa.string())]
        fields += [(f"label_{label_name(column)}", pa.string()) for column in self.config.labels]
        fields += [(f"has_{name}", pa.bool_()) for name in self.config.modalities]
        return pa.schema(fields)

    def _build(self) -> None:
        """Reads every row once, without inline media, for the index and for the rows to leave out."""
        parts, seen = [], 0
        for number, size in enumerate(self._tables.blocks):
            parts.append(self._lines(self._tables.read(number, self._columns, self._typed, light=True), seen))
            seen += size
        whole = pa.concat_tables(parts)
        keep = self._first_of_each(whole["id"])
        self._places: list[tuple[int, frozenset[int], int]] = []
        place = kept = 0
        for number, size in enumerate(self._tables.blocks):
            wanted = keep[place : place + size]
            if wanted.any():
                self._places.append((number, frozenset(np.flatnonzero(~wanted).tolist()), kept))
            place, kept = place + size, kept + int(wanted.sum())
        if not self._places:
            raise BadInput("id", "at least one row with an id", f"none in column {self.config.id!r}")
        starts = [start for _, _, start in self._places] + [kept]
        self._blocks = tuple(int(n) for n in np.diff(starts))
        self._index: pa.Table = whole.filter(pa.array(keep)).combine_chunks()

    def _lines(self, rows: list[Row], first: int) -> pa.Table:
        config = self.config
        ids = [as_name(row.get(config.id)) or None for row in rows] if config.id else range(first, first + len(rows))
        columns: list[list[object]] = [
            [None if name is None else str(name) for name in ids],
            [_split(row.get(config.split)) if config.split else "" for row in rows],
            [(as_name(row.get(config.group)) if config.group else "") or None for row in rows],
        ]
        columns += [[as_name(row.get(label)) or None for row in rows] for label in config.labels]
        columns += [
            [any(is_filled(row.get(column)) for column in source.columns) for row in rows]
            for source in config.modalities.values()
        ]
        schema = self._schema()
        arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _first_of_each(self, ids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """True for the first row of each id; the others, and rows without one, are reported in `dropped`."""
        codes = pc.fill_null(ids.combine_chunks().dictionary_encode().indices, -1).to_numpy()
        values, first = np.unique(codes, return_index=True)
        keep = np.zeros(len(codes), np.bool_)
        keep[first[values >= 0]] = True
        for row in np.flatnonzero(~keep).tolist():
            name = ids[row].as_py()
            detail = f"row {row}, counted from 0"
            if name is None:
                self.dropped.append(Quarantined("", "", self.config.id, "no id", detail))
            else:
                earlier = int(first[np.searchsorted(values, codes[row])])
                detail += f"; row {earlier} has the same id and is kept"
                self.dropped.append(Quarantined(name, "", self.config.id, "duplicate id", detail))
        return keep


def _split(cell: object) -> str:
    name = as_name(cell).lower()
    return _SPLITS.get(name, name)
