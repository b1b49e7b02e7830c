"""Methods against one another on the real catalogues: `polymodal compare` with these sets' catalogues made first.

    python benchmarks/compare_real.py luma --data ../shared/data --out /tmp/compare-luma --methods scale clip
    python benchmarks/compare_real.py grocery luma stamps --out /tmp/compared --budget-steps 300

A set that is not there is said to be missing and skipped. What to know when reading:

- grocery: coarse is one of 43 kinds, fine one of 81 products. Iconic picture and text exist once per product, and test
  products are training products: with either among the modalities both are nearly given away. `--modalities photo`
  leaves them out.
- luma: colour variants, without the reviews. Coarse is the category, fine the product; other colours of a product are
  near duplicates that share their text.
- stamps: coarse is the category, fine the English title, which is also the text. Voices are mostly French.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from _real_grocery import Grocery
from _real_luma import REVIEW, Luma
from _real_stamps import Stamps
from rich.console import Console

from polymodal.bench._shown import bench_text
from polymodal.compare import Compared, CompareSettings, compare
from polymodal.types import PolymodalError

# what counts as the same in coarse retrieval
LABELS = {"grocery": "coarse", "luma": "category", "stamps": "category"}
TASKS = {"grocery": Grocery, "luma": Luma, "stamps": Stamps}


def is_there(name: str, data: Path) -> bool:
    """Whether a set is in `data`; said where it is not."""
    found = (data / name / "records.parquet").is_file()
    if not found:
        print(f"{name}: not in {data}, skipped", file=sys.stderr)
    return found


def make_catalogue(name: str, data: Path, folder: Path) -> tuple[str, ...]:
    """The catalogue of a set in `folder`, once; the modalities that are compared."""
    task = TASKS[name](data)
    if not (folder / "catalogue.toml").is_file():
        task.catalogue(folder)
        if name == "luma":
            table = pq.read_table(folder / "items.parquet")
            kept = table.filter(pc.invert(pc.starts_with(table["record_id"], REVIEW)))
            pq.write_table(kept, folder / "items.parquet")
    return task.modalities()


def run(name: str, options: argparse.Namespace, console: Console | None) -> Compared | None:
    """One set compared; None where it is not there."""
    if not is_there(name, options.data):
        return None
    folder = options.out / name
    own = make_catalogue(name, options.data, folder / "catalogue")
    steps = 300 if options.budget_steps is None and options.budget_seconds is None else options.budget_steps
    settings = CompareSettings(
        methods=tuple(options.methods),
        modalities=tuple(options.modalities or [",".join(own)]),
        seeds=tuple(options.seeds),
        steps=steps,
        seconds=options.budget_seconds,
        settings=tuple(options.settings),
        label=LABELS[name],
        split=options.on,
        max_items=options.max_items,
    )
    said = shlex.join(["python", *sys.argv])
    return compare(folder / "catalogue", folder / "compared", settings, console=console, command=said)


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="compare_real.py", description="Compare methods on real catalogues.")
    parser.add_argument("names", nargs="+", choices=sorted(TASKS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=[], help="recipes, RECIPE:SETTING;SETTING; all by default")
    parser.add_argument("--modalities", nargs="+", default=[], help="sets; what the set is good for by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget-steps", type=int)
    parser.add_argument("--budget-seconds", type=float)
    parser.add_argument("--on", choices=("val", "test"), default="test")
    parser.add_argument("--max-items", type=int, default=1000)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str]) -> dict[str, Any]:
    """Compare on each set; set -> the content of its compare.json."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {}
    for name in options.names:
        made = run(name, options, Console(stderr=True))
        if made is None:
            continue
        found[name] = made.to_json()
        if not options.json:
            where = str(made.folder / "compare.md")
            Console(width=160).print(bench_text(name, made.shown, made.result.findings, where))
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PolymodalError as error:
        sys.exit(str(error))
