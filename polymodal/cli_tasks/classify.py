"""`polymodal classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from polymodal.workflow.options import Device, Flag, Json, Settings
from polymodal.workflow.terminal import caution, console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add the command to an app."""
    app.command(classify)


def classify(
    model: Path,
    data: Path,
    *,
    out: Path,
    label: str | None = None,
    method: Literal["probe", "knn", "finetune"] = "probe",
    classifier: Path | None = None,
    save: Path | None = None,
    split: str | None = None,
    train_split: str = "train",
    val_split: str = "val",
    balanced: Flag = False,
    min_items: int = 2,
    controls: bool = True,
    set_: Settings = None,
    seed: int = 0,
    resamples: int = 1000,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Learn a label from item vectors, test it, and predict it for items that lack it, with honest confidences.

    Examples: polymodal classify run demo/shards --label category --out predictions.csv
              polymodal classify run new_items --classifier predictions-classifier --out new.csv

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        out: Table of predictions, .parquet or .csv; the report goes beside it as .json.
        label: What to predict; the first label by default.
        method: A linear probe, nearest neighbours, or fine-tuning of the whole model, which takes minutes.
        classifier: Learn nothing, predict with the classifier in this folder.
        save: Folder for the classifier; OUT without its ending, and -classifier, by default.
        split: Items to test: test by default; with --classifier, all items.
        train_split: Items to learn from.
        val_split: Items that choose the penalty, k or epoch, and make confidences honest.
        balanced: All values of the label count alike, however rare: better at rare ones, worse at frequent ones.
        min_items: Leave out values with fewer items to learn from.
        controls: Also answer in the ways that must be beaten; --no-controls is faster.
        set_: Settings of the fine-tuning, such as epochs=10 learning_rate=2e-4 layer_decay=0.8.
        seed: Of the fine-tuning and of what is drawn.
        resamples: Of the bootstrap, which draws whole groups (variants of a product).
    """
    from polymodal.tasks.finetune import FinetuneConfig
    from polymodal.workflow.classify import ClassifySettings, apply_classifier
    from polymodal.workflow.classify import classify as run
    from polymodal.workflow.classify_text import classify_text

    with stage_bar(console()) as progress:
        if classifier is not None:
            result = apply_classifier(
                model, data, out, classifier, split=split, resamples=resamples, seed=seed, device=device,
                progress=progress,
            )  # fmt: skip
        else:
            settings = ClassifySettings(
                label, method, split or "test", train_split, val_split, balanced, min_items, controls, resamples, seed,
                FinetuneConfig().override(set_ or []),
            )  # fmt: skip
            folder = save or out.with_name(f"{out.stem}-classifier")
            result = run(model, data, out, settings, save=folder, device=device, progress=progress)
    caution(result.warning)
    emit(json, result.to_json(), classify_text(result))
