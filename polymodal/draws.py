"""Random numbers that belong to a row, not to a batch.

What is hidden in a row must not depend on which other rows share its batch, on padding, or on the process that holds
it: only then is a loss of two ranks the loss of one, and a term unchanged when a row it does not count is deleted.
A stateful generator cannot give that; a counter-based one can.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polymodal.tensors import stable_hash

__all__ = ["seed_of", "uniform"]

_GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as a signed 64-bit number
_MIX1 = -4658895280553007687
_MIX2 = -7723592293110705685


def seed_of(*parts: int | str) -> int:
    """A signed 64-bit seed from numbers and names, e.g. `seed_of(recipe.seed, step, "mask", modality)`."""
    return stable_hash("\0".join(map(str, parts)))


def uniform(seed: int, keys: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each key: (B,) int64 -> (B, count) float32, the same on every device.

    Source: the splitmix64 finaliser (Steele, Lea, Flood, OOPSLA 2014) over seed, key and counter.
    """
    counter = torch.arange(count, device=keys.device, dtype=torch.long)
    row = _mix(keys + seed)[:, None]
    bits = _mix(row + (counter + 1) * _GOLDEN)
    return ((bits >> 40) & 0xFFFFFF).float() / float(1 << 24)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _logical_shift(x, 30)) * _MIX1
    x = (x ^ _logical_shift(x, 27)) * _MIX2
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, by: int) -> Tensor:
    return (x >> by) & ((1 << (64 - by)) - 1)
