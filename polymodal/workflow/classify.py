"""A model and labelled data in; predicted labels with honest confidences, a report, and a classifier to keep out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polymodal.evaluate import Leak, LinearFit, label_leak, leak_warning
from polymodal.evaluate.intervals import groups_note
from polymodal.evaluate.values import plain
from polymodal.tasks.classify import Classifier, Predictions
from polymodal.tasks.finetune import Epoch
from polymodal.tasks.scoring import Scored, score
from polymodal.types import Embeddings
from polymodal.workflow.classifiers import Saved, check_folder, load_classifier, save_classifier
from polymodal.workflow.files import check_table_path, write_json, write_table
from polymodal.workflow.finetuning import Tuned
from polymodal.workflow.item_vectors import ItemVectors, embed_rows, part_of
from polymodal.workflow.learning import ClassifySettings, Learning
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.training import split_rows

__all__ = ["ClassifyResult", "ClassifySettings", "apply_classifier", "classify"]


@dataclass(frozen=True)
class ClassifyResult:
    """What was predicted, and how good that is.

    Args:
        out: the table; report: the same as `to_json`; folder: of the classifier.
        predicted: items in the table, `unknown` of them without the label. empty: items with nothing the model reads.
        learnt: how it was learnt. scored: None where no item had the label.
        left_out: label values with too few items, and how many they have. epochs: of the fine-tuning.
        leak: how often the input names the label. warning: where it mostly does. notes: what else had to be decided.
    """

    out: Path
    report: Path
    folder: Path
    label: str
    method: str
    predicted: int
    unknown: int
    empty: int
    learnt: Mapping[str, Any]
    scored: Scored | None
    leak: Mapping[str, Any]
    warning: str
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"format": 1, **plain(fields | {"epochs": [vars(epoch) for epoch in self.epochs]})}


def classify(
    model: Path,
    data: Path,
    out: Path,
    settings: ClassifySettings | None = None,
    *,
    save: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ClassifyResult:
    """Learn a label, test it, and predict it for the items that lack it.

    Args:
        out: table of predictions (.parquet or .csv); the report goes beside it as .json.
        save: folder for the classifier.

    Raises:
        BadInput: an unknown label or split, too few items to learn from, files that cannot be written.
        Interrupted: fine-tuning was stopped; the same command goes on with it.
        MissingExtra: scikit-learn is not installed.
    """
    settings = settings or ClassifySettings()
    check_table_path("--out", out)
    check_folder(save)
    opened = open_task(model, data, device, progress)
    label, values = opened.label(settings.label)
    base = opened.embedder.model
    work = Learning(opened, model, settings, label, values)
    classifier, tuned = work.learn(save)
    saved = Saved(classifier, label, settings.method, base, work.counts, frozenset())
    save_classifier(save, saved, [*work.train.ids, *work.held.ids], tuned.files if tuned else None)
    vectors = work.vectors
    if tuned is not None:
        tuned.finish()
        saved, embedder = load_classifier(save, save, device)
        vectors = work.embed(embedder, work.asked_rows, "predicting")
    wanted = {*work.tested, *(i for i in vectors.fused.ids if i not in values)}
    asked = part_of(vectors.fused, [i for i in vectors.fused.ids if i in wanted])
    predictions = saved.classifier.predict(asked)
    ours = {i: best for i, best in zip(predictions.ids, predictions.best, strict=True) if i in values}
    options: Any = {"resamples": settings.resamples, "seed": settings.seed, "together": opened.together}
    scored = _score(saved, part_of(asked, list(ours)), values, options) if ours else None
    if scored is not None and settings.controls:
        scored = dataclasses.replace(scored, controls=work.controls(ours))
    left = [f"Too few items to learn from: {', '.join(f'{v} {n}' for v, n in work.left_out.items())}."]
    leak = _leak(vectors, predictions, values, label, opened.embedder.modalities)
    result = _result(out, save, saved, predictions, vectors, values, scored, leak)
    return _written(
        dataclasses.replace(
            result,
            learnt={**_how(saved.classifier, tuned), "balanced": settings.balanced, "seed": settings.seed},
            left_out=work.left_out,
            epochs=tuned.epochs if tuned else (),
            notes=(*work.parts.notes, *(left if work.left_out else []), *_drawn(list(ours), opened)),
        ),
        predictions,
        values,
    )


def apply_classifier(
    model: Path,
    data: Path,
    out: Path,
    classifier: Path,
    *,
    split: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ClassifyResult:
    """Predict with a classifier that was kept; items that have the label and that it did not learn from are scored.

    Args:
        model: that it was made with. split: all rows by default.

    Raises:
        BadInput: no classifier, a split without rows. ModelMismatch: it was made with another model.
    """
    check_table_path("--out", out)
    saved, embedder = load_classifier(classifier, model, device)
    opened = open_task(classifier if saved.method == "finetune" else model, data, device, progress)
    numbers, done = np.asarray(split_rows(opened.rows, split), np.int64), 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress("predicting", done, len(numbers))

    vectors = embed_rows(embedder, opened.rows, numbers, progress=count)
    predictions = saved.classifier.predict(vectors.fused)
    values = opened.labels.get(saved.label, {})
    fresh = [i for i in predictions.ids if i in values and not saved.knows(i)]
    options: Any = {"resamples": resamples, "seed": seed, "together": opened.together}
    scored = _score(saved, part_of(vectors.fused, fresh), values, options) if fresh else None
    notes = []
    if len(fresh) < sum(i in values for i in predictions.ids):
        notes.append("Items that the classifier learnt from or was tuned on are predicted, but not scored.")
    if saved.label not in opened.labels:
        notes.append(f"The data has no label {saved.label!r}: nothing is scored.")
    leak = _leak(vectors, predictions, values, saved.label, embedder.modalities)
    result = _result(out, classifier, saved, predictions, vectors, values, scored, leak)
    return _written(dataclasses.replace(result, notes=(*notes, *_drawn(fresh, opened))), predictions, values)


def _score(saved: Saved, vectors: Embeddings, values: Mapping[str, str], options: Any) -> Scored:
    predictions = saved.classifier.predict(vectors)
    return score(predictions, saved.classifier, vectors, values, saved.counts, saved.label, **options)


def _drawn(ids: Sequence[str], opened: Opened) -> list[str]:
    note = groups_note(ids, opened.together)
    return [note] if note else []


def _leak(
    vectors: ItemVectors,
    predictions: Predictions,
    values: Mapping[str, str],
    label: str,
    modalities: Collection[str],
) -> Leak:
    ids = frozenset(predictions.ids)
    return label_leak([record for record in vectors.records if record.id in ids], values, label, modalities)


def _result(
    out: Path,
    folder: Path,
    saved: Saved,
    predictions: Predictions,
    vectors: ItemVectors,
    values: Mapping[str, str],
    scored: Scored | None,
    leak: Leak,
) -> ClassifyResult:
    unknown = sum(i not in values for i in predictions.ids)
    return ClassifyResult(
        out,
        out.with_suffix(".json"),
        folder,
        saved.label,
        saved.method,
        len(predictions.ids),
        unknown,
        len(vectors.empty),
        _how(saved.classifier, None),
        scored,
        leak.to_json(),
        leak_warning([leak]),
    )


def _how(classifier: Classifier, tuned: Tuned | None) -> dict[str, Any]:
    head = classifier.head
    how: dict[str, Any] = {"classes": len(head.labels), "temperature": classifier.temperature}
    if tuned is not None:
        return {**how, "epoch": tuned.kept.number, "epochs": tuned.epochs[-1].number}
    if isinstance(head, LinearFit):
        return {**how, "C": head.penalty, "converged": head.converged}
    return {**how, "k": head.k}


def _written(result: ClassifyResult, predictions: Predictions, values: Mapping[str, str]) -> ClassifyResult:
    columns = {**predictions.columns(), result.label: [values.get(i) for i in predictions.ids]}
    write_table(result.out, columns)
    write_json(result.report, result.to_json())
    return result
