"""Media files without torch: reading them within limits, saying what they are, opening containers, geometry of crops.

Content decides, never the name of a file: a PNG called `photo.jpg` is a PNG, and a text file called so is "wrong type".
Every function that can meet a bad file raises MediaError with a reason that a person can act on.
"""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from polymodal.config import Config
from polymodal.types import BadInput, MediaError

__all__ = [
    "MEDIA_ERRORS",
    "MediaLimits",
    "check_pixels",
    "colour_map",
    "crop_box",
    "describe",
    "edge_mean",
    "fit_within",
    "is_picture",
    "looks_cut",
    "open_container",
    "read_source",
    "seconds_of",
    "sniff",
]

# what FFmpeg, through PyAV, raises for damaged content: some of it as plain Python errors
MEDIA_ERRORS = (FFmpegError, OSError, ValueError, EOFError)

# the luma weights of ITU-R BT.601, which Pillow's greyscale conversion uses too
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class MediaLimits(Config):
    """What one media file may cost at most. Every limit is checked before the memory it guards is allocated.

    Args:
        max_bytes: size of the encoded file.
        max_pixels: width x height of a picture or of a frame.
        max_seconds: declared length of a video or a sound.
        max_frames: frames of one video that may be decoded one after another.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 40_000_000
    max_seconds: float = 600.0
    max_frames: int = 4096


def read_source(source: Path | bytes, limits: MediaLimits) -> bytes:
    """The encoded bytes of a file, or `source` itself where it is bytes already.

    Args:
        source: a path (the caller has checked that it lies inside the media root) or encoded bytes.
        limits: the size is checked before anything is read.

    Raises:
        MediaError: missing, empty, over the limits, or unreadable (no permission, a folder, a device).
        BadInput: neither a path nor bytes; a plain str is refused, so that text can never be taken for a path.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        _check_size(len(data), limits)
        return data
    if not isinstance(source, Path):
        raise BadInput("media source", "a pathlib.Path or bytes", type(source).__name__)
    try:
        about = source.stat()
        if not stat.S_ISREG(about.st_mode):
            raise MediaError("unreadable", f"{source.name} is not a regular file")
        _check_size(about.st_size, limits)
        with source.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError("missing", source.name) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise MediaError("unreadable", f"{source.name}: {error}") from None
    _check_size(len(data), limits)  # the file may have changed since its size was read
    return data


def _check_size(size: int, limits: MediaLimits) -> None:
    if size == 0:
        raise MediaError("empty", "0 bytes")
    if size > limits.max_bytes:
        raise MediaError("over the limits", f"{size} bytes, at most {limits.max_bytes} are read")


def check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    """Refuse a picture by the size its header declares. Raises MediaError: over the limits, or unreadable (no area)."""
    if width < 1 or height < 1:
        raise MediaError("unreadable", f"the header declares {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise MediaError("over the limits", f"{width} x {height} pixels, at most {limits.max_pixels} are decoded")


# -- what a file is --------------------------------------------------------------------------------------------------

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"%PDF-", "pdf"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ", "program"),
)
_RIFF = {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}
_BRANDS = dict.fromkeys((b"avif", b"avis"), "avif") | dict.fromkeys((b"heic", b"heix", b"mif1"), "heic")
_BRANDS |= {b"M4A ": "m4a", b"M4B ": "m4a", b"qt  ": "mov"}

_NAMES = {
    "pdf": "a PDF document",
    "html": "an HTML page",
    "svg": "an SVG drawing",
    "xml": "an XML document",
    "json": "JSON",
    "text": "plain text",
    "zip": "a ZIP archive or an office document",
    "gzip": "a gzip archive",
    "program": "a program",
    "heic": "a HEIC picture (convert it to JPEG)",
}

# the demuxer is chosen by what the bytes are, never probed: a playlist that names other files or URLs has no entry
_ALIKE = {"mp4": "mov", "m4a": "mov", "webm": "matroska"}
_OWN = ("mov", "matroska", "avi", "flv", "asf", "mpeg", "mpegts", "gif", "wav", "ogg", "flac", "mp3", "aac")
_DEMUXERS = _ALIKE | {name: name for name in _OWN}


def sniff(head: bytes) -> str | None:
    """What a file is by its first bytes, or None.

    Args:
        head: the first bytes; 512 are enough.

    Returns:
        jpeg png gif webp bmp tiff avif heic · mp4 mov matroska webm avi flv asf mpeg mpegts ·
        wav ogg flac mp3 m4a aac · pdf html svg xml json zip gzip program text.
    """
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return _BRANDS.get(head[8:12], "mp4") if head[4:8] == b"ftyp" else "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "webm" if b"webm" in head[:64] else "matroska"
    return _sniff_stream(head) or _sniff_text(head)


def _sniff_stream(head: bytes) -> str | None:
    if len(head) > 188 and head[0] == 0x47 and head[188] == 0x47:
        return "mpegts"
    if len(head) < 2 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:  # ADTS: 12 sync bits, layer 0
        return "aac"
    return "mp3" if head[1] & 0xE0 == 0xE0 and head[1] & 0x06 else None


def _sniff_text(head: bytes) -> str | None:
    start = head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start or b"\x00" in start or any(byte < 9 for byte in start):
        return None
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return "html"
    if start.startswith((b"<svg", b"<?xml")):
        return "svg" if b"<svg" in start else "xml"
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # else a character that the end of the head cut in two
            return None
    return "json" if start.startswith((b"{", b"[")) else "text"


def describe(kind: str | None) -> str:
    """A name of `sniff` for a message: "a PDF document", "an HTML page", "a png file"."""
    if kind is None:
        return "a file of no known format"
    return _NAMES.get(kind, f"a {kind} file")


def is_picture(kind: str | None) -> bool:
    """Whether `sniff` named a format that is read as a still picture."""
    return kind in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")


# -- whether a file was cut short ------------------------------------------------------------------------------------


def looks_cut(data: bytes, kind: str | None) -> bool:
    """Whether a whole file declares more content than there is, by the sizes and end marks of its format.

    True is certain for RIFF, ISO media, Matroska, Ogg and MP3 with a Xing header. JPEG, PNG and GIF are judged by
    their end mark alone, so ask for those only once decoding has failed. Formats without a mark give False.
    """
    if kind in ("wav", "avi", "webp"):
        declared = int.from_bytes(data[4:8], "little")
        return declared not in (0, 0xFFFFFFFF) and declared + 8 > len(data) + 1
    if kind in ("mp4", "mov", "m4a", "avif", "heic"):
        return _boxes_cut(data)
    if kind in ("matroska", "webm"):
        return _segment_cut(data)
    if kind == "ogg":
        return _pages_cut(data)
    if kind == "mp3":
        return _frames_cut(data)
    end = {"jpeg": b"\xff\xd9", "png": b"IEND", "gif": b"\x3b"}.get(kind or "")
    return end is not None and end not in data[-32:]


def _boxes_cut(data: bytes) -> bool:
    """ISO base media: the top-level boxes must end where the file ends. Source: ISO/IEC 14496-12, 4.2."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size == 0:
            return False
        if size < 8 or at + size > len(data):
            return True
        at += size
    return at == 0


def _segment_cut(data: bytes) -> bool:
    """Matroska: the declared size of the segment against what follows. Source: RFC 8794 section 4, RFC 9559."""
    header, at = _vint(data, 4)
    at += header
    if data[at : at + 4] != b"\x18\x53\x80\x67":
        return len(data) < at + 4
    size, at = _vint(data, at + 4)
    return size >= 0 and at + size > len(data)


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-size integer and where it ends; -1 for the reserved value "unknown"."""
    if at >= len(data) or data[at] == 0:
        return 0, at + 1
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (-1 if value == (1 << 7 * width) - 1 else value), at + width


def _pages_cut(data: bytes) -> bool:
    """Ogg: the last page must be whole and carry the end-of-stream flag. Source: RFC 3533 section 6."""
    at = data.rfind(b"OggS")
    if at + 27 > len(data):
        return True
    segments = data[at + 26]
    table = data[at + 27 : at + 27 + segments]
    whole = len(table) == segments and at + 27 + segments + sum(table) <= len(data)
    return not whole or not data[at + 5] & 4


def _frames_cut(data: bytes) -> bool:
    """MP3: the Xing or Info header may declare the number of bytes that follow it."""
    found = [at for at in (data.find(b"Xing", 0, 1 << 18), data.find(b"Info", 0, 1 << 18)) if at >= 0]
    if not found:
        return False
    at = min(found)
    flags = int.from_bytes(data[at + 4 : at + 8], "big")
    skip = at + 8 + (4 if flags & 1 else 0)
    declared = int.from_bytes(data[skip : skip + 4], "big") if flags & 2 and flags < 16 else 0
    return at + declared - 64 > len(data)  # counted from the frame's header, which is less than 64 bytes before


# -- containers ------------------------------------------------------------------------------------------------------


@contextmanager
def open_container(data: bytes, wanted: str) -> Iterator[tuple[Any, str]]:
    """A PyAV container over bytes in memory, and what the bytes are. Nothing else can be opened through it.

    Args:
        data: a whole encoded file.
        wanted: what the caller reads, for the message ("a video", "a sound").

    Raises:
        MediaError: wrong type, truncated, or unreadable; also for what PyAV raises inside the `with` block.
    """
    kind = sniff(data[:512])
    if kind not in _DEMUXERS:
        reason: Any = "unreadable" if kind is None else "wrong type"
        raise MediaError(reason, f"{wanted} was expected, this is {describe(kind)}")
    if looks_cut(data, kind):
        raise MediaError("truncated", f"the {kind} file declares more than its {len(data)} bytes")
    # a WAV says all in its header; by default 5 MB of it are searched for hidden DTS, at 16 ms a file
    options = {"format": _DEMUXERS[kind], "container_options": {"probesize": "8192"} if kind == "wav" else {}}
    try:
        with av.open(io.BytesIO(data), metadata_errors="ignore", io_open=_refuse, **options) as container:
            yield container, kind
    except MEDIA_ERRORS as error:
        raise MediaError("truncated" if isinstance(error, EOFError) else "unreadable", f"{kind}: {error}") from None


def _refuse(url: str, flags: int, options: object) -> Any:
    raise OSError(f"a media file must not open another one: {url!r} ({flags}, {options})")


def seconds_of(container: Any, stream: Any, limits: MediaLimits) -> float:
    """The declared length in seconds, 0 where the file does not say. Raises MediaError: over the limits."""
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = float(container.duration or 0) / av.time_base
    if seconds > limits.max_seconds:
        raise MediaError("over the limits", f"{seconds:.0f} seconds, at most {limits.max_seconds:.0f} are read")
    return max(seconds, 0.0)


# -- geometry and colour of pictures and frames ----------------------------------------------------------------------


def fit_within(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of a picture scaled to fit a square of `side` pixels with its aspect ratio kept, at least 1."""
    scale = side / max(width, height)
    return max(1, min(side, round(width * scale))), max(1, min(side, round(height * scale)))


def edge_mean(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The mean colour of the outermost pixels: (H, W, 3) uint8 -> (3,) uint8.

    Padding with it gives a product photo on white a white border and a street photo a neutral one; fixed white or black
    bars would be an edge that says nothing but the aspect ratio, and the first thing a model learns.
    """
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    mean: npt.NDArray[np.uint8] = (border.mean(0) + 0.5).astype(np.uint8)
    return mean


def crop_box(draws: Sequence[float], height: int, width: int, min_area: float) -> tuple[int, int, int, int]:
    """A random crop: (top, left, height, width) in pixels.

    Args:
        draws: four uniform numbers in [0, 1): area, aspect ratio, top, left.
        height: of the picture, pixels.
        width: of the picture, pixels.
        min_area: the smallest fraction of the area, in (0, 1]; the aspect ratio is log-uniform in [3/4, 4/3].

    Source: the "random-resized crop" of Szegedy et al. 2015 (Going deeper with convolutions, section 6).
    Differences: a box that would not fit is cut to the picture instead of drawn again, so four draws always suffice.
    """
    area = (min_area + (1 - min_area) * draws[0]) * height * width
    ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
    rows = min(height, max(1, round(math.sqrt(area / ratio))))
    columns = min(width, max(1, round(math.sqrt(area * ratio))))
    return int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1)), rows, columns


def colour_map(
    draws: Sequence[float], strength: float, grey: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Brightness, then contrast, then saturation as one affine map: pixel (3,) @ matrix + offset.

    Args:
        draws: three uniform numbers in [0, 1); each factor is 1 + strength * (2 draw - 1).
        strength: 0 changes nothing, below 1.
        grey: mean level of the picture, the fixed point of contrast.

    Returns:
        matrix (3, 3) and offset (3,), float32.
    """
    bright, contrast, saturation = (1 + strength * (2 * draw - 1) for draw in draws)
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * np.outer(_LUMA, np.ones(3, np.float32))
    offset = np.full(3, (1 - contrast) * bright * grey, np.float32)
    return (mix * (bright * contrast)).astype(np.float32), offset
