"""Pictures of one shape in one texture and one colour, and pairs of them that share the shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.modality import Fitted, Modality, ModalityConfig
from polymodal.tensors import Fields

__all__ = ["COLOURS", "SIDE", "Picture", "PictureConfig", "Pictures", "augmented", "matched", "pairs", "pictures"]

Ints = npt.NDArray[np.int64]
Grid = npt.NDArray[np.float64]

SIDE = 40  # pixels
_LUMA = (0.3, 0.59, 0.11)
KINDS = 10  # of shapes, textures and colours each
COLOURS = np.asarray(
    [
        (220, 40, 40),
        (40, 180, 60),
        (50, 80, 230),
        (235, 215, 40),
        (200, 60, 210),
        (50, 205, 215),
        (240, 140, 30),
        (120, 60, 20),
        (245, 245, 245),
        (25, 25, 25),
    ],
    np.float64,
)


def _polygon(corners: int, turn: float = 0.0) -> Callable[[Grid, Grid], Grid]:
    def inside(x: Grid, y: Grid) -> Grid:
        angle = np.arctan2(y, x) + turn
        sector = 2 * np.pi / corners
        edge = np.cos(np.pi / corners) / np.cos((angle % sector) - np.pi / corners)
        signed: Grid = edge - np.hypot(x, y)
        return signed

    return inside


def _star(points: int, depth: float) -> Callable[[Grid, Grid], Grid]:
    return lambda x, y: 1 - depth * (0.5 + 0.5 * np.cos(points * np.arctan2(y, x))) - np.hypot(x, y)


# signed: positive inside; x and y in units of the shape's radius
_SHAPES: tuple[Callable[[Grid, Grid], Grid], ...] = (
    lambda x, y: 0.9 - np.hypot(x, y),
    _polygon(3, np.pi / 6),
    _polygon(4, np.pi / 4),
    _polygon(6),
    _star(5, 0.55),
    _star(8, 0.5),
    lambda x, y: (
        np.maximum(0.32 - np.abs(x), 0.32 - np.abs(y)) - np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.95, 0) * 9
    ),
    lambda x, y: np.minimum(0.95 - np.hypot(x, y), np.hypot(x, y) - 0.5),
    lambda x, y: np.minimum(0.95 - np.hypot(x, y), np.hypot(x - 0.45, y) - 0.65),
    lambda x, y: np.minimum(0.95 - np.abs(x), 0.4 - np.abs(y)),
)
_TURN = 2 * np.pi

# between 0 and 1 where u and v count tiles
_TEXTURES: tuple[Callable[[Grid, Grid], Grid], ...] = (
    lambda u, _: np.ones_like(u),
    lambda u, _: (np.sin(_TURN * u) > 0).astype(np.float64),
    lambda u, v: (np.sin(_TURN * u) * np.sin(_TURN * v) > 0).astype(np.float64),
    lambda u, v: (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.3).astype(np.float64),
    lambda u, v: (np.minimum(u % 1, v % 1) < 0.25).astype(np.float64),
    lambda u, v: (np.sin(_TURN * (u + 0.35 * np.sin(_TURN * v))) > 0).astype(np.float64),
    lambda u, _: (np.sin(_TURN * u / 2.2) > 0).astype(np.float64),
    lambda u, _: 0.5 + 0.5 * np.sin(_TURN * u),
    lambda u, v: ((np.abs(u % 1 - 0.5) + np.abs(v % 1 - 0.5)) < 0.3).astype(np.float64),
    lambda u, v: (np.sin(_TURN * np.hypot(u, v)) > 0).astype(np.float64),
)


@dataclass(frozen=True)
class Pictures:
    """`pixels` (n, 3, SIDE, SIDE) uint8 with the numbers of their `shape`, `texture` and `colour` (n,)."""

    pixels: npt.NDArray[np.uint8]
    shape: Ints
    texture: Ints
    colour: Ints


def _render(shape: int, texture: int, colour: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Shape of radius 0.45 sides, anywhere it fits, turned by up to 30 degrees; its texture, 1.8 tiles a radius, turned
    apart from it and shifted; grey background."""
    radius = 0.45 * SIDE
    centre = random.uniform(radius, SIDE - radius, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    x, y = (columns - centre[0]) / radius, (rows - centre[1]) / radius

    def turned() -> tuple[Grid, Grid]:
        angle = random.uniform(-np.pi / 6, np.pi / 6)
        return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    inside = np.clip(_SHAPES[shape](*turned()) * radius + 0.5, 0, 1)[..., None]
    (u, v), phase = turned(), random.uniform(0, 1, 2)
    pattern = _TEXTURES[texture](u * 1.8 + phase[0], v * 1.8 + phase[1])[..., None]
    # a texture must be seen in every colour: dark on light ones, light on dark ones
    other = 20.0 if COLOURS[colour] @ _LUMA > 110 else 235.0
    painted = COLOURS[colour] * pattern + other * (1 - pattern)
    made: npt.NDArray[np.uint8] = np.rint(painted * inside + 128 * (1 - inside)).astype(np.uint8).transpose(2, 0, 1)
    return made


@cache
def pictures(seed: int, renders: int = 3, held: int = 200, again: int = 4) -> tuple[Pictures, Pictures]:
    """Training and test pictures: of the combinations `held` are kept for the test, drawn `again` times, the others
    `renders` times.

    Source: the Trifeature images of Hermann and Lampinen 2020 as CoMM uses them (specs/factorcl.md 4.2): 10 of each
        factor, 800 combinations rendered three times to train on.
    Differences: shapes and textures are drawn anew, 40 pixels instead of 224, turns of 30 degrees instead of 45.
    """
    random = np.random.default_rng([seed, 1])
    combinations = random.permutation(KINDS**3)

    def drawn(chosen: Ints) -> Pictures:
        shape, texture, colour = (np.asarray(part) for part in np.unravel_index(chosen, (KINDS,) * 3))
        made = [_render(int(s), int(t), int(c), random) for s, t, c in zip(shape, texture, colour, strict=True)]
        return Pictures(np.stack(made), shape, texture, colour)

    return drawn(np.repeat(combinations[held:], renders)), drawn(np.repeat(combinations[:held], again))


def matched(of: Pictures, first: Ints, second: Ints, rule: Ints) -> npt.NDArray[np.bool_]:
    """Whether the colour of the second picture is the one that `rule` gives for the texture of the first."""
    return np.asarray(rule[of.texture[first]] == of.colour[second])


def pairs(of: Pictures, count: int, random: np.random.Generator, rule: Ints | None, share: float) -> tuple[Ints, Ints]:
    """`count` pairs of pictures of equal shape, `share` of them drawn among those that follow the rule, the rest among
    all others of equal shape. Without a rule: among all of equal shape."""
    first, second = [], []
    allowed = of.shape[:, None] == of.shape[None]
    np.fill_diagonal(allowed, val=False)
    if rule is None:
        groups = [(allowed, count)]
    else:
        follows = rule[of.texture][:, None] == of.colour[None]
        yes = round(count * share)
        groups = [(allowed & follows, yes), (allowed & ~follows, count - yes)]
    for mask, wanted in groups:
        rows, columns = mask.nonzero()
        at = random.integers(0, len(rows), wanted)
        first.append(rows[at])
        second.append(columns[at])
    order = random.permutation(count)
    return np.concatenate(first)[order], np.concatenate(second)[order]


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1]: cropped to 60-100 % of the area, flipped, one in five grey, channels and contrast
    changed, noise.

    Colours change so much because shape and two colours alone would tell 128 pairs apart: texture would not be needed.
    """
    draws = torch.rand(len(pixels), 9, generator=generator)
    side = (0.6 + 0.4 * draws[:, 0]).sqrt()
    flip = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
    shift = (draws[:, 2:4] * 2 - 1) * (1 - side)[:, None]
    zero = torch.zeros_like(side)
    rows = [torch.stack([side * flip, zero, shift[:, 0]], 1), torch.stack([zero, side, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    grey = (pixels * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True).expand_as(pixels)
    pixels = torch.where((draws[:, 8] < 0.2)[:, None, None, None], grey, pixels)
    moved = F.grid_sample(pixels, grid, align_corners=False)
    gain = (0.5 + draws[:, 4:7])[:, :, None, None]
    contrast = (0.8 + 0.4 * draws[:, 7])[:, None, None, None]
    return moved * gain * contrast + 0.05 * torch.randn(moved.shape, generator=generator)


class PictureConfig(ModalityConfig):
    """Pictures of the experiment through a small convolutional network of `channels` and its multiples."""

    kind: str = "picture"
    channels: int = 16

    def build(self, width: int, fitted: Fitted) -> Picture:
        return Picture(self, width)


class Picture(Modality):
    """One token a picture: strided convolutions with GroupNorm, a linear map of all places (means lose shapes)."""

    kind: ClassVar[str] = "picture"

    def __init__(self, config: PictureConfig, width: int) -> None:
        super().__init__()
        c, layers = config.channels, list[nn.Module]()
        for into, out, size in ((3, c, 5), (c, 2 * c, 3), (2 * c, 4 * c, 3), (4 * c, 8 * c, 3)):
            layers += [nn.Conv2d(into, out, size, 2, size // 2), nn.GroupNorm(4, out), nn.ReLU()]
        places = math.ceil(SIDE / 16) ** 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * c * places, width))

    def decode(self, source: Any) -> Any:
        return source

    def preprocess(self, value: Any) -> Fields:
        """(3, H, W) float32 in [-1, 1] as one token."""
        return {"pixels": torch.as_tensor(value)[None]}

    def blank(self) -> Fields:
        return self.preprocess(torch.zeros(3, SIDE, SIDE))

    def embed(self, fields: Fields) -> Tensor:
        embedded: Tensor = self.layers(fields["pixels"])
        return embedded

    def positions(self, fields: Fields) -> Tensor:
        width: int = self.layers[-1].out_features  # type: ignore[assignment]
        return fields["pixels"].new_zeros(len(fields["pixels"]), width)

    def target(self, fields: Fields) -> Tensor:
        return fields["pixels"].flatten(1)

    def head(self, width: int) -> nn.Module:
        return nn.Linear(width, 3 * SIDE * SIDE)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.float() - target).square().mean(1)
