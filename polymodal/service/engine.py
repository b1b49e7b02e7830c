"""Engine: an embedder and an index, put together. No HTTP here; the command line and the page use the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from polymodal.config import nearest
from polymodal.index import Facet, Index
from polymodal.service.cards import Card, MediaFile
from polymodal.tasks.probability import Calibrator
from polymodal.tasks.recommend import Blend, Recommended, Recommender, Wanted, check_topic, middle
from polymodal.types import BadInput, Embeds, Hit, MediaError, Record, Where

__all__ = ["Engine", "MediaStore"]


class MediaStore(Protocol):
    """Where what a result shows comes from."""

    def card(self, name: str) -> Card | None:
        """The card of an id, or None."""

    def groups(self, ids: Sequence[str]) -> Sequence[str | None]:
        """The group of each id, None where it has none."""

    def media(self, name: str, number: int) -> MediaFile:
        """The file of an item's medium. Raises MediaError where it may not or cannot be shown."""


class Engine:
    """Search by any mix of modalities, and by items; recommend for a topic, and for a history.

    Args:
        embedder: turns a query into a vector.
        index: the catalogue's vectors.
        media: titles, groups and files of the items; None to show ids and attributes only.
        calibration: of recommendations, as `Recommender`.

    Raises:
        ModelMismatch: the index was built by another model than the embedder's.
        BadInput: their widths differ.
    """

    def __init__(
        self,
        embedder: Embeds,
        index: Index,
        media: MediaStore | None = None,
        calibration: Mapping[str, Calibrator] | None = None,
    ) -> None:
        index.check_model(embedder.model, "the embedder")
        if embedder.width != index.width:
            raise BadInput("embedder", f"vectors of width {index.width}", f"width {embedder.width}")
        self.embedder, self.index, self._media = embedder, index, media
        self.recommender = Recommender(index, media.groups if media is not None else None, calibration)

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
        self._check(record, "query")
        return self.index.search(self.embedder.embed([record]), k, where)[0]

    def _check(self, record: Record, field: str) -> None:
        if not record.values:
            raise BadInput(field, "at least one of " + ", ".join(self.modalities), "nothing")
        for name in record.values:
            if name not in self.modalities:
                raise BadInput(field, "a modality of the model", repr(name), nearest(name, list(self.modalities)))

    def similar(self, ids: str | Sequence[str], k: int, where: Where | None = None) -> list[Hit]:
        """The k items nearest to one item, or to the middle of several; those themselves left out.

        Raises:
            UnknownId: an id that is not in the index.
            BadInput: no id, or items whose directions cancel out.
        """
        if not ids:
            raise BadInput("ids", "at least one id", "none")
        given = [ids] if isinstance(ids, str) else list(ids)
        own = set(given)
        # the items themselves are among the nearest: ask for that many more
        hits = self.index.search(middle(self.index.get(given).rows(given)), k + len(own), where)[0]
        return [hit for hit in hits if hit.id not in own][:k]

    def recommend(
        self,
        asked: Record | Sequence[str],
        wanted: Wanted,
        where: Where | None = None,
        *,
        blend: Blend = "mean",
    ) -> list[Recommended]:
        """A list for a topic (a record: words, a picture, any mix) or for a history (ids, the oldest first).

        Raises:
            UnknownId, BadInput: as `Recommender.for_history`; a topic as `search`, or one the model knows nothing of.
        """
        if not isinstance(asked, Record):
            return self.recommender.for_history(asked, wanted, where, blend=blend)
        self._check(asked, "topic")
        check_topic(self.embedder, asked)
        return self.recommender.for_topics(self.embedder.embed([asked]), wanted, where)[0]

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
