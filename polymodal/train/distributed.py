"""Several processes, one result: the losses and gradients of W ranks are those of one process with all their rows.

Measured on 2 gloo ranks: a local loss over candidates gathered *with* gradient is exact; a global loss over candidates
without gradient gives the encoders 1/W of the truth; a local loss without gradient points the wrong way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polymodal.tensors import Losses, Term

__all__ = ["Group", "join_group"]


class _Gather(torch.autograd.Function):
    """All ranks' rows, in order of rank; the gradient of a rank's rows is the sum over the ranks that used them."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        out = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(out, tensor.contiguous())
        return torch.cat(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        begin = dist.get_rank() * ctx.rows
        return total[begin : begin + ctx.rows]


class Group:
    """The processes of a run. Every rank must hold the same number of rows in a step."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of this rank -> (W B, ...) of all, differentiable where it is a floating-point tensor."""
        as_number = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        gathered: Tensor = _Gather.apply(as_number)  # type: ignore[no-untyped-call]
        return gathered.bool() if tensor.dtype == torch.bool else gathered

    def share(self, losses: Losses) -> Tensor:
        """This rank's part of the total: sums of all ranks' parts, and their gradients, are those of one process.

        A term is a mean over what it counts; here each rank's mean is weighted with its share of the count.
        """
        share, _ = self._shares(losses)
        parts = [
            t.value * s * losses.weights.get(n, 1.0) for (n, t), s in zip(losses.terms.items(), share, strict=True)
        ]
        return torch.stack(parts).sum()

    @torch.no_grad()
    def whole(self, losses: Losses) -> Losses:
        """The losses of all ranks together, without gradient: what one process would have logged."""
        share, everywhere = self._shares(losses)
        values = torch.stack([term.value.float() for term in losses.terms.values()]) * share
        dist.all_reduce(values)
        terms = {n: Term(v, c.long()) for n, v, c in zip(losses.terms, values, everywhere, strict=True)}
        return replace(losses, terms=terms)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; the same answer on all."""
        votes = torch.tensor([flag], dtype=torch.int32, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(votes)
        return bool(votes.item())

    @staticmethod
    def _shares(losses: Losses) -> tuple[Tensor, Tensor]:
        """What part of each term's count is this rank's, and the count of all ranks."""
        counts = torch.stack([term.count.float() for term in losses.terms.values()])
        everywhere = counts.clone()
        dist.all_reduce(everywhere)
        return counts / everywhere.clamp(min=1), everywhere

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all ranks, in one flat exchange. A parameter without a gradient on this rank takes
        part with zeros, so every rank exchanges the same; one that has none on any rank is left without, as one process
        would leave it, since the optimiser decays what has a gradient of zero."""
        wanted = [p for p in parameters if p.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in wanted], device=wanted[0].device)
        flat = torch.cat([*[(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in wanted], used])
        dist.all_reduce(flat)
        anywhere, begin = (flat[len(flat) - len(wanted) :] > 0).tolist(), 0
        for p, somebody in zip(wanted, anywhere, strict=True):
            p.grad = flat[begin : begin + p.numel()].view_as(p) if somebody else None
            begin += p.numel()


def join_group() -> Group | None:
    """The group that torchrun started this process in, or None for a process of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Group()
