"""Millions of ids in 8 bytes each: hashes in sorted arrays."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from polymodal.catalogue._m5_grammar import MAX_LINE, Refused, Region, read_region

__all__ = ["Ids", "Membership", "RegionFiles", "hashes"]

Hashes = npt.NDArray[np.int64]
Report = Callable[[str, str, str, str], None]  # id, source, reason, detail


def hashes(ids: Iterable[str]) -> Hashes:
    """64 bits of each id; two of ten million ids are taken for one with a chance of 3 in a million."""
    return np.fromiter(map(_hash, ids), np.int64)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)


class Ids:
    """A growing set: sorted arrays of falling length, merged as they come near one another's."""

    def __init__(self) -> None:
        self._levels: list[Hashes] = []

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def holds(self, wanted: Hashes) -> npt.NDArray[np.bool_]:
        """Which of `wanted` are in the set."""
        found = np.zeros(len(wanted), bool)
        for level in self._levels:
            at = np.minimum(np.searchsorted(level, wanted), len(level) - 1)
            found |= level[at] == wanted
        return found

    def add(self, new: Hashes) -> npt.NDArray[np.bool_]:
        """Adds them all; True for each that was not there and does not come earlier among them."""
        _, first = np.unique(new, return_index=True)
        fresh = np.zeros(len(new), bool)
        fresh[first] = True
        fresh &= ~self.holds(new)
        if fresh.any():
            self._levels.append(np.sort(new[fresh]))
        while len(self._levels) > 1 and 2 * len(self._levels[-1]) > len(self._levels[-2]):
            last = self._levels.pop()
            self._levels[-1] = np.sort(np.concatenate([self._levels[-1], last]))
        return fresh

    def join(self, other: Ids) -> None:
        """Adds another set."""
        if len(other):
            self.add(np.concatenate(other._levels))


class Membership:
    """A list of ids, and how many of them turned up.

    Args:
        name: of the list.
        ids: its hashes.
    """

    def __init__(self, name: str, ids: Hashes) -> None:
        self.name, self._ids = name, np.unique(ids)
        self._found = np.zeros(len(self._ids), bool)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def found(self) -> int:
        return int(self._found.sum())

    def holds(self, wanted: Hashes) -> npt.NDArray[np.bool_]:
        """Which of `wanted` are in the list; those are noted."""
        if not len(self._ids):
            return np.zeros(len(wanted), bool)
        at = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        there: npt.NDArray[np.bool_] = self._ids[at] == wanted
        self._found[at[there]] = True
        return there


class RegionFiles:
    """The lines of region files by id: 18 bytes of memory a line. Lines are read and checked when asked for.

    Args:
        files: without headers; of two lines of one id the first counts.
        name_of: what makes an id of the first column.
        report: told of lines that cannot be read.
    """

    def __init__(self, files: Sequence[Path], name_of: Callable[[str], str], report: Report) -> None:
        self._files, self._name_of, self._report = tuple(files), name_of, report
        self._open: dict[int, BinaryIO] = {}
        ids, places, numbers = array("q"), array("q"), array("H")
        for number, file in enumerate(files):
            for name, place in self._scan(file):
                ids.append(_hash(name))
                places.append(place)
                numbers.append(number)
        found, first = np.unique(np.frombuffer(ids, np.int64), return_index=True)
        starts, files_of = np.frombuffer(places, np.int64), np.frombuffer(numbers, np.uint16)
        for at in np.setdiff1d(np.arange(len(ids)), first).tolist():
            report("", files[files_of[at]].name, "duplicate id", f"byte {starts[at]}; an earlier line is kept")
        self._places, self._numbers = starts[first], files_of[first]
        self._ids = Membership("regions", found)
        self._sorted = found

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def unmatched(self) -> int:
        """Lines of ids that were never asked for."""
        return len(self._ids) - self._ids.found

    def get(self, name: str) -> tuple[Region, str] | None:
        """The line of an id and where it stands, or None where there is none. Raises Refused as `read_region` does."""
        wanted = hashes([name])
        if not self._ids.holds(wanted)[0]:
            return None
        at = int(np.searchsorted(self._sorted, wanted[0]))
        number, place = int(self._numbers[at]), int(self._places[at])
        stream = self._open.get(number)
        if stream is None:
            stream = self._open[number] = self._files[number].open("rb")
        stream.seek(place)
        try:
            return read_region(stream.readline(MAX_LINE + 1)), self._files[number].name
        except Refused as error:
            raise Refused(error.reason, f"{self._files[number].name}, byte {place}: {error.detail}") from None

    def close(self) -> None:
        """Closes the files."""
        for stream in self._open.values():
            stream.close()

    def _scan(self, file: Path) -> Iterator[tuple[str, int]]:
        try:
            yield from self._lines(file)
        except OSError as error:
            self._report("", file.name, "unreadable", error.strerror or str(error))

    def _lines(self, file: Path) -> Iterator[tuple[str, int]]:
        place = 0
        with file.open("rb") as stream:
            while line := stream.readline(MAX_LINE + 1):
                start, whole = place, len(line) <= MAX_LINE
                place += len(line)
                while line and not whole and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE)
                    place += len(line)
                if not whole:
                    self._report("", file.name, "over the limits", f"byte {start}: more than {MAX_LINE} bytes a line")
                elif line.strip():
                    fields = line.split(b"\t", 5)
                    found = self._name_of(fields[0].decode("utf-8", "replace")) if len(fields) > 1 else ""
                    if found and len(fields) == 6:
                        yield found, start
                    else:
                        what = f"{len(fields)} of 7 columns" if found else "no id in the first column"
                        self._report(found, file.name, "malformed", f"byte {start}: {what}")
