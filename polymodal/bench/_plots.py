"""Figures of experiments as PNG: marks with intervals in panels, and lines with bands."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polymodal.bench._base import Cell, Table
from polymodal.types import MissingExtra

__all__ = ["Panel", "curves", "marks", "table_marks"]

_PALETTE = (
    "#0e7c86",
    "#d9822b",
    "#5a55c4",
    "#b8416b",
    "#5b8c2a",
    "#2f6fb3",
    "#a0522d",
    "#8a4fb0",
    "#b3a125",
    "#c0392b",
)
_DASHES = ("-", "--", ":")  # for more names than colours
_STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#6b7c86", "legend.frameon": False, "grid.color": "#dde5e9",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One axis: `values` name -> Cell (marks), or name -> one Cell per `ticks` (lines). `line` is drawn dashed."""

    title: str
    values: Mapping[str, Cell | Sequence[Cell]]
    ticks: Sequence[str] = ()
    line: float | None = None
    muted: frozenset[str] = field(default_factory=frozenset)


def marks(panels: Sequence[Panel], across: int = 4) -> bytes:
    """One mark with its 95 % interval a name, panels beside one another; names in `muted` are grey.

    Raises: MissingExtra: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.values))
    across = min(across, len(panels)) or 1
    down = math.ceil(len(panels) / across)

    def draw(figure: Any) -> None:
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        for at, axis in enumerate(axes.ravel()):
            if at >= len(panels):
                axis.set_visible(False)
                continue
            _mark_panel(axis, panels[at], names)

    return _png((1.6 + 2.5 * across, down * (0.8 + 0.24 * len(names))), draw)


def table_marks(table: Table, most: int = 8) -> bytes | None:
    """A table as marks: a panel for each of its first `most` columns of Cells, a row for each of its rows; None where
    no column holds Cells.

    Raises: MissingExtra: matplotlib is not installed.
    """
    numbers = [at for at in range(len(table.columns)) if any(isinstance(row[at], Cell) for row in table.rows)]
    panels = []
    for at in numbers[:most]:
        named = {_row_name(row): row[at] for row in table.rows}
        panels.append(Panel(table.columns[at], {n: v for n, v in named.items() if isinstance(v, Cell)}))
    return marks(panels) if panels else None


def _row_name(row: Sequence[str | Cell]) -> str:
    """What stands before the first figure."""
    return ", ".join(itertools.takewhile(lambda cell: isinstance(cell, str), row))  # type: ignore[arg-type]


def _mark_panel(axis: Any, panel: Panel, names: Sequence[str]) -> None:
    axis.set_title(panel.title)
    axis.grid(axis="x")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    if panel.line is not None:
        axis.axvline(panel.line, color="#6b7c86", linestyle="--", linewidth=1)
    for row, name in enumerate(names):
        cell = panel.values.get(name)
        if isinstance(cell, Cell) and math.isfinite(cell.mean):
            colour = "#9aa7ae" if name in panel.muted else _PALETTE[row % len(_PALETTE)]
            axis.plot([cell.low, cell.high], [row, row], color=colour, linewidth=2)
            axis.plot([cell.mean], [row], "o", color=colour, markersize=5)


def curves(panels: Sequence[Panel], across: int = 3) -> bytes:
    """Lines over `ticks` with 95 % bands, one legend. Raises: MissingExtra: matplotlib is not installed."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.values))
    across = min(across, len(panels)) or 1
    down = math.ceil(len(panels) / across)

    def draw(figure: Any) -> None:
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes, panels, strict=False):
            _line_panel(axis, panel, names)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)

    width = max(3.6 * across, 4.5)
    longest = max(map(len, names), default=1)
    columns = max(1, min(len(names), int(width / (0.5 + 0.075 * longest))))
    return _png((width, 3.0 * down + 0.22 * math.ceil(len(names) / columns)), draw)


def _line_panel(axis: Any, panel: Panel, names: Sequence[str]) -> None:
    axis.set_title(panel.title)
    axis.grid(axis="y")
    axis.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right")
    if panel.line is not None:
        axis.axhline(panel.line, color="#6b7c86", linestyle="--", linewidth=1)
    for row, name in enumerate(names):
        cells = panel.values.get(name, ())
        if isinstance(cells, Cell):
            cells = [cells] * len(panel.ticks)
        colour = "#9aa7ae" if name in panel.muted else _PALETTE[row % len(_PALETTE)]
        at = range(len(cells))
        style = _DASHES[row // len(_PALETTE) % len(_DASHES)]
        means = [cell.mean for cell in cells]
        axis.plot(at, means, marker="o", linestyle=style, color=colour, label=name, markersize=4)
        axis.fill_between(at, [c.low for c in cells], [c.high for c in cells], color=colour, alpha=0.15, linewidth=0)


def _png(size: tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained", dpi=130)
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        # no date and no version: the same figures give the same bytes
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
