"""What `polymodal classify` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.evaluate import Difference, Interval
from polymodal.tasks.scoring import Scored
from polymodal.workflow.classify import ClassifyResult

__all__ = ["classify_text"]

_CLASSES = 20
_VERDICTS = {"first": "better", "second": "worse", "unclear": "unclear"}


def classify_text(result: ClassifyResult) -> RenderableType:
    """Figures, controls and classes where items were scored; where the files are."""
    parts: list[RenderableType] = []
    if result.scored is not None:
        parts += _figures(result, result.scored)
    parts += [Text(note, style="dim") for note in result.notes]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(result).items():
        facts.add_row(name, Text(value))
    return Group(*parts, facts)


def _figures(result: ClassifyResult, scored: Scored) -> list[RenderableType]:
    honest = scored.calibration
    head = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    head.title = f"{result.label} by {result.method}: {scored.tested} items, learnt from {scored.trained}"
    for name in ("", "value", "95 %"):
        head.add_column(name, justify="left")
    rows = [("accuracy", scored.accuracy), ("mean recall over values", scored.balanced)]
    rows += [(f"  {band.name}, {band.n} items", band.score) for band in scored.bands]
    for name, found in rows:
        head.add_row(name, f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}")
    ece = f"{honest.ece.low:.3f} to {honest.ece.high:.3f}; {honest.before:.3f} before the temperature"
    head.add_row("calibration error (ECE)", f"{honest.ece.mean:.3f}", f"{ece}; {honest.floor:.3f} if perfectly honest")
    for least, share, right in honest.sure:
        if least in (0.8, 0.95) and share > 0:
            head.add_row(f"  {least:.0%} sure or more", f"{right:.3f}", f"accuracy of {share:.0%} of the items")
    parts: list[RenderableType] = [head, Text("")]
    if scored.controls:
        parts += [_controls(scored), Text("")]
    return [*parts, _classes(scored), Text("")]


def _controls(scored: Scored) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title="Against", title_justify="left")
    for name in ("control", "items", "accuracy", "ours minus it", "", "recall", "ours minus it"):
        table.add_column(name, justify="right" if name not in ("control", "") else "left", no_wrap=True)
    for one in scored.controls:
        gaps = (_gap(one.difference), _VERDICTS[one.difference.verdict], _mean(one.balanced))
        table.add_row(Text(one.name), str(one.items), _mean(one.accuracy), *gaps, _gap(one.difference_balanced))
    return table


def _classes(scored: Scored) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title="By value", title_justify="left")
    for name in ("value", "learnt", "tested", "predicted", "recall", "95 %", "precision", "95 %"):
        table.add_column(name, justify="left" if name == "value" else "right")
    for one in scored.classes[:_CLASSES]:
        counts = (str(one.trained), str(one.tested), str(one.predicted))
        table.add_row(Text(one.name), *counts, *_pair(one.recall), *_pair(one.precision))
    if len(scored.classes) > _CLASSES:
        table.add_row(f"… and {len(scored.classes) - _CLASSES} more in the report")
    return table


def _mean(found: Interval) -> str:
    return f"{found.mean:.3f}"


def _pair(found: Interval) -> tuple[str, str]:
    return (f"{found.mean:.3f}", f"{found.low:.2f} to {found.high:.2f}") if found.n else ("-", "")


def _gap(found: Difference) -> str:
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _facts(result: ClassifyResult) -> dict[str, str]:
    how = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in result.learnt.items())
    facts = {
        "learnt": how,
        "predictions": f"{result.predicted} in {result.out}, {result.unknown} of them of items without the label",
        "report": str(result.report),
        "classifier": str(result.folder),
    }
    if result.empty:
        facts["left out"] = f"{result.empty} items with nothing that the model reads"
    return facts
