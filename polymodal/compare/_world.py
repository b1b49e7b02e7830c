"""The data of a comparison: the same rows, labels and groups for every method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polymodal.catalogue.prepare import prepare
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.shards import Shards
from polymodal.compare._plan import CompareSettings
from polymodal.config import nearest
from polymodal.recipes._sizes import Size, modalities
from polymodal.types import BadInput, Record
from polymodal.workflow.records import draw_rows, label_columns, records_of
from polymodal.workflow.training import open_rows, split_rows

__all__ = ["World", "check_data", "having", "open_world"]


@dataclass(frozen=True)
class World:
    """What every method is measured on.

    Args:
        data: folder that models are trained on. rows: of it.
        tested, learnt: records that are measured, and that probes learn from.
        label: name of the label; labels: id -> value; groups: id -> group, of the tested items that have one.
        digest: of the ids of the data.
    """

    data: Path
    rows: Rows
    tested: tuple[Record, ...]
    learnt: tuple[Record, ...]
    label: str
    labels: dict[str, str]
    groups: dict[str, str]
    digest: str

    @property
    def kinds(self) -> dict[str, str]:
        """Modality -> kind."""
        return dict(self.rows.modalities)

    def facts(self) -> dict[str, Any]:
        """What one must know to read the figures."""
        return {
            "rows": len(self.rows),
            "tested": len(self.tested),
            "learnt": len(self.learnt),
            "label": self.label,
            "classes": len({self.labels[r.id] for r in self.tested if r.id in self.labels}),
            "groups": len(set(self.groups.values())),
            "digest": self.digest,
        }


def having(records: Sequence[Record], names: Collection[str]) -> list[Record]:
    """The records with these modalities alone, of those that have any."""
    out = []
    for record in records:
        values = {name: value for name, value in record.values.items() if name in names}
        if values:
            out.append(Record(record.id, values, record.labels, record.group))
    return out


def check_data(rows: Rows, settings: CompareSettings) -> str:
    """The label that is measured by. Raises BadInput: no labels, an unknown label, a split without rows."""
    labels = label_columns(rows)
    if not labels:
        raise BadInput("data", "labels to measure by", "none", "Name them in catalogue.toml: labels = [...]")
    label = settings.label or next(iter(labels))
    if label not in labels:
        raise BadInput("--label", "a label of the data", repr(label), nearest(label, list(labels)))
    for split in (settings.split, settings.train_split):
        split_rows(rows, split)
    return label


def open_world(
    data: Path, out: Path, settings: CompareSettings, progress: Callable[[int, int], None] | None = None
) -> World:
    """Open the data, decoding a catalogue once into `out`/shards."""
    rows, folder = open_rows(data), data
    label = check_data(rows, settings)
    if not isinstance(rows, Shards):
        folder = out / "shards"
        decoders = {n: c.decoder() for n, c in modalities(rows.modalities, _size(settings.size)).items()}
        prepare(Catalogue.open(data), decoders, folder, workers=1, progress=progress)
        rows = open_rows(folder)
    tested = draw_rows(split_rows(rows, settings.split), settings.max_items, 0)
    learnt = np.setdiff1d(split_rows(rows, settings.train_split), tested)
    learnt = draw_rows(learnt, 2 * settings.max_items, 0)
    digest = hashlib.sha256("\n".join(rows.index["id"].to_pylist()).encode()).hexdigest()[:16]
    records, known = (tuple(records_of(rows, numbers)) for numbers in (tested, learnt))
    labels = label_columns(rows)[label]
    return World(folder.resolve(), rows, records, known, label, labels, _groups(records), digest)


def _groups(records: Sequence[Record]) -> dict[str, str]:
    return {r.id: r.group for r in records if r.group is not None}


def _size(text: str) -> Size:
    known: tuple[Size, ...] = ("tiny", "small", "base")
    for size in known:
        if size == text:
            return size
    raise BadInput("--size", f"one of {', '.join(known)}", repr(text), nearest(text, known))
