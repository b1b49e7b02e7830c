"""What the tokens of an item look at, and which parts of its picture its vector rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from polymodal.catalogue.loader import collate
from polymodal.catalogue.quarantine import Quarantined, decode_record
from polymodal.embed import Embedder
from polymodal.modality import Modality
from polymodal.model import ITEM, Trunk
from polymodal.nn.attention import Attention, Layout
from polymodal.tensors import Batch, Fields, Parts
from polymodal.train.optim import autocast
from polymodal.types import BadInput, MediaError, MediaReason, Record

__all__ = ["Attended", "Grid", "attend", "grid_of", "occlusion", "one_row", "said_by", "seen_picture"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Attended:
    """Attention in the trunk of a model, over the tokens of one item.

    Args:
        parts: N names, the modality of each token or "item". index: (N,) its number within the modality.
        layers: (L, N, N), mean over heads; row = who looks, column = at what; rows sum to 1.
        fields: modality -> the fields of its tokens.
    """

    parts: tuple[str, ...]
    index: tuple[int, ...]
    layers: Floats
    fields: Mapping[str, Fields]

    @property
    def last(self) -> Floats:
        """(N, N) of the last layer."""
        return np.asarray(self.layers[-1])

    def rollout(self) -> Floats:
        """Attention through all layers, (N, N): the product of (A + I) / 2 of each.

        Source: Abnar & Zuidema 2020, "Quantifying attention flow in transformers", section 3.
        """
        out = np.eye(self.layers.shape[1])
        for layer in self.layers:
            out = (layer + np.eye(len(layer))) / 2 @ out
        return out

    def of(self, name: str) -> npt.NDArray[np.int64]:
        """The rows of a modality's tokens, in order."""
        return np.flatnonzero(np.asarray(self.parts) == name)

    def between(self, matrix: Floats | None = None) -> dict[str, dict[str, float]]:
        """Modality (and "item") -> share of what its tokens look at in each, of the last layer unless given."""
        found = self.last if matrix is None else matrix
        names = list(dict.fromkeys(self.parts))
        return {a: {b: float(found[np.ix_(self.of(a), self.of(b))].sum(1).mean()) for b in names} for a in names}


@dataclass(frozen=True)
class Grid:
    """Where patches stand: `picture`, `row`, `column` of each token, and the size of the grid."""

    picture: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    shape: tuple[int, int]

    def fill(self, values: npt.NDArray[np.floating], picture: int = 0) -> Floats:
        """One value a token -> a map (rows, columns) of one picture; NaN where no patch stands."""
        out = np.full(self.shape, np.nan)
        here = self.picture == picture
        out[self.row[here], self.column[here]] = np.asarray(values)[here]
        return out


def grid_of(fields: Fields) -> Grid | None:
    """The grid of patch tokens; None where tokens have no rows and columns, or a picture is a single token."""
    if "row" not in fields or "column" not in fields:
        return None
    row, column = (np.asarray(fields[name].cpu(), np.int64) for name in ("row", "column"))
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    if shape == (1, 1):
        return None
    which = fields.get("picture", fields.get("time"))
    picture = np.zeros(len(row), np.int64) if which is None else np.asarray(which.cpu(), np.int64)
    return Grid(picture, row, column, shape)


def said_by(modality: Modality, fields: Fields) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """The words of a text, or the names and values of a table, and the tokens of each; [] for other kinds."""
    pieces, symbols = getattr(modality, "pieces", None), fields.get("id")
    if pieces is None or symbols is None:
        return []
    unit = fields.get("unit", torch.arange(len(symbols)))
    out = []
    for number in dict.fromkeys(unit.tolist()):
        at = np.flatnonzero(np.asarray(unit.cpu()) == number)
        text = pieces.decode([int(symbols[i]) for i in at]).strip()
        out.append((text or "(number)", at))
    return out


def one_row(embedder: Embedder, record: Record) -> Batch:
    """A record as a batch of one row. Raises MediaError for a cell that cannot be decoded, BadInput for nothing."""
    bad: list[Quarantined] = []
    network = embedder.network
    batch = collate([record], {name: network.modality(name) for name in network.names}, quarantine=bad.append)
    if bad:
        raise MediaError(cast(MediaReason, bad[0].reason), f"{bad[0].modality}: {bad[0].detail}".rstrip(": "))
    if not batch.cells:
        known = ", ".join(network.names)
        raise BadInput(f"record {record.id!r}", f"at least one of {known}", ", ".join(record.values) or "nothing")
    return batch.to(embedder.device)


@torch.inference_mode()
def attend(embedder: Embedder, record: Record) -> Attended:
    """Attention of the last trunk of a model over one item, by a pass of its own.

    Raises:
        BadInput: a model without a trunk, where no modality looks at another. MediaError: a cell that cannot be read.
    """
    trunks = [stage for stage in embedder.network.stages if isinstance(stage, Trunk)]
    if not trunks or not len(trunks[-1].stack.blocks):
        stages = ", ".join(embedder.recipe.model.stages)
        raise BadInput("model", "a trunk, in which tokens of all modalities look at one another", stages)
    trunk, batch = trunks[-1], one_row(embedder, record)
    seen: list[Parts] = []
    layers: list[Tensor] = []

    def parts(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    def weights(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x, layout = cast(tuple[Tensor, Layout], inputs)
        layers.append(cast(Attention, module).weights(x, layout)[0].mean(0))

    watched: list[tuple[nn.Module, Callable[..., None]]] = [(trunk, parts)]
    watched += [(cast(Any, block).attention, weights) for block in trunk.stack.blocks]
    hooks = [module.register_forward_pre_hook(hook) for module, hook in watched]
    try:
        with autocast(embedder.dtype, embedder.device):
            embedder.network.encode(embedder.network.tokenize(batch))
    finally:
        for hook in hooks:
            hook.remove()
    names = [ITEM] if trunk.item is not None else []
    index = [0] if trunk.item is not None else []
    for name, tokens in seen[0].items():
        valid = tokens.valid[0].nonzero()[:, 0].tolist() if name != ITEM else []
        names += [name] * len(valid)
        index += valid
    fields = {name: {k: v[0][cells.valid[0]] for k, v in cells.fields.items()} for name, cells in batch.cells.items()}
    found = torch.stack(layers).double().cpu().numpy()
    return Attended(tuple(names), tuple(index), found, fields)


def occlusion(
    embedder: Embedder,
    record: Record,
    name: str,
    target: npt.NDArray[np.floating] | None = None,
    *,
    shape: tuple[int, int] = (8, 8),
) -> Floats:
    """How much rests on each part of a picture: what changes when that part is painted over with the mean colour.

    Args:
        name: modality of a picture or a clip; of several pictures the first is painted on, of a clip every frame.
        target: (E,) unit vector: the map says how much the cosine with it falls. None: the item's own vector, so that
            the map says how far it moves.
        shape: rows and columns of the map; each part is one of these fields.

    Returns:
        (rows, columns), above 0 where the part holds the item close to the target.

    Source: Zeiler & Fergus 2014, section 2.1. Differences: fields side by side, of the mean colour.
    Raises: BadInput: no such picture. MediaError: a cell that cannot be read.
    """
    modality = embedder.network.modality(name)
    decoded, bad = decode_record(record, {n: embedder.network.modality(n) for n in embedder.network.names})
    if bad:
        raise MediaError(cast(MediaReason, bad[0].reason), f"{bad[0].modality}: {bad[0].detail}".rstrip(": "))
    picture = decoded.values.get(name)
    if not isinstance(picture, np.ndarray) or picture.ndim != 4:
        raise BadInput(f"record {record.id!r}", f"a picture in {name!r}", "none")
    side = int(getattr(cast(Any, modality).config, "size", picture.shape[1]))
    painted = [decoded]
    for row in range(shape[0]):
        for column in range(shape[1]):
            value = _paint(picture, side, (row, column), shape, every=modality.kind == "video")
            painted.append(Record(f"{row} {column}", {**decoded.values, name: value}))
    vectors = embedder.embed(painted).vectors.astype(np.float64)
    wanted = vectors[0] if target is None else np.asarray(target, np.float64)
    return np.asarray((vectors[0] @ wanted - vectors[1:] @ wanted).reshape(shape))


def _paint(
    pictures: npt.NDArray[np.uint8], side: int, at: tuple[int, int], shape: tuple[int, int], *, every: bool
) -> npt.NDArray[np.uint8]:
    """A copy with one field of the centre that the model reads in the mean colour."""
    out = pictures.copy()
    top, left = ((length - side) // 2 for length in pictures.shape[1:3])
    ends = [np.linspace(0, side, n + 1).round().astype(int) for n in shape]
    rows = slice(top + ends[0][at[0]], top + ends[0][at[0] + 1])
    columns = slice(left + ends[1][at[1]], left + ends[1][at[1] + 1])
    for number in range(len(out) if every else 1):
        out[number, rows, columns] = pictures[number].reshape(-1, 3).mean(0)
    return out


def seen_picture(pictures: npt.NDArray[np.uint8], side: int, number: int = 0) -> npt.NDArray[np.uint8]:
    """The centre of a decoded picture that the model reads, (side, side, 3)."""
    top, left = ((length - side) // 2 for length in pictures.shape[1:3])
    return pictures[number, top : top + side, left : left + side]
