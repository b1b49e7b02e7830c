"""ViLBERT: two streams with co-attention."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes._fusion import published, two_streams
from polymodal.recipes._sizes import Size

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """ViLBERT: a stream for each modality, co-attention between them, all masked, matching by a product.

    Source: Lu et al., NeurIPS 2019, arXiv 1908.02265.
    Differences: any number of streams, of one width and depth (there 768 and 12 layers for text, 1024 and 6 for
        pictures); a trained tokenizer and, unless `features` come with boxes, patches instead of a detector's regions.
    """
    return two_streams("vilbert", kinds, size, StreamsConfig(matching_masked=True), co_order="vilbert")


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """ViLBERT as published: BERT's layer, zeros for nine tenths of the hidden regions."""
    return published(recipe(kinds, size), kinds, keep=0.1)
