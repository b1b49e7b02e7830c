"""The map of the catalogue: points that can be looked at, coloured in several ways, in one file without a network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.blocks import esc
from polymodal.evaluate.clustering import k_means
from polymodal.evaluate.contents import Report
from polymodal.evaluate.pictures import pixels
from polymodal.evaluate.plots import PALETTE
from polymodal.evaluate.space_script import SCRIPT
from polymodal.evaluate.topk import top_k
from polymodal.evaluate.values import subset_name
from polymodal.types import Embeddings, MissingExtra

__all__ = ["MOST_POINTS", "space_map"]

Floats = npt.NDArray[np.float64]

MOST_POINTS = 3000
_WIDTH, _HEIGHT, _EDGE = 1000, 720, 16
_OTHERS = "#a9b4ba"
# pixels of the sheet of thumbnails: at this many a JPEG has one to two megabytes
_SHEET_PIXELS = 5_000_000
_SIDE = 64
_NEAR = 5
_SHOWN = 56
_CLUSTERS = 10


@dataclass(frozen=True)
class Colouring:
    """One way to colour the points: the most frequent values, and the number of each point's among them (-1: none)."""

    name: str
    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]


def space_map(result: Report, *, seed: int = 0, most: int = MOST_POINTS) -> tuple[str, str]:
    """The map as HTML, and one sentence about it.

    Every point shows its picture, title and values when it is pointed at, and its nearest items in the space itself
    when it is chosen: what stands together on a map may be apart in the space.

    Args:
        result: of which `space`, and of its items `space_labels`, `space_presence`, `titles`, `thumbnails`.
        most: points; more items are drawn from with `seed`.

    Raises: MissingExtra: scikit-learn is not installed.
    """
    assert result.space is not None
    space, whole = _drawn(result.space, most, seed), len(result.space)
    places, method = plane(space.vectors, seed=seed)
    at = _scaled(places)
    colourings = _colourings(result, space, seed)
    sheet, numbers, side, across = _sheet([result.thumbnails.get(i) for i in space.ids])
    rows, scores = _nearest(space)
    first = colourings[0].codes if colourings else np.full(len(space), -1)
    circles = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_colour(code)}"/>'
        for (x, y), code in zip(at.tolist(), first.tolist(), strict=True)
    )
    image = "" if sheet is None else f'<defs><image id="space-sheet" href="{sheet}"/></defs>'
    data = {
        "ids": list(space.ids),
        "titles": [result.titles.get(i, "") for i in space.ids],
        "at": np.round(at, 1).tolist(),
        "thumbs": numbers,
        "side": side,
        "across": across,
        "near": rows.tolist(),
        "cosines": np.round(scores.astype(np.float64), 3).tolist(),
        "spread": _spread_out(at, [row for row, number in enumerate(numbers) if number >= 0], _SHOWN),
        "palette": list(PALETTE),
        "others": _OTHERS,
        "colourings": [{"name": c.name, "names": c.names, "codes": c.codes.tolist()} for c in colourings],
    }
    body = (
        f'<div class="space" id="space-box">{_controls(colourings, sheet is not None)}'
        f'<div class="space-body"><svg id="space-map" viewBox="0 0 {_WIDTH} {_HEIGHT}" tabindex="0" role="img" '
        f'aria-label="Map of {len(space):,} items; arrow keys walk over it">{image}<g id="space-points">{circles}</g>'
        '<g id="space-pictures"></g><g id="space-marks"></g></svg>'
        '<aside id="space-card" aria-live="polite"><p class="muted">Point at an item, or choose one.</p></aside></div>'
        f'<ul id="space-legend">{_legend(colourings)}</ul></div>'
        f'<script type="application/json" id="space-data">{_safe(data)}</script><script>{SCRIPT}</script>'
    )
    many = f"{len(space):,} items" if whole == len(space) else f"{len(space):,} of {whole:,} items, drawn by seed,"
    lead = "Distances across the map mean little, neighbourhoods do; the list of the nearest is exact."
    return body, f"{many} by {method}. {lead}"


def _drawn(space: Embeddings, most: int, seed: int) -> Embeddings:
    if len(space) <= most:
        return space
    rows = np.sort(np.random.default_rng(seed).permutation(len(space))[:most])
    return Embeddings(tuple(space.ids[r] for r in rows), space.vectors[rows], space.model)


def plane(vectors: npt.NDArray[np.float32], *, seed: int = 0) -> tuple[Floats, str]:
    """Two coordinates per row for looking at: t-SNE of the first 50 principal components; those alone for few rows.

    Returns: (n, 2) and the name of the method. Source: van der Maaten & Hinton 2008 (scikit-learn's TSNE).
    Raises: MissingExtra: scikit-learn is not installed (t-SNE only).
    """
    data = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(data, full_matrices=False)
    flat = left[:, :50] * sizes[:50]
    if len(vectors) < 8:
        pair = np.zeros((len(vectors), 2))
        pair[:, : min(2, flat.shape[1])] = flat[:, :2]
        return pair, "PCA"
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    with threadpool_limits(1):
        found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    return np.asarray(found, np.float64), "t-SNE"


def _scaled(places: Floats) -> Floats:
    """Into the frame, each axis by itself: a map has no scale."""
    low, span = places.min(0), np.maximum(np.ptp(places, axis=0), 1e-9)
    size = np.asarray([_WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE])
    return np.asarray(_EDGE + (places - low) / span * size)


def _colourings(result: Report, space: Embeddings, seed: int) -> list[Colouring]:
    out = []
    labels = [result.space_labels.get(i) for i in space.ids]
    if any(label is not None for label in labels):
        out.append(_coloured(result.space_label or "label", labels))
    patterns = [subset_name(result.space_presence[i]) if i in result.space_presence else None for i in space.ids]
    if any(pattern is not None for pattern in patterns):
        out.append(_coloured("what an item has", patterns))
    if len(space) > _CLUSTERS:
        found = k_means(space.vectors, _CLUSTERS, starts=2, seed=seed).assigned
        out.append(_coloured("cluster", [f"cluster {1 + number}" for number in found.tolist()]))
    return out


def _coloured(name: str, values: Sequence[str | None]) -> Colouring:
    known = np.asarray([value for value in values if value is not None])
    names, counts = np.unique(known, return_counts=True)
    shown = [str(names[i]) for i in np.lexsort((names, -counts))[: len(PALETTE)]]
    code = {value: at for at, value in enumerate(shown)}
    return Colouring(name, tuple(shown), np.asarray([code.get(value or "", -1) for value in values], np.int64))


def _colour(code: int) -> str:
    return PALETTE[code] if code >= 0 else _OTHERS


def _nearest(space: Embeddings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    own = np.arange(len(space))
    return top_k(space.vectors, space.vectors, min(_NEAR, len(space) - 1), ids=space.ids, exclude=own)


def _sheet(encoded: Sequence[bytes | None]) -> tuple[str | None, list[int], int, int]:
    """All thumbnails in one JPEG: its data URI, each one's place on it (-1: none), their side and how many a row."""
    from PIL import Image

    side = int(min(_SIDE, (_SHEET_PIXELS / max(len(encoded), 1)) ** 0.5))
    found = [None if one is None else pixels(one, side) for one in encoded]
    shown = [picture for picture in found if picture is not None]
    if not shown:
        return None, [-1] * len(encoded), side, 1
    across = int(np.ceil(len(shown) ** 0.5))
    down = -(-len(shown) // across)
    paper = np.full((down * side, across * side, 3), 255, np.uint8)
    numbers, count = [], 0
    for picture in found:
        numbers.append(-1 if picture is None else count)
        if picture is None:
            continue
        top = count // across * side + (side - picture.shape[0]) // 2
        left = count % across * side + (side - picture.shape[1]) // 2
        paper[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        count += 1
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"), numbers, side, across


def _spread_out(places: Floats, rows: Sequence[int], most: int) -> list[int]:
    """Up to `most` of `rows`, each as far as possible from those before it, none closer than a thumbnail's width."""
    if not rows:
        return []
    scaled = places[list(rows)] / np.asarray([_WIDTH, _HEIGHT])
    chosen = [int(np.linalg.norm(scaled - scaled.mean(0), axis=1).argmin())]
    gap = np.full(len(rows), np.inf)
    while len(chosen) < min(most, len(rows)):
        gap = np.minimum(gap, np.abs(scaled - scaled[chosen[-1]]).max(1))
        if gap.max() < 0.062:
            break
        chosen.append(int(gap.argmax()))
    return [int(rows[c]) for c in chosen]


def _controls(colourings: Sequence[Colouring], pictures: bool) -> str:
    choices = "".join(
        f'<label><input type="radio" name="space-colour" value="{number}"{" checked" if not number else ""}>'
        f"<span>{esc(one.name)}</span></label>"
        for number, one in enumerate(colourings)
    )
    shown = (
        '<label class="plain"><input type="checkbox" id="space-show"> pictures on the map</label>' if pictures else ""
    )
    return f'<div class="space-controls"><fieldset><legend>Colour by</legend>{choices}</fieldset>{shown}</div>'


def _legend(colourings: Sequence[Colouring]) -> str:
    names: Mapping[int, str] = dict(enumerate(colourings[0].names)) if colourings else {}
    return "".join(f'<li><i style="background:{PALETTE[at]}"></i>{esc(name)}</li>' for at, name in names.items())


def _safe(data: Any) -> str:
    """JSON that no text in it can end: it stands inside a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
