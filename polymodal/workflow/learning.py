"""A label learnt from item vectors, and other ways to answer that must be beaten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from polymodal.embed import Embedder
from polymodal.evaluate import LinearFit
from polymodal.tasks.classify import Classifier, fit_neighbours, fit_probe, usable
from polymodal.tasks.finetune import FinetuneConfig
from polymodal.tasks.scoring import Control, against
from polymodal.types import BadInput, Embeddings, MissingExtra
from polymodal.workflow.finetuning import Tuned, as_tuned, tune
from polymodal.workflow.item_vectors import ItemVectors, embed_rows, part_of, untrained
from polymodal.workflow.opened import Opened
from polymodal.workflow.parts import ids_of, part_rows

__all__ = ["ClassifySettings", "Learning", "one_thread"]

Method = Literal["probe", "knn", "finetune"]
T = TypeVar("T")


@dataclass(frozen=True)
class ClassifySettings:
    """What is learnt and how.

    Args:
        label: the first of the data where None.
        split, train_split, val_split: items to test, to learn from, to tune on.
        balanced: all label values count alike, whatever their frequency.
        least: values with fewer items to learn from are left out.
        controls: also answer in the ways that must be beaten.
        tuning: of the fine-tuning; its `balanced` and `seed` are the ones here.
    """

    label: str | None = None
    method: Method = "probe"
    split: str = "test"
    train_split: str = "train"
    val_split: str = "val"
    balanced: bool = False
    least: int = 2
    controls: bool = True
    resamples: int = 1000
    seed: int = 0
    tuning: FinetuneConfig = field(default_factory=FinetuneConfig)


class Learning:
    """The rows of one label and their vectors.

    Args:
        opened: model and data. model: where it was opened from.
        label: its name; values: id -> value.

    Raises:
        BadInput: too little to learn from.
    """

    def __init__(
        self, opened: Opened, model: Path, settings: ClassifySettings, label: str, values: Mapping[str, str]
    ) -> None:
        self.opened, self.model, self.settings, self.label, self.values = opened, model, settings, label, values
        splits = {"train": settings.train_split, "held": settings.val_split, "test": settings.split}
        self.parts = part_rows(opened.rows, values, **splits, seed=settings.seed)
        kept, self.left_out = usable(ids_of(opened.rows, self.parts.train), values, settings.least)
        self.known = {i: value for i, value in values.items() if value in set(kept)}
        self.train_rows, self.held_rows = (self._known(rows) for rows in (self.parts.train, self.parts.held))
        self.asked_rows = np.sort(np.concatenate([self.parts.test, self.parts.asked]))
        self.rows = np.sort(np.concatenate([self.train_rows, self.held_rows, self.asked_rows]))
        self.vectors = self.embed(opened.embedder, self.rows, "embedding", alone=settings.controls)
        self.train, self.held = self._learning(self.vectors.fused)
        usable(self.train.ids, self.known, 1)  # rows without a vector teach nothing
        self.counts = Counter(self.known[i] for i in self.train.ids)
        self.tested = [i for i in ids_of(opened.rows, self.parts.test) if i in self.vectors.presence]

    def _known(self, numbers: np.ndarray) -> np.ndarray:
        return numbers[np.asarray([i in self.known for i in ids_of(self.opened.rows, numbers)], np.bool_)]

    def _learning(self, vectors: Embeddings) -> tuple[Embeddings, Embeddings]:
        rows = self.opened.rows
        return part_of(vectors, ids_of(rows, self.train_rows)), part_of(vectors, ids_of(rows, self.held_rows))

    def embed(self, embedder: Embedder, numbers: np.ndarray, what: str, *, alone: bool = False) -> ItemVectors:
        """Vectors of some rows by some model."""
        return embed_rows(embedder, self.opened.rows, numbers, alone=alone, progress=self._count(what, len(numbers)))

    def _count(self, what: str, total: int) -> Callable[[int], None]:
        done, say = 0, self.opened.progress

        def count(rows: int) -> None:
            nonlocal done
            done += rows
            if say is not None:
                say(what, done, total)

        return count

    def learn(self, save: Path) -> tuple[Classifier, Tuned | None]:
        """The classifier, and the tuned model where there is one: the classifier is for its vectors then."""
        settings = self.settings
        if settings.method == "knn":
            fit = lambda: fit_neighbours(self.train, self.held, self.known, balanced=settings.balanced)  # noqa: E731
            return one_thread(fit), None
        if settings.method == "probe":
            return self._probe(self.train, self.held, settings.balanced), None
        return self._tune(save)

    def _probe(self, train: Embeddings, held: Embeddings, balanced: bool) -> Classifier:
        return one_thread(lambda: fit_probe(train, held, self.known, balanced=balanced, seed=self.settings.seed))

    def _tune(self, save: Path) -> tuple[Classifier, Tuned]:
        settings, say = self.settings, self.opened.progress
        if not len(self.held):
            raise BadInput("--val-split", "items with the label, to choose the epoch by", "none")
        start = cast(LinearFit, self._probe(self.train, self.held, False).head)
        config = settings.tuning.replace(balanced=settings.balanced, seed=settings.seed)
        move = None if say is None else lambda done, total: say("fine-tuning", done, total)
        rows = (self.train_rows, self.held_rows)
        tuned = tune(self.opened, self.model, start, self.label, *rows, self.counts, config, save, move)
        embedder = as_tuned(self.opened.embedder)
        held = self.embed(embedder, self.held_rows, "calibrating").fused
        return Classifier(tuned.head, embedder.model, np.zeros(len(start.labels))).calibrated(held, self.known), tuned

    def controls(self, ours: Mapping[str, str]) -> tuple[Control, ...]:
        """Other ways to answer, on the tested items: the most frequent value, the probe (where the model was tuned),
        each modality alone by a probe, and a probe of the model before any training.

        Args:
            ours: tested id -> predicted value.
        """
        most = max(sorted(self.counts), key=lambda name: self.counts[name])
        out: list[Control | None] = [self._against("most frequent value", ours, dict.fromkeys(ours, most))]
        if self.settings.method != "probe":
            out.append(self._by_probe("probe of the same model", ours, self.vectors.fused))
        for name, vectors in self.vectors.alone.items():
            out.append(self._by_probe(f"{name} alone, probe", ours, vectors))
        fresh = untrained(self.model, self.settings.seed, str(self.opened.embedder.device))
        before = self.embed(fresh, self.rows, "embedding, untrained").fused
        out.append(self._by_probe("untrained model, probe", ours, before))
        return tuple(control for control in out if control is not None)

    def _by_probe(self, name: str, ours: Mapping[str, str], vectors: Embeddings) -> Control | None:
        """None where these vectors are too few to learn from or to test."""
        train, held = self._learning(vectors)
        tested = part_of(vectors, list(ours))
        if not len(tested) or sum(n > 1 for n in Counter(self.known[i] for i in train.ids).values()) < 2:
            return None
        found = self._probe(train, held, self.settings.balanced).predict(tested)
        return self._against(name, ours, dict(zip(found.ids, found.best, strict=True)))

    def _against(self, name: str, ours: Mapping[str, str], other: Mapping[str, str]) -> Control:
        options: Any = {"resamples": self.settings.resamples, "seed": self.settings.seed}
        return against(name, ours, other, self.values, together=self.opened.together, **options)


def one_thread(do: Callable[[], T]) -> T:
    """Matrices this small are ten times slower on two threads that fight for busy cores than on one."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    with threadpool_limits(1):
        return do()
