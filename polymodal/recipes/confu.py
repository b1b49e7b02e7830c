"""ConFu in three sizes."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.confu import ConfuConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Towers, and a trunk that fuses what is not held out.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="confu",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers", "trunk"), unique=0),
        objective=ConfuConfig(fuse="model"),
        train=training(size),
    )
