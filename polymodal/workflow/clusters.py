"""A model and data in; clusters, their cards, a page and a table of assignments out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polymodal.evaluate import label_leak, leak_warning
from polymodal.evaluate.values import plain
from polymodal.tasks.cluster_page import cluster_page
from polymodal.tasks.clusters import Agreement, Card, Clusters, agreement, best_k, cluster_items, make_cards
from polymodal.types import BadInput, Embeddings
from polymodal.workflow.files import write_json, write_table, write_text
from polymodal.workflow.item_vectors import ItemVectors, embed_rows, part_of
from polymodal.workflow.learning import one_thread
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.pictures import thumbnails_of
from polymodal.workflow.records import records_of, rows_of_ids, title_of
from polymodal.workflow.training import split_rows

__all__ = ["ClusterResult", "ClusterSettings", "cluster_data"]

_SHOWN_LABELS = 2  # on a card


@dataclass(frozen=True)
class ClusterSettings:
    """How items are clustered.

    Args:
        k: how many clusters; None chooses by the silhouette. starts: of k-means.
        split: items of one split; all by default. label: to compare with; all labels by default.
        alone: also cluster each modality alone, to compare with.
    """

    k: int | None
    starts: int = 8
    split: str | None = None
    label: str | None = None
    alone: bool = True
    seed: int = 0


@dataclass(frozen=True)
class ClusterResult:
    """What was found.

    Args:
        folder: has clusters.json (the same as `to_json`), clusters.html and assignments.parquet.
        silhouettes: k -> silhouette, where k was to be chosen.
        agreements: with each label. controls: the same for clusters of each modality alone and of its items fused:
            (what was clustered, the agreement).
        warning: where the input names the labels that are scored; "" where not.
    """

    folder: Path
    model: str
    k: int
    items: int
    empty: int
    starts: int
    stability: float
    silhouettes: Mapping[int, float]
    agreements: tuple[Agreement, ...]
    controls: tuple[tuple[str, Agreement], ...]
    cards: tuple[Card, ...]
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": 1, **plain(vars(self))}


def cluster_data(
    model: Path,
    data: Path,
    out: Path,
    settings: ClusterSettings,
    *,
    command: str = "polymodal cluster",
    device: str = "cpu",
    progress: Progress | None = None,
) -> ClusterResult:
    """Cluster the items of a catalogue.

    Args:
        out: folder; files of an earlier call are replaced.

    Raises:
        BadInput: more clusters than items, a label or split that the data lacks.
    """
    if out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")
    opened = open_task(model, data, device, progress)
    labels = opened.labels if settings.label is None else dict([opened.label(settings.label)])
    numbers = np.asarray(split_rows(opened.rows, settings.split), np.int64)
    if settings.k is not None and settings.k > len(numbers):
        raise BadInput("-k", f"at most the {len(numbers)} items", settings.k)
    vectors = _embed(opened, numbers, settings.alone and bool(labels))
    k, silhouettes = (
        (settings.k, {}) if settings.k is not None else one_thread(lambda: best_k(vectors.fused, seed=settings.seed))
    )
    found = _cluster(vectors.fused, k, settings)
    agreements = tuple(_agreements(found, labels, settings.seed, opened.together))
    titles = {record.id: title_of(record) for record in vectors.records}
    shown = dict(list(labels.items())[:_SHOWN_LABELS])
    cards = make_cards(found, vectors.records, titles, shown)
    controls = tuple(_controls(vectors, found.k, labels, settings, opened.together)) if settings.alone else ()
    result = ClusterResult(
        out,
        opened.embedder.model,
        found.k,
        len(found.ids),
        len(vectors.empty),
        settings.starts,
        found.stability,
        silhouettes,
        agreements,
        controls,
        cards,
        _leak(opened, vectors, {one.label: labels[one.label] for one in agreements}),
    )
    title = f"{found.k} clusters of {data.resolve().parent.name}/{data.name}"
    page = cluster_page(title, command, cards, agreements, _sentences(result), _pictures(opened, cards))
    write_table(out / "assignments.parquet", _columns(found, labels))
    write_text(out / "clusters.html", page)
    write_json(out / "clusters.json", result.to_json())
    return result


def _embed(opened: Opened, numbers: np.ndarray, alone: bool) -> ItemVectors:
    done, say = 0, opened.progress

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if say is not None:
            say("embedding", done, len(numbers))

    return embed_rows(opened.embedder, opened.rows, numbers, alone=alone, progress=count)


def _agreements(
    found: Clusters, labels: Mapping[str, Mapping[str, str]], seed: int, together: Mapping[str, str]
) -> list[Agreement]:
    """With every label that at least two of the items have, and that does not name each of them anew."""
    out = []
    for name, values in labels.items():
        known = [values[i] for i in found.ids if i in values]
        if len(known) > 1 and 1 < len(set(known)) < max(len(known), 3):
            out.append(agreement(found, values, name, seed=seed, together=together))
    return out


def _controls(
    vectors: ItemVectors,
    k: int,
    labels: Mapping[str, Mapping[str, str]],
    settings: ClusterSettings,
    together: Mapping[str, str],
) -> list[tuple[str, Agreement]]:
    """Each modality alone and, on the items that have it, everything fused, against the first label."""
    out = []
    for name, values in list(labels.items())[:1]:
        for modality, alone in vectors.alone.items():
            if len(alone) < max(k, 2):
                continue
            same = part_of(vectors.fused, alone.ids)
            for what, some in ((f"{modality} alone", alone), ("  fused, its items", same)):
                found = _cluster(some, k, settings)
                out += [(what, one) for one in _agreements(found, {name: values}, settings.seed, together)]
    return out


def _leak(opened: Opened, vectors: ItemVectors, labels: Mapping[str, Mapping[str, str]]) -> str:
    names = opened.embedder.modalities
    return leak_warning([label_leak(vectors.records, values, label, names) for label, values in labels.items()])


def _cluster(vectors: Embeddings, k: int, settings: ClusterSettings) -> Clusters:
    return one_thread(lambda: cluster_items(vectors, k, starts=settings.starts, seed=settings.seed))


def _sentences(result: ClusterResult) -> list[str]:
    how = f"by k-means on unit vectors, the best of {result.starts} starts"
    said = [f"{result.items:,} items in {result.k} clusters {how}."]
    if result.starts > 1 and result.k > 1:
        said.append(
            f"Other starts give clusters that agree with these by {result.stability:.2f} (adjusted Rand index; 1 is "
            "the same clusters). The stability of a cluster is its mean Jaccard similarity with its match in them."
        )
    if result.silhouettes:
        grid = ", ".join(f"{k}: {value:.3f}" for k, value in result.silhouettes.items())
        said.append(f"{result.k} has the highest silhouette ({grid}).")
    if result.warning:
        said.append(result.warning)
    if result.empty:
        said.append(f"{result.empty} items have nothing that the model reads, and are in no cluster.")
    return said


def _pictures(opened: Opened, cards: tuple[Card, ...]) -> dict[str, bytes]:
    ids = [name for card in cards for name, _, _ in card.typical]
    numbers = np.sort(rows_of_ids(opened.rows, ids, "typical items"))
    return thumbnails_of(list(records_of(opened.rows, numbers)), opened.embedder, ids)


def _columns(found: Clusters, labels: Mapping[str, Mapping[str, str]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "id": list(found.ids),
        "cluster": found.assigned.tolist(),
        "cosine": found.cosine.tolist(),
        "second_cluster": [None if at < 0 else at for at in found.second.tolist()],
    }
    return columns | {f"label_{name}": [values.get(i) for i in found.ids] for name, values in labels.items()}
