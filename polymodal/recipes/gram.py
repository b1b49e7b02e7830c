"""GRAM in three sizes."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.gram import GramConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Towers alone; all modalities of a row at once, by the volume they span.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="gram",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=GramConfig(),
        train=training(size),
    )
