"""Which rows a label is learnt from, tuned on, tested on, and which lack it; a group is never cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polymodal.catalogue.rows import Rows
from polymodal.types import BadInput
from polymodal.workflow.training import split_rows

__all__ = ["Parts", "ids_of", "part_rows"]

# shares of the labelled rows that are held out where the data has no such split
_TESTED, _TUNED = 0.2, 0.15


@dataclass(frozen=True)
class Parts:
    """Row numbers, ascending: with the label to learn from, tune and test on, and without it; `notes` say what had to
    be decided."""

    train: np.ndarray
    held: np.ndarray
    test: np.ndarray
    asked: np.ndarray
    notes: tuple[str, ...] = ()


def part_rows(
    rows: Rows, values: Mapping[str, str], *, train: str = "train", held: str = "val", test: str = "test", seed: int = 0
) -> Parts:
    """Rows by split and label.

    Where the data has no splits a fifth of the labelled rows is tested; where it has none to tune on, a part of those
    to learn from is taken for that. Both are drawn with the seed, whole groups at a time.

    Args:
        values: id -> label value. train, held, test: names of splits.

    Raises:
        BadInput: a split that the data lacks; no labelled row to learn from.
    """
    ids = rows.index["id"].to_pylist()
    labelled = np.asarray([i in values for i in ids], np.bool_)
    asked = np.flatnonzero(~labelled)
    named = {name for name in rows.index["split"].to_pylist() if name}
    notes = []
    if named:
        tested, learnt = (_labelled(split_rows(rows, name), labelled) for name in (test, train))
        tuned = _labelled(split_rows(rows, held), labelled) if held in named else np.zeros(0, np.int64)
    else:
        tested, learnt = _draw(np.flatnonzero(labelled), rows, _TESTED, seed)
        tuned = np.zeros(0, np.int64)
        notes.append(f"The data has no splits: {len(tested)} of its labelled items were drawn to test on.")
    if train == test and named:
        raise BadInput("--train-split", "another split than the one that is tested", repr(train))
    if not len(learnt):
        raise BadInput("label", f"items that have it in split {train!r}", "none")
    if not len(tuned):
        tuned, learnt = _draw(learnt, rows, _TUNED, seed + 1)
        notes.append(f"No split {held!r} has the label: {len(tuned)} items to learn from were drawn to tune on.")
    if not len(tested):
        notes.append(f"No item of split {test!r} has the label: nothing is tested.")
    return Parts(learnt, tuned, tested, asked, tuple(notes))


def _labelled(numbers: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    return np.asarray(numbers[labelled[numbers]], np.int64)


def _draw(numbers: np.ndarray, rows: Rows, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """About a share of the rows, in whole groups, and the others."""
    groups = rows.index["group"].to_pylist()
    members: dict[str, list[int]] = {}
    for number in numbers.tolist():
        members.setdefault(groups[number] or f"\0{number}", []).append(number)
    order = list(members)
    drawn: list[int] = []
    for at in np.random.default_rng(seed).permutation(len(order)).tolist():
        if len(drawn) >= share * len(numbers):
            break
        drawn += members[order[at]]
    return np.sort(np.asarray(drawn, np.int64)), np.setdiff1d(numbers, np.asarray(drawn, np.int64))


def ids_of(rows: Rows, numbers: np.ndarray) -> Sequence[str]:
    """The ids of some rows."""
    return [str(i) for i in rows.index["id"].take(numbers).to_pylist()]
