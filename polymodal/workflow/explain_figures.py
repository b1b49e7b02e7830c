"""Explanations as PNG: bars, heat maps over pictures, and what was hidden beside what came back."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from polymodal.catalogue.quarantine import decode_record
from polymodal.embed import Embedder
from polymodal.evaluate.plots import PALETTE
from polymodal.tasks.attend import Attended, grid_of, said_by, seen_picture
from polymodal.tasks.restore import Restored
from polymodal.types import MissingExtra

if TYPE_CHECKING:
    from polymodal.workflow.explaining import ExplainResult
    from polymodal.workflow.explaining_item import Seen

__all__ = ["catalogue_figures", "item_figures"]

Picture = npt.NDArray[np.uint8]
_MOST_WORDS = 8
_STYLE = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#6b7c86", "legend.frameon": False, "grid.color": "#dde5e9",
}  # fmt: skip
# what titles of a shop may be written in, where such a font is installed
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Droid Sans Fallback")


def _png(size: tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import get_font_names
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    installed = set(get_font_names())
    fonts = [name for name in _FONTS if name in installed]
    with mpl.rc_context({**_STYLE, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained", dpi=110)
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _bare(axis: Any, title: str = "") -> None:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title)


# -- a catalogue -----------------------------------------------------------------------------------------------------


def catalogue_figures(result: ExplainResult) -> dict[str, bytes]:
    """Name -> PNG: every reading by modality, what pairs tell, which reading finds a wrong cell."""
    out = {"worth.png": _worth(result)}
    if result.detections:
        out["check.png"] = _check(result)
    if result.pairs:
        out["pairs.png"] = _pairs(result)
    return out


def _worth(result: ExplainResult) -> bytes:
    names, readings = result.worth.values.names, result.worth.readings

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(readings), squeeze=False, sharey=True)[0]
        for axis, reading in zip(axes, readings, strict=True):
            found = [reading.modalities[n] for n in names]
            mean = np.asarray([one.mean for one in found])
            ends = np.asarray([[one.mean - one.low, one.high - one.mean] for one in found]).T
            axis.barh(range(len(names)), mean, 0.62, color=PALETTE[0])
            axis.errorbar(mean, range(len(names)), xerr=np.maximum(ends, 0), fmt="none", ecolor="#1b2a33", lw=1)
            axis.axvline(0, color="#6b7c86", lw=0.8)
            axis.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
            axis.set_yticklabels(names)
            axis.set_title(reading.name)
            axis.grid(axis="x", lw=0.6)
            axis.set_axisbelow(True)
            axis.locator_params(axis="x", nbins=4)

    return _png((1.2 + 2.2 * len(readings), 1.0 + 0.34 * len(names)), draw)


def _check(result: ExplainResult) -> bytes:
    found = sorted(result.detections, key=lambda d: d.found.mean)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        mean = np.asarray([d.found.mean for d in found])
        ends = np.asarray([[d.found.mean - d.found.low, d.found.high - d.found.mean] for d in found]).T
        axis.barh(range(len(found)), mean, 0.62, color=PALETTE[0])
        axis.errorbar(mean, range(len(found)), xerr=np.maximum(ends, 0), fmt="none", ecolor="#1b2a33", lw=1)
        axis.axvline(found[0].chance, color=PALETTE[1], lw=1.4, ls="--")
        axis.set(xlim=(0, 1), yticks=range(len(found)), xlabel="exchanged cells found; dashed: chance")
        axis.set_yticklabels([d.name for d in found])
        axis.grid(axis="x", lw=0.6)
        axis.set_axisbelow(True)

    return _png((5.4, 1.0 + 0.36 * len(found)), draw)


def _pairs(result: ExplainResult) -> bytes:
    pairs = result.pairs
    kinds = (("shared", "shared"), ("only a", "unique_first"), ("only b", "unique_second"), ("synergy", "synergy"))

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        above, below = np.zeros(len(pairs)), np.zeros(len(pairs))
        for (title, key), colour in zip(kinds, PALETTE, strict=False):
            mean = np.asarray([getattr(p, key).mean for p in pairs])
            left = np.where(mean >= 0, above, below)
            axis.barh(range(len(pairs)), mean, 0.62, left=left, color=colour, label=title)
            above, below = above + np.maximum(mean, 0), below + np.minimum(mean, 0)
        axis.axvline(0, color="#6b7c86", lw=0.8)
        axis.set(yticks=range(len(pairs)), ylim=(len(pairs) - 0.4, -0.6))
        axis.set_xlabel(f"bits about {result.label}; left of zero: the probes fell short")
        axis.set_yticklabels([f"{p.first} (a), {p.second} (b)" for p in pairs])
        figure.legend(loc="outside upper left", ncols=4, handlelength=0.9)

    return _png((6.4, 1.2 + 0.32 * len(pairs)), draw)


# -- an item ---------------------------------------------------------------------------------------------------------


def item_figures(seen: Seen, embedder: Embedder) -> dict[str, bytes]:
    """Name -> PNG of everything that can be drawn of an item."""
    network = embedder.network
    decoded, _ = decode_record(seen.record, {name: network.modality(name) for name in network.names})
    out: dict[str, bytes] = {}
    if seen.attended is not None:
        out["attention.png"] = _between(seen.attended)
        for name in _patched(seen.attended):
            picture = _picture(decoded.values[name], embedder, name)
            drawn = _words_and_patches(seen.attended, embedder, name, picture)
            if drawn is not None:
                out[f"attention_{name}.png"] = drawn
    if seen.occluded:
        shown = {name: _picture(decoded.values[name], embedder, name) for name in seen.occluded}
        out["occlusion.png"] = _occluded(shown, seen.occluded)
    if seen.restored:
        out["restored.png"] = _restored(seen.restored)
    return out


def _patched(attended: Attended) -> list[str]:
    return [name for name, fields in attended.fields.items() if grid_of(fields) is not None]


def _picture(value: npt.NDArray[np.uint8], embedder: Embedder, name: str) -> Picture:
    config: Any = embedder.network.modality(name).config
    return seen_picture(value, config.size)


def _between(attended: Attended) -> bytes:
    found = attended.between()
    names = list(found)
    grid = np.asarray([[found[a][b] for b in names] for a in names])

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.imshow(grid, cmap="GnBu", vmin=0, vmax=1)
        for row, column in np.ndindex(grid.shape):
            ink = "#ffffff" if grid[row, column] > 0.6 else "#17323c"
            axis.text(column, row, f"{grid[row, column]:.2f}", ha="center", va="center", color=ink)
        axis.set(xticks=range(len(names)), yticks=range(len(names)), ylabel="who looks", xlabel="at what")
        axis.set_xticklabels(names)
        axis.set_yticklabels(names)
        axis.set_title("Share of attention, last layer of the trunk")

    return _png((1.6 + 0.75 * len(names), 1.2 + 0.62 * len(names)), draw)


def _words_and_patches(attended: Attended, embedder: Embedder, name: str, picture: Picture) -> bytes | None:
    """The picture under the attention of each word to its patches, and of its patches to each word."""
    grid = grid_of(attended.fields[name])
    assert grid is not None
    patches, matrix = attended.of(name), attended.last
    panels: list[tuple[str, npt.NDArray[np.float64]]] = []
    summary = attended.of("item")
    if len(summary):
        panels.append(("the item looks at", grid.fill(matrix[summary[0], patches])))
        panels.append(("… through all layers", grid.fill(attended.rollout()[summary[0], patches])))
    for other, fields in attended.fields.items():
        rows = attended.of(other)
        for word, at in said_by(embedder.network.modality(other), fields)[:_MOST_WORDS] if other != name else []:
            panels.append((f"“{word}” looks at", grid.fill(matrix[np.ix_(rows[at], patches)].mean(0))))
            panels.append((f"who looks at “{word}”", grid.fill(matrix[np.ix_(patches, rows[at])].sum(1))))
    if not panels:
        return None
    across = 6
    down = -(-(len(panels) + 1) // across)

    def draw(figure: Any) -> None:
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis in axes:
            _bare(axis)
        axes[0].imshow(picture)
        axes[0].set_title(name)
        for axis, (title, values) in zip(axes[1:], panels, strict=False):
            _overlay(axis, picture, values)
            axis.set_title(textwrap.shorten(title, 26, placeholder="…"))

    return _png((1.75 * across, 2.0 * down), draw)


def _overlay(axis: Any, picture: Picture, values: npt.NDArray[np.float64], *, signed: bool = False) -> None:
    """A heat map over a grey picture; its colours span what there is."""
    grey = np.repeat(picture.mean(2, keepdims=True), 3, 2) / 255
    axis.imshow(grey * 0.55 + 0.45, extent=(0, 1, 1, 0))
    most = float(np.nanmax(np.abs(values))) or 1.0
    limits = (
        {"vmin": -most, "vmax": most, "cmap": "PuOr_r"} if signed else {"vmin": 0.0, "vmax": most, "cmap": "inferno"}
    )
    axis.imshow(np.ma.masked_invalid(values), extent=(0, 1, 1, 0), alpha=0.6, interpolation="nearest", **limits)


def _occluded(pictures: Mapping[str, Picture], maps: Mapping[str, npt.NDArray[np.float64]]) -> bytes:
    def draw(figure: Any) -> None:
        axes = figure.subplots(len(maps), 2, squeeze=False)
        for row, (name, values) in zip(axes, maps.items(), strict=True):
            for axis in row:
                _bare(axis)
            row[0].imshow(pictures[name])
            row[0].set_title(name)
            _overlay(row[1], pictures[name], values, signed=True)
            row[1].set_title(f"rests on (±{np.abs(values).max():.2g})")

    return _png((4.6, 2.3 * len(maps)), draw)


def _restored(found: Mapping[str, Restored]) -> bytes:
    heights = [1.9 if isinstance(one.original, np.ndarray) else _height(one.original) for one in found.values()]

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(found), 3, squeeze=False, height_ratios=heights)
        for row, (name, one) in zip(axes, found.items(), strict=True):
            titles = (name, f"seen ({one.hidden} of {one.tokens} hidden)", "reconstructed")
            for axis, value, title in zip(row, (one.original, one.seen, one.said), titles, strict=True):
                _bare(axis, title)
                _show(axis, one.kind, value)

    return _png((9.0, sum(heights)), draw)


def _show(axis: Any, kind: str, value: Any) -> None:
    if isinstance(value, np.ndarray) and kind == "video":
        axis.imshow(np.concatenate(list(value[:6]), 1))
    elif isinstance(value, np.ndarray) and value.ndim == 4:
        axis.imshow(value[0])
    elif isinstance(value, np.ndarray):
        axis.imshow(value.astype(np.float32).T, origin="lower", aspect="auto", cmap="magma")
    else:
        text = _lines(value)
        axis.text(0, 1, text, ha="left", va="top", transform=axis.transAxes, fontsize=8)


def _height(value: Any) -> float:
    return 0.45 + 0.16 * (1 + _lines(value).count("\n"))


def _lines(value: Any) -> str:
    if isinstance(value, Mapping):
        said = [f"{name}: {v:.4g}" if isinstance(v, float) else f"{name}: {v}" for name, v in value.items()]
        return "\n".join(textwrap.shorten(line, 40, placeholder="…") for line in said[:9])
    return "\n".join(textwrap.wrap(str(value), 38)[:8])
