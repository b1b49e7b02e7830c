"""Words for texts that are missing: a run and data in, a table for review out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from polymodal.complete import Completer
from polymodal.evaluate import top_k
from polymodal.evaluate.intervals import clusters_of
from polymodal.tasks.dedup import unit
from polymodal.tasks.items import Items
from polymodal.tasks.words import (
    Proposal,
    Worded,
    frequent_words,
    head_words,
    judge_words,
    neighbour_words,
    words_in,
)
from polymodal.tensors import stable_hash
from polymodal.types import BadInput, Record
from polymodal.workflow._attribute import decoded_records
from polymodal.workflow._ways import FREQUENT, HEAD, NEAREST, queries
from polymodal.workflow.completion import By, load_head
from polymodal.workflow.files import check_table_path, write_rows
from polymodal.workflow.items import read_items
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.records import check_names

__all__ = ["WordsResult", "WordsSettings", "complete_words"]

_CHUNK = 256
_FEW = 10
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("modality", pa.string()),
        ("words", pa.string()),
        ("shares", pa.string()),
        ("nearest", pa.string()),
        ("nearest_text", pa.string()),
    ]
)


@dataclass(frozen=True)
class WordsSettings:
    """How words are proposed: for the texts of `modality`, `words` of them, by the head or the nearest items."""

    modality: str
    words: int = 5
    by: By = "auto"
    neighbours: int = 20
    max_items: int = 500
    seed: int = 0
    resamples: int = 1000


@dataclass(frozen=True)
class WordsResult:
    """What is proposed, and how many of such words were in hidden texts. Args as of `CompleteResult`."""

    modality: str
    known: int
    missing: int
    by: str
    rows: tuple[Mapping[str, Any], ...]
    judged: tuple[Worded, ...]
    out: Path | None
    model: str
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "modality": self.modality,
            "known": self.known,
            "missing": self.missing,
            "by": self.by,
            "proposals": len(self.rows),
            "hidden": [one.to_json() for one in self.judged],
            "note": self.note,
            "out": None if self.out is None else str(self.out),
            "model": self.model,
            "settings": dict(self.settings),
            "rows": [dict(row) for row in self.rows],
        }


@dataclass
class _Texts:
    """The texts that are known, and both ways of proposing words."""

    opened: Opened
    settings: WordsSettings
    completer: Completer | None
    ids: tuple[str, ...]
    vectors: np.ndarray
    words: list[list[str]]

    def propose(self, records: Sequence[Record]) -> tuple[dict[str, list[Proposal]], list[list[str]]]:
        """Way -> words for each record, and ids of the nearest items."""
        vectors, at = queries(self.opened, records)
        near: list[Proposal] = [[] for _ in records]
        ids: list[list[str]] = [[] for _ in records]
        if len(at):
            rows, scores = top_k(vectors, self.vectors, self.settings.neighbours, ids=self.ids)
            found = neighbour_words(rows, scores, self.words, self.settings.words)
            for place, proposal, best in zip(at.tolist(), found, rows.tolist(), strict=True):
                near[place], ids[place] = proposal, [self.ids[row] for row in best[:3] if row >= 0]
        out = {NEAREST: near}
        if self.completer is not None:
            known = {word for words in self.words for word in words}
            guesses = self.completer.guesses(records, self.settings.modality)
            out[HEAD] = [[] if g is None else head_words(g.choices, known, self.settings.words) for g in guesses]
        return out, ids


def complete_words(
    run: Path,
    data: Path,
    settings: WordsSettings,
    *,
    out: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> WordsResult:
    """Propose words for every item that lacks a text and has something else.

    Raises:
        BadInput: as `open_task`; a modality that is no text; too few held-out items to measure on.
    """
    check_table_path("--out", out)
    if settings.words < 1 or settings.neighbours < 1:
        raise BadInput("--neighbours, --words", "at least 1", f"{settings.neighbours}, {settings.words}")
    opened = open_task(run, data, device, progress)
    check_names("--modality", [settings.modality], opened.embedder.modalities, "a modality of the model")
    completer, note = load_head(run, settings.by)
    items = read_items(opened)
    texts = {i: v for i, v in items.cells.get(settings.modality, {}).items() if isinstance(v, str)}
    if not texts:
        raise BadInput("--modality", "one of words", settings.modality, "For an attribute: --attribute NAME")
    held, known = _shares(opened, items, texts, settings)
    words = [words_in(texts[i]) for i in known]
    work = _Texts(opened, settings, completer, tuple(known), unit(items.fused.rows(known)), words)
    by, judged = _judged(work, held, texts)
    lacking = [i for i in items.ids if i not in items.digests.get(settings.modality, {})]
    rows = [row for begin in range(0, len(lacking), _CHUNK) for row in _rows(work, by, lacking[begin:][:_CHUNK], texts)]
    if out is not None:
        write_rows(out, rows, _SCHEMA)
    shown = {"words": settings.words, "neighbours": settings.neighbours, "seed": settings.seed}
    model = opened.embedder.model
    return WordsResult(settings.modality, len(texts), len(lacking), by, tuple(rows), judged, out, model, note, shown)


def _shares(
    opened: Opened, items: Items, texts: Mapping[str, str], settings: WordsSettings
) -> tuple[list[str], list[str]]:
    """Ids to hide the text of, of rows that the model was not trained on and that have more; the other known ones."""
    trained = opened.embedder.recipe.split
    others = {i for name, own in items.digests.items() if name != settings.modality for i in own}
    held = [i for i in items.ids if i in texts and i in others and items.splits.get(i, trained) != trained]
    held = sorted(held, key=stable_hash)[: 2 * settings.max_items]
    out = frozenset(held)
    groups = {items.groups[i] for i in held if i in items.groups}
    known = [i for i in items.ids if i in texts and i not in out and items.groups.get(i) not in groups]
    if len(held) < 2 * _FEW or len(known) < _FEW:
        raise BadInput("data", f"{2 * _FEW} items with {settings.modality} outside the split {trained!r}", len(held))
    return held, known


def _judged(work: _Texts, held: Sequence[str], texts: Mapping[str, str]) -> tuple[str, tuple[Worded, ...]]:
    """Which way proposes more right words on half of the hidden texts, and all ways on the other half."""
    name, k = work.settings.modality, work.settings.words
    # halves of groups, so that no variant of a measured item chose the way
    records = [_hidden(r, name) for r in decoded_records(work.opened, held)]
    first = [stable_hash(f"half\0{r.group or r.id}") % 2 == 0 for r in records]
    parts = [[r for r, one in zip(records, first, strict=True) if one is wanted] for wanted in (True, False)]
    options: Any = {"resamples": work.settings.resamples, "seed": work.settings.seed}
    truth = [[words_in(texts[r.id]) for r in part] for part in parts]
    clusters = [clusters_of([r.id for r in part], work.opened.together) for part in parts]
    chosen = judge_words(work.propose(parts[0])[0], truth[0], k, clusters=clusters[0], **options)
    by = str(work.settings.by)
    if by not in [one.name for one in chosen]:
        by = max(chosen, key=lambda one: one.precision.mean).name
    found = work.propose(parts[1])[0]
    frequent = frequent_words(work.words, k)
    ways = {by: found[by], **found, FREQUENT: [frequent] * len(parts[1])}
    return by, judge_words(ways, truth[1], k, clusters=clusters[1], **options)


def _hidden(record: Record, name: str) -> Record:
    return Record(record.id, {n: value for n, value in record.values.items() if n != name}, record.labels, record.group)


def _rows(work: _Texts, by: str, ids: Sequence[str], texts: Mapping[str, str]) -> list[dict[str, Any]]:
    found, near = work.propose(decoded_records(work.opened, ids))
    return [
        {
            "id": name,
            "modality": work.settings.modality,
            "words": " ".join(word for word, _ in proposal),
            "shares": " ".join(f"{share:.2f}" for _, share in proposal),
            "nearest": ", ".join(like),
            "nearest_text": texts[like[0]].splitlines()[0] if like else "",
        }
        for name, proposal, like in zip(ids, found[by], near, strict=True)
        if proposal
    ]
