"""CLIP in three sizes, and as published."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.clip import ClipConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """Towers alone, all pairs; the item vector is the mean of what a row has.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="clip",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=ClipConfig(),
        train=training(size),
    )


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """The loss as published: every other row is a negative, whatever it holds."""
    ours = recipe(kinds, size)
    return ours.replace(name="clip/reference", objective=ClipConfig(false_negatives=False))
