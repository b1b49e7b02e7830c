"""Which items are strange, which of their modalities makes them so, and how well items of unknown kinds are noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Interval, fit_linear, top_k
from polymodal.evaluate.intervals import Clusters, Together, bounds, clusters_of, resample_weights
from polymodal.evaluate.outliers import Mahalanobis, auroc
from polymodal.evaluate.values import Result
from polymodal.tasks.items import Bools, Items
from polymodal.tasks.mismatch import disagreement
from polymodal.types import BadInput, Embeddings

__all__ = [
    "Evidence",
    "Strange",
    "Unknown",
    "auroc_interval",
    "evidence_of",
    "misfit",
    "nearest_known",
    "rank_strange",
    "stranger_scores",
    "unknown_classes",
]

Floats = npt.NDArray[np.float64]

_NEIGHBOUR = 10  # distance to the tenth nearest known item
_PENALTY = 0.1  # of the classifier behind max-softmax: nothing is left to choose it by without the strangers
# standard deviation of a normal variable in units of its median and of its mean absolute deviation
_MAD = 1.4826
_MEAN_AD = 1.2533
_EQUAL = 1e-6  # cosines of float32 vectors differ by less for no reason


def stranger_scores(
    known: Embeddings, asked: Embeddings, labels: Mapping[str, str] | None, *, seed: int = 0
) -> dict[str, Floats]:
    """Scores of the asked items, higher for strangers, by what was learnt from known ones.

    ::

        Mahalanobis       min_c (z - mu_c)^T S^-1 (z - mu_c), one covariance S for all classes
        max-softmax       1 - max_c p(c | z), by logistic regression
        nearest known     1 - cosine to the 10th nearest known item               (control)
        distance to mean  1 - cosine to the mean of the known items               (control)
        random            a draw                                                  (control)

    Args:
        labels: id -> class of the known items; None: one class, and no max-softmax.

    Returns:
        name -> (n,).

    Source: Lee et al. 2018 and Fort et al. 2021 (Mahalanobis, M3AE's figure 6); Hendrycks & Gimpel 2017 (max-softmax);
        Sun et al. 2022 (nearest known).
    Differences: M3AE fine-tunes on the known classes first; here the vectors are as they are. A classifier that was
        tuned on all classes has learnt the strangers, and must not be measured so.
    """
    classes = [labels[i] for i in known.ids] if labels is not None else ["all"] * len(known)
    out = {"Mahalanobis": Mahalanobis.fit(known.vectors, classes).score(asked.vectors)}
    if labels is not None:
        scores = fit_linear(known, labels, penalties=(_PENALTY,), seed=seed).scores(asked.vectors)
        top = scores - scores.max(1, keepdims=True)
        out["max-softmax"] = 1 - 1 / np.exp(top).sum(1)
    out["nearest known"] = nearest_known(known, asked)
    mean = known.vectors.astype(np.float64).mean(0)
    out["distance to mean"] = 1 - asked.vectors @ mean / max(float(np.linalg.norm(mean)), 1e-12)
    out["random"] = np.random.default_rng([seed, len(asked)]).random(len(asked))
    return out


def nearest_known(known: Embeddings, asked: Embeddings) -> Floats:
    """1 - cosine of each asked item to its 10th nearest known one, or the farthest of fewer, itself left out: (n,)."""
    itself = {name: row for row, name in enumerate(known.ids)}
    own = np.asarray([itself.get(name, -1) for name in asked.ids], np.int64)
    near = min(_NEIGHBOUR, len(known) - int((own >= 0).any()))
    if near < 1:
        raise BadInput("items", "at least two to compare", len(known))
    _, cosine = top_k(asked.vectors, known.vectors, near, exclude=own)
    return np.asarray(1 - cosine[:, -1], np.float64)


@dataclass(frozen=True)
class Unknown(Result):
    """How well items of classes that were not learnt are told from the others, by one score.

    Args:
        score: its name. auroc: mean over the draws; its interval resamples draws, and the items of each.
        draws: AUROC of each draw.
    """

    score: str
    auroc: Interval
    draws: tuple[float, ...]


def unknown_classes(
    train: Embeddings,
    test: Embeddings,
    labels: Mapping[str, str],
    *,
    share: float = 0.25,
    draws: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[Unknown, ...], tuple[tuple[str, ...], ...]]:
    """Leave classes out of what is learnt, and look for their items among the tested ones.

    Args:
        train: learnt from, without the classes left out; test: asked. labels: id -> class of both.
        share: of the classes, left out in each draw (at least one; at least two stay).
        together: id -> group of items that are no independent observations: of the intervals.

    Returns:
        A line for each score of `stranger_scores`, and the classes left out in each draw.

    Raises:
        BadInput: fewer than three classes with items on both sides.
    """
    names = sorted({labels[i] for i in train.ids if i in labels} & {labels[i] for i in test.ids if i in labels})
    if len(names) < 3:
        raise BadInput("label", "at least three values with items to learn from and to test", len(names))
    if draws < 1 or not 0 < share < 1:
        raise BadInput("--hold-out", "a share between 0 and 1, and at least one draw", f"{share}, {draws}")
    count = min(max(1, round(share * len(names))), len(names) - 2)
    generator = np.random.default_rng(seed)
    pairs: dict[str, list[_Sides]] = {}
    left: list[tuple[str, ...]] = []
    for draw in range(draws):
        out = {names[at] for at in generator.permutation(len(names))[:count]}
        known = _only(train, [i for i in train.ids if i in labels and labels[i] not in out])
        asked = _only(test, [i for i in test.ids if labels.get(i) in names])
        strange = np.asarray([labels[i] in out for i in asked.ids])
        for name, values in stranger_scores(known, asked, labels, seed=seed + draw).items():
            pairs.setdefault(name, []).append(_Sides.of(asked.ids, values, strange, together))
        left.append(tuple(sorted(out)))
        if progress is not None:
            progress(draw + 1, draws)
    return tuple(_over_draws(name, found, resamples, seed) for name, found in pairs.items()), tuple(left)


def _only(vectors: Embeddings, ids: Sequence[str]) -> Embeddings:
    return Embeddings(tuple(ids), vectors.rows(ids), vectors.model)


@dataclass(frozen=True)
class _Sides:
    """Scores of known and of strange items, and which of each side are drawn together."""

    known: Floats
    strange: Floats
    clusters: tuple[Clusters, Clusters] = (None, None)

    @classmethod
    def of(cls, ids: Sequence[str], values: Floats, strange: Bools, together: Together) -> _Sides:
        sides = [[i for i, one in zip(ids, strange, strict=True) if one == side] for side in (False, True)]
        return cls(
            values[~strange], values[strange], (clusters_of(sides[0], together), clusters_of(sides[1], together))
        )


def _over_draws(name: str, pairs: Sequence[_Sides], resamples: int, seed: int) -> Unknown:
    each = tuple(auroc(pair.known, pair.strange) for pair in pairs)
    whole = float(np.mean(each))
    if not resamples:
        return Unknown(name, Interval(whole, whole, whole, len(each)), each)
    drawn = np.stack([_resampled(pair, resamples, seed + at) for at, pair in enumerate(pairs)], 1)
    weight = np.concatenate(list(resample_weights(len(pairs), resamples, seed))).astype(np.float64)
    means = (drawn * weight).sum(1) / weight.sum(1)
    return Unknown(name, bounds(whole, means, len(each)), each)


def auroc_interval(
    ids: Sequence[str],
    values: Floats,
    strange: Bools,
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Interval:
    """`evaluate.outliers.auroc` with its bootstrap interval: known and strange items are resampled apart.

    Args:
        ids, values, strange: (n,) items, their scores, and which of them are strange.
        together: id -> group of items that are no independent observations.
    """
    sides = _Sides.of(ids, np.asarray(values, np.float64), strange, together)
    whole = auroc(sides.known, sides.strange)
    drawn = _resampled(sides, resamples, seed) if resamples else np.asarray([whole])
    return bounds(whole, drawn, len(sides.strange))


def _resampled(sides: _Sides, resamples: int, seed: int) -> Floats:
    """AUROC in every resample, (resamples,): each pair counts as often as its items were drawn."""
    known, strange = np.asarray(sides.known, np.float64), np.asarray(sides.strange, np.float64)
    order = np.sort(known)
    below, upto = np.searchsorted(order, strange, "left"), np.searchsorted(order, strange, "right")
    place = np.argsort(known, kind="stable")
    out = []
    one, two = (
        resample_weights(len(x), resamples, seed + at, sides.clusters[at]) for at, x in enumerate((known, strange))
    )
    for mine, theirs in zip(_blocks(one, resamples), _blocks(two, resamples), strict=True):
        total = np.concatenate([np.zeros((len(mine), 1)), np.cumsum(mine[:, place], 1)], 1)
        won = (total[:, below] + total[:, upto]) / 2
        out.append((won * theirs).sum(1) / (mine.sum(1) * theirs.sum(1)))
    return np.concatenate(out)


def _blocks(weights: object, resamples: int) -> list[Floats]:
    whole = np.concatenate(list(weights)).astype(np.float64)  # type: ignore[call-overload]
    return [whole[at : at + 100] for at in range(0, resamples, 100)]


@dataclass(frozen=True)
class Evidence:
    """One reason for which items may be strange.

    Args:
        name: for people. modality: that it speaks of, `a + b` for one of two, "" for the item as a whole.
        values: id -> how strange, in robust standard deviations above the median of the catalogue.
    """

    name: str
    modality: str
    values: Mapping[str, float]


def evidence_of(name: str, modality: str, ids: Iterable[str], scores: Floats) -> Evidence:
    """Scores (n,), higher for strangers, as deviations from their median in units of 1.4826 median absolute deviations,
    as the outliers themselves do not widen that; where more than half of the scores are equal, of 1.2533 mean absolute
    deviations. Source: Iglewicz & Hoaglin 1993."""
    away = scores - np.median(scores)
    spread = _MAD * float(np.median(np.abs(away)))
    if spread < _EQUAL:
        spread = _MEAN_AD * float(np.abs(away).mean())
    values = away / spread if spread >= _EQUAL else np.zeros(len(scores))
    return Evidence(name, modality, dict(zip(map(str, ids), values.tolist(), strict=True)))


def misfit(items: Items, parts: Sequence[Bools] = (), *, seed: int = 0) -> list[Evidence]:
    """How badly the modalities of an item fit one another, by `tasks.mismatch.disagreement`, in robust deviations.

    Where an item has two modalities that can be compared, that is all there is to say: nothing tells which of them is
    wrong. Where it has more, each has the evidence of all the others against it: a picture of another item disagrees
    with all of the rest, and the rest agrees.

    Args:
        items: with vectors of the modalities in one space (an aligned model).
        parts: items to which different things are usual; seed: of the exchanges.

    Returns:
        For each pair of modalities the items that have no other (`modality` is `a + b`), for each modality the items
        that have at least two others; nothing where no two modalities are in enough items.
    """
    try:
        found = disagreement(items, parts, seed=seed)
    except BadInput:
        return []
    ids, compared = np.asarray(items.ids), np.isfinite(found.odds)
    several = compared.sum(1) > 2
    out = []
    for one, two in sorted(found.pairs):
        rows = ~several & compared[:, found.modalities.index(one)] & compared[:, found.modalities.index(two)]
        if rows.any():
            out.append(
                evidence_of(f"{one} and {two} do not fit", f"{one} + {two}", ids[rows], found.pairs[one, two][rows])
            )
    for at, name in sorted(enumerate(found.modalities), key=lambda pair: pair[1]):
        rows = several & compared[:, at]
        if rows.any():
            out.append(evidence_of(f"{name} does not fit the rest", name, ids[rows], found.odds[rows, at]))
    return out


@dataclass(frozen=True)
class Strange(Result):
    """An item of the ranking.

    Args:
        id: its name. score: the largest of its evidence, in robust standard deviations. reason: the name of that;
            modality: see `Evidence`.
        evidence: name -> value, of everything that there is about the item.
    """

    id: str
    score: float
    reason: str
    modality: str
    evidence: Mapping[str, float]


def rank_strange(evidence: Sequence[Evidence]) -> tuple[Strange, ...]:
    """All items, the strangest first, ties by id: an item is as strange as the strongest evidence about it."""
    ids = sorted({name for one in evidence for name in one.values})
    out = []
    for name in ids:
        own = {one.name: one.values[name] for one in evidence if name in one.values}
        reason = max(own, key=lambda what: own[what])
        modality = next(one.modality for one in evidence if one.name == reason)
        out.append(Strange(name, own[reason], reason, modality, own))
    return tuple(sorted(out, key=lambda one: (-one.score, one.id)))
