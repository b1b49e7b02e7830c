"""An index and known pairs in, figures of its recommendations out: several methods, controls, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.values import Result
from polymodal.service import Cards, Engine
from polymodal.tasks.lexical import Bm25, text_of, words_of
from polymodal.tasks.probability import Calibrator
from polymodal.tasks.recommend import Blend, Judge, Recommended, Rerank, Wanted, check_topic
from polymodal.tasks.recommend_eval import (
    Calibrated,
    Case,
    Key,
    Method,
    Pool,
    calibrate,
    compare_lists,
    halves,
    popular,
    shortlist,
    shuffled,
)
from polymodal.types import BadInput, Embeddings, MediaError, Record
from polymodal.workflow.calibration import write_calibration
from polymodal.workflow.indexing import data_of_index
from polymodal.workflow.recommend_cases import Kind, cases_of_file, cases_of_labels
from polymodal.workflow.recommending import judge_of, records_of_ids
from polymodal.workflow.records import check_names, label_columns
from polymodal.workflow.searching import open_engine

__all__ = ["RecommendEvalResult", "Section", "evaluate_recommendations"]

Progress = Callable[[str, int, int], None]
Lists = dict[str, list[list[str]]]


@dataclass(frozen=True)
class Section(Result):
    """One kind of case.

    Args:
        cases: of this kind; fitted: that popularity and calibration were fitted on; measured: the others.
        left_out: cases that the model could not be asked (nothing of a topic known, a file that is broken).
        k: length of the lists; items, groups: of the catalogue.
        methods: the first is the reference of the others.
        calibrated: "topic", "topic match" or "history" -> what its probabilities are worth.
    """

    kind: Kind
    cases: int
    fitted: int
    measured: int
    left_out: int
    k: int
    items: int
    groups: int
    methods: tuple[Method, ...]
    calibrated: Mapping[str, Calibrated]


@dataclass(frozen=True)
class RecommendEvalResult:
    """Sections, remarks on what was left out, and where the calibration was written (None: it was not asked for)."""

    index: Path
    model: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    written: Path | None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "index": str(self.index),
            "model": self.model,
            "sections": [section.to_json() for section in self.sections],
            "notes": list(self.notes),
            "written": None if self.written is None else str(self.written),
        }


class _Remembering:
    """A judge that is asked for a pool once: the lists of a case differ in what is made of the same scores."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._said: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}

    def pairs(
        self,
        queries: Sequence[Record],
        candidates: Sequence[Record],
        left: npt.NDArray[np.int64],
        right: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """As the judge says."""
        asked = tuple(record.id for record in (*queries, *candidates))
        if asked not in self._said:
            self._said[asked] = self._judge.pairs(queries, candidates, left, right)
        return self._said[asked]


@dataclass
class _World:
    """What the lists are made of."""

    engine: Engine
    ids: list[str]
    vectors: Embeddings
    records: dict[str, Record]
    labels: dict[str, dict[str, str]]
    key: Key
    wanted: Wanted
    seed: int
    resamples: int
    notes: list[str]
    say: Progress
    head: Judge | None = None

    @property
    def deep(self) -> Wanted:
        """The whole pool as a list."""
        return replace(self.wanted, k=self.wanted.pool, diversity=0.0)


def evaluate_recommendations(
    index: Path,
    pairs: Path | None,
    wanted: Wanted,
    *,
    labels: Sequence[str] = (),
    query_modality: str | None = None,
    calibration: str = "platt",
    write: bool = False,
    data: Path | None = None,
    model: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> RecommendEvalResult:
    """Measure the recommendations of an index on known pairs, on topics and tastes planted by labels, or on both.

    Half of the cases (drawn with the seed) fit popularity and calibration; the other half is measured.

    Args:
        pairs: as `cases_of_file`.
        wanted: length, diversity and pool of the lists.
        labels: of the data, whose combinations are topics and tastes, as `cases_of_labels`.
        query_modality: the text that words are put into; the model's only one by default.
        calibration: "platt" or "isotonic", the one that is written.
        write: keep the calibration beside the index, for thresholds.
        data: the catalogue, if it is no longer where it was when the index was built.

    Raises:
        BadInput: neither pairs nor labels; as `cases_of_file` and `cases_of_labels`; an unknown label; too few cases.
        ModelMismatch: another model than the one that built the index.
    """
    if pairs is None and not labels:
        raise BadInput("PAIRS", "a table of known pairs, or --labels", "neither")
    world = _open(index, wanted, data, model, device, seed, resamples, progress)
    check_names("--labels", labels, world.labels, "a label of the data")
    modalities = world.engine.modalities
    found: dict[Kind, list[Case]] = {}
    if pairs is not None:
        kind, cases = cases_of_file(pairs, world.ids, world.key, modalities, query_modality)
        found[kind] = cases
    if labels:
        chosen = {name: world.labels[name] for name in labels}
        found |= cases_of_labels(chosen, world.ids, world.key, modalities, seed, query_modality)
    sections: list[Section] = []
    fitted: dict[str, Calibrator] = {}
    for kind, cases in found.items():
        section, calibrators = _section(world, kind, cases)
        sections.append(section)
        # known pairs come first, and count more than planted ones
        fitted = {name: both[calibration] for name, both in calibrators.items()} | fitted
    written = write_calibration(index, world.engine.index.model, fitted) if write and fitted else None
    return RecommendEvalResult(index, world.engine.index.model, tuple(sections), tuple(world.notes), written)


def _open(
    index: Path,
    wanted: Wanted,
    data: Path | None,
    model: Path | None,
    device: str,
    seed: int,
    resamples: int,
    progress: Progress | None,
) -> _World:
    engine = open_engine(index, model, device)
    cards, rows = Cards.open(index), data_of_index(index, data)
    ids = sorted(engine.index.known(cards.ids))
    groups = dict(zip(ids, cards.groups(ids), strict=True))
    records = records_of_ids(rows, set(ids))
    say = progress or (lambda _stage, _done, _total: None)
    key: Key = lambda name: groups.get(name) or name  # noqa: E731
    world = _World(
        engine, ids, engine.index.get(ids), records, label_columns(rows), key, wanted, seed, resamples, [], say
    )
    head = judge_of(engine)
    if head is not None:
        world.head = _Remembering(head)
    else:
        world.notes.append("The model has no matching head: nothing is ranked again.")
    return world


def _section(world: _World, kind: Kind, cases: Sequence[Case]) -> tuple[Section, dict[str, dict[str, Calibrator]]]:
    usable, topics = _askable(world, cases)
    fit, measured = halves(usable, world.seed)
    by_history = measured[0].topic is None
    several = any(len(case.history) > 1 for case in measured)
    ways = _history_ways(world, several) if by_history else _topic_ways(world, topics)
    lists: Lists = {}
    for name, way in ways.items():
        lists[name] = []
        for done, case in enumerate(measured, 1):
            lists[name].append([one.id for one in way(case, world.wanted)])
            world.say(f"{kind}: {name}", done, len(measured))
    lists |= _controls(world, fit, measured)
    methods = compare_lists(
        lists,
        measured,
        world.key,
        world.vectors,
        k=world.wanted.k,
        labels=list(world.labels.values()),
        resamples=world.resamples,
        seed=world.seed,
    )
    pools = {"history": ways["mean"]} if by_history else {"topic": ways["vectors"]}
    if "match" in ways:
        pools["topic match"] = ways["match"]
    calibrated, calibrators = {}, {}
    for name, way in pools.items():
        by = "match" if name.endswith("match") else "vectors"
        first, second = ([_pool(way(case, world.deep), case, by) for case in some] for some in (fit, measured))
        try:
            calibrators[name], calibrated[name] = calibrate(first, second, resamples=world.resamples, seed=world.seed)
        except BadInput as error:
            world.notes.append(f"{kind}: no calibration, {error}")
    return (
        Section(
            kind,
            len(cases),
            len(fit),
            len(measured),
            len(cases) - len(usable),
            world.wanted.k,
            len(world.ids),
            len({world.key(name) for name in world.ids}),
            tuple(methods),
            calibrated,
        ),
        calibrators,
    )


def _askable(world: _World, cases: Sequence[Case]) -> tuple[list[Case], dict[str, Embeddings]]:
    """The cases that can be asked, and the vectors of their topics."""
    usable, topics = [], {}
    for case in cases:
        if case.topic is not None:
            try:
                check_topic(world.engine.embedder, case.topic)
                topics[case.name] = world.engine.embedder.embed([case.topic])
            except (BadInput, MediaError):
                continue
        usable.append(case)
    return usable, topics


Way = Callable[[Case, Wanted], list[Recommended]]


def _history_ways(world: _World, several: bool) -> dict[str, Way]:
    """The ways of blending differ where some history has `several` items."""
    recommender = world.engine.recommender

    def way(blend: Blend, diversity: float, half_life: float = 5.0) -> Way:
        return lambda case, wanted: recommender.for_history(
            case.history, replace(wanted, diversity=diversity), blend=blend, half_life=half_life
        )

    blends = {"mean, all alike": way("mean", 0.0, float("inf")), "max": way("max", 0.0)} if several else {}
    diverse = {f"mean, MMR {world.wanted.diversity:g}": way("mean", world.wanted.diversity)}
    return {"mean": way("mean", 0.0), **blends, **diverse}


def _topic_ways(world: _World, topics: Mapping[str, Embeddings]) -> dict[str, Way]:
    recommender = world.engine.recommender

    def way(diversity: float, again: bool) -> Way:
        def recommend(case: Case, wanted: Wanted) -> list[Recommended]:
            asked = topics[case.name]
            name = asked.ids[0]
            queries = {name: case.topic} if case.topic is not None else {}
            rerank = Rerank(world.head, queries, world.records) if again and world.head is not None else None
            return recommender.for_topics(asked, replace(wanted, diversity=diversity), rerank=rerank)[0]

        return recommend

    ways = {"vectors": way(0.0, False), f"vectors, MMR {world.wanted.diversity:g}": way(world.wanted.diversity, False)}
    if world.head is not None:
        ways |= {"match": way(0.0, True), f"match, MMR {world.wanted.diversity:g}": way(world.wanted.diversity, True)}
    return ways


def _pool(found: Sequence[Recommended], case: Case, by: str) -> Pool:
    kept = [one for one in found if one.by == by]
    return Pool(np.array([one.score for one in kept]), np.array([one.id in case.right for one in kept], bool))


def _controls(world: _World, fit: Sequence[Case], measured: Sequence[Case]) -> Lists:
    k, often = world.wanted.k, popular(fit, world.ids)
    lists = {
        "popularity": [shortlist(often, world.key, case.history, k) for case in measured],
        "random": [shortlist(shuffled(case, world.ids, world.seed), world.key, case.history, k) for case in measured],
    }
    words = _word_lists(world, measured)
    return lists if words is None else {"BM25": words, **lists}


def _word_lists(world: _World, measured: Sequence[Case]) -> list[list[str]] | None:
    """Lists by words alone; None, with a note, where no item has words."""
    texts = [text_of(world.records[name]) if name in world.records else "" for name in world.ids]
    asked = [
        text_of(case.topic)
        if case.topic is not None
        else "\n".join(text_of(world.records[name]) for name in case.history if name in world.records)
        for case in measured
    ]
    if not any(map(words_of, texts)):
        world.notes.append("BM25 is left out: no item has words.")
        return None
    # what several items of a history say counts more than what one says
    found, _ = Bm25(texts).search(asked, len(texts), repeated=True)
    return [
        shortlist([world.ids[at] for at in rows if at >= 0], world.key, case.history, world.wanted.k)
        for rows, case in zip(found.tolist(), measured, strict=True)
    ]
