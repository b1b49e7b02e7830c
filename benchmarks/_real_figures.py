"""Figures out of the JSON that the commands of the tasks print: name -> value, controls among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Figures = dict[str, float]
Printed = Mapping[str, Any]

MAP, CROSSED = "map@10", ("calibrated", "mean cosine", "random order")


def _mean(value: Any) -> float:
    """The mean of an interval, or a plain number; NaN where JSON has null."""
    plain = value["mean"] if isinstance(value, Mapping) else value
    return float("nan") if plain is None else float(plain)


def retrieve(printed: Printed) -> Figures:
    """mAP@10 of every search, and of a random order."""
    found: Figures = {}
    for one in printed["findings"]:
        for name, system in one["systems"].items():
            found[f"{one['title']}, mAP@10: {name}"] = _mean(system["metrics"][MAP])
            found[f"{one['title']}, mAP@10: random"] = _mean(system["chance"][MAP])
    return found


def classify(printed: Printed) -> Figures:
    """Accuracy and mean recall of the probe, accuracy of its controls, each on the items that it can judge."""
    scored = printed["scored"]
    found = {"accuracy: probe": _mean(scored["accuracy"]), "mean recall: probe": _mean(scored["balanced"])}
    for control in scored["controls"]:
        found[f"accuracy: {control['name']} ({control['items']})"] = _mean(control["accuracy"])
    return found | {"share of the items whose input names the label": _mean(printed["leak"]["share"])}


def cluster(printed: Printed) -> Figures:
    """NMI and purity of the clusters with each label, and of shuffled labels."""
    found: Figures = {}
    for one in printed["agreements"]:
        for score in ("nmi", "purity"):
            found[f"{one['label']}, {score}: fused"] = _mean(one[score])
            found[f"{one['label']}, {score}: by chance"] = _mean(one["by_chance"][score])
    return found


def dedup(printed: Printed) -> Figures:
    """Average precision of the planted copies; precision and recall at the derived threshold."""
    planted = printed["planted"]
    found = {f"planted copies, AP: {r['name']}": _mean(r["average_precision"]) for r in planted["rankings"]}
    return found | {f"planted copies, {name}": _mean(planted[name]) for name in ("precision", "recall")}


def mismatch(printed: Printed) -> Figures:
    """Average precision of the planted exchanges."""
    found: Figures = {}
    for planted in printed["planted"]:
        for ranking in planted["rankings"]:
            if ranking["name"] in CROSSED:
                found[f"wrong {planted['modality']}, AP: {ranking['name']}"] = _mean(ranking["average_precision"])
    return found


def complete(printed: Printed) -> Figures:
    """Accuracy of every way on hidden cells."""
    return {
        f"{printed['attribute']}, {hidden} hidden, accuracy: {way['name']}": _mean(way["accuracy"])
        for hidden, ways in printed["hidden"].items()
        for way in ways
    }


def outliers(printed: Printed) -> Figures:
    """AUROC of values that were left out."""
    return {f"unknown values, AUROC: {one['score']}": _mean(one["auroc"]) for one in printed["unknown"]}


def recommend(printed: Printed) -> Figures:
    """Recall and nDCG of the first ten."""
    found: Figures = {}
    for section in printed["sections"]:
        for method in section["methods"]:
            for metric in ("recall@10", "ndcg@10"):
                found[f"{section['kind']}, {metric}: {method['name']}"] = _mean(method["metrics"][metric])
    return found


def explain(printed: Printed) -> Figures:
    """How often a reading points at an exchanged cell, and how it ranks with what deleting a modality costs."""
    found: Figures = {}
    for one in printed["detections"]:
        found[f"exchanged cell, share found: {one['name']}"] = _mean(one["found"])
        found["exchanged cell, share found: by chance"] = _mean(one["chance"])
    for name, one in printed["foretold"].items():
        found[f"loss by deletion, rank correlation: {name}"] = _mean(one["rho"])
    return found


READERS: dict[str, Callable[[Printed], Figures]] = {
    "retrieve": retrieve,
    "classify": classify,
    "cluster": cluster,
    "dedup": dedup,
    "mismatch": mismatch,
    "complete": complete,
    "outliers": outliers,
    "recommend-eval": recommend,
    "explain": explain,
}
