"""What hiding tokens saves: a training step of M3AE against the step of the same model whose encoder sees all tokens.

    python benchmarks/m3ae_speed.py                                # small and base, 75 % hidden, 2 threads
    python benchmarks/m3ae_speed.py --sizes small --ratio 0.5 --json m3ae.json
    python benchmarks/m3ae_speed.py --cpu-time --threads 1         # on a machine that others use at the same time

Both have the same parameters, decoder, masks and heads on the hidden tokens; they differ in what the encoder is given,
and take turns, step by step, in one run. A step is forward, backward, clipping and AdamW on generated pictures and
texts, in memory. Operations are those of the stacks (encoder and decoder), forward, by `metered`. Exit status 1 where a
step is not at least 1.8 times as fast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from worlds import Clock, batch_of, table

from polymodal.model import Model
from polymodal.nn.blocks import metered
from polymodal.objective import Objective
from polymodal.objectives.m3ae import M3AE, Seen
from polymodal.recipe import build_model
from polymodal.recipes.m3ae import recipe
from polymodal.tensors import Batch
from polymodal.train.optim import build_optimizer

WANTED = 1.8
KINDS = {"image": "image", "text": "text"}


class SeesAll(M3AE):
    """The same objective, but its encoder is given every token, hidden or not."""

    def look(self, model: Model, batch: Batch, visible: Mapping[str, Tensor], seed: int | None = None) -> Seen:
        """All tokens through the encoder; the decoder is told as ever which it may use."""
        seen = super().look(model, batch, {name: cells.valid for name, cells in batch.cells.items()}, seed)
        return Seen(seen.encoded, visible, seen.embedded, seen.blind)


def build(size: str, ratio: float) -> tuple[Any, Model, dict[str, Objective]]:
    """The model of a size and both objectives, with equal weights."""
    made = recipe(KINDS, size)  # type: ignore[arg-type]
    torch.manual_seed(0)
    fitted = {n: c.fit([c.decoder().example(s) for s in range(8)]) for n, c in made.modalities.items()}
    model = build_model(made, fitted)
    config = made.objective.replace(ratio=ratio, ratios={})
    hiding, all_ = M3AE(config, model), SeesAll(config, model)
    all_.load_state_dict(hiding.state_dict())
    return made, model, {"hidden taken out": hiding, "all tokens": all_}


def stepper(made: Any, model: Model, objective: Objective, batches: list[Batch]) -> Callable[[int], None]:
    """One training step on batch number `turn`."""
    modules = nn.ModuleDict({"model": model, "objective": objective})
    optimizer = build_optimizer(modules.values(), made.train)

    def step(turn: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        objective(model, [batches[turn % len(batches)]], turn).total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()

    return step


def measure(size: str, rows: int, ratio: float, seconds: float, device: torch.device) -> dict[str, Any]:
    """Medians of both, their ratio, and the operations of the stacks."""
    made, model, objectives = build(size, ratio)
    batches = [batch_of(model, rows, 1.0, seed).to(device) for seed in range(2)]
    model.to(device)
    giga, steps = {}, {}
    for name, objective in objectives.items():
        objective.to(device)
        with torch.no_grad(), metered() as meter:
            objective(model, [batches[0]], 0)
        giga[name] = meter.spent / 1e9
        steps[name] = stepper(made, model, objective, batches)
    took: dict[str, list[float]] = {name: [] for name in objectives}
    begun, turn = time.monotonic(), 0
    while turn < 3 or time.monotonic() - begun < seconds:
        for name in objectives if turn % 2 else reversed(objectives):
            with Clock(device) as clock:
                steps[name](turn)
            if turn:  # the first of each warms up
                took[name].append(clock.seconds)
        turn += 1
    once = {name: statistics.median(values) for name, values in took.items()}
    less, more = objectives
    tokens = sum(int(c.valid.sum()) for c in batches[0].cells.values())
    return {
        "size": size,
        "rows": rows,
        "tokens": tokens,
        "steps": turn - 1,
        "hidden": ratio,
        "ms": {name: 1e3 * value for name, value in once.items()},
        "gflop": giga,
        "faster": once[more] / once[less],
        "fewer_operations": giga[more] / giga[less],
    }


def main() -> int:
    """Print the table; 1 where the wanted ratio is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"])
    parser.add_argument("--rows", type=int, help="of a batch; by default 64 for tiny, 16 for small, 4 for base")
    parser.add_argument("--ratio", type=float, default=0.75)
    parser.add_argument("--seconds", type=float, default=30.0, help="per size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process, not of the clock (1 thread)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    if asked.cpu_time:
        Clock.now = staticmethod(time.process_time)
    rows = {"tiny": 64, "small": 16, "base": 4}
    results = [measure(s, asked.rows or rows[s], asked.ratio, asked.seconds, device) for s in asked.sizes]
    head = ("size", "rows", "tokens", "steps", "ms all", "ms hidden", "faster", "GFLOP all", "GFLOP hidden", "fewer")
    lines = []
    for r in results:
        less, more = r["ms"]
        times = (f"{r['ms'][more]:.1f}", f"{r['ms'][less]:.1f}", f"{r['faster']:.2f}x")
        work = (f"{r['gflop'][more]:.1f}", f"{r['gflop'][less]:.1f}", f"{r['fewer_operations']:.2f}x")
        lines.append((r["size"], r["rows"], r["tokens"], r["steps"], *times, *work))
    print(f"{asked.ratio:.0%} hidden; {device}, {asked.threads} threads, torch {torch.__version__}")
    print(table(head, lines))
    if asked.json is not None:
        asked.json.write_text(json.dumps(results, indent=1))
    return int(any(r["faster"] < WANTED for r in results))


if __name__ == "__main__":
    sys.exit(main())
