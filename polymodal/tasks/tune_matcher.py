"""Fine-tuning of a matching head on pairs that people gave, against wrong pairs that the first stage finds likely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch.nn import functional as F

from polymodal.catalogue.loader import collate
from polymodal.catalogue.quarantine import Quarantined
from polymodal.config import Config
from polymodal.embed import Embedder
from polymodal.evaluate import Ties, top_k
from polymodal.match import match_pairs
from polymodal.model import Model
from polymodal.recipe import TrainConfig
from polymodal.tensors import Parts
from polymodal.train.optim import autocast, build_optimizer, learning_rate
from polymodal.types import BadInput, Embeddings, Record

__all__ = ["TuneConfig", "Wrong", "likely_wrong", "tune_matcher"]

Ints = npt.NDArray[np.int64]


class TuneConfig(Config):
    """How a matching head is fine-tuned.

    Args:
        epochs: passes over the right pairs.
        batch_size: right pairs of a step.
        learning_rate: peak, after a linear warm-up, then a cosine; None: a tenth of the rate that the model was trained
            with.
        hard: wrong items for each query, and wrong queries for each item, of the `pool` that the first stage ranks
            highest; random: as many more, drawn from all.
        part: "all" tunes the whole model, whose vectors then change too: keep the old model for the first stage.
            "head" tunes the matching head alone, and vectors stay what they are.
    """

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    hard: int = Field(1, ge=0)
    random: int = Field(1, ge=0)
    pool: int = Field(30, ge=1)
    part: Literal["all", "head"] = "all"
    seed: int = 0


class Wrong:
    """Which pairs are wrong, and which of them look right.

    Args:
        right: query row -> item rows that must not count as wrong: right answers, and variants of them.
        items: (Q, P) wrong items that the first stage ranks highest for each query, -1 after the end.
        queries: (I, P) the same for each item.
    """

    def __init__(self, right: Mapping[int, set[int]], items: Ints, queries: Ints) -> None:
        self.right, self.items, self.queries = right, items, queries

    def draw(
        self, query: int, item: int, hard: int, random: int, generator: np.random.Generator
    ) -> Iterator[tuple[int, int]]:
        """Wrong pairs with this query, then with this item; fewer where there are no more."""
        for other in _some(self.items[query], hard, generator):
            yield query, other
        for _ in range(random):
            other = int(generator.integers(len(self.queries)))
            if other not in self.right[query]:
                yield query, other
        for other in _some(self.queries[item], hard, generator):
            yield other, item
        for _ in range(random):
            other = int(generator.integers(len(self.items)))
            if item not in self.right[other]:
                yield other, item


def _some(pool: Ints, count: int, generator: np.random.Generator) -> list[int]:
    known = pool[pool >= 0]
    return cast(list[int], generator.permutation(known)[:count].tolist())


def likely_wrong(queries: Embeddings, items: Embeddings, right: Mapping[int, set[int]], pool: int) -> Wrong:
    """The first stage's highest wrong answers, for every query among the items and for every item among the queries.

    Args:
        right: as of `Wrong`, for every query.

    Source: ours; InterBERT draws its hard pictures among the neighbours of the right one.
    """
    of_item: dict[int, set[int]] = {row: set() for row in range(len(items))}
    for query, found in right.items():
        for item in found:
            of_item[item].add(query)
    return Wrong(right, _wrong(queries, items, right, pool), _wrong(items, queries, of_item, pool))


def _wrong(asked: Embeddings, corpus: Embeddings, right: Mapping[int, set[int]], pool: int) -> Ints:
    most = pool + max((len(found) for found in right.values()), default=0)
    rows, _ = top_k(asked.vectors, corpus.vectors, most, ids=Ties.by(corpus.ids))
    out = np.full((len(asked), pool), -1, np.int64)
    for row, listed in enumerate(rows.tolist()):
        kept = [item for item in listed if item not in right[row]][:pool]
        out[row, : len(kept)] = kept
    return out


def tune_matcher(
    embedder: Embedder,
    queries: Sequence[Record],
    items: Sequence[Record],
    pairs: Ints,
    wrong: Wrong,
    config: TuneConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train the matching head of a model, in place.

    ::

        L = mean over pairs of  -log p(match) of right ones,  -log (1 - p(match)) of wrong ones

    A step has `batch_size` right pairs and, for each, `hard` + `random` pairs with a wrong item and as many with a
    wrong query. p is what `match.match_pairs` computes.

    Args:
        queries: Q records. items: I records.
        pairs: (P, 2) the right ones: row of the query, row of the item.
        progress: called with steps done and steps in all.

    Returns:
        The mean loss of every epoch.

    Source: InterBERT, arXiv 2003.13198, fine-tuning for retrieval: four pairs for each caption, by the head that was
        trained before (black4321/InterBERT at 7ccabb1).
    Differences: hard negatives on both sides, where the release has hard captions only; they come from the first stage
        itself, whose mistakes are what the second stage is for; pairs are of any modalities.
    Raises:
        BadInput: no right pair.
    """
    if not len(pairs):
        raise BadInput("pairs", "at least one right pair to learn from", "none")
    network, steps = embedder.network, config.epochs * -(-len(pairs) // config.batch_size)
    rate = config.learning_rate or embedder.recipe.train.learning_rate / 10
    how = embedder.recipe.train.replace(learning_rate=rate)
    kept = _freeze(network, config.part)
    optimizer = build_optimizer([network], how)
    losses, step = [], 0
    for epoch in range(config.epochs):
        generator = np.random.default_rng([config.seed, epoch])
        sums, order = [], generator.permutation(len(pairs))
        for start in range(0, len(order), config.batch_size):
            some = pairs[order[start : start + config.batch_size]]
            torch.manual_seed(config.seed * 1_000_003 + step)
            for settings in optimizer.param_groups:
                settings["lr"] = learning_rate(how, step, steps)
            sums.append(_step(embedder, optimizer, how, queries, items, *_batch(some, wrong, config, generator)))
            step += 1
            if progress is not None:
                progress(step, steps)
        losses.append(float(np.mean(sums)))
    for parameter in kept:
        parameter.requires_grad_(True)
    network.eval()
    return losses


def _freeze(network: Model, part: str) -> list[torch.nn.Parameter]:
    """Stops what is not to be tuned; returns it."""
    if network.matching is None:
        raise BadInput("model", "one with a matching head", "none", "Train with: polymodal train interbert")
    own = {id(p) for p in network.matching.parameters()}
    kept = [p for p in network.parameters() if part == "head" and id(p) not in own]
    for parameter in kept:
        parameter.requires_grad_(False)
    return kept


def _batch(some: Ints, wrong: Wrong, config: TuneConfig, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Pairs (P, 2) and whether each is right (P,)."""
    made, right = [], []
    for query, item in some.tolist():
        others = list(wrong.draw(query, item, config.hard, config.random, generator))
        made += [(query, item), *others]
        right += [1, *[0] * len(others)]
    return np.asarray(made, np.int64), np.asarray(right, np.int64)


def _step(
    embedder: Embedder,
    optimizer: torch.optim.Optimizer,
    how: TrainConfig,
    queries: Sequence[Record],
    items: Sequence[Record],
    pairs: Ints,
    right: Ints,
) -> float:
    network = embedder.network
    network.train()
    asked, left = np.unique(pairs[:, 0], return_inverse=True)
    listed, at = np.unique(pairs[:, 1], return_inverse=True)
    one = _side(embedder, [queries[row] for row in asked.tolist()])
    other = _side(embedder, [items[row] for row in listed.tolist()])
    with autocast(embedder.dtype, embedder.device):
        places = (torch.from_numpy(x).to(embedder.device) for x in (left, at))
        found = match_pairs(network, one, other, *places).float()
    target = torch.from_numpy(right).to(found)
    known = ~found.isnan()
    if not bool(known.any()):
        raise BadInput("pairs", "queries and items of different modalities", "no pair that the head can compare")
    loss = F.binary_cross_entropy(found[known], target[known])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), how.clip)
    optimizer.step()
    return float(loss.detach())


def _side(embedder: Embedder, records: Sequence[Record]) -> Parts:
    network = embedder.network
    bad: list[Quarantined] = embedder.quarantine
    batch = collate(records, {name: network.modality(name) for name in network.names}, quarantine=bad.append)
    with autocast(embedder.dtype, embedder.device):
        tokens: Parts = network.tokenize(batch.to(embedder.device))
        return network.apart(tokens)
