"""Finished repetitions, kept as JSON: an experiment that was stopped, or is asked for more seeds, goes on."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polymodal.bench._base import Options

__all__ = ["kept", "write_whole"]


def kept(
    options: Options,
    module: str,
    settings: Mapping[str, Any],
    seed: int,
    compute: Callable[[], Any],
    also: Sequence[str] = (),
) -> Any:
    """What `compute` returns for these settings and this seed, read back where it was finished before.

    Args:
        options: `out` says where things are kept (nowhere for None); `quick` is part of what decides.
        module: the experiment's `__name__`. Its source is part of the key too: a changed experiment is run again. A
            change elsewhere in the library is not seen; delete the folder then.
        settings: everything else that decides, as JSON.
        compute: of no arguments; its value must be JSON (tuples come back as lists).
        also: names of further modules whose source is part of the key.
    """
    if options.out is None:
        return compute()
    key = {
        "module": module,
        "source": [_digest(name) for name in (module, *also)],
        "version": version("polymodal"),
        "quick": options.quick,
        "settings": json.loads(json.dumps(settings)),
        "seed": seed,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    place = options.out / f"{module.rpartition('.')[2]}-{seed}-{name}.json"
    if place.is_file():
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["key"] == key:
            options.say(f"seed {seed}: kept from before")
            return found["value"]
    value = json.loads(json.dumps(compute()))
    write_whole(place, json.dumps({"key": key, "value": value}, ensure_ascii=False).encode())
    return value


def _digest(module: str) -> str:
    path = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""


def write_whole(place: Path, content: bytes) -> None:
    """A file written aside and renamed, so that it is whole or not there; folders are made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    part.write_bytes(content)
    part.replace(place)
