"""What the figures say, in sentences: who won, by how much, and when it is not clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polymodal.evaluate.controls import METRICS, Comparison
from polymodal.evaluate.intervals import Difference
from polymodal.evaluate.values import AS_IS, Result, subset_name

__all__ = ["Statement", "statements", "tally"]

_TASKS = {
    "label_map": "finding items of the same {label} (mAP)",
    "label_knn": "k-NN {label} accuracy",
    "instance_mrr": "finding the item's other modalities (MRR)",
}


@dataclass(frozen=True)
class Statement(Result):
    """One plain sentence and what it stands on.

    Args:
        verdict: `first` (the reference wins), `second` (the control wins) or `unclear` (the interval contains 0).
        text: the sentence. control, task, where: its parts; difference: reference minus control.
    """

    verdict: str
    text: str
    control: str
    task: str
    where: str
    difference: Difference


def statements(comparison: Comparison) -> tuple[Statement, ...]:
    """A sentence for every control and metric.

    Label metrics are read with whatever each item has (AS_IS) where that was measured, else on the largest subset both
    have. The instance metric needs modalities left over to find: it is read at the number of modalities with the most
    items, the smaller number on ties.
    """
    out = []
    for control in dict.fromkeys(row.control for row in comparison.differences):
        for metric in METRICS:
            found = _instance(comparison, control) if metric == "instance_mrr" else _label(comparison, control, metric)
            if found is not None:
                out.append(_statement(comparison, control, metric, *found))
    return tuple(out)


def _label(comparison: Comparison, control: str, metric: str) -> tuple[Difference, str] | None:
    rows = [r for r in comparison.differences if (r.control, r.metric) == (control, metric)]
    if not rows:
        return None
    chosen = next((r for r in rows if r.subset == AS_IS), max(rows, key=lambda r: len(r.subset)))
    return chosen.difference, "whatever each item has" if chosen.subset == AS_IS else subset_name(chosen.subset)


def _instance(comparison: Comparison, control: str) -> tuple[Difference, str] | None:
    rows = [
        (r.size, r.difference)
        for r in comparison.sizes
        if (r.control, r.metric) == (control, "instance_mrr") and r.difference is not None
    ]
    if not rows:
        return None
    size, gap = max(rows, key=lambda row: (row[1].n, -row[0]))
    return gap, "one modality" if size == 1 else f"{size} modalities"


def _statement(comparison: Comparison, control: str, metric: str, gap: Difference, where: str) -> Statement:
    task = _TASKS[metric].format(label=comparison.label)
    figures = f"{gap.mean:+.3f}, 95 % interval {gap.low:+.3f} to {gap.high:+.3f}, n = {gap.n}"
    ours = comparison.reference
    said = {
        "first": f"{ours} beats {control}",
        "second": f"{ours} does not win: {control} is better",
        "unclear": f"No clear difference between {ours} and {control}",
    }[gap.verdict]
    text = f"{said} at {task}, from {where} ({figures})."
    return Statement(gap.verdict, text, control, task, where, gap)


def tally(said: Sequence[Statement], reference: str) -> str:
    """One sentence over all statements, which says so when the reference does not win."""
    counts = {v: sum(s.verdict == v for s in said) for v in ("first", "second", "unclear")}
    lost = [f"{s.control} at {s.task}" for s in said if s.verdict == "second"]
    head = f"{reference} wins {counts['first']} of {len(said)} comparisons with its controls"
    open_ = f", {counts['unclear']} are unclear" if counts["unclear"] else ""
    tail = f", and does not win against {'; '.join(lost)}." if lost else ", and loses none."
    return head + open_ + tail
