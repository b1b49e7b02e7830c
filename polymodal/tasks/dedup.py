"""Duplicates: which items are the same thing twice, exactly or nearly, and what says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import top_k
from polymodal.tasks.items import Bools, Floats, Ints, Items
from polymodal.types import BadInput

__all__ = ["Candidates", "Group", "Member", "candidates", "copies_of", "group_pairs", "reason", "threshold_of"]

MOST = 0.1  # of the untouched items may have a neighbour above a derived threshold
SHARE = 0.05  # how many of the items are taken to be copies where the threshold is derived
_SHOWN = 3  # attributes that a reason names


@dataclass(frozen=True)
class Candidates:
    """Pairs of items that may be duplicates.

    Args:
        pairs: (P, 2) rows of the items, the smaller one first, each pair once.
        similarity: (P,) cosine of the item vectors; exactly 1 where every cell is the same.
        identical: (P,) whether every cell is the same.
    """

    pairs: Ints
    similarity: npt.NDArray[np.float32]
    identical: Bools

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Member:
    """One item of a group: its nearest other member, how near it is, whether every cell is the same, and the reason."""

    id: str
    nearest: str
    similarity: float
    identical: bool
    reason: str


@dataclass(frozen=True)
class Group:
    """Items that are one thing: every two of them are at least as similar as the threshold."""

    members: tuple[Member, ...]
    similarity: float  # of the two members that are least alike


def copies_of(items: Items) -> list[list[int]]:
    """Rows whose cells are all the same, of the same modalities: sets of two and more, in the order of the items."""
    known: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for row, name in enumerate(items.ids):
        cells = tuple((modality, digests[name]) for modality, digests in items.digests.items() if name in digests)
        known.setdefault(cells, []).append(row)
    return [rows for cells, rows in known.items() if len(rows) > 1 and cells]


def candidates(items: Items, *, neighbours: int = 10, within_groups: bool = False) -> Candidates:
    """Each item's nearest ones, and all exact copies.

    Neighbours are exact and found in blocks: n items take about n^2 E operations and memory for one block.

    Args:
        neighbours: looked at for each item, at most 100.
        within_groups: also near-duplicates of one `group`: its rows are known to belong together, so by default only
            their exact copies count.

    Raises:
        BadInput: fewer than two items, or no neighbour to look at.
    """
    if len(items) < 2:
        raise BadInput("data", "at least two items", len(items))
    if not 1 <= neighbours <= 100:
        raise BadInput("--neighbours", "1 to 100", neighbours)
    vectors, n = unit(items.fused.vectors), len(items)
    group = _codes(items)
    largest = 0 if within_groups else min(int(np.bincount(group).max()) - 1, 100)
    rows, _ = top_k(vectors, vectors, neighbours + largest, ids=items.ids, exclude=np.arange(n))
    left, right = np.repeat(np.arange(n), rows.shape[1]), rows.ravel()
    keep = right >= 0
    if not within_groups:
        keep &= group[left] != group[right]
    near = np.stack([left, right], 1)[keep]
    near.sort(axis=1)
    same = np.asarray([pair for copies in copies_of(items) for pair in pairwise(copies)], np.int64)
    keys = (near[:, 0] * n + near[:, 1]).astype(np.int64)
    unique, at = np.unique(keys, return_index=True)
    exact = same[:, 0] * n + same[:, 1] if len(same) else np.zeros(0, np.int64)
    pairs = np.concatenate([near[at[~np.isin(unique, exact)]], same.reshape(-1, 2)])
    set_of = np.arange(n)
    for copies in copies_of(items):
        set_of[copies] = copies[0]
    identical = set_of[pairs[:, 0]] == set_of[pairs[:, 1]]
    similarity = np.where(identical, 1.0, np.einsum("pe,pe->p", vectors[pairs[:, 0]], vectors[pairs[:, 1]]))
    return Candidates(pairs, similarity.astype(np.float32), identical)


def threshold_of(copies: Floats, nearest: Floats, share: float = SHARE) -> float:
    """From which similarity on two items are one: that of the best F1, if `share` of the items had a copy.

    ::

        F1(t) = 2 s r(t) / (s + s r(t) + a(t) / 2),    r(t) = share of the copies at t or above, a(t) = of the others

    Items that are so near are mostly each other's nearest, so a false pair shows in two of the others.

    Args:
        copies: (c,) similarity of planted copies to their originals.
        nearest: (n,) similarity of untouched items to their nearest one. What is truly a duplicate among them counts
            as a false alarm, so the threshold errs on the side of precision. It never lets more than a tenth of them
            pass, whatever the F1: then the vectors do not tell copies from neighbours, or a tenth of the items are
            duplicates, and somebody has to look.

    Raises:
        BadInput: nothing to compare.
    """
    if not len(copies) or not len(nearest):
        raise BadInput("copies, nearest", "at least one similarity each", f"{len(copies)} and {len(nearest)}")
    # no copy tells anything where it is no nearer than what most items have beside them
    least = np.quantile(nearest, 1 - MOST)
    steps = np.unique(np.append(copies[copies > least], least))
    found = 1 - np.searchsorted(np.sort(copies), steps) / len(copies)
    alarms = 1 - np.searchsorted(np.sort(nearest), steps) / len(nearest)
    f1 = 2 * share * found / (share + share * found + alarms / 2)
    # of equally good ones the strictest
    return float(steps[len(steps) - 1 - int(f1[::-1].argmax())])


def group_pairs(items: Items, found: Candidates, threshold: float) -> list[Group]:
    """Pairs of at least the threshold, joined to groups, the largest first.

    The nearest pairs are joined first, and two groups only where **every** two items of them are at least as similar
    as the threshold (complete linkage): a chain of small steps makes no group. Exact copies are always joined.

    Source: Defays 1977, complete linkage; the sequence is that of the falling similarities of the candidates.
    """
    order = np.lexsort((*_ids_of(items, found), -found.similarity, ~found.identical))
    vectors, home = unit(items.fused.vectors), list(range(len(items)))
    members = {row: [row] for row in home}
    for p in order.tolist():
        if not found.identical[p] and found.similarity[p] < threshold:
            continue
        a, b = (home[row] for row in found.pairs[p].tolist())
        if a == b or not (found.identical[p] or _all_alike(vectors, members[a], members[b], threshold)):
            continue
        for row in members[b]:
            home[row] = a
        members[a] += members.pop(b)
    groups = [_group(items, vectors, sorted(rows)) for rows in members.values() if len(rows) > 1]
    return sorted(groups, key=lambda g: (-len(g.members), -g.similarity, g.members[0].id))


def _all_alike(vectors: npt.NDArray[np.float32], one: Sequence[int], other: Sequence[int], threshold: float) -> bool:
    return bool((vectors[one] @ vectors[other].T).min() >= threshold - 1e-6)


def _group(items: Items, vectors: npt.NDArray[np.float32], rows: Sequence[int]) -> Group:
    alike = (vectors[rows] @ vectors[rows].T).clip(-1.0, 1.0)
    same = np.asarray([[_same(items, a, b) for b in rows] for a in rows])
    alike[same] = 1.0
    least = float(alike.min())
    np.fill_diagonal(alike, -np.inf)
    best = alike.argmax(1)
    members = tuple(
        Member(
            items.ids[row],
            items.ids[rows[best[at]]],
            float(alike[at, best[at]]),
            bool(same[at, best[at]]),
            reason(items, row, rows[best[at]]),
        )
        for at, row in enumerate(rows)
    )
    return Group(members, least)


def _same(items: Items, one: int, other: int) -> bool:
    a, b = items.ids[one], items.ids[other]
    return all(digests.get(a) == digests.get(b) for digests in items.digests.values())


def reason(items: Items, one: int, other: int) -> str:
    """What says that two items are one, modality by modality: "image 0.99, title equal, facts differs in colour"."""
    said = []
    a, b = items.ids[one], items.ids[other]
    for modality in items.digests:
        first, second = (name in items.digests[modality] for name in (a, b))
        if first and second:
            said.append(f"{modality} {_agreement(items, modality, a, b)}")
        elif first or second:
            said.append(f"{modality} only in {a if first else b}")
    return ", ".join(said)


def _agreement(items: Items, modality: str, one: str, other: str) -> str:
    digests, cells = items.digests[modality], items.cells.get(modality, {})
    if digests[one] == digests[other]:
        return "identical"
    first, second = cells.get(one), cells.get(other)
    if isinstance(first, str) and isinstance(second, str) and _plain(first) == _plain(second):
        return "equal"
    if isinstance(first, tuple) and isinstance(second, tuple):
        names = _differing(first, second)
        return f"differs in {names}" if names else "equal"
    own = items.towers.get(modality)
    if own is None:
        return "differ"
    vectors = unit(own.rows([one, other]))
    return f"{float(vectors[0] @ vectors[1]):.2f}"


def _differing(first: Sequence[tuple[str, Any]], second: Sequence[tuple[str, Any]]) -> str:
    one, other = _by_name(first), _by_name(second)
    names = [name for name in one if name in other and one[name] != other[name]]
    shown = [f"{name} ({_short(one[name])} / {_short(other[name])})" for name in names[:_SHOWN]]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    alone = len(one.keys() ^ other.keys())
    return "; ".join([*shown, *more, *([f"{alone} that one lacks"] if alone else [])])


def _by_name(pairs: Sequence[tuple[str, Any]]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    for name, value in pairs:
        out.setdefault(name, []).append(value)
    return out


def _short(values: Sequence[Any]) -> str:
    text = "/".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    return text if len(text) <= 24 else text[:23] + "…"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The rows, made of length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _codes(items: Items) -> Ints:
    """A number for each row's group; a row without one is a group of its own."""
    known: Mapping[str, str] = items.groups
    names = [f"group\0{known[i]}" if i in known else f"id\0{i}" for i in items.ids]
    return np.asarray(np.unique(np.asarray(names), return_inverse=True)[1], np.int64)


def _ids_of(items: Items, found: Candidates) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    ids = np.asarray(items.ids)
    return ids[found.pairs[:, 1]], ids[found.pairs[:, 0]]
