"""What the attributes of a catalogue look like: names by how often they come, and a middle and a spread of numbers."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

__all__ = ["Survey", "scale", "stable_number"]

# deviation of a normal distribution over the distance of its quartiles
_NORMAL_SPREAD = 1 / 1.349


_MOST_VALUES = 256


class _Sample:
    """A uniform sample of a stream (algorithm R), the same for the same stream."""

    def __init__(self, seed: int, size: int = 1024) -> None:
        self.kept = array("d")
        self._random = np.random.default_rng(seed)
        self._seen, self._size = 0, size

    def add(self, value: float) -> None:
        self._seen += 1
        if len(self.kept) < self._size:
            self.kept.append(value)
        elif (at := int(self._random.integers(self._seen))) < self._size:
            self.kept[at] = value


class Survey:
    """What one pass over the values tells besides the words that it hands on."""

    def __init__(self) -> None:
        self.numbers: dict[str, _Sample] = {}
        self.words: dict[str, Counter[str]] = {}
        self._more: set[str] = set()
        self._count: Counter[str] = Counter()

    def read(self, values: Iterable[Sequence[tuple[str, str | float]]]) -> Iterator[str]:
        for pairs in values:
            for name, value in pairs:
                self._count[name] += 1
                yield name
                if isinstance(value, str):
                    kept = self.words.setdefault(name, Counter())
                    # free text has no values that come again; the first few hundred tell how long they are
                    if value in kept or len(kept) < _MOST_VALUES:
                        kept[value] += 1
                    else:
                        self._more.add(name)
                    yield value
                else:
                    self.numbers.setdefault(name, _Sample(stable_number(name))).add(value)

    def closed(self, name: str) -> list[str]:
        """The words that an attribute can be, where all are known and each comes twice on average; else none."""
        kept = self.words.get(name, Counter())
        known = name not in self._more and kept.total() >= 2 * len(kept)
        return sorted(kept) if known else []

    def names(self, most: int) -> list[str]:
        return sorted(self._count, key=lambda name: (-self._count[name], name))[:most]


def scale(numbers: Sequence[float]) -> list[float]:
    """Median, and the spread that the quartiles of a normal distribution would have; sound for constants too."""
    if not numbers:
        return [0.0, 1.0]
    values = np.asarray(numbers, np.float64)
    with np.errstate(over="ignore"):
        low, middle, high = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75], method="nearest"))
        candidates = [_NORMAL_SPREAD * (high - low), float(np.abs(values - middle).mean()), abs(middle), 1.0]
    spread = next(c for c in candidates if math.isfinite(c) and c > 1e-9 * abs(middle) + 1e-300)
    return [middle, spread]


def stable_number(text: str) -> int:
    """64 bits of a hash of `text`, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
