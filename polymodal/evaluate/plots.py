"""Figures as inline SVG. Colours that belong to the page (ink, lines, paper) become CSS variables of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.controls import METRICS, Comparison
from polymodal.evaluate.explain import MeanWeights
from polymodal.evaluate.intervals import Floats, Interval
from polymodal.evaluate.robustness import SubsetMatrix
from polymodal.evaluate.values import AS_IS
from polymodal.types import MissingExtra

__all__ = ["PALETTE", "control_bars", "curve_panels", "matrix_map", "weights_map"]

PALETTE = (
    "#0e7c86", "#d9822b", "#5a55c4", "#b8416b", "#5b8c2a", "#2f6fb3", "#a0522d", "#8a4fb0", "#b3a125", "#c0392b"
)  # fmt: skip
METRIC_TITLES = {
    "label_map": "finding items of the same label (mAP)",
    "label_knn": "k-NN label accuracy",
    "instance_mrr": "finding the item's other modalities (MRR)",
}
# written by matplotlib, replaced by the page's variables
_INK, _SOFT, _LINE, _PANEL, _PAPER = "#1b2a33", "#6b7c86", "#dde5e9", "#f3f6f8", "#fdfdfe"
_VARIABLES = {
    _PAPER: "var(--paper)",
    "#0e7c86": "var(--accent)",
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _PANEL: "var(--panel)",
}
_HEAT = ("#eef5f5", "#b9dcd9", "#6db6b6", "#26818c", "#145a72", "#0b3350")
_STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5, "text.color": _INK, "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT, "axes.titlecolor": _INK, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False,
    "xtick.color": _SOFT, "ytick.color": _SOFT, "xtick.major.size": 0, "ytick.major.size": 0, "grid.color": _LINE,
    "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "figure.dpi": 100,
}  # fmt: skip


def _drawn(name: str, title: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """`draw(figure)` as an SVG element, with ids that are unique on the page.

    Raises: MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # text stays text in the SVG: the reader's fonts draw it, whatever matplotlib's own font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), name, title)


def _inline(svg: str, name: str, title: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    # the page's own font, at the sizes chosen here
    body = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", r"font: \g<1>\g<2> var(--sans)", body)
    width = re.search(r'viewBox="0 0 ([\d.]+)', body)
    limit = float(width.group(1)) * 4 / 3 if width else 900
    head = f'<svg role="img" aria-label="{_attribute(title)}" style="max-width:{limit:.0f}px" '
    return re.sub(r'<svg (?:height="[^"]*" )?(?:width="[^"]*" )?', head, body, count=1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _heat() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("polymodal", list(_HEAT))


def matrix_map(matrix: SubsetMatrix, metric: str, name: str) -> str:
    """Heat map of query subset (rows) x target subset (columns); dots say which modalities a subset has."""
    subsets, grid = matrix.grid(metric)
    member = np.asarray([[m in s for m in matrix.modalities] for s in subsets])
    n, width = len(subsets), len(matrix.modalities)
    most = float(np.nanmax(grid)) if np.isfinite(grid).any() else 1.0

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        axes = figure.subplots(
            2, 3, width_ratios=[width, n, 0.55], height_ratios=[width, n], gridspec_kw={"wspace": 0.02, "hspace": 0.02}
        )
        for unused in (axes[0, 0], axes[0, 2]):
            unused.set_axis_off()
        main = axes[1, 1]
        main.set_facecolor(_PANEL)
        mesh = main.pcolormesh(
            np.ma.masked_invalid(grid), cmap=_heat(), vmin=0, vmax=most or 1, edgecolors=_PAPER, lw=1
        )
        _numbers(main, grid, most)
        _dots(axes[1, 0], member, matrix.modalities, rows=True)
        _dots(axes[0, 1], member, matrix.modalities, rows=False)
        sizes = [len(s) for s in subsets]
        for edge in [i for i in range(1, n) if sizes[i] != sizes[i - 1]]:
            main.axhline(edge, color=_SOFT, lw=0.6)
            main.axvline(edge, color=_SOFT, lw=0.6)
        main.set(xticks=[], yticks=[], xlim=(0, n), ylim=(n, 0))
        main.set_xlabel("what the answers are embedded from  (columns, dots above)")
        axes[1, 0].set_ylabel("what the query is embedded from  (rows)")
        for spine in main.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(mesh, cax=axes[1, 2])
        bar.outline.set_visible(False)

    side = 3.2 + 0.215 * (n + width)
    return _drawn(name, f"{metric} of every query subset against every target subset", (side, side - 0.5), draw)


def _numbers(axis: Any, grid: Floats, most: float) -> None:
    """Percent in every cell: small, but the only exact reading on paper."""
    small = 5.4 if len(grid) > 12 else 8.5
    for row, column in zip(*np.nonzero(np.isfinite(grid)), strict=True):
        value = grid[row, column]
        ink = "#ffffff" if value > 0.45 * most else "#17323c"
        axis.text(column + 0.5, row + 0.54, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=small)


def _dots(axis: Any, member: npt.NDArray[np.bool_], names: Sequence[str], *, rows: bool) -> None:
    place, kind = np.nonzero(np.ones_like(member))
    inside = member.ravel()
    x, y = (kind + 0.5, place + 0.5) if rows else (place + 0.5, kind + 0.5)
    axis.scatter(x[~inside], y[~inside], s=5, color=_LINE, lw=0)
    axis.scatter(x[inside], y[inside], s=17, color=_INK, lw=0)
    ticks = np.arange(len(names)) + 0.5
    if rows:
        axis.set(xlim=(0, len(names)), ylim=(len(member), 0), yticks=[], xticks=ticks)
        axis.set_xticklabels(names, rotation=90)
    else:
        axis.set(ylim=(len(names), 0), xlim=(0, len(member)), xticks=[], yticks=[])
        # outside the layout: room for these names would push the dots away from the cells
        for tick, text in zip(ticks, names, strict=True):
            axis.text(-0.4, tick, text, ha="right", va="center", color=_SOFT).set_in_layout(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def weights_map(weights: MeanWeights, name: str) -> str:
    """Mean harmonised weights: row = anchor modality, column = the other, one number per cell."""
    grid = weights.mean

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        most = float(np.nanmax(grid)) if np.isfinite(grid).any() else 1.0
        least = float(np.nanmin(grid)) if np.isfinite(grid).any() else 0.0
        axis.set_facecolor(_PANEL)
        # colours span what there is: weights are close together, and a scale from 0 would show one colour
        axis.pcolormesh(np.ma.masked_invalid(grid), cmap=_heat(), vmin=least, vmax=most, edgecolors=_PAPER, lw=3)
        middle = least + 0.45 * (most - least)
        for row, column in zip(*np.nonzero(np.isfinite(grid)), strict=True):
            value = grid[row, column]
            ink = "#ffffff" if value > middle else "#17323c"
            axis.text(column + 0.5, row + 0.5, f"{value:.3f}", ha="center", va="center", color=ink)
        ticks = np.arange(len(weights.names)) + 0.5
        axis.set(xticks=ticks, yticks=ticks, ylim=(len(weights.names), 0), aspect="equal")
        axis.set_xticklabels(weights.names)
        axis.set_yticklabels(weights.names)
        axis.xaxis.tick_top()
        for spine in axis.spines.values():
            spine.set_visible(False)

    side = 1.2 + 0.72 * len(weights.names)
    return _drawn(name, "mean harmonised weights", (side, side - 0.4), draw)


def control_bars(comparison: Comparison, name: str) -> str:
    """Bars with 95 % intervals: the reference and its controls, by number of modalities and as the items are."""
    controls = list(dict.fromkeys(row.control for row in comparison.scores))
    metrics = [m for m in METRICS if any(row.metric == m for row in comparison.scores)]
    bars = {(row.control, str(row.size), row.metric): row.score for row in comparison.sizes}
    bars |= {(r.control, "as is", r.metric): r.score for r in comparison.scores if r.subset == AS_IS}
    colours = dict(zip(controls, _control_colours(controls, comparison.reference), strict=True))

    def draw(figure: Any) -> None:
        axes = np.atleast_1d(figure.subplots(len(metrics), 1))
        for axis, metric in zip(axes, metrics, strict=True):
            _grouped(axis, metric, {k[:2]: v for k, v in bars.items() if k[2] == metric}, colours)
        axes[-1].set_xlabel("modalities the vector was made from")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(controls), 5), handlelength=0.9)

    return _drawn(name, "the fused vector against its controls", (9.4, 0.7 + 2.15 * len(metrics)), draw)


def _grouped(axis: Any, metric: str, bars: Mapping[tuple[str, str], Interval], colours: Mapping[str, str]) -> None:
    places = sorted({place for _, place in bars}, key=lambda p: (p == "as is", p))
    width = 0.82 / len(colours)
    # a control that was not measured somewhere leaves no gap there
    there = {place: [c for c in colours if (c, place) in bars] for place in places}
    for control, colour in colours.items():
        shown = [(at, place) for at, place in enumerate(places) if control in there[place]]
        x = [at + (there[place].index(control) + 0.5 - len(there[place]) / 2) * width for at, place in shown]
        mean = np.asarray([bars[control, place].mean for _, place in shown])
        ends = [(bars[control, place].low, bars[control, place].high) for _, place in shown]
        spread = np.asarray([[m - low, high - m] for m, (low, high) in zip(mean, ends, strict=True)]).reshape(-1, 2).T
        axis.bar(x, mean, width * 0.88, color=colour, label=control)
        axis.errorbar(x, mean, np.maximum(spread, 0), fmt="none", ecolor=_INK, elinewidth=0.9, capsize=0)
    axis.set_title(METRIC_TITLES[metric])
    axis.set_xticks(range(len(places)), places)
    axis.set_axisbelow(True)
    axis.grid(axis="y", lw=0.7)
    axis.spines["left"].set_visible(False)
    axis.set_ylim(0, None)


def _control_colours(controls: Sequence[str], reference: str) -> list[str]:
    others = iter(["#d9a05b", "#8c9bb5", "#b7a9c9", "#a9b8a0", "#c7a19a", "#9fb3bd", "#b9b39a", "#c2c8cc"] * 4)
    return [PALETTE[0] if c == reference else "#c2cad0" if c == "random" else next(others) for c in controls]


def curve_panels(curves: Mapping[str, Sequence[tuple[float, float]]], name: str, *, most: int = 18) -> str:
    """Small multiples of what the trainer logged, by step; the dark line is a running mean."""
    shown = list(curves)[:most]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)

    def draw(figure: Any) -> None:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        for axis, title in zip(axes, shown, strict=False):
            points = np.asarray(curves[title], np.float64)
            points = points[np.isfinite(points).all(1)]
            axis.set_title(title, fontsize=9.5)
            axis.grid(axis="y", lw=0.6)
            if len(points):
                thin = points[:: max(1, len(points) // 400)]
                axis.plot(thin[:, 0], thin[:, 1], color=PALETTE[0], lw=0.9, alpha=0.35)
                axis.plot(*_smooth(points), color=PALETTE[0], lw=1.7)
            axis.locator_params(nbins=4)
        for axis in axes[max(0, len(shown) - columns) : len(shown)]:
            axis.set_xlabel("step")

    return _drawn(name, "training curves", (9.4, 0.4 + 1.75 * rows), draw)


def _smooth(points: Floats) -> tuple[Floats, Floats]:
    window = max(1, len(points) // 25)
    kernel = np.ones(window) / window
    means = np.convolve(points[:, 1], kernel, "valid")
    steps = points[window - 1 :, 0]
    thin = slice(None, None, max(1, len(means) // 300))
    return steps[thin], means[thin]
