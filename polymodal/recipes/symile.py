"""Symile in three sizes."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.symile import SymileConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Towers alone; all modalities of a row at once, by their multilinear product.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="symile",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=SymileConfig(),
        train=training(size),
    )
