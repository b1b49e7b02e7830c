"""SCALE's self-harmonised weights against plain controls on the generated catalogue, over seeds.

    polymodal demo demo --only-data && polymodal prepare demo/catalogue demo/shards
    python benchmarks/harmonise.py --data demo/shards --seeds 0 1 2 --out runs/harmonise

Variants differ in one field each: "harmonised" is the recipe as it is; "equal weights" has harmonise.form=none; "as
released" multiplies logits with the row-normalised weights themselves (mean_one=false); "zero imputation" attends blank
cells where a modality is absent, in training and in use. A finished run in --out is not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from polymodal.embed import Embedder
from polymodal.evaluate import by_id, by_key, linear_probe, mean_fusion, retrieve
from polymodal.types import Embeddings, Record
from polymodal.workflow.training import find_recipe, open_rows, split_rows, train

VARIANTS = {
    "harmonised": [],
    "equal weights": ["objective.harmonise.form=none"],
    "as released": ["objective.harmonise.mean_one=false"],
    "zero imputation": ["train.zero_imputation=true"],
}


def records(data: Path, split: str) -> list[Record]:
    """The records of a split, in the order of the catalogue."""
    rows = open_rows(data)
    wanted = set(split_rows(rows, split).tolist())
    every = (record for number in range(len(rows.blocks)) for record in rows.block(number))
    return [record for at, record in enumerate(every) if at in wanted]


def scores(run: Path, train_rows: list[Record], test_rows: list[Record]) -> dict[str, float]:
    """The figures of one run."""
    embedder = Embedder.load(run)
    has = {name: [r for r in test_rows if name in r.values] for name in embedder.modalities}
    labels = {name: {r.id: r.labels[name] for r in train_rows + test_rows} for name in ("category", "sound", "origin")}
    train_vectors, vectors = embedder.vectors(train_rows), embedder.vectors(test_rows)
    out = {}
    for query, target in (("text", "image"), ("image", "text"), ("text", "table"), ("image", "video")):
        both = [r for r in has[query] if target in r.values]
        a = embedder.vectors(both, ["item"], only=[query])["item"]
        b = embedder.vectors(both, ["item"], only=[target])["item"]
        out[f"{query} -> {target} R@1"] = retrieve(a, b, by_id(a.ids, b.ids), metrics=["hit@1"]).metrics["hit@1"].mean
        out[f"{query} -> {target} R@10"] = (
            retrieve(a, b, by_id(a.ids, b.ids), metrics=["hit@10"]).metrics["hit@10"].mean
        )
    fused = vectors["item"]
    mean = mean_fusion({m: vectors[m] for m in embedder.modalities})
    singles = {m: vectors[m] for m in embedder.modalities}
    for name, found in {"fused": fused, "mean fusion": mean, **singles}.items():
        judged = by_key(found.ids, found.ids, labels["category"])
        out[f"category mAP, {name}"] = retrieve(found, found, judged, metrics=["map"]).metrics["map"].mean
    out["category probe, fused"] = linear_probe(train_vectors["item"], fused, labels["category"]).accuracy.mean
    for factor, owner in (("sound", "audio"), ("origin", "table")):
        ids = {r.id for r in has[owner]}
        out[f"{factor} probe, fused of rows with {owner}"] = _probe(
            train_vectors["item"], fused, labels[factor], ids, train_rows, owner
        )
    return {name: float(value) for name, value in out.items()}


def _probe(
    train_vectors: Embeddings, test: Embeddings, labels: dict[str, str], ids: set[str], rows: list[Record], owner: str
) -> float:
    known = {r.id for r in rows if owner in r.values}
    return linear_probe(_only(train_vectors, known), _only(test, ids), labels).accuracy.mean


def _only(vectors: Embeddings, ids: set[str]) -> Embeddings:
    at = [n for n, name in enumerate(vectors.ids) if name in ids]
    return Embeddings(tuple(vectors.ids[n] for n in at), vectors.vectors[at], vectors.model)


def main() -> None:
    """Train what is missing, print a table of mean and range over seeds, write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--set", nargs="*", default=[], help="recipe settings for every variant")
    arguments = parser.parse_args()
    sides = [records(arguments.data, split) for split in ("train", "test")]
    found: dict[str, dict[int, dict[str, float]]] = {}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            run = arguments.out / f"{variant.replace(' ', '-')}-{seed}"
            if not (run / "model").exists():
                recipe = find_recipe("scale", open_rows(arguments.data).modalities)
                settings = [f"train.seed={seed}", *VARIANTS[variant], *arguments.set]
                train(recipe.replace(data=str(arguments.data)).override(settings), run)
            found.setdefault(variant, {})[seed] = scores(run, sides[0], sides[1])
            print(f"{variant}, seed {seed}: done", flush=True)
    (arguments.out / "results.json").write_text(json.dumps(found, indent=1))
    metrics = list(next(iter(found[arguments.variants[0]].values())))
    print(f"\n{'mean (least - most) over seeds':42s}" + "".join(f"{v:>24s}" for v in found))
    for metric in metrics:
        cells = [np.array([found[v][s][metric] for s in found[v]]) for v in found]
        print(f"{metric:42s}" + "".join(f"{c.mean():9.3f} ({c.min():.3f}-{c.max():.3f})" for c in cells))


if __name__ == "__main__":
    main()
