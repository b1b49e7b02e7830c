"""SupCon in three sizes."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.supcon import SupconConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Rows of one class (`objective.label`, else of one group) find one another across towers.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="supcon",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=SupconConfig(),
        train=training(size),
    )
