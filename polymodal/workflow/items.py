"""The rows of a catalogue as `Items`, chunk by chunk: memory holds vectors and words of all, media of one chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from polymodal.evaluate import AS_IS
from polymodal.tasks.items import Bools, Items
from polymodal.types import BadInput, Record
from polymodal.workflow.opened import Opened
from polymodal.workflow.records import draw_rows, records_of
from polymodal.workflow.subsets import embed_subsets
from polymodal.workflow.training import split_rows

__all__ = ["embed_items", "read_items", "seen_apart", "splits_of", "title"]

_CHUNK = 1024


def read_items(opened: Opened, split: str | None = None, most: int | None = None, seed: int = 0) -> Items:
    """The items of a split (all by default), at most `most` of them drawn with a seed, in the order of the file.

    Raises:
        BadInput: a split that the data lacks; no row that the model can read.
    """
    numbers = np.asarray(split_rows(opened.rows, split))
    if most is not None:
        numbers = draw_rows(numbers, most, seed)
    return embed_items(opened, records_of(opened.rows, numbers), len(numbers), splits_of(opened))


def splits_of(opened: Opened) -> dict[str, str]:
    """Id -> split, of every row."""
    index = opened.rows.index
    return dict(zip(index["id"].to_pylist(), index["split"].to_pylist(), strict=True))


def seen_apart(opened: Opened, items: Items) -> list[Bools]:
    """The items that the model was trained on, and the others: cells that it saw together fit better. Nothing where
    there is only one kind."""
    trained = opened.embedder.recipe.split
    seen = np.asarray([items.splits.get(name) == trained for name in items.ids])
    return [seen, ~seen] if seen.any() and not seen.all() else []


def embed_items(
    opened: Opened, records: Iterable[Record], total: int, splits: dict[str, str] | None = None, what: str = "embedding"
) -> Items:
    """Any records as items; rows that the model cannot read are left out.

    Args:
        total: how many records there are, for the progress.

    Raises:
        BadInput: none can be read.
    """
    source, parts, done = iter(records), [], 0
    while chunk := list(islice(source, _CHUNK)):
        part = _part(opened, chunk, splits or {})
        parts += [part] if part is not None else []
        done += len(chunk)
        if opened.progress is not None:
            opened.progress(what, done, total)
    if not parts:
        raise BadInput("data", f"rows that have one of {', '.join(opened.embedder.modalities)}", f"none of {done}")
    return Items.join(parts)


def _part(opened: Opened, records: Sequence[Record], splits: dict[str, str]) -> Items | None:
    # where the first stage mixes modalities, what one of them says by itself takes a pass without the others
    names = opened.embedder.modalities if opened.mixes_first else ()
    found = embed_subsets(opened.embedder, records, [frozenset({name}) for name in names], control=False)
    if AS_IS not in found.fused:
        return None
    towers = {name: found.fused[frozenset({name})] for name in names if frozenset({name}) in found.fused}
    cells: dict[str, dict[str, object]] = {}
    for record in records:
        for name, value in record.values.items():
            if isinstance(value, (str, tuple)) and record.id in found.digests.get(name, {}):
                cells.setdefault(name, {})[record.id] = value
    groups = {record.id: record.group for record in records if record.group is not None}
    mine = {record.id: splits[record.id] for record in records if splits.get(record.id)}
    return Items(found.fused[AS_IS], towers or found.towers, found.digests, cells, groups, mine)


def title(items: Items, name: str) -> str:
    """The first line of the first text of an item; "" where it has none."""
    texts = [known[name] for known in items.cells.values() if isinstance(known.get(name), str)]
    return next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "")
