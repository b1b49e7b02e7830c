"""Model: modalities, a tuple of stages, projections. A model family is an order of stages and nothing else.

CLIP, SigLIP `("towers",)` · M3AE, UNITER `("trunk",)` · SCALE `("towers", "trunk")` · InterBERT `("trunk", "towers")`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, Protocol, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal import presence
from polymodal.config import Config, nearest
from polymodal.modality import Modality
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.tensors import Batch, Cells, Embedded, Encoded, Parts, Tokens
from polymodal.types import BadInput

__all__ = ["ITEM", "Corrupt", "Model", "ModelConfig", "Projection", "Towers", "Trunk"]

# (modality, content (K, D), cells) -> content
Corrupt = Callable[[str, Tensor, Cells], Tensor]
# The one part that is not a modality: the summary token of a row.
ITEM = "item"


class ModelConfig(Config):
    """Shape of a model.

    Args:
        width: D.
        embedding: E, the width of a modality's vector and of the shared part of the item vector.
        unique: U, the width of each modality's block in the unique part of the item vector; 0 for none. With M
            modalities an item vector has E + M U numbers. The block of an absent modality is zero, so two items are
            compared in the blocks that both have, and a text query is not disturbed by what only pictures know. Blocks
            are read from the tokens as they come in, past all stages, because a contrast teaches towers to forget what
            only one modality knows: on the demo a linear probe reads an attribute that is only in the table from the
            mean input tokens with accuracy 0.98, from the tower's output with 0.18.
        unique_share: share of the item vector's squared length that is the unique part.
        stages: the order of the stages.
        tower, trunk: depth and heads of a stage's stacks.
        share: groups of modality names that use one tower (the SCALE release: text with table, image with video).
        summary: what the item vector is read from: the summary "token" of the trunk, or "parts", that token plus the
            mean over the row's modalities of their pooled trunk tokens (SCALE's sum of first tokens).
        projection_relu: ReLU before the unit norm of a projection, as in the SCALE release; similarities then lie in
            [0, 1].
    """

    width: int = Field(128, ge=8)
    embedding: int = Field(128, ge=2)
    unique: int = Field(0, ge=0)
    unique_share: float = Field(0.2, gt=0, lt=1)
    stages: tuple[Literal["towers", "trunk"], ...] = Field(("towers", "trunk"), min_length=1)
    tower: StackConfig = StackConfig()
    trunk: StackConfig = StackConfig()
    share: tuple[tuple[str, ...], ...] = ()
    summary: Literal["token", "parts"] = "parts"
    projection_relu: bool = False

    def item_width(self, modalities: int) -> int:
        """E + M U, the width of the item vector of a model with M modalities."""
        return self.embedding + modalities * self.unique


class Stage(Protocol):
    """Parts -> Parts. `mixes` says whether a part can see another one."""

    mixes: bool

    def __call__(self, parts: Parts) -> Parts: ...


class Towers(nn.Module):
    """Each modality alone through its own Stack; the summary token, if a trunk came before, passes unchanged."""

    mixes = False

    def __init__(
        self, names: Collection[str], width: int, config: StackConfig, share: Collection[tuple[str, ...]]
    ) -> None:
        super().__init__()
        shared = [name for group in share for name in group]
        wrong = [name for name in shared if name not in names or shared.count(name) > 1]
        if wrong:
            raise BadInput(
                "model.share", f"each of {', '.join(names)} at most once", wrong[0], nearest(wrong[0], list(names))
            )
        leader = {name: group[0] for group in share for name in group}
        self.leader = {name: leader.get(name, name) for name in names}
        self.towers = nn.ModuleDict({name: Stack(width, config) for name in sorted(set(self.leader.values()))})

    def forward(self, parts: Parts) -> dict[str, Tokens]:
        """Parts -> Parts of the same shapes."""
        return {
            name: tokens if name == ITEM else cast(Tokens, self.towers[self.leader[name]](tokens))
            for name, tokens in parts.items()
        }


class Trunk(nn.Module):
    """All tokens of a row together, with a type embedding per modality and one learned summary token in front.

    Source: SCALE's joint co-transformer (arXiv 2109.04275, section 4); M5Product release, commit 227ae08.
    Differences: type embeddings, a final LayerNorm, and a mask that is right (the release gives every head the mask of
    another row, and lets absent modalities be attended).
    """

    mixes = True

    def __init__(self, names: Collection[str], width: int, config: StackConfig) -> None:
        super().__init__()
        self.stack = Stack(width, config)
        self.types = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in sorted(names)})
        self.item = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, parts: Parts) -> dict[str, Tokens]:
        """Parts -> Parts plus "item"; a row without any valid token has no valid summary token either."""
        typed = {n: Tokens(tokens.x + self.types[n], tokens.valid) for n, tokens in parts.items() if n != ITEM}
        some = torch.stack([tokens.valid.any(1) for tokens in typed.values()]).any(0)
        item = Tokens(self.item.expand(len(some), 1, -1), some[:, None])
        joined = {ITEM: item, **typed}
        return presence.split(self.stack(presence.join(joined)), joined)


class Projection(nn.Module):
    """LayerNorm, Linear D -> E, unit length: the vector that is exported."""

    def __init__(self, width: int, embedding: int, relu: bool) -> None:
        super().__init__()
        self.norm, self.linear, self.relu = nn.LayerNorm(width), nn.Linear(width, embedding), relu

    def forward(self, pooled: Embedded) -> Embedded:
        """(B, D) -> (B, E) float32, zero rows where not present."""
        x = self.linear(self.norm(pooled.z)).float()
        z = F.normalize(F.relu(x) if self.relu else x, dim=-1, eps=1e-6)
        return Embedded(z * pooled.present[:, None], pooled.present)


class Model(nn.Module):
    """Tokens of any subset of modalities in, one vector per modality and one per item out.

    Args:
        modalities: name -> Modality of width D.
        config: stages and shapes.

    Absent modalities: a row's vector depends on what the row has and on nothing else (tests/contract).
    """

    def __init__(self, modalities: Mapping[str, Modality], config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.modalities = nn.ModuleDict(modalities)
        names = list(modalities)
        build: dict[str, Callable[[], nn.Module]] = {
            "towers": lambda: Towers(names, config.width, config.tower, config.share),
            "trunk": lambda: Trunk(names, config.width, config.trunk),
        }
        self.stages = nn.ModuleList([build[stage]() for stage in config.stages])
        projected = [*names, ITEM] if "trunk" in config.stages else names  # else the item is the mean of its vectors
        self.projections = nn.ModuleDict(
            {name: Projection(config.width, config.embedding, config.projection_relu) for name in projected}
        )
        if config.unique:
            self.uniques = nn.ModuleDict({name: Projection(config.width, config.unique, False) for name in names})
        self.apply(_initialise)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names, in the order of the recipe."""
        return tuple(self.modalities)

    def modality(self, name: str) -> Modality:
        """The modality of that name."""
        return cast(Modality, self.modalities[name])

    def tokenize(self, batch: Batch, corrupt: Corrupt | None = None) -> dict[str, Tokens]:
        """Batch -> Parts, embedding valid tokens only.

        Args:
            batch: B rows; a modality that no row has may be missing, and one the model does not know is not read.
            corrupt: `(modality, content (K, D), cells) -> content`, what an objective does to the content of tokens
                before their positions are added: a masked token keeps its place.
        """
        parts = {}
        for name in self.names:
            if name not in batch.cells:
                continue
            cells, modality = batch.cells[name], self.modality(name)
            fields = cells.packed()
            content = modality.embed(fields)
            if corrupt is not None:
                content = corrupt(name, content, cells)
            parts[name] = presence.scatter(content + modality.positions(fields), cells.valid)
        return parts

    def encode(self, parts: Parts, thin: Callable[[Parts], Parts] | None = None) -> Encoded:
        """Parts -> the parts after every stage. `thin` is applied once, before the first stage that mixes modalities:
        what it takes away the others never see (modality dropout)."""
        stages: list[Parts] = []
        source = parts if thin is None else thin(parts)
        for module in self.stages:
            stage = cast(Stage, module)
            if thin is not None and stage.mixes:
                parts, thin = thin(parts), None
            parts = stage(parts)
            stages.append(parts)
        return Encoded(tuple(stages), source)

    def unimodal(self, encoded: Encoded) -> Parts:
        """The last parts in which no modality has seen another; where a trunk comes first, the last parts of all."""
        mixes = [cast(Stage, stage).mixes for stage in self.stages]
        first = mixes.index(True) if True in mixes else len(mixes)
        return encoded.stages[first - 1]  # -1, the last of all, where a trunk comes first

    def seen_by(self, encoded: Encoded, keep: Callable[[Parts], Parts]) -> Encoded:
        """What the model makes of the same rows when the stages that mix modalities see only what `keep` leaves.

        The stages before the first of those are not run again: there a modality sees itself only. Where all of them
        mix, `keep` is applied to the input; where none does, to what the pooling reads.

        Args:
            encoded: of `encode`, without `thin`.
            keep: parts -> parts, fewer modalities or fewer valid tokens, the same ones whenever it is called.
        """
        stages = [cast(Stage, module) for module in self.stages]
        mixes = [stage.mixes for stage in stages]
        first = mixes.index(True) if True in mixes else len(mixes)
        source = keep(encoded.source)
        done = [keep(parts) for parts in encoded.stages[:first]]
        for stage in stages[first:]:
            done.append(stage(done[-1] if done else source))
        return Encoded(tuple(done), source)

    def embeddings(self, encoded: Encoded, names: Collection[str] | None = None) -> dict[str, Embedded]:
        """A vector per modality (from `unimodal`) and "item": the summary token, or the mean of the vectors of the
        modalities a row has where the model has no trunk.

        Args:
            encoded: of `encode`.
            names: which to compute; all by default.
        """
        parts = self.unimodal(encoded)
        wanted = [n for n in (*parts, ITEM) if names is None or n in names]
        pooled = {name: presence.pool(parts[name]) for name in parts if name != ITEM}
        out = {name: self._project(name, pooled[name]) for name in pooled if name in wanted}
        if ITEM in wanted:
            out[ITEM] = self._item(encoded, pooled, out)
        return out

    def shared(self, item: Embedded) -> Embedded:
        """The shared part of item vectors, (B, E) of unit length: what is comparable with the modalities' vectors."""
        if not self.config.unique:
            return item
        return Embedded(F.normalize(item.z[:, : self.config.embedding], dim=-1, eps=1e-6), item.present)

    def _item(self, encoded: Encoded, pooled: Mapping[str, Embedded], known: Mapping[str, Embedded]) -> Embedded:
        if ITEM in encoded.last:
            token = presence.pool(encoded.last[ITEM])
            parts = [presence.pool(part) for name, part in encoded.last.items() if name != ITEM]
            extra = presence.average(parts).z if self.config.summary == "parts" else 0.0
            shared = self._project(ITEM, Embedded(token.z + extra, token.present))
        else:
            each = [known[name] if name in known else self._project(name, part) for name, part in pooled.items()]
            mean = presence.average(each)
            shared = Embedded(F.normalize(mean.z, dim=-1, eps=1e-6), mean.present)
        return self._with_unique(shared, encoded.source) if self.config.unique else shared

    def _with_unique(self, shared: Embedded, source: Parts) -> Embedded:
        own = {name: cast(Embedded, self.uniques[name](presence.pool(part))) for name, part in source.items()}
        count = torch.stack([part.present for part in own.values()]).sum(0).clamp(min=1)
        nothing = shared.z.new_zeros((len(shared.z), self.config.unique))
        blocks = [own[name].z if name in own else nothing for name in self.names]
        unique = torch.cat(blocks, -1) * (self.config.unique_share / count).sqrt()[:, None]
        return Embedded(torch.cat([shared.z * (1 - self.config.unique_share) ** 0.5, unique], -1), shared.present)

    def _project(self, name: str, pooled: Embedded) -> Embedded:
        return cast(Embedded, self.projections[name](pooled))


def _initialise(module: nn.Module) -> None:
    """Truncated normal of deviation 0.55 / sqrt(inputs), BERT's 0.02 at width 768 and as wide as needed below it."""
    if isinstance(module, nn.Linear | nn.Embedding):
        std = 0.55 * module.weight.shape[1] ** -0.5
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
