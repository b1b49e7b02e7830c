"""The optimiser, its schedule, the average of the weights, and the precision of a device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from polymodal.recipe import TrainConfig

__all__ = [
    "Average",
    "Schedule",
    "autocast",
    "build_optimizer",
    "learning_rate",
    "optimizer_state",
    "pick_precision",
    "restore_optimizer",
]


def build_optimizer(modules: Iterable[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices of linear layers only, not on biases, norms, embeddings or single vectors."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for module in modules:
        matrices = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
        for p in module.parameters():
            if p.requires_grad:
                (decayed if id(p) in matrices else plain).append(p)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


class Schedule(Protocol):
    """Peak learning rate, and share of the steps until it and share of it at the end (see `TrainConfig`)."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def warmup(self) -> float: ...

    @property
    def final(self) -> float: ...


def learning_rate(config: Schedule, step: int, steps: int) -> float:
    """The rate of step 0 ... steps - 1: linear warm-up, then half a cosine down to `final` of the peak."""
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return config.learning_rate * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * share)))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by name; the parameters' order is that of `build_optimizer`."""
    state = optimizer.state_dict()["state"]
    return {f"{at}.{name}": value for at, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """`optimizer_state` undone."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        at, _, name = key.partition(".")
        state.setdefault(int(at), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


class Average:
    """Exponential moving average of a module's parameters: a <- d a + (1 - d) p, with d growing to `decay`.

    Source: Polyak averaging as in Tarvainen and Valpola 2017; the warm-up min(decay, (1 + t) / (10 + t)) is that of
        TensorFlow.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.module = decay, module
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in self.module.named_parameters():
            self.values[name].lerp_(p, 1 - decay)


# Width from which a CPU with bf16 hardware trains faster in bf16. Below it the casts cost more than the products save,
# and the kernels are built anew for every number of tokens, which no two batches share (benchmarks/throughput.py).
_CPU_WIDTH = 512


def pick_precision(wanted: str, device: torch.device, width: int) -> torch.dtype:
    """bf16 or fp32 for a model of width D: "auto" takes bf16 where the hardware does its matrix products and that pays:
    on CUDA always, on a CPU with AMX or AVX512-BF16 from a width of 512 on."""
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    has: Any = torch.cpu
    able = has._is_amx_tile_supported() or has._is_avx512_bf16_supported()
    return torch.bfloat16 if able and width >= _CPU_WIDTH else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to `dtype`; nothing for fp32. Losses, norms of vectors and softmax over candidates stay in fp32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
