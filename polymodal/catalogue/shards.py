"""Shards: a prepared catalogue, decoded once into Parquet; and the manifest that says it is finished and whole."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.catalogue.codec import unpack
from polymodal.config import Config
from polymodal.types import BadInput, Record

__all__ = ["MANIFEST", "Manifest", "Shard", "Shards", "file_digest"]

MANIFEST = "manifest.json"
_VERSION = 1
_AGAIN = "Prepare the catalogue again (`--force` starts over)."


class Shard(Config):
    """One file of a prepared catalogue: its name, rows, bytes and SHA-256."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Manifest(Config):
    """What `manifest.json` says; it is written last, so its presence means that everything is there.

    Args:
        version: of this layout.
        catalogue: digest of the raw catalogue.
        decoders: digest of `settings`.
        settings: modality name -> how it was decoded.
        modalities: modality name -> kind.
        labels: names of the labels.
        shards: in order.
        quarantined: entries of `quarantine.jsonl`.
    """

    version: int
    catalogue: str
    decoders: str
    settings: dict[str, Any]
    modalities: dict[str, str]
    labels: tuple[str, ...]
    shards: tuple[Shard, ...]
    quarantined: int

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a prepared catalogue.

        Raises:
            BadInput: not prepared, not finished, or written by another version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            begun = (folder / "plan.json").is_file()
            hint = "`polymodal prepare` continues it." if begun else "Run `polymodal prepare` first."
            raise BadInput(
                str(folder), "a prepared catalogue", "an unfinished one" if begun else "no manifest.json", hint
            )
        try:
            data = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise BadInput(str(path), "a JSON object", error, _AGAIN) from None
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            version = data.get("version") if isinstance(data, dict) else None
            raise BadInput(f"{path}:version", str(_VERSION), version, _AGAIN)
        return cls.parse(data, MANIFEST)


class Shards:
    """A prepared catalogue. Satisfies `Rows`; its records hold decoded values, and a block is a row group of a shard.

    Args:
        folder: as `prepare` made it.
        checksums: also compare the SHA-256 of every shard, which reads all of them.

    Raises:
        BadInput: not finished, a shard missing or changed.
    """

    def __init__(self, folder: Path, checksums: bool = False) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self._local = threading.local()
        self._check(checksums)
        parts = [self._file(s).read(columns=self._light()) for s in range(len(self.manifest.shards))]
        self._index = pa.concat_tables(parts)
        self._places = [(s, g) for s in range(len(parts)) for g in range(self._file(s).num_row_groups)]
        self._blocks = tuple(self._file(s).metadata.row_group(g).num_rows for s, g in self._places)

    @classmethod
    def open(cls, folder: Path | str, checksums: bool = False) -> Shards:
        """The prepared catalogue in `folder`. Raises BadInput as the constructor does."""
        return cls(Path(folder), checksums)

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        # a spawned loader worker opens the files itself
        return Shards, (self.folder,)

    @property
    def modalities(self) -> Mapping[str, str]:
        return self.manifest.modalities

    @property
    def blocks(self) -> tuple[int, ...]:
        return self._blocks

    @property
    def index(self) -> pa.Table:
        return self._index

    @property
    def settings(self) -> Mapping[str, Any]:
        """Modality name -> how it was decoded; a model trained on these shards must decode queries the same way."""
        return self.manifest.settings

    def __len__(self) -> int:
        return int(self._index.num_rows)

    def block(self, number: int) -> list[Record]:
        shard, group = self._places[number]
        try:
            table = self._file(shard).read_row_group(group)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(self.manifest.shards[shard].name, "a readable shard", error, _AGAIN) from None
        columns = {name: table[name] for name in table.column_names}
        ids, groups = columns["id"].to_pylist(), columns["group"].to_pylist()
        labels = {name: columns[f"label_{name}"].to_pylist() for name in self.manifest.labels}
        values = {name: columns[f"value_{name}"] for name in self.manifest.modalities}
        return [
            Record(
                ids[row],
                {name: unpack(cell.as_py()) for name, cells in values.items() if (cell := cells[row]).is_valid},
                {name: texts[row] for name, texts in labels.items() if texts[row] is not None},
                groups[row],
            )
            for row in range(len(ids))
        ]

    def _light(self) -> list[str]:
        labels = [f"label_{name}" for name in self.manifest.labels]
        return ["id", "split", "group", *labels, *(f"has_{name}" for name in self.manifest.modalities)]

    def _file(self, shard: int) -> pq.ParquetFile:
        # one handle a thread: a Parquet reader is not made for several
        files: dict[int, pq.ParquetFile] = self._local.__dict__.setdefault("files", {})
        if shard not in files:
            if len(files) >= 64:
                files.pop(next(iter(files))).close()
            files[shard] = pq.ParquetFile(self.folder / self.manifest.shards[shard].name, memory_map=True)
        return files[shard]

    def _check(self, checksums: bool) -> None:
        if not self.manifest.shards:
            raise BadInput(str(self.folder), "at least one shard", "none", _AGAIN)
        for place, shard in enumerate(self.manifest.shards):
            path = self.folder / shard.name
            if Path(shard.name).name != shard.name:
                raise BadInput(f"{MANIFEST}.shards", "plain file names", repr(shard.name), _AGAIN)
            if not path.is_file():
                raise BadInput(str(path), "a shard", "no such file", _AGAIN)
            if path.stat().st_size != shard.bytes or (checksums and file_digest(path) != shard.sha256):
                raise BadInput(str(path), "the shard that the manifest describes", "another content", _AGAIN)
            try:
                stored, columns = self._file(place).metadata.num_rows, set(self._file(place).schema_arrow.names)
            except pa.ArrowInvalid as error:
                raise BadInput(str(path), "a readable shard", error, _AGAIN) from None
            if stored != shard.rows or not columns.issuperset(self._light()):
                raise BadInput(str(path), f"{shard.rows} rows of these modalities", f"{stored} rows", _AGAIN)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shard_schema(labels: Sequence[str], modalities: Sequence[str]) -> pa.Schema:
    """Columns of a shard: id, split, group, `label_*`, and per modality `has_*` and the packed value or null."""
    fields = [("id", pa.string()), ("split", pa.string()), ("group", pa.string())]
    fields += [(f"label_{name}", pa.string()) for name in labels]
    fields += [(f"has_{name}", pa.bool_()) for name in modalities]
    fields += [(f"value_{name}", pa.large_binary()) for name in modalities]
    return pa.schema(fields)
