"""Duplicates in a catalogue: a model and data in, a table of groups out, and how well planted copies are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from polymodal.catalogue.quarantine import decode_record
from polymodal.tasks.dedup import Candidates, Group, candidates, group_pairs, threshold_of, unit
from polymodal.tasks.dedup_figures import Found, figures
from polymodal.tasks.items import Items
from polymodal.tasks.plant import plant_copies
from polymodal.types import BadInput, Record
from polymodal.workflow.files import check_table_path, write_rows
from polymodal.workflow.items import embed_items, read_items, title
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.records import draw_rows, records_of
from polymodal.workflow.truth import read_pairs

__all__ = ["DedupResult", "DedupSettings", "dedup"]

_CALIBRATE = 200  # copies that the default threshold is derived from
_SCHEMA = pa.schema(
    [
        ("group", pa.int64()),
        ("id", pa.string()),
        ("kind", pa.string()),
        ("nearest", pa.string()),
        ("similarity", pa.float64()),
        ("reason", pa.string()),
        ("title", pa.string()),
    ]
)


@dataclass(frozen=True)
class DedupSettings:
    """How duplicates are looked for.

    Args:
        min_similarity: cosine from which on two items are one; None: derived from the data (`threshold_of`).
        split: items of one split; all by default.
        within_groups: near-duplicates inside one `group` count too.
        neighbours: candidates of each item.
        plant: copies to plant and look for.
        truth: a table with `id` and `duplicate_of`, known duplicates to measure against.
        seed: of the copies. resamples: of the bootstrap.
    """

    min_similarity: float | None = None
    split: str | None = None
    within_groups: bool = False
    neighbours: int = 10
    plant: int = 0
    truth: Path | None = None
    seed: int = 0
    resamples: int = 1000


@dataclass(frozen=True)
class DedupResult:
    """What was found.

    Args:
        items: looked at. threshold: in force, derived (not given) where `derived`.
        groups: the largest first. rows: one line a member, as in the file.
        planted: figures on planted copies. known: figures on the known pairs of `truth`.
    """

    items: int
    threshold: float
    derived: bool
    groups: tuple[Group, ...]
    rows: tuple[Mapping[str, Any], ...]
    out: Path | None
    model: str
    planted: Found | None = None
    known: Found | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "items": self.items,
            "min_similarity": self.threshold,
            "min_similarity_derived": self.derived,
            "groups": len(self.groups),
            "in_groups": len(self.rows),
            "identical": sum(row["kind"] == "identical" for row in self.rows),
            "out": None if self.out is None else str(self.out),
            "model": self.model,
            "planted": None if self.planted is None else self.planted.to_json(),
            "known": None if self.known is None else self.known.to_json(),
            "settings": dict(self.settings),
            "rows": [dict(row) for row in self.rows],
        }


def dedup(
    model: Path,
    data: Path,
    settings: DedupSettings | None = None,
    *,
    out: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> DedupResult:
    """Groups of duplicates among the items of a catalogue.

    Args:
        out: CSV or Parquet, one row a member of a group.

    Raises:
        BadInput: as `open_task`; a similarity outside -1 to 1; a `truth` or `out` that cannot be used.
    """
    settings = settings or DedupSettings()
    _check(settings, out)
    known = [] if settings.truth is None else read_pairs(settings.truth, "duplicate_of")
    opened = open_task(model, data, device, progress)
    items = read_items(opened, settings.split)
    found = _candidates(items, settings)
    threshold = settings.min_similarity
    if threshold is None:
        threshold = _derived(opened, items, found, settings)
    groups = group_pairs(items, found, threshold)
    rows = _rows(items, groups)
    planted = _planted(opened, items, threshold, settings) if settings.plant else None
    judged = None
    if known:
        judged = figures(items, found, groups, known, resamples=settings.resamples, seed=settings.seed)
    if out is not None:
        write_rows(out, rows, _SCHEMA)
    shown = {"neighbours": settings.neighbours, "within_groups": settings.within_groups, "split": settings.split}
    return DedupResult(
        len(items),
        float(threshold),
        settings.min_similarity is None,
        tuple(groups),
        tuple(rows),
        out,
        opened.embedder.model,
        planted,
        judged,
        {**shown, "plant": settings.plant, "seed": settings.seed},
    )


def _check(settings: DedupSettings, out: Path | None) -> None:
    check_table_path("--out", out)
    if settings.min_similarity is not None and not -1 <= settings.min_similarity <= 1:
        raise BadInput("--min-similarity", "a cosine, -1 to 1", settings.min_similarity)
    if settings.plant < 0:
        raise BadInput("--plant", "0 or more copies", settings.plant)


def _candidates(items: Items, settings: DedupSettings) -> Candidates:
    return candidates(items, neighbours=settings.neighbours, within_groups=settings.within_groups)


def decoded(opened: Opened, items: Items, most: int, seed: int) -> list[Record]:
    """Some of the items with decoded values, drawn with a seed."""
    known = items.places()
    ids = opened.rows.index["id"].to_pylist()
    numbers = np.asarray([row for row, name in enumerate(ids) if name in known])
    decoders = {name: opened.embedder.network.modality(name) for name in opened.embedder.modalities}
    rows = records_of(opened.rows, draw_rows(numbers, most, seed))
    return [made for record in rows if (made := decode_record(record, decoders)[0]).values]


def _copies(opened: Opened, items: Items, count: int, seed: int) -> tuple[Items, dict[str, str]]:
    """Planted copies, and the original of each. Originals are drawn from the items."""
    records = decoded(opened, items, count, seed)
    copies, truth = plant_copies(records, len(records), seed)
    return embed_items(opened, copies, len(copies), what="planting"), truth


def _derived(opened: Opened, items: Items, found: Candidates, settings: DedupSettings) -> float:
    """The default threshold. Its copies are other ones than those that `--plant` looks for."""
    copies, truth = _copies(opened, items, min(_CALIBRATE, len(items)), settings.seed + 1_000_003)
    own, at = unit(items.fused.vectors), items.places()
    originals = np.asarray([at[truth[name]] for name in copies.ids])
    alike = np.einsum("ce,ce->c", unit(copies.fused.vectors), own[originals]).astype(np.float64)
    nearest = np.full(len(items), -1.0)
    for side in found.pairs[~found.identical].T:
        np.maximum.at(nearest, side, found.similarity[~found.identical])
    return threshold_of(alike, nearest)


def _planted(opened: Opened, items: Items, threshold: float, settings: DedupSettings) -> Found:
    if settings.plant > len(items):
        raise BadInput("--plant", f"at most {len(items)} copies of as many items", settings.plant)
    copies, truth = _copies(opened, items, settings.plant, settings.seed)
    both = Items.join([items, copies])
    found = _candidates(both, settings)
    among = np.arange(len(both)) >= len(items)
    groups = group_pairs(both, found, threshold)
    options = {"resamples": settings.resamples, "seed": settings.seed}
    return figures(both, found, groups, list(truth.items()), among=among, **options)


def _rows(items: Items, groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "group": number,
            "id": member.id,
            "kind": "identical" if member.identical else "near",
            "nearest": member.nearest,
            "similarity": round(member.similarity, 4),
            "reason": member.reason,
            "title": title(items, member.id),
        }
        for number, group in enumerate(groups, 1)
        for member in group.members
    ]
