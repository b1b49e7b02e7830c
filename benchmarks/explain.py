"""Explanations of a model of the demo against what the demo's generator planted.

    polymodal demo demo
    python benchmarks/explain.py --run demo/run --data demo/shards --truth demo/catalogue --out runs/explain.json

Three questions. Does the mean value of a modality for a label rank with the share of items in which that modality tells
the label, as the table in `polymodal/catalogue/demo.py` has it? Does the value of an item's table (title) for a label
rank with whether that table names it (that title names the category), item by item? With a model that reads patches:
does attention to a patch rank with what painting it over changes?

p of the first by permuting the modalities within each label, 10,000 seeded draws; of the others by `spearman`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from polymodal.catalogue.demo import Truth
from polymodal.evaluate.explain import spearman
from polymodal.tasks import worth as task
from polymodal.tasks.attend import attend, grid_of, occlusion
from polymodal.types import Record
from polymodal.workflow.explaining import all_subsets, others_of
from polymodal.workflow.opened import Opened, open_task

NAMES = ("image", "text", "table", "video", "audio")
# share of the items in which a modality tells the label; 0.1 for a hint that another factor leaves. The category, which
# four modalities tell in part and no number says how well, is left out.
PLANTED = {
    "shape": (1.0, 0.51, 0.1, 1.0, 0.0),
    "colour": (1.0, 0.80, 0.62, 1.0, 0.0),
    "material": (1.0, 0.60, 0.85, 0.0, 0.0),
    "brand": (0.5, 0.51, 0.85, 0.0, 0.0),
    "size": (0.1, 0.43, 0.85, 0.1, 0.0),
    "motion": (0.1, 0.21, 0.1, 1.0, 0.0),
    "sound": (0.0, 0.0, 0.0, 0.0, 1.0),
    "origin": (0.0, 0.0, 1.0, 0.0, 0.0),
}
NAMED = ("colour", "material", "brand", "size", "origin")  # attributes that a table may leave out


def readings(opened: Opened, found: Any) -> dict[str, dict[str, task.Reading]]:
    """Label -> name of a reading -> reading."""
    names = [n for n in NAMES if n in opened.embedder.modalities]
    out = {}
    for label, keys in opened.labels.items():
        values = task.precision_values(found.fused, found.presence, names, keys)
        made = task.worth(values, others_of(opened, found, values), resamples=0)
        out[label] = {one.name: one for one in made.readings}
    return out


def probes(opened: Opened, learnt: Any, found: Any) -> dict[str, list[float]]:
    """Label -> bits that a probe reads from each modality alone."""
    out = {}
    for label in PLANTED:
        bits = task.probe_bits(learnt.fused, found.fused, NAMES, opened.labels[label], resamples=0)
        out[label] = [bits[name].mean for name in NAMES]
    return out


def splits(opened: Opened, learnt: Any, found: Any) -> dict[str, dict[str, list[float]]]:
    """Part of the information -> label -> bits of each modality, mean over the pairs that it is in."""
    out: dict[str, dict[str, list[float]]] = {f"{part} in pairs, bits": {} for part in ("unique", "shared", "synergy")}
    for label in PLANTED:
        pairs = task.pair_splits(learnt.fused, found.fused, NAMES, opened.labels[label], resamples=0)
        both = [(p.first, p.unique_first, p) for p in pairs] + [(p.second, p.unique_second, p) for p in pairs]
        for part in ("unique", "shared", "synergy"):
            out[f"{part} in pairs, bits"][label] = [
                float(
                    np.mean([(own if part == "unique" else getattr(p, part)).mean for n, own, p in both if n == name])
                )
                for name in NAMES
            ]
    return out


def over_catalogue(means: dict[str, list[float]], draws: int = 10_000) -> dict[str, Any]:
    """Mean over labels of the rank correlation of five modalities with what was planted, and its p."""
    random = np.random.default_rng(0)
    found, null = [], np.zeros(draws)
    for label, planted in PLANTED.items():
        x, y = (_ranks(np.asarray(v)) for v in (means[label], planted))
        scale = max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12)  # all alike: a reading that ranks nothing
        found.append(float(x @ y / scale))
        orders = random.permuted(np.tile(np.arange(len(NAMES)), (draws, 1)), axis=1)
        null += y[orders] @ x / scale
    rho = float(np.mean(found))
    p = (1 + int((np.abs(null / len(PLANTED)) >= abs(rho) - 1e-12).sum())) / (draws + 1)
    return {"rho": rho, "p": p, "labels": dict(zip(PLANTED, found, strict=True))}


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks - ranks.mean()


def _rho(a: np.ndarray, b: np.ndarray) -> float:
    x, y = _ranks(a), _ranks(b)
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12))


def in_items(found: dict[str, dict[str, task.Reading]], ids: tuple[str, ...], told: dict[str, Any]) -> dict[str, Any]:
    """Question -> reading -> rank correlation with whether the cell tells the label, over the items that have it."""
    out: dict[str, Any] = {}
    for (label, modality), yes in told.items():
        column = NAMES.index(modality)
        for name, one in found[label].items():
            known = [(one.per_item[row, column], float(yes[i])) for row, i in enumerate(ids) if i in yes]
            kept = [(v, t) for v, t in known if np.isfinite(v)]
            if len({t for _, t in kept}) == 2:
                c = spearman([v for v, _ in kept], [t for _, t in kept])
                out.setdefault(f"{modality} tells {label}", {})[name] = {"rho": c.rho, "p": c.p, "n": c.n}
    return out


def told_by(records: list[Record], truth: Truth) -> dict[tuple[str, str], dict[str, bool]]:
    """(label, modality) -> id -> whether the item's cell tells the label."""
    wording = dict(zip(truth.ids, truth["wording"].tolist(), strict=True))
    swapped = truth.swapped()
    tables = {r.id: {str(name) for name, _ in r.values["table"]} for r in records if "table" in r.values}
    out: dict[tuple[str, str], dict[str, bool]] = {
        (label, "table"): {i: label in names for i, names in tables.items()} for label in NAMED
    }
    out["category", "text"] = {r.id: wording[r.id] == "exact" for r in records if "text" in r.values}
    out["category", "image"] = {r.id: r.id not in swapped for r in records if "image" in r.values}
    return out


def looking(opened: Opened, records: list[Record], most: int) -> dict[str, Any]:
    """Attention of the summary token to patches of the picture against occlusion of those patches, item by item."""
    looked: dict[str, list[np.ndarray]] = {"last layer": [], "rollout": []}
    moved: list[np.ndarray] = []
    shape = (0, 0)
    for record in [r for r in records if "image" in r.values][:most]:
        seen = attend(opened.embedder, record)
        grid = grid_of(seen.fields["image"])
        if grid is None:
            return {}
        shape = grid.shape
        moved.append(occlusion(opened.embedder, record, "image", shape=grid.shape).ravel())
        item, patches = seen.of("item")[0], seen.of("image")
        for name, matrix in (("last layer", seen.last), ("rollout", seen.rollout())):
            looked[name].append(grid.fill(matrix[item, patches]).ravel())
    random = np.random.default_rng(0)
    out: dict[str, Any] = {"items": len(moved), "grid": shape}
    # goods stand in the middle of their pictures: the map of another item ranks too
    looked |= {f"{name}, another item's": [*maps[1:], maps[0]] for name, maps in list(looked.items())}
    for name, maps in looked.items():
        rho = [_rho(a, b) for a, b in zip(maps, moved, strict=True)]
        mean = random.choice(rho, (2000, len(rho))).mean(1)
        low, high = np.quantile(mean, [0.025, 0.975]).tolist()
        out[name] = {"rho": float(np.mean(rho)), "low": low, "high": high}
    return out


def main() -> None:
    """Prints and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True, help="the catalogue that has truth.parquet")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--looking", type=int, default=0, help="items whose attention is compared with occlusion")
    parser.add_argument("--only-looking", action="store_true")
    args = parser.parse_args()
    opened = open_task(args.run, args.data)
    records = opened.records("test")
    out: dict[str, Any] = {}
    if not args.only_looking:
        found = opened.vectors(records, "test", all_subsets(NAMES))
        made = readings(opened, found)
        means = {
            name: {label: np.nanmean(made[label][name].per_item, 0).tolist() for label in PLANTED}
            for name in next(iter(made.values()))
        }
        learnt = opened.vectors(opened.records("train"), "train", [frozenset({n}) for n in NAMES])
        with threadpool_limits(1):
            means["probe, bits"] = probes(opened, learnt, found)
            means |= splits(opened, learnt, found)
        out["catalogue"] = {name: over_catalogue(one) for name, one in means.items()}
        out["means"] = means
        told = told_by(records, Truth.read(args.truth))
        present = tuple(found.fused[frozenset()].ids)
        out["items"] = in_items(made, present, told)
    if args.looking:
        out["attention"] = looking(opened, records, args.looking)
    text = json.dumps(out, indent=1)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
