"""One item explained: what its modalities are worth, why it matches another one, what its tokens look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from polymodal.complete import Completer
from polymodal.config import nearest
from polymodal.embed import Embedder
from polymodal.evaluate import AS_IS, Subset
from polymodal.evaluate.values import plain
from polymodal.service import Engine
from polymodal.tasks import worth as task
from polymodal.tasks.attend import Attended, attend, occlusion
from polymodal.tasks.matched import Match, Vectors, explain_match
from polymodal.tasks.restore import Restored, level_error, restore
from polymodal.types import BadInput, CorruptCheckpoint, Record
from polymodal.workflow.explaining import (
    ExplainSettings,
    all_subsets,
    check_folder,
    chosen_names,
    only,
    others_of,
    values_of,
)
from polymodal.workflow.files import write_bytes
from polymodal.workflow.items import splits_of
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.records import title_of
from polymodal.workflow.subsets import Evaluated, embed_subsets

__all__ = ["ItemResult", "Seen", "explain_item", "explain_query"]

Floats = np.ndarray


@dataclass(frozen=True)
class Seen:
    """What there is to draw of an item.

    Args:
        record: decoded as the model reads it. attended: of its trunk, or None. occluded: modality -> map.
        restored: modality -> reconstruction.
    """

    record: Record
    attended: Attended | None
    occluded: Mapping[str, Floats]
    restored: Mapping[str, Restored]


@dataclass(frozen=True)
class ItemResult:
    """One item, explained.

    Args:
        label, value: what counted as right, "" where nothing did. score: of what. full, empty: from all, from nothing.
        values: reading -> modality -> number, of the modalities that the item has.
        match: why it is close to another item, where that was asked.
        attention: who looks at whom in the trunk: modality (or "item") -> share in each.
        restored: modality -> tokens hidden, share of words right, error over that of the blank.
        figures: names of the pictures in `out`. notes: what was left out, and why.
    """

    out: Path | None
    model: str
    id: str
    title: str = ""
    label: str = ""
    value: str = ""
    score: str = ""
    full: float = float("nan")
    empty: float = float("nan")
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    match: Match | None = None
    attention: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    restored: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON; numbers that are not finite become None."""
        made = {name: plain(getattr(self, name)) for name in self.__dataclass_fields__ if name != "match"}
        return {**made, "match": None if self.match is None else self.match.to_json()}


def explain_item(
    model: Path,
    data: Path,
    name: str,
    other: str | None = None,
    out: Path | None = None,
    settings: ExplainSettings | None = None,
    *,
    hide: float = 0.5,
    command: str = "polymodal explain",
    device: str = "cpu",
    progress: Progress | None = None,
) -> ItemResult:
    """Explain one item, and why another one is close to it.

    Args:
        name, other: ids. The item is looked for among the items of its own split.
        out: folder for explain.json and the pictures: attention, occlusion, reconstruction. None draws none.
        hide: share of the tokens hidden for the reconstruction.

    Raises:
        BadInput: an id that the data lacks, an item with nothing that the model reads; as `explain_catalogue`.
    """
    settings = settings or ExplainSettings()
    check_folder(out)
    if not 0 < hide <= 1:
        raise BadInput("--hide", "a share above 0, at most 1", hide)
    opened = open_task(model, data, device, progress)
    names = chosen_names(opened, settings.modalities)
    records = [_record(opened, i, names, option) for i, option in ((name, "--id"), (other, "--with")) if i]
    found = opened.vectors(records, "embedding", all_subsets(names))
    missing = next((r.id for r in records if r.id not in found.presence or not found.presence[r.id]), None)
    if missing is not None:
        raise BadInput(f"item {missing!r}", f"one of {', '.join(names)} that can be read", "none")
    result = ItemResult(out, opened.embedder.model, name, title_of(records[0]))
    if settings.label is not None or opened.labels:
        result = _valued(result, opened, found, names, settings)
    else:
        result = replace(result, notes=("The data has no labels: nothing says what the item's modalities are worth.",))
    if other is not None:
        sides = [(i, _vectors(found, i)) for i in (name, other)]
        result = replace(result, match=explain_match(sides[0], sides[1], names))
    if out is not None:
        target = _vectors(found, other)[AS_IS] if other is not None else None
        result = _drawn(
            result,
            opened.embedder,
            records[0],
            target,
            lambda: restore(Completer.load(model), records[0], hide, seed=settings.seed),
        )
    return result if out is None else _written(result, out, command)


def explain_query(
    engine: Engine, query: Record, item: str, out: Path | None = None, *, command: str = "polymodal explain"
) -> ItemResult:
    """Why an item of an index answers a query: what each modality of the query adds to the score.

    Args:
        engine: of `workflow.searching.open_engine`. query: as `make_query` makes it. item: an id of the index.
        out: folder for explain.json and the pictures of the query. None writes nothing.

    Raises:
        BadInput: an id that the index does not hold. MediaError: a file of the query that cannot be decoded.
    """
    check_folder(out)
    held = engine.index.get([item]).vectors[0]
    embedder = cast(Embedder, engine.embedder)
    names = [name for name in embedder.modalities if name in query.values]
    embedder.embed([query])  # says what cannot be read, where the subsets would leave it out
    found = embed_subsets(embedder, [query], all_subsets(names), control=False)
    match = explain_match((query.id, _vectors(found, query.id)), (item, {AS_IS: held}), names)
    result = ItemResult(out, embedder.model, query.id, match=match)
    if out is not None:
        result = _drawn(result, embedder, query, held)
    return result if out is None else _written(result, out, command)


def _record(opened: Opened, name: str, names: Sequence[str], option: str) -> Record:
    ids = opened.rows.index["id"].to_pylist()
    if name not in ids:
        raise BadInput(option, "an id of the data", repr(name), nearest(name, ids))
    at = ids.index(name)
    begin = 0
    for number, count in enumerate(opened.rows.blocks):
        if at < begin + count:
            cut = only([opened.rows.block(number)[at - begin]], names)
            break
        begin += count
    if not cut:
        raise BadInput(f"item {name!r}", f"at least one of {', '.join(names)}", "none of them")
    return cut[0]


def _vectors(found: Evaluated, name: str) -> dict[Subset, Vectors]:
    """Subset -> vector of one item; AS_IS is the one of all that it has."""
    made: dict[Subset, Vectors] = {}
    for subset, vectors in found.fused.items():
        if name in vectors.ids:
            made[subset] = vectors.vectors[vectors.ids.index(name)]
    return made


def _valued(
    result: ItemResult, opened: Opened, found: Evaluated, names: Sequence[str], settings: ExplainSettings
) -> ItemResult:
    label, keys = opened.label(settings.label)
    if result.id not in keys:
        return replace(result, notes=(f"The item has no {label}: nothing says what its modalities are worth.",))
    split = splits_of(opened)[result.id]
    corpus = only(opened.records(split, settings.max_items, settings.seed), names)
    searched = opened.vectors(corpus, "embedding the others")
    mine = _of_one(found, result.id)
    learnt = None
    if settings.score == "probability":
        rows = opened.records(settings.train_split, 2 * settings.max_items, settings.seed)
        rows = [r for r in only(rows, names) if r.id != result.id]
        learnt = opened.vectors(rows, "embedding what probes learn from")
    values = values_of(settings.score, mine, names, keys, learnt, searched.fused[AS_IS])
    if not np.isfinite(values.whole).any():
        return replace(result, notes=(f"No other item of its split has its {label} ({keys[result.id]}).",))
    made = task.worth(values, others_of(opened, mine, values), resamples=0)
    shown = {
        one.name: {n: float(one.per_item[0, at]) for at, n in enumerate(names) if values.present[0, at]}
        for one in made.readings
    }
    full, empty = float(values.whole[0]), made.empty
    return replace(result, label=label, value=keys[result.id], score=made.score, full=full, empty=empty, values=shown)


def _of_one(found: Evaluated, name: str) -> Evaluated:
    """The vectors of one item alone."""

    def cut(vectors: Any) -> Any:
        return type(vectors)((name,), vectors.rows([name]), vectors.model)

    return Evaluated(
        {s: cut(e) for s, e in found.fused.items() if name in e.ids},
        {},
        {n: cut(e) for n, e in found.towers.items() if name in e.ids},
        {name: found.presence[name]},
    )


def _restored(model: Path, record: Record, hide: float, seed: int) -> Mapping[str, Restored]:
    return restore(Completer.load(model), record, hide, seed=seed)


def _drawn(
    result: ItemResult,
    embedder: Embedder,
    record: Record,
    target: Vectors | None,
    reconstruct: Callable[[], Mapping[str, Restored]] = dict,
) -> ItemResult:
    """The result with its pictures, written into its folder; what cannot be drawn becomes a note."""
    from polymodal.workflow.explain_figures import item_figures

    notes = list(result.notes)
    attended: Attended | None = None
    restored: Mapping[str, Restored] = {}
    try:
        attended = attend(embedder, record)
    except BadInput as error:
        notes.append(f"No attention: {error}")
    pictures = [n for n, kind in embedder.modalities.items() if kind in ("image", "video") and n in record.values]
    occluded = {n: occlusion(embedder, record, n, target) for n in pictures}
    try:
        restored = reconstruct()
    except (BadInput, CorruptCheckpoint) as error:
        notes.append(f"No reconstruction: {error}")
    files = item_figures(Seen(record, attended, occluded, restored), embedder)
    assert result.out is not None
    result.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(result.out / name, content)
    facts = {
        n: {"kind": r.kind, "hidden": r.hidden, "tokens": r.tokens, "right": r.right, "error": level_error(r)}
        for n, r in restored.items()
    }
    between = {} if attended is None else attended.between()
    return replace(result, attention=between, restored=facts, notes=tuple(notes), figures=tuple(files))


def _written(result: ItemResult, out: Path, command: str) -> ItemResult:
    said = {"command": command, **result.to_json()}
    write_bytes(out / "explain.json", (json.dumps(said, ensure_ascii=False, indent=1) + "\n").encode())
    return result
