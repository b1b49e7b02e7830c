"""Three ways for a stack to deal with rows of different length, forward and backward, interleaved.

    python benchmarks/attention.py --width 384 --layers 2 --rows 32 --turns 9

    buckets   what the library does: packed, attention in buckets of nearly equal length
    equal     packed, a bucket only for rows of exactly equal length (never a padded token, many small kernels)
    dense     padded to the longest row everywhere, a mask in attention

Lengths are those of generated rows of five modalities at 60 % presence. Times are medians; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from worlds import batch_of, dense, make, table

from polymodal import presence
from polymodal.nn import attention
from polymodal.nn.attention import pack
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.tensors import Tokens


def lengths_of(rows: int, share: float) -> torch.Tensor:
    """(B, N) valid of the trunk's rows for the tiny size."""
    _, model, _ = make("tiny", layers=1)
    with torch.no_grad():
        return presence.join(model.tokenize(batch_of(model, rows, share))).valid


def once(way: str, stack: Stack, tokens: Tokens) -> tuple[float, torch.Tensor]:
    """Seconds of forward and backward, and the output."""
    even = attention._EVEN
    attention._EVEN = 1.0 if way == "equal" else even
    try:
        begun = time.perf_counter()
        out = dense(stack, tokens) if way == "dense" else stack(tokens)
        out.x.square().sum().backward()
        return time.perf_counter() - begun, out.x.detach()
    finally:
        attention._EVEN = even


def main() -> int:
    """Measure and print; 1 where the three differ by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 384), ("layers", 2), ("rows", 32), ("turns", 9), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--presence", type=float, default=0.6)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    valid = lengths_of(asked.rows, asked.presence)
    stack = Stack(asked.width, StackConfig(layers=asked.layers))
    tokens = Tokens(torch.randn(*valid.shape, asked.width), valid)
    took: dict[str, list[float]] = {"buckets": [], "equal": [], "dense": []}
    outputs = {}
    for turn in range(asked.turns + 1):
        for way in took:
            stack.zero_grad()
            seconds, outputs[way] = once(way, stack, tokens)
            if turn:
                took[way].append(seconds)
    difference = max(float((outputs["buckets"] - other).abs().max()) for other in outputs.values())
    middle = {way: statistics.median(times) for way, times in took.items()}
    _, layout = pack(tokens)
    slots = float(valid.numel())
    print(
        f"{asked.rows} rows, longest {max(layout.lengths)}, {float(valid.sum()) / slots:.0%} of the slots valid, ",
        end="",
    )
    print(f"{len(layout.buckets)} buckets; width {asked.width}, {asked.layers} layers, {asked.threads} threads")
    lines = [(way, f"{1e3 * s:.1f}", f"{s / middle['dense']:.2f}") for way, s in middle.items()]
    print(table(("way", "ms", "of dense"), lines))
    print(f"largest difference of outputs {difference:.1e}")
    if asked.json is not None:
        asked.json.write_text(
            json.dumps({"seconds": middle, "difference": difference, "valid": float(valid.sum()) / slots})
        )
    return int(difference > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
