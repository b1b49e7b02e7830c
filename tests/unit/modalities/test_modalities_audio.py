"""Sounds: what is decoded and refused, the mel bank, augmentation, tokens, the model side."""

from __future__ import annotations

import contextlib
import io
import math
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from polymodal.media import MediaLimits
from polymodal.modalities.audio import Audio, AudioConfig, log_mel, mel_bank
from polymodal.types import BadInput, MediaError

CONFIG = AudioConfig()
AUDIO = CONFIG.decoder()
FORMATS = [
    ("wav", "pcm_s16le", 44100),
    ("wav", "pcm_f32le", 16000),
    ("flac", "flac", 44100),
    ("mp3", "libmp3lame", 44100),
    ("ogg", "libopus", 48000),
    ("ipod", "aac", 44100),
    ("adts", "aac", 44100),
    ("webm", "libopus", 48000),
]


@cache
def sound(
    seconds: float = 1.0,
    container: str = "wav",
    codec: str = "pcm_s16le",
    rate: int = 16000,
    level: float = 0.5,
    pitch: float = 440.0,
    layout: str = "mono",
    picture: bool = False,
) -> bytes:
    file = io.BytesIO()
    wave = level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    with av.open(file, "w", format=container) as out:
        if picture:
            video = out.add_stream("libx264", rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if picture:
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            out.mux(video.encode())
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        convert = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=rate)
        for part in [*convert.resample(frame), *convert.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode())
    return file.getvalue()


def refusal(source: object, audio: Audio = AUDIO) -> MediaError:
    with pytest.raises(MediaError) as caught:
        audio.decode(source)
    return caught.value


# -- decode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "codec", "rate"), FORMATS)
def test_formats_decode_to_the_same_sound(container: str, codec: str, rate: int, tmp_path: Path) -> None:
    path = tmp_path / "sound.xyz"
    path.write_bytes(sound(2.0, container, codec, rate))
    value = AUDIO.decode(path)
    assert value.dtype == np.float16
    assert value.shape[1] == 64
    assert 101 <= len(value) <= 105  # 50 frames a second; some codecs add a little silence
    plain = AUDIO.decode(sound(2.0))
    assert value[20:80].mean(0).argmax() == plain[20:80].mean(0).argmax()
    assert abs(float(value[20:80].max()) - float(plain[20:80].max())) < 0.5


@pytest.mark.parametrize(
    ("seconds", "frames", "tokens"), [(0.005, 1, 1), (0.05, 3, 1), (1.0, 51, 7), (12.0, 601, 76), (30.0, 601, 76)]
)
def test_lengths(seconds: float, frames: int, tokens: int) -> None:
    value = AUDIO.decode(sound(seconds))
    assert len(value) == frames
    assert len(AUDIO.preprocess(value)["frames"]) == tokens


def test_stereo_is_mixed_to_mono() -> None:
    stereo = AUDIO.decode(sound(layout="stereo"))
    np.testing.assert_allclose(stereo.astype(float), AUDIO.decode(sound()).astype(float), atol=1.0)


def test_silence_is_a_sound() -> None:
    value = AUDIO.decode(sound(level=0.0))
    np.testing.assert_allclose(value, math.log(1e-6), atol=0.01)
    assert torch.isfinite(AUDIO.target(AUDIO.preprocess(value))).all()


def test_the_sound_track_of_a_video() -> None:
    data = sound(1.0, "mp4", "aac", 44100, picture=True)
    assert 51 <= len(AUDIO.decode(data)) <= 55


def test_a_video_without_sound_is_the_wrong_type() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    error = refusal(file.getvalue())
    assert error.reason == "wrong type"
    assert "no sound track" in error.detail


@pytest.mark.parametrize(("container", "codec", "rate"), [f for f in FORMATS if f[0] != "adts"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated_sounds_are_refused(container: str, codec: str, rate: int, kept: float) -> None:
    data = sound(2.0, container, codec, rate)
    assert refusal(data[: int(len(data) * kept)]).reason == "truncated"


def test_what_is_no_sound_is_named(tmp_path: Path) -> None:
    for data, what in ((b"plain words", "plain text"), (b"%PDF-1.5", "PDF"), (b"\x89PNG\r\n\x1a\n", "png")):
        error = refusal(data)
        assert error.reason == "wrong type"
        assert what in error.detail
    assert refusal(b"").reason == "empty"
    assert refusal(sound()[:44] + b"").reason in ("empty", "truncated")
    assert refusal(tmp_path / "none.wav").reason == "missing"
    assert refusal(b"\xfe\x01\x02" * 99).reason == "unreadable"


def test_limits() -> None:
    assert refusal(sound(), AudioConfig(limits=MediaLimits(max_seconds=0.5)).decoder()).reason == "over the limits"
    assert refusal(sound(), AudioConfig(limits=MediaLimits(max_bytes=100)).decoder()).reason == "over the limits"


@pytest.mark.parametrize(("container", "codec", "rate"), FORMATS)
def test_damage_inside_does_not_escape_as_another_error(container: str, codec: str, rate: int) -> None:
    data = sound(1.0, container, codec, rate)
    noise = np.random.default_rng(0)
    for _ in range(10):
        broken = bytearray(data)
        at = int(noise.integers(4, len(data) - 64))
        broken[at : at + 48] = noise.integers(0, 256, 48, np.uint8).tobytes()
        with contextlib.suppress(MediaError):
            assert np.isfinite(AUDIO.decode(bytes(broken))).all()


def test_arrays() -> None:
    value = AUDIO.decode(sound())
    assert AUDIO.decode(value) is value
    for bad in (
        np.zeros((4, 63), np.float32),
        np.zeros((0, 64), np.float32),
        np.zeros((4, 64), np.int16),
        np.zeros(64),
    ):
        assert refusal(bad).reason == "wrong type"
    assert refusal(np.full((4, 64), np.nan, np.float32)).reason == "unreadable"


# -- the spectrogram -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "n_fft", "n_mels"), [(16000, 1024, 64), (22050, 512, 20), (16000, 1024, 128)])
def test_the_bank_is_the_htk_bank(rate: int, n_fft: int, n_mels: int) -> None:
    def hertz(mel: float) -> float:
        return 700 * (10 ** (mel / 2595) - 1)

    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = [hertz(top * n / (n_mels + 1)) for n in range(n_mels + 2)]
    expected = np.zeros((n_mels, n_fft // 2 + 1))
    for band in range(n_mels):
        low, middle, high = corners[band : band + 3]
        for column in range(n_fft // 2 + 1):
            frequency = column * rate / n_fft
            if low < frequency <= middle:
                expected[band, column] = (frequency - low) / (middle - low)
            elif middle < frequency < high:
                expected[band, column] = (high - frequency) / (high - middle)
    np.testing.assert_allclose(mel_bank(rate, n_fft, n_mels).numpy(), expected, atol=1e-5)


def test_every_default_band_hears_several_frequencies() -> None:
    assert (mel_bank(CONFIG.rate, CONFIG.n_fft, CONFIG.n_mels) > 0).sum(1).min() >= 3
    assert (mel_bank(16000, 400, 64) > 0).sum(1).min() == 1  # why the window is not the usual 25 ms


def test_log_mel_equals_the_transform_written_out() -> None:
    samples = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    bank = mel_bank(16000, 256, 10)
    mel = log_mel(samples, bank, 256, 100).numpy()
    padded = np.pad(samples, 128)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    for frame in (0, 7, 20):
        power = np.abs(np.fft.rfft(padded[frame * 100 : frame * 100 + 256] * window)) ** 2
        np.testing.assert_allclose(mel[frame], np.log(bank.numpy() @ power + 1e-6), rtol=1e-3)
    assert mel.shape == (21, 10)


def test_a_tone_is_heard_in_its_band() -> None:
    for pitch in (200.0, 1000.0, 4000.0):
        band = int(AUDIO.decode(sound(pitch=pitch))[10:40].mean(0).argmax())
        centre = 700 * (10 ** (2840.0 * (band + 1) / 65 / 2595) - 1)
        assert abs(centre / pitch - 1) < 0.1


# -- augment and preprocess ------------------------------------------------------------------------------------------


def test_augment_follows_its_generator_and_changes_nothing_in_place() -> None:
    value = AUDIO.decode(sound())
    before = value.copy()
    one, same, other = (AUDIO.augment(value, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()
    np.testing.assert_array_equal(value, before)
    for seed in range(20):
        varied = AUDIO.augment(value, torch.Generator().manual_seed(seed))
        assert 0.8 * 51 - 1 <= len(varied) <= 51
        assert np.isfinite(varied).all()
        assert varied.min() >= math.log(1e-6) - 1e-5


def test_augment_without_strength_changes_nothing() -> None:
    value = AUDIO.decode(sound())
    still = AudioConfig(crop=1, gain=0, noise=0, mask_mels=0).decoder()
    np.testing.assert_allclose(still.augment(value, torch.Generator().manual_seed(0)), value, atol=1e-2)
    single = AUDIO.augment(value[:1], torch.Generator().manual_seed(0))
    assert single.shape == (1, 64)


def test_gain_is_decibels() -> None:
    loud = AudioConfig(crop=1, gain=20, noise=0, mask_mels=0).decoder()
    value = np.zeros((5, 64), np.float32)
    changes = [float(loud.augment(value, torch.Generator().manual_seed(s))[0, 0]) for s in range(50)]
    limit = 20 * math.log(10) / 10
    assert max(map(abs, changes)) <= limit
    assert max(changes) > limit / 2
    assert min(changes) < -limit / 2


def test_long_sounds_are_cropped_at_random_places() -> None:
    short = AudioConfig(max_tokens=4, crop=1, gain=0, noise=0, mask_mels=0).decoder()
    value = np.repeat(np.arange(601, dtype=np.float32)[:, None] / 100, 64, axis=1)
    starts = {float(short.augment(value, torch.Generator().manual_seed(s))[0, 0]) for s in range(10)}
    assert len(starts) > 5
    assert len(short.augment(value, torch.Generator().manual_seed(0))) == 32


def test_tokens_repeat_the_last_frame() -> None:
    value = np.random.default_rng(0).standard_normal((19, 64)).astype(np.float32)
    fields = AUDIO.preprocess(value)
    assert fields["frames"].shape == (3, 512)
    assert fields["time"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(fields["frames"][1].numpy(), value[8:16].reshape(-1))
    last = fields["frames"][2].numpy().reshape(8, 64)
    np.testing.assert_array_equal(last[:3], value[16:])
    np.testing.assert_array_equal(last[3:], np.repeat(value[18:], 5, axis=0))


def test_preprocess_refuses_what_was_not_decoded() -> None:
    with pytest.raises(BadInput, match="audio value"):
        AUDIO.preprocess(np.zeros((3, 40), np.float32))


# -- the model side --------------------------------------------------------------------------------------------------


def test_an_untrained_head_is_about_one_away() -> None:
    torch.manual_seed(0)
    values = [AUDIO.example(seed) for seed in range(6)]
    fitted = CONFIG.fit(iter(values))
    np.testing.assert_allclose(fitted["mean"], np.concatenate(values).astype(float).mean(0), rtol=1e-3)
    audio = CONFIG.build(24, fitted)
    parts = [audio.preprocess(value) for value in values]
    fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    tokens = audio.embed(fields) + audio.positions(fields)
    target = audio.target(fields)
    distance = audio.distance(audio.head(24)(tokens), target)
    assert tokens.shape == (len(target), 24)
    assert distance.shape == (len(target),)
    assert distance.dtype == torch.float32
    assert 0.8 < distance.mean() < 1.4
    assert audio.distance(target, target).max() == 0
    distance.mean().backward()


def test_blank_show_example_and_state() -> None:
    blank = AUDIO.blank()
    assert blank["frames"].shape == (7, 512)
    np.testing.assert_allclose(blank["frames"].numpy(), math.log(1e-6), atol=0.01)
    assert CONFIG.fit([]) == {}
    assert CONFIG.fit([np.zeros((5, 64), np.float16)])["spread"] == [0.1] * 64
    assert not {"mean", "spread"} & set(AUDIO.state_dict())
    value = AUDIO.example(1)
    np.testing.assert_array_equal(AUDIO.decode(value), AUDIO.example(1))
    media_type, content = AUDIO.show(value)
    assert media_type == "image/png"
    assert Pillow.open(io.BytesIO(content)).size == (len(value), 64)
    assert AUDIO.overlap({name: field[None] for name, field in blank.items()}) is None


def test_positions_tell_times_apart() -> None:
    assert len(torch.unique(AUDIO.positions({"time": torch.arange(76)}), dim=0)) == 76
