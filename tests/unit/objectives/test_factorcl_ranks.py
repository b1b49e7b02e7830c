"""Two processes have the terms, the total and the gradients of one. The processes are threads that meet in `gather`, so
that the gradient of what is exchanged is autograd's own (the exchange of real processes is tests/unit/train)."""

from __future__ import annotations

import threading

import pytest
import torch

from polymodal.losses.critics import CriticConfig
from polymodal.objectives import factorcl
from polymodal.objectives._factors import Inputs
from polymodal.objectives.factorcl import FactorCL, FactorCLConfig
from polymodal.tensors import Embedded

ROWS, WIDTH, NAMES = 8, 6, ("a", "b", "c")
CASES = {
    "default": {},
    "pairs, unclamped": {"structure": "pairs", "clamp": False},
    "within class": {"label": "y", "conditional": "within_class"},
    "labels": {"label": "y"},
    "kernel": {"conditional": "kernel"},
    "labelled kernel": {"label": "y", "conditional": "kernel"},
    "factorised": {"align": 1.0, "separate": 1.0, "heads": "core"},
    "canonical": {"heads": "canonical"},
    "hsic": {"align": 1.0, "separate": 1.0, "penalty": "hsic", "two_step": False},
    "concat critic": {"critic": CriticConfig(kind="concat", hidden=8, layers=1, rows=3)},
}


class Meeting:
    """Where two threads exchange tensors, in the order in which each asks."""

    def __init__(self) -> None:
        self.barrier, self.brought = threading.Barrier(2, timeout=60), [None, None]

    def exchange(self, rank, tensor):
        self.brought[rank] = tensor
        self.barrier.wait()
        both = torch.cat(self.brought)
        self.barrier.wait()
        return both


class Rank:
    def __init__(self, rank, meeting) -> None:
        self.rank, self.meeting = rank, meeting

    def gather(self, tensor):
        return self.meeting.exchange(self.rank, tensor)


def whole():
    generator = torch.Generator().manual_seed(0)
    there = {n: torch.rand(ROWS, generator=generator) < 0.8 for n in NAMES}
    views = [
        {n: Embedded(torch.randn((ROWS, WIDTH), generator=generator) * p[:, None], p) for n, p in there.items()}
        for _ in range(2)
    ]
    return Inputs(views, views, torch.arange(ROWS) * 7, torch.tensor([0, 1, 0, 1, 1, 0, -1, 0]))


def part(inputs, rows):
    views = [{n: Embedded(v.z[rows], v.present[rows]) for n, v in view.items()} for view in inputs.shared]
    return Inputs(views, views, inputs.keys[rows], inputs.labels[rows])


def views_of(inputs, made):
    return Inputs(inputs.shared[: made.views], inputs.unique[: made.views], inputs.keys, inputs.labels)


def run_both(made, inputs, step):
    meeting, out = Meeting(), [None, None]

    def work(rank):
        # modules are shared, what an objective knows of its processes is not
        own = FactorCL(made.config, NAMES, WIDTH)
        for name, module in made._modules.items():
            own._modules[name] = module
        own.world = Rank(rank, meeting)
        out[rank] = getattr(own, step)(part(inputs, slice(rank * 4, rank * 4 + 4)), 3)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


@pytest.fixture
def one_at_a_time(monkeypatch):
    """`held` swaps the parameters of a module for the time of a call, which two threads may not do at once."""
    lock, held = threading.Lock(), factorcl.held

    def locked(*arguments):
        with lock:
            return held(*arguments)

    monkeypatch.setattr(factorcl, "held", locked)


@pytest.mark.parametrize("step", ["terms", "critic_terms"])
@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_two_are_one(fields, step, one_at_a_time):
    torch.manual_seed(0)
    small = CriticConfig(hidden=8, layers=1, width=4)
    made = FactorCL(FactorCLConfig(**{"critic": small, **fields}), NAMES, WIDTH)
    inputs = views_of(whole(), made)
    alone = getattr(made, step)(inputs, 3)
    alone.total.backward()
    expected = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    made.zero_grad(set_to_none=True)
    both = run_both(made, inputs, step)
    total = torch.zeros(())
    for name, term in alone.terms.items():
        counts = [float(b.terms[name].count) for b in both]
        assert sum(counts) == int(term.count), name
        mean = sum(b.terms[name].value * c for b, c in zip(both, counts, strict=True)) / max(sum(counts), 1)
        assert float(mean.detach() if isinstance(mean, torch.Tensor) else mean) == pytest.approx(
            float(term.value.detach()), abs=1e-5
        ), name
        total = total + mean * alone.weights.get(name, 1.0)
    assert sum(int(t.count) > 0 for t in alone.terms.values()) > len(alone.terms) / 2
    total.backward()
    found = {n: p.grad for n, p in made.named_parameters() if p.grad is not None}
    assert set(expected) == set(found)
    for name, gradient in expected.items():
        assert torch.allclose(gradient, found[name], atol=1e-5), name
