"""What recommendations are measured on: links, histories and queries from a table, topics and tastes from labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.tasks.recommend_eval import Case, Key
from polymodal.types import BadInput
from polymodal.workflow.pairs import record_of_words

__all__ = ["Kind", "cases_of_file", "cases_of_labels"]

Kind = Literal["links", "histories", "queries", "topics", "tastes"]
_HISTORY = 3  # items of a planted taste that somebody is said to have seen
_FEWEST = 3  # groups that must be left to find
_SOURCES = ("id", "group_id", "record_id")
_FORMS = (
    "id (or group_id) and linked_id (or linked_group_id); user and id, the oldest row first; query and id (or group_id)"
)


def cases_of_file(
    path: Path, ids: Sequence[str], key: Key, modalities: Mapping[str, str], text: str | None = None
) -> tuple[Kind, list[Case]]:
    """The cases of a Parquet table; its columns say what it is.

    Links: the first item of each source is asked for as a history of one, all that it links to is right. Histories: the
    last item of each user is to be found from those before it (leave last out). Queries: text, and the item it is of.
    What the index lacks is left out.

    Args:
        ids: of the index. key: id -> group. modalities: of the model; text: the one that the words of a query are put
            into, its only text by default.

    Raises:
        BadInput: no such file, other columns, nothing that the index has; queries for a model without a text, or of
            several of which none is named.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadInput("PAIRS", "a Parquet table of known pairs", path, str(error)) from None
    names = table.column_names
    source = next((name for name in _SOURCES if name in names), None)
    target = next((name for name in names if name.startswith(("linked_", "related_"))), None)
    if source is None or not (target or "user" in names or "query" in names):
        raise BadInput(str(path), f"columns {_FORMS}", ", ".join(names))
    rows = table.to_pylist()
    find = _Finder(ids, key)
    kind: Kind = "links" if target else "histories" if "user" in names else "queries"
    if target is not None:
        cases = _links(rows, source, target, find)
    elif kind == "histories":
        cases = _histories(rows, source, find)
    else:
        cases = _queries(rows, source, find, modalities, text)
    if not cases:
        raise BadInput(str(path), "pairs of items that the index has", f"none in {len(rows)} rows")
    return kind, cases


class _Finder:
    """Items by id or by group."""

    def __init__(self, ids: Sequence[str], key: Key) -> None:
        self.key = key
        self._of: dict[str, list[str]] = defaultdict(list)
        for name in ids:
            self._of[key(name)].append(name)
        self._ids = set(ids)

    def items(self, column: str, value: Any) -> list[str]:
        if column.endswith("group_id"):
            return self._of.get(str(value), [])
        return [value] if value in self._ids else []


def _links(rows: Sequence[Mapping[str, Any]], source: str, target: str, find: _Finder) -> list[Case]:
    right: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        right[str(row[source])].update(find.items(target, row[target]))
    cases = []
    for name, found in right.items():
        own = find.items(source, name)
        if own:
            wanted = frozenset(one for one in found if find.key(one) != find.key(own[0]))
            if wanted:
                cases.append(Case(name, wanted, history=(own[0],)))
    return cases


def _histories(rows: Sequence[Mapping[str, Any]], source: str, find: _Finder) -> list[Case]:
    seen: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        seen[str(row["user"])] += find.items(source, row[source])[:1]
    cases = []
    for user, items in seen.items():
        *before, last = items or [""]
        if before and find.key(last) not in {find.key(one) for one in before}:
            cases.append(Case(user, frozenset([last]), history=tuple(before)))
    return cases


def _queries(
    rows: Sequence[Mapping[str, Any]], source: str, find: _Finder, modalities: Mapping[str, str], text: str | None
) -> list[Case]:
    cases = []
    for at, row in enumerate(rows):
        found = frozenset(find.items(source, row[source]))
        if found and str(row["query"] or "").strip():
            topic = record_of_words(f"{at}", str(row["query"]), modalities, text)
            cases.append(Case(f"{at}", found, topic=topic))
    return cases


def cases_of_labels(
    labels: Mapping[str, Mapping[str, str]],
    ids: Sequence[str],
    key: Key,
    modalities: Mapping[str, str],
    seed: int,
    text: str | None = None,
) -> dict[Kind, list[Case]]:
    """Planted topics and tastes: every combination of values that enough groups have.

    A topic is the values as words ("red cushion"), and all items of the combination are right. A taste is a history of
    three items of the combination, of different groups and drawn with the seed, and the items of its other groups are
    right: somebody who looks at red cushions.

    Args:
        labels: label -> {id: value}, in the order in which the words are to stand.
        ids: of the index. modalities, text: as in `cases_of_file`; a model without a text gets no topics.

    Raises:
        BadInput: no combination that six groups have; several texts of which none is named.
    """
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in ids:
        values = tuple(of[name] for of in labels.values() if name in of)
        if len(values) == len(labels):
            members[values].append(name)
    topics, tastes = [], []
    for values, found in sorted(members.items()):
        groups = sorted({key(name) for name in found})
        if len(groups) < _HISTORY + _FEWEST:
            continue
        words = " ".join(values)
        if "text" in modalities.values():
            topics.append(Case(words, frozenset(found), topic=record_of_words(words, words, modalities, text)))
        drawn = np.random.default_rng([seed, *words.encode()]).permutation(groups)[:_HISTORY].tolist()
        first = {key(name): name for name in reversed(found)}
        right = frozenset(name for name in found if key(name) not in drawn)
        tastes.append(Case(words, right, history=tuple(first[group] for group in drawn)))
    if not tastes:
        raise BadInput(
            "--labels", f"values that {_HISTORY + _FEWEST} groups have in common", " and ".join(labels), "Name fewer."
        )
    return {"topics": topics, "tastes": tastes} if topics else {"tastes": tastes}
