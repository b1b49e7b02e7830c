"""What the terms of FactorCL are computed from: vectors of each side, heads, and the rest of a row as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from polymodal import presence
from polymodal.config import Config
from polymodal.draws import seed_of, uniform
from polymodal.losses import information
from polymodal.losses.contrastive import contrast
from polymodal.losses.critics import CriticConfig, mlp
from polymodal.model import ITEM, Model
from polymodal.tensors import Embedded, Term, Tokens, World

__all__ = [
    "CLUBS",
    "FAMILIES",
    "GIVEN",
    "SHARED",
    "Context",
    "Faced",
    "Faces",
    "Inputs",
    "Link",
    "Rest",
    "Weights",
    "block",
    "fused",
    "lengthened",
    "mean",
]

# the two-sided terms: which of them are bounds from above, which are given the label or the other view, and whose heads
# are Z_S (those of the others and of `task` are Z_U)
FAMILIES = ("cross", "club_given", "club", "cross_given")
CLUBS, GIVEN, SHARED = ("club", "club_given"), ("club_given", "cross_given"), ("cross", "club_given")

Context = Literal["sampled", "all", "random_order"]
# family -> node -> per view, the vectors of the two sides
Faces: TypeAlias = Mapping[str, Mapping[str, list[tuple[Embedded, Embedded]]]]


class Weights(Config):
    """Weights of the terms; FactorCL has 1 for the first five. `fusion` is the contrast of the item vector with those
    of its modalities, which trains what comes after the modality vectors; not in FactorCL."""

    cross: float = Field(1.0, ge=0)
    club_given: float = Field(1.0, ge=0)
    club: float = Field(1.0, ge=0)
    cross_given: float = Field(1.0, ge=0)
    task: float = Field(1.0, ge=0)
    fusion: float = Field(1.0, ge=0)


@dataclass(frozen=True)
class Inputs:
    """Vectors by modality, per view: `shared` for the terms of Z_S, `unique` for those of Z_U; keys and labels of the
    rows (label -1: unknown)."""

    shared: Sequence[Mapping[str, Embedded]]
    unique: Sequence[Mapping[str, Embedded]]
    keys: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Faced:
    """Scores of a term (B, G), who is compared with whom, and the weights (G, B) of a kernel, if any."""

    scores: Tensor
    pairs: information.Pairing
    weights: Tensor | None

    def nce(self) -> Term:
        """The loss of the bound from below."""
        if self.weights is not None:
            return information.kernel_nce(self.scores, self.weights, self.pairs)
        return information.nce(self.scores, self.pairs)

    def club(self, diagonal: bool) -> Term:
        """The bound from above."""
        if self.weights is not None:
            return information.kernel_club(self.scores, self.weights, self.pairs)
        return information.club(self.scores, self.pairs, diagonal)

    def capacity(self) -> Tensor:
        """The bound from below is this minus its loss."""
        return information.capacity(self.pairs, int(self.weights is not None))


class Link(nn.Module):
    """One two-sided term: a head on either side and a critic, whose sides are wider by what it is given."""

    def __init__(self, width: int, config: CriticConfig, extra: tuple[int, int]) -> None:
        super().__init__()
        out = config.head or width
        self.left, self.right = (mlp([width, *[width] * config.head_layers, out]) for _ in range(2))
        self.critic = config.build(out + extra[0], out + extra[1])


class Rest(nn.Module):
    """The other modalities of a row as one vector: the mean of a linear map of each, and how many they are, in an MLP.

    Args:
        names: modalities. width: of their vectors and of the result.
        context: which of the others a row shows (see `FactorCLConfig`).
    """

    def __init__(self, names: Sequence[str], width: int, context: Context) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.mix = mlp([width + 1, width, width])
        self.context = context

    def forward(self, name: str, vectors: Mapping[str, Embedded], keys: Tensor, seed: int) -> Embedded:
        """The rest of `name`: (B, width), present where a row shows one."""
        others = {n: Embedded(self.maps[n](v.z), v.present) for n, v in vectors.items() if n != name}
        shown = self._shown(name, {n: v.present for n, v in others.items()}, keys, seed)
        fused = presence.average([Embedded(v.z, shown[n]) for n, v in others.items()])
        count = torch.stack(list(shown.values())).sum(0)[:, None] / len(self.maps)
        return Embedded(cast(Tensor, self.mix(torch.cat([fused.z, count.to(fused.z.dtype)], 1))), fused.present)

    def _shown(self, name: str, there: Mapping[str, Tensor], keys: Tensor, seed: int) -> dict[str, Tensor]:
        if self.context == "all":
            return dict(there)
        if self.context == "random_order":
            place = {n: uniform(seed_of(seed, "order", n), keys, 1)[:, 0] for n in (name, *there)}
            return {n: present & (place[n] < place[name]) for n, present in there.items()}
        whole = uniform(seed_of(seed, "whole", name), keys, 1) < 0.5
        draws = {n: uniform(seed_of(seed, "part", name, n), keys, 2) for n in there}
        # a fate of 1 is never dropped
        draws = {n: torch.cat([torch.where(whole, 1.0, d[:, :1]), d[:, 1:]], 1) for n, d in draws.items()}
        tokens = {n: Tokens(present.float()[:, None, None], present[:, None]) for n, present in there.items()}
        return {n: kept.valid[:, 0] for n, kept in presence.drop(tokens, 0.5, draws).items()}


def mean(terms: Sequence[Term]) -> Term:
    """The mean of terms that count the same rows."""
    return Term(torch.stack([t.value for t in terms]).mean(), terms[0].count)


def lengthened(vector: Embedded) -> Embedded:
    """Entries of a unit vector are of size E ** -0.5; heads want them of size 1."""
    return Embedded(vector.z * vector.z.shape[1] ** 0.5, vector.present)


def block(model: Model, name: str, tokens: Tokens) -> Embedded:
    """The unique block of a modality, before it is scaled into the item vector."""
    return cast(Embedded, model.uniques[name](presence.pool(tokens)))


def fused(item: Embedded, parts: Mapping[str, Embedded], scale: Tensor, world: World) -> dict[str, Term]:
    """The contrast of the item vector with the vector of each of its modalities."""
    gather, terms = world.gather, {}
    for name, part in parts.items():
        if name != ITEM:
            both = item.present & part.present
            terms[f"fusion/{name}"] = contrast(
                item.z,
                both,
                gather(part.z),
                gather(part.present),
                scale,
                all_anchors=gather(item.z),
                all_present=gather(both),
                offset=world.rank * len(both),
            )
    return terms
