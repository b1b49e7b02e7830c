"""SigLIP: pairs of modalities by the sigmoid loss, in which each pair of rows counts for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from polymodal.losses._gathered import Gathered, Graph, edges, gathered, ignored
from polymodal.losses.sigmoid import sigmoid_pairs
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Losses, Term

__all__ = ["Siglip", "SiglipConfig"]


class SiglipConfig(ObjectiveConfig):
    """Configuration of `Siglip`.

    Args:
        graph, anchor: which pairs of modalities; as in CLIP: "full", "anchor" (the first by default), "chain".
        scale, bias: t and beta at the start. With the published -10 nearly all pairs are right at the start, which they
            are: all but one in B are negatives.
        normalise: "present" divides by the rows that have both sides; "batch" by all rows, as published.
        chunk: rows at a time, to save memory; 0 for all at once.
        false_negatives: rows of one group and identical cells are no negatives of one another.
        fusion_weight: of the same loss between item vector and modality vectors, where the model has a trunk.
    """

    kind: Literal["siglip"] = "siglip"
    graph: Graph = "full"
    anchor: str | None = None
    scale: float = Field(10.0, gt=0)
    bias: float = -10.0
    normalise: Literal["present", "batch"] = "present"
    chunk: int = Field(0, ge=0)
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    def build(self, model: Model) -> Siglip:
        """The objective for `model`. Raises BadInput for a single modality, or an anchor that the model lacks."""
        return Siglip(self, model)


class Siglip(Objective):
    """The sigmoid loss over pairs of modalities, mean over the pairs.

    ::

        L_ij = -1/n sum_{a, b} log sigma(l_ab (t x_a . y_b + beta)),    n the rows that have both i and j

    Source: Zhai et al. 2023 (arXiv 2303.15343), algorithm 1; google-research/big_vision.
    Differences: weights by presence, n instead of the batch size (`normalise`), false negatives, more than two
        modalities, the item vector of a trunk (`fusion_weight`). With two modalities, all rows complete and every row a
        group of its own it is the published loss.
    Related: CLIP, whose softmax makes every row depend on how many others have the modality.
    """

    def __init__(self, config: SiglipConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        self.edges = edges(model.names, config.graph, config.anchor)
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.bias = nn.Parameter(torch.tensor(config.bias))

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `sigmoid/i~j` and, with a trunk, `joint/m`; their counts are rows."""
        batch, config = views[0], self.config
        embedded = model.embeddings(model.encode(model.tokenize(batch)))
        rows = gathered(embedded, model.names, self.world)
        ignore = ignored(batch, model.names, self.world) if config.false_negatives else None
        terms = {}
        for i, j in self.edges:
            name = f"sigmoid/{rows.names[i]}~{rows.names[j]}"
            terms[name] = self._term(rows, rows.z[i], rows.present[i], j, None if ignore is None else ignore[i, j])
        weights = dict.fromkeys(terms, 1 / len(self.edges))
        if self.fuses:
            item = model.shared(embedded[ITEM])
            joint = {
                f"joint/{name}": self._term(rows, item.z, item.present, m, None if ignore is None else ignore[m, m])
                for m, name in enumerate(rows.names)
            }
            weights |= dict.fromkeys(joint, config.fusion_weight / len(model.names))
            terms |= joint
        log = {"siglip/scale": self.log_scale.detach().exp(), "siglip/bias": self.bias.detach()}
        return Losses(terms, weights, log, embedded)

    def _term(self, rows: Gathered, z: Tensor, present: Tensor, j: int, ignore: Tensor | None) -> Term:
        both = present & rows.present[j]
        return sigmoid_pairs(
            z,
            both,
            rows.every[j],
            self.world.gather(both),
            self.log_scale.exp(),
            self.bias,
            offset=rows.offset,
            ignore=ignore,
            normalise=self.config.normalise,
            chunk=self.config.chunk,
        )
