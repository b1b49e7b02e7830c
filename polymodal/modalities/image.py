"""Pictures: decoded onto a small square canvas, cropped, flipped and coloured in torch, read as patches."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from pydantic import Field, model_validator
from torch import Tensor, nn

from polymodal.media import (
    MediaLimits,
    check_pixels,
    colour_map,
    crop_box,
    describe,
    edge_mean,
    fit_within,
    is_picture,
    looks_cut,
    read_source,
    sniff,
)
from polymodal.modality import Fitted, Guess, Modality, ModalityConfig, Question, standardise
from polymodal.nn.positions import sincos
from polymodal.nn.stem import ConvStem
from polymodal.tensors import Fields
from polymodal.types import BadInput, MediaError

__all__ = ["Image", "ImageConfig"]

Pictures = npt.NDArray[np.uint8]

# what Pillow's readers raise for damaged files; SyntaxError and struct.error come from its PNG and TIFF readers
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
)


class ImageConfig(ModalityConfig):
    """Configuration of `Image`.

    Args:
        size: side of what the model reads, pixels; a multiple of `patch`.
        margin: the stored canvas is `size + margin`, so that crops have room to move.
        patch: side of a patch, pixels; a picture is (size / patch)^2 tokens.
        max_pictures: pictures of one cell that the model reads; in training they are drawn at random.
        max_stored: pictures of one cell that are decoded and stored.
        min_area: smallest random crop, as a fraction of the canvas.
        flip: probability of a horizontal flip; 0 where left and right differ in meaning (text in pictures).
        colour: strength of brightness, contrast and saturation changes; 0 where colour decides.
        stem: how a patch becomes a token: "linear" as in ViT, or "conv", small convolutions beside the linear map,
            which learn shapes from fewer pictures (`nn.stem`).
        places: rows and columns by learned vectors, or by the fixed sines and cosines of MAE ("sincos").
        norm_target: predict patches normalised by their own mean and spread (MAE) instead of the catalogue's.
        norm_floor: added to a patch's variance then, in squared levels of 0..255. One level is the noise of 8 bits: an
            even patch stays near zero instead of showing its noise. MAE's 1e-6 of standardised pixels is about 0.003.
        limits: what one file may cost.
    """

    kind: Literal["image"] = "image"
    size: int = Field(64, ge=8, le=1024)
    margin: int = Field(8, ge=0)
    patch: int = Field(16, ge=2)
    max_pictures: int = Field(2, ge=1)
    max_stored: int = Field(8, ge=1)
    min_area: float = Field(0.5, gt=0, le=1)
    flip: float = Field(0.5, ge=0, le=1)
    colour: float = Field(0.3, ge=0, lt=1)
    stem: Literal["linear", "conv"] = "linear"
    places: Literal["learned", "sincos"] = "learned"
    norm_target: bool = False
    norm_floor: float = Field(1.0, ge=0)
    limits: MediaLimits = MediaLimits()

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self

    @property
    def canvas(self) -> int:
        """Side of the stored pictures, pixels."""
        return self.size + self.margin

    def fit(self, values: Iterable[Any]) -> Fitted:
        """Mean and spread of each colour channel, in levels 0..255. Nothing where there are no values."""
        mean, spread = standardise((np.asarray(v).reshape(-1, 3) for v in values), floor=1.0)
        return {"mean": mean, "spread": spread} if len(mean) == 3 else {}

    def build(self, width: int, fitted: Fitted) -> Image:
        return Image(self, width, fitted)

    def decoder(self) -> Image:
        return Image(self, 8, {})


class Image(Modality):
    """One or several pictures of an item, as patches.

    A decoded value is uint8 (P, canvas, canvas, 3). Fields of a cell, N = pictures x (size / patch)^2:
    `patches` uint8 (N, patch * patch * 3) in the order row, column, channel; `row`, `column`, `picture` int64 (N,).

    Source: patches as tokens, Dosovitskiy et al. 2021 (ViT); their standardised pixels as the target, He et al. 2022
    (MAE), section 3, here by the catalogue's channel statistics unless `norm_target`.
    """

    kind: ClassVar[str] = "image"
    is_media: ClassVar[bool] = True
    mean: Tensor
    spread: Tensor

    def __init__(self, config: ImageConfig, width: int, fitted: Fitted) -> None:
        super().__init__()
        self.config = config
        side, pixels = config.size // config.patch, config.patch**2
        self.register_buffer("mean", torch.tensor(fitted.get("mean", [127.5] * 3)).repeat(pixels), persistent=False)
        self.register_buffer("spread", torch.tensor(fitted.get("spread", [64.0] * 3)).repeat(pixels), persistent=False)
        self.project = nn.Linear(3 * pixels, width)
        self.stem = ConvStem(config.patch, 1, width) if config.stem == "conv" else None
        self.pictures = nn.Embedding(config.max_pictures, width)
        tables = [self.pictures]
        if config.places == "learned":
            self.rows, self.columns = nn.Embedding(side, width), nn.Embedding(side, width)
            tables += [self.rows, self.columns]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)
        picture, row, column = torch.meshgrid(
            torch.arange(config.max_pictures), torch.arange(side), torch.arange(side), indexing="ij"
        )
        self._where = {"row": row.flatten(), "column": column.flatten(), "picture": picture.flatten()}

    # -- loader side --------------------------------------------------------------------------------------------

    def decode(self, source: Any) -> Pictures:
        """uint8 (P, canvas, canvas, 3) of a path, bytes, an array (H, W, 3) or (P, H, W, 3), or a list of those.

        Raises:
            MediaError: no picture is usable; with several, the reason of the first. `decode_each` tells of each.
        """
        sources = source if isinstance(source, (list, tuple)) else [source]
        value, errors = self.decode_each(sources)
        if value is not None:
            return value
        if not errors:
            raise MediaError("empty", "no picture")
        first = errors[0][1]
        more = f" (and none of the other {len(errors) - 1} pictures can be used)" if len(errors) > 1 else ""
        raise MediaError(first.reason, first.detail + more)

    def decode_each(self, sources: Sequence[Any]) -> tuple[Pictures | None, list[tuple[int, MediaError]]]:
        """The usable pictures, and what is wrong with each of the others by its index.

        Stops once `max_stored` pictures are usable: the sources after that are not looked at.
        """
        usable: list[Pictures] = []
        errors: list[tuple[int, MediaError]] = []
        for index, source in enumerate(sources):
            if sum(map(len, usable)) >= self.config.max_stored:
                break
            try:
                usable.append(self._decode_one(source))
            except MediaError as error:
                errors.append((index, error))
        return (np.concatenate(usable)[: self.config.max_stored] if usable else None), errors

    def _decode_one(self, source: Any) -> Pictures:
        canvas = self.config.canvas
        if not isinstance(source, np.ndarray):
            return _to_canvas(_read(read_source(source, self.config.limits), canvas, self.config.limits), canvas)[None]
        pictures = source[None] if source.ndim == 3 else source
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape:
            raise MediaError("wrong type", f"an array of {source.dtype} {source.shape}, not uint8 (H, W, 3)")
        check_pixels(pictures.shape[2], pictures.shape[1], self.config.limits)
        if pictures.shape[1:3] == (canvas, canvas):
            return pictures
        return np.stack([_to_canvas(picture, canvas) for picture in pictures])

    def augment(self, value: Pictures, generator: torch.Generator) -> Pictures:
        """Up to `max_pictures` of the pictures, drawn at random in their order, each cropped, flipped and coloured.

        Returns: uint8 (P, size, size, 3).
        """
        chosen = value
        if len(value) > self.config.max_pictures:
            picks = torch.randperm(len(value), generator=generator)[: self.config.max_pictures]
            chosen = value[picks.sort().values.numpy()]
        draws = torch.rand(len(chosen), 8, generator=generator).tolist()
        return np.stack([self._vary(picture, numbers) for picture, numbers in zip(chosen, draws, strict=True)])

    def _vary(self, picture: Pictures, draws: list[float]) -> Pictures:
        config = self.config
        top, left, height, width = crop_box(draws[:4], picture.shape[0], picture.shape[1], config.min_area)
        varied = _resize(picture[top : top + height, left : left + width], config.size, config.size)
        if draws[4] < config.flip:
            varied = varied.flip(1)
        pixels = varied.reshape(-1, 3).float()
        matrix, offset = colour_map(draws[5:8], config.colour, float(pixels.mean()))
        pixels = torch.addmm(torch.from_numpy(offset), pixels, torch.from_numpy(matrix))
        coloured: Pictures = pixels.round_().clamp_(0, 255).to(torch.uint8).view(varied.shape).numpy()
        return coloured

    def preprocess(self, value: Pictures) -> Fields:
        """Patches of the centre (size x size) of the first `max_pictures` pictures."""
        size, patch = self.config.size, self.config.patch
        pictures = value[: self.config.max_pictures]
        if pictures.ndim != 4 or min(pictures.shape[1:3]) < size:
            raise BadInput("image value", f"uint8 (P, >= {size}, >= {size}, 3)", value.shape, "Call decode first.")
        top, left, side = (pictures.shape[1] - size) // 2, (pictures.shape[2] - size) // 2, size // patch
        centre = pictures[:, top : top + size, left : left + size]
        blocks = centre.reshape(-1, side, patch, side, patch, 3).swapaxes(2, 3).reshape(-1, 3 * patch**2)
        where = {name: index[: len(blocks)] for name, index in self._where.items()}
        return {"patches": torch.from_numpy(np.require(blocks, None, ["C", "W"])), **where}

    def blank(self) -> Fields:
        """One black picture."""
        return self.preprocess(np.zeros((1, self.config.size, self.config.size, 3), np.uint8))

    def example(self, seed: int) -> Pictures:
        """One to `max_pictures` pictures of random soft blobs."""
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (random.integers(1, self.config.max_pictures + 1), 4, 4, 3), np.uint8)
        return np.stack([_resize(picture, self.config.canvas, self.config.canvas).numpy() for picture in coarse])

    def show(self, value: Pictures) -> tuple[str, bytes]:
        """The first picture as PNG."""
        file = io.BytesIO()
        Pillow.fromarray(value[0]).save(file, "PNG")
        return "image/png", file.getvalue()

    # -- model side -----------------------------------------------------------------------------------------------

    def embed(self, fields: Fields) -> Tensor:
        pixels = self._standard(fields)
        plain: Tensor = self.project(pixels)
        return plain if self.stem is None else plain + self.stem(pixels)

    def positions(self, fields: Fields) -> Tensor:
        if self.config.places == "sincos":
            place = sincos(torch.stack([fields["row"], fields["column"]], 1), self.pictures.embedding_dim)
        else:
            place = self.rows(fields["row"]) + self.columns(fields["column"])
        return place + self.pictures(fields["picture"])  # type: ignore[no-any-return]

    def coordinates(self, fields: Fields) -> Tensor:
        """(K, 2), row and column; (K, 3) with the number of the picture first where a cell may hold several."""
        axes = ["row", "column"] if self.config.max_pictures == 1 else ["picture", "row", "column"]
        return torch.stack([fields[name] for name in axes], 1)

    def target(self, fields: Fields) -> Tensor:
        """Standardised pixels (K, 3 * patch^2), float32; per patch and over its channels where `norm_target`."""
        if not self.config.norm_target:
            return self._standard(fields)
        levels = fields["patches"].float()
        variance, mean = torch.var_mean(levels, dim=-1, keepdim=True)
        return (levels - mean) / (variance + self.config.norm_floor).sqrt()

    def _standard(self, fields: Fields) -> Tensor:
        return (fields["patches"].float() - self.mean) / self.spread

    def head(self, width: int) -> nn.Module:
        """LayerNorm and a linear map with small weights, so that an untrained head predicts about the mean."""
        last = nn.Linear(width, 3 * self.config.patch**2)
        nn.init.normal_(last.weight, std=0.02)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.LayerNorm(width), last)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each token, (K,), float32."""
        return (prediction.float() - target.float()).square().mean(-1)

    def answer(self, question: Question, prediction: Tensor) -> Guess:
        """uint8 (P, size, size, 3). Where targets are normalised by patch (`norm_target`), a hidden patch takes the
        mean and spread of the average visible one, or of the catalogue."""
        size, patch, levels = self.config.size, self.config.patch, question.fields["patches"].float()
        mean, spread, known = self.mean, self.spread, levels[~question.hidden]
        if self.config.norm_target and len(known):
            mean, spread = known.mean(), known.std(1).mean()
        levels[question.hidden] = prediction.float().cpu() * spread.cpu() + mean.cpu()
        whole = levels.round().clamp(0, 255).to(torch.uint8).numpy()
        blocks = whole.reshape(-1, size // patch, size // patch, patch, patch, 3).swapaxes(2, 3)
        return Guess(blocks.reshape(-1, size, size, 3))


# -- reading one picture --------------------------------------------------------------------------------------------


def _read(data: bytes, side: int, limits: MediaLimits) -> Pictures:
    """One encoded picture as uint8 (H, W, 3), large enough for a canvas of `side`. Raises MediaError."""
    kind = sniff(data[:512])
    if not is_picture(kind):
        raise MediaError(
            "unreadable" if kind is None else "wrong type", f"a picture was expected, this is {describe(kind)}"
        )
    fast = _read_jpeg(data, side, limits) if kind == "jpeg" else None
    return fast if fast is not None else _read_any(data, str(kind), side, limits)


def _read_jpeg(data: bytes, side: int, limits: MediaLimits) -> Pictures | None:
    """By simplejpeg, at half the size or less where the picture is large; None where Pillow must look.

    Pillow is for CMYK, for a rotation in EXIF, and for what strict decoding refuses for another reason than its end.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        check_pixels(width, height, limits)
        if space in ("CMYK", "YCCK") or _turned(data):
            return None
        # twice the canvas is kept, so that the antialiased resize still has something to average
        columns, rows = fit_within(width, height, 2 * side)
        small = {"min_height": rows, "min_width": columns} if max(width, height) > 4 * side else {}
        picture: Pictures = simplejpeg.decode_jpeg(data, "RGB", strict=True, **small)
    except (ValueError, KeyError) as error:  # KeyError: a colour space that simplejpeg has no name for
        if "premature end" in str(error).lower():
            raise MediaError("truncated", "the jpeg file ends before the picture does") from None
        return None
    return picture


def _turned(data: bytes) -> bool:
    """Whether EXIF asks for another orientation than the stored one (tag 0x0112)."""
    if b"Exif\x00\x00" not in data[:65536]:
        return False
    try:
        with Pillow.open(io.BytesIO(data), formats=["JPEG"]) as opened:
            return bool(opened.getexif().get(0x0112, 1) != 1)
    except _PILLOW_ERRORS:
        return False


def _read_any(data: bytes, kind: str, side: int, limits: MediaLimits) -> Pictures:
    """By Pillow, with only the reader of `kind` allowed; the declared size is checked before any pixel is decoded."""
    try:
        with Pillow.open(io.BytesIO(data), formats=[kind]) as opened:
            check_pixels(opened.width, opened.height, limits)
            opened.draft("RGB", (2 * side, 2 * side))  # JPEG only: DCT scaling
            return _rgb(ImageOps.exif_transpose(opened))
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:  # the latter under -W error
        raise MediaError("over the limits", str(error)) from None
    except _PILLOW_ERRORS as error:
        cut = "truncated" in str(error).lower() or looks_cut(data, kind)
        raise MediaError("truncated" if cut else "unreadable", f"{kind}: {error}") from None


def _rgb(picture: Pillow.Image) -> Pictures:
    """Any mode of Pillow as uint8 RGB; transparency on white, 16 bits and floats scaled instead of cut off."""
    if picture.mode.startswith(("I", "F")):
        levels = np.nan_to_num(np.asarray(picture, np.float32))
        top = 65535.0 if levels.max() > 255 else 255.0 if levels.max() > 1 or picture.mode != "F" else 1.0
        grey = np.clip(levels * (255.0 / top), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def _to_canvas(picture: Pictures, side: int) -> Pictures:
    """Scaled to fit, aspect kept, centred on a square of the mean colour of its edges (`edge_mean` says why)."""
    columns, rows = fit_within(picture.shape[1], picture.shape[0], side)
    scaled: Pictures = _resize(picture, rows, columns).numpy()
    if rows == columns:
        return scaled
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = edge_mean(scaled)
    top, left = (side - rows) // 2, (side - columns) // 2
    canvas[top : top + rows, left : left + columns] = scaled
    return canvas


def _resize(picture: Pictures, rows: int, columns: int) -> Tensor:
    """Antialiased bilinear, uint8 (H, W, 3) -> (rows, columns, 3)."""
    # a copy where the array is read-only, as those of a memory-mapped shard are: torch has no such tensors
    pixels = torch.from_numpy(np.require(picture, None, ["C", "W"])).permute(2, 0, 1)[None]
    return nn.functional.interpolate(pixels, (rows, columns), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
