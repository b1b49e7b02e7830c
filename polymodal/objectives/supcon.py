"""SupCon: rows of one class find one another across modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from polymodal.losses._gathered import Graph, edges, gathered
from polymodal.losses.supervised import supervised_contrast
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Losses, Term

__all__ = ["Supcon", "SupconConfig"]


class SupconConfig(ObjectiveConfig):
    """Configuration of `Supcon`.

    Args:
        label: the catalogue's label that says which rows are of one class; "": the rows of one group.
        graph, anchor: which pairs of modalities; as in CLIP: "full", "anchor" (the first by default), "chain".
        temperature: fixed, as published.
        candidates: "both" modalities of a pair, as published, or "cross", the other one only.
        fusion_weight: of the same loss between item vector and modality vectors, where the model has a trunk.
    """

    kind: Literal["supcon"] = "supcon"
    label: str = ""
    graph: Graph = "full"
    anchor: str | None = None
    temperature: float = Field(0.1, gt=0)
    candidates: Literal["both", "cross"] = "both"
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Supcon:
        """The objective for `model`. Raises BadInput for a single modality, or an anchor that the model lacks."""
        return Supcon(self, model)


class Supcon(Objective):
    """Supervised contrast over pairs of modalities, mean over the pairs.

    ::

        L_ij = mean over anchors of  -1/|P| sum_{p in P} log softmax(k z . z_p)

    P are the vectors of the anchor's class in i and j. A row whose class is not known is a class of its own: its
    positive is itself in the other modality.

    Source: Khosla et al. 2020 (arXiv 2004.11362), equation 2 (L_out).
    Differences: two modalities of a row in place of two augmentations, as FactorCL's baseline has them; presence;
        unit vectors (FactorCL's baseline feeds unnormalised ones at 0.07); the item vector
        of a trunk (`fusion_weight`).
    Related: CLIP, the same with every row a class of its own and candidates="cross".
    """

    def __init__(self, config: SupconConfig, model: Model) -> None:
        super().__init__()
        self.config, self.label = config, config.label
        self.edges = edges(model.names, config.graph, config.anchor)
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `contrast/i~j` and, with a trunk, `fusion/m`."""
        batch = views[0]
        embedded = model.embeddings(model.encode(model.tokenize(batch)))
        names = (*model.names, *([ITEM] if self.fuses else []))
        vectors = {n: model.shared(e) if n == ITEM else e for n, e in embedded.items()}
        rows = gathered(vectors, names, self.world)
        classes = _classes(batch, self.label)
        pairs = supervised_contrast(
            rows.z,
            rows.present,
            classes,
            1 / self.config.temperature,
            candidates=rows.every,
            candidates_present=rows.every_present,
            candidates_classes=self.world.gather(classes),
            offset=rows.offset,
            candidates_from=self.config.candidates,
        )
        terms: dict[str, Term] = {f"contrast/{names[i]}~{names[j]}": pairs[i, j] for i, j in self.edges}
        weights = dict.fromkeys(terms, 1 / len(self.edges))
        if self.fuses:
            fused = {f"fusion/{m}": pairs[at, len(model.names)] for at, m in enumerate(model.names)}
            weights |= dict.fromkeys(fused, self.config.fusion_weight / len(model.names))
            terms |= fused
        return Losses(terms, weights, embedded=embedded)


def _classes(batch: Batch, label: str) -> Tensor:
    """(B,) int64: the batch's labels, a number of its own for a row whose label is unknown (-1); else the groups."""
    labels = getattr(batch, "labels", None)
    if not label or not isinstance(labels, Tensor):
        return batch.groups
    return torch.where(labels >= 0, labels, batch.keys)
