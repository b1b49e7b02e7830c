"""The commands of recommendation: a list on demand, lists for many topics, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from polymodal.types import BadInput
from polymodal.workflow.options import Count, Device, Files, Flag, Json, Texts
from polymodal.workflow.terminal import console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add these commands to an app."""
    app.command(recommend)
    app.command(topics)
    app.command(recommend_eval, name="recommend-eval")


def recommend(
    index: Path,
    *,
    topic: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    history: Texts = None,
    image: Files = None,
    audio: Path | None = None,
    video: Path | None = None,
    attr: Texts = None,
    query: Texts = None,
    where: Texts = None,
    k: Count = 10,
    diversity: float = 0.0,
    least: float | None = None,
    blend: Literal["mean", "max"] = "mean",
    model: Path | None = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Recommend items for a topic, or to somebody who saw some items: one of each group, as diverse as asked.

    Examples: polymodal recommend index --topic "beach party" --diversity 0.3
              polymodal recommend index --history P000012 P000034 --where price=10..50

    Args:
        index: As polymodal index wrote it.
        topic: Words; with --image, --audio, --video, --attr or --query a topic is any mix, as in search.
        history: Ids, the oldest first: neither they nor others of their groups are recommended.
        image: One picture or several.
        audio: A sound.
        video: A clip.
        attr: NAME=VALUE that the items should resemble.
        query: MODALITY=VALUE, by the modality's name.
        where: NAME=VALUE or NAME=MIN..MAX that items must satisfy.
        k: How many.
        diversity: From 0 (the most relevant) to 1 (the most unlike one another).
        least: Probability that an item must reach; fit it first: polymodal recommend-eval --write.
        blend: Of a history: near its recency-weighted mean, or near any one item of it.
        model: The model, if it is no longer where it was.
    """
    from polymodal.tasks.recommend import Wanted
    from polymodal.workflow.recommend_text import recommend_text
    from polymodal.workflow.recommending import recommend_history, recommend_topic
    from polymodal.workflow.searching import make_query, open_engine

    wanted = Wanted(k, diversity, least)
    files: Mapping[str, Sequence[Path]] = {
        "image": image or [],
        "audio": [audio] if audio else [],
        "video": [video] if video else [],
    }
    if topic is not None and not topic.strip():
        raise BadInput("--topic", "some words", repr(topic))
    asked = topic is not None or any(files.values()) or bool(attr) or bool(query)
    if asked == (history is not None):
        raise BadInput("recommend", "--topic (or another part of one) or --history", "both" if asked else "neither")
    if history is not None:
        result = recommend_history(index, history, wanted, where or (), blend)
    else:
        engine = open_engine(index, model, device)
        words = [] if topic is None else [topic]
        record = make_query(engine.modalities, {"text": words, **files}, attr or [], query or [])
        result = recommend_topic(engine, index, record, wanted, where or ())
    emit(json, result.to_json(), recommend_text(result))


def topics(
    index: Path,
    *,
    out: Path,
    topics: Path | None = None,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    clusters: int | None = None,
    where: Texts = None,
    k: Count = 10,
    diversity: float = 0.0,
    least: float | None = None,
    pool: int = 100,
    rerank: bool = True,
    data: Path | None = None,
    model: Path | None = None,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Recommend for many topics, into a Parquet file; ranked again where the model has a matching head.

    Examples: polymodal topics index --topics topics.txt --out recommendations.parquet
              polymodal topics index --clusters 20 --out recommendations.parquet

    Args:
        index: As polymodal index wrote it.
        out: The file: columns topic, rank, id, group, title, score, by, probability.
        topics: A text file, one topic a line, or a catalogue whose rows are topics.
        as_: The text of the model that such lines are put into, where it has several.
        clusters: Or this many clusters of the catalogue.
        where: NAME=VALUE or NAME=MIN..MAX that items must satisfy.
        k: How many of each.
        diversity: From 0 (the most relevant) to 1 (the most unlike one another).
        least: Probability that an item must reach; fit it first: polymodal recommend-eval --write.
        pool: How many of the nearest items are ranked again.
        rerank: --no-rerank keeps the order of the vectors.
        data: The catalogue, if it is no longer where it was: ranking again reads the items.
        model: The model, if it is no longer where it was.
        seed: Of the clusters.
    """
    from polymodal.tasks.recommend import Wanted
    from polymodal.workflow.recommend_text import topics_text
    from polymodal.workflow.recommending import recommend_topics

    wanted = Wanted(k, diversity, least, pool)
    with stage_bar(console()) as progress:
        result = recommend_topics(
            index, out, wanted, topics=topics, query_modality=as_, clusters=clusters, seed=seed, rerank=rerank,
            filters=where or (), data=data, model=model, device=device, progress=progress,
        )  # fmt: skip
    emit(json, result.to_json(), topics_text(result))


def recommend_eval(
    index: Path,
    pairs: Path | None = None,
    *,
    labels: Texts = None,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    k: Count = 10,
    diversity: float = 0.3,
    pool: int = 100,
    calibration: Literal["platt", "isotonic"] = "platt",
    write: Flag = False,
    data: Path | None = None,
    model: Path | None = None,
    seed: int = 0,
    resamples: int = 1000,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure recommendations on known pairs, against popularity, words and chance; and fit what a score is worth.

    Examples: polymodal recommend-eval index links.parquet
              polymodal recommend-eval index --labels colour category --write

    Args:
        index: As polymodal index wrote it.
        pairs: Parquet: id and linked_id (or group_id and linked_group_id); user and id; or query and id.
        labels: Labels of the data: each combination of their values is a topic, and a taste.
        as_: The text of the model that words of topics are put into, where it has several.
        k: Length of the lists.
        diversity: Of the lists that are compared with plain ones.
        pool: How many of the nearest items are looked at.
        calibration: Which one is kept by --write.
        write: Keep the calibration beside the index, for --least.
        data: The catalogue, if it is no longer where it was.
        model: The model, if it is no longer where it was.
        seed: Draws the half of the cases that is measured.
        resamples: Of the bootstrap.
    """
    from polymodal.tasks.recommend import Wanted
    from polymodal.workflow.recommend_eval import evaluate_recommendations
    from polymodal.workflow.recommend_text import eval_text

    with stage_bar(console()) as progress:
        result = evaluate_recommendations(
            index, pairs, Wanted(k, diversity, None, pool), labels=labels or (), query_modality=as_,
            calibration=calibration, write=write,
            data=data, model=model, device=device, seed=seed, resamples=resamples, progress=progress,
        )  # fmt: skip
    emit(json, result.to_json(), eval_text(result))
