"""The ways of searching that `polymodal retrieve` compares: vectors, words, both, and two stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Relevance, Ties, top_k
from polymodal.match import Matcher
from polymodal.tasks.blend import Blend
from polymodal.tasks.lexical import Bm25, Lists, fuse
from polymodal.tasks.two_stage import Cost, rerank
from polymodal.types import BadInput
from polymodal.workflow.opened import Opened
from polymodal.workflow.records import check_shapes
from polymodal.workflow.sides import Side
from polymodal.workflow.vectors import check_kinds

__all__ = [
    "ALL", "BLEND", "BOTH", "FILES", "LEARNT", "STAGES", "THREE", "VECTORS", "WORDS", "Lists", "SearchPlan", "Searches",
    "learn_blends",
]  # fmt: skip

Ints = npt.NDArray[np.int64]

VECTORS, WORDS, BOTH = "vectors", "BM25", "BM25 + vectors (RRF)"
STAGES, ALL = "vectors, then matching", "matching, every pair"
BLEND, THREE = "both stages (RRF)", "all three (RRF)"
# learnt blend -> what it blends, and the searches whose costs it pays (two stages have paid for their vectors)
LEARNT = {
    "BM25 + vectors (learnt)": ((WORDS, VECTORS), (WORDS, VECTORS)),
    "both stages (learnt)": ((VECTORS, STAGES), (STAGES,)),
    "all three (learnt)": ((WORDS, VECTORS, STAGES), (WORDS, STAGES)),
}
# names for files and TREC's tag
FILES = {
    VECTORS: "vectors", WORDS: "bm25", BOTH: "rrf", STAGES: "reranked", BLEND: "rrf-reranked", THREE: "rrf-three",
    ALL: "every-pair", **dict(zip(LEARNT, ("learnt", "learnt-reranked", "learnt-three"), strict=True)),
}  # fmt: skip
# every pair of a large corpus is days of work, asked for by mistake
_MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class SearchPlan:
    """Length of the lists, how many answers the matching head ranks again (0: none), by which model (None: the same),
    and whether it scores every pair too."""

    depth: int
    rerank: int = 0
    matcher: Path | None = None
    every_pair: bool = False


class Searches:
    """Ranked lists of every search, with what each costs.

    Args:
        encoding: what the vectors of both sides cost.

    Raises:
        BadInput: two stages by a model without a matching head, or every pair of too many.
    """

    def __init__(self, opened: Opened, queries: Side, corpus: Side, plan: SearchPlan, encoding: Cost) -> None:
        self.opened, self.queries, self.corpus, self.plan = opened, queries, corpus, plan
        self.matcher = self._matcher()
        self.costs: dict[str, Cost] = {VECTORS: encoding}
        self.notes: list[str] = []
        self.ties = Ties.by(corpus.ids)
        self.bm25: Bm25 | None = None
        if any(queries.texts) and any(corpus.texts):
            self.bm25 = self._timed(WORDS, lambda: Bm25(corpus.texts))
        else:
            lacking = "The queries have" if any(corpus.texts) else "The corpus has"
            self.notes.append(f"{lacking} no words: BM25 is left out.")
        self.made: dict[bytes, dict[str, Lists]] = {}

    def lists(self, own: Ints) -> dict[str, Lists]:
        """Search -> its lists.

        Args:
            own: (Q,) the corpus row that must not be listed, -1 for none.
        """
        key = own.tobytes()
        if key not in self.made:
            before = dict(self.costs)
            found = self._search(own)
            # lists for another judgement cost the same again, which would look like one search of twice the cost
            self.costs = before if self.made else self.costs
            self.made[key] = found
        return self.made[key]

    def blended(self, own: Ints, blends: Mapping[str, Blend]) -> dict[str, Lists]:
        """`lists` and, after them, learnt blends of theirs."""
        found = dict(self.lists(own))
        for name, blend in blends.items():
            known = self.costs.get(name)
            start = time.process_time()
            found[name] = blend.rank(found, len(self.corpus.ids), self.plan.depth, self.ties)
            spent = Cost(0, 0, round(time.process_time() - start, 2))
            for paid in LEARNT[name][1]:
                spent += self.costs[paid]
            self.costs[name] = known or spent
        return found

    def _search(self, own: Ints) -> dict[str, Lists]:
        depth, vectors = self.plan.depth, self.queries.vectors.vectors
        first: Lists = self._timed(
            VECTORS, lambda: top_k(vectors, self.corpus.vectors.vectors, depth, ids=self.ties, exclude=own)
        )
        out = {VECTORS: first}
        if self.bm25 is not None:
            scorer = self.bm25
            out[WORDS] = self._timed(WORDS, lambda: scorer.search(self.queries.texts, depth, self.ties, own))
            out[BOTH] = self._fused(BOTH, [out[WORDS], first], self.costs[VECTORS] + self.costs[WORDS])
        if self.plan.rerank:
            out[STAGES] = self._again(STAGES, first[0], self.plan.rerank)
            # a head that finds what belongs together may still order worse than the vectors: both have a say
            out[BLEND] = self._fused(BLEND, [out[VECTORS], out[STAGES]], self.costs[STAGES])
            if self.bm25 is not None:
                paid = self.costs[STAGES] + self.costs[WORDS]
                out[THREE] = self._fused(THREE, [out[WORDS], out[VECTORS], out[STAGES]], paid)
        if self.plan.every_pair:
            whole, _ = top_k(vectors, self.corpus.vectors.vectors, len(self.corpus.ids), ids=self.ties, exclude=own)
            out[ALL] = self._again(ALL, whole, whole.shape[1])
        return out

    def _fused(self, name: str, lists: Sequence[Lists], paid: Cost) -> Lists:
        """Lists fused by rank, at the cost of making them."""
        rows = [found for found, _ in lists]
        fused: Lists = self._timed(name, lambda: fuse(rows, len(self.corpus.ids), self.plan.depth, self.ties))
        self._spend(name, paid)
        return fused

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        done = work()
        self._spend(name, Cost(0, 0, round(time.process_time() - start, 2)))
        return done

    def _spend(self, name: str, cost: Cost) -> None:
        self.costs[name] = self.costs[name] + cost if name in self.costs else cost

    def _matcher(self) -> Matcher | None:
        plan, pairs = self.plan, len(self.queries.ids) * len(self.corpus.ids)
        if not (plan.rerank or plan.every_pair):
            if plan.matcher is not None:
                raise BadInput("--matcher", "--rerank N or --every-pair beside it", "neither")
            return None
        if plan.every_pair and pairs > _MOST_PAIRS:
            raise BadInput("--every-pair", f"at most {_MOST_PAIRS:,} pairs", f"{pairs:,}", "Fewer: --max-queries N")
        if plan.matcher is None:
            return Matcher(self.opened.embedder)
        matcher = Matcher.load(plan.matcher, str(self.opened.embedder.device))
        check_kinds(matcher.embedder.modalities, self.opened.rows.modalities)
        network = matcher.embedder.network
        check_shapes(self.opened.rows, {name: network.modality(name) for name in network.names})
        return matcher

    def _again(self, name: str, rows: Ints, most: int) -> Lists:
        assert self.matcher is not None
        done, total = 0, int((rows[:, :most] >= 0).sum())

        def count(pairs: int) -> None:
            nonlocal done
            done += pairs
            if self.opened.progress is not None:
                self.opened.progress(name, done, total)

        asked = self.queries.fetch(range(len(self.queries.ids)))
        found = rerank(self.matcher, asked, self.corpus.fetch, rows, most, progress=count)
        # the first stage is part of what two stages cost
        self._spend(name, found.cost + self.costs[VECTORS] if name == STAGES else found.cost)
        if found.compared < total:
            lost = f"{total - found.compared} of {total}"
            self.notes.append(f"{name}: {lost} pairs have no modalities that can be compared, and stay behind.")
        return found.rows, found.scores


def learn_blends(lists: Mapping[str, Lists], relevance: Relevance, k: int) -> dict[str, Blend]:
    """Every blend of searches that were made, learnt from these queries for the first k answers.

    Raises BadInput where they are too few.
    """
    return {
        name: Blend.fit({part: lists[part] for part in parts}, relevance, (STAGES,), k)
        for name, (parts, _) in LEARNT.items()
        if set(parts) <= set(lists)
    }
