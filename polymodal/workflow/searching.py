"""A query in words, files and pairs, an index folder: the hits, as the command line and the page have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymodal.config import nearest
from polymodal.index import open_index
from polymodal.service import Cards, Engine
from polymodal.types import BadInput, Embeddings, Embeds, Hit, ModelMismatch, Record
from polymodal.workflow.calibration import read_calibration
from polymodal.workflow.indexing import model_of_index

__all__ = [
    "SearchResult",
    "kinds_of",
    "make_query",
    "open_engine",
    "open_without_model",
    "parse_where",
    "run_search",
    "run_similar",
    "shown_query",
]


@dataclass(frozen=True)
class SearchResult:
    """Hits, best first: rank, id, score (cosine), title, attributes. `query` is what was asked, for people."""

    index: Path
    query: Mapping[str, Any]
    hits: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"index": str(self.index), "query": dict(self.query), "hits": [dict(hit) for hit in self.hits]}


class _NoModel:
    """Stands for the model that built an index where nothing has to be embedded: loading it would take seconds."""

    def __init__(self, model: str, width: int) -> None:
        self.model, self.width = model, width
        self.modalities: Mapping[str, str] = {}

    def embed(self, records: Sequence[Record]) -> Embeddings:
        """Refuses: there is no model."""
        raise BadInput("query", "ids of the index", ", ".join(record.id for record in records))


def open_engine(index: Path, model: Path | None = None, device: str = "cpu") -> Engine:
    """The engine over an index folder, with the model it was built by.

    Raises:
        BadInput: no index, no model.
        ModelMismatch: the model did not build the index.
    """
    opened = open_index(index)
    path = model if model is not None else model_of_index(index)
    from polymodal.embed import Embedder

    embedder = Embedder.load(path, device)
    if embedder.model != opened.model:
        raise ModelMismatch(
            "--model" if model is not None else str(index),
            f"model {opened.model}, which built the index {index}",
            f"model {embedder.model} at {path}",
            "Build the index again with this model: polymodal embed, then polymodal index.",
        )
    return Engine(embedder, opened, Cards.open(index), read_calibration(index, opened.model))


def open_without_model(index: Path) -> Engine:
    """The engine over an index folder for what asks by ids alone. Raises BadInput where there is no index."""
    opened = open_index(index)
    embedder: Embeds = _NoModel(opened.model, opened.width)
    return Engine(embedder, opened, Cards.open(index), read_calibration(index, opened.model))


def make_query(
    modalities: Mapping[str, str],
    given: Mapping[str, Sequence[str | Path]],
    pairs: Sequence[str] = (),
    named: Sequence[str] = (),
) -> Record:
    """A query as a record.

    Args:
        modalities: name -> kind, of the model.
        given: kind -> values, as `--text` and `--image` give them; files as Path.
        pairs: "name=value", the attributes of the query.
        named: "modality=value", for a model with several modalities of one kind.

    Raises:
        BadInput: nothing asked, a file that is not there, a kind the model does not have or has several of.
    """
    values: dict[str, Any] = {}
    for kind, sources in given.items():
        if sources:
            name = _name_of(kind, modalities)
            values[name] = _value(kind, list(sources))
    if pairs:
        name = _name_of("table", modalities, "--attr")
        values[name] = tuple(_pair("--attr", text) for text in pairs)
    for text in named:
        name, value = _split("--query", text, "MODALITY=VALUE")
        if name not in modalities:
            raise BadInput("--query", "a modality of the model", repr(name), nearest(name, list(modalities)))
        values[name] = _typed(modalities[name], value)
    if not values:
        kinds = ", ".join(
            f"--{'attr' if kind == 'table' else kind}" for kind in modalities.values() if kind != "features"
        )
        raise BadInput("query", "something to search by", "nothing", f"This model takes {kinds}.")
    return Record("query", values)


def _name_of(kind: str, modalities: Mapping[str, str], option: str = "") -> str:
    names = [name for name, k in modalities.items() if k == kind]
    option = option or f"--{kind}"
    if not names:
        have = ", ".join(f"{name} ({k})" for name, k in modalities.items())
        raise BadInput(option, "a kind of input that the model has", f"no {kind}", f"It has {have}.")
    if len(names) > 1:
        raise BadInput(option, f"one modality of kind {kind}", ", ".join(names), f"Name it: --query {names[0]}=VALUE")
    return names[0]


def _value(kind: str, sources: list[str | Path]) -> Any:
    files = [source for source in sources if isinstance(source, Path)]
    for file in files:
        _check_file(f"--{kind}", file)
    if files:
        return files if kind == "image" else _one(kind, files)
    text = _one(kind, sources)
    if not str(text).strip():
        raise BadInput(f"--{kind}", "some words", repr(text))
    return text


def _one(kind: str, sources: Sequence[Any]) -> Any:
    if len(sources) > 1:
        raise BadInput(f"--{kind}", "one", f"{len(sources)} of them")
    return sources[0]


def _typed(kind: str, value: str) -> Any:
    if kind == "text":
        return _value(kind, [value])
    if kind == "table":
        return tuple(_pair("--query", text) for text in value.split(",") if text)
    return _value(kind, [Path(value)])


def _check_file(option: str, path: Path) -> None:
    if not path.is_file():
        raise BadInput(option, "a file", f"no file {path}")


def _split(option: str, text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise BadInput(option, form, repr(text))
    return name.strip(), value.strip()


def _pair(option: str, text: str) -> tuple[str, str | float]:
    name, value = _split(option, text, "NAME=VALUE")
    return name, _number(value)


def _number(text: str) -> str | float:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) < float("inf") else text


def parse_where(filters: Sequence[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Filters "name=value" (several of one name: any of them) and "name=min..max" (either end may lack).

    Args:
        filters: as written.
        kinds: attribute -> "text", "number" or "mixed", of the index.

    Raises: BadInput: no "=", or an attribute the index does not have, with the nearest name.
    """
    where: dict[str, Any] = {}
    for text in filters:
        name, value = _split("--where", text, "NAME=VALUE or NAME=MIN..MAX")
        if name not in kinds:
            raise BadInput("--where", "an attribute of the index", repr(name), nearest(name, list(kinds)))
        low, dots, high = value.partition("..")
        if dots and kinds[name] != "text":
            where[name] = _ends(text, low, high)
        else:
            one = value if kinds[name] == "text" else _number(value)
            where[name] = [*where[name], one] if isinstance(where.get(name), list) else [one]
    return where


def _ends(text: str, low: str, high: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, end in (("min", low), ("max", high)):
        if end.strip():
            value = _number(end.strip())
            if isinstance(value, str):
                raise BadInput("--where", "numbers in NAME=MIN..MAX", repr(text))
            out[key] = value
    if not out:
        raise BadInput("--where", "NAME=MIN..MAX", repr(text))
    return out


def run_search(engine: Engine, index: Path, record: Record, k: int, filters: Sequence[str] = ()) -> SearchResult:
    """Search by a record. Raises as `Engine.search`."""
    where = parse_where(filters, kinds_of(engine, filters))
    hits = engine.search(record, k, where or None)
    return SearchResult(index, shown_query(record, where), _rows(engine, hits))


def run_similar(index: Path, ids: Sequence[str], k: int, filters: Sequence[str] = ()) -> SearchResult:
    """The items nearest to one item, or to the middle of several. Needs no model.

    Raises: BadInput: no index; an id that it does not hold.
    """
    engine = open_without_model(index)
    where = parse_where(filters, kinds_of(engine, filters))
    return SearchResult(
        index,
        {"similar": list(ids), **({"where": where} if where else {})},
        _rows(engine, engine.similar(ids, k, where or None)),
    )


def kinds_of(engine: Engine, filters: Sequence[str]) -> dict[str, str]:
    """Attribute -> kind, for `parse_where`; {} where nothing is filtered, since counting facets takes time."""
    return {name: facet.kind for name, facet in engine.facets().items()} if filters else {}


def shown_query(record: Record, where: Mapping[str, Any]) -> dict[str, Any]:
    """A query and its filter, for people."""
    query = {name: _plain(value) for name, value in record.values.items()}
    return {**query, **({"where": dict(where)} if where else {})}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [str(one) for one in value]
    if isinstance(value, tuple):
        return dict(value)
    return str(value)


def _rows(engine: Engine, hits: Sequence[Hit]) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            "rank": rank,
            "id": hit.id,
            "score": round(hit.score, 6),
            "title": card.title,
            "attributes": dict(hit.attributes or card.attributes),
        }
        for rank, (hit, card) in enumerate(zip(hits, engine.cards(hits), strict=True), 1)
    )
