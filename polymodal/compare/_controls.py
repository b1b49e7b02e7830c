"""What any method must beat and what needs no training: chance, and the words of an item counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polymodal.compare._figures import Figures, Judge
from polymodal.compare._world import World, having
from polymodal.evaluate import random_like
from polymodal.tasks.lexical import Bm25, text_of
from polymodal.types import Embeddings, MissingExtra

__all__ = ["control_figures"]

_VOCABULARY = 1500  # of the probe's sake; all words would make it slow


def control_figures(world: World, names: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Figures]]:
    """Control -> figures of each seed (one for what has no seed). Every control has a vector for the same items."""
    judge = Judge(world)
    tested, learnt = having(world.tested, names), having(world.learnt, names)
    ids, known = tuple(r.id for r in tested), tuple(r.id for r in learnt)
    out: dict[str, list[Figures]] = {"random vectors": []}
    for seed in seeds:
        noise = [random_like(_empty(some), seed=seed * 2 + at) for at, some in enumerate((ids, known))]
        out["random vectors"].append(judge.figures(*noise))
    texts, before = [text_of(r) for r in tested], [text_of(r) for r in learnt]
    if any(texts) and any(before):
        counts, earlier, terms = _counted(texts, before)
        weighted = [_tfidf(part, earlier) for part in (counts, earlier)]
        vectors = [_as_vectors(some, part) for some, part in zip((ids, known), weighted, strict=True)]
        out["TF-IDF"] = [judge.figures(*vectors) | {"words": float(terms)}]
        searched = Bm25(texts)
        # the inner product of a unit vector and an item's scores is one score: BM25 as vectors, exactly
        asked, corpus = _as_vectors(ids, np.eye(len(ids))), _as_vectors(ids, searched.scores(texts).T)
        out["BM25"] = [judge.figures(asked, corpus=corpus) | {"words": float(len(searched.vocabulary))}]
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
