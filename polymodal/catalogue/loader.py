"""Rows -> batches: decode, augment, preprocess and collate, the same under any number of workers and ranks."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polymodal import presence
from polymodal.catalogue._blocks import Blocks
from polymodal.catalogue.quarantine import Quarantined, decode_record
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.sampler import BlockShuffle, Cursor
from polymodal.modality import Modality
from polymodal.tensors import Batch, Cells, Fields, stable_hash
from polymodal.types import BadInput, Record

__all__ = ["Draw", "Loader", "Report", "collate", "content_hash", "row_generator"]

# (place of the row in the batch, modality) -> the generator that its augmentation draws from
Draw: TypeAlias = Callable[[int, str], torch.Generator]
Report: TypeAlias = Callable[[Quarantined], None]
Ints: TypeAlias = npt.NDArray[np.int64]


def collate(
    records: Sequence[Record],
    modalities: Mapping[str, Modality],
    draw: Draw | None = None,
    impute: bool | Mapping[str, Fields] = False,
    quarantine: Report | None = None,
    label: str = "",
) -> Batch:
    """Records -> Batch.

    Args:
        records: B rows, with sources or with decoded values; of their modalities the named ones are read.
        modalities: name -> Modality.
        draw: for training: generators for the augmentation. None: no augmentation.
        impute: True: `Modality.blank()` as valid tokens where a modality is absent (the zero-imputation control), or
            those fields by modality.
        quarantine: told of every cell that could not be decoded. Such a cell is left out: its modality is absent.
        label: the label that `Batch.labels` holds hashes of, -1 where a row has none; "": no label is read.

    Returns:
        B rows. `digests` are hashes of the decoded values before augmentation; `groups` hashes of group, or of id where
        a row has none; both are comparable across batches, ranks and runs.
    """
    decoded = [_decoded(record, modalities, None, quarantine) for record in records]
    return _Rows(decoded, modalities, label).batch(draw, _blanks(modalities, impute))


def row_generator(seed: int, epoch: int, row: str, view: int, modality: str) -> torch.Generator:
    """The generator of one cell's augmentation: a function of its arguments alone, in whatever batch or process."""
    generator = torch.Generator()
    generator.manual_seed(stable_hash(f"{seed}\0{epoch}\0{view}\0{modality}\0{row}") & (2**63 - 1))
    return generator


def content_hash(value: Any) -> int:
    """A signed 64-bit hash of a decoded value: arrays by shape, type and bytes; text; numbers; sequences of those."""
    state = hashlib.blake2b(digest_size=8)
    _feed(state, value)
    return int.from_bytes(state.digest(), "big", signed=True)


def _feed(state: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, np.ndarray):
        state.update(f"a{value.dtype.str}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
    elif isinstance(value, (tuple, list)):
        try:
            # pairs of text and numbers, by far the most sequences, in one go
            state.update(b"j" + json.dumps(value).encode())
        except TypeError:
            state.update(f"s{len(value)}:".encode())
            for part in value:
                _feed(state, part)
    else:
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        state.update(f"{type(value).__name__}{len(content)}:".encode())
        state.update(content)


def _decoded(record: Record, modalities: Mapping[str, Modality], root: Path | None, report: Report | None) -> Record:
    decoded, bad = decode_record(record, modalities, root)
    if report is not None:
        for entry in bad:
            report(entry)
    return decoded


def _blanks(modalities: Mapping[str, Modality], impute: bool | Mapping[str, Fields]) -> Mapping[str, Fields]:
    if isinstance(impute, bool):
        return {name: modality.blank() for name, modality in modalities.items()} if impute else {}
    return impute


class _Rows:
    """Decoded rows, from which any number of views is made."""

    def __init__(
        self,
        records: Sequence[Record],
        modalities: Mapping[str, Modality],
        label: str,
        hard: Mapping[int, str] | None = None,
    ) -> None:
        self._records, self._modalities = records, modalities
        self._ids = tuple(record.id for record in records)
        self._keys = _integers(stable_hash(name) for name in self._ids)
        self._hard = _integers(stable_hash((hard or {}).get(at, name)) for at, name in enumerate(self._ids))
        self._groups = _integers(
            stable_hash(f"id\0{record.id}" if record.group is None else f"group\0{record.group}") for record in records
        )
        # 63 bits, never negative: that is what unknown is
        known = [record.labels.get(label) if label else None for record in records]
        self._labels = _integers(-1 if text is None else stable_hash(f"label\0{text}") & (2**63 - 1) for text in known)
        self._digests = {
            name: _integers(content_hash(r.values[name]) if name in r.values else 0 for r in records)
            for name in modalities
        }

    def batch(self, draw: Draw | None, blanks: Mapping[str, Fields]) -> Batch:
        cells = {}
        for name in self._modalities:
            filled = presence.fill([self._fields(at, name, draw) for at in range(len(self._records))], blanks.get(name))
            if filled is not None:
                cells[name] = filled
        digests = {name: self._digests[name] for name in cells}
        return Batch(self._ids, cells, digests, self._groups, self._keys, self._labels, self._hard)

    def _fields(self, at: int, name: str, draw: Draw | None) -> Fields | None:
        values, modality = self._records[at].values, self._modalities[name]
        if name not in values:
            return None
        value = values[name]
        return modality.preprocess(value if draw is None else modality.augment(value, draw(at, name)))


def _integers(numbers: Iterator[int]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.long)


@dataclass(frozen=True)
class _Plan:
    """A batch to make: the epoch, the rows of this rank and the hard negative of each (-1: none), and where the run
    stands after it."""

    epoch: int
    rows: Ints
    hard: Ints
    after: Cursor


@dataclass
class _Maker(Dataset[Any]):
    """Makes the views of a plan, in this process or in a worker."""

    blocks: Blocks
    modalities: Mapping[str, Modality]
    seed: int
    views: int
    augment: bool
    impute: bool
    root: Path | None
    label: str

    def make(self, plan: _Plan) -> tuple[list[Batch], list[Quarantined]]:
        bad: list[Quarantined] = []
        records = self.blocks.records(plan.rows)
        decoded = [_decoded(record, self.modalities, self.root, bad.append) for record in records]
        paired = np.flatnonzero(plan.hard >= 0)
        negatives = self.blocks.records(plan.hard[paired])
        hard = {at: record.id for at, record in zip(paired.tolist(), negatives, strict=True)}
        rows = _Rows(decoded, self.modalities, self.label, hard)
        blanks = _blanks(self.modalities, self.impute)
        return [rows.batch(self._draw(plan, view), blanks) for view in range(self.views)], bad

    def _draw(self, plan: _Plan, view: int) -> Draw | None:
        if not self.augment:
            return None
        return lambda at, name: row_generator(self.seed, plan.epoch, str(plan.rows[at]), view, name)

    def __getitem__(self, plan: _Plan) -> tuple[Cursor, Any]:
        # a worker's answer: arrays in a pipe need neither file descriptors nor /dev/shm, which containers are short of
        try:
            views, bad = self.make(plan)
        except BadInput as error:
            return plan.after, (error.field, error.expected, error.got, error.hint)
        return plan.after, ([_packed(view) for view in views], bad)


class Loader:
    """Views of batches from any point of a run on; a `Stream` as the trainer wants it.

    A batch is a function of (rows, modalities, sampler, batch size, seed, cursor): the augmentation of a cell draws
    from (seed, epoch, row, view, modality), so that workers, ranks and resuming change nothing, bit for bit.

    Args:
        rows: the raw catalogue or prepared shards.
        modalities: name -> Modality; their loader side alone is used.
        sampler: the order of the rows.
        batch_size: rows of all ranks together.
        seed: of the augmentation.
        views: batches made of the same rows, each with draws of its own.
        augment: vary the cells at random.
        impute: attend `Modality.blank()` where a modality is absent (zero imputation, the control).
        workers: processes that make batches ahead; 0: in this one, when asked.
        rank, world: which slice of each batch.
        cache_bytes: decoded blocks kept, per process. `sampler.window` blocks should fit.
        quarantine: told once of every cell that could not be decoded.
        root: media root, which paths in those reports are shortened by.
        label: the label that batches carry (see `collate`); "" for none.
        start: how workers begin; "spawn" and "forkserver" need rows and modalities that can be pickled.
    """

    def __init__(
        self,
        rows: Rows,
        modalities: Mapping[str, Modality],
        sampler: BlockShuffle,
        *,
        batch_size: int,
        seed: int = 0,
        views: int = 1,
        augment: bool = True,
        impute: bool = False,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        cache_bytes: int = 1 << 30,
        quarantine: Report | None = None,
        root: Path | None = None,
        label: str = "",
        start: Literal["fork", "spawn", "forkserver"] = "fork",
    ) -> None:
        if views < 1:
            raise BadInput("views", "at least 1", views)
        if workers < 0:
            raise BadInput("workers", "0 or more", workers)
        self._maker = _Maker(Blocks(rows, cache_bytes), dict(modalities), seed, views, augment, impute, root, label)
        self._sampler, self._batch_size, self._workers = sampler, batch_size, workers
        self._rank, self._world, self._start, self._report = rank, world, start, quarantine
        self._told: set[Quarantined] = set()
        self.steps_per_epoch = sampler.steps(batch_size)
        sampler.batches(Cursor(), batch_size, rank, world)

    def start(self) -> Mapping[str, int]:
        """The state before the first batch: `{"epoch": 0, "position": 0}`."""
        return asdict(Cursor())

    def batches(
        self, state: Mapping[str, int] | Cursor, epochs: int | None = None
    ) -> Iterator[tuple[Mapping[str, int], Sequence[Batch]]]:
        """(state after, views of one batch) from `state` on.

        Args:
            state: of `start`, or what came with the last batch that was used.
            epochs: how many to run through, the current one included; None: without end.
        """
        cursor = state if isinstance(state, Cursor) else _cursor(state)
        cursor = self._sampler.settle(cursor, self._batch_size)
        plans = self._plans(cursor, epochs)
        for after, views, bad in self._ahead(plans) if self._workers else self._here(plans):
            self._tell(bad)
            yield asdict(after), views

    def _tell(self, bad: Sequence[Quarantined]) -> None:
        if self._report is not None:
            for entry in bad:
                if entry not in self._told:
                    self._told.add(entry)
                    self._report(entry)

    def _plans(self, cursor: Cursor, epochs: int | None) -> Iterator[_Plan]:
        epoch = cursor.epoch
        for after, rows in self._sampler.batches(cursor, self._batch_size, self._rank, self._world, epochs):
            yield _Plan(epoch, rows, self._sampler.negatives(epoch, rows), after)
            epoch = after.epoch

    def _here(self, plans: Iterator[_Plan]) -> Iterator[tuple[Cursor, list[Batch], list[Quarantined]]]:
        for plan in plans:
            with _one_thread():
                views, bad = self._maker.make(plan)
            yield plan.after, views, bad

    def _ahead(self, plans: Iterator[_Plan]) -> Iterator[tuple[Cursor, list[Batch], list[Quarantined]]]:
        workers = DataLoader(
            self._maker,
            batch_size=None,
            sampler=plans,
            num_workers=self._workers,
            collate_fn=_same,
            multiprocessing_context=multiprocessing.get_context(self._start),
            worker_init_fn=_ignore_interrupts,
            # a generator of its own: the default would draw from the global one, and change the run
            generator=torch.Generator(),
        )
        for after, answer in workers:
            if len(answer) == 4:
                raise BadInput(*answer)
            yield after, [_unpacked(view) for view in answer[0]], answer[1]


def _cursor(state: Mapping[str, int]) -> Cursor:
    if set(state) != {"epoch", "position"}:
        raise BadInput("state", "a mapping of 'epoch' and 'position'", sorted(state))
    return Cursor(int(state["epoch"]), int(state["position"]))


def _same(answer: Any) -> Any:
    return answer


def _ignore_interrupts(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; the main one decides, and its end ends the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker: sums over many numbers depend in their last bits on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _packed(batch: Batch) -> tuple[Any, ...]:
    cells = {
        name: ({key: value.numpy() for key, value in part.fields.items()}, part.valid.numpy())
        for name, part in batch.cells.items()
    }
    digests = {name: value.numpy() for name, value in batch.digests.items()}
    return (
        batch.ids,
        cells,
        digests,
        *(column.numpy() for column in (batch.groups, batch.keys, batch.labels, batch.hard)),
    )


def _unpacked(packed: tuple[Any, ...]) -> Batch:
    ids, cells, digests, *columns = packed
    opened = {
        name: Cells({key: torch.from_numpy(value) for key, value in fields.items()}, torch.from_numpy(valid))
        for name, (fields, valid) in cells.items()
    }
    opened_digests = {name: torch.from_numpy(value) for name, value in digests.items()}
    return Batch(ids, opened, opened_digests, *map(torch.from_numpy, columns))
