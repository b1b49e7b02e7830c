"""Tux Paint's stamps: picture, caption and spoken caption look for one another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _real_run import Scores, products_of, records, unit, write_catalogue

from polymodal.catalogue.rows import Rows
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource
from polymodal.embed import Embedder
from polymodal.evaluate import by_key, random_like
from polymodal.types import Embeddings, Record

R1510 = {"hit@1": "R@1", "hit@5": "R@5", "hit@10": "R@10"}
SPOKEN, WRITTEN = ("voice",), ("text", "french")
ASKED = ("image", "text", "voice")
EXTRA = (("voice", "french"), ("french", "voice"), ("image", "french"), ("french", "image"))


class Stamps:
    """Rows are stamps: image, text (the English title), french (its French translation), voice.

    Stamps with the same English title are right answers to one another and no negatives (`group` is the title).
    """

    recipe = "scale"
    epochs = 25
    settings: tuple[str, ...] = (
        "train.batch_size=64",
        'model.stages=["towers"]',
        "objective.masked_weight=0",
        "objective.fusion_weight=0",
        "objective.recall_weight=0",
    )

    def __init__(self, data: Path) -> None:
        self.source = data / "stamps"

    def modalities(self) -> tuple[str, ...]:
        """French is what nearly every voice speaks."""
        return ("image", "text", "french", "voice")

    def catalogue(self, folder: Path) -> None:
        """The table with the French caption as a column of its own."""
        table = pq.read_table(self.source / "records.parquet")
        french = [json.loads(cell or "{}").get("fr") for cell in table["translations"].to_pylist()]
        table = table.append_column("french", pa.array(french, pa.string()))
        config = CatalogueConfig(
            media_root=str(self.source.resolve()),
            id="record_id",
            group="title",
            split="split",
            labels=("label_category", "label_subcategory", "voice_language"),
            modalities={
                "image": ModalitySource(kind="image", columns=("image",)),
                "text": ModalitySource(kind="text", columns=("title",)),
                "french": ModalitySource(kind="text", columns=("french",)),
                "voice": ModalitySource(kind="audio", columns=("voice",)),
            },
        )
        write_catalogue(folder, table, config)

    def measure(self, embedder: Embedder, rows: Rows, on: str) -> Scores:
        """Unimodal vectors, every direction."""
        found = records(rows, on)
        return self._judge(embedder.vectors(found, list(embedder.modalities)), found)

    def controls(self, rows: Rows, on: str) -> dict[str, Scores]:
        """Random vectors, and the length alone: characters of a caption against seconds of a voice."""
        found = records(rows, on)
        sizes = {name: {r.id: len(r.values[name]) for r in found if name in r.values} for name in (*SPOKEN, *WRITTEN)}
        lengths = {name: _by_rank(size) for name, size in sizes.items()}
        there = {name: [r.id for r in found if name in r.values] for name in ("image", *lengths)}
        noise = {
            name: random_like(Embeddings(tuple(ids), np.zeros((len(ids), 64), np.float32), ""), seed=at)
            for at, (name, ids) in enumerate(there.items())
        }
        return {"length": self._judge(lengths, found), "random": self._judge(noise, found)}

    def facts(self, rows: Rows) -> list[str]:
        """Languages of the voices; how split and captions relate."""
        of = {split: set(some) for split, some in products_of(rows).items()}
        spoken = {s: dict(Counter(r.labels.get("voice_language", "none") for r in records(rows, s))) for s in of}
        shared = len(of["test"] & (of["train"] | of["val"]))
        return [
            f"Language of the voice: {spoken}. The text is the English title: voice ~ text crosses languages.",
            f"Captions: { {split: len(some) for split, some in of.items()} }; {shared} test captions in train or val.",
            "A stamp with the same English title counts as right; stamps of one title mostly share one recording.",
        ]

    def _judge(self, vectors: Mapping[str, Embeddings], found: Sequence[Record]) -> Scores:
        scores, captions = Scores(), {r.id: r.group for r in found}
        for asked, wanted in (*permutations(ASKED, 2), *EXTRA):
            if asked in vectors and wanted in vectors:
                right = by_key(vectors[asked].ids, vectors[wanted].ids, captions, itself="relevant")
                scores.ranked(f"{asked} -> {wanted}", vectors[asked], vectors[wanted], right, R1510)
        return scores


def _by_rank(sizes: Mapping[str, int]) -> Embeddings:
    """Sizes as angles in [0, 90] degrees by their rank, ties equal: the nearest vector has the nearest rank."""
    values = np.asarray(list(sizes.values()))
    ordered = np.sort(values)
    middle = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    angles = middle / len(values) * np.pi / 2
    return unit(tuple(sizes), np.stack([np.cos(angles), np.sin(angles)], 1), "length")
