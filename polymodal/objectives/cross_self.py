"""Cross+Self: modalities find one another, and each finds its own other view (SLIP for any number of modalities)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from polymodal.losses._gathered import Graph, contrasts, edges, fusion, gathered, ignored
from polymodal.losses.ntxent import nt_xent
from polymodal.model import ITEM, Model
from polymodal.nn.heads import HeadNorm, ProjectionHead
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Embedded, Losses, Term

__all__ = ["CrossSelf", "CrossSelfConfig"]


class CrossSelfConfig(ObjectiveConfig):
    """Configuration of `CrossSelf`.

    Args:
        graph, anchor: which pairs of modalities; as in CLIP: "full", "anchor" (the first by default), "chain".
        temperature: of the cross-modal part at the start; `learn_temperature` lets it move, up to logit scale 100.
        self_temperature: of the within-modality part, fixed.
        self_weight: of the within-modality part.
        head: hidden width of the projection head of the within-modality part; 0 contrasts the exported vectors.
        head_norm: in that head: "batch", as published, or "layer".
        false_negatives: rows of one group and identical cells are no negatives of one another.
        fusion_weight: of the contrast between item vector and modality vectors, where the model has a trunk.
    """

    kind: Literal["cross_self"] = "cross_self"
    graph: Graph = "full"
    anchor: str | None = None
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = True
    self_temperature: float = Field(0.1, gt=0)
    self_weight: float = Field(1.0, ge=0)
    head: int = Field(256, ge=0)
    head_norm: HeadNorm = "batch"
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> CrossSelf:
        """The objective for `model`. Raises BadInput for a single modality, or an anchor that the model lacks."""
        return CrossSelf(self, model)


class CrossSelf(Objective):
    """L = mean over pairs of CLIP(i, j)  +  weight x mean over modalities of NT-Xent(m view 1, m view 2).

    Needs: two views; CLIP's part is the mean of its losses in either view.

    Source: Mu et al. 2022 (SLIP, arXiv 2112.12750), equation of section 3; "Cross+Self" of FactorCL (arXiv 2306.05268,
        table 2) and CoMM (arXiv 2409.07402, table 1).
    Differences: SLIP has the self part on pictures only and CLIP on a third, clean view; presence; false negatives; the
        item vector of a trunk (`fusion_weight`).
    Related: CLIP and SimCLR, its two parts.
    """

    views = 2

    def __init__(self, config: CrossSelfConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        self.edges = edges(model.names, config.graph, config.anchor)
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale = nn.Parameter(start, requires_grad=config.learn_temperature)
        width = model.config.embedding
        self.heads = nn.ModuleDict(
            {n: ProjectionHead(width, config.head, width, config.head_norm) for n in model.names if config.head}
        )

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `contrast/i~j`, `within/m` and, with a trunk, `fusion/m`."""
        config, names = self.config, model.names
        each = [model.embeddings(model.encode(model.tokenize(view))) for view in views]
        ignore = ignored(views[0], names, self.world) if config.false_negatives else None
        scale = self.log_scale.clamp(max=math.log(100.0)).exp()
        one, other = (self._cross(model, embedded, scale, ignore) for embedded in each)
        terms = {n: Term((t.value + other[n].value) / 2, t.count) for n, t in one.items()}
        families = {"contrast": 1 / len(self.edges), "fusion": config.fusion_weight / len(names)}
        for at, m in enumerate(names):
            if m in each[0] and config.self_weight:
                keep = None if ignore is None else ignore[at, at]
                rows = each[0][m].present & each[1][m].present
                first, second = (self._head(m, Embedded(embedded[m].z, rows)) for embedded in each)
                terms[f"within/{m}"] = nt_xent(first, second, 1 / config.self_temperature, self.world, rows, keep)
        families["within"] = config.self_weight / len(names)
        weights = {name: families[name.partition("/")[0]] for name in terms}
        return Losses(terms, weights, {"cross_self/scale": scale.detach()}, each[0])

    def _cross(
        self, model: Model, embedded: Mapping[str, Embedded], scale: Tensor, ignore: Tensor | None
    ) -> dict[str, Term]:
        rows = gathered(embedded, model.names, self.world)
        terms = contrasts(rows, self.edges, scale, ignore, "cross")
        if self.fuses:
            terms |= fusion(model.shared(embedded[ITEM]), rows, scale, self.world, ignore)
        return terms

    def _head(self, name: str, vectors: Embedded) -> Embedded:
        return cast(Embedded, self.heads[name](vectors, self.world)) if name in self.heads else vectors
