"""Short videos: a few frames, decoded by PyAV from bytes in memory, read as tubelets."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, Self

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow
from pydantic import Field, model_validator
from torch import Tensor, nn

from polymodal.media import (
    MEDIA_ERRORS,
    MediaLimits,
    check_pixels,
    colour_map,
    crop_box,
    edge_mean,
    fit_within,
    open_container,
    read_source,
    seconds_of,
)
from polymodal.modality import Fitted, Guess, Modality, ModalityConfig, Question, standardise
from polymodal.nn.positions import sincos
from polymodal.nn.stem import ConvStem
from polymodal.tensors import Fields
from polymodal.types import BadInput, MediaError

__all__ = ["Video", "VideoConfig"]

Frames = npt.NDArray[np.uint8]


class VideoConfig(ModalityConfig):
    """Configuration of `Video`.

    Args:
        size: side of the square frames, pixels; a multiple of `patch`.
        patch: side of a tube, pixels.
        tube: frames of a tube; an odd last frame is repeated.
        max_frames: frames that are stored and read, spread evenly over what the strategy found.
        min_frames: with fewer key frames than this, or fewer than `fps` gives, frames are spread over the whole clip.
        strategy: "keyframes" decodes key frames alone (4-5 times cheaper); "fps" decodes all and takes `fps` a second.
        fps: frames a second of the "fps" strategy.
        min_area: smallest random crop, as a fraction of the frame.
        flip: probability of a horizontal flip of all frames; 0 because left and right differ in a movement.
        colour: strength of brightness, contrast and saturation changes.
        jitter: a frame may be replaced in training by one at most this many places away.
        stem: how a tube becomes a token: "linear" as in ViViT, or "conv", small convolutions beside the linear map,
            which learn shapes from fewer clips (`nn.stem`).
        places: times, rows and columns by learned vectors, or by fixed sines and cosines ("sincos").
        norm_target: predict tubes normalised by their own mean and spread instead of the catalogue's.
        limits: what one file may cost.
    """

    kind: Literal["video"] = "video"
    size: int = Field(48, ge=8, le=512)
    patch: int = Field(16, ge=2)
    tube: int = Field(2, ge=1)
    max_frames: int = Field(8, ge=1)
    min_frames: int = Field(4, ge=1)
    strategy: Literal["keyframes", "fps"] = "keyframes"
    fps: float = Field(1.0, gt=0)
    min_area: float = Field(0.6, gt=0, le=1)
    flip: float = Field(0.0, ge=0, le=1)
    colour: float = Field(0.3, ge=0, lt=1)
    jitter: int = Field(1, ge=0)
    stem: Literal["linear", "conv"] = "linear"
    places: Literal["learned", "sincos"] = "learned"
    norm_target: bool = False
    limits: MediaLimits = MediaLimits(max_pixels=4096 * 2304)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} is more than max_frames {self.max_frames}")
        return self

    def fit(self, values: Iterable[Any]) -> Fitted:
        """Mean and spread of each colour channel, in levels 0..255. Nothing where there are no values."""
        mean, spread = standardise((np.asarray(v).reshape(-1, 3) for v in values), floor=1.0)
        return {"mean": mean, "spread": spread} if len(mean) == 3 else {}

    def build(self, width: int, fitted: Fitted) -> Video:
        return Video(self, width, fitted)

    def decoder(self) -> Video:
        return Video(self, 8, {})


class Video(Modality):
    """A clip as tubelets.

    A decoded value is uint8 (F, size, size, 3), F <= max_frames. Fields of a clip,
    N = ceil(F / tube) x (size / patch)^2: `tubes` uint8 (N, tube * patch * patch * 3) in the order frame, row, column,
    channel; `time`, `row`, `column` int64 (N,); `unit` int64 (N,), equal to `time`: all tubes of one moment hide
    together. A tube hidden alone could be copied from its neighbours in the same frames; a moment cannot.

    Source: tubelet embedding, Arnab et al. 2021 (ViViT), section 3.2; pixels as the target, Tong et al. 2022
    (VideoMAE). Differences: VideoMAE hides a place through all time, which still clips of a product reveal nothing by;
    here a moment is hidden over all places.
    """

    kind: ClassVar[str] = "video"
    is_media: ClassVar[bool] = True
    mean: Tensor
    spread: Tensor

    def __init__(self, config: VideoConfig, width: int, fitted: Fitted) -> None:
        super().__init__()
        self.config = config
        side, pixels = config.size // config.patch, config.tube * config.patch**2
        moments = -(-config.max_frames // config.tube)
        self.register_buffer("mean", torch.tensor(fitted.get("mean", [127.5] * 3)).repeat(pixels), persistent=False)
        self.register_buffer("spread", torch.tensor(fitted.get("spread", [64.0] * 3)).repeat(pixels), persistent=False)
        self.project = nn.Linear(3 * pixels, width)
        self.stem = ConvStem(config.patch, config.tube, width) if config.stem == "conv" else None
        if config.places == "learned":
            self.times, self.rows, self.columns = (nn.Embedding(n, width) for n in (moments, side, side))
            for table in (self.times, self.rows, self.columns):
                nn.init.normal_(table.weight, std=0.02)
        time, row, column = torch.meshgrid(torch.arange(moments), torch.arange(side), torch.arange(side), indexing="ij")
        self._where = {"time": time.flatten(), "row": row.flatten(), "column": column.flatten(), "unit": time.flatten()}

    # -- loader side --------------------------------------------------------------------------------------------

    def decode(self, source: Any) -> Frames:
        """uint8 (F, size, size, 3) of a path, bytes, or an array (F, H, W, 3).

        Raises:
            MediaError: missing, empty, truncated, over the limits, wrong type (no moving picture), unreadable.
        """
        if isinstance(source, np.ndarray):
            return self._decode_array(source)
        data = read_source(source, self.config.limits)
        with open_container(data, "a video") as (container, kind):
            stream = _picture_stream(container, kind)
            check_pixels(stream.codec_context.width, stream.codec_context.height, self.config.limits)
            frames = self._frames(container, stream)
        if not frames:
            raise MediaError("truncated", f"no frame of the {kind} file can be decoded")
        return np.stack([_to_square(frame, self.config.size) for frame in frames])

    def _decode_array(self, array: npt.NDArray[Any]) -> Frames:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
            raise MediaError("wrong type", f"an array of {array.dtype} {array.shape}, not uint8 (F, H, W, 3)")
        check_pixels(array.shape[2], array.shape[1], self.config.limits)
        frames = array[_spread(len(array), self.config.max_frames)]
        if frames.shape[1:3] == (self.config.size,) * 2:
            return frames
        sizes = fit_within(frames.shape[2], frames.shape[1], self.config.size)
        return np.stack([_to_square(_resize(frame, sizes[1], sizes[0]).numpy(), self.config.size) for frame in frames])

    def _frames(self, container: Any, stream: Any) -> list[Frames]:
        """The chosen frames in order of time, small already but not square."""
        config = self.config
        seconds = seconds_of(container, stream, config.limits)
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe and not packet.is_corrupt]
        affordable = len(packets) <= config.limits.max_frames
        few = len(keys) < min(config.min_frames, len(packets))
        if (config.strategy == "keyframes" and not few) or (not affordable and not few):
            picks = [keys[index] for index in _spread(len(keys), config.max_frames)]
            return [self._small(frame) for frame in _decoded(stream, picks)]
        if not affordable:
            raise MediaError(
                "over the limits", f"{len(packets)} frames, at most {config.limits.max_frames} are decoded"
            )
        count = config.max_frames
        if config.strategy == "fps" and seconds * config.fps >= config.min_frames:
            count = min(config.max_frames, int(seconds * config.fps))
        wanted = set(_spread(len(packets), count).tolist())
        return [self._small(frame) for index, frame in enumerate(_decoded(stream, packets)) if index in wanted]

    def _small(self, frame: Any) -> Frames:
        width, height = fit_within(frame.width, frame.height, self.config.size)
        pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
        turned: Frames = np.rot90(pixels, round(frame.rotation / 90))
        return turned

    def augment(self, value: Frames, generator: torch.Generator) -> Frames:
        """One crop, flip and colour change for all frames; frames exchanged with near ones, order kept."""
        config, count = self.config, len(value)
        draws = torch.rand(8, generator=generator).tolist()
        shift = torch.randint(-config.jitter, config.jitter + 1, (count,), generator=generator)
        moments = (torch.arange(count) + shift).clamp_(0, count - 1).sort().values
        top, left, height, width = crop_box(draws[:4], value.shape[1], value.shape[2], config.min_area)
        frames = _resize(value[moments.numpy(), top : top + height, left : left + width], config.size, config.size)
        if draws[4] < config.flip:
            frames = frames.flip(2)
        pixels = frames.reshape(-1, 3).float()
        matrix, offset = colour_map(draws[5:8], config.colour, float(pixels.mean()))
        pixels = torch.addmm(torch.from_numpy(offset), pixels, torch.from_numpy(matrix))
        varied: Frames = pixels.round_().clamp_(0, 255).to(torch.uint8).view(frames.shape).numpy()
        return varied

    def preprocess(self, value: Frames) -> Fields:
        """Tubelets of the frames, at most `max_frames`; the last one is repeated to fill its tube."""
        config = self.config
        frames, side, patch = value[: config.max_frames], config.size // config.patch, config.patch
        if frames.ndim != 4 or frames.shape[1:3] != (config.size, config.size):
            raise BadInput(
                "video value", f"uint8 (F, {config.size}, {config.size}, 3)", value.shape, "Call decode first."
            )
        missing = -len(frames) % config.tube
        if missing:
            frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        blocks = frames.reshape(-1, config.tube, side, patch, side, patch, 3).transpose(0, 2, 4, 1, 3, 5, 6)
        tubes = blocks.reshape(-1, config.tube * patch**2 * 3)
        where = {name: index[: len(tubes)] for name, index in self._where.items()}
        return {"tubes": torch.from_numpy(np.require(tubes, None, ["C", "W"])), **where}

    def blank(self) -> Fields:
        """A black clip of the full length."""
        return self.preprocess(np.zeros((self.config.max_frames, self.config.size, self.config.size, 3), np.uint8))

    def example(self, seed: int) -> Frames:
        """Up to `max_frames` frames of random soft blobs that move sideways."""
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        still = _resize(coarse, self.config.size, self.config.size).numpy()
        count = random.integers(self.config.min_frames, self.config.max_frames + 1)
        return np.stack([np.roll(still, 3 * moment, axis=1) for moment in range(count)])

    def show(self, value: Frames) -> tuple[str, bytes]:
        """The frames as an animated PNG, two a second."""
        file = io.BytesIO()
        first, *rest = (Pillow.fromarray(frame) for frame in value)
        first.save(file, "PNG", save_all=True, append_images=rest, duration=500, loop=0)
        return "image/png", file.getvalue()

    # -- model side -----------------------------------------------------------------------------------------------

    def embed(self, fields: Fields) -> Tensor:
        pixels = self._standard(fields)
        plain: Tensor = self.project(pixels)
        return plain if self.stem is None else plain + self.stem(pixels)

    def positions(self, fields: Fields) -> Tensor:
        if self.config.places == "sincos":
            return sincos(torch.stack([fields[n] for n in ("time", "row", "column")], 1), self.project.out_features)
        place = self.rows(fields["row"]) + self.columns(fields["column"])
        return place + self.times(fields["time"])  # type: ignore[no-any-return]

    def target(self, fields: Fields) -> Tensor:
        """Standardised pixels (K, tube * patch^2 * 3), float32; per tube where `norm_target`."""
        if not self.config.norm_target:
            return self._standard(fields)
        levels = fields["tubes"].float()
        variance, mean = torch.var_mean(levels, dim=-1, keepdim=True)
        # one level is the noise of 8 bits: an even patch stays near zero instead of showing its noise
        return (levels - mean) / (variance + 1.0).sqrt()

    def _standard(self, fields: Fields) -> Tensor:
        return (fields["tubes"].float() - self.mean) / self.spread

    def head(self, width: int) -> nn.Module:
        """LayerNorm and a linear map with small weights, so that an untrained head predicts about the mean."""
        last = nn.Linear(width, len(self.mean))
        nn.init.normal_(last.weight, std=0.02)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.LayerNorm(width), last)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each token, (K,), float32."""
        return (prediction.float() - target.float()).square().mean(-1)

    def answer(self, question: Question, prediction: Tensor) -> Guess:
        """uint8 (F, size, size, 3); hidden tubes as in `Image.answer`."""
        config, levels = self.config, question.fields["tubes"].float()
        mean, spread, known = self.mean, self.spread, levels[~question.hidden]
        if config.norm_target and len(known):
            mean, spread = known.mean(), known.std(1).mean()
        levels[question.hidden] = prediction.float().cpu() * spread.cpu() + mean.cpu()
        whole, side, patch = (
            levels.round().clamp(0, 255).to(torch.uint8).numpy(),
            config.size // config.patch,
            config.patch,
        )
        blocks = whole.reshape(-1, side, side, config.tube, patch, patch, 3).transpose(0, 3, 1, 4, 2, 5, 6)
        return Guess(blocks.reshape(-1, config.size, config.size, 3))


# -- reading frames ---------------------------------------------------------------------------------------------------


def _picture_stream(container: Any, kind: str) -> Any:
    """The first stream of moving pictures; the cover of a song is not one. Raises MediaError: wrong type."""
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers and s.codec_context is not None]
    if not streams:
        raise MediaError("wrong type", f"the {kind} file has no moving picture")
    streams[0].codec_context.thread_count = 1  # loader workers share the cores already
    return streams[0]


def _decoded(stream: Any, packets: list[Any]) -> Iterator[Any]:
    """The frames of packets in order of time. Damaged ones are passed over."""
    for packet in [*packets, None]:
        try:
            yield from (frame for frame in stream.codec_context.decode(packet) if not frame.is_corrupt)
        except MEDIA_ERRORS:
            continue


def _spread(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most `wanted` indexes spread evenly over `count`, the middle of each part."""
    wanted = min(count, wanted)
    return ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(np.int64)


def _to_square(frame: Frames, side: int) -> Frames:
    """Centred on a square of the mean colour of its edges; `edge_mean` says why."""
    rows, columns = frame.shape[:2]
    if (rows, columns) == (side, side):
        return frame
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = edge_mean(frame)
    top, left = (side - rows) // 2, (side - columns) // 2
    canvas[top : top + rows, left : left + columns] = frame
    return canvas


def _resize(frames: Frames, rows: int, columns: int) -> Tensor:
    """Antialiased bilinear, uint8 (..., H, W, 3) -> (..., rows, columns, 3)."""
    pixels = torch.from_numpy(np.require(frames, None, ["C", "W"])).reshape(-1, *frames.shape[-3:]).permute(0, 3, 1, 2)
    scaled = nn.functional.interpolate(pixels, (rows, columns), mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).reshape(*frames.shape[:-3], rows, columns, 3)
