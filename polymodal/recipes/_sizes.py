"""What "tiny", "small" and "base" mean, for every recipe alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from polymodal.config import parse_kind
from polymodal.modality import ModalityConfig
from polymodal.model import ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.recipe import TrainConfig

__all__ = ["Size", "modalities", "model", "training"]

Size = Literal["tiny", "small", "base"]

_MODEL = {
    "tiny": ModelConfig(
        width=128, embedding=128, unique=128, tower=StackConfig(layers=2, heads=4), trunk=StackConfig(layers=2, heads=4)
    ),
    "small": ModelConfig(
        width=384, embedding=256, unique=128, tower=StackConfig(layers=4, heads=6), trunk=StackConfig(layers=4, heads=6)
    ),
    "base": ModelConfig(
        width=768,
        embedding=512,
        unique=256,
        tower=StackConfig(layers=6, heads=12),
        trunk=StackConfig(layers=6, heads=12),
    ),
}

# What a kind's config takes at a size; a kind that is not listed keeps its defaults at every size.
_INPUT: dict[str, dict[str, dict[str, Any]]] = {
    "image": {"small": {"size": 128, "margin": 16}, "base": {"size": 224, "margin": 32}},
    "video": {"tiny": {"size": 32}, "small": {"size": 96}, "base": {"size": 112, "max_frames": 12}},
    "text": {"tiny": {"vocabulary": 4000}, "base": {"vocabulary": 30000, "max_tokens": 64}},
    "table": {"tiny": {"vocabulary": 2000}, "base": {"vocabulary": 30000}},
}


# Pictures whole, one token each, by convolutions: a thousand pictures and a few minutes can teach shapes to those. A
# linear map of small patches learns colours in that time and nothing else (docs/results.md).
_WHOLE: dict[str, dict[str, dict[str, Any]]] = {"image": {"tiny": {"patch": 64, "stem": "conv"}}}


def modalities(kinds: Mapping[str, str], size: Size, *, patches: bool = False) -> dict[str, ModalityConfig]:
    """Modality name -> config at a size. Raises BadInput for an unknown kind, with the nearest one.

    Args:
        kinds: modality name -> kind.
        size: of the model.
        patches: for methods that hide parts of a picture: patches at every size.
    """
    whole = {} if patches else _WHOLE
    return {
        name: parse_kind(
            "polymodal.modalities",
            {"kind": kind, **_INPUT.get(kind, {}).get(size, {}), **whole.get(kind, {}).get(size, {})},
            f"modalities.{name}",
            ModalityConfig,
        )
        for name, kind in kinds.items()
    }


def model(size: Size) -> ModelConfig:
    """Width, depth and heads of a size."""
    return _MODEL[size]


def training(size: Size) -> TrainConfig:
    """Epochs, batch and rate of a size, for contrastive methods: the larger the batch, the more negatives."""
    return {
        "tiny": TrainConfig(epochs=30, batch_size=64, learning_rate=2e-3),
        "small": TrainConfig(epochs=20, batch_size=256, learning_rate=5e-4),
        "base": TrainConfig(epochs=5, batch_size=256, learning_rate=1e-4, betas=(0.9, 0.999)),
    }[size]
