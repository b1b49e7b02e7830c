"""Checkpoints that a power cut cannot harm: written aside, checksummed, fsynced, renamed; read back only if whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from polymodal.types import CorruptCheckpoint

__all__ = ["Checkpoint", "damage", "latest", "read_folder", "save", "write_folder"]

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors ("model", "objective", "optimizer", ...) and the JSON state of a run after `step`."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def save(root: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint under `root`; older ones than the newest `keep` are removed once it is safe on disk.

    Later ones are removed too: a run that stands before them has passed them over as damaged, and they must not push
    whole ones out.
    """
    files = {
        f"{name}.safetensors": save_tensors({k: v.contiguous() for k, v in group.items()})
        for name, group in checkpoint.tensors.items()
    }
    files["state.json"] = json.dumps(dict(checkpoint.state), indent=1, sort_keys=True).encode()
    target = write_folder(root / f"step-{checkpoint.step:09d}", files)
    kept = [folder for folder in _steps(root) if folder.name <= target.name][-keep:]
    for folder in [*_steps(root), *root.glob(".step-*.part")]:
        if folder not in kept:
            shutil.rmtree(folder)
    return target


def write_folder(target: Path, files: Mapping[str, bytes]) -> Path:
    """Write a folder of files with a manifest of their checksums, so that it is there whole or not at all."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    for name, data in {**files, _MANIFEST: json.dumps(sums, indent=1, sort_keys=True).encode()}.items():
        with (aside / name).open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    _sync(aside)
    if target.exists():
        shutil.rmtree(target)
    aside.replace(target)
    _sync(target.parent)
    return target


def damage(folder: Path) -> str | None:
    """What is wrong with a folder written by `write_folder`; None when every file has its checksum."""
    try:
        sums = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"{_MANIFEST} cannot be read ({type(error).__name__})"
    if not isinstance(sums, dict) or not sums:
        return f"{_MANIFEST} lists no files"
    for name, wanted in sums.items():
        try:
            data = (folder / name).read_bytes()
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({type(error).__name__})"
        found = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        if found != wanted:
            cut = isinstance(wanted, dict) and isinstance(wanted.get("bytes"), int) and len(data) < wanted["bytes"]
            return (
                f"{name} is cut short at {len(data)} of {wanted['bytes']} bytes"
                if cut
                else f"{name} does not have its checksum"
            )
    return None


def read_folder(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, bytes]]:
    """The tensor groups and the other files of a folder. Raises CorruptCheckpoint when it is not whole."""
    wrong = damage(folder)
    if wrong is not None:
        raise CorruptCheckpoint(f"{folder} is damaged: {wrong}.")
    tensors, rest = {}, {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            try:
                tensors[path.stem] = load_tensors(path.read_bytes())
            except SafetensorError as error:
                raise CorruptCheckpoint(f"{path} is damaged: {error}.") from None
        elif path.name != _MANIFEST:
            rest[path.name] = path.read_bytes()
    return tensors, rest


def latest(root: Path) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint under `root`, and a sentence for every newer one that had to be passed over.

    Raises:
        CorruptCheckpoint: there is none, or none is whole; each is named with what is wrong.
    """
    warnings: list[str] = []
    for folder in reversed(_steps(root)):
        wrong = damage(folder)
        if wrong is None:
            tensors, rest = read_folder(folder)
            step = int(folder.name.removeprefix("step-"))
            said = [f"{w} Using {folder} instead." for w in warnings]
            return Checkpoint(step, tensors, json.loads(rest["state.json"])), said
        warnings.append(f"Checkpoint {folder} is damaged: {wrong}.")
    raise CorruptCheckpoint(" ".join(warnings) or f"No checkpoint under {root}.")


def _steps(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("step-*") if p.is_dir())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
