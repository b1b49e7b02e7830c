"""How much work is done for tokens that are not there: operations counted, not seconds.

    python benchmarks/flops.py                     # tiny, small, base (base with 1 layer a stage), 60 % presence
    python benchmarks/flops.py --sizes tiny --rows 64 --presence 0.4 --json flops.json

Every matrix product of a training forward pass (input layers, towers, trunk, projections, masked heads; contrastive
losses apart) is counted by torch's FlopCounterMode over generated batches. Three counts:

    needed   each row alone, with only what it has: no padding, no absent modality, whatever the implementation does
    spent    the batch, as the model computes it
    dense    the same batch with stacks that compute every slot (mask in attention only), all five modalities in it

and the largest difference between the vectors of the packed and of the dense form, which must be rounding (1e-5).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from worlds import batch_of, counting, densely, make, table

from polymodal.model import Model
from polymodal.nn.blocks import metered
from polymodal.objective import Objective
from polymodal.objectives.scale import HarmoniseConfig
from polymodal.tensors import Batch, Cells

LIMIT = 0.05


def alone(batch: Batch, row: int) -> Batch:
    """One row without padding and without what it lacks."""
    cells = {}
    for name, cell in batch.cells.items():
        valid = cell.valid[row]
        if valid.any():
            cells[name] = Cells({k: v[row][valid][None] for k, v in cell.fields.items()}, valid[valid][None])
    return Batch((batch.ids[row],), cells)


def spent(model: Model, objective: Objective, batch: Batch) -> int:
    """Operations of a training forward pass."""
    with counting() as counter:
        objective(model, [batch], 0)
    return int(counter.get_total_flops())


def vectors(model: Model, batch: Batch) -> dict[str, torch.Tensor]:
    """Every vector of the batch."""
    return {name: e.z for name, e in model.embeddings(model.encode(model.tokenize(batch))).items()}


@torch.no_grad()
def measure(size: str, rows: int, share: float, layers: int | None, batches: int) -> dict[str, Any]:
    """The counts of one size, summed over some batches."""
    made, model, objective = make(size, layers)
    model.eval()
    # masked tasks alone: what contrast costs depends on how many rows there are, so a row alone has no share of it
    masked = made.objective.replace(
        contrast_weight=0.0, fusion_weight=0.0, harmonise=HarmoniseConfig(form="none")
    ).build(model)
    masked.load_state_dict(objective.state_dict(), strict=False)
    out: dict[str, Any] = {"size": size, "rows": rows, "presence": share, "layers": made.model.trunk.layers}
    count = dict.fromkeys(
        ("needed", "spent", "dense", "losses", "meter_valid", "meter_spent", "meter_dense", "slots", "tokens"), 0
    )
    worst = 0.0
    for seed in range(batches):
        batch = batch_of(model, rows, share, seed)
        with metered() as meter:
            once = spent(model, masked, batch)
        count["spent"] += once
        count["needed"] += sum(spent(model, masked, alone(batch, row)) for row in range(rows))
        count["losses"] += spent(model, objective, batch) - once
        with densely():
            count["dense"] += spent(model, masked, batch)
        for name in ("valid", "spent", "dense"):
            count[f"meter_{name}"] += getattr(meter, name)
        count["tokens"] += sum(int(c.valid.sum()) for c in batch.cells.values())
        count["slots"] += sum(c.valid.numel() for c in batch.cells.values())
        packed = vectors(model, batch)
        with densely():
            padded = vectors(model, batch)
        worst = max(worst, *(float((packed[n] - padded[n]).abs().max()) for n in packed))
    out |= count
    out["wasted"] = 1 - count["needed"] / count["spent"]
    out["wasted_with_losses"] = 1 - count["needed"] / (count["spent"] + count["losses"])
    out["of_dense"] = count["spent"] / count["dense"]
    out["difference"] = worst
    return out


def main() -> int:
    """Print the table; 1 where more than 5 % is wasted or the two forms differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--presence", type=float, default=0.6)
    parser.add_argument("--layers", type=int, help="layers of each stage; by default the size's, and 1 for base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    results = []
    for size in asked.sizes:
        base = size == "base"
        rows, batches = (min(asked.rows, 6), 1) if base else (asked.rows, asked.batches)
        layers = asked.layers if asked.layers is not None else (1 if base else None)
        results.append(measure(size, rows, asked.presence, layers, batches))
    head = (
        "size",
        "layers",
        "rows",
        "valid slots",
        "needed GFLOP",
        "spent",
        "wasted",
        "with losses",
        "dense",
        "spent/dense",
        "difference",
    )
    lines = []
    for r in results:
        share = f"{r['tokens'] / r['slots']:.0%}"
        giga = (f"{r[name] / 1e9:.2f}" for name in ("needed", "spent"))
        rest = (
            f"{r['wasted']:.2%}",
            f"{r['wasted_with_losses']:.2%}",
            f"{r['dense'] / 1e9:.2f}",
            f"{r['of_dense']:.3f}",
            f"{r['difference']:.1e}",
        )
        lines.append((r["size"], r["layers"], r["rows"], share, *giga, *rest))
    print(f"presence {asked.presence:.0%}; forward passes; torch {torch.__version__}")
    print(table(head, lines))
    if asked.json is not None:
        asked.json.write_text(json.dumps(results, indent=1))
    return int(any(r["wasted"] > LIMIT or r["difference"] > 1e-5 for r in results))


if __name__ == "__main__":
    sys.exit(main())
