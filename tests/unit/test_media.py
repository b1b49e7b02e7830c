"""Reading within limits, naming formats, noticing cut files, opening containers, geometry and colour."""

from __future__ import annotations

import io
import os
import tracemalloc
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

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
    open_container,
    read_source,
    sniff,
)
from polymodal.types import BadInput, MediaError

LIMITS = MediaLimits()


def reason(call, *arguments) -> str:
    with pytest.raises(MediaError) as caught:
        call(*arguments)
    return caught.value.reason


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3)).save(file, kind)
    return file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(4000))
    return file.getvalue()


def clip(container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level * 40, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


# -- read_source -----------------------------------------------------------------------------------------------------


def test_read_source_gives_the_bytes_of_paths_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    assert read_source(path, LIMITS) == read_source(b"abc", LIMITS) == read_source(memoryview(b"abc"), LIMITS) == b"abc"


def test_read_source_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "big").write_bytes(bytes(11))
    small = MediaLimits(max_bytes=10)
    assert reason(read_source, tmp_path / "none", LIMITS) == "missing"
    assert reason(read_source, tmp_path / "big" / "below a file", LIMITS) == "missing"
    assert reason(read_source, tmp_path / "empty", LIMITS) == "empty"
    assert reason(read_source, b"", LIMITS) == "empty"
    assert reason(read_source, tmp_path / "big", small) == "over the limits"
    assert reason(read_source, bytes(11), small) == "over the limits"
    assert reason(read_source, tmp_path, LIMITS) == "unreadable"
    assert reason(read_source, tmp_path / "nul\0", LIMITS) == "unreadable"


def test_read_source_never_opens_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert reason(read_source, tmp_path / "pipe", LIMITS) == "unreadable"


def test_read_source_checks_the_size_before_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    assert reason(read_source, path, LIMITS) == "over the limits"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_read_source_does_not_take_text_for_a_path() -> None:
    with pytest.raises(BadInput, match="media source"):
        read_source("/etc/hostname", LIMITS)  # type: ignore[arg-type]


def test_a_picture_is_refused_by_its_declared_size() -> None:
    check_pixels(8000, 5000, LIMITS)
    assert reason(check_pixels, 8000, 5001, LIMITS) == "over the limits"
    assert reason(check_pixels, 0, 10, LIMITS) == "unreadable"


# -- sniff -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp", "tiff"])
def test_sniff_knows_pictures_and_their_end(kind: str) -> None:
    data = picture(kind)
    assert sniff(data[:512]) == kind
    assert is_picture(kind)
    assert not looks_cut(data, kind)
    if kind not in ("bmp", "tiff"):
        assert looks_cut(data[:-40], kind)


@pytest.mark.parametrize(
    ("container", "codec", "kind"),
    [("mp4", "libx264", "mp4"), ("mov", "libx264", "mov"), ("matroska", "libx264", "matroska"),
     ("webm", "libvpx", "webm"), ("avi", "mpeg4", "avi"), ("mpegts", "mpeg4", "mpegts")],
)  # fmt: skip
def test_sniff_knows_containers_and_whether_they_are_whole(container: str, codec: str, kind: str) -> None:
    data = clip(container, codec)
    assert sniff(data[:512]) == kind
    assert not looks_cut(data, kind)
    if kind != "mpegts":
        assert all(looks_cut(data[:size], kind) for size in (60, len(data) // 2, len(data) - 2))


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"%PDF-1.7\n", "pdf"), (b"<!DOCTYPE html><p>", "html"), (b"\n <HTML lang=en>", "html"), (b"PK\x03\x04..", "zip"),
     (b"<?xml version='1.0'?><svg/>", "svg"), (b"<?xml version='1.0'?><a/>", "xml"), (b'{"a": 1}', "json"),
     (b"version https://git-lfs.github.com/spec/v1", "text"), ("红色帆布鞋".encode() * 60, "text"),
     (b"\xff\xfb\x90\x00", "mp3"), (b"ID3\x04", "mp3"), (b"\xff\xf1\x50\x80", "aac"), (b"fLaC\0\0\0\x22", "flac"),
     (b"OggS\0\2", "ogg"), (b"\0\0\0\x20ftypM4A \0", "m4a"), (b"\0\0\0\x20ftypheic\0", "heic"),
     (b"RIFF\0\0\0\0WAVE", "wav"), (b"RIFF\0\0\0\0????", None), (bytes(600), None), (b"", None), (b"\xfe\x01", None)],
)  # fmt: skip
def test_sniff_by_first_bytes(head: bytes, kind: str | None) -> None:
    assert sniff(head[:512]) == kind
    assert describe(kind)


@given(st.binary(max_size=600))
def test_sniff_and_looks_cut_take_any_bytes(data: bytes) -> None:
    kind = sniff(data)
    for name in {kind, "mp4", "wav", "ogg", "mp3", "matroska"}:
        looks_cut(data, name)


# -- containers ------------------------------------------------------------------------------------------------------


def test_a_container_opens_from_memory() -> None:
    with open_container(sound(), "a sound") as (container, kind):
        assert kind == "wav"
        assert container.streams.audio[0].codec_context.sample_rate == 8000


def open_it(data: bytes) -> None:
    with open_container(data, "a sound"):
        pass


def test_containers_are_refused_with_a_reason() -> None:
    assert reason(open_it, sound()[:-100]) == "truncated"
    assert reason(open_it, picture("png")) == "wrong type"
    assert reason(open_it, b"just words") == "wrong type"
    assert reason(open_it, b"\xfe\x01\x02\x03" * 50) == "unreadable"
    with pytest.raises(MediaError, match="an HTML page"):
        open_it(b"<!doctype html><title>404</title>")


def test_a_playlist_cannot_open_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(sound())
    for text in (
        f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
    ):
        assert reason(open_it, text.encode()) == "wrong type"


def test_errors_inside_the_block_become_media_errors() -> None:
    def fail() -> None:
        with open_container(sound(), "a sound"):
            raise av.error.InvalidDataError(1, "broken")

    assert reason(fail) == "unreadable"


# -- geometry and colour ---------------------------------------------------------------------------------------------

SIDES = st.integers(1, 5000)
DRAW = st.floats(0, 1, exclude_max=True)


@given(SIDES, SIDES, st.integers(1, 256))
def test_a_fitted_picture_touches_the_square(width: int, height: int, side: int) -> None:
    columns, rows = fit_within(width, height, side)
    assert max(columns, rows) == side
    assert min(columns, rows) >= 1
    assert abs(columns * height - rows * width) <= max(width, height)  # aspect ratio within a pixel


@given(st.tuples(DRAW, DRAW, DRAW, DRAW), SIDES, SIDES, st.floats(0.05, 1))
def test_a_crop_lies_inside(draws: tuple[float, ...], height: int, width: int, area: float) -> None:
    top, left, rows, columns = crop_box(draws, height, width, area)
    assert 0 <= top <= top + rows <= height
    assert 0 <= left <= left + columns <= width
    assert rows >= 1
    assert columns >= 1


def test_a_crop_has_the_area_asked_for() -> None:
    _, _, rows, columns = crop_box((0.0, 0.5, 0.3, 0.3), 400, 400, 0.25)
    assert (rows, columns) == (200, 200)


def test_edge_mean_reads_the_border_alone() -> None:
    frame = np.full((9, 9, 3), 255, np.uint8)
    frame[1:-1, 1:-1] = 0
    assert edge_mean(frame).tolist() == [255, 255, 255]


def test_colour_map_of_middle_draws_changes_nothing() -> None:
    matrix, offset = colour_map((0.5, 0.5, 0.5), 0.4, 100.0)
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(offset, 0, atol=1e-6)


def test_colour_map_is_brightness_then_contrast_then_saturation() -> None:
    draws, strength, grey = (0.9, 0.2, 0.7), 0.5, 120.0
    matrix, offset = colour_map(draws, strength, grey)
    bright, contrast, saturation = (1 + strength * (2 * d - 1) for d in draws)
    pixel = np.array([200.0, 40.0, 90.0])
    lit = pixel * bright
    stretched = contrast * lit + (1 - contrast) * bright * grey
    luma = stretched @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(pixel @ matrix + offset, saturation * stretched + (1 - saturation) * luma, rtol=1e-5)
