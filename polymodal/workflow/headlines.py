"""The few numbers on top: what is looked at first, for the page and for the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from polymodal.evaluate import AS_IS, Classification, Comparison, Headline, Report
from polymodal.workflow.probes import probe_name

__all__ = ["figures", "with_headlines"]


def with_headlines(report: Report, label: str | None) -> Report:
    """The report with its headlines."""
    return replace(report, headlines=tuple(_headlines(figures(report, label), label)))


def figures(report: Report, label: str | None) -> dict[str, Any]:
    """Plain numbers: cross-modal R@1 with chance, fused against each control, probes of every label."""
    return {
        "retrieval": _retrieval(report),
        "controls": {} if label is None or not report.comparisons else _controls(report.comparisons[0]),
        "probes": _probes(report.probes),
        "label": label,
    }


def _retrieval(report: Report) -> dict[str, dict[str, float]]:
    """`text → image` -> R@1 of item vectors of that modality alone (what a search does), of towers, and chance."""
    out: dict[str, dict[str, float]] = {}
    for name, found in report.retrievals.items():
        query, arrow, target = name.partition(" → ")
        if not arrow:
            continue
        cell = report.matrix.cell(frozenset({query}), frozenset({target})) if report.matrix else None
        hit = found.metrics["hit@1"]
        out[name] = {
            "r_at_1": hit.mean, "low": hit.low, "high": hit.high, "chance": found.chance["hit@1"],
            "r_at_10": found.metrics["hit@10"].mean, "queries": found.queries, "corpus": found.corpus,
        }  # fmt: skip
        if cell is not None:
            one, ten = cell.metrics["hit@1"], cell.metrics["hit@10"]
            out[name] |= {
                "r_at_1": one.mean, "low": one.low, "high": one.high, "chance": cell.chance["hit@1"],
                "r_at_10": ten.mean, "tower_r_at_1": hit.mean, "queries": cell.queries, "corpus": cell.corpus,
            }  # fmt: skip
    return out


def _controls(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Control -> its label mAP on items as they are, and what fused has more on the items that both have."""
    out: dict[str, dict[str, Any]] = {}
    for row in comparison.scores:
        if row.subset != AS_IS or row.metric != "label_map":
            continue
        gap = comparison.difference(row.control)
        out[row.control] = {"map": row.score.mean, "low": row.score.low, "high": row.score.high, "items": row.score.n}
        if gap is not None:
            out[row.control] |= {
                "fused_minus": gap.mean,
                "fused_minus_low": gap.low,
                "fused_minus_high": gap.high,
                "verdict": gap.verdict,
            }
    return out


def _probes(probes: tuple[Classification, ...]) -> dict[str, dict[str, float]]:
    return {
        p.name: {
            "accuracy": p.accuracy.mean,
            "low": p.accuracy.low,
            "high": p.accuracy.high,
            "chance": p.chance,
            "tested": p.tested,
        }
        for p in probes
        if p.method == "linear"
    }


def _headlines(found: dict[str, Any], label: str | None) -> list[Headline]:
    out = []
    for name in ("text → image", "image → text"):
        if name in found["retrieval"]:
            one = found["retrieval"][name]
            times = one["r_at_1"] / one["chance"] if one["chance"] else 0.0
            note = (
                f"{times:.0f} times chance ({one['chance']:.1%}), {one['queries']} queries over {one['corpus']} items"
            )
            out.append(Headline(f"{one['r_at_1']:.1%}", f"{name}, R@1", note))
    controls = found["controls"]
    if "fused" in controls:
        ours = controls["fused"]
        out.append(
            Headline(
                f"{ours['map']:.3f}", f"fused, mAP of the same {label}", f"95 % {ours['low']:.3f} to {ours['high']:.3f}"
            )
        )
        single = [name for name in controls if name.endswith(" alone")]
        hardest = min(single, key=lambda name: controls[name]["fused_minus"], default="")
        wanted = (hardest, "zero imputation", "mean fusion")
        out += [_against(control, controls[control]) for control in wanted if control in controls]
    for probe, value in _best_probes(found["probes"], label):
        out.append(
            Headline(
                f"{value['accuracy']:.1%}", probe, f"linear probe; always the most frequent: {value['chance']:.1%}"
            )
        )
    return out


def _against(control: str, one: dict[str, Any]) -> Headline:
    said = {"first": "fused is better", "second": "fused is worse", "unclear": "no clear difference"}[one["verdict"]]
    note = f"{said}; 95 % {one['fused_minus_low']:+.3f} to {one['fused_minus_high']:+.3f}"
    return Headline(f"{one['fused_minus']:+.3f}", f"fused minus {control}, mAP", note)


def _best_probes(probes: dict[str, dict[str, float]], label: str | None) -> list[tuple[str, dict[str, float]]]:
    """The chosen label from fused; and the labels that one modality alone tells, from fused where it is there."""
    out = (
        [(probe_name(label, "fused"), probes[probe_name(label, "fused")])]
        if label and probe_name(label, "fused") in probes
        else []
    )
    out += [(name, value) for name, value in probes.items() if ", items with " in name and _is_private(name, probes)]
    return out


def _is_private(name: str, probes: dict[str, dict[str, float]]) -> bool:
    """Whether the label is told by one modality well, and by no other much better than by chance."""
    label, _, rest = name.partition(" from fused, items with ")
    single = {
        p.removeprefix(f"{label} from "): v
        for p, v in probes.items()
        if p.startswith(f"{label} from ") and "fused" not in p
    }
    others = [v["accuracy"] - v["chance"] for source, v in single.items() if source != rest]
    own = single.get(rest)
    return own is not None and own["accuracy"] - own["chance"] > 0.2 and all(gap < 0.15 for gap in others)
