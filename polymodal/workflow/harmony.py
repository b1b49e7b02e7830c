"""Mean self-harmonised weights of a model over evaluated items, where its objective has such weights."""

from __future__ import annotations

import numpy as np
import torch

from polymodal.evaluate import MeanWeights, mean_weights
from polymodal.losses.harmonise import harmonise, similarity
from polymodal.recipe import Recipe
from polymodal.workflow.subsets import Evaluated

__all__ = ["mean_harmony"]


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
    ids = list(found.presence)
    if len(names) < 2 or not ids:
        return {}, ""
    at = {name: row for row, name in enumerate(ids)}
    width = next(iter(found.towers.values())).width
    z, present = np.zeros((len(names), len(ids), width), np.float32), np.zeros((len(names), len(ids)), np.bool_)
    for m, name in enumerate(names):
        rows = [at[i] for i in found.towers[name].ids]
        z[m, rows], present[m, rows] = found.towers[name].vectors, True
    there = torch.from_numpy(present)
    s = similarity(torch.from_numpy(z), there)
    weights = harmonise(s, there.T if getattr(how, "presence", True) else None, form, getattr(how, "floor", None))
    return {recipe.name: mean_weights(weights.numpy(), present.T, names)}, ""
