"""Rows that get another row's cell, whichever process has it: who could lend one, and what was lent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polymodal import presence
from polymodal.tensors import Batch, Cells, World

__all__ = ["Everyone", "Swap", "borrow", "everyone", "gather_cells"]


@dataclass(frozen=True)
class Everyone:
    """What is known of the G rows of all processes: `keys` and `groups` (G,), `present` and `digests` (M, G).

    `own` are the places of this process's rows among them.
    """

    keys: Tensor
    groups: Tensor
    present: Tensor
    digests: Tensor
    own: slice

    @property
    def places(self) -> Tensor:
        """The places of this process's rows, (B,) int64."""
        return torch.arange(len(self.keys), device=self.keys.device)[self.own]


def everyone(batch: Batch, names: Sequence[str], world: World) -> Everyone:
    """The rows of all processes and which of the named modalities they have; one that a batch lacks, nobody has."""
    none = torch.zeros_like(batch.keys, dtype=torch.bool)
    present = torch.stack([batch.cells[n].present if n in batch.cells else none for n in names])
    digests = torch.stack([batch.digests.get(n, batch.keys) for n in names])
    gather, first = world.gather, world.rank * len(batch)
    own = slice(first, first + len(batch))
    return Everyone(gather(batch.keys), gather(batch.groups), gather(present.T).T, gather(digests.T).T, own)


def gather_cells(cells: Cells, world: World) -> Cells:
    """The cells of all processes, (G, L, ...), padded to the longest of all."""
    lengths = world.gather(torch.tensor([cells.valid.shape[1]], device=cells.valid.device))
    padded = presence.lengthen(cells, int(lengths.max()))
    return Cells({name: world.gather(value) for name, value in padded.fields.items()}, world.gather(padded.valid))


def borrow(cells: Cells, rows: Tensor, donors: Tensor, world: World) -> Cells:
    """The cells with those of `rows` (B,) bool replaced, whole, by those of the places `donors` (B,) int64 among all.

    Rows that nobody asked for do not travel. Of floating-point fields the gradient goes back to who lent them.
    """
    size = len(rows)
    asked = torch.unique(world.gather(donors.masked_fill(~rows, -1)))  # the same on every process
    asked = asked[asked >= 0]
    if not len(asked):
        return cells
    process = asked // size
    most = int(torch.bincount(process).max())
    own = asked[process == world.rank] - world.rank * size
    own = torch.cat([own, own.new_zeros(most - len(own))])  # every process sends as many
    sent = gather_cells(presence.take(cells, own), world)
    slot = process * most + torch.arange(len(asked), device=asked.device) - torch.searchsorted(asked, process * size)
    at = torch.searchsorted(asked, donors).clamp(max=len(asked) - 1)
    return presence.exchange(cells, rows, presence.take(sent, slot[at]))


@dataclass(frozen=True)
class Swap:
    """Which rows (B,) bool got another row's cell, by modality, and whose: (B,) int64, its place among the rows of all
    processes, meaningless elsewhere."""

    rows: Mapping[str, Tensor]
    donors: Mapping[str, Tensor]

    def apply(self, batch: Batch, world: World) -> Batch:
        """The batch with the cells exchanged."""
        cells = {n: borrow(c, self.rows[n], self.donors[n], world) for n, c in batch.cells.items()}
        return replace(batch, cells=cells)
