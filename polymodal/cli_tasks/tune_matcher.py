"""`polymodal tune-matcher`: what a model thinks belongs together, corrected by what people looked for and found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from polymodal.workflow.options import Device, Json, Texts
from polymodal.workflow.terminal import console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add this command to an app."""
    app.command(tune_matcher, name="tune-matcher")


def tune_matcher(
    model: Path,
    data: Path,
    *,
    pairs: Path,
    out: Path,
    columns: str = "query,id",
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    corpus: str | None = None,
    split: str = "train",
    set_: Annotated[Texts, Parameter(name="--set")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Fine-tune a matching head on a query log, with the wrong answers that the vectors find likely, on both sides.

    The tuned model is for the second stage: polymodal retrieve MODEL DATA --rerank 100 --matcher OUT. Keep searching by
    the vectors of the old one. Queries of items of other splits are not learnt from.

    Example: polymodal tune-matcher run shards --pairs reviews.parquet --columns query,product --out tuned

    Args:
        model: A run or a model folder, with a matching head: polymodal train interbert
        data: A catalogue or prepared shards.
        pairs: A table (Parquet, CSV, TSV, JSONL) of words and the id or group of the item they looked for.
        out: New folder.
        columns: Of that table, words first.
        as_: The text of the model that such words are put into, where it has several.
        corpus: Modalities that items are made of, separated by commas; as they are by default.
        split: Items to learn from.
        set_: Settings, such as epochs=10 hard=2 part=head.
    """
    from polymodal.cli_tasks.retrieve import pair_columns, split_names
    from polymodal.tasks.tune_matcher import TuneConfig
    from polymodal.workflow.matcher_tuning import tune_data
    from polymodal.workflow.retrieval_text import tune_text

    config = TuneConfig().override(set_ or ())
    with stage_bar(console()) as progress:
        result = tune_data(
            model, data, pairs, out, config, columns=pair_columns(columns), query_modality=as_,
            corpus=split_names(corpus), split=split, device=device, progress=progress,
        )  # fmt: skip
    emit(json, result.to_json(), tune_text(result))
