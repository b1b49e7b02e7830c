"""M3AE in three sizes, and as its release has it in the sizes of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from polymodal.config import parse_kind
from polymodal.modality import ModalityConfig
from polymodal.model import ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objectives.m3ae import M3AEConfig
from polymodal.recipe import Recipe, TrainConfig
from polymodal.recipes._sizes import Size, modalities, model

__all__ = ["recipe", "reference"]

_RATIOS = {"table": 0.5, "video": 0.9, "audio": 0.8}
_WEIGHTS = {"text": 0.5, "table": 0.5}
# width, layers and heads of the encoder; "tiny" is ours, of the proportions of ViT-Ti
_PAPER = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
_PAPER |= {"large": (1024, 24, 16), "huge": (1280, 32, 16)}
_INPUT: dict[str, dict[str, Any]] = {
    "image": {"size": 256, "margin": 0, "max_pictures": 1, "min_area": 0.2, "colour": 0.0, "places": "sincos"},
    "text": {"vocabulary": 30522, "max_tokens": 64, "drop_words": 0.0, "words_as_unit": False, "places": "sincos"},
    "video": {"places": "sincos"},
    "audio": {"places": "sincos"},
}


def _by_name(kinds: Mapping[str, str], values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[kind] for name, kind in kinds.items() if kind in values}


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """M3AE as we hold it to be right (see `objectives.m3ae` for every difference).

    One trunk of the size's towers and trunk together; names, values and moments hide as wholes.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny" for two cores and thousands of items, "small", or "base" (768 wide, 12 layers).
    """
    shape = model(size)
    trunk = shape.trunk.replace(layers=shape.tower.layers + shape.trunk.layers)
    objective = M3AEConfig(
        ratios=_by_name(kinds, _RATIOS),
        weights=_by_name(kinds, _WEIGHTS),
        units=tuple(name for name, kind in kinds.items() if kind in ("table", "video")),
        decoder=StackConfig(layers=2 if size == "tiny" else 4),
    )
    train = {
        "tiny": TrainConfig(epochs=60, batch_size=64, learning_rate=1e-3, betas=(0.9, 0.95)),
        "small": TrainConfig(epochs=60, batch_size=256, learning_rate=5e-4, betas=(0.9, 0.95)),
        "base": TrainConfig(epochs=30, batch_size=512, learning_rate=3e-4, betas=(0.9, 0.95)),
    }
    return Recipe(
        name="m3ae",
        modalities=modalities(kinds, size, patches=True),
        model=shape.replace(stages=("trunk",), trunk=trunk, unique=0),
        objective=objective,
        train=train[size],
    )


def reference(kinds: Mapping[str, str], size: Literal["tiny", "small", "base", "large", "huge"] = "base") -> Recipe:
    """M3AE as released (m3ae_public at a5eb14f, README command), quirks and all, where a typed field can say it.

    256 x 256 pictures in patches of 16, 64 word pieces, fixed places, decoder of 8 layers of 512, single linear heads,
    one mask a batch in which padding takes part, text divided by the whole batch, no vector read by the decoder: the
    exported vectors are then an untrained linear map of the summary token.
    The batch of 4,096 is the paper's; `--set train.accumulate=...` cuts it into what fits.
    """
    width, layers, heads = _PAPER[size]
    stack = StackConfig(layers=layers, heads=heads, activation="gelu_tanh", eps=1e-6)
    texts = [name for name, kind in kinds.items() if kind == "text"]
    objective = M3AEConfig(
        ratios=_by_name(kinds, _RATIOS),
        weights=_by_name(kinds, _WEIGHTS),
        slack=0.0,
        shared_mask=True,
        slots=dict.fromkeys(texts, 64),
        divide="batch",
        decoder=StackConfig(layers=8, heads=16, activation="gelu_tanh", eps=1e-6),
        decoder_width=512,
        places="sincos",
        heads="linear",
        vectors=False,
        bottleneck=0.0,
    )
    inputs: dict[str, ModalityConfig] = {
        name: parse_kind("polymodal.modalities", {"kind": kind, **_INPUT.get(kind, {})}, name, ModalityConfig)
        for name, kind in kinds.items()
    }
    train = TrainConfig(
        epochs=100, batch_size=4096, learning_rate=2.4e-3, betas=(0.9, 0.95), warmup=0.05, final=0.0, clip=1e9
    )
    return Recipe(
        name="m3ae/reference",
        modalities=inputs,
        model=ModelConfig(width=width, embedding=width, stages=("trunk",), trunk=stack, summary="token"),
        objective=objective,
        train=train,
    )
