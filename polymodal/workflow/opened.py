"""A model and the data that a task works on, opened and checked in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from polymodal.catalogue.rows import Rows
from polymodal.config import nearest
from polymodal.embed import Embedder
from polymodal.evaluate import Subset
from polymodal.nn.stages import Stage
from polymodal.types import BadInput, Record
from polymodal.workflow.records import check_shapes, draw_rows, groups_of, label_columns, records_of
from polymodal.workflow.subsets import Evaluated, embed_subsets
from polymodal.workflow.training import open_rows, split_rows
from polymodal.workflow.vectors import check_kinds

__all__ = ["Opened", "open_task"]

# stage, done of it, all of it
Progress = Callable[[str, int, int], None]


@dataclass
class Opened:
    """Data and a model that reads some of its modalities.

    Args:
        labels: label -> {id: value}; rows without the label are left out.
    """

    rows: Rows
    embedder: Embedder
    labels: dict[str, dict[str, str]]
    progress: Progress | None = None

    @cached_property
    def together(self) -> dict[str, str]:
        """id -> group of the rows that have one: intervals draw whole groups."""
        return groups_of(self.rows)

    @property
    def mixes_first(self) -> bool:
        """Whether the model's first stage mixes modalities, so that it has no towers."""
        return cast(Stage, self.embedder.network.stages[0]).mixes

    def records(self, split: str | None = None, most: int | None = None, seed: int = 0) -> list[Record]:
        """The records of a split (all rows by default), at most `most` of them drawn with a seed, as the file has them.

        Raises:
            BadInput: a split that the data lacks.
        """
        numbers = np.asarray(split_rows(self.rows, split))
        if most is not None:
            numbers = draw_rows(numbers, most, seed)
        return list(records_of(self.rows, numbers))

    def vectors(self, records: Sequence[Record], what: str = "embedding", subsets: Sequence[Subset] = ()) -> Evaluated:
        """Fused vectors (`.fused[AS_IS]`, and those of `subsets`), those of each modality alone (`.towers`), and what
        could be read.

        Raises:
            BadInput: no record has anything that the model reads.
        """
        done = 0

        def count(rows: int) -> None:
            nonlocal done
            done += rows
            if self.progress is not None:
                self.progress(what, done, len(records))

        found = embed_subsets(self.embedder, records, subsets, control=False, progress=count)
        if not found.fused:
            raise BadInput("data", f"rows that have one of {', '.join(self.embedder.modalities)}", f"none of {done}")
        return found

    def label(self, name: str | None) -> tuple[str, dict[str, str]]:
        """A label and its value for each id; the first one where no name is given.

        Raises:
            BadInput: no such label, or none at all.
        """
        if not self.labels:
            raise BadInput("data", "labels", "none", "Name them in catalogue.toml: labels = [...]")
        name = next(iter(self.labels)) if name is None else name
        if name not in self.labels:
            raise BadInput("--label", "a label of the data", repr(name), nearest(name, list(self.labels)))
        return name, self.labels[name]


def open_task(model: Path, data: Path, device: str = "cpu", progress: Progress | None = None) -> Opened:
    """Open a run or a model folder, and a catalogue or prepared shards.

    Raises:
        BadInput: they share no modality, or prepared media are of another size than the model reads.
    """
    rows = open_rows(data)
    embedder = Embedder.load(model, device)
    check_kinds(embedder.modalities, rows.modalities)
    check_shapes(rows, {name: embedder.network.modality(name) for name in embedder.modalities})
    return Opened(rows, embedder, label_columns(rows), progress)
