"""The commands that look for faults: the same item twice, cells that do not belong together, cells that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from polymodal.workflow.options import Count, Device, Flag, Json
from polymodal.workflow.terminal import console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add these commands to an app."""
    for command in (dedup, mismatch, complete):
        app.command(command)


def dedup(
    model: Path,
    data: Path,
    *,
    out: Path | None = None,
    min_similarity: float | None = None,
    split: str | None = None,
    within_groups: Flag = False,
    neighbours: int = 10,
    plant: int = 0,
    truth: Path | None = None,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Find items that are in a catalogue twice, exactly or nearly, and say what makes them alike.

    Examples: polymodal dedup run demo/shards --out duplicates.csv
              polymodal dedup run demo/shards --plant 50

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        out: Table of the groups, .csv or .parquet.
        min_similarity: Cosine from which on two items are one; by default derived from planted copies.
        split: Items of one split; all by default.
        within_groups: Also items of one group (parent SKU); by default only their exact copies.
        neighbours: Candidates looked at for each item.
        plant: Plant this many copies with small changes, and report how many are found.
        truth: Table with columns id and duplicate_of: report how many of these are found.
        seed: Of the planted copies.
    """
    from polymodal.workflow.dedup import DedupSettings
    from polymodal.workflow.dedup import dedup as find
    from polymodal.workflow.fault_text import dedup_text

    settings = DedupSettings(min_similarity, split, within_groups, neighbours, plant, truth, seed)
    with stage_bar(console()) as progress:
        result = find(model, data, settings, out=out, device=device, progress=progress)
    emit(json, result.to_json(), dedup_text(result))


def mismatch(
    model: Path,
    data: Path,
    *,
    out: Path | None = None,
    modality: str | None = None,
    split: str | None = None,
    k: Count = 100,
    plant: int = 0,
    truth: Path | None = None,
    label: str | None = None,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Rank items by how badly one of their cells fits the others: a wrong picture for a title.

    Examples: polymodal mismatch run demo/shards --modality image --out wrong.csv
              polymodal mismatch run demo/shards --plant 40

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        out: Table of the worst items, .csv or .parquet.
        modality: Whose cells are in doubt; by default whichever fits worst.
        split: Items of one split; all by default.
        k: Items listed.
        plant: Exchange this many cells between items, and report how many are found; of each modality in turn.
        truth: Table with columns id and swapped_with: report how many of these are found.
        label: Cells are exchanged between different values of this label; the first label by default.
        seed: Of the exchanges.
    """
    from polymodal.workflow.fault_text import mismatch_text
    from polymodal.workflow.mismatch import MismatchSettings
    from polymodal.workflow.mismatch import mismatch as find

    settings = MismatchSettings(modality, split, k, plant, truth, label, seed)
    with stage_bar(console()) as progress:
        result = find(model, data, settings, out=out, device=device, progress=progress)
    emit(json, result.to_json(), mismatch_text(result))


def complete(
    run: Path,
    data: Path,
    *,
    attribute: str | None = None,
    modality: str | None = None,
    min_confidence: float = 0.9,
    out: Path | None = None,
    by: Literal["auto", "head", "neighbours", "both"] = "auto",
    neighbours: int = 20,
    words: int = 5,
    max_items: int = 500,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Propose values of an attribute, or words of a text, for items that lack it; measured on cells that were hidden.

    Examples: polymodal complete run demo/shards --attribute colour --out review.csv
              polymodal complete run demo/shards --attribute price --min-confidence 0.8
              polymodal complete run demo/shards --modality text --out words.csv

    Args:
        run: A run; of a model folder the nearest items vote.
        data: A catalogue or prepared shards.
        attribute: Its name, with that of the modality before it if several have one: facts.colour.
        modality: A text that items lack as a whole; instead of an attribute.
        min_confidence: Of the proposals; for numbers the share of true values that an interval is to hold.
        out: Table for review, .csv or .parquet.
        by: The model's head, the nearest items, both; auto takes what is likeliest right on hidden cells.
        neighbours: Nearest items that vote.
        words: Proposed for each text.
        max_items: Calibrate, and measure, on at most this many hidden cells.
        seed: Of the intervals.
    """
    from polymodal.types import BadInput
    from polymodal.workflow.completion import CompleteSettings, complete_attribute
    from polymodal.workflow.fault_text import complete_text, words_text
    from polymodal.workflow.word_completion import WordsSettings, complete_words

    if (attribute is None) == (modality is None):
        raise BadInput("complete", "--attribute NAME, or --modality NAME of a text", "both" if attribute else "neither")
    if modality is not None:
        asked = WordsSettings(modality, words, by, neighbours, max_items, seed)
        with stage_bar(console()) as progress:
            found = complete_words(run, data, asked, out=out, device=device, progress=progress)
        emit(json, found.to_json(), words_text(found))
        return
    assert attribute is not None
    settings = CompleteSettings(attribute, min_confidence, by, neighbours, max_items, seed)
    with stage_bar(console()) as progress:
        result = complete_attribute(run, data, settings, out=out, device=device, progress=progress)
    emit(json, result.to_json(), complete_text(result))
