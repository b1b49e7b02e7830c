"""Retrieval from any subset of modalities to any other: searches side by side, measured, and written as TREC runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import (
    Difference,
    Interval,
    Keyed,
    Retrieval,
    intervals,
    judge,
    label_leak,
    leak_warning,
    measure,
    measure_lists,
    metric_names,
    paired,
    write_qrels,
    write_run,
)
from polymodal.evaluate.intervals import clusters_of, groups_note, within
from polymodal.tasks.blend import Blend
from polymodal.tasks.two_stage import Cost
from polymodal.types import BadInput, Record
from polymodal.workflow.files import folder_aside
from polymodal.workflow.opened import Opened, open_task
from polymodal.workflow.pairs import QueryLog, open_log, text_modality
from polymodal.workflow.records import check_names, draw_rows
from polymodal.workflow.relevance import Judgement, judgements
from polymodal.workflow.searches import (
    BOTH,
    FILES,
    LEARNT,
    THREE,
    VECTORS,
    WORDS,
    Lists,
    Searches,
    SearchPlan,
    learn_blends,
)
from polymodal.workflow.sides import Side, side_of_records, side_of_rows
from polymodal.workflow.training import split_rows

__all__ = ["Finding", "RetrieveResult", "RetrieveSettings", "retrieve_data"]

_RESULT = "retrieval.json"


@dataclass(frozen=True)
class RetrieveSettings:
    """What is searched, by what, and how it is judged.

    Args:
        queries, corpus: modalities that queries and items are made of, those that have all of them; () as they are.
        split, corpus_split: of the queries, and of the corpus (None: the same).
        relevance: item, fine, coarse; () all that the data has. label: of coarse; the first one by default.
        qrels: a TREC file in place of those. pairs: a query log, whose words are the queries; `columns` of it;
        query_modality: the text that its words are put into.
        ks: cuts of the metrics. depth: length of the lists.
        max_queries: drawn with `seed`.
        rerank: how many of each list the matching head ranks again; 0 for none. matcher: another model for that.
        every_pair: let it score every pair too.
        learn_split: learn on the queries of this split how much each search counts, and add the searches blended so.
        resamples: of the bootstrap.
    """

    queries: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    split: str = "test"
    corpus_split: str | None = None
    relevance: tuple[str, ...] = ()
    label: str | None = None
    qrels: Path | None = None
    pairs: Path | None = None
    columns: tuple[str, str] = ("query", "id")
    query_modality: str | None = None
    ks: tuple[int, ...] = (1, 5, 10)
    depth: int = 1000
    max_queries: int | None = None
    rerank: int = 0
    matcher: Path | None = None
    every_pair: bool = False
    learn_split: str | None = None
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Finding:
    """How well each search found what one judgement calls right.

    Args:
        name, title: of the judgement.
        systems: search -> its metrics.
        scale: search -> mAP and precision as SCALE's released script defines them, on the same lists; for fine and
            coarse only. A query with a key and no right answer counts as 0 there.
        differences: (first, second) -> paired difference of mAP at the largest cut.
    """

    name: str
    title: str
    systems: Mapping[str, Retrieval]
    scale: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[tuple[str, str], Difference]

    def to_json(self) -> dict[str, Any]:
        """As JSON; `scale_definition` has SCALE's mAP and precision."""
        return {
            "relevance": self.name,
            "title": self.title,
            "systems": {name: {**found.to_json(), **self._scale_json(name)} for name, found in self.systems.items()},
            "differences": [
                {"first": first, "second": second, **gap.to_json(), "verdict": gap.verdict}
                for (first, second), gap in self.differences.items()
            ],
        }

    def _scale_json(self, name: str) -> dict[str, Any]:
        if name not in self.scale:
            return {}
        return {"scale_definition": {metric: value.to_json() for metric, value in self.scale[name].items()}}


@dataclass(frozen=True)
class RetrieveResult:
    """Everything that was measured.

    Args:
        queries, corpus: how many, and from what they were made.
        cut: the largest k.
        costs: search -> what it costs; the vectors' count the embedding of both sides.
        out: the folder of runs, qrels and retrieval.json, if one was asked for.
        learnt: judgement -> blend -> its weights.
    """

    model: str
    queries: tuple[int, str]
    corpus: tuple[int, str]
    cut: int
    findings: tuple[Finding, ...]
    costs: Mapping[str, Cost]
    notes: tuple[str, ...]
    out: Path | None
    learnt: Mapping[str, Mapping[str, Blend]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        sides = {"queries": self.queries, "corpus": self.corpus}
        return {
            "model": self.model,
            **{name: {"count": count, "from": made} for name, (count, made) in sides.items()},
            "findings": [finding.to_json() for finding in self.findings],
            "costs": {name: vars(cost) for name, cost in self.costs.items()},
            "learnt": {
                judged: {name: blend.to_json() for name, blend in blends.items()}
                for judged, blends in self.learnt.items()
            },
            "notes": list(self.notes),
            "out": None if self.out is None else str(self.out),
        }


def retrieve_data(
    model: Path,
    data: Path,
    settings: RetrieveSettings | None = None,
    *,
    out: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> RetrieveResult:
    """Search a split of the data by vectors, by words, by both and in two stages, and measure every way.

    Args:
        model: a run or a model folder.
        data: a catalogue or prepared shards.
        out: folder for a TREC run of every search, the qrels, and retrieval.json; an earlier result in it is replaced.

    Raises:
        BadInput: a modality, split, label or id that is not there; nothing to judge by; `rerank` without a head.
        MissingExtra: bm25s is not installed.
    """
    settings = settings or RetrieveSettings()
    _check(settings, out)
    opened = open_task(model, data, device, progress)
    log = None if settings.pairs is None else open_log(settings.pairs, opened.rows, settings.columns)
    learnt = _learn(opened, settings, log)
    work, judged = _searches(opened, settings, log)
    asked, corpus = work.queries, work.corpus
    lists = [work.blended(one.relevance.own, learnt.get(one.name, {})) for one in judged]
    together = {**opened.together, **(log.together(opened.together) if log is not None else {})}
    findings = tuple(
        _finding(one, found, asked, len(corpus.ids), settings, together)
        for one, found in zip(judged, lists, strict=True)
    )
    notes = [*(log.notes if log is not None else ()), *(note for one in judged for note in one.notes), *work.notes]
    notes += [note] if (note := groups_note(asked.ids, together, "queries")) else []
    if any(one.name == "coarse" for one in judged) and (warning := _leak(opened, asked, settings.label)):
        notes.append(warning)
    made = RetrieveResult(
        opened.embedder.model,
        (len(asked.ids), "a query log" if log is not None else _made(asked.names)),
        (len(corpus.ids), _made(corpus.names)),
        max(settings.ks),
        findings,
        work.costs,
        tuple(dict.fromkeys(notes)),
        out,
        learnt,
    )
    if out is not None:
        _write(out, made, judged, lists, asked, corpus)
    return made


def _leak(opened: Opened, asked: Side, label: str | None) -> str:
    """A warning where the words of more than half of the queries name the label that makes an answer right."""
    name, values = opened.label(label)
    records = [Record(i, {"words": text} if text else {}) for i, text in zip(asked.ids, asked.texts, strict=True)]
    return leak_warning([label_leak(records, values, name)])


def _searches(opened: Opened, settings: RetrieveSettings, log: QueryLog | None) -> tuple[Searches, list[Judgement]]:
    start = time.process_time()
    asked, corpus = _sides(opened, settings, log)
    encodings = len(corpus.ids) + (len(asked.ids) if asked is not corpus else 0)
    plan = SearchPlan(settings.depth, settings.rerank, settings.matcher, settings.every_pair)
    work = Searches(opened, asked, corpus, plan, Cost(encodings, 0, round(time.process_time() - start, 2)))
    judged = judgements(
        opened, asked.ids, corpus.ids, wanted=settings.relevance, label=settings.label,
        crossing=bool(asked.names and corpus.names) and set(asked.names) != set(corpus.names),
        qrels=settings.qrels, log=log,
    )  # fmt: skip
    return work, judged


def _learn(opened: Opened, settings: RetrieveSettings, log: QueryLog | None) -> dict[str, dict[str, Blend]]:
    """Judgement -> blends, from the queries of `learn_split`, which search the corpus of theirs."""
    if settings.learn_split is None:
        return {}
    work, judged = _searches(opened, replace(settings, split=settings.learn_split, every_pair=False), log)
    lists = [work.lists(one.relevance.own) for one in judged]
    try:
        return {
            one.name: learn_blends(made, one.relevance, max(settings.ks))
            for one, made in zip(judged, lists, strict=True)
        }
    except BadInput as error:
        raise BadInput("--learn-split", error.expected, error.got, "Another split may have more.") from None


def _made(names: tuple[str, ...]) -> str:
    return " + ".join(names) or "whatever they have"


def _check(settings: RetrieveSettings, out: Path | None) -> None:
    for name, value in (("--k", min(settings.ks, default=0)), ("--depth", settings.depth)):
        if value < 1:
            raise BadInput(name, "at least 1", value)
    if settings.rerank < 0:
        raise BadInput("--rerank", "at least 1, or 0 for none", settings.rerank)
    if settings.learn_split == settings.split:
        raise BadInput("--learn-split", "another split than the one that is measured", repr(settings.split))
    if settings.qrels is not None and settings.pairs is not None:
        raise BadInput("--qrels, --pairs", "one of them", "both")
    if settings.pairs is not None and settings.queries:
        raise BadInput("--queries", "nothing beside --pairs, whose words are the queries", ", ".join(settings.queries))
    if out is not None and out.exists() and not (out / _RESULT).is_file() and (out.is_file() or any(out.iterdir())):
        raise BadInput("--out", "a new folder, or an earlier result to replace", out)


def _sides(opened: Opened, settings: RetrieveSettings, log: QueryLog | None) -> tuple[Side, Side]:
    known = [name for name in opened.embedder.modalities if name in opened.rows.modalities]
    for option, names in (("--queries", settings.queries), ("--corpus", settings.corpus)):
        check_names(option, names, known, "modalities of the model and the data")
    corpus_rows = split_rows(opened.rows, settings.corpus_split or settings.split)
    if log is not None:
        modality = text_modality(opened.embedder.modalities, settings.query_modality)
        chosen = log.of_split(settings.split)
        if not chosen:
            raise BadInput("--split", "a split with items of the query log", repr(settings.split))
        drawn = _drawn(np.arange(len(chosen)), settings)
        asked = side_of_records(opened, log.records(tuple(chosen[i] for i in drawn.tolist()), modality), "queries")
        return asked, side_of_rows(opened, corpus_rows, settings.corpus, "corpus")
    rows = _drawn(split_rows(opened.rows, settings.split), settings)
    asked = side_of_rows(opened, rows, settings.queries, "queries")
    if settings.queries == settings.corpus and np.array_equal(rows, corpus_rows):
        return asked, asked
    return asked, side_of_rows(opened, corpus_rows, settings.corpus, "corpus")


def _drawn(rows: npt.NDArray[np.int64], settings: RetrieveSettings) -> npt.NDArray[np.int64]:
    return rows if settings.max_queries is None else draw_rows(rows, settings.max_queries, settings.seed)


def _finding(
    judged: Judgement,
    lists: Mapping[str, Lists],
    asked: Side,
    corpus: int,
    settings: RetrieveSettings,
    together: Mapping[str, str],
) -> Finding:
    plain: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    options = {**plain, "clusters": clusters_of(asked.ids, together)}
    systems: dict[str, Retrieval] = {}
    scale: dict[str, Mapping[str, Interval]] = {}
    for name, (rows, _) in lists.items():
        systems[name] = measure_lists(
            asked.ids, corpus, rows, judged.relevance, metrics=metric_names(settings.ks), together=together, **plain
        )
        if isinstance(judged.relevance, Keyed) and judged.name != "item":
            scale[name] = _scale(judged.relevance, rows, settings.ks, options)
    metric = f"map@{max(settings.ks)}"
    pairs = [(name, VECTORS) for name in systems if name != VECTORS]
    if BOTH in systems:
        pairs.append((BOTH, WORDS))
    if THREE in systems:
        pairs.append((THREE, BOTH))
    both, _, three = LEARNT
    pairs += [pair for pair in ((both, BOTH), (both, WORDS), (three, both)) if set(pair) <= set(systems)]
    gaps = {(a, b): paired(systems[a].per_query[metric], systems[b].per_query[metric], **options) for a, b in pairs}
    return Finding(judged.name, judged.title, systems, scale, gaps)


def _scale(
    relevance: Keyed, rows: npt.NDArray[np.int64], ks: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Interval]:
    """mAP and precision as SCALE's script has them, over the queries that have a key."""
    names = [f"{kind}@{k}" for kind in ("map", "precision") for k in ks]
    asked = np.flatnonzero(relevance.queries >= 0)
    judged = judge(relevance, asked, rows[asked])
    columns = np.stack([measure(judged, name, "scale") for name in names], 1)
    clusters = within(options["clusters"], asked)
    return dict(zip(names, intervals(columns, **{**options, "clusters": clusters}), strict=True))


def _write(
    out: Path,
    made: RetrieveResult,
    judged: Sequence[Judgement],
    lists: Sequence[Mapping[str, Lists]],
    asked: Side,
    corpus: Side,
) -> None:
    """The folder, whole or not at all."""
    with folder_aside(out) as part:
        for one, found in zip(judged, lists, strict=True):
            with (part / f"{one.name}.qrels").open("w", encoding="utf-8") as file:
                write_qrels(file, asked.ids, one.right)
            for name, (rows, scores) in found.items():
                tag = FILES[name]
                with (part / f"{one.name}.{tag}.run").open("w", encoding="utf-8") as file:
                    write_run(file, asked.ids, corpus.ids, rows, scores, tag)
        (part / _RESULT).write_text(json.dumps(made.to_json(), ensure_ascii=False, indent=1), encoding="utf-8")
