"""`polymodal outliers`."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from polymodal.workflow.options import Device, Json
from polymodal.workflow.terminal import console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add the command to an app."""
    app.command(outliers)


def outliers(
    model: Path,
    data: Path,
    *,
    out: Path,
    label: str | None = None,
    split: str = "test",
    train_split: str = "train",
    hold_out: float = 0.25,
    draws: int = 10,
    truth: Path | None = None,
    top: int = 15,
    seed: int = 0,
    resamples: int = 1000,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """List the strangest items with the reason, and measure how well items of unknown kinds are noticed.

    Example: polymodal outliers run demo/catalogue --label category --out strange

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        out: Folder for outliers.json and outliers.parquet, which has every item.
        label: Whose values are left out and looked for; the first label by default.
        split: Items that are asked.
        train_split: Items that are learnt from.
        hold_out: Share of the values that is left out in each draw.
        draws: How often; 0 leaves that out.
        truth: Parquet file of known faults (id, outlier: the faulty modality); truth.parquet in DATA by default.
        top: Show so many.
        resamples: Of the bootstrap, which draws whole groups (variants of a product).
    """
    from polymodal.workflow.outlier_text import outlier_text
    from polymodal.workflow.outliers import OutlierSettings, find_outliers

    settings = OutlierSettings(label, split, train_split, hold_out, draws, resamples, seed)
    with stage_bar(console()) as progress:
        result = find_outliers(model, data, out, settings, truth=truth, device=device, progress=progress)
    emit(json, result.to_json(), outlier_text(result, top))
