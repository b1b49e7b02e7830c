"""Stages: Parts -> Parts. Each modality alone, all together, or in streams that attend to one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, cast

import torch
from torch import nn

from polymodal import presence
from polymodal.config import nearest
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.nn.cross import CoStack, Order, Readout
from polymodal.tensors import Parts, Tokens
from polymodal.types import BadInput

__all__ = ["ITEM", "CoTrunk", "Stage", "Towers", "Trunk"]

# The one part that is not a modality: the summary token of a row.
ITEM = "item"


class Stage(Protocol):
    """Parts -> Parts. `mixes` says whether a part can see another one."""

    mixes: bool

    def __call__(self, parts: Parts) -> Parts: ...


class Towers(nn.Module):
    """Each modality alone through its own Stack; the summary token, if a trunk came before, passes unchanged."""

    mixes = False

    def __init__(
        self,
        names: Collection[str],
        width: int,
        config: StackConfig,
        share: Collection[tuple[str, ...]],
        special: Mapping[str, StackConfig] | None = None,
    ) -> None:
        super().__init__()
        own = special or {}
        shared = [name for group in share for name in group]
        wrong = [name for name in shared if name not in names or shared.count(name) > 1]
        if wrong:
            raise BadInput(
                "model.share", f"each of {', '.join(names)} at most once", wrong[0], nearest(wrong[0], list(names))
            )
        leader = {name: group[0] for group in share for name in group}
        self.leader = {name: leader.get(name, name) for name in names}
        self.towers = nn.ModuleDict(
            {name: Stack(width, own.get(name, config)) for name in sorted(set(self.leader.values()))}
        )

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

    def __init__(
        self, names: Collection[str], width: int, config: StackConfig, types: str = "random", summary: bool = True
    ) -> None:
        super().__init__()
        self.stack = Stack(width, config)
        spread = 0.02 if types == "random" else 0.0
        named = [] if types == "none" else sorted(names)
        self.types = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * spread) for name in named})
        self.item = nn.Parameter(torch.randn(width) * 0.02) if summary else None

    def forward(self, parts: Parts) -> dict[str, Tokens]:
        """Parts -> Parts plus "item"; a row without any valid token has no valid summary token either."""
        typed = {
            n: Tokens(tokens.x + self.types[n], tokens.valid) if n in self.types else tokens
            for n, tokens in parts.items()
            if n != ITEM
        }
        if self.item is None:
            return presence.split(self.stack(presence.join(typed)), typed)
        some = torch.stack([tokens.valid.any(1) for tokens in typed.values()]).any(0)
        item = Tokens(self.item.expand(len(some), 1, -1), some[:, None])
        joined = {ITEM: item, **typed}
        return presence.split(self.stack(presence.join(joined)), joined)


class CoTrunk(nn.Module):
    """A stream for each modality, attending to the others of its row in every layer, and a summary that reads all.

    Source: ViLBERT (Lu et al. 2019) and LXMERT (Tan and Bansal 2019), see `nn.cross.CoLayer`.
    Differences: any number of modalities, any of them absent: a row with one modality gets exactly nothing from the
        co-attention. The summary is a learned query over the last tokens of all streams (`nn.cross.Readout`); the
        originals multiply the first tokens of their two streams, which says nothing where one is absent.
    """

    mixes = True

    def __init__(self, names: Collection[str], width: int, config: StackConfig, order: Order, share: bool) -> None:
        super().__init__()
        self.stack = CoStack(names, width, config, order, share)
        self.readout = Readout(width, config)

    def forward(self, parts: Parts) -> dict[str, Tokens]:
        """Parts -> Parts plus "item"; a row without any valid token has no valid summary token either."""
        streams = self.stack({name: tokens for name, tokens in parts.items() if name != ITEM})
        return {ITEM: self.readout(streams), **streams}
