"""LXMERT: two streams with cross-modality layers."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes._fusion import published, two_streams
from polymodal.recipes._sizes import Size

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """LXMERT: a stream for each modality, one shared co-attention between them, all masked, matching by the item.

    Source: Tan and Bansal, EMNLP 2019, arXiv 1908.07490.
    Differences: any number of streams, of one depth (there 9, 5 and 5 layers); no question answering; matching reads a
        learned summary of all streams (there the first word); a trained tokenizer and, unless `features` come with
        boxes, patches instead of a detector's regions.
    """
    objective = StreamsConfig(matching_reads="item", matching_masked=True)
    return two_streams("lxmert", kinds, size, objective, co_order="lxmert", co_share=True)


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """LXMERT as published: BERT's layer, zeros for hidden regions."""
    return published(recipe(kinds, size), kinds, summary="token")
