"""How good predicted labels are: in all, by label, by how frequent a label is, against controls, and how honest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from polymodal.evaluate import Difference, GroupScore, Interval, classified, interval, paired
from polymodal.evaluate.intervals import Together, clusters_of
from polymodal.evaluate.values import Result
from polymodal.tasks.calibration import Calibration, calibration
from polymodal.tasks.classify import Classifier, Predictions
from polymodal.types import BadInput, Embeddings

__all__ = ["ClassScore", "Control", "Scored", "against", "score"]

_BANDS = ("head", "torso", "tail")


@dataclass(frozen=True)
class ClassScore(Result):
    """One label: items learnt from, items tested, times predicted, share of its items found (recall) and share of its
    predictions right (precision; n = 0 where it was never predicted)."""

    name: str
    trained: int
    tested: int
    predicted: int
    recall: Interval
    precision: Interval


@dataclass(frozen=True)
class Control(Result):
    """Another way to answer, and ours minus it on the same items, paired.

    Args:
        name: what it is. items: it could answer, of those tested.
        accuracy, balanced: its own, over them. difference: of accuracy; difference_balanced: of the mean recall.
    """

    name: str
    items: int
    accuracy: Interval
    balanced: Interval
    difference: Difference
    difference_balanced: Difference


@dataclass(frozen=True)
class Scored(Result):
    """Predicted labels against the true ones.

    Args:
        label: what was predicted. trained, tested: items. unseen: tested items whose label was not learnt; they count
            as wrong.
        accuracy: share right; balanced: mean recall over the labels of the tested items.
        bands: accuracy over head, torso and tail labels (half, the next 30 % and the rest of what was learnt from).
        classes: one line a label, the most frequent first. controls: other ways to answer.
    """

    label: str
    trained: int
    tested: int
    unseen: int
    accuracy: Interval
    balanced: Interval
    bands: tuple[GroupScore, ...]
    classes: tuple[ClassScore, ...]
    calibration: Calibration
    controls: tuple[Control, ...] = ()


def score(
    predictions: Predictions,
    classifier: Classifier,
    vectors: Embeddings,
    labels: Mapping[str, str],
    counts: Mapping[str, int],
    label: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Scored:
    """Score the predictions of labelled items.

    Args:
        predictions: of `classifier` for `vectors`, in their order; every item has a label.
        labels: id -> value. counts: label -> items that were learnt from.
        together: id -> group of items that are no independent observations: of the intervals.

    Raises:
        BadInput: no item, or one without a label.
    """
    if not predictions.ids or any(i not in labels for i in predictions.ids):
        raise BadInput("labels", "a label for each of at least one item", f"{len(predictions.ids)} items")
    best, options = predictions.best, _options(resamples, seed)
    clusters = clusters_of(predictions.ids, together)
    found = classified(label, "", {}, counts, predictions.ids, best, labels, together=together, **options)
    right = np.asarray([found.correct[i] for i in predictions.ids], np.float64)
    predicted: dict[str, dict[str, float]] = {}
    for i, name, ok in zip(predictions.ids, best, right, strict=True):
        predicted.setdefault(name, {})[i] = ok
    classes = tuple(
        ClassScore(
            one.name,
            counts.get(one.name, 0),
            one.n,
            len(predicted.get(one.name, ())),
            one.score,
            _precision(predicted.get(one.name, {}), together, options),
        )
        for one in sorted(found.per_class, key=lambda one: (-counts.get(one.name, 0), -one.n, one.name))
    )
    cold = Classifier(classifier.head, classifier.model, classifier.shift).predict(vectors)
    honest = calibration(
        predictions.confidence,
        right,
        before=cold.confidence,
        temperature=classifier.temperature,
        clusters=clusters,
        **options,
    )
    bands = tuple(sorted(found.bands, key=lambda band: _BANDS.index(band.name)))
    return Scored(
        label, found.trained, found.tested, found.unseen, found.accuracy, found.balanced, bands, classes, honest
    )


def against(
    name: str,
    ours: Mapping[str, str],
    other: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> Control:
    """A control on the items that it answers: id -> predicted label of both, id -> true label."""
    ids, options = [i for i in ours if i in other], _options(resamples, seed)
    truth = Counter(labels[i] for i in ids)
    its = classified(name, "", {}, truth, ids, [other[i] for i in ids], labels, together=together, **options)
    gap = np.asarray([(ours[i] == labels[i]) * 1.0 - (other[i] == labels[i]) for i in ids], np.float64)
    # the mean of this is the difference of the mean recalls
    alike = gap * np.asarray([len(ids) / (len(truth) * truth[labels[i]]) for i in ids])
    nothing, options["clusters"] = np.zeros(len(ids)), clusters_of(ids, together)
    return Control(
        name, len(ids), its.accuracy, its.balanced, paired(gap, nothing, **options), paired(alike, nothing, **options)
    )


def _precision(right: Mapping[str, float], together: Together, options: Any) -> Interval:
    """Of the items that were predicted to be of one label."""
    values = np.asarray(list(right.values()) or [np.nan])
    return interval(values, clusters=clusters_of(list(right), together), **options)


def _options(resamples: int, seed: int) -> Any:
    return {"resamples": resamples, "seed": seed}
