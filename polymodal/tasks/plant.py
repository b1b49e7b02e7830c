"""Planted faults: copies of items with small changes, to measure on anybody's catalogue whether they are found.

What a change is depends on the form of a cell, not on the modality: a text loses, doubles or exchanges a word; of pairs
one value becomes that of another item; pictures and clips are cropped, lit differently and compressed again; other
numbers get louder or softer, and noise.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from polymodal.types import BadInput, Record

__all__ = ["COPY", "plant_copies", "vary"]

COPY = "copy of "  # what the id of a planted copy begins with

_MOST_CUT = 0.08  # of each side of a picture
_LOSE = 0.25


def plant_copies(records: Sequence[Record], count: int, seed: int = 0) -> tuple[list[Record], dict[str, str]]:
    """Nearly the same items again, under other ids and without a group.

    Every cell of a copy is varied (`vary`), and a quarter of the copies of several modalities lose one of them.

    Args:
        records: with decoded values, to copy from.
        count: copies, of as many items.

    Returns:
        The copies, and the id of each with that of its original.

    Raises:
        BadInput: fewer records than copies.
    """
    if not 0 < count <= len(records):
        raise BadInput("--plant", f"1 to {len(records)} copies of as many items", count)
    rng = np.random.default_rng([seed, count])
    values = _values(records)
    copies, truth = [], {}
    for at in rng.permutation(len(records))[:count].tolist():
        record = records[at]
        kept = list(record.values)
        if len(kept) > 1 and rng.random() < _LOSE:
            kept.remove(kept[int(rng.integers(len(kept)))])
        changed = {name: vary(record.values[name], rng, values.get(name, {})) for name in kept}
        copies.append(Record(f"{COPY}{record.id}", changed))
        truth[copies[-1].id] = record.id
    return copies, truth


def vary(value: Any, rng: np.random.Generator, known: Mapping[str, Sequence[str]] | None = None) -> Any:
    """A decoded cell, slightly different.

    Args:
        known: for pairs: name -> words that other items have there.
    """
    if isinstance(value, str):
        return _reworded(value, rng)
    if isinstance(value, np.ndarray):
        pictures = value.dtype == np.uint8 and value.ndim >= 3 and value.shape[-1] == 3
        return _retaken(value, rng) if pictures else _noisy(value, rng)
    return _one_other(tuple(value), rng, known or {})


def _values(records: Sequence[Record]) -> dict[str, dict[str, list[str]]]:
    """Modality -> attribute -> its words, in order of appearance."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for record in records:
        for modality, value in record.values.items():
            if isinstance(value, (tuple, list)):
                for name, content in value:
                    if isinstance(content, str):
                        found.setdefault(modality, {}).setdefault(name, {})[content] = None
    return {modality: {name: list(words) for name, words in names.items()} for modality, names in found.items()}


def _reworded(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    at = int(rng.integers(max(len(words) - 1, 1)))
    how = int(rng.integers(3)) if len(words) > 1 else 1
    if how == 0:
        del words[at]
    elif how == 1:
        words.insert(at, words[at])
    else:
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def _one_other(
    pairs: tuple[tuple[str, str | float], ...], rng: np.random.Generator, known: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, str | float], ...]:
    at = int(rng.integers(len(pairs)))
    name, content = pairs[at]
    if isinstance(content, str):
        others = [word for word in known.get(name, ()) if word != content]
        changed: str | float = others[int(rng.integers(len(others)))] if others else f"{content} {content}"
    else:
        changed = round(content * float(rng.uniform(0.95, 1.05)), 2)
    return (*pairs[:at], (name, changed), *pairs[at + 1 :])


def _retaken(pictures: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Cropped and lit in one way for all, each compressed by itself."""
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    height, width = flat.shape[1:3]
    top, bottom, left, right = rng.uniform(0, _MOST_CUT, 4) * (height, height, width, width)
    light, quality = float(rng.uniform(0.88, 1.12)), int(rng.integers(40, 80))
    made = []
    for picture in flat:
        lit = np.clip(picture.astype(np.float32) * light, 0, 255).astype(np.uint8)
        image = Image.fromarray(lit).resize(
            (width, height), Image.Resampling.BILINEAR, (left, top, width - right, height - bottom)
        )
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        made.append(np.asarray(Image.open(stream).convert("RGB")))
    return np.stack(made).reshape(pictures.shape)


def _noisy(numbers: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    wide = numbers.astype(np.float64)
    changed = wide * rng.uniform(0.95, 1.05) + rng.normal(0, 0.05 * (wide.std() or 1.0), wide.shape)
    return np.asarray(changed, numbers.dtype)
