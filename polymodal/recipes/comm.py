"""CoMM in three sizes, and with InfMasking."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.comm import CommConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["infmasking", "recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Towers, and a trunk that fuses whatever a row has.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="comm",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers", "trunk"), unique=0),
        objective=CommConfig(),
        train=training(size),
    )


def infmasking(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """CoMM with the InfMasking terms: four masked fusions a view."""
    return recipe(kinds, size).replace(name="comm/infmasking", objective=CommConfig(masks=4))
