"""Files of the demo catalogue: JPEG, MP4 and WAV bytes, the synthesised sounds, and files broken on purpose."""

from __future__ import annotations

import io
import wave
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from polymodal.types import MediaReason

__all__ = ["FAULTS", "broken", "jpeg", "mp4", "sound", "touched_up", "wav"]

# every way a media cell is broken, in the order in which they are planted
FAULTS: tuple[tuple[str, MediaReason], ...] = (
    ("image", "empty"),
    ("video", "truncated"),
    ("audio", "wrong type"),
    ("image", "over the limits"),
    ("image", "outside the media root"),
    ("image", "missing"),
    ("image", "truncated"),
    ("video", "empty"),
    ("audio", "missing"),
    ("image", "wrong type"),
    ("video", "outside the media root"),
    ("audio", "empty"),
    ("video", "wrong type"),
    ("audio", "truncated"),
    ("video", "missing"),
    ("audio", "outside the media root"),
)

_BASE_HZ = (150.0, 300.0, 600.0)  # per pitch band


def jpeg(image: Image.Image) -> bytes:
    """The picture as JPEG, quality 88."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


def touched_up(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same photo as another seller shows it: a little brighter or darker, cropped by one or two pixels."""
    cut = int(rng.integers(1, 3))
    cropped = image.crop((cut, cut, image.width - cut, image.height - cut)).resize(image.size, Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(cropped).enhance(rng.uniform(0.92, 1.08))


def _codec() -> tuple[str, dict[str, str]]:
    if "libx264" in av.codecs_available:
        return "libx264", {"crf": "25", "preset": "veryfast"}
    return "mpeg4", {"qscale": "4"}


def mp4(frames: npt.NDArray[np.uint8], fps: int, key_every: int) -> bytes:
    """Frames (F, H, W, 3) as MP4 without sound; H.264 where the library has an encoder, else MPEG-4 part 2.

    One thread and one key frame every `key_every` frames: the same frames give the same bytes with the same library.
    """
    name, options = _codec()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream(name, rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = key_every
        stream.codec_context.max_b_frames = 0
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def wav(samples: npt.NDArray[np.float64], rate: int) -> bytes:
    """Samples in [-1, 1] as mono 16-bit WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def sound(name: str, band: int, seconds: float, rate: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A short sound in [-1, 1], (seconds * rate,): timbre and course tell the class, the base pitch the band.

    Pitch is within a third of an octave of the band's, loudness within 6 dB, over faint noise.
    """
    t = np.arange(int(seconds * rate)) / rate
    base = _BASE_HZ[band] * 2 ** rng.uniform(-0.3, 0.3)
    made = _voice(name, base, t, rng)
    made = made / max(float(np.abs(made).max()), 1e-6) * rng.uniform(0.35, 0.7)
    edge = np.minimum(1, np.minimum(t, t[-1] - t) / 0.01)
    return np.asarray(made * edge + rng.normal(0, 0.004, t.shape))


def _harmonics(base: float, t: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A sum of sines at whole multiples of `base` that stay below the ear's and the file's limit."""
    limit = 0.45 / (t[1] - t[0])
    total = np.zeros(len(t))
    for number, weight in enumerate(weights, 1):
        if number * base < limit:
            total += weight * np.sin(2 * np.pi * number * base * t)
    return total


def _voice(name: str, base: float, t: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    if name == "bell":
        ratios, decay = np.array([1.0, 2.76, 5.4, 8.9]), np.array([3.0, 5.0, 7.0, 9.0])
        waves = np.sin(2 * np.pi * base * ratios[:, None] * t) * np.exp(-decay[:, None] * t)
        return np.asarray(waves.sum(0))
    if name == "horn":
        return _harmonics(base, t, 1 / np.arange(1, 16) ** 0.7) * np.minimum(1, t / 0.12)
    if name == "flute":
        return np.asarray(
            np.sin(2 * np.pi * base * t + 2.0 * np.sin(2 * np.pi * 5 * t)) + 0.03 * rng.normal(0, 1, t.shape)
        )
    if name == "rattle":
        beats = np.exp(-22 * ((t * rng.uniform(7, 9)) % 1) / 8) ** 4
        hiss = rng.normal(0, 1, t.shape)
        return np.asarray((np.diff(hiss, prepend=0) + 0.4 * np.sin(2 * np.pi * base * t)) * beats)
    if name == "buzz":
        gate = (np.sin(2 * np.pi * rng.uniform(22, 28) * t) > 0).astype(np.float64)
        return _harmonics(base, t, (np.arange(1, 40) % 2) / np.arange(1, 40) ** 0.4) * (0.15 + gate)
    rise = (t * rng.uniform(3.5, 4.5)) % 1
    phase = 2 * np.pi * np.cumsum(base * (1 + 3 * rise)) * (t[1] - t[0])
    return np.asarray(np.sin(phase) * (1 - rise) ** 0.5)


def broken(reason: MediaReason, healthy: bytes) -> bytes | None:
    """What stands in the file of a planted fault; None where no file is to be written."""
    if reason == "empty":
        return b""
    if reason == "truncated":
        return healthy[: int(len(healthy) * 0.4)]
    if reason == "wrong type":
        return b"<html><head><title>404 Not Found</title></head><body>No such file.</body></html>\n"
    if reason == "over the limits":
        file = io.BytesIO()
        Image.new("1", (9000, 9000), 1).save(file, "PNG")
        return file.getvalue()
    return None
