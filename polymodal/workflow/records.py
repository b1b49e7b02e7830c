"""Which rows a command looks at, and their records, in the order of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from polymodal.catalogue.attributes import attributes_of
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.shards import Shards
from polymodal.config import nearest
from polymodal.types import BadInput, Record

if TYPE_CHECKING:
    # torch takes seconds to load, and looking at an index does not need it
    from polymodal.modality import Modality

__all__ = [
    "attributes_of",
    "check_names",
    "check_shapes",
    "draw_rows",
    "groups_of",
    "label_columns",
    "records_of",
    "rows_of_ids",
    "title_of",
]


def records_of(rows: Rows, numbers: np.ndarray) -> Iterator[Record]:
    """The records of some rows, block by block, so that memory holds one block."""
    starts = np.cumsum([0, *rows.blocks])
    ordered = np.sort(numbers)
    for block, (begin, end) in enumerate(pairwise(starts.tolist())):
        inside = ordered[np.searchsorted(ordered, begin) : np.searchsorted(ordered, end)] - begin
        if len(inside):
            records = rows.block(block)
            yield from (records[place] for place in inside.tolist())


def draw_rows(numbers: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the rows, drawn with a seed, in the order of the file."""
    if len(numbers) <= most:
        return numbers
    return np.sort(np.random.default_rng(seed).permutation(numbers)[:most])


def rows_of_ids(rows: Rows, ids: Sequence[str], what: str) -> np.ndarray:
    """The row of every id. Raises BadInput for an id that the data lacks."""
    at = {name: row for row, name in enumerate(rows.index["id"].to_pylist())}
    unknown = next((name for name in ids if name not in at), None)
    if unknown is not None:
        raise BadInput(
            what, "ids of this data", repr(unknown), "Embed this data again: polymodal embed MODEL DATA --out FILE"
        )
    return np.asarray([at[name] for name in ids], np.int64)


def check_names(field: str, names: Collection[str], known: Collection[str], expected: str) -> None:
    """Raises BadInput for the first of `names` that is not known, with the nearest one."""
    for name in names:
        if name not in known:
            raise BadInput(field, expected, repr(name), nearest(name, list(known)))


def check_shapes(rows: Rows, modalities: Mapping[str, Modality]) -> None:
    """Raises BadInput where prepared pictures or clips are not of the size that the model reads: they were prepared for
    another one, and a query would be decoded differently from the catalogue."""
    if not isinstance(rows, Shards):
        return
    seen: set[str] = set()
    for record in rows.block(0):
        for name, value in record.values.items():
            if name in seen or name not in modalities or getattr(value, "ndim", 0) < 3:
                continue
            seen.add(name)
            wanted = modalities[name].example(0).shape[1:]
            if value.shape[1:] != wanted:
                raise BadInput(
                    f"data: modality {name!r}",
                    f"{'x'.join(map(str, wanted))} as the model reads it",
                    f"{'x'.join(map(str, value.shape[1:]))} in {rows.folder}",
                    "Prepare for the same size as the model: polymodal prepare DATA OUT --size tiny|small|base",
                )


def groups_of(rows: Rows) -> dict[str, str]:
    """Id -> group, of the rows that have one."""
    names = zip(rows.index["id"].to_pylist(), rows.index["group"].to_pylist(), strict=True)
    return {i: group for i, group in names if group is not None}


def label_columns(rows: Rows) -> dict[str, dict[str, str]]:
    """Label -> {id: value}; rows without the label are left out."""
    ids = rows.index["id"].to_pylist()
    columns = [name for name in rows.index.column_names if name.startswith("label_")]
    return {
        name.removeprefix("label_"): {
            i: v for i, v in zip(ids, rows.index[name].to_pylist(), strict=True) if v is not None
        }
        for name in columns
    }


def title_of(record: Record) -> str:
    """The first line of the first text of a record; "" where there is none."""
    texts = [value for value in record.values.values() if isinstance(value, str)]
    return next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "")
