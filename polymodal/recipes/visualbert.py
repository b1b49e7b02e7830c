"""VisualBERT: one stream, words masked, matching."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes._fusion import WORDS, one_stream, published, without
from polymodal.recipes._sizes import Size

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """VisualBERT: one stream in which words are masked and pictures only looked at, and matching.

    Source: Li et al. 2019, arXiv 1908.03557.
    Differences: any modalities, tables counting as words; the wrong cell may be any modality's (a second caption
        there); a trained tokenizer and, unless `features` come with boxes, patches instead of a detector's regions.
    """
    objective = StreamsConfig(mask_ratios=without(kinds, *WORDS), matching_reads="item", matching_masked=True)
    return one_stream("visualbert", kinds, size, objective)


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """VisualBERT as published: BERT's layer, the first token as the item vector."""
    return published(recipe(kinds, size), kinds, summary="token")
