"""The vectors of a batch as losses over several modalities take them: stacked, beside those of all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polymodal.config import nearest
from polymodal.losses.contrastive import contrast, false_negatives, pairwise_contrast
from polymodal.tensors import Batch, Embedded, Term, World
from polymodal.types import BadInput

__all__ = ["Gathered", "Graph", "contrasts", "edges", "fusion", "gathered", "ignored"]

Graph = Literal["full", "anchor", "chain"]


@dataclass(frozen=True)
class Gathered:
    """Vectors `z` (M, B, E) and `present` (M, B) of this process; `every` (M, G, E) and `every_present` (M, G) of all.

    Row b of this process is row `offset + b` of all.
    """

    names: tuple[str, ...]
    z: Tensor
    present: Tensor
    every: Tensor
    every_present: Tensor
    offset: int


def gathered(embedded: Mapping[str, Embedded], names: Sequence[str], world: World) -> Gathered:
    """The named vectors of a batch and of all processes. One that the batch lacks is absent in every row: losses and
    their weights then have the same shape whatever a batch lacks."""
    like = next(iter(embedded.values()))
    nothing = Embedded(torch.zeros_like(like.z), torch.zeros_like(like.present))
    found = [embedded.get(name, nothing) for name in names]
    z, present = torch.stack([e.z for e in found]), torch.stack([e.present for e in found])
    every = world.gather(z.transpose(0, 1)).transpose(0, 1)
    every_present = world.gather(present.T).T
    return Gathered(tuple(names), z, present, every, every_present, world.rank * z.shape[1])


def ignored(batch: Batch, names: Sequence[str], world: World) -> Tensor:
    """(M, M, B, G) bool, `false_negatives` of the named modalities against the rows of all processes."""
    none = torch.zeros_like(batch.keys)
    digests = torch.stack(
        [
            batch.digests.get(name, none).where(batch.cells[name].present, none) if name in batch.cells else none
            for name in names
        ]
    )
    everyone, everything = world.gather(batch.groups), world.gather(digests.T).T
    return false_negatives(batch.groups, digests, all_groups=everyone, all_digests=everything)


def contrasts(
    rows: Gathered,
    pairs: Sequence[tuple[int, int]],
    scale: Tensor | float,
    ignore: Tensor | None,
    negatives: Literal["both", "cross"],
) -> dict[str, Term]:
    """Terms `contrast/i~j` of some pairs of modalities, `pairwise_contrast` against the rows of all processes."""
    terms = pairwise_contrast(
        rows.z,
        rows.present,
        scale,
        candidates=rows.every,
        candidates_present=rows.every_present,
        offset=rows.offset,
        ignore=ignore,
        negatives=negatives,
    )
    return {f"contrast/{rows.names[i]}~{rows.names[j]}": terms[i, j] for i, j in pairs}


def fusion(
    item: Embedded, rows: Gathered, scale: Tensor | float, world: World, ignore: Tensor | None = None
) -> dict[str, Term]:
    """Terms `fusion/m`: the item vector of each row against the vectors of m, over the rows that have m."""
    every = world.gather(item.z)
    both = item.present & rows.present
    all_both = world.gather(both.T).T
    return {
        f"fusion/{name}": contrast(
            item.z,
            both[at],
            rows.every[at],
            rows.every_present[at],
            scale,
            all_anchors=every,
            all_present=all_both[at],
            offset=rows.offset,
            ignore=None if ignore is None else ignore[at, at],
        )
        for at, name in enumerate(rows.names)
    }


def edges(names: Sequence[str], graph: Graph, anchor: str | None = None) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j), i < j, of places in `names`: all; those of one anchor, the first by default; or neighbours.

    Raises:
        BadInput: fewer than two modalities, or an anchor that is none of them.
    """
    if len(names) < 2:
        raise BadInput("modalities", "at least two, to compare with one another", ", ".join(names) or "none")
    if anchor is not None and anchor not in names:
        raise BadInput("objective.anchor", f"one of {', '.join(names)}", anchor, nearest(anchor, list(names)))
    count = len(names)
    if graph == "chain":
        return tuple((i, i + 1) for i in range(count - 1))
    if graph == "anchor":
        centre = 0 if anchor is None else list(names).index(anchor)
        return tuple((min(i, centre), max(i, centre)) for i in range(count) if i != centre)
    return tuple((i, j) for i in range(count) for j in range(i + 1, count))
