"""What travels over HTTP: requests, responses, and how each kind of modality is entered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from polymodal.config import Config
from polymodal.index import Facet
from polymodal.service.cards import Card
from polymodal.tasks.recommend import Recommended
from polymodal.types import BadInput, Hit

__all__ = [
    "ErrorOut",
    "FacetOut",
    "Health",
    "Info",
    "ItemOut",
    "Limits",
    "MediaOut",
    "ModalityOut",
    "Recommendations",
    "RecommendedOut",
    "ResultOut",
    "Results",
    "input_of",
    "parse_json",
    "recommend_body",
    "search_body",
]

Entry = Literal["text", "pairs", "numbers", "file"]
_ENTRIES: dict[str, Entry] = {"text": "text", "table": "pairs", "features": "numbers"}


class Limits(Config):
    """What one request may ask for.

    Args:
        max_body_bytes: size of a request, counted while it arrives.
        max_k: results of one search.
        max_text: characters of one text, of a filter, of a table, of a history.
        max_history: items of a history.
        max_files: files of one query.
        max_waiting: searches that may wait for the model; more are told to come back (503).
        hosts: names under which the service may be called ("*": any), so that another site's page that resolves to
            this machine cannot read it.
    """

    max_body_bytes: int = Field(64 * 2**20, ge=1)
    max_k: int = Field(200, ge=1)
    max_text: int = Field(20_000, ge=1)
    max_history: int = Field(200, ge=1)
    max_files: int = Field(16, ge=1)
    max_waiting: int = Field(64, ge=0)
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ModalityOut(BaseModel):
    """A modality that can be searched by, and how it is entered."""

    name: str
    kind: str
    entry: Entry = Field(description="text: a text field; pairs, numbers: JSON; file: an upload")
    accept: str = Field("", description="media types of the upload")
    many: bool = Field(False, description="whether several files may be sent")


class FacetOut(BaseModel):
    """An attribute that can be filtered on."""

    name: str
    kind: Literal["text", "number", "mixed"]
    values: list[tuple[str | float, int]] = Field(description="the most frequent values with their number of items")
    complete: bool = Field(description="whether these are all the values there are")
    min: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, name: str, facet: Facet) -> FacetOut:
        """The facet under its name."""
        return cls(
            name=name,
            kind=facet.kind,
            values=list(facet.values),
            complete=facet.complete,
            min=facet.low,
            max=facet.high,
        )


class Info(BaseModel):
    """What is served."""

    model: str = Field(description="digest of the model")
    index: str = Field(description="kind of the index")
    items: int
    width: int
    max_k: int
    modalities: list[ModalityOut]
    attributes: list[FacetOut]


class MediaOut(BaseModel):
    """A picture, sound or clip of an item."""

    modality: str
    kind: str
    url: str


class ItemOut(BaseModel):
    """An item as it is shown."""

    id: str
    title: str
    attributes: dict[str, Any]
    media: list[MediaOut]

    @classmethod
    def of(cls, card: Card) -> ItemOut:
        """The card with addresses for its media."""
        media = [
            MediaOut(modality=one.modality, kind=one.kind, url=f"/media/{quote(card.id, safe='')}/{number}")
            for number, one in enumerate(card.media)
        ]
        return cls(id=card.id, title=card.title, attributes=dict(card.attributes), media=media)


class ResultOut(ItemOut):
    """An item found, with the cosine of its vector and the query's."""

    score: float

    @classmethod
    def found(cls, hit: Hit, card: Card) -> ResultOut:
        """A hit with what it shows."""
        return cls(score=hit.score, **ItemOut.of(card).model_dump())


class Results(BaseModel):
    """Results, best first; equal scores by id."""

    used: list[str] = Field(description="modalities of the query")
    results: list[ResultOut]


class RecommendedOut(ItemOut):
    """An item recommended."""

    score: float = Field(description="cosine of its vector and what was asked; the list need not fall by it")
    probability: float | None = Field(description="calibrated probability that it fits; null without a calibration")
    group: str | None = Field(description="of which no other item is in the list")

    @classmethod
    def found(cls, one: Recommended, card: Card) -> RecommendedOut:
        """A recommendation with what it shows."""
        shown = ItemOut.of(card).model_dump()
        return cls(score=one.score, probability=one.probability, group=one.group, **shown)


class Recommendations(BaseModel):
    """A list, in its order."""

    used: list[str] = Field(description="modalities of the topic, or `history`")
    results: list[RecommendedOut]


class ErrorOut(BaseModel):
    """What was wrong, and what to do about it."""

    message: str
    field: str = ""
    expected: str = ""
    got: str = ""
    hint: str = ""
    reason: str = Field("", description="for media: missing, empty, truncated, wrong type, ...")


def input_of(name: str, kind: str) -> ModalityOut:
    """How a modality of this kind is entered: what is not text, pairs or numbers is a file."""
    entry = _ENTRIES.get(kind, "file")
    if entry != "file":
        return ModalityOut(name=name, kind=kind, entry=entry, accept="", many=False)
    return ModalityOut(name=name, kind=kind, entry=entry, accept=f"{kind}/*", many=kind == "image")


def parse_json(field: str, text: str, expected: str) -> Any:
    """JSON of a form field. Raises BadInput naming the field."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(field, expected, text, f"It is not JSON: {error}.") from None


def search_body(modalities: Sequence[ModalityOut], limits: Limits) -> dict[str, Any]:
    """The OpenAPI description of POST /api/search: a form with one field per modality of this model."""
    return _form_body(_search_fields(modalities, limits))


def recommend_body(modalities: Sequence[ModalityOut], limits: Limits) -> dict[str, Any]:
    """The OpenAPI description of POST /api/recommend: the form of a search, or a history, and how the list is made."""
    fraction = {"type": "number", "minimum": 0, "maximum": 1}
    fields = _search_fields(modalities, limits)
    fields["history"] = {"type": "string", "description": "JSON: a list of ids, the oldest first, in place of a topic"}
    fields["diversity"] = {**fraction, "default": 0, "description": "of the list (MMR): 0 takes the most relevant"}
    fields["least"] = {**fraction, "description": "calibrated probability that an item must reach"}
    return _form_body(fields)


def _search_fields(modalities: Sequence[ModalityOut], limits: Limits) -> dict[str, Any]:
    upload = {"type": "string", "format": "binary"}
    forms: Mapping[Entry, dict[str, Any]] = {
        "text": {"type": "string", "maxLength": limits.max_text},
        "pairs": {"type": "string", "description": 'JSON: {"name": value} or [["name", value], ...]'},
        "numbers": {"type": "string", "description": "JSON: a list of numbers, or a list of such lists"},
        "file": upload,
    }
    fields: dict[str, Any] = {}
    for one in modalities:
        fields[one.name] = {"type": "array", "items": upload} if one.many else forms[one.entry]
    fields["k"] = {"type": "integer", "minimum": 1, "maximum": limits.max_k, "default": 24}
    fields["where"] = {
        "type": "string",
        "description": 'JSON: {"attribute": value | [values] | {"min": x, "max": y}}',
    }
    return fields


def _form_body(fields: Mapping[str, Any]) -> dict[str, Any]:
    content = {"multipart/form-data": {"schema": {"type": "object", "properties": dict(fields)}}}
    return {"requestBody": {"required": True, "content": content}}
