"""What counts as a right answer of `polymodal retrieve`: the same item, group or label, given qrels, a query log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polymodal.evaluate import Relevance, by_id, by_key, by_qrels, read_qrels
from polymodal.types import BadInput
from polymodal.workflow.opened import Opened
from polymodal.workflow.pairs import QueryLog, closest

__all__ = ["KINDS", "Judgement", "judgements"]

KINDS = ("item", "fine", "coarse")


@dataclass(frozen=True)
class Judgement:
    """One meaning of "right".

    Args:
        name: item, fine, coarse, qrels or pairs. title: for people.
        relevance: over the queries and the corpus.
        right: query row -> id of an item -> gain, for files; right items outside the corpus too.
        notes: what one must know of it.
    """

    name: str
    title: str
    relevance: Relevance
    right: tuple[Mapping[str, float], ...]
    notes: tuple[str, ...] = ()

    @property
    def excludes(self) -> bool:
        """Whether the query itself is taken out of its list."""
        return bool((self.relevance.own >= 0).any())


def judgements(
    opened: Opened,
    queries: Sequence[str],
    corpus: Sequence[str],
    *,
    wanted: Sequence[str],
    label: str | None,
    crossing: bool,
    qrels: Path | None = None,
    log: QueryLog | None = None,
) -> list[Judgement]:
    """Every meaning that was asked for; by default every one that the data has.

    Args:
        wanted: of KINDS; () for all that apply.
        crossing: queries and corpus are made of different modalities, so that the item itself may be the answer.

    Raises:
        BadInput: an unknown name, no labels or groups, nobody with a right answer.
    """
    if log is not None:
        right = [dict.fromkeys(log.right[q], 1.0) for q in queries]
        return [_given("pairs", "the items of the query log", queries, corpus, right, False)]
    if qrels is not None:
        return [_qrels(opened, qrels, queries, corpus, crossing)]
    unknown = next((name for name in wanted if name not in KINDS), None)
    if unknown is not None:
        raise BadInput("--relevance", f"one of {', '.join(KINDS)}", repr(unknown))
    found = [_of(name, opened, queries, corpus, label, crossing, bool(wanted)) for name in wanted or KINDS]
    kept = [one for one in found if one is not None]
    if not kept:
        raise BadInput(
            "data",
            "labels that two items share, groups, or qrels to judge by",
            "none",
            "Name labels and group in catalogue.toml, or give --qrels FILE.",
        )
    return kept


def _of(
    name: str,
    opened: Opened,
    queries: Sequence[str],
    corpus: Sequence[str],
    label: str | None,
    crossing: bool,
    asked: bool,
) -> Judgement | None:
    """One kind; None where the data has no such thing and nobody asked for it."""
    if name == "item":
        if not crossing:
            if asked:
                raise BadInput(
                    "--relevance item",
                    "queries and corpus of different modalities",
                    "the same",
                    "Say --queries and --corpus.",
                )
            return None
        inside = set(corpus)
        relevance, right = by_id(queries, corpus), tuple({q: 1.0} if q in inside else {} for q in queries)
        return _checked(Judgement(name, "the same item", relevance, right), asked)
    if name == "coarse":
        if not opened.labels and not asked and label is None:
            return None
        which, keys = opened.label(label)
        return _keyed(name, f"the same {which}", queries, corpus, keys, asked or label is not None)
    return _keyed(name, "the same group (product)", queries, corpus, opened.together, asked)


def _keyed(
    name: str, title: str, queries: Sequence[str], corpus: Sequence[str], keys: Mapping[str, str], asked: bool
) -> Judgement | None:
    members: dict[str, list[str]] = {}
    for item in corpus:
        if item in keys:
            members.setdefault(keys[item], []).append(item)
    right = tuple({i: 1.0 for i in members.get(keys.get(q, ""), ()) if i != q} for q in queries)
    return _checked(Judgement(name, title, by_key(queries, corpus, keys), right), asked)


def _checked(found: Judgement, asked: bool) -> Judgement | None:
    lonely = int((found.relevance.count == 0).sum())
    if lonely < len(found.relevance.count):
        note = f"{found.title}: {lonely} queries have no right answer in the corpus and are left out of the means."
        return Judgement(found.name, found.title, found.relevance, found.right, (note,) if lonely else ())
    if asked:
        what = "label" if found.name == "coarse" else "relevance"
        raise BadInput(
            f"--{what}", f"{found.title} for at least one query and another item", "no query with a right answer",
            "Another --label, or a larger --split or --corpus-split, may have some.",
        )  # fmt: skip
    return None


def _qrels(opened: Opened, path: Path, queries: Sequence[str], corpus: Sequence[str], crossing: bool) -> Judgement:
    given = read_qrels(path)
    known = set(opened.rows.index["id"].to_pylist())
    for name in (*given, *(item for judged in given.values() for item in judged)):
        if name not in known:
            raise BadInput(f"--qrels: {path}", "ids of this data", repr(name), closest(name, sorted(known)))
    return _given("qrels", f"{path.name}", queries, corpus, [given.get(q, {}) for q in queries], not crossing)


def _given(
    name: str,
    title: str,
    queries: Sequence[str],
    corpus: Sequence[str],
    right: Sequence[Mapping[str, float]],
    exclude: bool,
) -> Judgement:
    if exclude:
        right = [{i: gain for i, gain in judged.items() if i != q} for q, judged in zip(queries, right, strict=True)]
    relevance = by_qrels(queries, corpus, dict(zip(queries, right, strict=True)), exclude_query=exclude)
    inside = set(corpus)
    gone = sum(gain > 0 and i not in inside for judged in right for i, gain in judged.items())
    found = _checked(Judgement(name, title, relevance, tuple(right)), True)
    assert found is not None
    note = f"{title}: {gone} right answers are not in the corpus, and count as not found."
    return Judgement(name, title, relevance, found.right, (*found.notes, note) if gone else found.notes)
