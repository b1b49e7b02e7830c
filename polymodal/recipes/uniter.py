"""UNITER: one stream, one modality masked at a time, matching."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes._fusion import one_stream, published
from polymodal.recipes._sizes import Size

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """UNITER: one stream in which one modality is masked at a time, and matching read from the item vector.

    Source: Chen et al., ECCV 2020, arXiv 1909.11740.
    Differences: any modalities; every step has all tasks (UNITER draws one a step); no word-region alignment; a trained
        tokenizer and, unless `features` come with boxes, patches instead of a detector's regions.
    """
    return one_stream("uniter", kinds, size, StreamsConfig(one_at_a_time=True, matching_reads="item"))


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """UNITER as published: BERT's layer, zeros for hidden regions, the first token as the item vector."""
    return published(recipe(kinds, size), kinds, summary="token")
