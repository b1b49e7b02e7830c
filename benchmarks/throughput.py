"""Training speed: items/s, GFLOP/s, and the share of what this machine's matrix product reaches in the same run.

    python benchmarks/throughput.py --sizes tiny small --seconds 20 --threads 2
    python benchmarks/throughput.py --sizes tiny small base --seconds 60 --json throughput.json
    python benchmarks/throughput.py --device cuda --sizes tiny small base --rows 256

A step is forward, backward, clipping and AdamW on generated batches of five modalities at 60 % presence, each of them
new, in memory (no loader). fp32 steps, bf16 autocast steps and square matrix products (1024, on CUDA 8192) in each type
take turns, so that a machine that changes its speed changes all of them; medians are reported. Operations are counted
on one forward pass (as in flops.py) and taken three times, for forward and backward. On CUDA the varlen kernel is also
compared with
the buckets. On a machine that others use at the same time, --cpu-time --threads 1 measures what the work itself takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from worlds import Clock, batch_of, counting, make, table

from polymodal.nn.attention import Attention, pack
from polymodal.tensors import Batch, Tokens
from polymodal.train.optim import autocast, build_optimizer

# Every step has a batch of its own, as in training: the half-precision kernels of CPUs are built for each shape they
# meet, and the same two batches over and over would not pay for that.
_BATCHES = 64
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure(size: str, rows: int, seconds: float, device: torch.device, side: int) -> dict[str, Any]:
    """Items/s of one size in both precisions, and the matrix product beside them."""
    made, model, objective = make(size)
    batches = [batch_of(model, rows, seed=seed) for seed in range(_BATCHES)]
    with torch.no_grad(), counting() as counter:
        for batch in batches:
            objective(model, [batch], 0)
    operations = 3 * counter.get_total_flops() / len(batches)
    modules = nn.ModuleDict({"model": model, "objective": objective}).to(device)
    batches = [batch.to(device) for batch in batches]
    optimizer = build_optimizer(modules.values(), made.train)
    factors = {name: torch.randn(side, side, device=device, dtype=dtype) for name, dtype in TYPES.items()}

    def step(batch: Batch, dtype: torch.dtype) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(dtype, device):
            total = objective(model, [batch], 0).total
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()

    took: dict[str, list[float]] = defaultdict(list)
    begun, turn = time.monotonic(), 0
    while turn < 2 or (time.monotonic() - begun < seconds and turn < len(batches)):
        for name, dtype in TYPES.items():
            with Clock(device) as clock:
                step(batches[turn], dtype)
            with Clock(device) as product:
                torch.mm(factors[name], factors[name])
            if turn:  # the first of each warms up
                took[f"step {name}"].append(clock.seconds)
                took[f"mm {name}"].append(product.seconds)
        turn += 1
    count = sum(p.numel() for p in model.parameters())
    out: dict[str, Any] = {
        "size": size,
        "rows": rows,
        "steps": turn - 1,
        "gflop": operations / 1e9,
        "parameters": count,
    }
    for name in TYPES:
        once, peak = statistics.median(took[f"step {name}"]), 2 * side**3 / statistics.median(took[f"mm {name}"])
        speed = {"items_per_second": rows / once, "gflops": operations / once / 1e9}
        out[name] = speed | {"peak_gflops": peak / 1e9, "fraction": operations / once / peak}
    return out


@torch.no_grad()
def varlen_difference() -> float:
    """Largest difference on CUDA between the varlen kernel and the buckets, on the same bf16 input."""
    torch.manual_seed(0)
    attention = Attention(256, 4).cuda().bfloat16()
    lengths = torch.randint(0, 300, (64,), device="cuda")
    valid = torch.arange(300, device="cuda")[None] < lengths[:, None]
    x, layout = pack(Tokens(torch.randn(64, 300, 256, device="cuda", dtype=torch.bfloat16), valid))
    qkv = attention.qkv(x)
    pieces = torch.split(qkv, [bucket.tokens for bucket in layout.buckets])
    buckets = torch.cat(
        [attention._bucket(piece, bucket) for piece, bucket in zip(pieces, layout.buckets, strict=True)]
    )
    return float((attention._varlen(qkv, layout) - buckets).abs().max())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--rows", type=int, help="of a batch; by default 64 for tiny, 8 for small, 2 for base")
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
    rows = {"tiny": 64, "small": 8, "base": 2}
    side = 8192 if device.type == "cuda" else 1024
    results = [measure(size, asked.rows or rows[size], asked.seconds, device, side) for size in asked.sizes]
    lines = [
        [r["size"], f"{r['parameters'] / 1e6:.0f} M", r["rows"], r["steps"], name]
        + [f"{r[name][what]:.1f}" for what in ("items_per_second", "gflops", "peak_gflops")]
        + [f"{r[name]['fraction']:.0%}"]
        for r in results
        for name in TYPES
    ]
    print(f"{device}, {asked.threads} threads, torch {torch.__version__}")
    print(table(("size", "parameters", "rows", "steps", "type", "items/s", "GFLOP/s", "mm GFLOP/s", "fraction"), lines))
    found: dict[str, Any] = {"device": str(device), "threads": asked.threads, "results": results}
    if device.type == "cuda":
        found["varlen_difference"] = varlen_difference()
        print(f"varlen against buckets, bf16: largest difference {found['varlen_difference']:.1e}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
