from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from polymodal.catalogue.loader import Loader, collate, content_hash, row_generator
from polymodal.catalogue.quarantine import Quarantined
from polymodal.catalogue.sampler import BlockShuffle, Cursor
from polymodal.modality import Modality, ModalityConfig
from polymodal.tensors import Batch, Fields
from polymodal.types import BadInput, MediaError, Record


class FakeConfig(ModalityConfig):
    kind: str = "fake"


class Fake(Modality):
    """Numbers; augmentation adds noise, and the sum of many depends on the number of threads."""

    kind = "fake"

    def decode(self, source: Any) -> Any:
        if isinstance(source, str):
            raise MediaError("truncated", source)
        return np.asarray(source, np.float32)

    def augment(self, value: Any, generator: torch.Generator) -> Any:
        noise = torch.randn(100_000, generator=generator)
        return value + noise[: len(value)].numpy() + noise.sum().numpy()

    def preprocess(self, value: Any) -> Fields:
        return {"x": torch.from_numpy(value), "half": torch.from_numpy(value).half()}

    def blank(self) -> Fields:
        return {"x": torch.zeros(2), "half": torch.zeros(2).half()}

    def embed(self, fields: Fields) -> torch.Tensor:
        return fields["x"][:, None]

    positions = target = embed

    def head(self, width: int) -> torch.nn.Module:
        return torch.nn.Linear(width, 1)

    def distance(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).square().mean(1)


class Memory:
    """Rows from records in memory, counting what is read."""

    def __init__(self, records: list[Record], size: int) -> None:
        self._parts = [records[at : at + size] for at in range(0, len(records), size)]
        self.reads: list[int] = []

    @property
    def modalities(self) -> Mapping[str, str]:
        return {"a": "fake", "b": "fake"}

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(map(len, self._parts))

    @property
    def index(self) -> pa.Table:
        return pa.table({"id": [r.id for part in self._parts for r in part]})

    def block(self, number: int) -> list[Record]:
        self.reads.append(number)
        return self._parts[number]

    def __len__(self) -> int:
        return sum(self.blocks)


def record(at: int) -> Record:
    values: dict[str, Any] = {"a": [float(at)] * (1 + at % 3)}
    if at % 2:
        values["b"] = "cut.jpg" if at % 5 == 0 else [1.0, 2.0]
    return Record(f"id{at}", values, group=f"g{at // 4}" if at % 4 < 2 else None)


RECORDS = [record(at) for at in range(60)]
MODALITIES = {"a": Fake(), "b": Fake()}


def loader(**changes: Any) -> Loader:
    rows = changes.pop("rows", None) or Memory(RECORDS, 8)
    sampler = BlockShuffle(rows.blocks, np.arange(len(rows)), seed=3, window=2)
    return Loader(rows, MODALITIES, sampler, **{"batch_size": 8, "seed": 5, "views": 2, **changes})


def take(source: Loader, count: int, state: Any = None) -> list[tuple[Any, list[Batch]]]:
    stream = source.batches(source.start() if state is None else state)
    out = [(state, list(views)) for state, views in islice(stream, count)]
    stream.close()  # type: ignore[attr-defined]
    return out


def tensors(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
    for name, cells in batch.cells.items():
        yield f"{name}.valid", cells.valid
        yield from ((f"{name}.{key}", value) for key, value in cells.fields.items())
    yield from (("digest " + name, value) for name, value in batch.digests.items())
    yield from (("groups", batch.groups), ("keys", batch.keys))


def equal(one: Batch, other: Batch) -> bool:
    a, b = dict(tensors(one)), dict(tensors(other))
    return one.ids == other.ids and list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def all_equal(one: list[tuple[Any, list[Batch]]], other: list[tuple[Any, list[Batch]]]) -> bool:
    return len(one) == len(other) and all(
        s == t and len(v) == len(w) and all(map(equal, v, w)) for (s, v), (t, w) in zip(one, other, strict=True)
    )


# -- collate ----------------------------------------------------------------------------------------------------------


def test_absent_and_bad_cells_have_no_token() -> None:
    bad: list[Quarantined] = []
    batch = collate(RECORDS[:8], MODALITIES, quarantine=bad.append)
    assert batch.ids == tuple(f"id{at}" for at in range(8))
    assert batch.present["b"].tolist() == [False, True, False, True, False, False, False, True]
    assert batch.cells["a"].valid.sum(1).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert [(entry.id, entry.modality, entry.reason) for entry in bad] == [("id5", "b", "truncated")]


def test_a_modality_that_no_row_has_is_left_out() -> None:
    batch = collate([RECORDS[0]], MODALITIES)
    assert set(batch.cells) == {"a"}
    assert set(collate([], MODALITIES).cells) == set()
    assert collate([Record("x", {"unknown": 1})], MODALITIES).cells == {}


def test_zero_imputation_is_a_control_that_must_be_asked_for() -> None:
    for impute in (True, {"b": MODALITIES["b"].blank()}):
        batch = collate(RECORDS[:8], MODALITIES, impute=impute)
        assert batch.present["b"].all()
        assert batch.cells["b"].fields["x"][0].tolist() == [0, 0]


def test_digests_and_groups_agree_across_batches() -> None:
    one, other = collate(RECORDS[:8], MODALITIES), collate(RECORDS[4:12], MODALITIES)
    assert torch.equal(one.digests["a"][4:], other.digests["a"][:4])
    assert torch.equal(one.groups[4:], other.groups[:4])
    assert len(one.digests["b"][one.present["b"]].unique()) == 1
    assert len(one.digests["a"].unique()) == 8
    assert one.groups[0] == one.groups[1]
    assert len(one.groups.unique()) == 6
    clash = collate([Record("1", {"a": [1]}, group="2"), Record("2", {"a": [1]})], MODALITIES)
    assert clash.groups[0] != clash.groups[1]


def test_digest_is_of_the_value_before_augmentation() -> None:
    plain = collate(RECORDS[:8], MODALITIES)
    varied = collate(RECORDS[:8], MODALITIES, draw=lambda at, name: row_generator(0, 0, str(at), 0, name))
    assert torch.equal(plain.digests["a"], varied.digests["a"])
    assert not torch.equal(plain.cells["a"].fields["x"], varied.cells["a"].fields["x"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(4, np.uint8), np.zeros(4, np.int8)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (("ab", "c"), ("a", "bc")),
        ((("a", 1.0),), (("a", "1.0"),)),
        ("a", b"a"),
        ((), ("",)),
        ((np.zeros(2),), (np.ones(2),)),
        ([np.zeros(2), np.zeros(1)], [np.zeros(1), np.zeros(2)]),
    ],
)
def test_different_content_has_different_hashes(one: Any, other: Any) -> None:
    assert content_hash(one) != content_hash(other)
    assert content_hash(one) == content_hash(one)


def test_hash_reads_content_and_not_layout() -> None:
    array = np.arange(12).reshape(3, 4)
    assert content_hash(array.T) == content_hash(np.ascontiguousarray(array.T))


# -- Loader -----------------------------------------------------------------------------------------------------------


def test_an_epoch_and_its_end() -> None:
    source = loader()
    assert source.steps_per_epoch == 7
    states = [state for state, _ in take(source, 8)]
    assert states[0] == {"epoch": 0, "position": 8}
    assert states[6] == {"epoch": 1, "position": 0}
    assert len(list(source.batches(source.start(), epochs=2))) == 14


def test_views_differ_and_epochs_differ() -> None:
    batches = take(loader(), 14)
    for _, (one, other) in batches:
        assert one.ids == other.ids
        assert not equal(one, other)
        assert torch.equal(one.digests["a"], other.digests["a"])
    plain = take(loader(augment=False), 1)[0][1]
    assert equal(*plain)


@pytest.mark.parametrize("stop", [0, 3, 7, 9])
def test_resume_is_exact(stop: int) -> None:
    everything = take(loader(), 12)
    state = everything[stop - 1][0] if stop else None
    assert all_equal(take(loader(), 12 - stop, state), everything[stop:])


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)])
def test_workers_change_nothing(start: str, workers: int) -> None:
    told: dict[str, list[Quarantined]] = {"here": [], "ahead": []}
    before = torch.get_rng_state()
    here = take(loader(quarantine=told["here"].append), 14)
    ahead = take(loader(workers=workers, quarantine=told["ahead"].append, start=start), 14)
    assert all_equal(here, ahead)
    assert told["here"] == told["ahead"]
    assert 1 < len(told["here"]) == len(set(told["here"]))
    assert torch.equal(before, torch.get_rng_state())


def test_ranks_share_the_batch() -> None:
    whole = take(loader(), 7)
    parts = [take(loader(rank=rank, world=3), 7) for rank in range(3)]
    for at, (state, (view, _)) in enumerate(whole):
        slices = [part[at] for part in parts]
        assert all(other == state for other, _ in slices)
        assert sum((views[0].ids for _, views in slices), ()) == view.ids
        assert torch.equal(torch.cat([views[0].digests["a"] for _, views in slices]), view.digests["a"])
        lone = {i: views[0].cells["a"].fields["x"][k] for _, views in slices for k, i in enumerate(views[0].ids)}
        for k, name in enumerate(view.ids):
            expected = view.cells["a"].fields["x"][k][view.cells["a"].valid[k]]
            assert torch.equal(lone[name][: len(expected)], expected)


def test_each_block_is_read_once_an_epoch_if_a_window_fits() -> None:
    rows = Memory(RECORDS, 8)
    take(loader(rows=rows), 7)
    assert len(rows.reads) == len(set(rows.reads)) == 8


def test_a_cache_that_is_too_small_is_said_once() -> None:
    source = loader(cache_bytes=1)
    with pytest.warns(RuntimeWarning, match="cache_bytes") as caught:
        assert all_equal(take(source, 7), take(loader(), 7))
    assert len([w for w in caught if "cache_bytes" in str(w.message)]) == 1


def test_threads_of_the_main_process_change_nothing() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = take(loader(), 2)
        torch.set_num_threads(2)
        two = take(loader(), 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert all_equal(one, two)


def test_bad_arguments() -> None:
    with pytest.raises(BadInput, match="batch_size"):
        loader(batch_size=61)
    with pytest.raises(BadInput, match="views"):
        loader(views=0)
    with pytest.raises(BadInput, match="workers"):
        loader(workers=-1)
    with pytest.raises(BadInput, match="state"):
        next(iter(loader().batches({"step": 3})))
    assert next(iter(loader().batches(Cursor(2)))) is not None


class Broken(Memory):
    def block(self, number: int) -> list[Record]:
        raise BadInput("shards", "a whole file", "half of it", "Prepare again.")


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_input_stays_bad_input_through_a_worker(workers: int) -> None:
    with pytest.raises(BadInput, match="Prepare again"):
        take(loader(rows=Broken(RECORDS, 8), workers=workers), 1)


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
sys.path.insert(0, {folder!r})
import test_catalogue_loader as t
for state, views in t.loader(workers=2).batches({{"epoch": 0, "position": 0}}):
    print(state, flush=True)
"""


def test_ctrl_c_ends_the_workers_too() -> None:
    code = INTERRUPTED.format(folder=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert "KeyboardInterrupt" in errors
        assert process.returncode != 0
        gone = False
        for _ in range(100):
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                gone = True
                break
            time.sleep(0.1)
        assert gone
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
