"""A classifier of item vectors that says how sure it is: a linear probe, nearest neighbours, or a tuned head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import LinearFit, fit_linear, top_k
from polymodal.evaluate.probe import knn_votes
from polymodal.tasks.calibration import log_softmax, temperature
from polymodal.types import BadInput, Embeddings, ModelMismatch

__all__ = ["Classifier", "Neighbours", "Predictions", "fit_neighbours", "fit_probe", "usable"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
_NEIGHBOURS = (1, 3, 10, 30)
# of every label's chance, that of its frequency: a label that no neighbour has is unlikely, not impossible
_DOUBT = 0.01


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours as a classifier of C labels.

    Args:
        labels: C names, sorted. vectors: (n, E), items that are known; codes: (n,), their labels.
        k: how many vote, each exp(cosine / 0.07).
    """

    labels: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    codes: Ints
    k: int

    def scores(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Logarithms of the share of votes, mixed with a little of each label's frequency: (n, E) -> (n, C)."""
        rows, cosines = top_k(np.asarray(vectors, np.float32), self.vectors, self.k)
        near = np.where(rows >= 0, cosines, -1.0).astype(np.float64)
        codes = np.where(rows >= 0, self.codes[rows], -1)
        votes = knn_votes(near, codes, len(self.labels))
        frequency = np.bincount(self.codes, minlength=len(self.labels)) / len(self.codes)
        shares = votes / votes.sum(1, keepdims=True)
        return np.asarray(np.log((1 - _DOUBT) * shares + _DOUBT * frequency), np.float64)


@dataclass(frozen=True)
class Predictions:
    """The likeliest label of each item and the next one, with their chances.

    Args:
        ids: n. probabilities: (n, C). labels: C names.
    """

    ids: tuple[str, ...]
    probabilities: Floats
    labels: tuple[str, ...]

    @property
    def order(self) -> Ints:
        """(n, C) labels from the likeliest on, ties by place."""
        return np.asarray(np.argsort(-self.probabilities, axis=1, kind="stable"), np.int64)

    @property
    def best(self) -> list[str]:
        """The likeliest label of each item."""
        return [self.labels[c] for c in self.order[:, 0]]

    @property
    def confidence(self) -> Floats:
        """(n,) its chance, in (0, 1]."""
        return np.asarray(self.probabilities.max(1), np.float64)

    def columns(self) -> dict[str, list[str] | list[float]]:
        """id, prediction, confidence, runner_up, runner_up_confidence, for a table."""
        order, rows = self.order, np.arange(len(self.ids))
        return {
            "id": list(self.ids),
            "prediction": self.best,
            "confidence": self.confidence.tolist(),
            "runner_up": [self.labels[c] for c in order[:, 1]],
            "runner_up_confidence": self.probabilities[rows, order[:, 1]].tolist(),
        }


@dataclass(frozen=True)
class Classifier:
    """Scores of C labels, made into chances.

    ::

        p(c | z) = softmax_c((s_c(z) - shift_c) / T)

    Args:
        head: gives the scores s.
        model: digest of the model that makes the vectors.
        shift: (C,): 0, or the logarithms of the labels' frequencies where all labels are to count alike.
        temperature: T > 0, chosen on items that the head did not learn from.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2 (temperature); Menon et al. 2021,
        "Long-Tail Learning via Logit Adjustment", equation 9 (shift, tau = 1).
    """

    head: LinearFit | Neighbours
    model: str
    shift: Floats
    temperature: float = 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        """C names."""
        return self.head.labels

    def adjusted(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """s - shift: (n, E) -> (n, C)."""
        return self.head.scores(vectors) - self.shift

    def predict(self, vectors: Embeddings) -> Predictions:
        """Chances of every label. Raises ModelMismatch for vectors of another model."""
        if vectors.model != self.model:
            raise ModelMismatch(
                "classifier",
                f"vectors of model {self.model}, which it learnt from",
                f"those of {vectors.model}",
                "Give it the model that it was made with, or make a new classifier.",
            )
        chances = np.exp(log_softmax(self.adjusted(vectors.vectors) / self.temperature))
        return Predictions(vectors.ids, chances, self.labels)

    def calibrated(self, held: Embeddings, labels: Mapping[str, str]) -> Classifier:
        """The same with the temperature that fits some labelled items best; unchanged where too few are left."""
        code = {name: c for c, name in enumerate(self.labels)}
        rows = [row for row, i in enumerate(held.ids) if labels.get(i) in code]
        if len(rows) < 10:
            return self
        truth = np.asarray([code[labels[held.ids[row]]] for row in rows])
        return replace(self, temperature=temperature(self.adjusted(held.vectors[rows]), truth))


def usable(ids: Sequence[str], labels: Mapping[str, str], least: int = 2) -> tuple[list[str], dict[str, int]]:
    """The labels that can be learnt, and the items of those that cannot: labels with fewer than `least` of the ids.

    Raises:
        BadInput: fewer than two labels are left.
    """
    counts = Counter(labels[i] for i in ids if i in labels)
    kept = sorted(name for name, n in counts.items() if n >= least)
    if len(kept) < 2:
        most = ", ".join(f"{name!r} {n}" for name, n in counts.most_common(3)) or "none"
        raise BadInput(
            "label", f"at least two values with {least} or more items to learn from", f"{len(kept)} (items: {most})"
        )
    return kept, {name: n for name, n in sorted(counts.items()) if n < least}


def _shift(ids: Sequence[str], labels: Mapping[str, str], names: Sequence[str], balanced: bool) -> Floats:
    counts = Counter(labels[i] for i in ids if i in labels)
    frequency = np.asarray([counts[name] for name in names], np.float64) / sum(counts.values())
    return np.log(frequency) if balanced else np.zeros(len(names))


def fit_probe(
    train: Embeddings, held: Embeddings, labels: Mapping[str, str], *, balanced: bool = False, seed: int = 0
) -> Classifier:
    """Multinomial logistic regression on standardised vectors, its penalty and temperature chosen on `held`.

    Args:
        train: learnt from; held: other items, of which those with a known label are used.
        labels: id -> value.
        balanced: all labels count alike, whatever their frequency: logit adjustment after the fit. It is consistent
            for the mean recall over labels; weights in the loss stop acting once the items can be told apart.

    Raises: BadInput, MissingExtra: as `evaluate.fit_linear`.
    """
    enough = sum(i in labels for i in held.ids) >= 10
    fit = fit_linear(train, labels, validation=held if enough else None, penalties=_PENALTIES, seed=seed)
    made = Classifier(fit, train.model, _shift(train.ids, labels, fit.labels, balanced))
    return made.calibrated(held, labels)


def fit_neighbours(
    train: Embeddings, held: Embeddings, labels: Mapping[str, str], *, balanced: bool = False, k: int | None = None
) -> Classifier:
    """k nearest neighbours, with k (of 1, 3, 10, 30 unless given; ties to the larger) and temperature by `held`.

    Args: as `fit_probe`.
    """
    ids = [i for i in train.ids if i in labels]
    names = tuple(sorted({labels[i] for i in ids}))
    code = {name: c for c, name in enumerate(names)}
    vectors, codes = train.rows(ids), np.asarray([code[labels[i]] for i in ids], np.int64)
    shift = _shift(ids, labels, names, balanced)
    tuned = [i for i in held.ids if i in labels]
    candidates = [k] if k is not None else [n for n in _NEIGHBOURS if n <= len(ids)]
    if k is None and len(tuned) < 10:
        candidates = [min(10, len(ids))]
    made = [Classifier(Neighbours(names, vectors, codes, n), train.model, shift) for n in candidates]
    if len(made) > 1:
        truth = np.asarray([code.get(labels[i], -1) for i in tuned])
        right = [float((one.adjusted(held.rows(tuned)).argmax(1) == truth).mean()) for one in made]
        made = [one for one, score in zip(made, right, strict=True) if score == max(right)]
    return made[-1].calibrated(held, labels)
