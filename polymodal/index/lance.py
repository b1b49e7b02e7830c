"""The index on disk: a Lance table with filters in SQL, exact while it is small and an HNSW graph when it is not."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from polymodal.index._where import Condition, Facet, flatten, summarise
from polymodal.index.base import Index, Row, Vectors, damaged, inside, rank, read_manifest, slack, write_manifest
from polymodal.types import Hit, MissingExtra

__all__ = ["LanceIndex"]

_BATCH = 500
_MARGIN = 16
# (ef, refine factor) from fast to thorough; the first that finds nearly everything is kept
_EFFORTS = ((100, 1), (100, 2), (200, 4), (400, 8))
_GOOD_RECALL = 0.99
_RECALL_QUERIES = 64


def _lancedb() -> Any:
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("lancedb", "lance") from None
    return lancedb


def _text(value: str) -> str:
    """A string literal of SQL: quotes are doubled, nothing else is special."""
    return "'" + value.replace("'", "''") + "'"


def _number(value: float) -> str:
    return f"CAST('{float(value)!r}' AS DOUBLE)"


class LanceIndex(Index):
    """A LanceDB table: durable, filtered by SQL, written by `merge_insert`.

    Each item is a row `id, vector, attributes (JSON), texts`, and one column of numbers for every attribute that has
    numbers. `texts` holds "<attribute's number>:<value>", so that any number of attributes needs no column of its own.

    Up to `flat_below` rows (after the filter) every score is computed: same hits as the exact index. Above, `save`
    builds IVF_HNSW_SQ, measures its recall@10 against all scores on stored vectors, raises the effort until 0.99 is
    reached, and writes both into the manifest.

    Args:
        flat_below: rows from which the graph is used.

    What `add` and `remove` change in an opened index is on the disk at once; new attribute names too. Another process
    that has it open sees new rows within a second, new attribute names when it opens it again.
    Lance is threaded: start workers with spawn, not fork.

    Source: LanceDB documentation, "Vector indexes" and "Filtering".
    """

    kind = "lance"

    def __init__(self, model: str, width: int, flat_below: int = 20_000) -> None:
        super().__init__(model, width)
        _lancedb()
        self.flat_below = flat_below
        self._numbers: dict[str, int] = {}
        self._graph: dict[str, Any] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = tempfile.TemporaryDirectory(prefix="polymodal-")
        self._directory, self._name = Path(self._temporary.name), "items"
        columns = [("id", pa.string()), ("vector", pa.list_(pa.float32(), width))]
        columns += [("attributes", pa.string()), ("texts", pa.list_(pa.string()))]
        self._table = self._connect(self._directory).create_table(self._name, schema=pa.schema(columns))

    @staticmethod
    def _connect(directory: Path) -> Any:
        return _lancedb().connect(directory, read_consistency_interval=timedelta(seconds=1))

    def __len__(self) -> int:
        return int(self._table.count_rows())

    # -- writing ---------------------------------------------------------------------------------------------------

    def _put(self, rows: Sequence[Row], vectors: Vectors) -> None:
        before = dict(self._numbers)
        for row in rows:
            for name, values in row.flat.items():
                count = sum(not isinstance(value, str) for value in values)
                self._numbers[name] = max(self._numbers.get(name, 0), count)
        if before != self._numbers and self._temporary is None:
            # first what a column means, then the column: killed in between, the next opening adds it
            self._write_manifest()
        self._add_columns()
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(self._arrow(rows, vectors))

    def _number_columns(self) -> dict[str, str]:
        """Attribute -> its column of numbers. The order of `_numbers` never changes, so neither do the names."""
        return {name: f"n{place}" for place, (name, count) in enumerate(self._numbers.items()) if count}

    def _add_columns(self) -> None:
        have = set(self._table.schema.names)
        missing = [column for column in self._number_columns().values() if column not in have]
        if missing:
            self._table.add_columns(pa.schema([pa.field(column, pa.list_(pa.float64())) for column in missing]))

    def _arrow(self, rows: Sequence[Row], vectors: Vectors) -> pa.Table:
        place = {name: at for at, name in enumerate(self._numbers)}
        data: dict[str, Any] = {
            "id": [row.id for row in rows],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32()), self.width
            ),
            "attributes": [json.dumps(row.shown, ensure_ascii=False) for row in rows],
            "texts": [
                [f"{place[name]}:{v}" for name, values in row.flat.items() for v in values if isinstance(v, str)]
                for row in rows
            ],
        }
        for name, column in self._number_columns().items():
            data[column] = [[v for v in row.flat.get(name, ()) if not isinstance(v, str)] for row in rows]
        schema = self._table.schema
        return pa.table({name: data[name] for name in schema.names}, schema=schema)

    def _drop(self, ids: Sequence[str]) -> None:
        for some in _batches(ids):
            self._table.delete(_among(some))

    # -- reading ---------------------------------------------------------------------------------------------------

    def _fetch(self, ids: Sequence[str], columns: list[str]) -> Iterator[dict[str, Any]]:
        for some in _batches(ids):
            query = self._table.search().where(_among(some)).select(columns).limit(len(some))
            yield from query.to_arrow().to_pylist()

    def known(self, ids: Iterable[str]) -> set[str]:
        return {row["id"] for row in self._fetch([name for name in ids if _encodable(name)], ["id"])}

    def _vectors_of(self, ids: Sequence[str]) -> Vectors:
        found = {row["id"]: row["vector"] for row in self._fetch(ids, ["id", "vector"])}
        return np.array([found[name] for name in ids], np.float32).reshape(len(ids), self.width)

    def _attributes_of(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        found = {row["id"]: json.loads(row["attributes"]) for row in self._fetch(ids, ["id", "attributes"])}
        return [found[name] for name in ids]

    def facets(self) -> Mapping[str, Facet]:
        if self._facets is None:
            batches = self._table.search().select(["attributes"]).limit(max(1, len(self))).to_batches()
            texts = (text for batch in batches for text in batch["attributes"].to_pylist())
            self._facets = summarise((flatten(json.loads(text)) for text in texts), self._schema)
        return self._facets

    def _sql(self, conditions: tuple[Condition, ...]) -> str:
        return " AND ".join(f"({self._condition(one)})" for one in conditions)

    def _condition(self, one: Condition) -> str:
        column = self._number_columns().get(one.attribute)
        parts = []
        if one.is_range:
            low = f" >= {_number(one.low)}" if one.low is not None else None
            high = f" <= {_number(one.high)}" if one.high is not None else None
            for at in range(1, self._numbers[one.attribute] + 1):
                element = f"array_element({column}, {at})"
                ends = [element + end for end in (low, high) if end is not None] or [f"{element} IS NOT NULL"]
                parts.append(f"({' AND '.join(ends)})")
        else:
            place = list(self._numbers).index(one.attribute)
            texts = [_text(f"{place}:{value}") for value in one.values if isinstance(value, str)]
            numbers = [_number(value) for value in one.values if not isinstance(value, str)]
            parts += [f"array_has_any(texts, [{', '.join(texts)}])"] if texts else []
            parts += [f"array_has({column}, {value})" for value in numbers] if column else []
        return " OR ".join(parts) or "false"

    def _find(self, vectors: Vectors, k: int, conditions: tuple[Condition, ...]) -> list[list[Hit]]:
        sql = self._sql(conditions)
        left = int(self._table.count_rows(sql)) if sql else len(self)
        if not left:
            return [[] for _ in vectors]
        if left < self.flat_below or self._graph is None:
            return [self._flat(query, k, sql, left) for query in vectors]
        graph = self._graph
        return [self._graph_search(query, k, sql, graph["ef"], graph["refine"]) for query in vectors]

    def _flat(self, query: Vectors, k: int, sql: str, left: int) -> list[Hit]:
        limit = k + _MARGIN
        while True:
            found = self._query(query, sql, limit).bypass_vector_index().to_arrow()
            scores = 1.0 - found["_distance"].to_numpy()
            if limit >= left or scores[-1] < scores[k - 1] - slack(query):
                return _hits(query, found, k)
            # more items tie with the k-th than were fetched: all of them, so that the id decides
            limit *= 4

    def _graph_search(self, query: Vectors, k: int, sql: str, ef: int, refine: int) -> list[Hit]:
        search = self._query(query, sql, k + _MARGIN).ef(max(ef, k + _MARGIN)).nprobes(20)
        return _hits(query, (search.refine_factor(refine) if refine > 1 else search).to_arrow(), k)

    def _query(self, query: Vectors, sql: str, limit: int) -> Any:
        search = self._table.search(query, vector_column_name="vector").distance_type("dot").limit(limit)
        search = search.select(["id", "vector", "attributes", "_distance"])
        return search.where(sql, prefilter=True) if sql else search

    # -- keeping ---------------------------------------------------------------------------------------------------

    def save(self, directory: Path) -> None:
        """Compact, build the graph where there are enough rows, and commit.

        An index that was created in memory moves to `directory` and goes on there.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._table.optimize()
        self._build_graph()
        if directory.resolve() == self._directory.resolve():
            self._write_manifest()
            return
        taken = [int(path.stem.partition("-")[2]) for path in directory.glob("items-*.lance")]
        name = f"items-{max(taken, default=0) + 1}"
        part = directory / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self._directory / f"{self._name}.lance", part)
        part.rename(directory / f"{name}.lance")
        write_manifest(directory, self, self._facts(name))
        for old in directory.glob("items-*.lance"):
            if old.stem != name:
                shutil.rmtree(old)
        if self._temporary is not None:
            self._directory, self._name = directory, name
            self._table = self._connect(directory).open_table(name)
            self._temporary.cleanup()
            self._temporary = None

    def _facts(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = {"rows": len(self), "table": name, "numbers": list(self._numbers.items())}
        return {**facts, "flat_below": self.flat_below, "graph": self._graph}

    def _write_manifest(self) -> None:
        write_manifest(self._directory, self, self._facts(self._name))

    def _build_graph(self) -> None:
        rows = len(self)
        if rows < self.flat_below:
            self._graph = None
            return
        from lancedb.index import BTree, HnswSq, LabelList

        partitions = max(1, rows // 1_000_000)
        self._table.create_index("vector", config=HnswSq(distance_type="dot", num_partitions=partitions))
        self._table.create_index("texts", config=LabelList())
        self._table.create_index("id", config=BTree())
        at = np.linspace(0, rows - 1, min(_RECALL_QUERIES, rows)).astype(int).tolist()
        taken = self._table.take_offsets(at).select(["vector"]).to_arrow()["vector"]
        sample = np.array(taken.to_pylist(), np.float32)
        self._graph = self._measure(sample, rows)

    def _measure(self, sample: Vectors, rows: int) -> dict[str, Any]:
        """The least effort whose recall@10 against all scores is good, or the greatest there is."""
        truth = [{hit.id for hit in self._flat(query, 10, "", rows)} for query in sample]
        out: dict[str, Any] = {}
        for ef, refine in _EFFORTS:
            found = [{hit.id for hit in self._graph_search(query, 10, "", ef, refine)} for query in sample]
            recall = float(np.mean([len(a & b) / len(a) for a, b in zip(truth, found, strict=True)]))
            out = {"type": "IVF_HNSW_SQ", "rows": rows, "ef": ef, "refine": refine}
            out |= {"recall_at_10": round(recall, 4), "recall_queries": len(sample)}
            if recall >= _GOOD_RECALL:
                return out
        low = out["recall_at_10"]
        warnings.warn(f"the index finds {low:.1%} of the 10 nearest; use kind='exact' to find all", stacklevel=4)
        return out

    @classmethod
    def open(cls, directory: Path, model: str | None = None) -> Self:
        """As `Index.open`. Raises MissingExtra without lancedb."""
        directory = Path(directory)
        manifest = read_manifest(directory, cls.kind, model)
        name = str(manifest.get("table"))
        path = inside(directory, f"{name}.lance")
        index = cls.__new__(cls)
        Index.__init__(index, manifest["model"], manifest["width"])
        try:
            index._table = cls._connect(directory).open_table(name)
            width = index._table.schema.field("vector").type.list_size
            len(index)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise damaged(path, str(error).partition("\n")[0]) from None
        if width != index.width:
            raise damaged(path, f"vectors of width {width}, not {index.width}")
        index._schema = dict(manifest["attributes"])
        index._numbers = dict(manifest["numbers"])
        index._graph, index.flat_below = manifest["graph"], int(manifest["flat_below"])
        index._temporary, index._directory, index._name = None, directory, name
        index._add_columns()
        return index


def _hits(query: Vectors, found: pa.Table, k: int) -> list[Hit]:
    ids, attributes = found["id"].to_pylist(), found["attributes"].to_pylist()
    flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    ranked = rank(query, ids, flat.reshape(len(ids), -1), k)
    return [Hit(ids[at], score, json.loads(attributes[at])) for at, score in ranked]


def _among(ids: Sequence[str]) -> str:
    return f"id IN ({', '.join(_text(name) for name in ids)})"


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def _encodable(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
