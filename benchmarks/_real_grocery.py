"""Grocery Store: photographs of goods against their products' iconic pictures and texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _real_run import Scores, pixels, products_of, records, write_catalogue

from polymodal.catalogue.rows import Rows
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource
from polymodal.embed import Embedder
from polymodal.evaluate import by_qrels, knn_probe, linear_probe, random_like
from polymodal.types import Embeddings, Record

R15 = {"hit@1": "R@1", "hit@5": "R@5"}
UNSEEN_EVERY = 5


class Grocery:
    """Rows are photos, each with its product's iconic picture, title and description, and attributes.

    Args:
        data: the folder of the data sets.
        unseen: keep every fifth product (17 of 81) out of training altogether and ask for those only.
    """

    recipe = "scale"
    epochs = 25
    settings: tuple[str, ...] = (
        'model.stages=["towers"]',
        "objective.masked_weight=0",
        "objective.fusion_weight=0",
        "objective.recall_weight=0",
        "objective.harmonise.form=none",
        "train.batch_size=64",
        "train.learning_rate=2e-3",
        "modalities.text.max_tokens=12",
        "modalities.photo.min_area=0.2",
        "objective.temperature=0.03",
    )

    def __init__(self, data: Path, unseen: bool = False) -> None:
        self.source, self.unseen = data / "grocery", unseen
        self.products = pq.read_table(self.source / "products.parquet", columns=["product_id"])[
            "product_id"
        ].to_pylist()
        self.kept_out = set(sorted(self.products)[::UNSEEN_EVERY]) if unseen else set()

    def modalities(self) -> tuple[str, ...]:
        """The table tells nothing that the text does not, and costs a third of the time."""
        return ("photo", "iconic", "text")

    def catalogue(self, folder: Path) -> None:
        """The table as it is; rows of products kept out of training become the split "unused"."""
        table = pq.read_table(self.source / "records.parquet")
        rows = zip(table["split"].to_pylist(), table["product_id"].to_pylist(), strict=True)
        splits = ["unused" if split == "train" and product in self.kept_out else split for split, product in rows]
        table = table.set_column(table.schema.get_field_index("split"), "split", pa.array(splits))
        config = CatalogueConfig(
            media_root=str(self.source.resolve()),
            id="record_id",
            group="product_id",
            split="split",
            labels=("label_fine", "label_coarse", "label_group"),
            modalities={
                "photo": ModalitySource(kind="image", columns=("image",)),
                "iconic": ModalitySource(kind="image", columns=("iconic_image",)),
                "text": ModalitySource(kind="text", columns=("title", "description")),
                "table": ModalitySource(kind="table", columns=("attributes",)),
            },
        )
        write_catalogue(folder, table, config)

    def measure(self, embedder: Embedder, rows: Rows, on: str) -> Scores:
        """Unimodal vectors of photos against those of all 81 products."""
        queries, train, products = self._records(rows, on)
        sides = embedder.vectors(products, ["iconic", "text"])
        photos = {
            "query": embedder.vectors(queries, ["photo"])["photo"],
            "train": embedder.vectors(train, ["photo"])["photo"],
        }
        return self._judge({**photos, **sides}, {r.id: r for r in (*queries, *train)})

    def controls(self, rows: Rows, on: str) -> dict[str, Scores]:
        """16 x 16 pixels, and random vectors."""
        queries, train, products = self._records(rows, on)
        known = {r.id: r for r in (*queries, *train)}
        raw = {
            "query": pixels({r.id: r.values["photo"][0] for r in queries}),
            "train": pixels({r.id: r.values["photo"][0] for r in train}),
            "iconic": pixels({r.id: r.values["iconic"][0] for r in products}),
        }
        texts = {"text": raw["iconic"]}
        noise = {name: random_like(v, seed=at) for at, (name, v) in enumerate((raw | texts).items())}
        return {"16x16 pixels": self._judge(raw, known), "random": self._judge(noise, known)}

    def facts(self, rows: Rows) -> list[str]:
        """How split and products relate."""
        of = products_of(rows)
        counts = ", ".join(f"{len(some)} photos of {len(set(some))} products in {split}" for split, some in of.items())
        shared = set(of["test"]) & set(of["train"])
        said = [
            f"{counts}; {len(shared)} of the {len(set(of['test']))} test products are among the training products, "
            "with the same iconic picture and text: the split deals out photos, it does not keep products apart."
        ]
        if not self.unseen:
            said.append(
                "So photo -> iconic and photo -> text are classification among 81 known products by another name: a "
                "pair says what a label says. Products that training never saw are asked for by `grocery-unseen`."
            )
        return said

    # -- inside -------------------------------------------------------------------------------------------------------

    def _records(self, rows: Rows, on: str) -> tuple[list[Record], list[Record], list[Record]]:
        """Query photos, training photos, and one record without a photo for every product."""
        queries = [r for r in records(rows, on) if not self.unseen or r.group in self.kept_out]
        sides: dict[str, Record] = {}
        for record in records(rows, None):
            values = {name: value for name, value in record.values.items() if name != "photo"}
            sides.setdefault(str(record.group), Record(str(record.group), values))
        return queries, records(rows, "train"), [sides[name] for name in sorted(sides)]

    def _judge(self, vectors: Mapping[str, Embeddings], known: Mapping[str, Record]) -> Scores:
        scores, photos = Scores(), vectors["query"]
        qrels = {i: {str(known[i].group): 1.0} for i in photos.ids}
        few = sorted(self.kept_out)
        for side, shown in (("iconic", "photo -> iconic picture"), ("text", "photo -> product text")):
            if side in vectors:
                corpus = vectors[side]
                scores.ranked(shown, photos, corpus, by_qrels(photos.ids, corpus.ids, qrels), R15)
                if few:
                    corpus = Embeddings(tuple(few), corpus.rows(few), corpus.model)
                    scores.ranked(f"{shown}, unseen only", photos, corpus, by_qrels(photos.ids, corpus.ids, qrels), R15)
        if not few:
            labels = {i: r.labels["fine"] for i, r in known.items()}
            near = knn_probe(vectors["train"], photos, labels, k=1, resamples=0)
            linear = linear_probe(vectors["train"], photos, labels, penalties=(0.001, 0.01, 0.1, 1.0), resamples=0)
            for name, found in (("fine label, 1-NN", near), ("fine label, linear probe", linear)):
                scores.answered(name, found.correct, photos.ids, found.chance, found.classes)
        return scores
