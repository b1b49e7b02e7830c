"""Items whose cells do not belong together: a model and data in, a ranked table with reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from polymodal.evaluate import Interval, interval
from polymodal.evaluate.intervals import clusters_of
from polymodal.tasks.items import Bools, Floats, Ints, Items
from polymodal.tasks.mismatch import (
    Disagreement,
    disagreement,
    fit_share,
    nearest_by,
    raw_disagreement,
    swap_cells,
)
from polymodal.tasks.ranking import Ranked, compare_rankings
from polymodal.types import BadInput
from polymodal.workflow.files import check_table_path, write_rows
from polymodal.workflow.items import read_items, seen_apart, title
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.records import check_names
from polymodal.workflow.truth import read_pairs

__all__ = ["MismatchResult", "MismatchSettings", "Swapped", "mismatch"]

_REPEATS = 5  # plantings, each with other items
_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("id", pa.string()),
        ("modality", pa.string()),
        ("odds", pa.float64()),
        ("reason", pa.string()),
        ("nearest_by_it", pa.string()),
        ("nearest_by_rest", pa.string()),
        ("title", pa.string()),
    ]
)


@dataclass(frozen=True)
class MismatchSettings:
    """How wrong cells are looked for.

    Args:
        modality: whose cells are in doubt; None: whichever fits worst.
        split: items of one split; all by default.
        most: rows listed.
        plant: cells to exchange and look for, each time with other items.
        truth: a table with `id` and `swapped_with`, known wrong cells.
        label: planted cells come from items of another value of this label (the first one by default).
    """

    modality: str | None = None
    split: str | None = None
    most: int = 100
    plant: int = 0
    truth: Path | None = None
    label: str | None = None
    seed: int = 0
    resamples: int = 1000


@dataclass(frozen=True)
class Swapped:
    """How well exchanged cells are found.

    Args:
        modality: whose cells were exchanged, "" where the truth does not say.
        wrong: exchanged cells, all repetitions together; among: items that were ranked, each time.
        named: share in which the right modality was named, of items with three and more; None where nobody knows.
    """

    modality: str
    wrong: int
    among: int
    rankings: tuple[Ranked, ...]
    named: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "modality": self.modality,
            "wrong": self.wrong,
            "among": self.among,
            "rankings": [one.to_json() for one in self.rankings],
            "named": None if self.named is None else self.named.to_json(),
        }


@dataclass(frozen=True)
class MismatchResult:
    """What was found.

    Args:
        items: looked at; judged: of them, those with two modalities that can be compared.
        told: (i, j) -> how well true pairs of these modalities are told from exchanged ones, 0.5 for not at all.
        rows: the worst first, as in the file.
    """

    items: int
    judged: int
    told: Mapping[tuple[str, str], float]
    rows: tuple[Mapping[str, Any], ...]
    out: Path | None
    model: str
    planted: tuple[Swapped, ...] = ()
    known: Swapped | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "items": self.items,
            "judged": self.judged,
            "not_judged": self.items - self.judged,
            "told": {f"{a} ~ {b}": value for (a, b), value in self.told.items()},
            "out": None if self.out is None else str(self.out),
            "model": self.model,
            "planted": [one.to_json() for one in self.planted],
            "known": None if self.known is None else self.known.to_json(),
            "settings": dict(self.settings),
            "rows": [dict(row) for row in self.rows],
        }


def mismatch(
    model: Path,
    data: Path,
    settings: MismatchSettings | None = None,
    *,
    out: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> MismatchResult:
    """Rank the items by how badly one of their cells fits the rest.

    Raises:
        BadInput: as `open_task`; an unknown modality; no two modalities that 20 items have; a `truth` or `out` that
            cannot be used.
    """
    settings = settings or MismatchSettings()
    check_table_path("--out", out)
    if settings.most < 1:
        raise BadInput("-k", "at least 1", settings.most)
    known = [] if settings.truth is None else read_pairs(settings.truth, "swapped_with")
    opened = open_task(model, data, device, progress)
    if settings.modality is not None:
        check_names("--modality", [settings.modality], opened.embedder.modalities, "a modality of the model")
    items = read_items(opened, settings.split)
    if settings.modality is not None and settings.modality not in items.towers:
        raise BadInput("--modality", f"one that the items have: {', '.join(items.towers)}", settings.modality)
    parts = seen_apart(opened, items)
    found = disagreement(items, parts, seed=settings.seed)
    scores = found.score(settings.modality)
    rows = _rows(items, found, scores, settings, parts)
    planted = tuple(_planted(opened, items, parts, settings)) if settings.plant else ()
    judged = _known(items, scores, {name for name, _ in known}, settings) if known else None
    if out is not None:
        write_rows(out, rows, _SCHEMA)
    shown = {"modality": settings.modality, "split": settings.split, "plant": settings.plant, "seed": settings.seed}
    return MismatchResult(
        len(items),
        int(np.isfinite(scores).sum()),
        found.told,
        tuple(rows),
        out,
        opened.embedder.model,
        planted,
        judged,
        shown,
    )


def _rows(
    items: Items, found: Disagreement, scores: Floats, settings: MismatchSettings, parts: Sequence[Bools]
) -> list[dict[str, Any]]:
    ids = np.asarray(items.ids)
    order = [row for row in np.lexsort((ids, -scores)).tolist() if np.isfinite(scores[row])][: settings.most]
    usual = _Usual(items, parts, settings.seed)
    return [_row(rank, items, found, row, settings.modality, usual) for rank, row in enumerate(order, 1)]


def _row(rank: int, items: Items, found: Disagreement, row: int, modality: str | None, usual: _Usual) -> dict[str, Any]:
    suspects = found.suspects(row, modality)
    first = suspects[0]
    others = [name for name in found.modalities if name not in suspects and items.ids[row] in items.digests[name]]
    against = found.against(row, first) or others or list(suspects[1:])
    said = []
    for other in against[:2]:
        share = float(fit_share(items, np.asarray([row]), first, other)[0])
        said.append(
            f"{share:.0%} of all other {first} cells fit its {other} better (usual {usual.of(first, other):.0%})"
        )
    return {
        "rank": rank,
        "id": items.ids[row],
        "modality": " or ".join(suspects),
        "odds": round(float(found.score(modality)[row]), 3),
        "reason": "; ".join(said),
        "nearest_by_it": ", ".join(_named(items, name) for name in nearest_by(items, row, first, 1)),
        "nearest_by_rest": ", ".join(_named(items, name) for name in nearest_by(items, row, against[0], 1)),
        "title": title(items, items.ids[row]),
    }


class _Usual:
    """The median share of cells that fit better than the true one, of each pair of modalities, over drawn items."""

    def __init__(self, items: Items, parts: Sequence[Bools], seed: int, draws: int = 200) -> None:
        self._items, self._seed, self._draws = items, seed, draws
        self._known: dict[tuple[str, str], float] = {}

    def of(self, modality: str, by: str) -> float:
        if (modality, by) not in self._known:
            both = np.flatnonzero(self._items.tower(modality)[1] & self._items.tower(by)[1])
            drawn = np.random.default_rng(self._seed).permutation(both)[: self._draws]
            shares = fit_share(self._items, drawn, modality, by)
            self._known[modality, by] = float(np.median(shares)) if len(shares) else 0.0
        return self._known[modality, by]


def _named(items: Items, name: str) -> str:
    said = title(items, name)
    return f"{name} {said[:40]!r}" if said else name


def _rankings(
    runs: Sequence[tuple[Floats, Floats, Bools]], clusters: Sequence[Ints], settings: MismatchSettings
) -> tuple[Ranked, ...]:
    rng = np.random.default_rng(settings.seed)
    named: dict[str, list[tuple[Floats, Bools]]] = {
        "calibrated": [(ours, wrong) for ours, _, wrong in runs],
        "mean cosine": [(raw, wrong) for _, raw, wrong in runs],
        "random order": [(rng.random(len(wrong)), wrong) for _, _, wrong in runs],
    }
    return compare_rankings(named, clusters=clusters, resamples=settings.resamples, seed=settings.seed)


def _known(items: Items, scores: Floats, wrong_ids: set[str], settings: MismatchSettings) -> Swapped | None:
    judged = np.isfinite(scores)
    wrong = np.asarray([name in wrong_ids for name in items.ids])[judged]
    if not wrong.any() or wrong.all():
        return None
    raw = raw_disagreement(items, settings.modality)[judged]
    rankings = _rankings([(scores[judged], raw, wrong)], [_clusters(items)[judged]], settings)
    return Swapped(settings.modality or "", int(wrong.sum()), int(judged.sum()), rankings)


def _clusters(items: Items) -> Ints:
    """(n,) the code of each item's group, which is drawn whole in every interval, all repetitions together."""
    found = clusters_of(items.ids, items.groups)
    return np.arange(len(items)) if found is None else found


def _planted(opened: Opened, items: Items, parts: Sequence[Bools], settings: MismatchSettings) -> list[Swapped]:
    """Each modality in turn (or the one asked for), among items that the model was not trained on, if there are any."""
    among = parts[1] if parts else np.ones(len(items), np.bool_)
    label = opened.label(settings.label)[1] if opened.labels or settings.label else None
    out, clusters = [], _clusters(items)
    for modality in [settings.modality] if settings.modality else list(items.towers):
        runs, named, size = [], [], 0
        of_runs, of_named = [], []
        for repeat in range(_REPEATS):
            seed = settings.seed + repeat
            try:
                changed, wrong = swap_cells(items, modality, settings.plant, seed, among=among, label=label)
            except BadInput:
                if settings.modality is not None:
                    raise
                break
            found = disagreement(changed, parts, seed=seed)
            scores = found.score(settings.modality)
            judged = np.isfinite(scores) & among
            runs.append((scores[judged], raw_disagreement(changed, settings.modality)[judged], wrong[judged]))
            of_runs.append(clusters[judged])
            several = np.flatnonzero(wrong & (np.isfinite(found.odds).sum(1) > 2))
            named += [found.suspects(row)[0] == modality for row in several.tolist()]
            of_named += clusters[several].tolist()
            size = int(judged.sum())
        if runs:
            options: Any = {"resamples": settings.resamples, "seed": settings.seed}
            right = interval(np.asarray(named, np.float64), clusters=np.asarray(of_named, np.int64), **options)
            total = sum(int(wrong.sum()) for _, _, wrong in runs)
            out.append(Swapped(modality, total, size, _rankings(runs, of_runs, settings), right if named else None))
    if not out:
        raise BadInput("--plant", "fewer cells than there are items with two modalities", settings.plant)
    return out
