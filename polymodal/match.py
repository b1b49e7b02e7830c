"""Matcher: does this query belong to this item? The slow, exact second look at what a search by vectors found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from polymodal.catalogue.loader import collate
from polymodal.catalogue.quarantine import Quarantined
from polymodal.config import discover
from polymodal.embed import Embedder
from polymodal.model import ITEM, Model
from polymodal.tensors import Parts, Tokens
from polymodal.train.optim import autocast
from polymodal.types import BadInput, MediaError, MediaReason, Record

__all__ = ["Matcher", "match_pairs"]


def match_pairs(model: Model, queries: Parts, candidates: Parts, left: Tensor, right: Tensor) -> Tensor:
    """The probability that query `left[p]` and candidate `right[p]` are of one item, (P,) in [0, 1].

    ::

        p = softmax(mean of s_ij over the modalities i of the query and j of the candidate)[match]

    Where a query has a modality, the candidate's cell of that modality is not looked at: a row has one cell of each,
    and the head was trained on pairs of different modalities. NaN where no pair is left.

    Args:
        queries, candidates: `model.apart` of the tokens of (Q) and (C) rows.
        left, right: (P,) int64.

    What is shared between the pairs: decoding, tokens and every stage before the first that mixes (the towers of a
    model of towers and trunk). What is not: all that comes after, which is what makes it exact, and slow.
    """
    if model.matching is None:
        raise BadInput("model.match", "the width of a matching head", 0, _hint())
    rows, own = {}, {}
    for name in model.names:
        if name in queries or name in candidates:
            rows[name], own[name] = _either(queries.get(name), candidates.get(name), left, right)
    last = model.together(rows)
    states = {name: model.pooled(part) for name, part in last.items() if name != ITEM}
    pooled = {name: model.matching.pool(name, state.z) for name, state in states.items()}
    total = next(iter(pooled.values())).new_zeros((len(left), 2), dtype=torch.float32)
    count = torch.zeros_like(total[:, 0])
    for i, j in combinations(pooled, 2):
        counts = states[i].present & states[j].present & (own[i] != own[j])
        total = total + model.matching(pooled[i], pooled[j]).float().masked_fill(~counts[:, None], 0.0)
        count = count + counts
    probability = (total / count.clamp(min=1)[:, None]).softmax(1)[:, 0]
    return probability.masked_fill(count == 0, torch.nan)


def _either(query: Tokens | None, candidate: Tokens | None, left: Tensor, right: Tensor) -> tuple[Tokens, Tensor]:
    """The pair's tokens of one modality, the query's where it has any, and whether they are the query's (P,)."""
    if query is None or candidate is None:
        side, at = (candidate, right) if query is None else (query, left)
        assert side is not None
        return Tokens(side.x[at], side.valid[at]), torch.full_like(left, query is not None, dtype=torch.bool)
    longest = max(query.valid.shape[1], candidate.valid.shape[1])
    one, other = _padded(query, longest), _padded(candidate, longest)
    mine = query.valid.any(1)[left]
    x = torch.where(mine[:, None, None], one.x[left], other.x[right])
    return Tokens(x, torch.where(mine[:, None], one.valid[left], other.valid[right])), mine


def _padded(tokens: Tokens, length: int) -> Tokens:
    more = length - tokens.valid.shape[1]
    return Tokens(F.pad(tokens.x, (0, 0, 0, more)), F.pad(tokens.valid, (0, more)))


class Matcher:
    """A trained model with a matching head, for ranking again what a search by vectors found.

    Args:
        embedder: of a model that was trained with `model.match`.
        batch_size: pairs at a time.

    Raises:
        BadInput: a model without a matching head, or whose objective does not train it.

    Source: InterBERT, arXiv 2003.13198, text-based image retrieval: the matching probability ranks the pictures.
    Differences: any modalities on either side; each side is decoded, turned into tokens and sent through what stands
    before the mixing once; only pairs that are asked for are computed.
    """

    def __init__(self, embedder: Embedder, batch_size: int = 128) -> None:
        trained = embedder.recipe.objective
        if not trained.trains_match:
            raise BadInput("model", "one with a trained matching head", f"one trained by {trained.kind}", _hint())
        if embedder.network.matching is None:
            raise BadInput("model", "one with a matching head", "none (model.match=0)", _hint())
        self.embedder, self.batch_size = embedder, batch_size

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """From a run directory or a model folder. Raises BadInput as the class does."""
        return cls(Embedder.load(path, device))

    def match(self, queries: Sequence[Record], candidates: Sequence[Record]) -> npt.NDArray[np.float32]:
        """Probabilities of every query with every candidate, (Q, C); NaN where nothing can be compared.

        Raises:
            MediaError: a cell that cannot be decoded.
        """
        left, right = (x.flatten() for x in np.indices((len(queries), len(candidates))))
        return self.pairs(queries, candidates, left, right).reshape(len(queries), len(candidates))

    def rerank(self, query: Record, candidates: Sequence[Record]) -> list[tuple[str, float]]:
        """(id, probability) of the candidates, the likeliest first; ties by id, and what has none last."""
        scores = self.match([query], candidates)[0].tolist()
        found = [(record.id, score) for record, score in zip(candidates, scores, strict=True)]
        return sorted(found, key=lambda pair: (-pair[1] if pair[1] == pair[1] else 1.0, pair[0]))

    @torch.inference_mode()
    def pairs(
        self,
        queries: Sequence[Record],
        candidates: Sequence[Record],
        left: npt.NDArray[np.int64],
        right: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """Probabilities of query `left[p]` with candidate `right[p]`, (P,): for lists that differ by query."""
        found = [np.zeros(0, np.float32)]
        one, other = self._side(queries), self._side(candidates)
        with autocast(self.embedder.dtype, self.embedder.device):
            for begin in range(0, len(left), self.batch_size):
                here = slice(begin, begin + self.batch_size)
                at, of = (torch.from_numpy(x[here].copy()).to(self.embedder.device) for x in (left, right))
                if not (one or other):
                    found.append(np.full(len(at), np.nan, np.float32))
                else:
                    found.append(match_pairs(self.embedder.network, one, other, at, of).float().cpu().numpy())
        return np.concatenate(found)

    def _side(self, records: Sequence[Record]) -> Mapping[str, Tokens]:
        bad: list[Quarantined] = []
        network = self.embedder.network
        batch = collate(records, {name: network.modality(name) for name in network.names}, quarantine=bad.append)
        if bad:
            raise MediaError(cast(MediaReason, bad[0].reason), f"{bad[0].modality}: {bad[0].detail}".rstrip(": "))
        # only now: what decodes and cuts files is no work for half precision
        with autocast(self.embedder.dtype, self.embedder.device):
            return network.apart(network.tokenize(batch.to(self.embedder.device)))


def _hint() -> str:
    kinds = {"text": "text", "image": "image"}
    made = {name: module.recipe(kinds) for name, module in discover("polymodal.recipes").items()}
    names = [name for name, recipe in made.items() if recipe.objective.trains_match and recipe.model.match]
    return f"Recipes that train one: {', '.join(names)}. For example: polymodal train {names[0]} DATA --run DIR"
