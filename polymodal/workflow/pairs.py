"""A file of queries and the items they found, such as a log of searches and clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polymodal.catalogue.cells import as_name
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.tables import Tables, find_tables
from polymodal.config import nearest
from polymodal.types import BadInput, Record

__all__ = ["QueryLog", "closest", "open_log", "record_of_words", "text_modality"]


@dataclass(frozen=True)
class QueryLog:
    """Queries with their right items.

    Args:
        texts: query id -> its words. Equal words are one query, whose ids are q000000 and so on in order of the file.
        right: query id -> the ids of its items in the data; all items of a group where the file names groups.
        grouped: whether the file names groups.
        empty: lines without words or without an id, which are left out.
        splits: id of an item -> the splits of its group, one unless a split cuts the group; "" where there are none.
    """

    texts: Mapping[str, str]
    right: Mapping[str, tuple[str, ...]]
    grouped: bool
    empty: int = 0
    splits: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def has_splits(self) -> bool:
        """Whether the data has splits."""
        return any(some != {""} for some in self.splits.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of it, for people."""
        return (f"{self.empty} lines without words or an id are left out.",) if self.empty else ()

    def of_split(self, split: str) -> tuple[str, ...]:
        """The queries whose items, and the variants of those, are all in a split: what a query of two says of one
        would leak to the other. Where the data has no splits, all queries.
        """
        if not self.has_splits:
            return tuple(self.texts)
        return tuple(
            q for q, items in self.right.items() if set[str]().union(*(self.splits[i] for i in items)) == {split}
        )

    def together(self, groups: Mapping[str, str]) -> dict[str, str]:
        """Query -> the group of its first item, or that item: queries for one product are no independent observations.

        Args:
            groups: id -> group of the items.
        """
        return {query: f"item {groups.get(items[0], items[0])}" for query, items in self.right.items()}

    def records(self, queries: tuple[str, ...], modality: str) -> list[Record]:
        """Queries as records of one modality."""
        return [Record(q, {modality: self.texts[q]}) for q in queries]


def open_log(path: Path, rows: Rows, columns: tuple[str, str] = ("query", "id")) -> QueryLog:
    """Read a table (Parquet, CSV, TSV, JSONL) of a query's words and the id, or the group, of an item.

    Args:
        rows: the data that the ids are of.
        columns: names of the two columns.

    Raises:
        BadInput: no such file or column, an id that the data lacks, no pair.
    """
    if not path.is_file():
        raise BadInput("--pairs", "a table of queries and ids", f"no file {path}")
    tables = Tables(find_tables(path.parent, path.name))
    for name in columns:
        if name not in tables.columns:
            hint = f"{nearest(name, tables.columns)} Say --columns QUERY,ID."
            raise BadInput(f"--pairs: {path}", f"a column {name!r}", "none of that name", hint)
    pairs, empty = [], 0
    for number in range(len(tables.blocks)):
        for row in tables.read(number, columns):
            words, name = (as_name(row.get(column)) for column in columns)
            if words.strip() and name:
                pairs.append((words.strip(), name))
            else:
                empty += 1
    if not pairs:
        raise BadInput(f"--pairs: {path}", "at least one line with words and an id", "none")
    return _resolve(pairs, rows, empty)


def _resolve(pairs: list[tuple[str, str]], rows: Rows, empty: int) -> QueryLog:
    ids, groups = rows.index["id"].to_pylist(), rows.index["group"].to_pylist()
    of_group: dict[str, set[str]] = {}
    members: dict[str, list[str]] = {}
    for name, group, split in zip(ids, groups, rows.index["split"].to_pylist(), strict=True):
        of_group.setdefault(group or f"\0{name}", set()).add(split)
        if group is not None:
            members.setdefault(group, []).append(name)
    splits = {i: frozenset(of_group[group or f"\0{i}"]) for i, group in zip(ids, groups, strict=True)}
    grouped = any(name not in splits for _, name in pairs)
    known = members if grouped else splits
    lacking = next((name for _, name in pairs if name not in known), None)
    if lacking is not None:
        unknown = next((name for _, name in pairs if name not in splits and name not in members), None)
        what = "ids of this data, or else groups of it" if unknown else "ids or groups, not both"
        raise BadInput("--pairs", what, repr(unknown or lacking), closest(unknown or "", [*splits, *members]))
    numbers: dict[str, str] = {}
    right: dict[str, dict[str, None]] = {}
    for words, name in pairs:
        query = numbers.setdefault(words, f"q{len(numbers):06d}")
        right.setdefault(query, {}).update(dict.fromkeys(members[name] if grouped else [name]))
    texts = {query: words for words, query in numbers.items()}
    return QueryLog(texts, {q: tuple(found) for q, found in right.items()}, grouped, empty, splits)


def closest(name: str, known: Sequence[str]) -> str:
    """`config.nearest` among many ids: only a close one is worth naming."""
    said = nearest(name, known[:20_000]) if name else ""
    return said if said.startswith("Did") else ""


def text_modality(modalities: Mapping[str, str], wanted: str | None) -> str:
    """The modality that a query's words are put into: the model's text, or the one that is named.

    Raises:
        BadInput: the model has no such modality, no text, or several.
    """
    texts = [name for name, kind in modalities.items() if kind == "text"]
    if wanted is not None:
        if wanted not in texts:
            raise BadInput("--as", f"a text of the model: {', '.join(texts) or 'none'}", repr(wanted))
        return wanted
    if len(texts) != 1:
        hint = "Name the one that queries are like: --as NAME" if texts else ""
        raise BadInput("words", "one text among the model's modalities", ", ".join(texts) or "none", hint)
    return texts[0]


def record_of_words(name: str, words: str, modalities: Mapping[str, str], wanted: str | None = None) -> Record:
    """Words as an item that has nothing but them. Raises BadInput as `text_modality`."""
    return Record(name, {text_modality(modalities, wanted): words})
