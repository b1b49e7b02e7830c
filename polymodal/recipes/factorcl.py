"""FactorCL in three sizes, and as its release does it."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.losses.critics import CriticConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objectives.factorcl import FactorCLConfig, Weights
from polymodal.recipe import Recipe, TrainConfig
from polymodal.recipes._sizes import Size, modalities, model

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """FactorCL-SSL as we hold it to be right (see `objectives.factorcl` for every difference).

    One against the rest, dot critics; what modalities share is trained into the shared part of the item vector and what
    one alone knows into its unique part. `--set objective.label=NAME objective.conditional=within_class` supervises it.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base".
    """
    train = {
        "tiny": TrainConfig(epochs=30, batch_size=64, learning_rate=1e-3),
        "small": TrainConfig(epochs=20, batch_size=256, learning_rate=5e-4),
        "base": TrainConfig(epochs=5, batch_size=256, learning_rate=1e-4, betas=(0.9, 0.999)),
    }
    objective = FactorCLConfig(readout="factors")
    return Recipe(
        name="factorcl", modalities=modalities(kinds, size), model=model(size), objective=objective, train=train[size]
    )


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """FactorCL-SSL as released, where a typed field can say it: no trunk, every two modalities, concatenating critics
    of two hidden layers of 512, CLUB unclamped, batch 32, a constant rate of 1e-4 without decay. Minutes a step at base
    size; its encoders were MLPs, here they are towers of one layer."""
    ours = recipe(kinds, size)
    objective = FactorCLConfig(
        structure="pairs",
        critic=CriticConfig(kind="concat", hidden=512, layers=2, head_layers=1),
        weights=Weights(fusion=0.0),
        clamp=False,
    )
    shape = ours.model.replace(stages=("towers",), unique=0, tower=StackConfig(layers=1, heads=ours.model.tower.heads))
    train = ours.train.replace(
        epochs=100, batch_size=32, learning_rate=1e-4, betas=(0.9, 0.999), warmup=0.0, final=1.0, weight_decay=0.0
    )
    return ours.replace(name="factorcl/reference", objective=objective, model=shape, train=train)
