"""CoMM: what is fused in one view finds each modality alone, and itself, in the other; optionally with InfMasking."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from polymodal import presence
from polymodal.draws import seed_of, uniform
from polymodal.losses._gathered import fusion, gathered, ignored
from polymodal.losses.masked_fusion import masked_fusion
from polymodal.losses.ntxent import nt_xent
from polymodal.model import ITEM, Model
from polymodal.nn.heads import HeadNorm, ProjectionHead
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Embedded, Encoded, Losses, Parts, Term, Tokens

__all__ = ["Comm", "CommConfig"]


class CommConfig(ObjectiveConfig):
    """Configuration of `Comm`.

    Args:
        temperature: fixed.
        hidden, out: widths of the projection head.
        head_norm: in that head: "batch", as published, or "layer".
        reduce: "mean" over the M + 1 terms, as released; "sum", as published.
        masks: T, masked fusions a view (InfMasking); 0 for CoMM alone.
        mask_ratio: share of each modality's tokens that such a fusion does not see; one of each is always kept.
        mask_spread: r, what the spread of the masked fusions is multiplied with.
        mask_weight: of the InfMasking terms, in units of one of the M + 1.
        false_negatives: rows of one group and identical cells are no negatives of one another.
        readout_weight: of the contrast that teaches the vectors of single modalities to find the item vector, where
            the model has a trunk; no gradient goes beyond their projections.
    """

    kind: Literal["comm"] = "comm"
    temperature: float = Field(0.1, gt=0)
    hidden: int = Field(512, ge=1)
    out: int = Field(256, ge=2)
    head_norm: HeadNorm = "batch"
    reduce: Literal["mean", "sum"] = "mean"
    masks: int = Field(0, ge=0)
    mask_ratio: float = Field(0.7, gt=0, lt=1)
    mask_spread: float = Field(0.1, ge=0)
    mask_weight: float = Field(1.0, ge=0)
    false_negatives: bool = True
    readout_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Comm:
        """The objective for `model`, which needs a trunk to fuse more than a mean."""
        return Comm(self, model)


class Comm(Objective):
    """NT-Xent of each modality alone against all of them fused, and of the two fusions.

    ::

        L = 1/(M+1) ( sum_m 1/2 [NT(p_m', p_*'') + NT(p_m'', p_*')]  +  NT(p_*', p_*'') )

    p_* is the head's image of the item vector, p_m of the item vector of the row with m alone; ' and '' are two views.

    Needs: two views; stages ("towers", "trunk") are the paper's.

    Source: Dufumier et al., ICLR 2025 (arXiv 2409.07402), equation of section 3; Duplums/CoMM. InfMasking: NeurIPS
        2025, the term in `losses.masked_fusion`.
    Differences: presence, also in the statistics of the head; false negatives; NT(p_*', p_*'') is taken once per
        modality among the rows that have it, and averaged: on complete rows those are all the same. Modalities alone
        are augmented as released, where the paper writes them clean. Single-modality vectors are ours
        (`readout_weight`).
    Related: ConFu, subset against what is held out.
    """

    views = 2

    def __init__(self, config: CommConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        self.head = ProjectionHead(model.config.embedding, config.hidden, config.out, config.head_norm)
        self.reads_out = config.readout_weight > 0 and ITEM in model.projections

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `alone/m`, `fused/m`; `infmask/m` with masks; `fusion/m` with a trunk."""
        config, names, scale = self.config, model.names, 1 / self.config.temperature
        ignore = ignored(views[0], names, self.world) if config.false_negatives else None
        each = [model.encode(model.tokenize(view)) for view in views]
        known = [name for name in names if name in each[0].source]
        whole = [self._item(model, encoded) for encoded in each]
        masked = [self._masked(model, each[at], views[at], seed_of(seed, at)) for at in range(2)]
        terms = {}
        for m in known:
            keep = None if ignore is None else ignore[names.index(m), names.index(m)]
            seen = [self._item(model, model.seen_by(e, partial(presence.keep_only, names=[m]))) for e in each]
            rows = seen[0].present & seen[1].present
            # the head once a modality: the statistics in it are of the rows that a term counts, and of no others
            alone, fused = ([self._head(item, rows) for item in two] for two in (seen, whole))
            pairs = [(alone[0], fused[1]), (alone[1], fused[0])]
            terms[f"alone/{m}"] = _mean([nt_xent(a, b, scale, self.world, rows, keep) for a, b in pairs])
            terms[f"fused/{m}"] = nt_xent(fused[0], fused[1], scale, self.world, rows, keep)
            if config.masks:
                both = []
                for q, draws in zip(fused, masked, strict=True):
                    k = torch.stack([self._head(item, rows).z for item in draws])
                    both.append(masked_fusion(q, k, scale, config.mask_spread, self.world, rows, keep))
                terms[f"infmask/{m}"] = _mean(both)
        unit = 1 / (len(names) + 1) if config.reduce == "mean" else 1.0
        of = {"alone": unit, "fused": unit / len(names), "infmask": unit * config.mask_weight / len(names)}
        embedded = model.embeddings(each[0])
        if self.reads_out:
            of["fusion"] = config.readout_weight / len(names)
            terms |= self._readout(model, each[0], embedded[ITEM], ignore)
        return Losses(terms, {name: of[name.partition("/")[0]] for name in terms}, embedded=embedded)

    def _item(self, model: Model, encoded: Encoded) -> Embedded:
        return model.shared(model.embeddings(encoded, [ITEM])[ITEM])

    def _head(self, item: Embedded, rows: Tensor) -> Embedded:
        return cast(Embedded, self.head(Embedded(item.z, item.present & rows), self.world))

    def _masked(self, model: Model, encoded: Encoded, batch: Batch, seed: int) -> list[Embedded]:
        """T fusions of what is left of each modality's tokens after the towers."""
        return [
            self._item(model, model.seen_by(encoded, partial(self._thin, batch=batch, seed=seed_of(seed, "mask", t))))
            for t in range(self.config.masks)
        ]

    def _thin(self, parts: Parts, batch: Batch, seed: int) -> Parts:
        left = {}
        for name, tokens in parts.items():
            draws = uniform(seed_of(seed, name), batch.keys, tokens.valid.shape[1])
            last = draws.masked_fill(~tokens.valid, -1.0).argmax(1, keepdim=True)
            keep = (draws >= self.config.mask_ratio).scatter(1, last, True)
            left[name] = Tokens(tokens.x, tokens.valid & keep)
        return left

    def _readout(self, model: Model, encoded: Encoded, item: Embedded, ignore: Tensor | None) -> dict[str, Term]:
        def still(parts: Parts) -> Parts:
            return {name: tokens.map(Tensor.detach) for name, tokens in parts.items()}

        frozen = Encoded(tuple(still(parts) for parts in encoded.stages), still(encoded.source))
        vectors = gathered(model.embeddings(frozen, model.names), model.names, self.world)
        target = Embedded(model.shared(item).z.detach(), item.present)
        return fusion(target, vectors, 1 / self.config.temperature, self.world, ignore)


def _mean(terms: Sequence[Term]) -> Term:
    return Term(torch.stack([term.value for term in terms]).mean(), terms[0].count)
