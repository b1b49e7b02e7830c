"""What each modality of an item is worth, in several readings of several scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import AS_IS, Interval, Subset, by_key, interval, retrieve
from polymodal.evaluate.information import (
    PairSplit,
    ProbabilityProbe,
    information_gain,
    label_entropy,
    split_pair,
)
from polymodal.evaluate.intervals import Floats, Together, clusters_of
from polymodal.evaluate.retrieval import chance_each
from polymodal.evaluate.shapley import leave_one_out, shapley, subset_code, subset_codes
from polymodal.evaluate.values import Result
from polymodal.types import BadInput, Embeddings

__all__ = [
    "MOST_MODALITIES",
    "READINGS",
    "Reading",
    "Values",
    "Worth",
    "agreement_of",
    "cosine_of",
    "pair_splits",
    "precision_values",
    "probability_values",
    "probe_bits",
    "similarity_values",
    "worth",
]

Bools = npt.NDArray[np.bool_]

# 255 subsets; each one is a pass of the stages that mix
MOST_MODALITIES = 8
# name of a reading -> what it says, for people
READINGS = {
    "shapley": "share of the item's score, over all orders in which its modalities could come",
    "leave one out": "what the score loses without the modality",
    "alone": "the score from the modality alone, above that of nothing",
    "agreement": "mean harmonised weight with the item's other modalities",
    "cosine": "mean cosine of the vector from it alone with those from each other modality: the control of agreement",
}


@dataclass(frozen=True)
class Values:
    """The score of n items from each subset of their modalities.

    Args:
        score: what was scored, for people. ids: n. names: M.
        present: (n, M). table: (n, 2^M) by `subset_code`; NaN where a row lacks the subset, or cannot be judged.
    """

    score: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    present: Bools
    table: Floats

    @property
    def whole(self) -> Floats:
        """The score from everything that each item has, (n,)."""
        return np.asarray(self.table[np.arange(len(self.ids)), subset_codes(self.present)])


@dataclass(frozen=True)
class Reading(Result):
    """One reading of what the modalities are worth: the mean over the items that have each, with intervals.

    Args:
        name: of READINGS. per_item: (n, M), NaN where absent; not in the JSON.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"per_item"})
    name: str
    modalities: Mapping[str, Interval]
    per_item: Floats = field(repr=False)


@dataclass(frozen=True)
class Worth(Result):
    """All readings of one score. `full`, `empty`: its mean from everything an item has, and from nothing."""

    unwritten: ClassVar[frozenset[str]] = frozenset({"values"})
    score: str
    items: int
    full: Interval
    empty: float
    readings: tuple[Reading, ...]
    values: Values = field(repr=False)

    def reading(self, name: str) -> Reading:
        """The reading of that name."""
        return next(one for one in self.readings if one.name == name)


# -- scores ----------------------------------------------------------------------------------------------------------


def _table(
    fused: Mapping[Subset, Embeddings], presence: Mapping[str, Subset], names: Sequence[str]
) -> tuple[tuple[str, ...], Bools, Floats]:
    """Ids, presence and an empty table of values."""
    if not 1 <= len(names) <= MOST_MODALITIES:
        raise BadInput("modalities", f"1 to {MOST_MODALITIES} of them", len(names), "Name them: --modalities")
    ids = fused[AS_IS].ids
    present = np.asarray([[name in presence[i] for name in names] for i in ids], np.bool_).reshape(-1, len(names))
    return ids, present, np.full((len(ids), 1 << len(names)), np.nan)


def _subsets(fused: Mapping[Subset, Embeddings], names: Sequence[str]) -> Iterator[tuple[int, Embeddings]]:
    for subset, vectors in fused.items():
        if subset and subset <= set(names):
            yield subset_code(subset, names), vectors


def precision_values(
    fused: Mapping[Subset, Embeddings],
    presence: Mapping[str, Subset],
    names: Sequence[str],
    keys: Mapping[str, str],
    *,
    corpus: Embeddings | None = None,
    score: str = "average precision",
) -> Values:
    """Average precision of finding the other items of one label (or group), from each subset of an item's modalities.

    The catalogue that is searched stays whole. Nothing known: what a random order is expected to reach.

    Args:
        fused: subset -> item vectors made from it alone; AS_IS: from whatever each item has.
        presence: id -> its modalities.
        keys: id -> label; items without one, or alone with theirs, get NaN.
        corpus: what is searched; the AS_IS vectors by default.
    """
    ids, present, table = _table(fused, presence, names)
    searched = fused[AS_IS] if corpus is None else corpus
    at = {name: row for row, name in enumerate(ids)}
    for code, vectors in _subsets(fused, names):
        relevance = by_key(vectors.ids, searched.ids, keys)
        found = retrieve(vectors, searched, relevance, metrics=("map",), resamples=0).per_query["map"]
        table[[at[i] for i in vectors.ids], code] = found
    table[:, 0] = chance_each("map", by_key(ids, searched.ids, keys), len(searched))
    return Values(score, ids, tuple(names), present, table)


def probability_values(
    fused: Mapping[Subset, Embeddings],
    presence: Mapping[str, Subset],
    names: Sequence[str],
    keys: Mapping[str, str],
    learnt: Embeddings,
) -> Values:
    """Probability that a linear probe gives an item's own label, from each subset of its modalities.

    Nothing known: the label's frequency among the learnt items.

    Args:
        learnt: vectors of labelled items, made from whatever each has, that the probe learns from.
    """
    ids, present, table = _table(fused, presence, names)
    rows = [row for row, i in enumerate(learnt.ids) if i in keys]
    if not rows:
        raise BadInput("labels", "labelled items to learn from", "none", "Name their split: --train-split")
    probe = ProbabilityProbe(learnt.vectors[rows], [keys[learnt.ids[r]] for r in rows], (0.1,))
    code = {label: c for c, label in enumerate(probe.labels)}
    own = np.asarray([code.get(keys.get(i, ""), -1) for i in ids], np.int64)
    at = {name: row for row, name in enumerate(ids)}
    for column, vectors in _subsets(fused, names):
        here = np.asarray([at[i] for i in vectors.ids], np.int64)
        said = np.exp(probe.candidates(vectors.vectors)[-1])
        table[here, column] = np.where(own[here] >= 0, said[np.arange(len(here)), np.maximum(own[here], 0)], np.nan)
    table[:, 0] = np.where(own >= 0, np.exp(probe.log_prior)[np.maximum(own, 0)], np.nan)
    return Values("probability of its label", ids, tuple(names), present, table)


def similarity_values(
    fused: Mapping[Subset, Embeddings],
    presence: Mapping[str, Subset],
    names: Sequence[str],
    keys: Mapping[str, str],
    *,
    corpus: Embeddings | None = None,
) -> Values:
    """Mean cosine with the other items of an item's label or group, from each subset of its modalities. Nothing: 0.

    Arguments as in `precision_values`.
    """
    ids, present, table = _table(fused, presence, names)
    searched = fused[AS_IS] if corpus is None else corpus
    held = np.asarray([keys.get(i, "") for i in searched.ids])
    place = {name: row for row, name in enumerate(searched.ids)}
    others = np.full((len(ids), searched.width), np.nan)
    for row, i in enumerate(ids):
        same = (held == keys[i]) if i in keys else np.zeros(len(held), np.bool_)
        if i in place:
            same[place[i]] = False
        if same.any():
            others[row] = searched.vectors[same].mean(0, dtype=np.float64)
    at = {name: row for row, name in enumerate(ids)}
    for code, vectors in _subsets(fused, names):
        here = [at[i] for i in vectors.ids]
        table[here, code] = (vectors.vectors * others[here]).sum(1)
    table[:, 0] = np.where(np.isfinite(others).all(1), 0.0, np.nan)
    return Values("mean cosine with its kind", ids, tuple(names), present, table)


# -- readings --------------------------------------------------------------------------------------------------------


def agreement_of(weights: npt.NDArray[np.floating], present: Bools) -> Floats:
    """Mean harmonised weight of each modality with the other modalities of its item.

    Args:
        weights: (n, M, M); present: (n, M).

    Returns:
        (n, M); NaN where absent, and where nothing else is there.
    """
    others = present[:, None, :] & present[:, :, None] & ~np.eye(present.shape[1], dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(others, weights, 0.0).sum(2) / others.sum(2), np.float64)


def cosine_of(fused: Mapping[Subset, Embeddings], values: Values) -> Floats:
    """Mean cosine of what each modality of an item says alone with what each of its others says alone, (n, M).

    NaN where absent, and where nothing else is there.
    """
    at = {name: row for row, name in enumerate(values.ids)}
    stacked = np.zeros((len(values.ids), len(values.names), fused[AS_IS].width))
    for m, name in enumerate(values.names):
        vectors = fused.get(frozenset({name}))
        if vectors is not None:
            stacked[[at[i] for i in vectors.ids], m] = vectors.vectors
    return agreement_of(np.einsum("nie,nje->nij", stacked, stacked), values.present)


def worth(
    values: Values,
    others: Mapping[str, Floats] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Worth:
    """Every reading of a score.

    Args:
        others: further readings by name, (n, M) each: `agreement_of`, `cosine_of`.
        together: id -> group of items that are no independent observations: of the intervals.

    Raises: BadInput: no item could be judged.
    """
    full = values.whole
    if not np.isfinite(full).any():
        raise BadInput("label", "a label that two items of this split share", "none", "Choose another: --label")
    single = values.table[:, 1 << np.arange(len(values.names))] - values.table[:, [0]]
    found = {
        "shapley": shapley(values.table, values.present),
        "leave one out": leave_one_out(values.table, values.present),
        "alone": np.where(values.present, single, np.nan),
    }
    found |= others or {}
    options: Any = {"resamples": resamples, "seed": seed, "clusters": clusters_of(values.ids, together)}
    readings = []
    for name, each in found.items():
        means = {m: interval(each[:, at], **options) for at, m in enumerate(values.names)}
        readings.append(Reading(name, means, each))
    judged = int(np.isfinite(full).sum())
    overall = interval(full, **options)
    return Worth(values.score, judged, overall, float(np.nanmean(values.table[:, 0])), tuple(readings), values)


# -- pairs -----------------------------------------------------------------------------------------------------------


def pair_splits(
    learnt: Mapping[Subset, Embeddings],
    tested: Mapping[Subset, Embeddings],
    names: Sequence[str],
    keys: Mapping[str, str],
    *,
    fewest: int = 30,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> tuple[PairSplit, ...]:
    """What each pair of modalities tells of a label together and apart, over the items that have both.

    The two sources are the item vectors made from one modality each; together they stand side by side.

    Args:
        learnt, tested: subset -> item vectors, the single modalities among them.
        fewest: pairs with fewer labelled items than this, to learn from or to test, are left out.
        together: id -> group of items that are no independent observations: of the intervals.

    Raises: MissingExtra: scikit-learn is not installed.
    """
    out = []
    for a, b in combinations(names, 2):
        train, test = (_both(found, a, b, keys) for found in (learnt, tested))
        if min(len(train[0]), len(test[0])) < fewest or len({keys[i] for i in train[0]}) < 2:
            continue
        labels, asked = ([keys[i] for i in ids] for ids in (train[0], test[0]))
        probes = [ProbabilityProbe(x, labels) for x in train[1:]]
        gains = [information_gain(p, x, asked, seed=seed) for p, x in zip(probes, test[1:], strict=True)]
        entropy = label_entropy(probes[0])
        if np.isfinite(np.stack(gains)).all(0).any():
            options: Any = {"resamples": resamples, "seed": seed, "clusters": clusters_of(test[0], together)}
            out.append(split_pair((a, b), (gains[0], gains[1], gains[2]), entropy, **options))
    return tuple(out)


def probe_bits(
    learnt: Mapping[Subset, Embeddings],
    tested: Mapping[Subset, Embeddings],
    names: Sequence[str],
    keys: Mapping[str, str],
    *,
    fewest: int = 30,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> dict[str, Interval]:
    """Modality -> bits about a label that a probe reads from the vectors made from it alone.

    Arguments as in `pair_splits`; a modality with too few items is left out.
    """
    out = {}
    for name in names:
        train, test = (found.get(frozenset({name})) for found in (learnt, tested))
        if train is None or test is None:
            continue
        own, asked = ([i for i in vectors.ids if i in keys] for vectors in (train, test))
        if min(len(own), len(asked)) < fewest or len({keys[i] for i in own}) < 2:
            continue
        probe = ProbabilityProbe(train.rows(own), [keys[i] for i in own])
        gain = information_gain(probe, test.rows(asked), [keys[i] for i in asked], seed=seed)
        out[name] = interval(gain, resamples=resamples, seed=seed, clusters=clusters_of(asked, together))
    return out


def _both(
    found: Mapping[Subset, Embeddings], a: str, b: str, keys: Mapping[str, str]
) -> tuple[list[str], Floats, Floats, Floats]:
    """Labelled ids that have both modalities; the vectors of the one, of the other, and side by side."""
    one, two = found.get(frozenset({a})), found.get(frozenset({b}))
    if one is None or two is None:
        return [], np.zeros((0, 1)), np.zeros((0, 1)), np.zeros((0, 2))
    second = set(two.ids)
    ids = [i for i in one.ids if i in second and i in keys]
    first, other = one.rows(ids).astype(np.float64), two.rows(ids).astype(np.float64)
    return ids, first, other, np.concatenate([first, other], 1)
