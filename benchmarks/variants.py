"""How much variants of one product repeat each other, and what intervals over items would hide.

    python benchmarks/variants.py --run demo/run --data demo/shards --attribute price

Two tables. The first: of a number that is completed, the correlation of the errors of two variants (intraclass, by an
analysis of variance), and the share of true values that split conformal intervals hold when the held-out items are
halved into calibration and measurement by group, over many halvings: its mean is what the method promises, its spread
what a single halving can be off by. The second: how much wider the intervals of some figures are when whole groups are
drawn than when items are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from polymodal.evaluate import AS_IS, interval, knn_probe, linear_probe
from polymodal.evaluate.intervals import clusters_of, within
from polymodal.tasks.completion import radius, skewed
from polymodal.types import PolymodalError
from polymodal.workflow._attribute import decoded_records, find_attribute, hide, shares_of
from polymodal.workflow._ways import Neighbours, Numbers
from polymodal.workflow.completion import load_head
from polymodal.workflow.items import read_items
from polymodal.workflow.opened import Opened, open_task
from polymodal.workflow.retrieval import RetrieveSettings, retrieve_data

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def correlation(errors: Floats, groups: Ints) -> float:
    """Intraclass correlation of a one-way analysis of variance, groups of one left out of the variance within.

    Source: Donner 1986, "A review of inference procedures for the intraclass correlation coefficient".
    """
    sizes = np.bincount(groups)
    means = np.bincount(groups, errors) / sizes
    many = sizes > 1
    inside = float(((errors - means[groups]) ** 2).sum() / max((sizes[many] - 1).sum(), 1))
    between = float((sizes * (means - errors.mean()) ** 2).sum() / (len(sizes) - 1))
    typical = (len(errors) - (sizes**2).sum() / len(errors)) / (len(sizes) - 1)
    return (between - inside) / (between + (typical - 1) * inside)


def coverage(errors: Floats, groups: Ints, level: float, halvings: int, seed: int = 0) -> Floats:
    """Share of the errors inside the interval, in every halving of the groups, (halvings,)."""
    random, held, nothing = np.random.default_rng(seed), [], np.zeros(len(errors))
    for _ in range(halvings):
        first = (random.permutation(int(groups.max()) + 1) % 2 == 0)[groups]
        held.append(float((errors[~first] <= radius(errors[first], nothing[first], level)).mean()))
    return np.asarray(held)


def errors_of(opened: Opened, run: Path, wanted: str) -> tuple[dict[str, Floats], Ints]:
    """Of the held-out items: way -> how far its answer is from the hidden value, as `complete` has it, and the codes of
    the groups."""
    items = read_items(opened)
    attribute = find_attribute(opened, items, wanted)
    shares = shares_of(items, attribute, opened.embedder.recipe.split, 10_000)
    numbers = Numbers(opened, attribute, Neighbours.of(items, shares.known, 20), load_head(run, "auto")[0])
    records = decoded_records(opened, [*shares.calibrate, *shares.measure])
    records = [made for record in records if (made := hide(record, attribute, "attribute")).values]
    ids = [record.id for record in records]
    found = clusters_of(ids, opened.together)
    codes = np.arange(len(ids)) if found is None else found
    scale = np.log if skewed(numbers.known) else np.asarray
    truth = scale(np.asarray([attribute.values[i] for i in ids], np.float64))
    return {way: np.abs(scale(given) - truth) for way, given in numbers.answers(records)[0].items()}, codes


def width(values: Floats, ids: Sequence[str], together: Mapping[str, str]) -> tuple[int, int, float]:
    """Values, groups, and how many times as wide their interval is when groups are drawn."""
    known = np.isfinite(values)
    clusters = within(clusters_of(ids, together), known)
    if clusters is None:
        return int(known.sum()), int(known.sum()), 1.0
    items, groups = (interval(values[known], resamples=4000, clusters=c) for c in (None, clusters))
    return len(clusters), len(np.unique(clusters)), (groups.high - groups.low) / (items.high - items.low)


def widths(opened: Opened, run: Path, data: Path) -> list[dict[str, Any]]:
    """A line a figure: retrieval from whole items and the first label read from vectors, on the split `test`."""
    found = retrieve_data(run, data, RetrieveSettings(resamples=0))
    lines = [
        (f"{finding.title}: {name}, mAP@10", system.per_query["map@10"], system.query_ids)
        for finding in found.findings
        for name, system in finding.systems.items()
    ]
    label, values = opened.label(None)
    train, test = (opened.vectors(opened.records(split)).fused[AS_IS] for split in ("train", "test"))
    for made in (linear_probe(train, test, values, resamples=0), knn_probe(train, test, values, resamples=0)):
        right = np.asarray(list(made.correct.values()), np.float64)
        lines.append((f"{label} by {made.method}, accuracy", right, tuple(made.correct)))
    return [
        {"figure": name, **dict(zip(("n", "groups", "times"), width(v, ids, opened.together), strict=True))}
        for name, v, ids in lines
    ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both tables."""
    opened = open_task(options.run, options.data)
    errors, groups = errors_of(opened, options.run, options.attribute)
    ways = []
    for name, each in errors.items():
        known = np.isfinite(each)
        _, codes = np.unique(groups[known], return_inverse=True)
        held = coverage(each[known], codes, options.level, options.halvings)
        ways.append(
            {
                "way": name,
                "n": len(codes),
                "groups": int(codes.max()) + 1,
                "correlation": correlation(each[known], codes),
                "held": float(held.mean()),
                "spread": float(held.std(ddof=1)),
            }
        )
    return {"attribute": options.attribute, "level": options.level, "ways": ways,
            "widths": widths(opened, options.run, options.data)}  # fmt: skip


def show(found: Mapping[str, Any], console: Console) -> None:
    """Both tables for people."""
    table = Table(title=f"{found['attribute']}, intervals of {found['level']:.0%}")
    for name in ("by", "items", "groups", "correlation of errors", "held, mean of halvings", "spread"):
        table.add_column(name)
    for one in found["ways"]:
        figures = (f"{one[name]:.3f}" for name in ("correlation", "held", "spread"))
        table.add_row(one["way"], str(one["n"]), str(one["groups"]), *figures)
    console.print(table)
    table = Table(title="intervals of groups, in widths of those of items")
    for name in ("figure", "n", "groups", "times as wide"):
        table.add_column(name)
    for one in found["widths"]:
        table.add_row(one["figure"], str(one["n"]), str(one["groups"]), f"{one['times']:.2f}")
    console.print(table)


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Parse, measure, print; returns what was measured."""
    parser = argparse.ArgumentParser(prog="variants.py", description="How much variants repeat each other.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--attribute", default="price", help="of numbers")
    parser.add_argument("--level", type=float, default=0.8)
    parser.add_argument("--halvings", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    found = measure(options)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show(found, Console(width=120))
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PolymodalError as error:
        sys.exit(str(error))
