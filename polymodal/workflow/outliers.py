"""A model and data in; the strangest items with reasons out, and how well strangers are noticed where that is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.catalogue.quarantine import Quarantined
from polymodal.catalogue.shards import Shards
from polymodal.evaluate import Interval, label_leak, leak_warning
from polymodal.evaluate.values import Result, plain
from polymodal.tasks.items import Items
from polymodal.tasks.outliers import (
    Evidence,
    Strange,
    Unknown,
    auroc_interval,
    evidence_of,
    misfit,
    nearest_known,
    rank_strange,
    stranger_scores,
    unknown_classes,
)
from polymodal.types import BadInput, Embeddings
from polymodal.workflow.files import write_json, write_table
from polymodal.workflow.item_vectors import ItemVectors, embed_rows, part_of
from polymodal.workflow.items import seen_apart, splits_of
from polymodal.workflow.learning import one_thread
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.parts import ids_of, part_rows
from polymodal.workflow.records import title_of

__all__ = ["OutlierResult", "OutlierSettings", "Planted", "find_outliers"]

_LISTED = 100  # strangest items in the report; the table has all


@dataclass(frozen=True)
class OutlierSettings:
    """What is looked for.

    Args:
        label: the classes; the first label where None and there is one.
        split, train_split: items asked for unknown classes, and learnt from.
        share, draws: of the classes left out in each draw, and how many draws; 0 draws leave that out.
    """

    label: str | None = None
    split: str = "test"
    train_split: str = "train"
    share: float = 0.25
    draws: int = 10
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Planted(Result):
    """How well faults that are known are found.

    Args:
        kind: of fault. faults, others: items that were compared. unseen: faulty items that could not be, as they have
            nothing else to compare with.
        auroc: score -> AUROC, `strangeness` being the ranking's. first: share of the first `faults` of the ranking that
            are faulty; named: of those, the share whose reason is the faulty modality or the pair it is in.
    """

    kind: str
    faults: int
    others: int
    unseen: int
    auroc: Mapping[str, Interval]
    first: float
    named: float


@dataclass(frozen=True)
class OutlierResult:
    """What was found.

    Args:
        folder: has outliers.json (the same as `to_json`) and outliers.parquet, every item with all its evidence.
        strangest: the first of the ranking; titles: id -> title of those.
        unknown: how well items of classes that were left out are noticed, by each score; left_out: those classes.
        planted: the same for known faults. unreadable: cells that could not be read, by reason.
        broken: known broken files -> those that could not be read.
    """

    folder: Path
    model: str
    items: int
    label: str
    strangest: tuple[Strange, ...]
    titles: Mapping[str, str]
    unknown: tuple[Unknown, ...]
    left_out: tuple[tuple[str, ...], ...]
    planted: tuple[Planted, ...]
    unreadable: Mapping[str, int]
    broken: Mapping[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": 1, **plain(vars(self))}


def find_outliers(
    model: Path,
    data: Path,
    out: Path,
    settings: OutlierSettings | None = None,
    *,
    truth: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> OutlierResult:
    """Rank the items of a catalogue by how strange they are.

    Args:
        out: folder.
        truth: Parquet file of known faults: `id` and `outlier` (the faulty modality, or any word), or the truth.parquet
            of the demo; that of `data` by default, where it has one.

    Raises:
        BadInput: a label or split that the data lacks; a truth of other items.
    """
    settings = settings or OutlierSettings()
    if out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")
    opened = open_task(model, data, device, progress)
    faults = _faults(opened, data, truth)
    label, values = opened.label(settings.label) if opened.labels or settings.label else ("", {})
    vectors = _embed(opened)
    known, asked, notes = _known(opened, vectors, values, settings)
    scored = frozenset(asked.ids)
    records = [record for record in vectors.records if record.id in scored]
    if warning := leak_warning([label_leak(records, values, label, opened.embedder.modalities)]):
        notes = (*notes, warning)
    evidence, more = one_thread(lambda: _evidence(opened, vectors, known, settings.seed))
    ranking = rank_strange(evidence)
    unknown: tuple[Unknown, ...] = ()
    left: tuple[tuple[str, ...], ...] = ()
    if values and settings.draws and len(asked):

        def move(done: int, total: int) -> None:
            if progress is not None:
                progress("leaving classes out", done, total)

        unknown, left = one_thread(
            lambda: unknown_classes(
                known,
                asked,
                values,
                share=settings.share,
                draws=settings.draws,
                resamples=settings.resamples,
                seed=settings.seed,
                together=opened.together,
                progress=move,
            )
        )
    bad = _unread(opened)
    unread = {(one.id, one.modality) for one in bad}
    reasons = dict(Counter(one.reason for one in bad).most_common())
    broken = faults.pop("broken file", {})
    scores = one_thread(lambda: stranger_scores(known, vectors.fused, values or None, seed=settings.seed))
    planted = tuple(
        _planted(kind, items, ranking, vectors, scores, evidence, settings, opened.together)
        for kind, items in faults.items()
        if items
    )
    titles = {record.id: title_of(record) for record in vectors.records}
    first = ranking[:_LISTED]
    result = OutlierResult(
        out,
        opened.embedder.model,
        len(ranking),
        label,
        first,
        {one.id: titles.get(one.id, "") for one in first},
        unknown,
        left,
        planted,
        reasons,
        {"planted": len(broken), "unreadable": sum((i, m) in unread for i, m in broken.items())} if broken else {},
        (*notes, *more),
    )
    write_table(out / "outliers.parquet", _columns(ranking, evidence, scores, vectors.fused.ids))
    write_json(out / "outliers.json", result.to_json())
    return result


def _unread(opened: Opened) -> set[Quarantined]:
    """Cells that could not be read, now or when the data was prepared."""
    found = {*getattr(opened.rows, "quarantine", ()), *opened.embedder.quarantine}
    if isinstance(opened.rows, Shards):
        lines = (opened.rows.folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
        found |= {Quarantined(**json.loads(line)) for line in lines if line}
    return found


def _embed(opened: Opened) -> ItemVectors:
    done, say, total = 0, opened.progress, len(opened.rows)

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if say is not None:
            say("embedding", done, total)

    return embed_rows(opened.embedder, opened.rows, np.arange(total), towers=True, progress=count)


def _known(
    opened: Opened, vectors: ItemVectors, values: Mapping[str, str], settings: OutlierSettings
) -> tuple[Embeddings, Embeddings, tuple[str, ...]]:
    """What is learnt from, what is asked for unknown classes, and what had to be decided; without labels all items are
    learnt from."""
    if not values:
        return vectors.fused, part_of(vectors.fused, []), ("Without a label, items are compared with one another.",)
    splits = {"train": settings.train_split, "test": settings.split}
    parts = part_rows(opened.rows, values, **splits, seed=settings.seed)
    train = np.sort(np.concatenate([parts.train, parts.held]))
    known, asked = (part_of(vectors.fused, ids_of(opened.rows, rows)) for rows in (train, parts.test))
    return known, asked, tuple(note for note in parts.notes if "tune" not in note)


def _evidence(
    opened: Opened, vectors: ItemVectors, known: Embeddings, seed: int
) -> tuple[list[Evidence], tuple[str, ...]]:
    """As a whole: far from all known items. By modality: unlike other cells, and not fitting the rest of the item."""
    out = [evidence_of("unlike any other item", "", vectors.fused.ids, nearest_known(known, vectors.fused))]
    for name, own in vectors.towers.items():
        if len(own) > 2:
            out.append(evidence_of(f"{name} unlike any other", name, own.ids, nearest_known(own, own)))
    if not opened.embedder.recipe.objective.aligned:
        return out, ("This model does not align its modalities: whether they fit one another is not looked at.",)
    items = Items(vectors.fused, vectors.towers, splits=splits_of(opened))
    return [*out, *misfit(items, seen_apart(opened, items), seed=seed)], ()


def _planted(
    kind: str,
    faults: Mapping[str, str],
    ranking: Sequence[Strange],
    vectors: ItemVectors,
    scores: Mapping[str, np.ndarray],
    evidence: Sequence[Evidence],
    settings: OutlierSettings,
    together: Mapping[str, str],
) -> Planted:
    """Over the items that have the modality of the faults and another one to compare it with."""
    names = set(faults.values())
    compared = [i for i in vectors.fused.ids if len(vectors.presence[i]) > 1 and vectors.presence[i] & names]
    compared = compared or list(vectors.fused.ids)
    wrong = np.asarray([i in faults for i in compared])
    if not wrong.any() or wrong.all():
        raise BadInput(
            "--truth", "faults among the items that can be compared, and items without one", int(wrong.sum())
        )
    at = {name: row for row, name in enumerate(vectors.fused.ids)}
    by_id = {one.id: one for one in ranking}
    every = {name: np.asarray([values[at[i]] for i in compared]) for name, values in scores.items()}
    every["strangeness (the ranking)"] = np.asarray([by_id[i].score for i in compared])
    # how badly what can be faulty fits, alone or in a pair, where an item is in one of the two only
    fits = [one for one in evidence if names & set(one.modality.split(" + ")) and "fit" in one.name]
    if fits:
        every["misfit of that modality"] = np.asarray([max(e.values.get(i, 0.0) for e in fits) for i in compared])
    options: Any = {"resamples": settings.resamples, "seed": settings.seed, "together": together}
    found = {name: auroc_interval(compared, values, wrong, **options) for name, values in every.items()}
    wanted = set(compared)
    first = [one for one in ranking if one.id in wanted][: int(wrong.sum())]
    hits = [one for one in first if one.id in faults]
    named = [one for one in hits if faults[one.id] in one.modality.split(" + ")]
    return Planted(
        kind,
        int(wrong.sum()),
        int((~wrong).sum()),
        len(set(faults) - set(compared)),
        found,
        len(hits) / max(len(first), 1),
        len(named) / len(hits) if hits else float("nan"),
    )


def _faults(opened: Opened, data: Path, truth: Path | None) -> dict[str, dict[str, str]]:
    """Kind of fault -> id -> the faulty modality ("" where none is named)."""
    path = truth if truth is not None else data / "truth.parquet"
    if not path.is_file():
        if truth is not None:
            raise BadInput("--truth", "a Parquet file of known faults", path)
        return {}
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput("--truth", "a Parquet file of known faults", f"{path}: {error}") from None
    columns = set(table.column_names)
    if "id" not in columns or not columns & {"outlier", "swapped_with", "corrupt_modality"}:
        raise BadInput("--truth", "columns id and outlier", ", ".join(table.column_names))
    ids = set(opened.rows.index["id"].to_pylist())
    picture = next((name for name, kind in opened.embedder.modalities.items() if kind == "image"), "")
    names = {"outlier": "outlier", "swapped_with": "exchanged picture", "corrupt_modality": "broken file"}
    out: dict[str, dict[str, str]] = {}
    for column, kind in names.items():
        if column in columns:
            rows = zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)
            known = opened.embedder.modalities
            found = {i: picture if column == "swapped_with" else v if v in known else "" for i, v in rows if v}
            out[kind] = {i: v for i, v in found.items() if i in ids}
    if not any(out.values()):
        raise BadInput("--truth", "faults of items of this data", path)
    return out


def _columns(
    ranking: Sequence[Strange], evidence: Sequence[Evidence], scores: Mapping[str, np.ndarray], ids: Sequence[str]
) -> dict[str, list[Any]]:
    at = {name: row for row, name in enumerate(ids)}
    ours = ("Mahalanobis", "max-softmax", "nearest known")
    return {
        "id": [one.id for one in ranking],
        "strangeness": [one.score for one in ranking],
        "reason": [one.reason for one in ranking],
        "modality": [one.modality or None for one in ranking],
        **{one.name: [one.values.get(item.id) for item in ranking] for one in evidence},
        **{name: [float(scores[name][at[item.id]]) for item in ranking] for name in ours if name in scores},
    }
