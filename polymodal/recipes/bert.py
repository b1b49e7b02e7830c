"""BERT: text alone."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes._fusion import one_stream, published
from polymodal.recipes._sizes import Size
from polymodal.types import BadInput

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """BERT: masked words, from the text of an item alone; whatever else the data have is not read.

    Source: Devlin et al., NAACL 2019, arXiv 1810.04805.
    Differences: no next sentence; a trained tokenizer, whole words masked; trained from scratch on the catalogue.
    """
    return one_stream("bert", texts(kinds), size, StreamsConfig(matching_weight=0.0))


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """BERT as published: post-norm layers, the first token as the item vector."""
    return published(recipe(kinds, size), texts(kinds), summary="token")


def texts(kinds: Mapping[str, str]) -> dict[str, str]:
    """The modalities that are text. Raises BadInput where none is."""
    found = {name: kind for name, kind in kinds.items() if kind == "text"}
    if not found:
        raise BadInput("bert", "data with a text", ", ".join(f"{name} ({kind})" for name, kind in kinds.items()))
    return found
