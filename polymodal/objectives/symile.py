"""Symile: all modalities of a row at once, by their multilinear product; catches what no pair of them knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.draws import seed_of
from polymodal.losses._gathered import Gathered, edges, fusion, gathered, ignored
from polymodal.losses.multilinear import multilinear_contrast, shuffled_rows
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Losses, Term

__all__ = ["Symile", "SymileConfig"]


class SymileConfig(ObjectiveConfig):
    """Configuration of `Symile`.

    Args:
        temperature: at the start; `learn_temperature` lets it move, up to logit scale 100.
        rescale: multiply the product of M unit vectors by E^((M-2)/2), so that chance products are as large as cosines
            and 1 can be reached whatever M and E are. The release does not.
        shuffles: joint shuffles a batch, each with as many negatives as there are rows; the release has one.
        false_negatives: for the fusion terms: rows of one group and identical cells are no negatives of one another.
        fusion_weight: of the contrast between item vector and modality vectors, where the model has a trunk.
    """

    kind: Literal["symile"] = "symile"
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = True
    rescale: bool = True
    shuffles: int = Field(1, ge=1, le=64)
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Symile:
        """The objective for `model`. Raises BadInput for a single modality."""
        return Symile(self, model)


class Symile(Objective):
    """Contrast of each modality against the tuple of all the others, mean over modalities.

    ::

        MIP(z_1, ..., z_M) = sum_k prod_m z_m[k],        L = 1/M sum_m CE(s MIP(z_m of a row, tuples of the others))

    In a row's tuple a modality that it lacks has a learned vector. A row counts in the term of m when it has m and at
    least one other; tuples are shuffled among those rows only.

    Source: Saporta et al., NeurIPS 2024 (arXiv 2411.01053), equations 2 to 4; rajesh-lab/symile.
    Differences: `rescale`; shuffles keyed by rows; tuples that are the anchor's own after all (its partners' vectors,
        the rest missing) are no negatives; a learned vector is the whole mark of absence, where the paper's placeholder
        inputs and indicator bits go through the encoder; the item vector of a trunk (`fusion_weight`). The n^2 form is
        left out: it has B^(M-1) tuples; `shuffles` has as many as wanted.
    Related: ConFu, where a network fuses the others. An item vector here is no product: to score a pair of modalities
        against a third, multiply their vectors.
    """

    def __init__(self, config: SymileConfig, model: Model) -> None:
        super().__init__()
        edges(model.names, "full")
        self.config, self.names = config, model.names
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale = nn.Parameter(start, requires_grad=config.learn_temperature)
        width = model.config.embedding
        self.missing = nn.ParameterDict({name: nn.Parameter(torch.randn(width)) for name in model.names})
        self.unit = width ** ((len(model.names) - 2) / 2) if config.rescale else 1.0

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `symile/m` and, with a trunk, `fusion/m`."""
        batch, names = views[0], model.names
        embedded = model.embeddings(model.encode(model.tokenize(batch)))
        rows = gathered(embedded, names, self.world)
        keys = self.world.gather(batch.keys)
        scale = self.log_scale.clamp(max=math.log(100.0)).exp()
        terms = {f"symile/{m}": self._term(rows, at, keys, scale, seed) for at, m in enumerate(names)}
        weights = dict.fromkeys(terms, 1 / len(names))
        if self.fuses:
            ignore = ignored(batch, names, self.world) if self.config.false_negatives else None
            fused = fusion(model.shared(embedded[ITEM]), rows, scale, self.world, ignore)
            weights |= dict.fromkeys(fused, self.config.fusion_weight / len(names))
            terms |= fused
        return Losses(terms, weights, {"symile/scale": scale.detach()}, embedded)

    def filled(self, z: Tensor, present: Tensor) -> Tensor:
        """(M, B, E) vectors with the learned one where a row lacks a modality."""
        missing = torch.stack([F.normalize(self.missing[name], dim=0) for name in self.names])
        return torch.where(present[..., None], z, missing[:, None])

    def _term(self, rows: Gathered, at: int, keys: Tensor, scale: Tensor, seed: int) -> Term:
        rest = [j for j in range(len(rows.names)) if j != at]
        counted = rows.present[at] & rows.present[rest].any(0)
        every_counted = rows.every_present[at] & rows.every_present[rest].any(0)
        name, others = rows.names[at], [rows.names[j] for j in rest]
        partners = torch.stack(
            [
                shuffled_rows(keys, every_counted, others, seed_of(seed, "symile", name, s))
                for s in range(self.config.shuffles)
            ]
        )
        return multilinear_contrast(
            rows.z[at],
            self.filled(rows.z, rows.present)[rest],
            counted,
            self.filled(rows.every, rows.every_present)[rest],
            every_counted,
            partners,
            scale * self.unit,
            offset=rows.offset,
            own=_own(rows, rest, partners),
        )


def _own(rows: Gathered, rest: Sequence[int], partners: Tensor) -> Tensor:
    """(S, B, G) bool: the tuple of g holds nothing but what row b has: its own vectors, or what both lack."""
    place = torch.arange(rows.z.shape[1], device=partners.device) + rows.offset
    lacking = ~torch.stack([rows.every_present[j][partners[:, at]] for at, j in enumerate(rest)], 1)  # (S, M-1, G)
    same = partners[:, :, None] == place[:, None]
    both_lack = lacking[:, :, None] & ~rows.present[rest][None, :, :, None]
    return (same | both_lack).all(1)
