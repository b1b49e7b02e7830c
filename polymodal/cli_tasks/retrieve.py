"""`polymodal retrieve`: any modalities look for any others, by vectors, by words, by both and in two stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from polymodal.workflow.options import Device, Flag, Json
from polymodal.workflow.terminal import console, emit, stage_bar

__all__ = ["register"]

Cuts = Annotated[list[int] | None, Parameter(name=["-k", "--k"], consume_multiple=True, negative=())]


def register(app: App) -> None:
    """Add this command to an app."""
    app.command(retrieve)


def retrieve(
    model: Path,
    data: Path,
    *,
    queries: str | None = None,
    corpus: str | None = None,
    split: str = "test",
    corpus_split: str | None = None,
    relevance: str | None = None,
    label: str | None = None,
    qrels: Path | None = None,
    pairs: Path | None = None,
    columns: str = "query,id",
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    k: Cuts = None,
    depth: int = 1000,
    max_queries: int | None = None,
    rerank: int = 0,
    matcher: Path | None = None,
    every_pair: Flag = False,
    learn_split: str | None = None,
    out: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure retrieval from any modalities to any others, beside BM25, both fused, and two stages.

    Right is the same item (where the modalities differ), the same group (fine) and the same label (coarse), or what
    --qrels or --pairs says. A query is never its own answer unless the item itself is looked for.

    Examples: polymodal retrieve run demo/shards --queries text --corpus image,table --out found
              polymodal retrieve run demo/shards --queries text --corpus image --rerank 100 --learn-split val
              polymodal retrieve run shards --pairs reviews.parquet --columns query,product

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        queries: Modalities that queries are made of, separated by commas: items that have all of them. As they are by
            default.
        corpus: The same for the items that are searched.
        split: Rows that ask.
        corpus_split: Rows that are searched; those of --split by default.
        relevance: Some of item,fine,coarse; all that the data has by default.
        label: What coarse means; the first label of the data by default.
        qrels: A TREC file of right answers, ids of the data.
        pairs: A table (Parquet, CSV, TSV, JSONL) of words and the id or group of the item they looked for: its words
            are the queries.
        columns: Of that table, words first.
        as_: The text of the model that such words are put into, where it has several.
        k: Cuts of the metrics, 1 5 10 by default.
        depth: Length of the lists.
        max_queries: Ask at most this many, drawn with the seed.
        rerank: Let the matching head rank this many of each list again, 32 to 200 or so.
        matcher: Another model for that, such as one of: polymodal tune-matcher
        every_pair: Let it score every pair too, to see what the first stage loses.
        learn_split: Learn on the queries of this split how much each search counts, and add the searches blended so.
        out: Folder for a TREC run of every search, the qrels and retrieval.json.
        resamples: Of the bootstrap, which draws whole groups (variants of a product).
        seed: Of drawing queries and of the bootstrap.
    """
    from polymodal.workflow.retrieval import RetrieveSettings, retrieve_data
    from polymodal.workflow.retrieval_text import retrieve_text

    settings = RetrieveSettings(
        queries=split_names(queries), corpus=split_names(corpus), split=split, corpus_split=corpus_split,
        relevance=split_names(relevance), label=label, qrels=qrels, pairs=pairs, columns=pair_columns(columns),
        query_modality=as_, ks=tuple(sorted(set(k or (1, 5, 10)))), depth=depth, max_queries=max_queries,
        rerank=rerank, matcher=matcher, every_pair=every_pair, learn_split=learn_split, resamples=resamples, seed=seed,
    )  # fmt: skip
    with stage_bar(console()) as progress:
        result = retrieve_data(model, data, settings, out=out, device=device, progress=progress)
    emit(json, result.to_json(), retrieve_text(result))


def split_names(text: str | None) -> tuple[str, ...]:
    """The names between the commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def pair_columns(text: str) -> tuple[str, str]:
    """The two columns of a query log. Raises BadInput for more or fewer."""
    from polymodal.types import BadInput

    names = split_names(text)
    if len(names) != 2:
        raise BadInput("--columns", "two columns, QUERY,ID", repr(text))
    return names[0], names[1]
