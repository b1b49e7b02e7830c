"""Mean self-harmonised weights of a model over evaluated items, where its objective has such weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from polymodal.evaluate import MeanWeights, mean_weights
from polymodal.losses.harmonise import harmonise, similarity
from polymodal.recipe import Recipe
from polymodal.workflow.subsets import Evaluated

__all__ = ["has_harmony", "item_harmony", "mean_harmony"]


def has_harmony(recipe: Recipe) -> bool:
    """Whether the objective computes harmonised weights from the vectors themselves."""
    return getattr(getattr(recipe.objective, "harmonise", None), "form", "none") not in ("none", "free")


def mean_harmony(recipe: Recipe, found: Evaluated) -> tuple[dict[str, MeanWeights], str]:
    """W of every item from its modalities' own vectors, averaged; or nothing, and why.

    An objective takes part that has a `harmonise` config with `form`, `floor` and `presence`.
    """
    how = getattr(recipe.objective, "harmonise", None)
    form = getattr(how, "form", None)
    if form is None:
        return {}, ""
    if form in ("none", "free"):
        why = "all equal" if form == "none" else "learned, not computed"
        return (
            {},
            f"No harmonised weights are shown: this objective's are {why}.",
        )
    names = [name for name in recipe.modalities if name in found.towers]
    if len(names) < 2 or not found.presence:
        return {}, ""
    weights, present = item_harmony(recipe, found, names, list(found.presence))
    return {recipe.name: mean_weights(weights, present, names)}, ""


def item_harmony(
    recipe: Recipe, found: Evaluated, names: Sequence[str], ids: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """W (n, M, M) of some items and which modalities they have (n, M), for an objective whose weights are computed."""
    how = getattr(recipe.objective, "harmonise", None)
    at = {name: row for row, name in enumerate(ids)}
    width = next(iter(found.towers.values())).width
    z, present = np.zeros((len(names), len(ids), width), np.float32), np.zeros((len(names), len(ids)), np.bool_)
    for m, name in enumerate(names):
        if name not in found.towers:
            continue
        known = [(row, at[i]) for row, i in enumerate(found.towers[name].ids) if i in at]
        z[m, [to for _, to in known]] = found.towers[name].vectors[[row for row, _ in known]]
        present[m, [to for _, to in known]] = True
    there = torch.from_numpy(present)
    s = similarity(torch.from_numpy(z), there)
    form: Any = getattr(how, "form", "code")
    floor = getattr(how, "floor", None)
    weights = harmonise(s, there.T if getattr(how, "presence", True) else None, form, floor)
    return weights.numpy(), present.T
