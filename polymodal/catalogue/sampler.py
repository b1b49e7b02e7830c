"""Which rows come when: a block-shuffled order that any number of ranks and workers resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polymodal.catalogue.negatives import Negatives
from polymodal.types import BadInput

__all__ = ["BlockShuffle", "Cursor", "locate"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in a run: the epoch, and how many rows of its order **all ranks together** have taken.

    It counts rows and not batches, so it means the same under another batch size, number of ranks or of workers.
    """

    epoch: int = 0
    position: int = 0

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.position < 0:
            raise BadInput("Cursor", "numbers that are not negative", (self.epoch, self.position))


class BlockShuffle:
    """A random order of rows in which reading stays block by block.

    Blocks are put into a random order and cut into windows of `window` blocks; the rows of a window are shuffled among
    themselves. A reader therefore needs `window` blocks in memory at a time and reads each block once an epoch.
    The order is a function of (blocks, rows, seed, window, epoch) alone. It is sorted from the raw bits of PCG64, whose
    stream numpy guarantees, unlike that of `Generator.permutation`.

    Args:
        blocks: rows in each block of the catalogue.
        rows: numbers of the eligible rows (a split), unique, each in [0, sum(blocks)).
        seed: of the order.
        window: blocks shuffled together; 1 keeps the rows of one block together.
        drop_last: leave out an epoch's last batch where it is not full (contrastive losses want equal batches).
        hard: hard negatives of the rows. A share of the rows is then followed at once by one of theirs, drawn anew in
            every epoch from those that the window has left; each row still comes once. A batch may begin in between.

    Raises:
        BadInput: no eligible row, a row twice, a row outside the catalogue, a window below 1.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        rows: Ints,
        seed: int,
        window: int = 8,
        drop_last: bool = True,
        hard: Negatives | None = None,
    ) -> None:
        self._rows = np.unique(np.asarray(rows, np.int64))
        ends = np.cumsum(np.asarray(blocks, np.int64))
        if window < 1:
            raise BadInput("BlockShuffle.window", "at least 1 block", window)
        if len(self._rows) == 0:
            raise BadInput("BlockShuffle.rows", "at least one row", "none", "Is the split empty?")
        if len(self._rows) != len(rows):
            raise BadInput("BlockShuffle.rows", "each row once", f"{len(rows) - len(self._rows)} repeated")
        if self._rows[0] < 0 or len(ends) == 0 or self._rows[-1] >= ends[-1]:
            raise BadInput("BlockShuffle.rows", f"rows of a catalogue of {int(ends[-1]) if len(ends) else 0}", rows)
        # blocks without an eligible row take no place in a window
        _, self._block_of = np.unique(np.searchsorted(ends, self._rows, side="right"), return_inverse=True)
        self._blocks = int(self._block_of.max()) + 1
        self._seed, self._window, self._drop_last = seed, window, drop_last
        self._hard = hard
        self._cached: tuple[int, Ints, Ints] | None = None

    def __len__(self) -> int:
        """Eligible rows: one epoch."""
        return len(self._rows)

    def order(self, epoch: int) -> Ints:
        """The rows of an epoch in the order in which they are taken, each exactly once, (n,) int64."""
        return self._arranged(epoch)[0]

    def negatives(self, epoch: int, rows: Ints) -> Ints:
        """The hard negative that follows each of some rows in an epoch, -1 where none does, (n,) int64."""
        if self._hard is None:
            return np.full(len(rows), -1)
        return self._arranged(epoch)[1][np.searchsorted(self._rows, rows)]

    def _arranged(self, epoch: int) -> tuple[Ints, Ints]:
        """The order of an epoch, and the hard negative after each eligible row."""
        if self._cached is None or self._cached[0] != epoch:
            bits = np.random.PCG64(np.random.SeedSequence([self._seed % 2**64, epoch]))
            rank = np.empty(self._blocks, np.int64)
            rank[np.argsort(bits.random_raw(self._blocks), kind="stable")] = np.arange(self._blocks)
            window = rank[self._block_of] // self._window
            places = np.lexsort((bits.random_raw(len(self._rows)), window))
            after = np.full(len(places), -1)
            if self._hard is not None:
                draws = (bits.random_raw(2 * len(places)).reshape(2, -1) >> np.uint64(11)) / 2**53
                places, after = self._hard.arrange(self._rows, places, window, draws)
            self._cached = epoch, self._rows[places], after
        return self._cached[1:]

    def steps(self, batch_size: int) -> int:
        """Global batches in one epoch."""
        whole, rest = divmod(len(self), batch_size)
        return whole if self._drop_last or not rest else whole + 1

    def settle(self, cursor: Cursor, batch_size: int) -> Cursor:
        """The same place, written as the start of the next epoch where this one has no batch left."""
        left = len(self) - cursor.position
        over = left < batch_size if self._drop_last else left <= 0
        return Cursor(cursor.epoch + 1) if over else cursor

    def batches(
        self, cursor: Cursor, batch_size: int, rank: int = 0, world: int = 1, epochs: int | None = 1
    ) -> Iterator[tuple[Cursor, Ints]]:
        """The batches from `cursor` on, as (cursor after the batch, rows of this rank).

        Batch k holds the same rows under any `world`; rank r has the r-th contiguous slice, so the slices of all ranks
        in order are the batch. Sizes differ by at most one row, and a kept last batch may leave a rank without a row.

        Args:
            cursor: where to begin, `Cursor()` for the beginning; what came with the last batch used, to go on.
            batch_size: rows of all ranks together.
            rank, world: which of how many slices.
            epochs: how many to run through, the one of `cursor` included; None: without end.

        Raises:
            BadInput: a batch larger than an epoch (where the last is dropped), a rank outside the world.
        """
        if not 0 <= rank < world:
            raise BadInput("rank", f"a rank of a world of {world}", rank)
        if batch_size < 1 or self.steps(batch_size) == 0:
            raise BadInput(
                "batch_size",
                f"1 to {len(self)}, the eligible rows",
                batch_size,
                "Or keep the last batch (drop_last=False).",
            )
        return self._batches(self.settle(cursor, batch_size), batch_size, rank, world, epochs)

    def _batches(
        self, cursor: Cursor, batch_size: int, rank: int, world: int, epochs: int | None
    ) -> Iterator[tuple[Cursor, Ints]]:
        end = None if epochs is None else cursor.epoch + epochs
        while end is None or cursor.epoch < end:
            batch = self.order(cursor.epoch)[cursor.position : cursor.position + batch_size]
            cursor = self.settle(Cursor(cursor.epoch, cursor.position + len(batch)), batch_size)
            yield cursor, np.array_split(batch, world)[rank]


def locate(blocks: Sequence[int], rows: Ints) -> tuple[Ints, Ints]:
    """Row numbers of the catalogue -> (block of each, place in that block)."""
    ends = np.cumsum(np.asarray(blocks, np.int64))
    block = np.searchsorted(ends, rows, side="right")
    return block, rows - (ends - np.asarray(blocks, np.int64))[block]
