"""Generated data with known factors: what both sides see, what one side sees, and Gaussians of known information."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Floats", "Labels", "World", "augmented", "disentangled", "factorised", "gaussian", "gaussian_pairs"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Rows of a generated set.

    Args:
        blocks: name -> (n, d) hidden variables; the name lists the modalities that see it ("12", "1", "2").
        inputs: modality -> (n, 100).
        labels: name -> (n,) int64 classes.
    """

    blocks: Mapping[str, Floats]
    inputs: Mapping[str, Floats]
    labels: Mapping[str, Labels]

    def rows(self, at: Labels) -> World:
        """Some rows."""
        return World(
            {k: v[at] for k, v in self.blocks.items()},
            {k: v[at] for k, v in self.inputs.items()},
            {k: v[at] for k, v in self.labels.items()},
        )


def factorised(rows: int, dims: Mapping[str, int], seed: int, width: int = 100, low: float = 0.0) -> World:
    """FactorCL's generator: w_k ~ N(0, 0.5 I) per block; x_i = [blocks that i sees] T_i, T_i ~ U(low, 1).

    The label "all" is whether the mean of every coordinate of every block is at least 0.

    Source: FactorCL, arXiv 2306.05268, section 4.1; pliang279/FactorCL, synthetic notebook (blocks 10, 6, 6).
    """
    random = np.random.default_rng(seed)
    blocks = {k: (random.standard_normal((rows, d)) * 0.5**0.5).astype(np.float32) for k, d in dims.items()}
    inputs = {}
    for name in sorted({m for k in dims for m in k}):
        raw = np.concatenate([w for k, w in blocks.items() if name in k], 1)
        inputs[name] = raw @ random.uniform(low, 1, (raw.shape[1], width)).astype(np.float32)
    every = np.concatenate(list(blocks.values()), 1)
    return World(blocks, inputs, {"all": (every.mean(1) >= 0).astype(np.int64)})


def disentangled(rows: int, seed: int, dim: int = 50) -> World:
    """DisentangledSSL's generator: blocks of N(0, 0.5 I), T ~ U(-1, 1), and a label of each block: a random network of
    one hidden layer of 100, plus N(0, 0.1), split at its median.

    Source: Wang et al., "An Information Criterion for Controlled Disentanglement of Multimodal Data", ICLR 2025.
    """
    made = factorised(rows, {"12": dim, "1": dim, "2": dim}, seed, low=-1.0)
    random = np.random.default_rng(seed + 1)
    labels = {}
    for name, block in made.blocks.items():
        hidden = np.maximum(block @ random.standard_normal((dim, 100)) * dim**-0.5, 0)
        score = hidden @ random.standard_normal(100) * 0.1 + 0.1 * random.standard_normal(rows)
        labels[name] = (score >= np.median(score)).astype(np.int64)
    return World(made.blocks, made.inputs, labels)


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each row by one of four: halves swapped, N(0, 0.01^2) added, a tenth of the entries zeroed, unchanged.

    Source: pliang279/FactorCL, synthetic notebook.
    """
    which = torch.randint(0, 4, (len(x), 1), generator=generator)
    noisy = x + 0.01 * torch.randn(x.shape, generator=generator)
    thin = x * (torch.rand(x.shape, generator=generator) >= 0.1)
    swapped = x.roll(x.shape[1] // 2, 1)
    return torch.where(which == 0, swapped, torch.where(which == 1, noisy, torch.where(which == 2, thin, x)))


def gaussian(nats: float, dim: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two vectors of `dim` numbers that share `nats` of information: correlation sqrt(1 - exp(-2 nats / dim)) each."""
    rho = math.sqrt(1 - math.exp(-2 * nats / dim))
    x, noise = (torch.randn((rows, dim), generator=generator) for _ in range(2))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def gaussian_pairs(nats: float, dim: int, rows: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Fresh batches of `gaussian` without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield gaussian(nats, dim, rows, generator)
