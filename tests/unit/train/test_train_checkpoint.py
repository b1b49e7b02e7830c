from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polymodal.train import checkpoint as ckpt
from polymodal.train.checkpoint import Checkpoint, damage, latest, read_folder, save, write_folder
from polymodal.types import CorruptCheckpoint


def made(step: int) -> Checkpoint:
    group = {"w": torch.full((3, 2), float(step)), "n": torch.tensor(step), "half": torch.ones(2, dtype=torch.bfloat16)}
    return Checkpoint(
        step,
        {"model": group, "optimizer": {"0.step": torch.tensor(float(step))}},
        {"step": step, "stream": {"epoch": 1}},
    )


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    return (one.step, one.state, list(one.tensors)) == (other.step, other.state, list(other.tensors)) and all(
        torch.equal(a, other.tensors[g][n]) and a.dtype == other.tensors[g][n].dtype
        for g, t in one.tensors.items()
        for n, a in t.items()
    )


def test_back_as_saved(tmp_path):
    folder = save(tmp_path, made(7))
    assert folder.name == "step-000000007"
    found, said = latest(tmp_path)
    assert equal(found, made(7))
    assert said == []
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "manifest.json",
    }


def test_tensors_that_are_views_are_saved_whole(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    save(tmp_path, Checkpoint(1, {"model": {"t": base.T, "s": base[1]}}, {}))
    tensors = latest(tmp_path)[0].tensors["model"]
    assert torch.equal(tensors["t"], base.T)
    assert torch.equal(tensors["s"], base[1])


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, made(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000003", "step-000000010"]
    assert latest(tmp_path)[0].step == 10


def test_the_same_step_again_replaces(tmp_path):
    save(tmp_path, made(1))
    save(tmp_path, Checkpoint(1, {"model": {}}, {"again": True}))
    assert latest(tmp_path)[0].state == {"again": True}


@pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_both_are_named(tmp_path, victim, how):
    good, bad = save(tmp_path, made(5)), save(tmp_path, made(6))
    file = bad / victim
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        flipped = bytes([data[len(data) // 2] ^ 1])
        file.write_bytes(
            {
                "cut": data[: len(data) // 2],
                "empty": b"",
                "flip": data[: len(data) // 2] + flipped + data[len(data) // 2 + 1 :],
            }[how]
        )
    assert damage(bad)
    found, said = latest(tmp_path)
    assert equal(found, made(5))
    assert len(said) == 1
    assert str(bad) in said[0]
    assert str(good) in said[0]
    with pytest.raises(CorruptCheckpoint, match=bad.name):
        read_folder(bad)


def test_what_was_cut_says_how_much_is_left(tmp_path):
    folder = save(tmp_path, made(5))
    data = (folder / "state.json").read_bytes()
    (folder / "state.json").write_bytes(data[:9])
    assert damage(folder) == f"state.json is cut short at 9 of {len(data)} bytes"


def test_when_all_are_damaged_each_is_named(tmp_path):
    folders = [save(tmp_path, made(step)) for step in (5, 6)]
    for folder in folders:
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptCheckpoint) as caught:
        latest(tmp_path)
    assert all(str(folder) in str(caught.value) for folder in folders)
    with pytest.raises(CorruptCheckpoint, match="No checkpoint under"):
        latest(tmp_path / "nothing")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.data())
def test_no_flipped_bit_is_taken_for_whole(tmp_path, data):
    folder = save(tmp_path, made(3))
    file = folder / data.draw(st.sampled_from(sorted(p.name for p in folder.iterdir())))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(bytes(content))
    if damage(folder) is None:  # a bit of white space in the manifest carries nothing
        assert file.name == "manifest.json"
        assert equal(latest(tmp_path)[0], made(3))


@pytest.mark.parametrize(
    "manifest",
    ["[]", "{}", "null", '{"model.safetensors": 3}', '{"model.safetensors": {}}', '{"a\\u0000b": {}}', "\udcff"],
)
def test_any_manifest_is_judged_and_never_raises(tmp_path, manifest):
    folder = save(tmp_path, made(3))
    (folder / "manifest.json").write_bytes(manifest.encode("utf-8", "surrogateescape"))
    assert damage(folder)


@pytest.mark.parametrize("at", range(1, 8))
def test_a_crash_while_writing_leaves_a_whole_one(tmp_path, monkeypatch, at):
    """Whatever call it happens in: 4 files, their folder, the rename, the folder above."""
    save(tmp_path, made(5), keep=1)
    calls = []

    def crash(*args, real):
        calls.append(args)
        if len(calls) == at:
            raise OSError("no space left on device")
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(ckpt.os, "fsync", partial(crash, real=ckpt.os.fsync))
        rename = ckpt.Path.replace
        patched.setattr(ckpt.Path, "replace", lambda path, target: crash(path, target, real=rename))
        with pytest.raises(OSError, match="no space"):
            save(tmp_path, made(6), keep=1)
    found, said = latest(tmp_path)
    assert said == []
    assert equal(found, made(6 if at == 7 else 5))
    save(tmp_path, made(7), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000007"]


def test_nothing_is_removed_before_the_new_one_is_whole(tmp_path, monkeypatch):
    save(tmp_path, made(5), keep=1)
    seen = []
    real = ckpt.shutil.rmtree
    monkeypatch.setattr(
        ckpt.shutil, "rmtree", lambda path, **k: (seen.append((path.name, latest(tmp_path)[0].step)), real(path, **k))
    )
    save(tmp_path, made(6), keep=1)
    assert [step for name, step in seen if name == "step-000000005"] == [6]


def test_damaged_later_ones_do_not_push_out_whole_ones(tmp_path):
    """Resumed at 2 since 4 and 6 are damaged, and stopped at 3: with keep=1 the only whole one must stay."""
    save(tmp_path, made(2), keep=3)
    for step in (4, 6):
        (save(tmp_path, made(step), keep=3) / "state.json").unlink()
    save(tmp_path, made(3), keep=1)
    found, said = latest(tmp_path)
    assert (found.step, said) == (3, [])


def test_write_folder_writes_what_read_folder_reads(tmp_path):
    folder = write_folder(tmp_path / "model", {"recipe.json": b"{}", "x.bin": b"\x00\x01"})
    assert read_folder(folder) == ({}, {"recipe.json": b"{}", "x.bin": b"\x00\x01"})
    assert set(json.loads((folder / "manifest.json").read_text())) == {"recipe.json", "x.bin"}
