"""TREC's two files: right answers read from and written to qrels, ranked lists written as a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = ["read_qrels", "write_qrels", "write_run"]

_LINE = "QUERY 0 ITEM GAIN, separated by spaces or tabs"


def read_qrels(path: Path) -> dict[str, dict[str, float]]:
    """Query id -> {item id: gain} of a TREC qrels file.

    Gains below 0 (TREC: judged and useless) become 0. The second column is not read.

    Raises:
        BadInput: no such file, no text, a line of another form, a pair judged twice, nothing right in it.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in _lines(path):
        query, item, gain = _parse(path, number, line)
        judged = found.setdefault(query, {})
        if item in judged:
            raise BadInput(f"{path}, line {number}", "every pair once", f"{query} {item} again")
        judged[item] = max(gain, 0.0)
    if not any(gain > 0 for judged in found.values() for gain in judged.values()):
        raise BadInput(str(path), "at least one right answer (a gain above 0)", "none")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise BadInput("qrels", "a file", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput("qrels", "lines of text in UTF-8", f"{path}, which is none") from None


def _parse(path: Path, number: int, line: str) -> tuple[str, str, float]:
    parts = line.split()
    try:
        query, _, item, gain = parts
        value = float(gain)
        if not np.isfinite(value):
            raise ValueError(gain)
    except ValueError:
        raise BadInput(f"{path}, line {number}", _LINE, repr(line.strip())) from None
    return query, item, value


def write_qrels(file: TextIO, queries: Sequence[str], qrels: Sequence[Mapping[str, float]]) -> None:
    """Right answers of each query as TREC qrels; gains must be whole numbers, as trec_eval reads nothing else.

    Raises:
        BadInput: an id with a space in it, which the format cannot hold; a gain that is no whole number.
    """
    for query, judged in zip(queries, qrels, strict=True):
        _check(query, *judged)
        for item, gain in judged.items():
            if gain != int(gain):
                raise BadInput(f"gain of {query!r}, {item!r}", "a whole number", gain)
            file.write(f"{query} 0 {item} {int(gain)}\n")


def write_run(
    file: TextIO,
    queries: Sequence[str],
    corpus: Sequence[str],
    rows: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    tag: str,
) -> None:
    """Ranked lists as a TREC run: QUERY Q0 ITEM RANK SCORE TAG, ranks from 1.

    trec_eval sorts by score, in single precision, and equal scores by its own rule. So that it sees our order, a score
    that does not fall is written as the next smaller float: ties differ in the last digit.

    Args:
        queries: Q ids. corpus: C ids.
        rows: (Q, K) corpus rows, best first, -1 after the end of a list.
        scores: (Q, K), not rising.
        tag: name of the system, without spaces.

    Raises:
        BadInput: an id with a space in it, which the format cannot hold.
    """
    falling = _strictly(scores)
    for query, found, of in zip(queries, rows.tolist(), falling, strict=True):
        listed = [corpus[row] for row in found if row >= 0]
        _check(query, *listed)
        pairs = enumerate(zip(listed, of, strict=False), 1)
        file.writelines(f"{query} Q0 {item} {rank} {score} {tag}\n" for rank, (item, score) in pairs)


def _strictly(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    out = scores.astype(np.float32)
    for at in range(1, out.shape[1]):
        below = np.nextafter(out[:, at - 1], np.float32(-np.inf))
        out[:, at] = np.minimum(out[:, at], below)
    return out


def _check(*ids: str) -> None:
    for name in ids:
        if not name or any(c.isspace() for c in name):
            raise BadInput("id", "no spaces, which separate the columns of a TREC file", repr(name))
