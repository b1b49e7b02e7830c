"""Model: modalities, a tuple of stages, projections. A model family is an order of stages and nothing else.

CLIP, SigLIP `("towers",)` · M3AE, UNITER `("trunk",)` · SCALE `("towers", "trunk")` · InterBERT `("trunk", "towers")` ·
ViLBERT, LXMERT `("towers", "cotrunk")`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal import presence
from polymodal.config import Config, nearest
from polymodal.modality import Modality
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.nn.cross import Order
from polymodal.nn.heads import TiedHead
from polymodal.nn.match import MatchHead
from polymodal.nn.pretrained import fill_bert, fill_head, read_bert
from polymodal.nn.projection import Projection
from polymodal.nn.stages import ITEM, CoTrunk, Stage, Towers, Trunk
from polymodal.tensors import Batch, Cells, Embedded, Encoded, Parts, Tokens
from polymodal.types import BadInput

__all__ = ["ITEM", "CoTrunk", "Corrupt", "Model", "ModelConfig", "Projection", "Towers", "Trunk"]

# (modality, content (K, D), cells) -> content
Corrupt = Callable[[str, Tensor, Cells], Tensor]


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
        tower, trunk: depth and heads of a stage's stacks; a co-trunk takes those of the trunk.
        co_order: sub-layers of a co-trunk's layer, see `nn.cross.CoLayer`.
        co_share: one co-attention for all streams of a co-trunk (LXMERT) instead of one for each (ViLBERT).
        tower_of: modality name -> depth and heads of its tower, where they differ from `tower` (InterBERT: 8 heads for
            the picture, 12 for the text).
        share: groups of modality names that use one tower (the SCALE release: text with table, image with video).
        summary: what the item vector is read from: the summary "token" of the trunk, or "parts", that token plus the
            mean over the row's modalities of their pooled trunk tokens (SCALE's sum of first tokens). "mean": the trunk
            has no summary token, and an item's vector is the mean of its modalities' vectors.
        late: add that mean to what the trunk says before the unit norm: late fusion, which the trunk corrects. Where a
            modality is alone nothing is fused and nothing is corrected: a query of one modality is its own vector.
        types: what tells the trunk which modality a token is of: a vector each, "random" or "zero" at first (from the
            paper's two modalities to N without a change at the start), or "none" (InterBERT).
        input_norm: LayerNorm on every token's content plus position, with the trunk's epsilon, as in BERT.
        pool: what a modality's vector is read from: the mean over its tokens, or the first one (BERT's [CLS]). "first"
            is for modalities whose first token stands for the cell: text with marks, features with `whole`.
        match: hidden width of a matching head that is part of the model and exported with it, so that two sides can be
            compared after training (`polymodal.match`); 0 for none.
        bert: modality name -> folder of a BERT (config.json, model.safetensors) that its tables and the stacks it
            passes start from; read when training begins, not when a model is loaded. With summary="mean" and types
            "none" or "zero" a row of text alone is then exactly that BERT.
        projection_relu: ReLU before the unit norm of a projection, as in the SCALE release; similarities then lie in
            [0, 1].
    """

    width: int = Field(128, ge=8)
    embedding: int = Field(128, ge=2)
    unique: int = Field(0, ge=0)
    unique_share: float = Field(0.2, gt=0, lt=1)
    stages: tuple[Literal["towers", "trunk", "cotrunk"], ...] = Field(("towers", "trunk"), min_length=1)
    tower: StackConfig = StackConfig()
    trunk: StackConfig = StackConfig()
    co_order: Order = "vilbert"
    co_share: bool = False
    tower_of: dict[str, StackConfig] = Field(default_factory=dict)
    share: tuple[tuple[str, ...], ...] = ()
    summary: Literal["token", "parts", "mean"] = "parts"
    late: bool = False
    types: Literal["random", "zero", "none"] = "random"
    input_norm: bool = False
    pool: Literal["mean", "first"] = "mean"
    match: int = Field(0, ge=0)
    bert: dict[str, str] = Field(default_factory=dict)
    projection_relu: bool = False

    def item_width(self, modalities: int) -> int:
        """E + M U, the width of the item vector of a model with M modalities."""
        return self.embedding + modalities * self.unique


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
            "towers": lambda: Towers(names, config.width, config.tower, config.share, config.tower_of),
            "trunk": lambda: Trunk(names, config.width, config.trunk, config.types, config.summary != "mean"),
            "cotrunk": lambda: CoTrunk(names, config.width, config.trunk, config.co_order, config.co_share),
        }
        self.stages = nn.ModuleList([build[stage]() for stage in config.stages])
        own_item = config.summary != "mean" and any(cast(Stage, stage).mixes for stage in self.stages)
        projected = [*names, ITEM] if own_item else names  # else the item is the mean of its vectors
        self.projections = nn.ModuleDict(
            {name: Projection(config.width, config.embedding, config.projection_relu) for name in projected}
        )
        if config.unique:
            self.uniques = nn.ModuleDict({name: Projection(config.width, config.unique, False) for name in names})
        if config.input_norm:
            self.input_norms = nn.ModuleDict({name: nn.LayerNorm(config.width, config.trunk.eps) for name in names})
        self.matching = MatchHead(names, config.width, config.match) if config.match else None
        self.apply(_initialise)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names, in the order of the recipe."""
        return tuple(self.modalities)

    def modality(self, name: str) -> Modality:
        """The modality of that name."""
        return cast(Modality, self.modalities[name])

    def head(self, name: str, tie: bool = False) -> nn.Module:
        """A fresh decoder of a modality's tokens after the last stage, its LayerNorm with the trunk's epsilon.

        Args:
            tie: predict symbols by the modality's own vectors of them, where it has any (see `nn.heads.predict`).
        """
        modality = self.modality(name)
        head = modality.head(self.config.width)
        for module in head.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = self.config.trunk.eps
        return TiedHead(cast(nn.Sequential, head)) if tie and modality.table() is not None else head

    def start_from_bert(self, heads: Mapping[str, nn.Module] | None = None) -> None:
        """Fill what `config.bert` names from its folders. Raises BadInput, with what does not fit.

        Args:
            heads: modality name -> a decoder of its tokens after the last stage; those of BERT's form are filled too,
                where the folder has one.
        """
        for name, folder in self.config.bert.items():
            if name not in self.modalities:
                raise BadInput("model.bert", f"one of {', '.join(self.names)}", repr(name), nearest(name, self.names))
            stacks = [
                stage.stack
                if isinstance(stage, Trunk)
                else cast(Towers, stage).towers[cast(Towers, stage).leader[name]]
                for stage in self.stages
            ]
            norm = cast(nn.LayerNorm, self.input_norms[name]) if self.config.input_norm else None
            bert = read_bert(Path(folder))
            fill_bert(bert, self.modality(name).tables(), norm, cast(list[Stack], stacks))
            if heads is not None and name in heads:
                fill_head(bert, heads[name])

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
            whole = modality.whole(fields)
            if whole is not None:
                content = presence.summarise(content, whole, cells.valid)
            placed = content + modality.positions(fields)
            if self.config.input_norm:
                placed = self.input_norms[name](placed)
            parts[name] = presence.scatter(placed, cells.valid)
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

    def apart(self, parts: Parts) -> Parts:
        """Parts after the stages that stand before the first one that mixes: what can be computed side by side."""
        for module in self.stages[: self._mixing]:
            parts = cast(Stage, module)(parts)
        return parts

    def together(self, parts: Parts) -> Parts:
        """`apart`'s parts after the remaining stages."""
        for module in self.stages[self._mixing :]:
            parts = cast(Stage, module)(parts)
        return parts

    @property
    def _mixing(self) -> int:
        mixes = [cast(Stage, stage).mixes for stage in self.stages]
        return mixes.index(True) if True in mixes else len(mixes)

    def alone(self, parts: Parts) -> dict[str, Embedded]:
        """Each modality's vector as if the row had nothing else: what a query of that modality alone gets.

        Where towers come first one pass of them gives all; where a trunk comes first each modality has its own pass.
        """
        if self._mixing:
            each = self.apart(parts)
        else:
            each = {name: self.together({name: tokens})[name] for name, tokens in parts.items()}
        return {name: self._project(name, self.pooled(each[name])) for name in parts}

    def pooled(self, tokens: Tokens) -> Embedded:
        """What stands for a part's tokens, (B, D): their mean or the first one (`config.pool`)."""
        return presence.first(tokens) if self.config.pool == "first" else presence.pool(tokens)

    def unimodal(self, encoded: Encoded) -> Parts:
        """The last parts in which no modality has seen another; where a trunk comes first, the last parts of all."""
        return encoded.stages[self._mixing - 1]  # -1, the last of all, where a trunk comes first

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
        modalities a row has where no stage of the model mixes them.

        Args:
            encoded: of `encode`.
            names: which to compute; all by default.
        """
        parts = self.unimodal(encoded)
        wanted = [n for n in (*parts, ITEM) if names is None or n in names]
        pooled = {name: self.pooled(parts[name]) for name in parts if name != ITEM}
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
        if ITEM in self.projections:
            token = presence.pool(encoded.last[ITEM])
            parts = [self.pooled(part) for name, part in encoded.last.items() if name != ITEM]
            extra = presence.average(parts).z if self.config.summary == "parts" else 0.0
            summary = Embedded(token.z + extra, token.present)
            if not self.config.late:
                shared = self._project(ITEM, summary)
            else:
                projection = cast(Projection, self.projections[ITEM])
                several = torch.stack([part.present for part in parts]).sum(0) > 1
                shared = projection.correct(summary, self._mean(encoded.last, pooled, known), several)
        else:
            mean_fusion = self._mean(encoded.last, pooled, known)
            shared = Embedded(F.normalize(mean_fusion.z, dim=-1, eps=1e-6), mean_fusion.present)
        return self._with_unique(shared, encoded.source) if self.config.unique else shared

    def _mean(self, last: Parts, pooled: Mapping[str, Embedded], known: Mapping[str, Embedded]) -> Embedded:
        """Mean of the modalities' vectors of each row, of those that the mixing stages were allowed to see."""
        each = []
        for name, part in pooled.items():
            vector = known[name] if name in known else self._project(name, part)
            each.append(Embedded(vector.z, vector.present & last[name].valid.any(1)))
        return presence.average(each)

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
