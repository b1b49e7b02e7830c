"""ConFu: whatever subset a row has, fused, finds the modality that was held out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal import presence
from polymodal.losses._gathered import Gathered, contrasts, edges, fusion, gathered, ignored
from polymodal.losses.contrastive import contrast
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Embedded, Encoded, Losses, Term

__all__ = ["Confu", "ConfuConfig", "Fuse"]


class ConfuConfig(ObjectiveConfig):
    """Configuration of `Confu`.

    Args:
        balance: lambda, the share of the held-out terms; the pairs have the rest.
        temperature: at the start; published fixed. `learn_temperature` lets it move, up to logit scale 100.
        fuse: "mlp": a network of the objective's own on the vectors of the subset, as published; "model": the item
            vector that the model gives to the subset, so that what learns to fuse is exported.
        hidden: width of that network.
        false_negatives: rows of one group and identical cells are no negatives of one another.
        fusion_weight: of the contrast between item vector and modality vectors, where the model has a trunk.
    """

    kind: Literal["confu"] = "confu"
    balance: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = True
    fuse: Literal["mlp", "model"] = "mlp"
    hidden: int = Field(256, ge=1)
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Confu:
        """The objective for `model`. Raises BadInput for a single modality."""
        return Confu(self, model)


class Fuse(nn.Module):
    """Two linear layers on the vectors of a subset and a bit for each modality, unit length."""

    def __init__(self, modalities: int, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(modalities * (width + 1), hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, z: Tensor, present: Tensor) -> Embedded:
        """(M, B, E) and (M, B) -> (B, E); what stands where `present` is False is not read."""
        clean = z.masked_fill(~present[..., None], 0.0) * z.shape[-1] ** 0.5
        inputs = torch.cat([clean, present[..., None].to(z.dtype)], -1).transpose(0, 1).flatten(1)
        some = present.any(0)
        out = F.normalize(self.layers(inputs).float(), dim=-1, eps=1e-6)
        return Embedded(out.masked_fill(~some[:, None], 0.0), some)


class Confu(Objective):
    """Pairwise contrast, and contrast of each modality with the fusion of all the others that the row has.

    ::

        L = (1 - lambda) mean_{i<j} NCE(z_i, z_j)  +  lambda mean_k NCE(fuse(z_j : j != k, present), z_k)

    Source: ConFu (CVPR 2026), its loss for three modalities as in specs/factorcl.md 4.1.
    Differences: any number of modalities, and of them any subset: the fused side is all but k of what the row has, and
        one network with a bit per modality serves all subsets; `fuse="model"`; presence; false negatives; the item
        vector of a trunk (`fusion_weight`).
    Related: CLIP (the pairs alone), Symile (a product instead of a network).
    """

    def __init__(self, config: ConfuConfig, model: Model) -> None:
        super().__init__()
        self.config, self.edges = config, edges(model.names, "full")
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale = nn.Parameter(start, requires_grad=config.learn_temperature)
        if config.fuse == "mlp":
            self.fuse = Fuse(len(model.names), model.config.embedding, config.hidden)

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `contrast/i~j`, `heldout/k` and, with a trunk, `fusion/m`."""
        batch, config, names = views[0], self.config, model.names
        encoded = model.encode(model.tokenize(batch))
        embedded = model.embeddings(encoded)
        rows = gathered(embedded, names, self.world)
        ignore = ignored(batch, names, self.world) if config.false_negatives else None
        scale = self.log_scale.clamp(max=math.log(100.0)).exp()
        terms = contrasts(rows, self.edges, scale, ignore, "cross")
        terms |= self._held_out(model, encoded, rows, scale, ignore)
        if self.fuses:
            terms |= fusion(model.shared(embedded[ITEM]), rows, scale, self.world, ignore)
        of: Mapping[str, float] = {
            "contrast": (1 - config.balance) / len(self.edges),
            "heldout": config.balance / len(names),
            "fusion": config.fusion_weight / len(names),
        }
        weights = {name: of[name.partition("/")[0]] for name in terms}
        return Losses(terms, weights, {"confu/scale": scale.detach()}, embedded)

    def _held_out(
        self, model: Model, encoded: Encoded, rows: Gathered, scale: Tensor, ignore: Tensor | None
    ) -> dict[str, Term]:
        terms, gather = {}, self.world.gather
        for k, name in enumerate(rows.names):
            rest = self._fused(model, encoded, rows, k)
            both = rest.present & rows.present[k]
            terms[f"heldout/{name}"] = contrast(
                rest.z,
                both,
                rows.every[k],
                rows.every_present[k],
                scale,
                all_anchors=gather(rest.z),
                all_present=gather(both),
                offset=rows.offset,
                ignore=None if ignore is None else ignore[k, k],
            )
        return terms

    def _fused(self, model: Model, encoded: Encoded, rows: Gathered, k: int) -> Embedded:
        rest = [name for at, name in enumerate(rows.names) if at != k and name in encoded.source]
        if self.config.fuse == "mlp":
            others = torch.arange(len(rows.names), device=rows.z.device) != k
            fused: Embedded = self.fuse(rows.z, rows.present & others[:, None])
            return fused
        if not rest:
            return Embedded(torch.zeros_like(rows.z[k]), torch.zeros_like(rows.present[k]))
        seen = model.seen_by(encoded, partial(presence.keep_only, names=rest))
        return model.shared(model.embeddings(seen, [ITEM])[ITEM])
