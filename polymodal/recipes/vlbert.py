"""VL-BERT: one stream, everything masked, no matching."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes._fusion import one_stream, published
from polymodal.recipes._sizes import Size

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """VL-BERT: one stream in which all modalities are masked, without matching, which its authors found of no help.

    Source: Su et al., ICLR 2020, arXiv 1908.08530.
    Differences: any modalities; no further text-only corpus; hidden pictures are replaced as tokens, not as pixels; a
        trained tokenizer and, unless `features` come with boxes, patches instead of a detector's regions.
    """
    return one_stream("vlbert", kinds, size, StreamsConfig(matching_weight=0.0))


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """VL-BERT as published: BERT's layer, zeros for hidden regions, the first token as the item vector."""
    return published(recipe(kinds, size), kinds, summary="token")
