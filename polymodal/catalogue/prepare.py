"""Prepare: decode a catalogue once into Parquet shards, restartable, the same bytes however often killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from polymodal.catalogue.codec import pack
from polymodal.catalogue.quarantine import Decodes, Quarantined, decode_record
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.schema import label_name
from polymodal.catalogue.shards import MANIFEST, Manifest, Shard, file_digest, shard_schema
from polymodal.types import BadInput, Record

__all__ = ["Prepared", "Progress", "prepare"]

PLAN, QUARANTINE = "plan.json", "quarantine.jsonl"
# rows done, rows in all; whatever it raises stops the run, which can be continued
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What a call of `prepare` left on disk.

    Args:
        folder: where the shards are.
        rows: in all shards.
        shards: files.
        skipped: of those, how many an earlier run had made.
        quarantined: lines of `quarantine.jsonl`.
        reasons: reason -> entries.
        left_out: modalities of the catalogue for which no decoder was given.
    """

    folder: Path
    rows: int
    shards: int
    skipped: int
    quarantined: int
    reasons: Mapping[str, int]
    left_out: tuple[str, ...]


def prepare(
    catalogue: Catalogue,
    modalities: Mapping[str, Decodes],
    out: Path,
    *,
    rows_per_shard: int = 2048,
    block: int = 256,
    workers: int = 1,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Prepared:
    """Decode `catalogue` into shards under `out`; continue where an earlier call of the same stopped.

    A shard is written under another name, flushed to disk and renamed; `manifest.json` comes last. The result is the
    same, byte for byte, with any number of workers and however often the run was interrupted.

    Args:
        catalogue: the raw catalogue.
        modalities: modality name -> decoder; names that the catalogue lacks are ignored.
        out: a new or empty folder, or one that an earlier call began.
        rows_per_shard: at least; a shard ends where a block of the raw catalogue ends.
        block: rows of a row group, what training reads at once.
        workers: threads that read and decode (decoders release the interpreter while they work).
        progress: called after every block with rows done and rows in all.
        settings: modality name -> how it decodes, as JSON; by default the decoder's class and its `config`.
        force: start over where `out` holds shards of another catalogue or other settings.

    Raises:
        BadInput: no decoder for any modality; `out` holds something else, or shards of another catalogue or of other
            settings.
    """
    for name, number in (("rows_per_shard", rows_per_shard), ("block", block), ("workers", workers)):
        if number < 1:
            raise BadInput(name, "at least 1", number)
    decoders = {name: modalities[name] for name in catalogue.modalities if name in modalities}
    if not decoders:
        have = ", ".join(catalogue.modalities)
        raise BadInput("modalities", f"a decoder for one of {have}", ", ".join(modalities) or "none")
    run = _Run(catalogue, decoders, out, rows_per_shard, block, settings or {})
    run.begin(force)
    skipped = run.decode(workers, progress)
    return run.finish(skipped)


class _Run:
    """One catalogue on its way into one folder."""

    def __init__(
        self,
        catalogue: Catalogue,
        decoders: Mapping[str, Decodes],
        out: Path,
        rows_per_shard: int,
        block: int,
        settings: Mapping[str, Any],
    ) -> None:
        self._catalogue, self._decoders, self._out, self._block = catalogue, decoders, out, block
        self._labels = [label_name(column) for column in catalogue.config.labels]
        self._schema = shard_schema(self._labels, list(decoders))
        self._settings = {name: settings.get(name) or _settings(one) for name, one in decoders.items()}
        self._ranges = _ranges(catalogue.blocks, rows_per_shard)
        self._plan = {
            "catalogue": catalogue.digest(),
            "decoders": hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode()).hexdigest(),
            "rows_per_shard": rows_per_shard,
            "block": block,
        }

    # -- beginning ------------------------------------------------------------------------------------------------

    def begin(self, force: bool) -> None:
        """Claims the folder, or finds that the same run began before."""
        self._out.mkdir(parents=True, exist_ok=True)
        plan = self._out / PLAN
        if plan.is_file() and not force:
            self._compare(plan)
        elif plan.is_file():
            self._clear()
        elif any(self._out.iterdir()):
            raise BadInput(str(self._out), "a new or empty folder", "other files", "Name another folder.")
        _write(plan, json.dumps(self._plan, indent=1).encode())

    def _compare(self, plan: Path) -> None:
        try:
            earlier = json.loads(plan.read_text("utf-8"))
        except ValueError:
            earlier = {}
        changed = [
            name for name, value in self._plan.items() if not isinstance(earlier, dict) or earlier.get(name) != value
        ]
        if changed:
            what = {"catalogue": "another state of the catalogue", "decoders": "other decoder settings"}
            raise BadInput(
                str(self._out),
                "shards of this catalogue and these settings",
                "shards of " + ", ".join(what.get(name, f"another {name}") for name in changed),
                "Name another folder, or start over with --force.",
            )

    def _clear(self) -> None:
        """Removes what `prepare` wrote and nothing else; the plan last, so that a kill in between can be repeated."""
        (self._out / MANIFEST).unlink(missing_ok=True)
        for pattern in ("shard-*.parquet", "shard-*.jsonl", "*.partial", QUARANTINE, PLAN):
            for file in self._out.glob(pattern):
                file.unlink()

    # -- shards ---------------------------------------------------------------------------------------------------

    def _path(self, shard: int) -> Path:
        return self._out / f"shard-{shard:06d}.parquet"

    def decode(self, workers: int, progress: Progress | None) -> int:
        """Writes the shards that are missing; returns how many were there."""
        done, skipped, total = 0, 0, len(self._catalogue)
        with ThreadPoolExecutor(workers, "prepare") as pool:
            for shard, blocks in enumerate(self._ranges):
                if self._path(shard).is_file():
                    skipped += 1
                    done += sum(self._catalogue.blocks[b] for b in blocks)
                    continue
                # closed at once when `progress` raises: a writer left open would write into the next run's file
                with closing(self._shard(shard, _ahead(pool, self._one, blocks, workers + 1))) as written:
                    for rows in written:
                        done += rows
                        if progress is not None:
                            progress(done, total)
        return skipped

    def _one(self, number: int) -> tuple[pa.Table, list[Quarantined]]:
        block = self._catalogue.read(number)
        bad = list(block.quarantined)
        records: list[Record] = []
        for record in block.records:
            decoded, errors = decode_record(record, self._decoders, self._catalogue.media_root)
            records.append(decoded)
            bad += errors
        splits = self._catalogue.index["split"].slice(block.start, len(records)).to_pylist()
        return self._table(records, splits), bad

    def _table(self, records: Sequence[Record], splits: Sequence[str]) -> pa.Table:
        columns: list[list[Any]] = [[r.id for r in records], list(splits), [r.group for r in records]]
        columns += [[r.labels.get(name) for r in records] for name in self._labels]
        columns += [[name in r.values for r in records] for name in self._decoders]
        columns += [[pack(r.values[name]) if name in r.values else None for r in records] for name in self._decoders]
        arrays = [pa.array(cells, kind) for cells, kind in zip(columns, self._schema.types, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _shard(self, shard: int, parts: Iterator[tuple[pa.Table, list[Quarantined]]]) -> Generator[int, None, None]:
        """Writes one shard; yields the rows of each block as it has been taken over."""
        path, partial = self._path(shard), self._path(shard).with_suffix(".partial")
        bad: list[Quarantined] = []
        rest = self._schema.empty_table()
        with pq.ParquetWriter(partial, self._schema, compression="zstd", use_dictionary=False) as writer:
            for table, errors in parts:
                bad += errors
                rest = pa.concat_tables([rest, table])
                while rest.num_rows >= self._block:
                    writer.write_table(rest.slice(0, self._block), row_group_size=self._block)
                    rest = rest.slice(self._block)
                yield table.num_rows
            if rest.num_rows:
                writer.write_table(rest, row_group_size=self._block)
        # the list first: a shard that is there has its list
        _write(path.with_suffix(".jsonl"), _lines(bad))
        _sync(partial)
        partial.rename(path)
        _sync(self._out)

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(self, skipped: int) -> Prepared:
        """Merges the lists, writes the manifest, and removes what only a continued run would need."""
        manifest = self._finished() or self._write_manifest()
        for file in self._out.glob("*.partial"):
            file.unlink()
        for shard in range(len(self._ranges)):
            self._path(shard).with_suffix(".jsonl").unlink(missing_ok=True)
        reasons: dict[str, int] = {}
        with (self._out / QUARANTINE).open(encoding="utf-8") as lines:
            for line in lines:
                reason = json.loads(line)["reason"]
                reasons[reason] = reasons.get(reason, 0) + 1
        left_out = tuple(name for name in self._catalogue.modalities if name not in self._decoders)
        rows = sum(shard.rows for shard in manifest.shards)
        return Prepared(
            self._out,
            rows,
            len(manifest.shards),
            skipped,
            manifest.quarantined,
            dict(sorted(reasons.items())),
            left_out,
        )

    def _finished(self) -> Manifest | None:
        return Manifest.read(self._out) if (self._out / MANIFEST).is_file() else None

    def _write_manifest(self) -> Manifest:
        merged = self._out / f"{QUARANTINE}.partial"
        count = len(self._catalogue.dropped)
        with merged.open("wb") as stream:
            stream.write(_lines(self._catalogue.dropped))
            for shard in range(len(self._ranges)):
                lines = self._path(shard).with_suffix(".jsonl").read_bytes()
                count += lines.count(b"\n")
                stream.write(lines)
        _sync(merged)
        merged.rename(self._out / QUARANTINE)
        manifest = Manifest(
            version=1,
            catalogue=str(self._plan["catalogue"]),
            decoders=str(self._plan["decoders"]),
            settings=self._settings,
            modalities={name: self._catalogue.modalities[name] for name in self._decoders},
            labels=tuple(self._labels),
            shards=tuple(self._describe(shard) for shard in range(len(self._ranges))),
            quarantined=count,
        )
        _write(self._out / MANIFEST, manifest.model_dump_json(indent=1).encode())
        return manifest

    def _describe(self, shard: int) -> Shard:
        path = self._path(shard)
        rows = sum(self._catalogue.blocks[b] for b in self._ranges[shard])
        return Shard(name=path.name, rows=rows, bytes=path.stat().st_size, sha256=file_digest(path))


def _ranges(blocks: Sequence[int], rows_per_shard: int) -> list[range]:
    """Consecutive blocks that make up each shard: as few as give `rows_per_shard` rows."""
    ranges, first, rows = [], 0, 0
    for number, size in enumerate(blocks):
        rows += size
        if rows >= rows_per_shard:
            ranges.append(range(first, number + 1))
            first, rows = number + 1, 0
    return [*ranges, range(first, len(blocks))] if rows else ranges


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[int], tuple[pa.Table, list[Quarantined]]], items: range, ahead: int
) -> Iterator[tuple[pa.Table, list[Quarantined]]]:
    """Results in order, with at most `ahead` of them under way, so that memory stays bounded."""
    waiting: deque[Future[tuple[pa.Table, list[Quarantined]]]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _settings(decoder: Decodes) -> dict[str, Any]:
    config = getattr(decoder, "config", None)
    fields = config.model_dump(mode="json") if isinstance(config, BaseModel) else {}
    return {"class": f"{type(decoder).__module__}.{type(decoder).__qualname__}", **fields}


def _lines(entries: Sequence[Quarantined]) -> bytes:
    return b"".join(json.dumps(e.to_json(), ensure_ascii=False).encode("utf-8", "replace") + b"\n" for e in entries)


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    _sync(partial)
    partial.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
