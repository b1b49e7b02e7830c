"""Cross+Self in three sizes."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.cross_self import CrossSelfConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """CLIP plus SimCLR within each modality, on towers.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="cross_self",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=CrossSelfConfig(),
        train=training(size),
    )
