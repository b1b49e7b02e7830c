"""Queries and corpus of a retrieval: items made from some of their modalities, with their vectors and their words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import AS_IS
from polymodal.tasks.lexical import text_of
from polymodal.types import BadInput, Embeddings, Record
from polymodal.workflow.opened import Opened
from polymodal.workflow.records import records_of
from polymodal.workflow.subsets import embed_subsets

__all__ = ["Side", "side_of_records", "side_of_rows"]

Ints = npt.NDArray[np.int64]
_CHUNK = 1024  # records whose media are in memory at a time


@dataclass
class Side:
    """Items of one side, made from `names` alone (all they have where that is empty).

    Args:
        vectors: of those that have all of `names`, in the order of the data.
        texts: their words, "" for none.
        read: the modalities that could be read of each.
        rows: where they are in the data; empty for queries that are not of the data.
        records: them, where they are not of the data.
    """

    opened: Opened
    names: tuple[str, ...]
    vectors: Embeddings
    texts: list[str]
    read: list[frozenset[str]]
    rows: Ints
    records: list[Record]

    @property
    def ids(self) -> tuple[str, ...]:
        return self.vectors.ids

    def fetch(self, places: Sequence[int]) -> list[Record]:
        """The records at some places, which must rise, read again: memory never holds all of them."""
        if self.records:
            return [self.records[place] for place in places]
        found = records_of(self.opened.rows, self.rows[np.asarray(places, np.int64)])
        # a cell that cannot be read was left out of the vector, and is left out here
        return [_restricted(r, self.read[place]) for place, r in zip(places, found, strict=True)]


def side_of_rows(opened: Opened, rows: Ints, names: tuple[str, ...], what: str) -> Side:
    """Embed rows of the data.

    Raises:
        BadInput: none of them has all of `names`.
    """
    ordered = np.sort(rows)
    records = ((int(row), r) for row, r in zip(ordered, records_of(opened.rows, ordered), strict=True))
    side = _embedded(opened, records, len(ordered), names, what)
    if not len(side.vectors):
        needed = f"all of {', '.join(names)}" if names else f"one of {', '.join(opened.embedder.modalities)}"
        raise BadInput(f"--{what}", f"items that have {needed}", f"none of {len(rows)}")
    return side


def side_of_records(opened: Opened, records: Sequence[Record], what: str) -> Side:
    """Embed records that are not of the data."""
    side = _embedded(opened, ((-1, record) for record in records), len(records), (), what)
    at = {record.id: record for record in records}
    side.records, side.rows = [at[name] for name in side.ids], np.zeros(0, np.int64)
    return side


def _embedded(
    opened: Opened, records: Iterable[tuple[int, Record]], total: int, names: tuple[str, ...], what: str
) -> Side:
    ids: list[str] = []
    blocks = [np.zeros((0, opened.embedder.width), np.float32)]
    texts: list[str] = []
    read: list[frozenset[str]] = []
    rows: list[int] = []
    done = 0
    for chunk in _chunks(records):
        some = [(row, _restricted(r, names)) for row, r in chunk]
        some = [(row, r) for row, r in some if r.values and set(names) <= set(r.values)]
        found = embed_subsets(opened.embedder, [r for _, r in some], [], control=False, names=())
        if AS_IS in found.fused:
            vectors = found.fused[AS_IS]
            # a cell that turned out unreadable is not there either
            kept = [place for place, i in enumerate(vectors.ids) if found.presence[i] >= frozenset(names)]
            at = {r.id: (row, r) for row, r in some}
            ids += [vectors.ids[place] for place in kept]
            blocks.append(vectors.vectors[kept])
            texts += [text_of(at[vectors.ids[place]][1]) for place in kept]
            read += [found.presence[vectors.ids[place]] for place in kept]
            rows += [at[vectors.ids[place]][0] for place in kept]
        done += len(chunk)
        if opened.progress is not None:
            opened.progress(f"embedding {what}", done, total)
    vectors = Embeddings(tuple(ids), np.concatenate(blocks), opened.embedder.model)
    return Side(opened, names, vectors, texts, read, np.asarray(rows, np.int64), [])


def _chunks(records: Iterable[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    waiting = iter(records)
    while chunk := list(islice(waiting, _CHUNK)):
        yield chunk


def _restricted(record: Record, names: Collection[str]) -> Record:
    """The record with these modalities alone, and without labels: what follows must not see them."""
    values = {name: value for name, value in record.values.items() if not names or name in names}
    return Record(record.id, values, {}, record.group)
