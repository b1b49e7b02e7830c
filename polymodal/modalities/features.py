"""Features: vectors computed elsewhere (regions of a detector, frames of a frozen encoder), with boxes or without."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.modality import Fitted, Guess, Modality, ModalityConfig, Question, standardise
from polymodal.tensors import Fields
from polymodal.types import BadInput, MediaError

__all__ = ["Features", "FeaturesConfig"]

Array = npt.NDArray[np.float32]

_MOST_NUMBERS = 1 << 26


class FeaturesConfig(ModalityConfig):
    """How vectors are read.

    Args:
        channels: C; None: as wide as the first vectors seen by `fit`.
        max_vectors: N, vectors read of a cell; the rest is cut.
        boxes: each vector belongs to a box of a picture: a decoded cell is (N, C + 4), relative x1 y1 x2 y2 last.
        ordered: the place in the cell means something (frames); False for a set (regions).
        overlap: boxes with a greater intersection over union hide together.
        whole: with boxes, put a token in front that is the mean of the others, its box the whole picture; what is
            hidden counts in it as hidden, and it is never predicted itself.
        classes: every vector is followed by the detector's probabilities of so many classes (before the box), and these
            are what is predicted, instead of the vector.
        noise: augmentation: deviation of the noise added, in deviations of each channel.
        drop: augmentation: chance of each vector to be left out.
    """

    kind: Literal["features"] = "features"
    channels: int | None = Field(None, ge=1, le=65_536)
    max_vectors: int = Field(64, ge=1, le=4096)
    boxes: bool = False
    ordered: bool = True
    overlap: float = Field(0.3, ge=0, le=1)
    whole: bool = False
    classes: int = Field(0, ge=0, le=65_536)
    noise: float = Field(0.05, ge=0)
    drop: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _placed(self) -> FeaturesConfig:
        if self.whole and not self.boxes:
            raise ValueError("whole=True needs boxes=True: a mean of vectors without a place says nothing new")
        return self

    def fit(self, values: Iterable[Any]) -> Fitted:
        """`{"channels": C, "mean": [...], "spread": [...]}`. Cells of another width teach nothing."""
        stream = iter(values)
        first = next(stream, None)
        extra = self.classes + (4 if self.boxes else 0)
        channels = self.channels or (1 if first is None else first.shape[1] - extra)
        cells = [] if first is None else [first]
        mean, spread = standardise(
            cell[:, :channels] for part in (cells, stream) for cell in part if cell.shape[1] == channels + extra
        )
        if len(mean) != channels:
            mean, spread = [0.0] * channels, [1.0] * channels
        return {"channels": channels, "mean": mean, "spread": spread}

    def build(self, width: int, fitted: Fitted) -> Features:
        """Raises BadInput where `fitted` is not what `fit` returns, or of another width than `channels`."""
        channels = fitted.get("channels")
        if (
            not isinstance(channels, int)
            or not len(fitted.get("mean", ())) == len(fitted.get("spread", ())) == channels
        ):
            raise BadInput("fitted", "what FeaturesConfig.fit returned", sorted(fitted))
        if self.channels not in (None, channels):
            raise BadInput("features.channels", f"{channels}, the width it was fitted on", self.channels)
        return Features(self, width, channels, fitted["mean"], fitted["spread"])

    def decoder(self) -> Features:
        """Features that take any width where `channels` is not given."""
        return Features(self, 1, self.channels, [0.0], [1.0])


class Features(Modality):
    """One token a vector.

    Fields of N <= max_vectors tokens: `vector` (N, C) float32 standardised per channel, `position` int64, and with
    boxes `box` (N, 5) float32: x1, y1, x2, y2 and area, relative to the picture. With `classes` also `posterior`
    (N, classes) float32; with `whole` a token in front, and `whole` (N,) bool that says which it is.

    Source: Anderson et al. 2018 (bottom-up attention) and ViLBERT/SCALE for vectors with five location numbers, and for
    hiding regions that overlap.
    InterBERT (arXiv 2003.13198; black4321/InterBERT at 7ccabb1) for `whole` and `classes`: KL(detector || prediction).
    Differences: vectors are standardised, so that the loss of one channel is about 1 and none dominates; InterBERT
    takes them as they are (mean 0 and spread 1 in `fitted`), and adds a pixel to each side of a box before it compares.
    """

    kind: ClassVar[str] = "features"
    is_media: ClassVar[bool] = True

    def __init__(
        self, config: FeaturesConfig, width: int, channels: int | None, mean: list[float], spread: list[float]
    ) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        self._mean, self._spread = np.asarray(mean, np.float32), np.asarray(spread, np.float32)
        self.content = nn.Linear(channels or 1, width)
        self.place = nn.Embedding(config.max_vectors, width) if config.ordered else None
        for module in (self.content, self.place):
            if module is not None:
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.content.bias)
        self.location = nn.Linear(5, width) if config.boxes else None

    # -- loader side ---------------------------------------------------------------------------------------------

    def decode(self, source: Any) -> Array:
        """(N, C) float32, or (N, C + 4) with boxes.

        Args:
            source: an array or nested lists (N, C) or (C,); the path of an .npy file of one; with boxes also
                {"vectors": (N, C), "boxes": (N, 4)}.

        Raises:
            MediaError: "missing", "empty", "unreadable" (another width, NaN or infinity, boxes outside the picture, not
                an .npy file), "wrong type" (not numbers), "over the limits" (more than 2**26 numbers).
        """
        if isinstance(source, Mapping):
            source = _boxed(source)
        array = _numbers(_load(source) if isinstance(source, Path) else source)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2:
            raise MediaError("unreadable", f"expected (vectors, channels), got {array.shape}")
        if array.size == 0:
            raise MediaError("empty", f"shape {array.shape}")
        extra = self.config.classes + (4 if self.config.boxes else 0)
        width = None if self.channels is None else self.channels + extra
        if width is not None and array.shape[1] != width:
            raise MediaError("unreadable", f"expected {width} numbers a vector, got {array.shape[1]}")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array[: self.config.max_vectors], np.float32)
        if not np.isfinite(array).all():
            raise MediaError("unreadable", "NaN or infinity among the numbers")
        if self.config.boxes:
            _check_boxes(array)
        return array

    def augment(self, value: Array, generator: torch.Generator) -> Array:
        """Noise on the vectors (never on boxes), and some vectors left out, never all."""
        draws = torch.rand(len(value), generator=generator).numpy()
        keep = draws >= self.config.drop
        keep[draws.argmax()] = True
        kept = value[keep]
        channels = len(self._mean)
        noise = torch.randn(len(kept), channels, generator=generator).numpy()
        kept[:, :channels] += self.config.noise * self._spread * noise
        return kept

    def preprocess(self, value: Array) -> Fields:
        """Fields of the vectors, standardised."""
        value = value[: self.config.max_vectors]
        channels = len(self._mean)
        vectors = torch.from_numpy((value[:, :channels] - self._mean) / self._spread)
        fields = {"vector": vectors, "position": torch.arange(len(value))}
        after = channels + self.config.classes
        if self.config.classes:
            fields["posterior"] = torch.from_numpy(value[:, channels:after].copy())
        if self.config.boxes:
            boxes = torch.from_numpy(value[:, after:].copy())
            fields["box"] = torch.cat([boxes, _area(boxes)[:, None]], 1)
        return _with_whole(fields) if self.config.whole and len(value) else fields

    def example(self, seed: int) -> Array:
        """One to four vectors of the fitted width, or of 4 numbers where none is fitted."""
        numbers = np.random.default_rng(seed)
        vectors = numbers.normal(size=(int(numbers.integers(1, 5)), self.channels or 4)).astype(np.float32)
        corners = np.sort(numbers.random((len(vectors), 2, 2)), 1).reshape(-1, 4)
        if self.config.classes:
            posterior = numbers.dirichlet(np.ones(self.config.classes), len(vectors)).astype(np.float32)
            vectors = np.concatenate([vectors, posterior], 1)
        return self.decode({"vectors": vectors, "boxes": corners} if self.config.boxes else vectors)

    def blank(self) -> Fields:
        """One vector of zeros (as stored, before standardising), with the box of the whole picture."""
        extra = self.config.classes + (4 if self.config.boxes else 0)
        zero = np.zeros((1, len(self._mean) + extra), np.float32)
        if self.config.boxes:
            zero[0, -2:] = 1
        return self.preprocess(zero)

    def show(self, value: Array) -> tuple[str, bytes]:
        """How many vectors of what width."""
        return "text/plain", f"{len(value)} vectors of {value.shape[1]} numbers".encode()

    # -- model side ----------------------------------------------------------------------------------------------

    def embed(self, fields: Fields) -> Tensor:
        embedded: Tensor = self.content(fields["vector"].to(self.content.weight.dtype))
        return embedded

    def positions(self, fields: Fields) -> Tensor:
        """Place in the cell (where `ordered`) and box; zeros where neither means anything."""
        weight = self.content.weight
        places: Tensor = weight.new_zeros((len(fields["position"]), len(weight)))
        if self.place is not None:
            places = self.place(fields["position"])
        if self.location is None:
            return places
        located: Tensor = self.location(fields["box"].to(self.location.weight.dtype))
        return places + located

    def target(self, fields: Fields) -> Tensor:
        """(K, C) float32: the standardised vector; (K, classes) with `classes`."""
        return fields["posterior" if self.config.classes else "vector"].float()

    def head(self, width: int) -> nn.Module:
        """(K, width) -> (K, C), or logits (K, classes)."""
        outputs = self.config.classes or len(self._mean)
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, outputs))

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over the channels; 1 for a head that always says the mean. With `classes` the divergence
        sum_c q_c (ln q_c - ln p_c) in nats, 0 ln 0 = 0.
        """
        if self.config.classes:
            return F.kl_div(prediction.float().log_softmax(1), target.float(), reduction="none").sum(1)
        return (prediction.float() - target.float()).square().mean(1)

    def answer(self, question: Question, prediction: Tensor) -> Guess:
        """(N, C) float32, in the units of the catalogue; boxes are places and are left as they were asked for."""
        vectors = question.fields["vector"].float().clone()
        vectors[question.hidden] = prediction.float().cpu()
        value = vectors.numpy() * self._spread + self._mean
        if "box" in question.fields:
            value = np.concatenate([value, question.fields["box"][:, :4].numpy()], 1)
        return Guess(value.astype(np.float32))

    def maskable(self, fields: Fields) -> Tensor | None:
        """All but the token that stands for the whole."""
        return ~fields["whole"] if self.config.whole else None

    def whole(self, fields: Fields) -> Tensor | None:
        """The token in front, where `whole`."""
        return fields["whole"] if self.config.whole else None

    def sequence(self, fields: Fields) -> Tensor | None:
        """The place, where `ordered`."""
        return fields["position"] if self.config.ordered else None

    def overlap(self, fields: Fields) -> Tensor | None:
        """Boxes with an intersection over union above `overlap` hide together; None without boxes."""
        if not self.config.boxes:
            return None
        box = fields["box"]
        corner = torch.maximum(box[:, :, None, :2], box[:, None, :, :2])
        opposite = torch.minimum(box[:, :, None, 2:4], box[:, None, :, 2:4])
        shared = (opposite - corner).clamp(min=0).prod(-1)
        either = box[:, :, None, 4] + box[:, None, :, 4] - shared
        itself = torch.eye(box.shape[1], dtype=torch.bool, device=box.device)
        return (shared > self.config.overlap * either) | itself


def _with_whole(fields: Mapping[str, Tensor]) -> Fields:
    """The fields with a token in front for the whole picture; its content comes of the others (`whole`)."""
    front = {name: torch.zeros_like(value[:1]) for name, value in fields.items()}
    front["box"] = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]])
    joined = {name: torch.cat([front[name], value]) for name, value in fields.items()}
    return {**joined, "whole": torch.arange(len(joined["vector"])) == 0}


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _boxed(source: Mapping[str, Any]) -> npt.NDArray[Any]:
    if set(source) != {"vectors", "boxes"}:
        raise MediaError("wrong type", f"expected 'vectors' and 'boxes', got {sorted(source)}")
    vectors, boxes = (
        _numbers(_load(part) if isinstance(part, Path) else part) for part in (source["vectors"], source["boxes"])
    )
    if vectors.ndim != 2 or boxes.shape != (len(vectors), 4):
        raise MediaError("unreadable", f"expected (N, C) and (N, 4), got {vectors.shape} and {boxes.shape}")
    return np.concatenate([vectors, boxes], 1)


def _check_boxes(array: Array) -> None:
    x1, y1, x2, y2 = array[:, -4:].T
    if array.shape[1] < 5 or array[:, -4:].min() < 0 or array[:, -4:].max() > 1 or (x2 < x1).any() or (y2 < y1).any():
        raise MediaError("unreadable", "expected boxes as x1 y1 x2 y2 between 0 and 1")


def _numbers(source: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(source)
    except ValueError:
        raise MediaError("unreadable", "vectors of different widths") from None
    if array.dtype.kind not in "fiu":
        raise MediaError("wrong type", f"expected numbers, got {array.dtype}")
    if array.size > _MOST_NUMBERS:
        raise MediaError("over the limits", f"{array.size} numbers")
    return array


def _load(path: Path) -> npt.NDArray[Any]:
    """An .npy file, its header checked before anything is read; pickles are refused."""
    try:
        if path.stat().st_size == 0:
            raise MediaError("empty", path.name)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(mapped, np.ndarray):
            mapped.close()
            raise MediaError("wrong type", f"{path.name} is an archive, not one array")
        if math.prod(mapped.shape) > _MOST_NUMBERS:
            raise MediaError("over the limits", f"{mapped.size} numbers")
        return np.array(mapped)
    except FileNotFoundError:
        raise MediaError("missing", path.name) from None
    except (OSError, ValueError, EOFError, TokenError) as error:  # TokenError: numpy, of a header cut in a bracket
        raise MediaError("unreadable", f"{path.name}: {str(error)[:100]}") from None
