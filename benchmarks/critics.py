"""Critics of FactorCL at the sizes of its notebook: time, operations and memory of one score matrix, forward and back.

    python benchmarks/critics.py                  batch 256, 128 numbers a side, two hidden layers of 512

Rounds are interleaved and ratios taken within a round, so that what else the machine does falls on all alike. Memory is
the growth of the resident size, in a process of its own per critic.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from polymodal.losses.critics import ConcatCritic, DotCritic
from polymodal.losses.information import nce, pairing

MAKERS: dict[str, Callable[[int, int], nn.Module]] = {
    "dot": lambda width, hidden: DotCritic(width, width, hidden, layers=2, width=128),
    "concat": lambda width, hidden: ConcatCritic(width, width, hidden, layers=2, rows=0, split=False),
    "concat, split": lambda width, hidden: ConcatCritic(width, width, hidden, layers=2, rows=0),
    "concat, split, 16 rows at a time": lambda width, hidden: ConcatCritic(width, width, hidden, layers=2, rows=16),
}


def vectors(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """The two sides of a batch."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn((rows, width), generator=generator) for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


def step(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """NCE and its gradient; the scores."""
    there = torch.ones(len(a), dtype=torch.bool)
    scores: Tensor = critic(a, b)
    nce(scores, pairing(there, there)).value.backward()  # type: ignore[no-untyped-call]
    return scores.detach()


def seconds(critic: nn.Module, a: Tensor, b: Tensor) -> float:
    """Processor seconds of a step."""
    begun = time.process_time()
    step(critic, a, b)
    return time.process_time() - begun


def flops(critic: nn.Module, a: Tensor, b: Tensor) -> float:
    """Operations of all matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step(critic, a, b)
    return float(counter.get_total_flops())


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def memory(name: str, rows: int, width: int, hidden: int) -> float:
    """Megabytes that a step adds at its peak, looked at every millisecond; after a first step of two rows, which loads
    kernels."""
    critic = MAKERS[name](width, hidden)
    step(critic, *vectors(2, width))
    a, b = vectors(rows, width)
    before = peak = resident()
    worker = threading.Thread(target=step, args=(critic, a, b))
    worker.start()
    while worker.is_alive():
        peak = max(peak, resident())
        time.sleep(1e-3)
    return (peak - before) / 2**20


def measured_apart(name: str, rows: int, width: int, hidden: int) -> float:
    """`memory` in a process of its own."""
    asked = [sys.executable, __file__, "--memory-of", name, "--rows", str(rows), "--width", str(width)]
    done = subprocess.run([*asked, "--hidden", str(hidden)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def same_numbers(rows: int, width: int, hidden: int) -> float:
    """Largest difference of scores and gradients between the plain concatenation and the two other forms, relative to
    the largest score and the largest gradient."""
    made = [make(width, hidden) for name, make in MAKERS.items() if name != "dot"]
    found = []
    for critic in made:
        critic.load_state_dict(made[0].state_dict())
        a, b = vectors(rows, width)
        scores = step(critic, a, b)
        grads = [v.grad for v in (a, b, *critic.parameters())]
        found.append((scores.flatten(), torch.cat([g.flatten() for g in grads if g is not None])))
    return max(
        float((x - y).abs().max() / x.abs().max()) for other in found[1:] for x, y in zip(found[0], other, strict=True)
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    sizes = (asked.rows, asked.width, asked.hidden)
    if asked.memory_of:
        print(memory(asked.memory_of, *sizes))
        return 0
    critics = {name: make(asked.width, asked.hidden) for name, make in MAKERS.items()}
    a, b = vectors(asked.rows, asked.width)
    for critic in critics.values():
        step(critic, *vectors(2, asked.width))
    rounds = [{name: seconds(critic, a, b) for name, critic in critics.items()} for _ in range(asked.rounds)]
    lines = {}
    for name, critic in critics.items():
        lines[name] = {
            "seconds": statistics.median(r[name] for r in rounds),
            "concat / this": statistics.median(r["concat"] / r[name] for r in rounds),
            "GFLOP": flops(critic, a, b) / 1e9,
            "MB": measured_apart(name, *sizes),
        }
    print(
        f"batch {asked.rows}, width {asked.width}, hidden {asked.hidden}, {asked.threads} thread, forward and backward"
    )
    print(f"{'critic':34} {'CPU s':>8} {'x faster':>9} {'GFLOP':>8} {'MB':>7}")
    for name, line in lines.items():
        print(f"{name:34} " + "{:8.3f} {:9.2f} {:8.2f} {:7.0f}".format(*line.values()))
    far = same_numbers(min(asked.rows, 64), asked.width, asked.hidden)
    print(f"largest relative difference of scores and gradients between the forms of concat: {far:.1e}")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"sizes": sizes, "critics": lines, "difference": far}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
