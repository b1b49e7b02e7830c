"""`polymodal cluster`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from polymodal.types import BadInput
from polymodal.workflow.options import Device, Json, command
from polymodal.workflow.terminal import caution, console, emit, stage_bar

__all__ = ["register"]


def register(app: App) -> None:
    """Add the command to an app."""
    app.command(cluster)


def cluster(
    model: Path,
    data: Path,
    *,
    out: Path,
    k: Annotated[str, Parameter(name=["-k", "--k"])] = "auto",
    starts: int = 8,
    split: str | None = None,
    label: str | None = None,
    alone: bool = True,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Group similar items, and say of each group what its items have in common: a page, JSON and a table.

    Example: polymodal cluster run demo/shards -k 14 --out clusters

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        out: Folder for clusters.html, clusters.json and assignments.parquet.
        k: How many clusters; auto takes the number with the highest silhouette.
        starts: Of k-means; how far they agree says how stable the clusters are.
        split: Items of one split; all by default.
        label: To compare with; all labels by default.
        alone: Also cluster each modality alone, to compare with; --no-alone is faster.
    """
    from polymodal.workflow.cluster_text import cluster_text
    from polymodal.workflow.clusters import ClusterSettings, cluster_data

    if k != "auto" and not k.isdigit():
        raise BadInput("-k", "a number of clusters, or auto", repr(k))
    settings = ClusterSettings(None if k == "auto" else int(k), starts, split, label, alone, seed)
    with stage_bar(console()) as progress:
        result = cluster_data(model, data, out, settings, command=command(), device=device, progress=progress)
    emit(json, result.to_json(), cluster_text(result))
    caution(result.warning)
