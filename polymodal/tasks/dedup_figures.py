"""How well duplicates are found, where it is known which pairs are some; and what plain controls find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Interval, interval
from polymodal.evaluate.intervals import Clusters, clusters_of
from polymodal.evaluate.values import Result
from polymodal.tasks.dedup import Candidates, Group, unit
from polymodal.tasks.items import Bools, Floats, Ints, Items
from polymodal.tasks.ranking import Ranked, compare_rankings
from polymodal.types import MissingExtra

__all__ = ["Found", "figures", "words_of"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Found(Result):
    """Duplicates against what is known.

    Args:
        known: pairs that are duplicates.
        precision: of the pairs that were put into one group; what nobody knew of counts as wrong.
        recall: of the known pairs.
        rankings: of all candidate pairs by similarity, and by the controls.
    """

    known: int
    precision: Interval
    recall: Interval
    rankings: tuple[Ranked, ...]


def figures(
    items: Items,
    found: Candidates,
    groups: Sequence[Group],
    known: Sequence[tuple[str, str]],
    *,
    among: Bools | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Found:
    """What was found against the known pairs.

    Args:
        known: ids of the duplicates, each pair once.
        among: (n,) only pairs with one of these items are judged (planted copies: what else the catalogue holds twice,
            nobody knows).
    """
    at = items.places()
    sought = {_ordered(at[a], at[b]) for a, b in known if a in at and b in at}
    grouped = {_ordered(at[a], at[b]) for group in groups for a, b in combinations([m.id for m in group.members], 2)}
    judged = {pair for pair in grouped if among is None or among[pair[0]] or among[pair[1]]}
    shown, wanted = sorted(judged), sorted(sought)
    right = np.asarray([pair in sought for pair in shown], np.float64)
    hit = np.asarray([pair in grouped for pair in wanted], np.float64)
    options: Any = {"resamples": resamples, "seed": seed}
    rankings = _rankings(items, found, sought, among, seed, options)
    precision = interval(right, clusters=_clusters(items, shown), **options)
    return Found(len(sought), precision, interval(hit, clusters=_clusters(items, wanted), **options), rankings)


def _clusters(items: Items, pairs: Sequence[Pair]) -> Clusters:
    """Pairs of which the first items are one, or variants of one product, are drawn together."""
    return clusters_of([items.ids[left] for left, _ in pairs], items.groups)


def words_of(items: Items, attributes: bool = True) -> list[str]:
    """The words of each item, of its texts and (on request) its attributes; "" where it has none."""
    out = []
    for name in items.ids:
        cells = [known[name] for known in items.cells.values() if name in known]
        words = [cell if isinstance(cell, str) else " ".join(f"{n} {v}" for n, v in cell) for cell in cells]
        out.append("\n".join(w for w, cell in zip(words, cells, strict=True) if attributes or isinstance(cell, str)))
    return out


def _ordered(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)


def _rankings(
    items: Items,
    found: Candidates,
    sought: set[Pair],
    among: Bools | None,
    seed: int,
    options: Any,
) -> tuple[Ranked, ...]:
    """All pairs that any of the scores proposes, ranked by each."""
    texts = words_of(items, attributes=False)
    words = {"texts": texts, "texts and attributes": words_of(items)}
    weighed = {name: _weighed(text) for name, text in words.items()}
    equal = _equal(texts)
    proposed = {_ordered(a, b) for a, b in found.pairs.tolist()} | equal | sought
    proposed = proposed.union(*(near for _, near in weighed.values()))
    if among is not None:
        proposed = {pair for pair in proposed if among[pair[0]] or among[pair[1]]}
    pairs = np.asarray(sorted(proposed), np.int64).reshape(-1, 2)
    wanted = np.asarray([pair in sought for pair in sorted(proposed)], np.bool_)
    if not wanted.any() or wanted.all():
        return ()
    left, right = pairs.T
    scores = {"model": _cosines(unit(items.fused.vectors), left, right)}
    scores["mean of the modalities"] = _towers(items, left, right)
    for name, (vectors, _) in weighed.items():
        has = np.asarray([bool(text) for text in words[name]])
        cosines = np.asarray(vectors[left].multiply(vectors[right]).sum(1), np.float64).ravel()
        scores[f"TF-IDF of {name}"] = np.where(has[left] & has[right], cosines, -np.inf)
    scores["equal texts"] = np.asarray([float(pair in equal) for pair in sorted(proposed)])
    scores["random order"] = np.random.default_rng(seed).random(len(pairs))
    clusters = _clusters(items, sorted(proposed))
    runs = {name: [(score, wanted)] for name, score in scores.items()}
    return compare_rankings(runs, clusters=None if clusters is None else [clusters], **options)


def _cosines(vectors: npt.NDArray[np.float32], left: Ints, right: Ints) -> Floats:
    return np.asarray(np.einsum("pe,pe->p", vectors[left], vectors[right]), np.float64)


def _towers(items: Items, left: Ints, right: Ints) -> Floats:
    """The mean cosine over the modalities that both have."""
    total, count = np.zeros(len(left)), np.zeros(len(left))
    for modality in items.towers:
        vectors, there = items.tower(modality)
        both = there[left] & there[right]
        total += np.where(both, _cosines(vectors, left, right), 0.0)
        count += both
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf)


def _weighed(words: Sequence[str], neighbours: int = 10) -> tuple[Any, set[Pair]]:
    """TF-IDF vectors, and each row's nearest ones by them."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    vectors = (
        TfidfVectorizer(tokenizer=str.split, token_pattern=None).fit_transform([text or "-" for text in words]).tocsr()
    )
    has = np.flatnonzero([bool(text) for text in words])
    near: set[Pair] = set()
    for begin in range(0, len(has), 512):
        rows = has[begin : begin + 512]
        cosines = (vectors[rows] @ vectors[has].T).toarray()
        for at, row in enumerate(rows.tolist()):
            best = has[np.argsort(-cosines[at], kind="stable")[: neighbours + 1]]
            near |= {_ordered(row, other) for other in best.tolist() if other != row}
    return vectors, near


def _equal(words: Sequence[str], most: int = 50) -> set[Pair]:
    """Pairs with the same words; a text that more than `most` rows have says nothing."""
    known: dict[str, list[int]] = {}
    for row, text in enumerate(words):
        if text:
            known.setdefault(" ".join(text.casefold().split()), []).append(row)
    return {pair for rows in known.values() if len(rows) <= most for pair in combinations(rows, 2)}
