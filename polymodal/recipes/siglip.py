"""SigLIP in three sizes, and as published."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.siglip import SiglipConfig
from polymodal.recipe import Recipe
from polymodal.recipes._sizes import Size, modalities, model, training

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """The sigmoid loss over all pairs of towers; the item vector is the mean of what a row has.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny", "small" or "base", as for every recipe.
    """
    return Recipe(
        name="siglip",
        modalities=modalities(kinds, size),
        model=model(size).replace(stages=("towers",), unique=0),
        objective=SiglipConfig(),
        train=training(size),
    )


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """The loss as published: divided by the batch, every other row a negative."""
    ours = recipe(kinds, size)
    return ours.replace(name="siglip/reference", objective=SiglipConfig(normalise="batch", false_negatives=False))
