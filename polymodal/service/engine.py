"""Engine: an embedder and an index, put together. No HTTP here; the command line and the page use the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from polymodal.config import nearest
from polymodal.index import Facet, Index
from polymodal.service.cards import Card, MediaFile
from polymodal.types import BadInput, Embeds, Hit, MediaError, Record, Where

__all__ = ["Engine", "MediaStore"]


class MediaStore(Protocol):
    """Where what a result shows comes from."""

    def card(self, name: str) -> Card | None:
        """The card of an id, or None."""

    def media(self, name: str, number: int) -> MediaFile:
        """The file of an item's medium. Raises MediaError where it may not or cannot be shown."""


class Engine:
    """Search by any mix of modalities, by items, by a history.

    Args:
        embedder: turns a query into a vector.
        index: the catalogue's vectors.
        media: titles and files of the items; None to show ids and attributes only.

    Raises:
        ModelMismatch: the index was built by another model than the embedder's.
        BadInput: their widths differ.
    """

    def __init__(self, embedder: Embeds, index: Index, media: MediaStore | None = None) -> None:
        index.check_model(embedder.model, "the embedder")
        if embedder.width != index.width:
            raise BadInput("embedder", f"vectors of width {index.width}", f"width {embedder.width}")
        self.embedder, self.index, self._media = embedder, index, media

    @property
    def modalities(self) -> Mapping[str, str]:
        """Modality name -> kind, as the model has them."""
        return self.embedder.modalities

    def facets(self) -> Mapping[str, Facet]:
        """What can be filtered on."""
        return self.index.facets()

    def search(self, record: Record, k: int, where: Where | None = None) -> list[Hit]:
        """The k items nearest to a query.

        Args:
            record: the query: an item with most modalities missing.
            k: how many at most.
            where: filter, as `Index.search`.

        Raises:
            BadInput: a modality the model does not have, a record with nothing in it, a filter that is not usable.
            MediaError: a file of the query that cannot be decoded.
        """
        if not record.values:
            raise BadInput("query", "at least one of " + ", ".join(self.modalities), "nothing")
        for name in record.values:
            if name not in self.modalities:
                raise BadInput("query", "a modality of the model", repr(name), nearest(name, list(self.modalities)))
        return self.index.search(self.embedder.embed([record]), k, where)[0]

    def similar(self, ids: str | Sequence[str], k: int, where: Where | None = None) -> list[Hit]:
        """The k items nearest to one item, or to the middle of several; those themselves left out.

        Raises:
            UnknownId: an id that is not in the index.
            BadInput: no id, or items whose directions cancel out.
        """
        return self.recommend([ids] if isinstance(ids, str) else ids, k, where)

    def recommend(self, history: Sequence[str], k: int, where: Where | None = None) -> list[Hit]:
        """The k items nearest to the mean of a history, of which an item seen twice counts twice.

        Raises: as `similar`.
        """
        if not history:
            raise BadInput("ids", "at least one id", "none")
        seen = list(dict.fromkeys(history))
        vectors = self.index.get(seen).rows(history)
        # the history itself is among the nearest: ask for that many more
        hits = self.index.search(_middle(vectors), k + len(seen), where)[0]
        return [hit for hit in hits if hit.id not in set(seen)][:k]

    def card(self, name: str) -> Card:
        """What to show of an item; without a card its id and its attributes. Raises UnknownId."""
        card = self._media.card(name) if self._media is not None else None
        if card is not None and name in self.index:
            return card
        return Card(name, "", self.index.attributes_of([name])[0])

    def cards(self, hits: Sequence[Hit]) -> list[Card]:
        """The cards of some hits, in their order."""
        found = [self._media.card(hit.id) if self._media is not None else None for hit in hits]
        return [card or Card(hit.id, "", hit.attributes) for card, hit in zip(found, hits, strict=True)]

    def media(self, name: str, number: int) -> MediaFile:
        """A file of an item. Raises MediaError where there is none or it may not be shown."""
        if self._media is None or name not in self.index:
            raise MediaError("missing", f"medium {number} of {name!r}")
        return self._media.media(name, number)


def _middle(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    mean = vectors.astype(np.float64).mean(0, keepdims=True)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadInput("ids", "items that have a direction in common", "items that cancel out", "Take fewer of them.")
    middle: npt.NDArray[np.float32] = (mean / length).astype(np.float32)
    return middle
