"""What `polymodal outliers` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.workflow.outliers import OutlierResult, Planted
from polymodal.workflow.printing import short_text

__all__ = ["outlier_text"]

_CONTROLS = ("nearest known", "distance to mean", "random")


def outlier_text(result: OutlierResult, shown: int = 15) -> RenderableType:
    """The strangest items, how well strangers are noticed, where the files are."""
    parts: list[RenderableType] = [_strangest(result, shown), Text("")]
    if result.unknown:
        parts += [_unknown(result), Text("")]
    for planted in result.planted:
        parts += [_planted(planted), Text("")]
    parts += [Text(note, style="dim") for note in result.notes]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    if result.unreadable:
        total = sum(result.unreadable.values())
        facts.add_row(
            "unreadable", f"{total} cells or files: {', '.join(f'{w} {n}' for w, n in result.unreadable.items())}"
        )
    if result.broken:
        facts.add_row(
            "", f"{result.broken['unreadable']} of {result.broken['planted']} files known to be broken are among them"
        )
    facts.add_row("report", str(result.folder / "outliers.json"))
    facts.add_row("table", str(result.folder / "outliers.parquet"))
    return Group(*parts, facts)


def _table() -> Table:
    # no title: a long one would be broken to the width of the table
    return Table(box=None, pad_edge=False, header_style="dim")


def _strangest(result: OutlierResult, shown: int) -> RenderableType:
    said = f"The strangest of {result.items} items, in robust standard deviations"
    table = _table()
    for name in ("", "id", "strange", "reason", "title"):
        table.add_column(name, justify="right" if name in ("", "strange") else "left", no_wrap=name != "title")
    for at, one in enumerate(result.strangest[:shown], 1):
        # a description without any line break is a title too
        title = short_text(result.titles.get(one.id) or "(no title)")
        table.add_row(str(at), Text(one.id), f"{one.score:.1f}", Text(one.reason), Text(title))
    return Group(Text(said), table)


def _unknown(result: OutlierResult) -> RenderableType:
    count = len(result.left_out[0])
    table, said = (
        _table(),
        (f"Items of {count} values of {result.label} that were not learnt, {len(result.left_out)} draws"),
    )
    for name in ("score", "AUROC", "95 %", "lowest and highest draw"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for one in result.unknown:
        name = f"{one.score} (control)" if one.score in _CONTROLS else one.score
        spread = f"{min(one.draws):.3f} to {max(one.draws):.3f}"
        table.add_row(name, f"{one.auroc.mean:.3f}", f"{one.auroc.low:.3f} to {one.auroc.high:.3f}", spread)
    return Group(Text(said), table)


def _planted(found: Planted) -> RenderableType:
    table = _table()
    said = (
        f"{found.faults} items with an {found.kind} among {found.others} others "
        f"({found.unseen} more cannot be compared); of the first {found.faults} of the ranking {found.first:.0%} are "
        f"faulty, {found.named:.0%} of those with the right reason"
    )
    for name in ("score", "AUROC", "95 %"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for name, value in found.auroc.items():
        shown = f"{name} (control)" if name in _CONTROLS else name
        table.add_row(shown, f"{value.mean:.3f}", f"{value.low:.3f} to {value.high:.3f}")
    return Group(Text(said), table)
