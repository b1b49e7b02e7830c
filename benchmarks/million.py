"""What a catalogue of M5Product's statistics costs: bytes, seconds and peak memory of each step, each in a process.

python benchmarks/million.py --rows 1000000 --out /tmp/million        # the folder is removed at the end
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH, BATCHES = 256, 200


def generate(folder: Path, rows: int) -> dict[str, Any]:
    """The catalogue written, and what it holds by its own account."""
    from polymodal.catalogue.scale_up import ScaleUpConfig
    from polymodal.catalogue.scale_up import generate as make

    made = make(folder, ScaleUpConfig(rows=rows))
    return {
        "MB": round(made.bytes / 1e6, 1),
        "bytes a row": round(made.bytes / rows),
        "complete": made.complete / rows,
        "unimodal": made.unimodal / rows,
        "categories": made.categories,
        "present": {name: count / rows for name, count in made.present.items()},
    }


def opened(folder: Path, _: int) -> dict[str, Any]:
    """The index, which is all that stays in memory."""
    from polymodal.catalogue.reader import Catalogue

    catalogue = Catalogue.open(folder)
    return {"rows": len(catalogue), "blocks": len(catalogue.blocks), "index MB": round(catalogue.index.nbytes / 1e6, 1)}


def audited(folder: Path, _: int) -> dict[str, Any]:
    """`polymodal audit --no-decode`: what the catalogue holds by the account of whoever reads it."""
    from polymodal.workflow.checking import audit_data

    found = audit_data(folder, decode=False)
    label = found.labels["category"]
    return {
        "rows": found.rows,
        "complete": next(n for name, n in found.patterns.items() if name.count("+") == 4) / found.rows,
        "unimodal": sum(n for name, n in found.patterns.items() if "+" not in name) / found.rows,
        "attribute names": len(found.attributes["table"]),
        "pairs a table": sum(a["rows"] for a in found.attributes["table"].values())
        / found.modalities["table"]["present"],
        "head, torso, tail": [label[part]["values"] for part in ("head", "torso", "tail")],
        "quarantined": sum(sum(reasons.values()) for reasons in found.reasons.values()),
    }


def streamed(folder: Path, _: int) -> dict[str, Any]:
    """The block-shuffled batches of a training run, decoded; memory in use after a fifth of them and at the end."""
    from polymodal.catalogue.loader import Loader
    from polymodal.catalogue.sampler import BlockShuffle
    from polymodal.workflow.training import decoders, find_recipe, open_rows, split_rows

    catalogue = open_rows(folder)
    sampler = BlockShuffle(catalogue.blocks, split_rows(catalogue, "train"), seed=0)
    loader = Loader(
        catalogue, decoders(find_recipe("scale", catalogue.modalities)), sampler, batch_size=BATCH, cache_bytes=1 << 28
    )
    before, start, early = _own(), time.perf_counter(), 0.0
    for number, _ in enumerate(loader.batches(loader.start(), epochs=1), 1):
        if number == BATCHES // 5:
            early = _own()
        if number == BATCHES:
            break
    seconds = time.perf_counter() - start
    return {
        "train rows": len(sampler),
        "rows a second": round(number * BATCH / seconds),
        "own MB before": before,
        "own MB after a fifth": early,
        "own MB at the end": _own(),
    }


STEPS = {"generate": generate, "open": opened, "audit": audited, "stream": streamed}


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _own() -> float:
    """Memory in use now that is not a mapped file, which the system takes back when it wants to."""
    status = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024, 1)


def main() -> None:
    """All steps, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", choices=STEPS, help="this one alone, in this process; the folder stays")
    options = parser.parse_args()
    if options.step:
        start = time.perf_counter()
        found = STEPS[options.step](options.out, options.rows)
        seconds = round(time.perf_counter() - start, 1)
        print(json.dumps({"step": options.step, "seconds": seconds, "peak MB": _peak(), "own MB": _own(), **found}))
        return
    try:
        for step in STEPS:
            command = [sys.executable, __file__, "--rows", str(options.rows), "--out", str(options.out), "--step", step]
            subprocess.run(command, check=True)
    finally:
        shutil.rmtree(options.out, ignore_errors=True)


if __name__ == "__main__":
    main()
