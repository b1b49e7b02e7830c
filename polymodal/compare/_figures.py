"""What is measured of vectors: flat names -> numbers, the same for models and controls.

`coarse/...` finds items of the same label, `fine/...` items of the same group; `.../standard/...` is the textbook's AP
and precision, `.../released/...` what SCALE's released script computes. `added/text+image/...` is the vector made from
these modalities alone; `mean fusion/...`, `zero imputation/...` are other ways to make a vector from the same model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polymodal.compare._world import World, having
from polymodal.embed import Embedder
from polymodal.evaluate import (
    AS_IS,
    Subset,
    by_id,
    by_key,
    cluster,
    linear_probe,
    mean_fusion,
    retrieve,
)
from polymodal.model import ITEM
from polymodal.types import BadInput, Embeddings, MissingExtra, Record
from polymodal.workflow.subsets import embed_subsets

__all__ = ["CUTS", "Figures", "Judge", "ladder", "model_figures"]

Figures = dict[str, float]
CUTS = (1, 5, 10)
_RANKED = tuple(f"{kind}@{k}" for kind in ("map", "precision") for k in CUTS)
# what SCALE's script looks at: ten answers, of which the query itself is then taken away
_RELEASED_DEPTH = 10
_PENALTIES = (0.003, 0.1, 10.0)


@dataclass(frozen=True)
class Judge:
    """Measures vectors of the tested items, and of the learnt ones where a probe is wanted."""

    world: World

    def figures(
        self, tested: Embeddings, learnt: Embeddings | None = None, corpus: Embeddings | None = None
    ) -> Figures:
        """Retrieval by both definitions, and, with `learnt`, linear probe, NMI and purity.

        Args:
            tested: vectors that ask, and are found where there is no `corpus` of the same items.
        """
        out = {"items": float(len(tested))}
        for task, keys in (("coarse", self.world.labels), ("fine", self.world.groups)):
            out |= self._ranked(task, tested, corpus if corpus is not None else tested, keys)
        if learnt is not None:
            out |= self._classes(tested, learnt)
        return out

    def _ranked(self, task: str, asked: Embeddings, corpus: Embeddings, keys: Mapping[str, str]) -> Figures:
        relevance = by_key(asked.ids, corpus.ids, keys)
        if not (relevance.count > 0).any():
            return {}
        found = retrieve(asked, corpus, relevance, metrics=(*_RANKED, "map"), resamples=0)
        out = {f"{task}/standard/{name}": value.mean for name, value in found.metrics.items()}
        out |= {f"{task}/chance/{name}": value for name, value in found.chance.items()}
        # only queries with a key: an item without a label asks nothing, where the released AP would count it as 0
        known = [row for row, name in enumerate(asked.ids) if name in keys]
        some = Embeddings(tuple(asked.ids[row] for row in known), asked.vectors[known], asked.model)
        released = retrieve(
            some,
            corpus,
            by_key(some.ids, corpus.ids, keys),
            metrics=_RANKED,
            ap="scale",
            depth=_RELEASED_DEPTH,
            drop_query="after",
            resamples=0,
        )
        return out | {f"{task}/released/{name}": value.mean for name, value in released.metrics.items()}

    def accuracy(self, tested: Embeddings, learnt: Embeddings) -> Figures:
        """A linear probe, and the share of the most frequent label; {} where there are not two labels to learn."""
        labels, counts = self.world.labels, dict[str, int]()
        for name in learnt.ids:
            if name in labels:
                counts[labels[name]] = counts.get(labels[name], 0) + 1
        if sum(n > 1 for n in counts.values()) < 2 or not any(name in labels for name in tested.ids):
            return {}
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            raise MissingExtra("scikit-learn", "report") from None
        with threadpool_limits(1):  # matrices this small are slower on two threads
            found = linear_probe(learnt, tested, labels, penalties=_PENALTIES, resamples=0)
        return {
            "accuracy": found.accuracy.mean,
            "balanced accuracy": found.balanced.mean,
            "chance accuracy": found.chance,
        }

    def _classes(self, tested: Embeddings, learnt: Embeddings) -> Figures:
        out = self.accuracy(tested, learnt)
        known = {self.world.labels[i] for i in tested.ids if i in self.world.labels}
        if 1 < len(known) < len(tested):
            found = cluster(tested, self.world.labels, starts=4)
            out |= {"nmi": found.nmi, "purity": found.purity, "clusters": float(found.k)}
        return out

    def crossing(self, single: Mapping[str, Embeddings]) -> Figures:
        """R@1 and R@10 of the item made from one modality looking for the same item made from another."""
        out: Figures = {}
        for asked, wanted in itertools.permutations(single, 2):
            corpus = single[wanted]
            both = sorted(set(single[asked].ids) & set(corpus.ids))
            if both:
                queries = Embeddings(tuple(both), single[asked].rows(both), corpus.model)
                relevance = by_id(queries.ids, corpus.ids)
                found = retrieve(queries, corpus, relevance, metrics=("hit@1", "hit@10"), resamples=0)
                for name, value in found.metrics.items():
                    out[f"cross/{asked} → {wanted}/{name}"] = value.mean
                    out[f"cross chance/{asked} → {wanted}/{name}"] = found.chance[name]
        for name in ("hit@1", "hit@10"):
            for head in ("cross", "cross chance"):
                pairs = [v for key, v in out.items() if key.startswith(f"{head}/") and key.endswith(f"/{name}")]
                if pairs:
                    out[f"{head}/mean/{name}"] = float(np.mean(pairs))
        return out


def ladder(names: Sequence[str], combinations: bool) -> list[tuple[str, ...]]:
    """The first modality, the first two, and so on; or every combination of two and more, and each alone."""
    if not combinations:
        return [tuple(names[: count + 1]) for count in range(len(names))]
    return [some for size in range(1, len(names) + 1) for some in itertools.combinations(names, size)]


def model_figures(embedder: Embedder, world: World, names: Sequence[str], combinations: bool = False) -> Figures:
    """Everything that is measured of one model.

    All models are measured on the same items: those that have one of `names`. A model that reads fewer of them (one of
    words alone, say) has a zero vector for what it cannot read, which is found by nobody but by the order of ids.

    The rungs of the ladder are measured on the same items too: those that have its first modality. With `combinations`
    each is measured on the items that have any of it.

    Raises: BadInput: the model reads none of `names`, or nothing that the items have.
    """
    judge, own = Judge(world), [name for name in names if name in embedder.modalities]
    tested, learnt = having(world.tested, names), having(world.learnt, names)
    singles: list[Subset] = [frozenset({name}) for name in own]
    found = embed_subsets(embedder, tested, singles, names=())
    known = embed_subsets(embedder, learnt, singles, control=False, names=())
    if not found.fused or not known.fused:
        raise BadInput("model", f"one that reads something of {', '.join(names)}", ", ".join(embedder.modalities))
    fused, before = (_filled(e.fused[AS_IS], records) for e, records in ((found, tested), (known, learnt)))
    out = judge.figures(fused, before) | {"without a vector": float(len(tested) - len(found.fused[AS_IS]))}
    alone = {name: found.fused[one] for name, one in zip(own, singles, strict=True) if one in found.fused}
    out |= judge.crossing(alone)
    others = {"mean fusion": mean_fusion(alone), "zero imputation": found.imputed.get(AS_IS)}
    for name, vectors in others.items() if len(own) > 1 else ():
        if vectors is not None:
            found_so = judge.figures(_filled(vectors, tested))
            out |= {f"{name}/{key}": value for key, value in found_so.items()}
    for rung in ladder(own, combinations):
        out |= _rung(embedder, judge, rung, own[0], combinations)
    return {name: float(value) for name, value in out.items() if math.isfinite(value)}


def _filled(vectors: Embeddings, records: Sequence[Record]) -> Embeddings:
    """A vector for every record, in their order: zeros where there is none."""
    at = {name: row for row, name in enumerate(vectors.ids)}
    out = np.zeros((len(records), vectors.width), np.float32)
    for row, record in enumerate(records):
        if record.id in at:
            out[row] = vectors.vectors[at[record.id]]
    return Embeddings(tuple(record.id for record in records), out, vectors.model)


def _rung(embedder: Embedder, judge: Judge, rung: Sequence[str], first: str, anywhere: bool) -> Figures:
    """Retrieval and probe of the vector made from some modalities."""
    vectors = []
    for records in (judge.world.tested, judge.world.learnt):
        there = [r for r in having(records, rung) if anywhere or first in r.values]
        vectors.append(embedder.vectors(there, [ITEM])[ITEM])
    tested, learnt = vectors
    if not len(tested):
        return {}
    found = judge.figures(tested) | judge.accuracy(tested, learnt)
    return {f"added/{'+'.join(rung)}/{key}": value for key, value in found.items()}
