"""Draws the pictures and the frames of the demo catalogue with Pillow and numpy: a product, its surface, its scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from polymodal.catalogue._demo_words import BRANDS

__all__ = ["Look", "frames", "picture"]

Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

_RGB: dict[str, Colour] = {
    "red": (208, 36, 38),
    "orange": (243, 132, 24),
    "yellow": (244, 212, 48),
    "green": (52, 148, 56),
    "turquoise": (44, 188, 184),
    "blue": (38, 84, 202),
    "purple": (126, 56, 168),
    "pink": (246, 142, 186),
    "brown": (122, 76, 42),
    "black": (54, 54, 58),
}
_METAL: Colour = (120, 124, 132)


@dataclass(frozen=True, slots=True)
class Look:
    """What of a product can be seen. `scale` is 1 for a medium product."""

    shape: str
    colour: str
    material: str
    accessory: str
    brand: str
    scale: float
    motion: str


def _outline(shape: str) -> Points:
    """The outline as a polygon (n, 2) inside the unit circle, y down."""
    if shape in ("circle", "ring"):
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack([np.cos(turn), np.sin(turn)], 1) * 0.95
    if shape == "star":
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.08, 0.46)
        return np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None]
    if shape == "heart":
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        across = 16 * np.sin(turn) ** 3
        up = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([across, -up - 2], 1) / 16.5
    if shape == "diamond":
        return np.array([[0, -1.08], [0.72, 0], [0, 1.08], [-0.72, 0]])
    corners, first = {"square": (4, -np.pi / 4), "triangle": (3, -np.pi / 2), "hexagon": (6, 0.0)}[shape]
    turn = np.arange(corners) * 2 * np.pi / corners + first
    return np.stack([np.cos(turn), np.sin(turn)], 1) * (1.12 if corners == 3 else 1.0)


@dataclass(frozen=True, slots=True)
class _Pose:
    """Where the product stands: unit coordinates -> pixels. `squash` narrows it, as seen from the side."""

    x: float
    y: float
    radius: float
    turn: float
    squash: float = 1.0

    def __call__(self, points: Points) -> list[tuple[float, float]]:
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        seen = points @ np.array([[cos, sin], [-sin, cos]]) * self.radius
        return [(self.x + float(px) * self.squash, self.y + float(py)) for px, py in seen]

    def box(self, width: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what the product can cover on a canvas of that width."""
        reach = 1.15 * self.radius
        left, top = max(0, int(self.x - reach)), max(0, int(self.y - reach))
        return left, top, min(width, int(self.x + reach) + 1), min(width, int(self.y + reach) + 1)

    def grid(self, box: tuple[int, int, int, int]) -> tuple[Points, Points]:
        """Unit coordinates (u, v) of the product at every pixel of a box."""
        left, top, right, bottom = box
        dx = ((np.arange(left, right) - self.x) / self.radius / self.squash)[None, :]
        dy = ((np.arange(top, bottom) - self.y) / self.radius)[:, None]
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return dx * cos + dy * sin, dy * cos - dx * sin


def _surface(material: str, u: Points, v: Points, rng: np.random.Generator) -> Points:
    """Brightness (h, w, 1) of a material at unit coordinates (h, w): its pattern, about 1 in the mean."""
    pitch, phase = rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi)
    light: npt.NDArray[np.floating[Any]]
    if material == "wood":
        wave = 0.35 * np.sin(2.2 * u + phase) + 0.12 * np.sin(6.1 * u + 2 * phase)
        light = 1.0 + 0.32 * np.sin(17 * pitch * v + 4 * wave)
    elif material == "cotton":
        light = 1.0 + 0.33 * (((np.floor(u * 3.2 * pitch + phase) + np.floor(v * 3.2 * pitch)) % 2) * 2 - 1)
    elif material == "stone":
        height, width = u.shape
        coarse = rng.normal(0, 0.3, (height // 3 + 1, width // 3 + 1))
        light = 0.98 + coarse.repeat(3, 0).repeat(3, 1)[:height, :width]
    elif material == "metal":
        light = 0.72 + 0.85 * np.exp(-(((u * 0.7 + v * 0.7 + 0.35 * np.cos(phase)) / 0.3) ** 2))
    elif material == "felt":
        light = 0.93 + 0.45 * (((u * 3.4 * pitch + phase) % 1 - 0.5) ** 2 + ((v * 3.4 * pitch) % 1 - 0.5) ** 2 < 0.07)
    else:
        gloss = np.exp(-(((u + 0.4) / 0.28) ** 2 + ((v + 0.42) / 0.18) ** 2))
        light = 1.0 + 0.9 * gloss
    return np.asarray(light[:, :, None], np.float64)


def _background(width: int, rng: np.random.Generator) -> Image.Image:
    """A light scene: a gradient of two pale tints, sometimes a table edge, a few faint things behind."""
    tints = rng.integers(178, 246, (2, 3)).astype(np.float64)
    tints = 0.6 * tints.mean(1, keepdims=True) + 0.4 * tints
    ramp = np.linspace(0, 1, 16)
    mix = np.add.outer(ramp * rng.uniform(0.2, 1), ramp * rng.uniform(-0.5, 0.5)).clip(0, 1)[:, :, None]
    scene = Image.fromarray((tints[0] * (1 - mix) + tints[1] * mix).astype(np.uint8))
    canvas = scene.resize((width, width), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    if rng.random() < 0.4:
        edge = int(width * rng.uniform(0.62, 0.85))
        tone = tuple(int(t) for t in tints[1] * rng.uniform(0.78, 0.92))
        pen.rectangle([0, edge, width, width], fill=tone)
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(0, width, 2)
        w, h = rng.uniform(0.04, 0.2, 2) * width
        tone = tuple(int(t) for t in (tints[0] * rng.uniform(0.8, 1.06)).clip(0, 255))
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw([x - w, y - h, x + w, y + h], fill=tone)
    return canvas


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, max(0, c * factor))) for c in colour)
    return red, green, blue


def _behind(pen: ImageDraw.ImageDraw, accessory: str, pose: _Pose, tone: Colour) -> None:
    """The accessory that tells the rough kind of product; wheels are drawn in front by `_wheels`."""
    thick = max(2, int(pose.radius * 0.13))
    if accessory == "handle":
        turn = np.linspace(np.pi, 2 * np.pi, 16)
        arc = np.stack([0.5 * np.cos(turn), -0.72 + 0.78 * np.sin(turn)], 1)
        pen.line(pose(arc), fill=_shade(tone, 0.6), width=thick, joint="curve")
    elif accessory == "string":
        along = np.linspace(0, 1, 20)
        tail = np.stack([0.22 * np.sin(9 * along), 0.6 + 1.25 * along], 1)
        pen.line(pose(tail), fill=(70, 66, 66), width=max(2, thick // 2), joint="curve")
    elif accessory == "stand":
        for side in (-1, 1):
            leg = np.array([[0.25 * side, 0.5], [0.62 * side, 1.32]])
            pen.line(pose(leg), fill=_METAL, width=thick)
        pen.line(pose(np.array([[-0.8, 1.34], [0.8, 1.34]])), fill=_METAL, width=thick)


def _wheels(pen: ImageDraw.ImageDraw, pose: _Pose) -> None:
    for side in (-1, 1):
        ((x, y),) = pose(np.array([[0.52 * side, 0.92]]))
        for part, tone in ((0.3, (34, 34, 38)), (0.13, (196, 196, 200))):
            r = pose.radius * part
            pen.ellipse([x - r * pose.squash, y - r, x + r * pose.squash, y + r], fill=tone)


def _mask(shape: str, pose: _Pose, width: int) -> Image.Image:
    mask = Image.new("L", (width, width))
    pen = ImageDraw.Draw(mask)
    outline = _outline(shape)
    pen.polygon(pose(outline), fill=255)
    if shape == "ring":
        pen.polygon(pose(outline * 0.45), fill=0)
    return mask


def _badge(pen: ImageDraw.ImageDraw, brand: str, width: int, rng: np.random.Generator) -> None:
    """The maker's mark in a corner: two tones and a bar, the same for every product of the brand."""
    names = sorted(BRANDS)
    number = names.index(brand)
    tones = list(_RGB.values())
    left = width * (0.03 if rng.random() < 0.5 else 0.83)
    top, side = width * 0.03, width * 0.14
    pen.rectangle([left, top, left + side, top + side], fill=tones[number % len(tones)])
    bar = side * 0.38
    start = (number % 2) * (side - bar)
    fill = tones[(number + 3) % len(tones)]
    box = (
        [left + start, top, left + start + bar, top + side]
        if number % 4 < 2
        else [left, top + start, left + side, top + start + bar]
    )
    pen.rectangle(box, fill=fill)


def picture(look: Look, size: int, rng: np.random.Generator) -> Image.Image:
    """A product photo, (size, size) RGB: shape, colour and material fully; accessory in 85 %, brand's mark in 50 %."""
    width = 2 * size
    canvas = _background(width, rng)
    radius = width * 0.23 * look.scale**0.5 * rng.uniform(0.88, 1.12)
    x, y = width * (0.5 + rng.uniform(-0.09, 0.09)), width * (0.48 + rng.uniform(-0.07, 0.07))
    pose = _Pose(x, y, radius, rng.normal(0, 0.16), rng.uniform(0.88, 1.0))
    shadow = Image.new("L", (width, width))
    drop = radius * 1.2
    ImageDraw.Draw(shadow).ellipse(
        [x - radius, y + drop - radius * 0.25, x + radius * 1.2, y + drop + radius * 0.15], fill=90
    )
    canvas.paste((60, 60, 66), mask=shadow.filter(ImageFilter.BoxBlur(width / 32)))
    base = np.array(_RGB[look.colour]) * rng.uniform(0.93, 1.07) + rng.normal(0, 4, 3)
    tone = _shade((int(base[0]), int(base[1]), int(base[2])), 1.0)
    pen = ImageDraw.Draw(canvas)
    shown = look.accessory if rng.random() < 0.85 else "none"
    _behind(pen, shown, pose, tone)
    box = pose.box(width)
    surface = np.array(tone) * _surface(look.material, *pose.grid(box), rng)
    if look.material == "metal":
        surface = 0.75 * surface + 0.25 * surface.mean(2, keepdims=True)
    canvas.paste(Image.fromarray(surface.clip(0, 255).astype(np.uint8)), box, _mask(look.shape, pose, width).crop(box))
    outline = pose(_outline(look.shape))
    pen.line([*outline, outline[0]], fill=_shade(tone, 0.55), width=max(1, width // 96))
    if shown == "wheels":
        _wheels(pen, pose)
    if rng.random() < 0.5:
        _badge(pen, look.brand, width, rng)
    return _lit(canvas.reduce(2), rng)


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light from one side, and the noise of a camera."""
    size = image.width
    ramp = np.linspace(-1, 1, size)
    light = 1 + np.add.outer(ramp * rng.uniform(-0.1, 0.1), ramp * rng.uniform(-0.1, 0.1))
    pixels = np.asarray(image, np.float64) * light[:, :, None] * rng.uniform(0.94, 1.05)
    pixels += 2.5 * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _moved(motion: str, at: float, start: float, pose: _Pose, width: int) -> tuple[_Pose, float]:
    """The pose and the brightness at time `at` in [0, 1] of a clip; `start` in [0, 1) is where it begins."""
    x, y, radius, turn = pose.x, pose.y, pose.radius, pose.turn
    light = 1.0
    if motion in ("slide left", "slide right"):
        side = 1 if motion == "slide right" else -1
        x += side * (at - 0.5) * width * 0.5
    elif motion == "bounce":
        y += (0.5 - abs(np.sin(np.pi * (2 * at + start)))) * width * 0.32
    elif motion == "spin":
        turn += 2 * np.pi * (at + start)
    elif motion == "grow":
        radius *= 0.6 + 0.8 * at
    else:
        light = 1.0 if (at * 2 + start) % 1 < 0.5 else 0.35
    return _Pose(x, y, radius, turn, pose.squash), light


def frames(look: Look, size: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A clip (count, size, size, 3) of the product from the side: shape, colour and motion fully, accessory in 40 %.

    The surface is two plain tones, so that a turning circle is seen to turn; material and brand do not show.
    """
    width = 2 * size
    scene = _background(width, rng)
    radius = width * 0.19 * look.scale**0.3 * rng.uniform(0.88, 1.12)
    middle = width * (0.5 + rng.uniform(-0.06, 0.06, 2))
    rest = _Pose(float(middle[0]), float(middle[1]), radius, rng.normal(0, 0.12), rng.uniform(0.68, 0.82))
    start, shown = float(rng.random()), look.accessory if rng.random() < 0.4 else "none"
    base = np.array(_RGB[look.colour]) * rng.uniform(0.9, 1.1)
    half = np.array([[-2.0, 0.0], [2.0, 0.0], [2.0, 2.0], [-2.0, 2.0]])
    made = []
    for number in range(count):
        pose, light = _moved(look.motion, number / max(count - 1, 1), start, rest, width)
        tone = _shade((int(base[0]), int(base[1]), int(base[2])), light)
        canvas = scene.copy()
        pen = ImageDraw.Draw(canvas)
        _behind(pen, shown, pose, tone)
        paint = Image.new("RGB", canvas.size, _shade(tone, 1.15))
        ImageDraw.Draw(paint).polygon(pose(half), fill=_shade(tone, 0.72))
        canvas.paste(paint, mask=_mask(look.shape, pose, width))
        if shown == "wheels":
            _wheels(pen, pose)
        made.append(np.asarray(canvas.reduce(2)))
    return np.stack(made)
