"""Which reading of what modalities are worth can be believed: does it find a wrong cell, does it foretell a loss?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polymodal.evaluate import AS_IS, Interval, Subset, by_key, interval, paired, retrieve
from polymodal.evaluate.explain import RankCorrelation, spearman
from polymodal.evaluate.intervals import Difference, Floats, Together, clusters_of, within
from polymodal.evaluate.values import Result
from polymodal.tasks.worth import Reading, Values
from polymodal.types import Embeddings, Record

__all__ = ["Detection", "deleted", "detect", "exchange_cells", "foretold"]


@dataclass(frozen=True)
class Detection(Result):
    """How often a reading points at the cell that was exchanged: it is the modality of the lowest value.

    Args:
        found: share of the exchanged items (ties count their share). chance: of a modality drawn from an item's.
        difference: found minus chance, paired by item.
        by_modality: modality -> share found among the items in which it was exchanged.
    """

    name: str
    found: Interval
    chance: float
    difference: Difference
    by_modality: Mapping[str, Interval]


def deleted(values: Values, fused: Mapping[Subset, Embeddings], keys: Mapping[str, str]) -> Floats:
    """What each item loses when a modality is taken from the whole catalogue, from questions and answers alike.

    It is what an explanation of a modality's worth should foretell.

    Args:
        values: of `precision_values` over the items themselves.

    Returns:
        (n, M); NaN where absent or where nothing is left.
    """
    out = np.full(values.present.shape, np.nan)
    row_of = {subset: {i: r for r, i in enumerate(e.ids)} for subset, e in fused.items()}
    for at, name in enumerate(values.names):
        kept = [
            (i, frozenset(m for m, there in zip(values.names, has, strict=True) if there and m != name))
            for i, has in zip(values.ids, values.present, strict=True)
        ]
        left = [(i, subset) for i, subset in kept if subset in fused and i in row_of[subset]]
        if len(left) < 2:
            continue
        vectors = np.stack([fused[subset].vectors[row_of[subset][i]] for i, subset in left])
        corpus = Embeddings(tuple(i for i, _ in left), vectors, fused[AS_IS].model)
        same = {i: row for row, i in enumerate(corpus.ids)}
        judged = by_key(corpus.ids, corpus.ids, keys)
        without = retrieve(corpus, corpus, judged, metrics=("map",), resamples=0).per_query["map"]
        for row, i in enumerate(values.ids):
            if values.present[row, at] and i in same:
                out[row, at] = values.whole[row] - without[same[i]]
    return out


def exchange_cells(
    records: Sequence[Record],
    names: Sequence[str],
    keys: Mapping[str, str],
    *,
    seed: int = 0,
) -> tuple[list[Record], dict[str, str]]:
    """Records in which one cell of each item is another item's: what an explanation ought to find.

    Of every item with at least two of `names`, one modality (drawn) gets the cell of another item that has it and has
    another label. Items with one modality stay as they are.

    Returns:
        The records, in their order, and id -> the modality that was exchanged.
    """
    random = np.random.default_rng(seed)
    have = {name: [r for r in records if name in r.values and r.id in keys] for name in names}
    out, truth = [], {}
    for record in records:
        own = [name for name in names if name in record.values]
        chosen = own[int(random.integers(len(own)))] if own else ""
        draws = random.integers(1 << 62, size=16)
        donors = have.get(chosen, [])
        fits = (donors[int(d) % len(donors)] for d in draws) if donors else iter(())
        donor = next((d for d in fits if keys.get(record.id) not in (None, keys[d.id])), None)
        if len(own) < 2 or donor is None:
            out.append(record)
            continue
        values = {**record.values, chosen: donor.values[chosen]}
        out.append(Record(record.id, values, record.labels, record.group))
        truth[record.id] = chosen
    return out, truth


def detect(
    readings: Sequence[Reading],
    values: Values,
    truth: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> tuple[Detection, ...]:
    """Which reading points at the exchanged cells. Readings are of values that were made of the exchanged records.

    All readings are judged on the same items: those in which each of them is defined.

    Args:
        together: id -> group of items that are no independent observations: of the intervals.
    """
    column = {name: at for at, name in enumerate(values.names)}
    wrong = np.asarray([column.get(truth.get(i, ""), -1) for i in values.ids], np.int64)
    usable = (wrong >= 0) & values.present[np.arange(len(wrong)), np.maximum(wrong, 0)]
    for one in readings:
        usable &= np.isfinite(np.where(values.present, one.per_item, 0.0)).all(1)
    chance = 1.0 / np.maximum(values.present.sum(1), 1)
    clusters = clusters_of(values.ids, together)
    options: Any = {"resamples": resamples, "seed": seed}
    out = []
    for one in readings:
        low = np.where(values.present, one.per_item, np.inf)
        least = low <= low.min(1, keepdims=True) + 1e-12
        hit = least[np.arange(len(wrong)), np.maximum(wrong, 0)] / np.maximum(least.sum(1), 1)
        each = {
            name: interval(hit[rows], clusters=within(clusters, rows), **options)
            for name, at in column.items()
            if (rows := usable & (wrong == at)).any()
        }
        judged = within(clusters, usable)
        gap = paired(hit[usable], chance[usable], clusters=judged, **options)
        mean = float(chance[usable].mean()) if usable.any() else float("nan")
        out.append(Detection(one.name, interval(hit[usable], clusters=judged, **options), mean, gap, each))
    return tuple(out)


def foretold(
    readings: Sequence[Reading], losses: Floats, *, most: int = 400, seed: int = 0
) -> dict[str, RankCorrelation]:
    """Reading -> rank correlation of its values with `losses` of `deleted`, over cells in which all are defined.

    Args:
        most: cells (item x modality), drawn by `seed`: the p-value draws many orders of them.
    """
    known = np.isfinite(losses)
    for one in readings:
        known &= np.isfinite(one.per_item)
    cells = np.flatnonzero(known.ravel())
    cells = np.sort(np.random.default_rng(seed).permutation(cells)[:most])
    if len(cells) < 3:
        return {}
    lost = losses.ravel()[cells].tolist()
    return {one.name: spearman(one.per_item.ravel()[cells].tolist(), lost, seed=seed) for one in readings}
