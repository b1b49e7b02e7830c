"""What any method must beat and what needs no training: chance, and the words of an item counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polymodal.compare._figures import Figures, Judge
from polymodal.compare._world import World, having
from polymodal.evaluate import random_like
from polymodal.types import Embeddings, MissingExtra, Record
from polymodal.workflow.records import attributes_of

__all__ = ["control_figures", "words_of"]

_VOCABULARY = 1500  # of the probe's sake; all words would make it slow
_K1, _B = 1.2, 0.75  # BM25 as Robertson & Zaragoza 2009 recommend it


def words_of(record: Record) -> str:
    """Every text of a record, and the names and values of its attributes."""
    texts = [value for value in record.values.values() if isinstance(value, str)]
    for name, value in attributes_of(record).items():
        values = value if isinstance(value, list) else [value]
        texts += [f"{name} {one}" for one in values]
    return " ".join(texts)


def control_figures(world: World, names: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Figures]]:
    """Control -> figures of each seed (one for what has no seed). Every control has a vector for the same items."""
    judge = Judge(world)
    tested, learnt = having(world.tested, names), having(world.learnt, names)
    ids, known = tuple(r.id for r in tested), tuple(r.id for r in learnt)
    out: dict[str, list[Figures]] = {"random vectors": []}
    for seed in seeds:
        noise = [random_like(_empty(some), seed=seed * 2 + at) for at, some in enumerate((ids, known))]
        out["random vectors"].append(judge.figures(*noise))
    texts, before = [words_of(r) for r in tested], [words_of(r) for r in learnt]
    if any(texts) and any(before):
        counts, earlier, terms = _counted(texts, before)
        weighted = [_tfidf(part, earlier) for part in (counts, earlier)]
        vectors = [_as_vectors(some, part) for some, part in zip((ids, known), weighted, strict=True)]
        out["TF-IDF"] = [judge.figures(*vectors) | {"words": float(terms)}]
        asked, corpus = _as_vectors(ids, np.minimum(counts, 1)), _as_vectors(ids, _bm25(counts, earlier))
        out["BM25"] = [judge.figures(asked, corpus=corpus) | {"words": float(terms)}]
    return out


def _empty(ids: tuple[str, ...]) -> Embeddings:
    return Embeddings(ids, np.zeros((len(ids), 64), np.float32), "")


def _as_vectors(ids: tuple[str, ...], values: Any) -> Embeddings:
    return Embeddings(ids, np.ascontiguousarray(values, np.float32), "words")


def _counted(texts: Sequence[str], before: Sequence[str]) -> tuple[Any, Any, int]:
    """Counts of the words that the learnt items have, most frequent first up to a limit: (tested, learnt, words)."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    counter = CountVectorizer(max_features=_VOCABULARY).fit(before)
    made = [counter.transform(part).toarray().astype(np.float64) for part in (texts, before)]
    return made[0], made[1], len(counter.vocabulary_)


def _tfidf(counts: Any, known: Any) -> Any:
    """(1 + log count) * (1 + log (1 + n) / (1 + df)), unit length; an item without a known word stays zero."""
    rare = 1 + np.log((1 + len(known)) / (1 + (known > 0).sum(0)))
    weighted = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0.0) * rare
    return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)


def _bm25(counts: Any, known: Any) -> Any:
    """What a word of a query adds to each item's score. Words, lengths and rarity are those of the learnt items."""
    often = (known > 0).sum(0)
    rare = np.log(1 + (len(known) - often + 0.5) / (often + 0.5))
    length = counts.sum(1, keepdims=True) / max(known.sum(1).mean(), 1e-12)
    return rare * counts * (_K1 + 1) / (counts + _K1 * (1 - _B + _B * length))
