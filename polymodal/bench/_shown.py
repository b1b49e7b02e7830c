"""Tables of experiments on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table as Shown
from rich.text import Text

from polymodal.bench._base import Cell, Table

__all__ = ["bench_text", "table_text"]


def table_text(table: Table) -> RenderableType:
    """A table with its title; the first column names the row."""
    shown = Shown(title=table.title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for at, name in enumerate(table.columns):
        shown.add_column(Text(name), justify="left" if at == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(_narrow(cell)) for cell in row))
    return shown


def _narrow(cell: str | Cell) -> str:
    """`0.123 ±0.010`: a terminal is narrower than a page. Spaces that do not break keep it on one line."""
    if isinstance(cell, str) or cell.n < 2:
        return str(cell)
    return f"{cell.mean:.3f}\u00a0±{cell.high - cell.mean:.3f}"


def bench_text(question: str, tables: tuple[Table, ...], findings: tuple[str, ...], where: str) -> RenderableType:
    """Question, tables, findings, and where the files are."""
    parts: list[RenderableType] = [Text(question, style="bold")]
    for table in tables:
        parts += [Text(""), table_text(table)]
    parts += [Text(""), *(Text(f"- {text}") for text in findings), Text(f"written to {where}", style="dim")]
    return Group(*parts)
