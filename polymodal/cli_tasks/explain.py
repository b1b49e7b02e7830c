"""The command that explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from polymodal.workflow.options import Device, Files, Flag, Json, Texts, command
from polymodal.workflow.terminal import console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add the command to an app."""
    app.command(explain)


def explain(
    model: Path,
    data: Path | None = None,
    *,
    out: Path | None = None,
    id_: Annotated[str | None, Parameter(name="--id")] = None,
    with_: Annotated[str | None, Parameter(name="--with")] = None,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    image: Files = None,
    audio: Path | None = None,
    video: Path | None = None,
    attr: Texts = None,
    query: Texts = None,
    label: str | None = None,
    score: Literal["precision", "probability", "similarity"] = "precision",
    modalities: str | None = None,
    split: str = "test",
    train_split: str = "train",
    max_items: int = 1000,
    unchecked: Flag = False,
    hide: float = 0.5,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Say what each modality is worth: over a catalogue, in one item, or in the match of two.

    Over a catalogue, cells are exchanged on purpose to see which reading finds them, and so can be believed.

    Examples: polymodal explain run shards --out explained
              polymodal explain run shards --id P000012 --out item
              polymodal explain run shards --id P000012 --with P000077
              polymodal explain index --text "red lamp" --image photo.jpg --with P000077

    Args:
        model: A run or a model folder; an index where a query is given.
        data: A catalogue or prepared shards.
        out: Folder for JSON, tables and pictures.
        id_: One item instead of a catalogue.
        with_: Another item: why the two match, or why it answers the query.
        text: Words of a query to an index.
        image: Pictures of a query.
        audio: A sound of a query.
        video: A clip of a query.
        attr: NAME=VALUE of a query.
        query: MODALITY=VALUE of a query, by the modality's name.
        label: What counts as right; the first label by default.
        score: Of an item: precision in finding others of its label, probability of its label by a probe, or
            similarity with the others.
        modalities: The ones to explain, separated by commas; all by default, at most 8.
        split: Items to explain.
        train_split: Items that probes learn from.
        max_items: At most this many.
        unchecked: Exchange no cells.
        hide: Share of an item's tokens that is hidden and reconstructed, with --out.
    """
    from polymodal.types import BadInput
    from polymodal.workflow.explain_text import catalogue_text, item_text
    from polymodal.workflow.explaining import ExplainSettings, explain_catalogue
    from polymodal.workflow.explaining_item import explain_item, explain_query

    files: Mapping[str, Sequence[Path]] = {
        "image": image or [],
        "audio": [audio] if audio else [],
        "video": [video] if video else [],
    }
    asked = text is not None or attr or query or any(files.values())
    if asked:
        if id_ is not None or data is not None:
            raise BadInput(
                "a query", "an index alone", "DATA" if data is not None else "--id", "An index has the items."
            )
        if with_ is None:
            raise BadInput("--with", "the item that answers the query", "nothing", "Find one: polymodal search INDEX")
        from polymodal.workflow.searching import make_query, open_engine

        engine = open_engine(model, None, device)
        words = [] if text is None else [text]
        record = make_query(engine.modalities, {"text": words, **files}, attr or [], query or [])
        found = explain_query(engine, record, with_, out, command=command())
        emit(json, found.to_json(), item_text(found))
        return
    if data is None:
        raise BadInput("DATA", "a catalogue or prepared shards", "nothing", "polymodal explain MODEL DATA --out FOLDER")
    if with_ is not None and id_ is None:
        raise BadInput("--with", "--id of the item that it matches", "no --id")
    names = tuple(part.strip() for part in (modalities or "").split(",") if part.strip())
    settings = ExplainSettings(split, train_split, label, score, names, max_items, not unchecked, 1000, seed)
    with stage_bar(console()) as progress:
        options: Any = {"command": command(), "device": device, "progress": progress}
        if id_ is None:
            made = explain_catalogue(model, data, out, settings, **options)
        else:
            item = explain_item(model, data, id_, with_, out, settings, hide=hide, **options)
    if id_ is None:
        emit(json, made.to_json(), catalogue_text(made))
    else:
        emit(json, item.to_json(), item_text(item))
