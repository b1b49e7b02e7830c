"""One vector per catalogue item from whatever the item has: image, text, table, video, audio, any subset missing.

The front door. Of a command line's `polymodal NAME`, the function is in `polymodal.workflow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polymodal.catalogue.demo import DemoConfig, generate
from polymodal.catalogue.reader import Catalogue
from polymodal.index import Index, create_index, open_index
from polymodal.service import Cards, Engine
from polymodal.types import BadInput, Embeddings, Hit, MediaError, PolymodalError, Record

if TYPE_CHECKING:
    from polymodal.embed import Embedder
    from polymodal.recipe import Recipe

__all__ = [
    "BadInput",
    "Cards",
    "Catalogue",
    "DemoConfig",
    "Embedder",
    "Embeddings",
    "Engine",
    "Hit",
    "Index",
    "MediaError",
    "PolymodalError",
    "Recipe",
    "Record",
    "create_index",
    "generate",
    "open_index",
]


def __getattr__(name: str) -> Any:
    """The two names that need torch, which takes two seconds to import and which index and service do without."""
    if name == "Embedder":
        from polymodal.embed import Embedder

        return Embedder
    if name == "Recipe":
        from polymodal.recipe import Recipe

        return Recipe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
