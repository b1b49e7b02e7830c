"""Matrix products of vectors that are compared, in full precision."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["products"]


def products(pattern: str, a: Tensor, b: Tensor) -> Tensor:
    """`torch.einsum` of two tensors in float32, under autocast too.

    Autocast would turn it into bf16 whatever is handed in, and the 2 to 3 digits of bf16 cannot tell near candidates
    apart once they are multiplied by a logit scale.
    """
    with torch.autocast(a.device.type, enabled=False):
        return torch.einsum(pattern, a.float(), b.float())
