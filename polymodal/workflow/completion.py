"""Proposals for cells that lack an attribute: a run and data in, a table for review out, with measured confidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from polymodal.complete import Completer
from polymodal.evaluate.intervals import clusters_of
from polymodal.tasks.completion import Judged, Measured, codes_of, judge, judge_numbers, radius, skewed
from polymodal.tasks.items import Floats, Ints, Items
from polymodal.types import BadInput, Record
from polymodal.workflow._attribute import (
    Attribute,
    Hidden,
    Shares,
    decoded_records,
    find_attribute,
    hide,
    known_values,
    shares_of,
)
from polymodal.workflow._ways import FREQUENT, MEDIAN, Neighbours, Numbers, Words
from polymodal.workflow.files import check_table_path, write_rows
from polymodal.workflow.items import read_items, title
from polymodal.workflow.opened import Opened, Progress, open_task

__all__ = ["By", "CompleteResult", "CompleteSettings", "complete_attribute", "load_head"]

By = Literal["auto", "head", "neighbours", "both"]
_HOW: tuple[Hidden, ...] = ("attribute", "cell")
_CHUNK = 256
_TOLD = 0.1  # by how much the confidence must fall for a modality to be evidence
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("attribute", pa.string()),
        ("proposal", pa.string()),
        ("confidence", pa.float64()),
        ("runner_up", pa.string()),
        ("runner_up_confidence", pa.float64()),
        ("evidence", pa.string()),
        ("neighbours", pa.string()),
    ]
)
_NUMBERS = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("attribute", pa.string()),
        ("proposal", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("evidence", pa.string()),
        ("neighbours", pa.string()),
    ]
)


@dataclass(frozen=True)
class CompleteSettings:
    """How cells are completed.

    Args:
        attribute: "colour", or "facts.colour".
        min_confidence: of the proposals that are written, in (0, 1); of a number the share of true values that its
            interval is to hold.
        by: the head of the model, the nearest items, both (of words; of numbers the better one), or whichever is
            likeliest right on hidden cells.
        neighbours: that vote.
        max_items: hidden cells to calibrate and to measure on, at most so many each.
    """

    attribute: str
    min_confidence: float = 0.9
    by: By = "auto"
    neighbours: int = 20
    max_items: int = 500
    seed: int = 0
    resamples: int = 1000


@dataclass(frozen=True)
class CompleteResult:
    """What is proposed, and what such proposals are worth.

    Args:
        missing: items that lack the attribute; rows: the proposals, as in the file.
        by: the way that was taken. note: why the head was not, where it was not.
        judged: what was hidden ("attribute", "cell") -> the ways, ours first, on cells that the model was not trained
            on; measured: the same of numbers.
        trained: those cells had to be taken from rows that the model was trained on.
    """

    attribute: str
    numeric: bool
    known: int
    missing: int
    silent: int
    by: str
    min_confidence: float
    rows: tuple[Mapping[str, Any], ...]
    judged: Mapping[str, tuple[Judged, ...]]
    measured: Mapping[str, tuple[Measured, ...]]
    trained: bool
    out: Path | None
    model: str
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        figures = self.measured if self.numeric else self.judged
        plain = {
            name: getattr(self, name)
            for name in ("attribute", "numeric", "known", "missing", "silent", "by", "min_confidence", "trained")
        }
        return {
            **plain,
            "proposals": len(self.rows),
            "note": self.note,
            "out": None if self.out is None else str(self.out),
            "model": self.model,
            "hidden": {how: [one.to_json() for one in ways] for how, ways in figures.items()},
            "settings": dict(self.settings),
            "rows": [dict(row) for row in self.rows],
        }


def complete_attribute(
    run: Path,
    data: Path,
    settings: CompleteSettings,
    *,
    out: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> CompleteResult:
    """Propose a value for every item that lacks an attribute, as sure as asked for.

    Args:
        run: a run directory; a model folder has no head, and completes by the nearest items alone.
        out: CSV or Parquet, one row a proposal.

    Raises:
        BadInput: as `open_task` and `find_attribute`; a model without a head where `by` asks for it.
    """
    check_table_path("--out", out)
    if not 0 < settings.min_confidence < 1:
        raise BadInput("--min-confidence", "above 0 and below 1", settings.min_confidence)
    if settings.neighbours < 1:
        raise BadInput("--neighbours", "at least 1", settings.neighbours)
    opened = open_task(run, data, device, progress)
    completer, note = load_head(run, settings.by)
    items = read_items(opened)
    attribute = find_attribute(opened, items, settings.attribute)
    if completer is not None and attribute.name not in opened.embedder.network.modality(attribute.modality).parts():
        if settings.by in ("head", "both"):
            raise BadInput("--by", "neighbours, for an attribute that the model was not trained on", settings.by)
        completer, note = None, f"the model was not trained on {attribute.name}"
    shares = shares_of(items, attribute, opened.embedder.recipe.split, settings.max_items)
    near = Neighbours.of(items, shares.known, settings.neighbours)
    work = _Work(opened, items, attribute, shares, settings)
    made = work.numbers(Numbers(opened, attribute, near, completer)) if attribute.numeric else None
    if made is None:
        values = known_values(attribute, shares.known)
        made = work.words(Words(opened, attribute, near, values, completer))
    by, rows, silent, judged, measured = made
    if out is not None:
        write_rows(out, rows, _NUMBERS if attribute.numeric else _SCHEMA)
    return CompleteResult(
        attribute.asked,
        attribute.numeric,
        len(attribute.values),
        len(attribute.missing),
        silent,
        by,
        settings.min_confidence,
        tuple(rows),
        judged,
        measured,
        shares.trained,
        out,
        opened.embedder.model,
        note,
        {"neighbours": settings.neighbours, "max_items": settings.max_items, "seed": settings.seed},
    )


def load_head(run: Path, by: By) -> tuple[Completer | None, str]:
    """The run's head, or why there is none."""
    if by == "neighbours":
        return None, ""
    try:
        return Completer.load(run), ""
    except BadInput as error:
        if by in ("head", "both"):
            raise BadInput(
                error.field, error.expected, error.got, "Or let the nearest items vote: --by neighbours"
            ) from None
        return None, f"no head: {error.expected} is needed, not {error.got}"


Made = tuple[str, list[dict[str, Any]], int, dict[str, tuple[Judged, ...]], dict[str, tuple[Measured, ...]]]


@dataclass
class _Work:
    """Calibrate, measure, propose."""

    opened: Opened
    items: Items
    attribute: Attribute
    shares: Shares
    settings: CompleteSettings

    def words(self, words: Words) -> Made:
        """Proposals of words."""
        for how, records in self._hidden(self.shares.calibrate):
            words.calibrate(records, [self.attribute.values[r.id] for r in records], how)
        by = self._likeliest(words)
        judged: dict[str, tuple[Judged, ...]] = {}
        for how, records in self._hidden(self.shares.measure):
            found, _ = words.distributions(records, how)
            ways = {by: found[by], **found, FREQUENT: words.frequent(len(records))}
            truth = codes_of([self.attribute.values[r.id] for r in records], words.values)
            judged[how] = judge(ways, truth, self.settings.min_confidence, **self._options(records))
        rows, silent = [], 0
        for how, records in self._missing():
            found, near = words.distributions(records, how)
            share = np.exp(found[by])
            silent += int(np.isnan(share).any(1).sum())
            sure = np.nan_to_num(share).max(1) >= self.settings.min_confidence
            kept = [record for record, one in zip(records, sure.tolist(), strict=True) if one]
            rows += self._word_rows(words, by, how, kept, share[sure], near[sure])
        rows.sort(key=lambda row: (-row["confidence"], row["id"]))
        return by, rows, silent, judged, {}

    def numbers(self, numbers: Numbers) -> Made:
        """Proposals of numbers, with intervals."""
        level, known = self.settings.min_confidence, numbers.known
        logarithmic = skewed(known)
        middle = float(np.median(known))
        reach: dict[tuple[str, str], float] = {}
        errors: dict[str, list[Floats]] = {way: [] for way in numbers.ways}
        for how, records in self._hidden(self.shares.calibrate):
            truth = self._truth(records)
            answers = {**numbers.answers(records)[0], MEDIAN: np.full(len(records), middle)}
            for way, given in answers.items():
                kept = np.isfinite(given)
                reach[way, how] = radius(truth[kept], given[kept], level, logarithmic) if kept.any() else np.inf
                if way in errors:
                    errors[way].append(np.abs(given - truth)[kept])
        by = str(self.settings.by)
        if by not in numbers.ways:
            by = min(numbers.ways, key=lambda way: float(np.concatenate(errors[way]).mean()))
        measured: dict[str, tuple[Measured, ...]] = {}
        for how, records in self._hidden(self.shares.measure):
            found = numbers.answers(records)[0]
            ways = {by: found[by], **found, MEDIAN: np.full(len(records), middle)}
            bounds = {way: _bounds(given, reach[way, how], logarithmic) for way, given in ways.items()}
            measured[how] = judge_numbers(ways, self._truth(records), bounds, **self._options(records))
        rows, silent = [], 0
        for how, records in self._missing():
            found, near = numbers.answers(records)
            low, high = _bounds(found[by], reach.get((by, how), np.inf), logarithmic)
            silent += int(np.isnan(found[by]).sum())
            for at in np.flatnonzero(np.isfinite(found[by])).tolist():
                ends = {"low": float(low[at]), "high": float(high[at])}
                proposal = {
                    "proposal": float(f"{found[by][at]:.4g}"),
                    **{k: float(f"{v:.4g}") for k, v in ends.items()},
                }
                rows.append(
                    {
                        **self._said(records[at], near[at], numbers.near),
                        **proposal,
                        "evidence": "+".join(records[at].values),
                    }
                )
        return by, rows, silent, {}, measured

    def _options(self, records: Sequence[Record]) -> Any:
        clusters = clusters_of([record.id for record in records], self.opened.together)
        return {"resamples": self.settings.resamples, "seed": self.settings.seed, "clusters": clusters}

    def _truth(self, records: Sequence[Record]) -> Floats:
        return np.asarray([self.attribute.values[record.id] for record in records], np.float64)

    def _likeliest(self, words: Words) -> str:
        """The way under which the values hidden for calibration are likeliest."""
        if self.settings.by in words.ways:
            return self.settings.by
        loss = dict.fromkeys(words.ways, 0.0)
        for how, records in self._hidden(self.shares.calibrate):
            truth = codes_of([self.attribute.values[r.id] for r in records], words.values)
            rows = np.flatnonzero(truth >= 0)
            for way, found in words.distributions(records, how)[0].items():
                likely = np.nan_to_num(found[rows, truth[rows]], nan=-14.0)
                loss[way] -= float(np.maximum(likely, -14.0).sum())
        return min(words.ways, key=lambda way: loss[way])

    def _hidden(self, ids: Sequence[str]) -> Iterator[tuple[Hidden, list[Record]]]:
        """The same items with the attribute hidden, and with the whole cell hidden; those with nothing left are out."""
        records = decoded_records(self.opened, ids)
        for how in _HOW:
            kept = [made for record in records if (made := hide(record, self.attribute, how)).values]
            if kept:
                yield how, kept

    def _missing(self) -> Iterator[tuple[Hidden, list[Record]]]:
        done = 0
        for how in _HOW:
            ids = [i for i, what in self.attribute.missing.items() if what == how]
            for begin in range(0, len(ids), _CHUNK):
                part = ids[begin : begin + _CHUNK]
                yield how, [hide(record, self.attribute, how) for record in decoded_records(self.opened, part)]
                done += len(part)
                if self.opened.progress is not None:
                    self.opened.progress("completing", done, len(self.attribute.missing))

    def _said(self, record: Record, near: Ints, neighbours: Neighbours) -> dict[str, Any]:
        ids = [neighbours.ids[row] for row in near[:3].tolist() if row >= 0]
        return {
            "id": record.id,
            "title": title(self.items, record.id),
            "attribute": self.attribute.name,
            "neighbours": ", ".join(ids),
        }

    def _word_rows(
        self, words: Words, by: str, how: Hidden, records: Sequence[Record], share: Floats, near: Ints
    ) -> list[dict[str, Any]]:
        if not records:
            return []
        order = np.argsort(-share, axis=1, kind="stable")
        evidence = self._evidence(words, by, how, records, order[:, 0], share.max(1))
        return [
            {
                **self._said(record, near[at], words.near),
                "proposal": words.values[order[at, 0]],
                "confidence": round(float(share[at, order[at, 0]]), 4),
                "runner_up": words.values[order[at, 1]],
                "runner_up_confidence": round(float(share[at, order[at, 1]]), 4),
                "evidence": evidence[at],
            }
            for at, record in enumerate(records)
        ]

    def _evidence(
        self, words: Words, by: str, how: Hidden, records: Sequence[Record], best: Ints, sure: Floats
    ) -> list[str]:
        """How the confidence falls when a modality is left out: "image (0.31 without it)"."""
        left: list[dict[str, float]] = [{} for _ in records]
        for name in dict.fromkeys(m for record in records for m in record.values):
            rows = [at for at, record in enumerate(records) if name in record.values and len(record.values) > 1]
            less = [_without(records[at], name) for at in rows]
            found = np.exp(words.distributions(less, how)[0][by]) if less else np.zeros((0, len(words.values)))
            for at, share in zip(rows, found, strict=True):
                left[at][name] = float(np.nan_to_num(share)[best[at]])
        return [_told(record, fallen, float(one)) for record, fallen, one in zip(records, left, sure, strict=True)]


def _without(record: Record, name: str) -> Record:
    return Record(record.id, {n: value for n, value in record.values.items() if n != name}, record.labels, record.group)


def _told(record: Record, left: Mapping[str, float], sure: float) -> str:
    if not left:
        return f"{next(iter(record.values))} alone"
    told = sorted((share, name) for name, share in left.items() if sure - share >= _TOLD)
    if not told:
        return f"{', '.join(left)}: any of them can be left out"
    return ", ".join(f"{name} ({share:.2f} without it)" for share, name in told)


def _bounds(answers: Floats, reach: float, logarithmic: bool) -> tuple[Floats, Floats]:
    return (answers / reach, answers * reach) if logarithmic else (answers - reach, answers + reach)
