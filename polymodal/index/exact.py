"""The exact index: all vectors in memory, every score computed. The other kinds are measured against it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.index._where import Condition, Facet, Value, flatten, summarise
from polymodal.index.base import (
    Index,
    Row,
    Vectors,
    damaged,
    inside,
    rank,
    read_manifest,
    sha256_of,
    slack,
    write_manifest,
)
from polymodal.types import BadInput, Hit

__all__ = ["ExactIndex"]

# scores held at once while searching: 64 MB
_SCORES = 16_000_000
_MANY = 1 / 4


class _Postings:
    """The rows of one attribute: by value, and all its numbers."""

    def __init__(self, rows: Iterable[tuple[int, tuple[Value, ...]]]) -> None:
        by_value: dict[Value, list[int]] = {}
        for row, values in rows:
            for value in values:
                by_value.setdefault(value, []).append(row)
        self._by_value = {value: np.array(found, np.int64) for value, found in by_value.items()}
        pairs = [(value, row) for value, found in by_value.items() if not isinstance(value, str) for row in found]
        self._numbers = np.array([value for value, _ in pairs], np.float64)
        self._rows = np.array([row for _, row in pairs], np.int64)

    def rows(self, condition: Condition) -> npt.NDArray[np.int64]:
        if not condition.is_range:
            found = [self._by_value[value] for value in condition.values if value in self._by_value]
            return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        low = -np.inf if condition.low is None else condition.low
        high = np.inf if condition.high is None else condition.high
        return np.unique(self._rows[(self._numbers >= low) & (self._numbers <= high)])


class ExactIndex(Index):
    """Brute force in float32 with NumPy: exact, and fast up to about 100,000 vectors.

    Memory: n x E x 4 bytes, and 64 MB while searching. It lives in memory: what `add` and `remove` change is on the
    disk after `save`.
    """

    kind = "exact"

    def __init__(self, model: str, width: int) -> None:
        super().__init__(model, width)
        self._ids: list[str] = []
        self._at: dict[str, int] = {}
        self._shown: list[dict[str, Any]] = []
        self._buffer: Vectors = np.zeros((0, width), np.float32)
        self._postings: dict[str, _Postings] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def _vectors(self) -> Vectors:
        return self._buffer[: len(self._ids)]

    def _put(self, rows: Sequence[Row], vectors: Vectors) -> None:
        fresh = sum(row.id not in self._at for row in rows)
        need = len(self._ids) + fresh
        if need > len(self._buffer):
            grown = np.empty((max(need, len(self._buffer) * 3 // 2), self.width), np.float32)
            grown[: len(self._ids)] = self._vectors
            self._buffer = grown
        for row, vector in zip(rows, vectors, strict=True):
            at = self._at.get(row.id)
            if at is None:
                at = self._at[row.id] = len(self._ids)
                self._ids.append(row.id)
                self._shown.append(row.shown)
            self._shown[at] = row.shown
            self._buffer[at] = vector
        self._postings = {}

    def _drop(self, ids: Sequence[str]) -> None:
        gone = {self._at[name] for name in ids}
        keep = [row for row in range(len(self._ids)) if row not in gone]
        self._buffer = self._vectors[keep]
        self._ids = [self._ids[row] for row in keep]
        self._shown = [self._shown[row] for row in keep]
        self._at = {name: row for row, name in enumerate(self._ids)}
        self._postings = {}

    def known(self, ids: Iterable[str]) -> set[str]:
        return {name for name in ids if name in self._at}

    def _vectors_of(self, ids: Sequence[str]) -> Vectors:
        return self._vectors[[self._at[name] for name in ids]]

    def _attributes_of(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        return [dict(self._shown[self._at[name]]) for name in ids]

    def facets(self) -> Mapping[str, Facet]:
        if self._facets is None:
            self._facets = summarise((flatten(shown) for shown in self._shown), self._schema)
        return self._facets

    def _find(self, vectors: Vectors, k: int, conditions: tuple[Condition, ...]) -> list[list[Hit]]:
        rows = self._matching(conditions)
        if rows is not None and len(rows) == 0:
            return [[] for _ in vectors]
        # few rows are copied out; of many, all scores are computed and the others dropped, which copies less
        gathered = rows is not None and len(rows) < len(self._ids) * _MANY
        corpus = self._vectors[rows] if gathered else self._vectors
        step = max(1, _SCORES // len(corpus))
        out: list[list[Hit]] = []
        for start in range(0, len(vectors), step):
            block = vectors[start : start + step]
            scores = block @ corpus.T
            if rows is not None and not gathered:
                scores = scores[:, rows]
            out.extend(self._top(query, line, rows, k) for query, line in zip(block, scores, strict=True))
        return out

    def _matching(self, conditions: tuple[Condition, ...]) -> npt.NDArray[np.int64] | None:
        """Rows that satisfy all conditions, ascending; None for all rows."""
        rows: npt.NDArray[np.int64] | None = None
        for condition in conditions:
            name = condition.attribute
            if name not in self._postings:
                have = ((row, flatten({name: s[name]})[name]) for row, s in enumerate(self._shown) if name in s)
                self._postings[name] = _Postings(have)
            found = self._postings[name].rows(condition)
            rows = found if rows is None else np.intersect1d(rows, found, assume_unique=True)
        return rows

    def _top(self, query: Vectors, scores: Vectors, rows: npt.NDArray[np.int64] | None, k: int) -> list[Hit]:
        if k < len(scores):
            kth = np.partition(scores, len(scores) - k)[len(scores) - k]
            # everything that could tie with the k-th, so that the id decides and not the position
            chosen = np.flatnonzero(scores >= kth - slack(query) * max(1.0, abs(float(kth))))
        else:
            chosen = np.arange(len(scores))
        at = chosen if rows is None else rows[chosen]
        ranked = rank(query, [self._ids[row] for row in at], self._vectors[at], k)
        return [Hit(self._ids[at[i]], score, dict(self._shown[at[i]])) for i, score in ranked]

    def save(self, directory: Path) -> None:
        """Write `exact-<checksum>.parquet`, then the manifest that names it; the previous file goes last."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / f"exact.{os.getpid()}.part"
        with part.open("wb") as out:
            pq.write_table(self._table(), out, compression="zstd")
            out.flush()
            os.fsync(out.fileno())
        digest = sha256_of(part)
        name = f"exact-{digest[:16]}.parquet"
        part.replace(directory / name)
        write_manifest(directory, self, {"rows": len(self), "file": name, "sha256": digest})
        for old in directory.glob("exact-*.parquet"):
            if old.name != name:
                old.unlink()

    def _table(self) -> pa.Table:
        flat = pa.array(np.ascontiguousarray(self._vectors).reshape(-1), pa.float32())
        return pa.table(
            {
                "id": pa.array(self._ids, pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(flat, self.width),
                "attributes": pa.array([json.dumps(s, ensure_ascii=False) for s in self._shown], pa.string()),
            }
        )

    @classmethod
    def open(cls, directory: Path, model: str | None = None) -> Self:
        """As `Index.open`; the file's checksum is compared before anything is read from it."""
        directory = Path(directory)
        manifest = read_manifest(directory, cls.kind, model)
        path = inside(directory, manifest.get("file"))
        if not path.is_file():
            raise BadInput(str(path), "the vectors of the index", "no such file", "Rebuild the index.")
        if sha256_of(path) != manifest.get("sha256"):
            raise damaged(path, "a file with another checksum")
        table = pq.read_table(path)
        index = cls(manifest["model"], manifest["width"])
        index._schema = dict(manifest["attributes"])
        index._ids = table["id"].to_pylist()
        index._at = {name: row for row, name in enumerate(index._ids)}
        index._shown = [json.loads(text) for text in table["attributes"].to_pylist()]
        vectors = table["vector"].combine_chunks()
        index._buffer = np.array(vectors.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, index.width)
        return index
