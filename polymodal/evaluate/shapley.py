"""What each modality of an item is worth, from the values of the subsets of the modalities that the item has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.intervals import Floats
from polymodal.evaluate.values import Subset
from polymodal.types import BadInput

__all__ = ["leave_one_out", "shapley", "subset_code", "subset_codes"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def subset_code(subset: Subset, names: Sequence[str]) -> int:
    """The column of a subset in a table of values: bit m is set where `names[m]` is in it; the empty set is 0."""
    return sum(1 << at for at, name in enumerate(names) if name in subset)


def subset_codes(present: Bools) -> Ints:
    """The column of everything that each row has, (n,)."""
    return np.asarray(present @ (1 << np.arange(present.shape[1])), np.int64)


def shapley(values: npt.NDArray[np.floating], present: Bools) -> Floats:
    """Exact Shapley values of the modalities that each row has.

    ::

        phi_i = sum over S in P without i of  |S|! (|P| - |S| - 1)! / |P|!  (v(S + i) - v(S))

    Args:
        values: (n, 2^M) v of each subset by `subset_code`; column 0 is v of nothing. What stands in a column of a
            subset that the row does not have is never read.
        present: (n, M), the modalities P of each row.

    Returns:
        (n, M); NaN where a modality is absent (what is not there has no value), and in a row that lacks a needed v.
        A row sums to v(P) - v(nothing).

    Source: Shapley 1953, "A value for n-person games". Raises: BadInput: shapes that disagree.
    """
    return _per_pattern(values, present, _shapley)


def leave_one_out(values: npt.NDArray[np.floating], present: Bools) -> Floats:
    """v(P) - v(P without i) of each modality i that a row has; arguments and result as in `shapley`.

    What two modalities both tell counts for neither of them here, and half for each of them there.
    """
    return _per_pattern(values, present, _leave_one_out)


def _per_pattern(values: npt.NDArray[np.floating], present: Bools, weights: Callable[[int], Floats]) -> Floats:
    size = present.shape[1] if present.ndim == 2 else -1
    if size < 1 or values.shape != (len(present), 1 << size):
        raise BadInput("values, present", "(n, 2^M) and (n, M)", f"{values.shape} and {present.shape}")
    out = np.full(present.shape, np.nan)
    codes = subset_codes(present)
    for code in np.unique(codes[codes > 0]).tolist():
        members = np.flatnonzero(code >> np.arange(size) & 1)
        subsets = np.arange(1 << len(members))[:, None] >> np.arange(len(members)) & 1
        columns = subsets @ (1 << members)
        rows = np.flatnonzero(codes == code)[:, None]
        out[rows, members] = values[rows, columns].astype(np.float64) @ weights(len(members)).T
    return out


@lru_cache(maxsize=16)
def _shapley(count: int) -> Floats:
    """(k, 2^k): what v of each subset of k players counts for each of them."""
    subsets = np.arange(1 << count)
    size = np.asarray([int(s).bit_count() for s in subsets])
    factor = [math.factorial(s) * math.factorial(count - s - 1) / math.factorial(count) for s in range(count)]
    inside = (subsets >> np.arange(count)[:, None] & 1).astype(bool)
    gained = np.asarray([factor[s - 1] if s else 0.0 for s in size])
    lost = np.asarray([factor[s] if s < count else 0.0 for s in size])
    return np.where(inside, gained, -lost)


@lru_cache(maxsize=16)
def _leave_one_out(count: int) -> Floats:
    whole = (1 << count) - 1
    out = np.zeros((count, 1 << count))
    out[:, whole] = 1.0
    out[np.arange(count), whole ^ (1 << np.arange(count))] = -1.0
    return out
