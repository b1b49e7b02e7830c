"""SimCLR in three sizes."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.simclr import SimclrConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Every tower against its own other view; modalities are not tied to one another (`across` ties them).

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="simclr",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=SimclrConfig(),
        train=training(size),
    )
