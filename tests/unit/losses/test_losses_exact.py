"""Under autocast the vectors that a contrast compares stay in float32."""

import torch
from torch.nn import functional as F

from polymodal.losses.contrastive import contrast, pairwise_contrast
from polymodal.losses.harmonise import similarity

Z = F.normalize(torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
PRESENT = torch.ones(2, 6, dtype=torch.bool)


def values() -> list[torch.Tensor]:
    pair = pairwise_contrast(Z, PRESENT, 20.0)[0, 1]
    return [contrast(Z[0], PRESENT[0], Z[1], PRESENT[1], 20.0).value, pair.value, similarity(Z, PRESENT)]


def test_autocast_changes_no_bit():
    exact = values()
    with torch.autocast("cpu", torch.bfloat16):
        assert (Z[0] @ Z[1].T).dtype == torch.bfloat16
        near = values()
    for one, two in zip(exact, near, strict=True):
        assert two.dtype == torch.float32
        assert torch.equal(one, two)
