"""CoMM in three sizes, and with InfMasking."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.comm import CommConfig
from polymodal.recipe import Recipe, TrainConfig
from polymodal.recipes._sizes import Size, modalities, model

__all__ = ["infmasking", "recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Towers, and a trunk that fuses whatever a row has.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    train = {
        "tiny": TrainConfig(epochs=30, batch_size=64, learning_rate=2e-3),
        "small": TrainConfig(epochs=20, batch_size=256, learning_rate=5e-4),
        "base": TrainConfig(epochs=5, batch_size=256, learning_rate=1e-4, betas=(0.9, 0.999)),
    }
    return Recipe(
        name="comm",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers", "trunk"), unique=0),
        objective=CommConfig(),
        train=train[size],
    )


def infmasking(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """CoMM with the InfMasking terms: four masked fusions a view."""
    return recipe(kinds, size).replace(name="comm/infmasking", objective=CommConfig(masks=4))
