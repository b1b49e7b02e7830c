"""SimCLR: every modality finds its own other view; nothing, unless asked for, ties modalities together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from pydantic import Field
from torch import Tensor, nn

from polymodal.losses._gathered import edges, ignored
from polymodal.losses.ntxent import nt_xent
from polymodal.model import ITEM, Model
from polymodal.nn.heads import HeadNorm, ProjectionHead
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Embedded, Losses, Term

__all__ = ["Simclr", "SimclrConfig"]


class SimclrConfig(ObjectiveConfig):
    """Configuration of `Simclr`.

    Args:
        temperature: fixed, as published.
        head: hidden width of the projection head of each modality; 0 contrasts the exported vectors themselves.
        head_norm: in that head: "batch", as published, or "layer".
        across: also contrast each modality's vector in one view with each other modality's in the other view, so that
            vectors of different modalities become comparable.
        across_weight: of those terms.
        false_negatives: rows of one group and identical cells are no negatives of one another.
        fusion_weight: of the same loss on the item vectors of the two views, where the model has a trunk.
    """

    kind: Literal["simclr"] = "simclr"
    temperature: float = Field(0.1, gt=0)
    head: int = Field(256, ge=0)
    head_norm: HeadNorm = "batch"
    across: bool = False
    across_weight: float = Field(1.0, ge=0)
    false_negatives: bool = True
    fusion_weight: float = Field(1.0, ge=0)

    @property
    def aligned(self) -> bool:
        return self.across

    def build(self, model: Model) -> Simclr:
        """The objective for `model`. Raises BadInput for `across` with a single modality."""
        return Simclr(self, model)


class Simclr(Objective):
    """NT-Xent between two augmentations of each modality, mean over modalities.

    Needs: two views.

    Source: Chen et al. 2020 (arXiv 2002.05709), equation 1, algorithm 1.
    Differences: one loss per modality over the rows that have it; the vectors in front of the head are unit vectors;
        false negatives; `across`; item vectors of a trunk, whose loss is taken once per modality among the rows that
        have it (on complete rows those are all the same).
    Related: Cross+Self, which adds CLIP.
    """

    views = 2

    def __init__(self, config: SimclrConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        self.edges = edges(model.names, "full") if config.across else ()
        self.fuses = config.fusion_weight > 0 and ITEM in model.projections
        width, names = model.config.embedding, (*model.names, *([ITEM] if self.fuses else []))
        self.heads = nn.ModuleDict(
            {n: ProjectionHead(width, config.head, width, config.head_norm) for n in names if config.head}
        )

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `within/m`; `across/i~j` with `across`; with a trunk `fused/m`, the item vectors of rows with m."""
        batch, config, names = views[0], self.config, model.names
        first, second = (model.embeddings(model.encode(model.tokenize(view))) for view in views)
        known = [name for name in names if name in first]
        ignore = ignored(batch, names, self.world) if config.false_negatives else None
        terms = {}
        for m in known:
            terms[f"within/{m}"] = self._term((m, first[m]), (m, second[m]), None, _at(ignore, names, m, m))
        weights = dict.fromkeys(terms, 1 / len(names))
        for i, j in self.edges:
            one, other = names[i], names[j]
            if one in first and other in first:
                keep = _at(ignore, names, one, other)
                there = self._term((one, first[one]), (other, second[other]), None, keep)
                back = self._term((other, first[other]), (one, second[one]), None, keep)
                terms[f"across/{one}~{other}"] = Term((there.value + back.value) / 2, there.count)
                weights[f"across/{one}~{other}"] = config.across_weight / len(self.edges)
        if self.fuses:
            one_view, other_view = ((ITEM, model.shared(embedded[ITEM])) for embedded in (first, second))
            for m in known:
                terms[f"fused/{m}"] = self._term(one_view, other_view, first[m].present, _at(ignore, names, m, m))
                weights[f"fused/{m}"] = config.fusion_weight / len(names)
        return Losses(terms, weights, embedded=first)

    def _term(
        self, a: tuple[str, Embedded], b: tuple[str, Embedded], rows: Tensor | None, ignore: Tensor | None
    ) -> Term:
        """Heads and loss. The statistics in a head are of the rows that the term counts, and of no others."""
        both = a[1].present & b[1].present
        both = both if rows is None else both & rows
        one, other = (self._head(name, Embedded(vectors.z, both)) for name, vectors in (a, b))
        return nt_xent(one, other, 1 / self.config.temperature, self.world, both, ignore)

    def _head(self, name: str, vectors: Embedded) -> Embedded:
        return cast(Embedded, self.heads[name](vectors, self.world)) if name in self.heads else vectors


def _at(ignore: Tensor | None, names: Sequence[str], one: str, other: str) -> Tensor | None:
    return None if ignore is None else ignore[names.index(one), names.index(other)]
