"""Recommendations from an index folder: for a topic or a history on demand, and for many topics into a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.service import Cards, Engine
from polymodal.tasks.recommend import Blend, Judge, Recommended, Rerank, Wanted, check_topic
from polymodal.types import BadInput, Embeddings, MediaError, Record
from polymodal.workflow.files import aside
from polymodal.workflow.indexing import data_of_index
from polymodal.workflow.pairs import record_of_words
from polymodal.workflow.searching import kinds_of, open_engine, open_without_model, parse_where, shown_query

if TYPE_CHECKING:
    from polymodal.catalogue.rows import Rows

__all__ = [
    "RecommendResult",
    "TopicsResult",
    "judge_of",
    "read_topics",
    "recommend_history",
    "recommend_topic",
    "recommend_topics",
    "records_of_ids",
]

FORMAT = b"polymodal-recommendations"
_SHOWN = 3
_SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("rank", pa.int32()),
        ("id", pa.string()),
        ("group", pa.string()),
        ("title", pa.string()),
        ("score", pa.float64()),
        ("by", pa.string()),
        ("probability", pa.float64()),
    ]
)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecommendResult:
    """A list in its order: rank, id, score, by, probability, group, title, attributes. `asked` is for people."""

    index: Path
    asked: Mapping[str, Any]
    items: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"index": str(self.index), "asked": dict(self.asked), "items": [dict(item) for item in self.items]}


@dataclass(frozen=True)
class TopicsResult:
    """What `recommend_topics` wrote.

    Args:
        topics: that have a list; rows: of the file; items: of the catalogue that are in any list.
        ranked_again: how many rows the matching head ranked; why_not: where it ranked none, the reason.
        refused: topic -> why it has no list.
        first: topic -> titles (or ids) of its first items, for the first topics.
    """

    out: Path
    topics: int
    rows: int
    items: int
    catalogue: int
    ranked_again: int
    why_not: str
    refused: Mapping[str, str]
    first: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        first = {name: list(titles) for name, titles in self.first.items()}
        return {**self.__dict__, "out": str(self.out), "refused": dict(self.refused), "first": first}


def recommend_topic(
    engine: Engine, index: Path, topic: Record, wanted: Wanted, filters: Sequence[str] = ()
) -> RecommendResult:
    """A list for one topic. Raises as `Engine.recommend`."""
    where = parse_where(filters, kinds_of(engine, filters))
    found = engine.recommend(topic, wanted, where or None)
    return RecommendResult(index, shown_query(topic, where), _rows(engine, found))


def recommend_history(
    index: Path, history: Sequence[str], wanted: Wanted, filters: Sequence[str] = (), blend: Blend = "mean"
) -> RecommendResult:
    """A list for a history, the oldest item first. Needs no model. Raises as `Engine.recommend`."""
    engine = open_without_model(index)
    where = parse_where(filters, kinds_of(engine, filters))
    found = engine.recommend(history, wanted, where or None, blend=blend)
    return RecommendResult(
        index, {"history": list(history), **({"where": where} if where else {})}, _rows(engine, found)
    )


def _rows(engine: Engine, found: Sequence[Recommended]) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            "rank": rank,
            "id": one.id,
            "score": round(one.score, 6),
            "by": one.by,
            "probability": None if one.probability is None else round(one.probability, 6),
            "group": one.group,
            "title": engine.card(one.id).title,
            "attributes": dict(one.attributes),
        }
        for rank, one in enumerate(found, 1)
    )


def recommend_topics(
    index: Path,
    out: Path,
    wanted: Wanted,
    *,
    topics: Path | None = None,
    query_modality: str | None = None,
    clusters: int | None = None,
    seed: int = 0,
    rerank: bool = True,
    filters: Sequence[str] = (),
    data: Path | None = None,
    model: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TopicsResult:
    """Lists for many topics, into a Parquet file that is written whole or not at all.

    Args:
        topics: a text file with one topic a line (blank lines and lines that begin with # say nothing), or a catalogue
            whose rows are topics.
        query_modality: the text that the lines are put into; the model's only one by default.
        clusters: or that many clusters of the catalogue, each by its centre.
        rerank: rank the pool again where the model has a matching head; it reads the items from `data`, which is by
            default where they were when the index was built.

    Raises:
        BadInput: no topics or two kinds of them; none that the model knows anything of; as `Engine.recommend`.
        ModelMismatch: another model than the one that built the index.
    """
    say = progress or (lambda _stage, _done, _total: None)
    if (topics is None) == (clusters is None):
        raise BadInput("topics", "--topics FILE or --clusters N", "both" if topics is not None else "neither")
    if out.is_dir():
        raise BadInput("--out", "a file", f"the folder {out}", "Name a file, such as recommendations.parquet.")
    engine = open_engine(index, model, device)
    where = parse_where(filters, kinds_of(engine, filters)) or None
    refused: dict[str, str] = {}
    if topics is not None:
        queries = read_topics(topics, engine.modalities, query_modality)
        asked = _embedded(engine, queries, refused, say)
    else:
        queries, asked = {}, _clusters(engine, index, int(clusters or 0), seed)
    head, why_not = judge_of(engine), ""
    if head is None:
        why_not = "the model has no matching head"
    elif not rerank:
        head, why_not = None, "not asked for"
    elif not queries:
        head, why_not = None, "a cluster is a vector, and no record"
    again = None
    if head is not None:
        pool = replace(wanted, k=max(wanted.pool, wanted.k), diversity=0.0, least=None)
        near = {one.id for found in engine.recommender.for_topics(asked, pool, where) for one in found}
        again = Rerank(head, queries, records_of_ids(data_of_index(index, data), near))
    found = {}
    for at, name in enumerate(asked.ids):
        one = Embeddings((name,), asked.vectors[at : at + 1], asked.model)
        found[name] = engine.recommender.for_topics(one, wanted, where, again)[0]
        say("recommending", at + 1, len(asked))
    rows = _write(out, engine, found, index)
    distinct = {one.id for items in found.values() for one in items}
    judged = sum(one.by == "match" for items in found.values() for one in items)
    first = {
        name: tuple(engine.card(one.id).title or one.id for one in items[:_SHOWN])
        for name, items in list(found.items())[:10]
    }
    return TopicsResult(out, len(found), rows, len(distinct), len(engine.index), judged, why_not, refused, first)


def read_topics(path: Path, modalities: Mapping[str, str], text: str | None = None) -> dict[str, Record]:
    """Topic -> record: of a text file the lines (put into the modality `text`), of a catalogue the rows by id.

    Raises:
        BadInput: no such file, nothing in it, a model that reads no text, or several of which none is named.
    """
    if path.is_dir() or path.suffix.lower() in (".parquet", ".csv", ".tsv", ".jsonl"):
        from polymodal.workflow.records import records_of
        from polymodal.workflow.training import open_rows
        from polymodal.workflow.vectors import check_kinds

        rows = open_rows(path)
        check_kinds(dict(modalities), rows.modalities)
        return {
            record.id: Record(record.id, values)
            for record in records_of(rows, np.arange(len(rows)))
            if (values := {name: value for name, value in record.values.items() if name in modalities})
        }
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("--topics", "a text file, one topic a line, or a catalogue", path, str(error)) from None
    said = dict.fromkeys(" ".join(line.split()) for line in lines)
    named = [line for line in said if line and not line.startswith("#")]
    if not named:
        raise BadInput("--topics", "at least one topic, one a line", f"none in {path}")
    return {line: record_of_words(line, line, modalities, text) for line in named}


def _embedded(engine: Engine, queries: Mapping[str, Record], refused: dict[str, str], say: Progress) -> Embeddings:
    """The vectors of the topics that can be read; of the others `refused` says why not."""
    blocks, names = [], []
    for done, (name, record) in enumerate(queries.items(), 1):
        try:
            check_topic(engine.embedder, record)
            blocks.append(engine.embedder.embed([record]).vectors)
            names.append(name)
        except (BadInput, MediaError) as error:
            refused[name] = error.hint or str(error) if isinstance(error, BadInput) else str(error)
        say("topics", done, len(queries))
    if not names:
        name, why = next(iter(refused.items()))
        raise BadInput("--topics", "a topic of which the model knows something", repr(name), why)
    return Embeddings(tuple(names), np.concatenate(blocks), engine.index.model)


def _clusters(engine: Engine, index: Path, count: int, seed: int) -> Embeddings:
    """The centres of the catalogue's clusters, named by what sets their items apart."""
    from polymodal.evaluate import k_means

    known = engine.index.known(Cards.open(index).ids)
    ids = sorted(known)
    if not 1 <= count <= len(ids):
        raise BadInput("--clusters", f"from 1 to the number of items ({len(ids)})", count)
    vectors = engine.index.get(ids).vectors
    found = k_means(vectors, count, starts=2, seed=seed)
    everything = [_values(one) for one in engine.index.attributes_of(ids)]
    names = [
        f"{at + 1}: {_apart([everything[i] for i in np.flatnonzero(found.assigned == at)], everything)}"
        for at in range(count)
    ]
    return Embeddings(tuple(names), found.centres.astype(np.float32), engine.index.model)


def _values(attributes: Mapping[str, Any]) -> set[str]:
    """ "name=value" of every text value."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in attributes.items()}
    return {f"{name}={value}" for name, values in listed.items() for value in values if isinstance(value, str)}


def _apart(members: Sequence[set[str]], everything: Sequence[set[str]], most: int = 3) -> str:
    """The values whose share among the members is furthest above that in the catalogue."""
    here, all_ = (Counter(value for one in some for value in one) for some in (members, everything))
    lift = {value: count / len(members) - all_[value] / len(everything) for value, count in here.items()}
    best = sorted(lift, key=lambda value: (-lift[value], value))[:most]
    return ", ".join(best) or f"{len(members)} items"


def judge_of(engine: Engine) -> Judge | None:
    """The Matcher of the engine's model, None where it has no matching head."""
    from polymodal.embed import Embedder
    from polymodal.match import Matcher

    embedder = engine.embedder
    return Matcher(embedder) if isinstance(embedder, Embedder) and embedder.network.matching is not None else None


def records_of_ids(rows: Rows, ids: set[str]) -> dict[str, Record]:
    """The records of some ids; those that the data lacks are left out."""
    from polymodal.workflow.records import records_of

    numbers = np.flatnonzero([name in ids for name in rows.index["id"].to_pylist()])
    return {record.id: record for record in records_of(rows, numbers)}


def _write(out: Path, engine: Engine, found: Mapping[str, Sequence[Recommended]], index: Path) -> int:
    lines = [
        {
            "topic": topic,
            "rank": rank,
            "id": one.id,
            "group": one.group,
            "title": engine.card(one.id).title,
            "score": one.score,
            "by": one.by,
            "probability": one.probability,
        }
        for topic, items in found.items()
        for rank, one in enumerate(items, 1)
    ]
    facts = {"model": engine.index.model, "index": str(index.resolve())}
    schema = _SCHEMA.with_metadata({FORMAT: json.dumps(facts).encode()})
    with aside(out) as part:
        pq.write_table(pa.Table.from_pylist(lines, schema), part)
    return len(lines)
