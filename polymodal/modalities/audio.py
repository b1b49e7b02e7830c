"""Sounds: decoded by PyAV to mono, turned into a log-mel spectrogram, read as time tokens."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow
from pydantic import Field
from torch import Tensor, nn

from polymodal.media import MEDIA_ERRORS, MediaLimits, open_container, read_source, seconds_of
from polymodal.modality import Fitted, Guess, Modality, ModalityConfig, Question, standardise
from polymodal.nn.positions import sincos
from polymodal.tensors import Fields
from polymodal.types import BadInput, MediaError

__all__ = ["Audio", "AudioConfig", "log_mel", "mel_bank"]

Mel = npt.NDArray[np.float16]

# added to the power before the logarithm: above the noise of 16-bit samples, so digital silence is a level, not -inf
_FLOOR = 1e-6
_SILENCE = float(np.log(_FLOOR))


class AudioConfig(ModalityConfig):
    """Configuration of `Audio`.

    Args:
        rate: samples a second that everything is resampled to.
        max_seconds: what is stored of a sound, from its beginning.
        n_fft: samples of a window (64 ms); with the usual 25 ms the lowest of 64 mel bands hold one frequency each.
        hop: samples between windows (20 ms).
        n_mels: mel bands from 0 to rate / 2.
        frames_per_token: windows of a token (8 x 20 ms = 0.16 s).
        max_tokens: longer sounds are cut, in training at a random place.
        places: times by learned vectors, or by fixed sines and cosines ("sincos").
        crop: in training, at least this fraction of the sound is kept, from a random start.
        gain: in training, the level is changed by up to this many decibels.
        noise: spread of noise added to log-mel levels in training.
        mask_mels: in training, up to this many neighbouring mel bands are set to the sound's mean level.
        limits: what one file may cost.
    """

    kind: Literal["audio"] = "audio"
    rate: int = Field(16000, ge=4000, le=48000)
    max_seconds: float = Field(12.0, gt=0)
    n_fft: int = Field(1024, ge=64)
    hop: int = Field(320, ge=16)
    n_mels: int = Field(64, ge=4)
    frames_per_token: int = Field(8, ge=1)
    max_tokens: int = Field(76, ge=1)
    places: Literal["learned", "sincos"] = "learned"
    crop: float = Field(0.8, gt=0, le=1)
    gain: float = Field(6.0, ge=0)
    noise: float = Field(0.1, ge=0)
    mask_mels: int = Field(6, ge=0)
    limits: MediaLimits = MediaLimits()

    def fit(self, values: Iterable[Any]) -> Fitted:
        """Mean and spread of each mel band, natural-log power. Nothing where there are no values."""
        mean, spread = standardise((np.asarray(v).reshape(-1, self.n_mels) for v in values), floor=0.1)
        return {"mean": mean, "spread": spread} if len(mean) == self.n_mels else {}

    def build(self, width: int, fitted: Fitted) -> Audio:
        return Audio(self, width, fitted)

    def decoder(self) -> Audio:
        return Audio(self, 8, {})


class Audio(Modality):
    """A sound as tokens of `frames_per_token` spectrogram frames.

    A decoded value is float16 (T, n_mels), natural logarithm of mel power, one frame each `hop` samples. Fields of a
    sound, N = min(ceil(T / frames_per_token), max_tokens): `frames` float32 (N, frames_per_token * n_mels), `time`
    int64 (N,). Silence is a legal sound; a file without a sound track is not.

    Source: spectrogram patches as tokens, Gong et al. 2021 (AST), masked and predicted as in Huang et al. 2022
    (Audio-MAE). Differences: a token spans all bands, so that hiding one hides a moment.
    """

    kind: ClassVar[str] = "audio"
    is_media: ClassVar[bool] = True
    mean: Tensor
    spread: Tensor

    def __init__(self, config: AudioConfig, width: int, fitted: Fitted) -> None:
        super().__init__()
        self.config = config
        frames, bands = config.frames_per_token, config.n_mels
        self.register_buffer("mean", torch.tensor(fitted.get("mean", [-4.0] * bands)).repeat(frames), persistent=False)
        self.register_buffer(
            "spread", torch.tensor(fitted.get("spread", [4.0] * bands)).repeat(frames), persistent=False
        )
        self.project = nn.Linear(frames * bands, width)
        if config.places == "learned":
            self.times = nn.Embedding(config.max_tokens, width)
            nn.init.normal_(self.times.weight, std=0.02)
        self._bank = mel_bank(config.rate, config.n_fft, bands)

    # -- loader side --------------------------------------------------------------------------------------------

    def decode(self, source: Any) -> Mel:
        """float16 (T, n_mels) of a path, bytes (any sound, or the sound track of a video), or such an array.

        Raises:
            MediaError: missing, empty, truncated, over the limits, wrong type (no sound track), unreadable.
        """
        if isinstance(source, np.ndarray):
            return self._decode_array(source)
        config = self.config
        data = read_source(source, config.limits)
        with open_container(data, "a sound") as (container, kind):
            if not container.streams.audio:
                raise MediaError("wrong type", f"the {kind} file has no sound track")
            stream = container.streams.audio[0]
            declared = seconds_of(container, stream, config.limits)
            samples = _samples(container, stream, config.rate, round(config.max_seconds * config.rate))
        if len(samples) == 0:
            raise MediaError(
                "truncated" if declared > 0.01 else "empty", f"no sample of the {kind} file can be decoded"
            )
        # FLAC alone declares its length up front and has neither sizes nor an end mark to compare with
        if kind == "flac" and len(samples) < 0.98 * min(declared, config.max_seconds) * config.rate - 1:
            raise MediaError("truncated", f"{len(samples) / config.rate:.2f} of {declared:.2f} seconds")
        return log_mel(samples, self._bank, config.n_fft, config.hop).numpy().astype(np.float16)

    def _decode_array(self, array: npt.NDArray[Any]) -> Mel:
        if array.ndim != 2 or array.shape[1] != self.config.n_mels or len(array) == 0 or array.dtype.kind != "f":
            raise MediaError("wrong type", f"an array of {array.dtype} {array.shape}, not (T, {self.config.n_mels})")
        if not np.isfinite(array).all():
            raise MediaError("unreadable", "NaN or infinity in the spectrogram")
        return array

    def augment(self, value: Mel, generator: torch.Generator) -> Mel:
        """A crop in time, a change of level, a hidden band of frequencies and a little noise; float32 (T', n_mels).

        Source: the hidden band is the frequency mask of Park et al. 2019 (SpecAugment), section 2.
        """
        config = self.config
        draws = torch.rand(5, generator=generator).tolist()
        longest = config.max_tokens * config.frames_per_token
        length = min(longest, max(1, round(len(value) * (config.crop + (1 - config.crop) * draws[0]))))
        start = int(draws[1] * (len(value) - length + 1))
        mel = torch.from_numpy(np.array(value[start : start + length], np.float32))
        mel += (2 * draws[2] - 1) * config.gain * float(np.log(10.0)) / 10.0
        mel += config.noise * torch.randn(mel.shape, generator=generator)
        band = int(draws[3] * (min(config.mask_mels, config.n_mels - 1) + 1))
        if band:
            low = int(draws[4] * (config.n_mels - band + 1))
            mel[:, low : low + band] = mel.mean()
        varied: Mel = mel.clamp_(min=_SILENCE).numpy()
        return varied

    def preprocess(self, value: Mel) -> Fields:
        """Tokens from the beginning; the last frame is repeated to fill the last token."""
        config = self.config
        if value.ndim != 2 or value.shape[1] != config.n_mels:
            raise BadInput("audio value", f"a float array (T, {config.n_mels})", value.shape, "Call decode first.")
        mel = value[: config.max_tokens * config.frames_per_token].astype(np.float32)
        missing = -len(mel) % config.frames_per_token
        if missing:
            mel = np.concatenate([mel, np.repeat(mel[-1:], missing, axis=0)])
        frames = torch.from_numpy(mel).reshape(-1, config.frames_per_token * config.n_mels)
        return {"frames": frames, "time": torch.arange(len(frames))}

    def blank(self) -> Fields:
        """A second of silence."""
        frames = max(1, self.config.rate // self.config.hop)
        return self.preprocess(np.full((frames, self.config.n_mels), _SILENCE, np.float16))

    def example(self, seed: int) -> Mel:
        """One to three seconds of a random tone in noise."""
        random, rate = np.random.default_rng(seed), self.config.rate
        time = np.arange(int(rate * random.uniform(1, 3))) / rate
        tone = 0.3 * np.sin(2 * np.pi * random.uniform(100, rate / 4) * time) + 0.01 * random.standard_normal(len(time))
        mel: Mel = log_mel(tone.astype(np.float32), self._bank, self.config.n_fft, self.config.hop).numpy()
        return mel.astype(np.float16)

    def show(self, value: Mel) -> tuple[str, bytes]:
        """The spectrogram as a grey PNG, low tones below: a log-mel array cannot be turned back into sound."""
        levels = value.astype(np.float32).T[::-1]
        low, high = float(levels.min()), float(levels.max())
        grey = ((levels - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
        file = io.BytesIO()
        Pillow.fromarray(np.ascontiguousarray(grey)).save(file, "PNG")
        return "image/png", file.getvalue()

    # -- model side -----------------------------------------------------------------------------------------------

    def embed(self, fields: Fields) -> Tensor:
        return self.project(self.target(fields))  # type: ignore[no-any-return]

    def positions(self, fields: Fields) -> Tensor:
        if self.config.places == "sincos":
            return sincos(fields["time"][:, None], self.project.out_features)
        return self.times(fields["time"])  # type: ignore[no-any-return]

    def target(self, fields: Fields) -> Tensor:
        """Levels standardised per mel band, (K, frames_per_token * n_mels), float32."""
        return (fields["frames"].float() - self.mean) / self.spread

    def sequence(self, fields: Fields) -> Tensor:
        """Time: a moment sounds like the next."""
        return fields["time"]

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
        """float16 (T, n_mels)."""
        frames = question.fields["frames"].float().clone()
        frames[question.hidden] = prediction.float().cpu() * self.spread.cpu() + self.mean.cpu()
        return Guess(frames.reshape(-1, self.config.n_mels).numpy().astype(np.float16))


# -- from samples to log-mel ------------------------------------------------------------------------------------------


def _samples(container: Any, stream: Any, rate: int, most: int) -> npt.NDArray[np.float32]:
    """Mono samples in [-1, 1] at `rate`, at most `most`. Damaged packets are passed over."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    stream.codec_context.thread_count = 1  # loader workers share the cores already
    blocks: list[npt.NDArray[np.float32]] = []
    count, fed = 0, False
    for packet in container.demux(stream):
        try:
            frames = stream.codec_context.decode(packet if packet.size else None)
        except MEDIA_ERRORS:
            continue
        for frame in frames:
            frame.pts = None  # gaps in the time stamps are no reason to invent samples
            blocks += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        fed = fed or bool(frames)
        count = sum(map(len, blocks))
        if count >= most:
            break
    if fed and count < most:
        blocks += [part.to_ndarray()[0] for part in resampler.resample(None)]
    samples: npt.NDArray[np.float32] = np.concatenate(blocks)[:most] if blocks else np.zeros(0, np.float32)
    # damaged files of floating point samples hold numbers whose square is infinite
    return np.clip(np.nan_to_num(samples), -1.0, 1.0)


def log_mel(samples: npt.NDArray[np.float32], bank: Tensor, n_fft: int, hop: int) -> Tensor:
    """ln(bank @ |STFT|^2 + 1e-6): samples (S,) -> (1 + S // hop, n_mels) float32.

    Hann window of n_fft, frames centred, zeros beyond both ends.
    """
    wave = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(wave, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    return (bank @ power + _FLOOR).log().T.contiguous()


def mel_bank(rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular filters (n_mels, n_fft / 2 + 1), peak 1, with corners evenly spaced in mel from 0 to rate / 2.

    mel(f) = 2595 log10(1 + f / 700).

    Source: the HTK book, section 5.4; equals `librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, htk=True,
    norm=None)`. Differences: librosa's default `norm="slaney"` divides each filter by its width; after the logarithm
    that is a constant per band, which standardising takes away.
    """
    top = 2595.0 * np.log10(1.0 + rate / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top, n_mels + 2) / 2595.0) - 1.0)
    bins = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))
