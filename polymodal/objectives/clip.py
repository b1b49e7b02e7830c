"""CLIP: every pair of modalities finds one another among the rows of a batch; CMC and ImageBind, by the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from polymodal.losses._gathered import Graph, contrasts, edges, fusion, gathered, ignored
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Losses

__all__ = ["Clip", "ClipConfig"]


class ClipConfig(ObjectiveConfig):
    """Configuration of `Clip`.

    Args:
        graph: which pairs are contrasted: "full" all of them (CMC), "anchor" those of one modality (ImageBind,
            LanguageBind), "chain" neighbours in the order of the recipe.
        anchor: the modality of graph="anchor"; the first of the recipe by default.
        temperature: at the start; `learn_temperature` lets it move, up to logit scale 100.
        negatives: "cross": the other modality of other rows (CLIP); "both": also the anchor's own (NT-Xent).
        false_negatives: rows of one group and identical cells are no negatives of one another.
        fusion_weight: of the contrast between item vector and modality vectors, where the model has a trunk (without
            one the item vector is the mean of its modalities' vectors and there is nothing to train).
    """

    kind: Literal["clip"] = "clip"
    graph: Graph = "full"
    anchor: str | None = None
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = True
    negatives: Literal["cross", "both"] = "cross"
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Clip:
        """The objective for `model`. Raises BadInput for a single modality, or an anchor that the model lacks."""
        return Clip(self, model)


class Clip(Objective):
    """Symmetric InfoNCE over pairs of modalities.

    ::

        L = mean over pairs (i, j) of  1/2 [CE(s Z_i Z_j^T) + CE(s Z_j Z_i^T)],    s = exp(log scale) <= 100

    each over the rows that have both i and j.

    Source: Radford et al. 2021 (arXiv 2103.00020, figure 3), openai/CLIP; full graph: Tian et al. 2020 (CMC,
        arXiv 1906.05849, equation 8); anchor graph: Girdhar et al. 2023 (ImageBind, arXiv 2305.05665).
    Differences: presence masks; false negatives (`false_negatives`); the item vector of a trunk (`fusion_weight`).
        With both off, two modalities and no row missing any it is the published loss.
    Related: SigLIP (no normaliser over rows), SCALE (pairs weighted by agreement), Symile (what pairs cannot say).
    """

    def __init__(self, config: ClipConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        self.edges = edges(model.names, config.graph, config.anchor)
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale = nn.Parameter(start, requires_grad=config.learn_temperature)

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `contrast/i~j` and, with a trunk, `fusion/m`."""
        batch, config = views[0], self.config
        embedded = model.embeddings(model.encode(model.tokenize(batch)))
        rows = gathered(embedded, model.names, self.world)
        ignore = ignored(batch, model.names, self.world) if config.false_negatives else None
        scale = self.log_scale.clamp(max=math.log(100.0)).exp()
        terms = contrasts(rows, self.edges, scale, ignore, config.negatives)
        weights = dict.fromkeys(terms, 1 / len(self.edges))
        if self.fuses:
            fused = fusion(model.shared(embedded[ITEM]), rows, scale, self.world, ignore)
            weights |= dict.fromkeys(fused, config.fusion_weight / len(model.names))
            terms |= fused
        return Losses(terms, weights, {"clip/scale": scale.detach()}, embedded)
