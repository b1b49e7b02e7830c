"""GRAM: the vectors of one row span a small volume, those of different rows a large one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from polymodal.losses._gathered import Gathered, edges, fusion, gathered, ignored
from polymodal.losses.volume import volume_contrast
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Losses, Term

__all__ = ["Gram", "GramConfig"]


class GramConfig(ObjectiveConfig):
    """Configuration of `Gram`.

    Args:
        anchor: the one modality whose vectors are contrasted with the tuples of the others, as published (text there);
            None: each in turn, so that rows without an anchor count too.
        form: "log": log-volumes, 1/2 logdet(G + eps I), whose gradient stays finite at volume 0; "volume": volumes.
        eps: above.
        temperature: at the start; `learn_temperature` lets it move, up to logit scale 100.
        false_negatives: rows of one group and identical cells of the anchor are no negatives of one another.
        fusion_weight: of the contrast between item vector and modality vectors, where the model has a trunk.
    """

    kind: Literal["gram"] = "gram"
    anchor: str | None = None
    form: Literal["log", "volume"] = "log"
    eps: float = Field(1e-3, gt=0)
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = True
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Gram:
        """The objective for `model`. Raises BadInput for a single modality, or an anchor that the model lacks."""
        return Gram(self, model)


class Gram(Objective):
    """Contrast by the volume of the parallelotope that a row's vectors span, mean over the anchors.

    ::

        L_m = 1/2 [CE(-log V(z_m of b, others of g) / tau, over g)  +  CE(-log V(z_m of g, others of b) / tau, over g)]

    Volumes of different subsets of modalities never compete: an anchor chooses among rows with the subset of its own.

    Source: Cicchetti et al., ICLR 2025 (arXiv 2412.11959), equations 4, 7 and 8; ispamm/GRAM.
    Differences: `form`, `eps`; groups by subset and every modality as anchor (`anchor`), without which missing
        modalities are not possible; no label smoothing and no matching head; the item vector of a trunk
        (`fusion_weight`). A volume does not tell z from -z: with two modalities it is the sine of their angle.
    Related: CLIP, where cosines do.
    """

    def __init__(self, config: GramConfig, model: Model) -> None:
        super().__init__()
        edges(model.names, "full", config.anchor)
        self.config = config
        self.anchors = model.names if config.anchor is None else (config.anchor,)
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale = nn.Parameter(start, requires_grad=config.learn_temperature)

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `volume/m`, m the anchor, and, with a trunk, `fusion/m`."""
        batch, config, names = views[0], self.config, model.names
        embedded = model.embeddings(model.encode(model.tokenize(batch)))
        rows = gathered(embedded, names, self.world)
        ignore = ignored(batch, names, self.world) if config.false_negatives else None
        scale = self.log_scale.clamp(max=math.log(100.0)).exp()
        terms = {f"volume/{m}": self._term(rows, names.index(m), scale, ignore) for m in self.anchors}
        weights = dict.fromkeys(terms, 1 / len(self.anchors))
        if self.fuses:
            fused = fusion(model.shared(embedded[ITEM]), rows, scale, self.world, ignore)
            weights |= dict.fromkeys(fused, config.fusion_weight / len(names))
            terms |= fused
        return Losses(terms, weights, {"gram/scale": scale.detach()}, embedded)

    def _term(self, rows: Gathered, at: int, scale: Tensor, ignore: Tensor | None) -> Term:
        rest = [j for j in range(len(rows.names)) if j != at]
        return volume_contrast(
            rows.z[at],
            rows.z[rest],
            rows.present[rest],
            rows.present[at] & rows.present[rest].any(0),
            rows.every[at],
            rows.every[rest],
            rows.every_present[rest],
            rows.every_present[at] & rows.every_present[rest].any(0),
            scale,
            offset=rows.offset,
            form=self.config.form,
            eps=self.config.eps,
            ignore=None if ignore is None else ignore[at, at],
        )
