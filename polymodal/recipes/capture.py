"""CAPTURE: SCALE's predecessor, with equal weights."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.scale import HarmoniseConfig, ScaleConfig
from polymodal.recipe import Recipe
from polymodal.recipes import scale
from polymodal.recipes._sizes import Size

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """CAPTURE: towers, contrast between them, a trunk with masked tasks, all pairs of equal weight.

    It is SCALE's recipe without harmonising and with nothing else changed, so that the two compare just that. The
    original is of picture and text: name these two of the data's modalities where there are more.

    Source: Zhan et al., "Product1M", ICCV 2021, arXiv 2107.14572.
    Differences: those of `objectives.scale`; any modalities; a trained tokenizer and, unless `features` come with
        boxes, patches instead of a detector's regions.
    """
    ours = scale.recipe(kinds, size)
    assert isinstance(ours.objective, ScaleConfig)
    return ours.replace(name="capture", objective=ours.objective.replace(harmonise=HarmoniseConfig(form="none")))


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """CAPTURE as published: contrast and masked tasks alone, a fixed temperature, BERT's layer."""
    ours = recipe(kinds, size)
    assert isinstance(ours.objective, ScaleConfig)
    objective = ours.objective.replace(
        learn_temperature=False,
        false_negatives=False,
        negatives="cross",
        modality_dropout=0.0,
        contrast_weight=1.0,
        masked_weight=1.0,
        fusion_weight=0.0,
        recall_weight=0.0,
    )
    layer = {"norm": "post", "eps": 1e-12, "dropout": 0.1}
    shape = ours.model.replace(
        unique=0, tower=ours.model.tower.replace(**layer), trunk=ours.model.trunk.replace(**layer)
    )
    return ours.replace(name="capture/reference", objective=objective, model=shape)
