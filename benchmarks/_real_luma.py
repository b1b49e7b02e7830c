"""Luma: a clothing shop's variants, and reviews that look for their product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _real_run import Scores, by_product, pixels, products_of, records, unit, write_catalogue
from sklearn.feature_extraction.text import TfidfVectorizer

from polymodal.catalogue.rows import Rows
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource
from polymodal.embed import Embedder
from polymodal.evaluate import by_key, by_qrels, random_like
from polymodal.types import Embeddings, Record

R110 = {"hit@1": "R@1", "hit@10": "R@10"}
COLOURS = {"hit@1": "R@1", "map": "mAP"}
REVIEW = "review:"


class Luma:
    """Rows are colour variants (image, text, table), and one more row for each review, whose text is the review.

    A review's row has the picture and the attributes of the first variant of its product and the product's `group`, so
    that training sees the review as another text of that item. Reviews of val and test products are never trained on:
    the products of the three splits are disjoint.
    """

    recipe = "scale"
    epochs = 25
    settings: tuple[str, ...] = ("train.batch_size=64", "modalities.text.max_tokens=48", "objective.recall_weight=0")

    def __init__(self, data: Path) -> None:
        self.source = data / "luma"

    def modalities(self) -> tuple[str, ...]:
        """All of the catalogue."""
        return ("image", "text", "table")

    def catalogue(self, folder: Path) -> None:
        """Variants, then reviews."""
        columns = ["record_id", "group_id", "title", "description", "attributes", "images", "label_category", "split"]
        items = pq.read_table(self.source / "records.parquet", columns=columns).to_pylist()
        first: dict[str, dict[str, Any]] = {}
        for item in items:
            first.setdefault(item["group_id"], item)
        rows = [*items]
        for review in pq.read_table(self.source / "reviews.parquet").to_pylist():
            own = {
                "record_id": REVIEW + review["query_id"],
                "title": review["query"],
                "description": None,
                "split": review["split"],
            }
            rows.append({**first[review["group_id"]], **own})
        config = CatalogueConfig(
            media_root=str(self.source.resolve()),
            id="record_id",
            group="group_id",
            split="split",
            labels=("label_category",),
            modalities={
                "image": ModalitySource(kind="image", columns=("images",)),
                "text": ModalitySource(kind="text", columns=("title", "description")),
                "table": ModalitySource(kind="table", columns=("attributes",)),
            },
        )
        write_catalogue(folder, pa.Table.from_pylist(rows), config)

    def measure(self, embedder: Embedder, rows: Rows, on: str) -> Scores:
        """Reviews as text queries against the products' vectors; variants against variants."""
        reviews, variants = self._records(rows, on)
        texts = [Record(r.id, {"text": r.values["text"]}) for r in reviews]
        every = embedder.vectors(variants)
        asked = embedder.vectors(texts, ["text", "item"])
        vectors = {
            "query": asked["item"],
            "products": every["item"],
            "query text": asked["text"],
            "products text": every["text"],
            "image": every["image"],
            "all": every["item"],
            "image + table": embedder.vectors(variants, ["item"], only=["image", "table"])["item"],
        }
        return self._judge(vectors, reviews, variants, rows, on)

    def controls(self, rows: Rows, on: str) -> dict[str, Scores]:
        """TF-IDF over title, description and attribute values; 16 x 16 pixels; random vectors."""
        reviews, variants = self._records(rows, on)
        words = _words(variants)
        counted = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit(words.values())
        corpus = _tfidf(counted, words)
        asked = _tfidf(counted, {r.id: str(r.values["text"]) for r in reviews})
        tfidf = {"query": asked, "products": corpus, "query text": asked, "products text": corpus, "all": corpus}
        pictures = {"image": pixels({r.id: r.values["image"][0] for r in variants})}
        named = {**tfidf, "image + table": corpus, **pictures}
        noise = {
            name: random_like(Embeddings(v.ids, np.zeros((len(v), 64), np.float32), ""), seed=at)
            for at, (name, v) in enumerate(named.items())
        }
        systems = {"TF-IDF": tfidf, "16x16 pixels": pictures, "random": noise}
        return {name: self._judge(vectors, reviews, variants, rows, on) for name, vectors in systems.items()}

    def facts(self, rows: Rows) -> list[str]:
        """How split and products relate."""
        of = {split: set(some) for split, some in products_of(rows).items()}
        reviews = {split: sum(r.id.startswith(REVIEW) for r in records(rows, split)) for split in of}
        shared = len(of["test"] & (of["train"] | of["val"]))
        return [
            f"Products: { {split: len(some) for split, some in of.items()} }; {shared} test products in train or val.",
            f"Reviews: {reviews}. Every queried product is new to the model; the 191 include those trained on.",
            "Other colour with text or table among the inputs is nearly given away: variants share their description.",
        ]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _records(self, rows: Rows, on: str) -> tuple[list[Record], list[Record]]:
        """Reviews of the split, and all variants of the shop."""
        reviews = [r for r in records(rows, on) if r.id.startswith(REVIEW)]
        return reviews, [r for r in records(rows, None) if not r.id.startswith(REVIEW)]

    def _judge(
        self,
        vectors: Mapping[str, Embeddings],
        reviews: Sequence[Record],
        variants: Sequence[Record],
        rows: Rows,
        on: str,
    ) -> Scores:
        scores = Scores()
        product = {r.id: str(r.group) for r in variants}
        here = [r.id for r in records(rows, on) if r.id in product]
        wanted = sorted({product[i] for i in here})
        qrels = {r.id: {str(r.group): 1.0} for r in reviews}
        for suffix, shown in (("", "review -> product"), (" text", "review -> product text")):
            if f"query{suffix}" in vectors:
                asked, corpus = vectors[f"query{suffix}"], by_product(vectors[f"products{suffix}"], product)
                scores.ranked(shown, asked, corpus, by_qrels(asked.ids, corpus.ids, qrels), R110)
                few = Embeddings(tuple(wanted), corpus.rows(wanted), corpus.model)
                scores.ranked(f"{shown}, {on} products", asked, few, by_qrels(asked.ids, few.ids, qrels), R110)
        for name in ("image", "image + table", "all"):
            if name in vectors:
                some = Embeddings(tuple(here), vectors[name].rows(here), vectors[name].model)
                scores.ranked(f"other colour, {name}", some, some, by_key(some.ids, some.ids, product), COLOURS)
        return scores


def _words(variants: Iterable[Record]) -> dict[str, str]:
    return {r.id: " ".join([str(r.values["text"]), *(str(v) for _, v in r.values.get("table", ()))]) for r in variants}


def _tfidf(counted: TfidfVectorizer, texts: Mapping[str, str]) -> Embeddings:
    return unit(tuple(texts), counted.transform(texts.values()).toarray(), "tf-idf")
