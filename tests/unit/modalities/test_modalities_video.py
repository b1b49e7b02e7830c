"""Videos: which frames are taken, what is refused, augmentation, tubelets, the model side."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from polymodal.media import MediaLimits
from polymodal.modalities.video import Video, VideoConfig
from polymodal.types import BadInput, MediaError

CONFIG = VideoConfig()
VIDEO = CONFIG.decoder()


@cache
def clip(
    seconds: float = 1.0,
    gop: int = 250,
    width: int = 96,
    height: int = 96,
    container: str = "mp4",
    codec: str = "libx264",
    fps: int = 24,
) -> bytes:
    """Red rises with time; the left half of the upper half is green."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        if codec == "libx264":
            stream.options = {"sc_threshold": "0"}  # key frames where `gop` says, and nowhere else
        count = round(seconds * fps)
        for moment in range(count):
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[..., 0] = moment * 255 // max(count - 1, 1)
            pixels[: height // 2, : width // 2, 1] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()


@cache
def sound(container: str = "wav", codec: str = "pcm_s16le") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        frame_format = stream.codec_context.format.name
        for part in av.AudioResampler(format=frame_format, layout="mono", rate=16000).resample(frame):
            out.mux(stream.encode(part))
        out.mux(stream.encode())
    return file.getvalue()


def refusal(source: object, video: Video = VIDEO) -> MediaError:
    with pytest.raises(MediaError) as caught:
        video.decode(source)
    return caught.value


def redness(value: np.ndarray) -> list[int]:
    return value[:, 40, 40, 0].astype(int).tolist()


# -- decode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("mpegts", "mpeg4")],
)
def test_containers_decode(container: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(container=container, codec=codec))
    value = VIDEO.decode(path)
    assert CONFIG.min_frames <= len(value) <= CONFIG.max_frames
    assert value.shape[1:] == (48, 48, 3)
    assert value.dtype == np.uint8
    assert redness(value) == sorted(redness(value))
    assert redness(value)[-1] - redness(value)[0] > 150


def test_a_short_clip_with_one_key_frame_gives_frames_of_all_its_length() -> None:
    levels = redness(VIDEO.decode(clip(seconds=1)))
    assert len(levels) == 8
    assert all(10 < gap < 60 for gap in np.diff(levels))


def test_key_frames_are_used_where_there_are_enough() -> None:
    value = VIDEO.decode(clip(seconds=5, gop=30))
    assert len(value) == 4  # 120 frames, a key frame each 30
    np.testing.assert_allclose(redness(value), [0, 64, 128, 193], atol=8)


def test_frames_per_second() -> None:
    assert len(VideoConfig(strategy="fps", fps=1).decoder().decode(clip(seconds=5))) == 5
    assert len(VideoConfig(strategy="fps", fps=4).decoder().decode(clip(seconds=5))) == 8
    assert len(VideoConfig(strategy="fps", fps=1).decoder().decode(clip(seconds=1))) == 8


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_clips(frames: int) -> None:
    assert len(VIDEO.decode(clip(seconds=frames / 24))) == frames


@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 96), (640, 16)])
def test_frames_keep_their_aspect_ratio(width: int, height: int) -> None:
    value = VIDEO.decode(clip(width=width, height=height))
    assert value.shape == (8, 48, 48, 3)
    content = (value[4, :, :, 1] > 200).sum()
    assert abs(content - 48 * max(1, 48 * min(width, height) / max(width, height)) / 4) <= 48


def test_rotation_in_the_metadata_is_applied() -> None:
    data = clip()
    start = data.index(b"tkhd")

    def matrix(a: int, b: int, c: int, d: int) -> bytes:
        return np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()

    one = 1 << 16
    at = data.index(matrix(one, 0, 0, one), start)
    turned = data[:at] + matrix(0, one, -one, 0) + data[at + 36 :]  # what a phone held upright writes
    green = VIDEO.decode(turned)[4, ..., 1] > 128
    assert green[:24, 24:].mean() > 0.9  # upper left is now upper right
    assert green[:24, :24].mean() < 0.1


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_videos_are_refused(container: str, codec: str, kept: float) -> None:
    data = clip(container=container, codec=codec)
    assert refusal(data[: int(len(data) * kept)]).reason == "truncated"


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Pillow.new("RGB", (20, 20)).save(picture, "PNG")
    for data, what in ((b"plain words", "plain text"), (picture.getvalue(), "png"), (sound(), "no moving picture")):
        error = refusal(data)
        assert error.reason == "wrong type"
        assert what in error.detail
    assert refusal(b"").reason == "empty"
    assert refusal(tmp_path / "none.mp4").reason == "missing"
    assert refusal(b"\xfe\x01\x02" * 99).reason == "unreadable"


def test_the_cover_of_a_song_is_no_video() -> None:
    cover = io.BytesIO()
    Pillow.new("RGB", (20, 20)).save(cover, "PNG")
    art = cover.getvalue()
    frame = b"\x00image/png\x00\x03\x00" + art
    size = len(frame).to_bytes(4, "big")
    tag = b"APIC" + size + b"\0\0" + frame
    total = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    song = b"ID3\x03\0\0" + total + tag + sound("mp3", "libmp3lame")
    with av.open(io.BytesIO(song)) as container:
        assert container.streams.video  # the cover is there, and is not what is meant
    assert refusal(song).reason == "wrong type"


def test_limits() -> None:
    def limited(**limits: float) -> Video:
        return VideoConfig(limits=MediaLimits.parse(limits)).decoder()

    assert refusal(clip(), limited(max_seconds=0.5)).reason == "over the limits"
    assert refusal(clip(), limited(max_pixels=96 * 95)).reason == "over the limits"
    assert refusal(clip(), limited(max_bytes=100)).reason == "over the limits"
    assert refusal(clip(), limited(max_frames=23)).reason == "over the limits"
    # too many to decode in full, but key frames are enough
    assert len(limited(max_frames=23).decode(clip(seconds=5, gop=30))) == 4


def test_damage_inside_does_not_escape_as_another_error() -> None:
    data = bytearray(clip(seconds=2))
    start = data.index(b"mdat")
    noise = np.random.default_rng(0)
    for _ in range(20):
        broken = bytearray(data)
        at = int(noise.integers(start + 8, len(data) - 200))
        broken[at : at + 150] = noise.integers(0, 256, 150, np.uint8).tobytes()
        with contextlib.suppress(MediaError):
            assert VIDEO.decode(bytes(broken)).shape[1:] == (48, 48, 3)


def test_arrays() -> None:
    value = VIDEO.decode(clip())
    np.testing.assert_array_equal(VIDEO.decode(value), value)
    assert VIDEO.decode(np.zeros((20, 30, 40, 3), np.uint8)).shape == (8, 48, 48, 3)
    for bad in (np.zeros((2, 9, 9, 3)), np.zeros((9, 9, 3), np.uint8), np.zeros((0, 9, 9, 3), np.uint8)):
        assert refusal(bad).reason == "wrong type"


# -- augment and preprocess ------------------------------------------------------------------------------------------


def test_augment_follows_its_generator_and_changes_nothing_in_place() -> None:
    value = VIDEO.decode(clip())
    before = value.copy()
    one, same, other = (VIDEO.augment(value, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == value.shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(value, before)


def test_augment_treats_all_frames_alike_and_keeps_their_order() -> None:
    still = VIDEO.decode(np.repeat(np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), np.uint8), 8, axis=0))
    varied = VIDEO.augment(still, torch.Generator().manual_seed(3))
    assert (varied == varied[:1]).all()
    moving = VideoConfig(colour=0).decoder()
    for seed in range(10):
        levels = redness(moving.augment(VIDEO.decode(clip()), torch.Generator().manual_seed(seed)))
        assert levels == sorted(levels)


@pytest.mark.parametrize(("frames", "moments"), [(1, 1), (2, 1), (3, 2), (7, 4), (8, 4), (11, 4)])
def test_tubes_hold_the_pixels_of_their_place(frames: int, moments: int) -> None:
    value = np.random.default_rng(0).integers(0, 256, (frames, 48, 48, 3), np.uint8)
    fields = VIDEO.preprocess(value)
    assert fields["tubes"].shape == (9 * moments, 2 * 16 * 16 * 3)
    assert fields["tubes"].dtype == torch.uint8
    padded = np.concatenate([value, value[-1:]])
    for token in (0, 5, 9 * moments - 1):
        time, row, column = (int(fields[name][token]) for name in ("time", "row", "column"))
        block = padded[2 * time : 2 * time + 2, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_array_equal(fields["tubes"][token].numpy(), block.reshape(-1))


def test_a_moment_hides_together() -> None:
    fields = {name: value[None] for name, value in VIDEO.preprocess(VIDEO.decode(clip())).items()}
    together = VIDEO.overlap(fields)
    assert together is not None
    np.testing.assert_array_equal(together[0].numpy(), np.kron(np.eye(4), np.ones((9, 9))).astype(bool))


def test_preprocess_refuses_what_was_not_decoded() -> None:
    with pytest.raises(BadInput, match="video value"):
        VIDEO.preprocess(np.zeros((3, 40, 48, 3), np.uint8))


# -- the model side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_target", [False, True])
def test_an_untrained_head_is_about_one_away(norm_target: bool) -> None:
    torch.manual_seed(0)
    config = CONFIG.replace(norm_target=norm_target)
    value = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3), np.uint8)
    fitted = config.fit([value])
    np.testing.assert_allclose(fitted["mean"], value.reshape(-1, 3).mean(0))
    video = config.build(24, fitted)
    fields = video.preprocess(value)
    tokens = video.embed(fields) + video.positions(fields)
    target = video.target(fields)
    distance = video.distance(video.head(24)(tokens), target)
    assert tokens.shape == (36, 24)
    assert distance.shape == (36,)
    assert distance.dtype == torch.float32
    assert 0.8 < distance.mean() < 1.25
    assert video.distance(target, target).max() == 0
    assert len(torch.unique(video.positions(fields), dim=0)) == 36
    distance.mean().backward()


def test_blank_show_example_and_state() -> None:
    assert VIDEO.blank()["tubes"].shape == (36, 1536)
    assert int(VIDEO.blank()["tubes"].max()) == 0
    assert CONFIG.fit([]) == {}
    assert not {"mean", "spread"} & set(VIDEO.state_dict())
    value = VIDEO.decode(clip())
    media_type, content = VIDEO.show(value)
    with Pillow.open(io.BytesIO(content)) as shown:
        assert media_type == "image/png"
        assert shown.n_frames == len(value)
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), value[0])
    example = VIDEO.example(1)
    np.testing.assert_array_equal(VIDEO.decode(example), VIDEO.example(1))


def test_config_is_checked() -> None:
    with pytest.raises(BadInput, match="multiple of patch"):
        VideoConfig.parse({"size": 50})
    with pytest.raises(BadInput, match="min_frames"):
        VideoConfig.parse({"max_frames": 2})
