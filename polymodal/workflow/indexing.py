"""Vectors and data in; out an index folder with attributes, cards and the model's place, for search and the page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.shards import Shards
from polymodal.index import create_index
from polymodal.index.base import read_manifest
from polymodal.service.cards import content_type, write_cards
from polymodal.types import BadInput, MediaError, Record
from polymodal.workflow.records import attributes_of, records_of, rows_of_ids, title_of
from polymodal.workflow.vectors import read_facts, read_vectors

__all__ = ["IndexResult", "build_index", "data_of_index", "model_of_index"]

SOURCE = "source.json"
# (modality, value) -> media type and content of a decoded value, for cards of prepared shards
Show = Callable[[str, Any], tuple[str, bytes]]


@dataclass(frozen=True)
class IndexResult:
    """What `build_index` wrote: kind, items, width, the model's digest, attributes to filter on, media shown."""

    out: Path
    kind: str
    items: int
    width: int
    model: str
    attributes: tuple[str, ...]
    media: int

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "out": str(self.out), "attributes": list(self.attributes)}


def build_index(vectors: Path, data: Path, out: Path, *, kind: str = "auto", with_labels: bool = False) -> IndexResult:
    """Build the index of a file of vectors; an index that `out` holds is replaced when the new one is whole.

    Args:
        vectors: as `polymodal embed` wrote it.
        data: the catalogue, whose titles, attributes and media the results show; prepared shards give small pictures.
        kind: "auto", or a kind of index.
        with_labels: labels as attributes `label_<name>`, for looking at results; they are meant for evaluation.

    Raises:
        BadInput: `out` holds something else; ids that the data lacks; no such kind.
        MissingExtra: the kind needs a package that is not installed.
    """
    from polymodal.workflow.training import open_rows

    _check_place(out)
    facts, embeddings = read_facts(vectors), read_vectors(vectors)
    rows = open_rows(data)
    numbers = rows_of_ids(rows, embeddings.ids, "vectors")
    index = create_index(kind, embeddings.model, embeddings.width, len(embeddings))
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    shown: list[int] = []
    try:
        attributes: dict[str, dict[str, Any]] = {}
        media_root = rows.media_root if isinstance(rows, Catalogue) else part
        cards = _cards(records_of(rows, numbers), _show(rows), with_labels, attributes, shown)
        write_cards(part, cards, media_root)
        index.add(embeddings, [attributes[name] for name in embeddings.ids])
        index.save(part)
        places = {
            "model": facts.model,
            "path": facts.model_path,
            "relative": os.path.relpath(facts.model_path, out.resolve()),
        }
        (part / SOURCE).write_text(json.dumps({**places, "data": str(data.resolve())}, indent=1), encoding="utf-8")
        _swap(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    names = tuple(sorted({name for one in attributes.values() for name in one}))
    return IndexResult(out, index.kind, len(index), index.width, index.model, names, sum(shown))


def _check_place(out: Path) -> None:
    if out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")
    if out.is_dir() and any(out.iterdir()) and not (out / SOURCE).exists():
        raise BadInput("--out", "a new folder, or an index to replace", f"{out}, which holds something else")


def _swap(part: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _show(rows: Rows) -> Show | None:
    """How decoded values are shown; None for a raw catalogue, whose files are shown themselves."""
    if not isinstance(rows, Shards):
        return None
    from polymodal.workflow.training import decoders, find_recipe

    made = decoders(find_recipe("scale", rows.modalities))
    return lambda name, value: made[name].show(value)


def _cards(
    records: Iterator[Record],
    show: Show | None,
    with_labels: bool,
    attributes: dict[str, dict[str, Any]],
    shown: list[int],
) -> Iterator[Mapping[str, Any]]:
    for record in records:
        found = attributes_of(record)
        if with_labels:
            found |= {f"label_{name}": value for name, value in record.labels.items()}
        attributes[record.id] = found
        media = list(_files(record) if show is None else _pictures(record, show))
        shown.append(len(media))
        yield {
            "id": record.id,
            "group": record.group,
            "title": title_of(record),
            "attributes": found,
            "media": media,
        }


def _files(record: Record) -> Iterator[Mapping[str, Any]]:
    """The record's media files that a browser shows."""
    for name, value in record.values.items():
        for source in value if isinstance(value, list) else [value]:
            if isinstance(source, bytes):
                yield {"modality": name, "kind": _kind_of(source), "source": source}
            elif isinstance(source, Path):
                try:
                    yield {"modality": name, "kind": content_type(source).partition("/")[0], "source": source}
                except (MediaError, OSError):
                    continue  # what cannot be shown stays out of the card; the audit says why


def _kind_of(content: bytes) -> str:
    if content[4:8] == b"ftyp":
        return "video"
    sound = content[:4] in (b"fLaC", b"OggS") or (content[:4] == b"RIFF" and content[8:12] == b"WAVE")
    return "audio" if sound else "image"


def _pictures(record: Record, show: Show) -> Iterator[Mapping[str, Any]]:
    for name, value in record.values.items():
        kind, content = show(name, value)
        if kind.startswith("image/"):
            yield {"modality": name, "kind": "image", "source": content}


def model_of_index(index: Path) -> Path:
    """The model folder that the index was built with, where it was then or at the same place relative to the index.

    Raises BadInput when it is at neither, or when `index` holds no index.
    """
    wanted = str(read_manifest(index)["model"])
    source = _source(index)
    if not source:
        raise BadInput(
            "--model", f"the model {wanted}, which built the index", "nothing", "Say where it is: --model RUN"
        ) from None
    for place in (Path(str(source["path"])), (index / str(source["relative"])).resolve()):
        if (place / "model.safetensors").is_file():
            return place
    raise BadInput(
        "--model",
        f"the model {wanted}, which built the index",
        f"nothing at {source['path']}",
        "Say where it is: --model RUN",
    )


def data_of_index(index: Path, data: Path | None = None) -> Rows:
    """The data that the index was built of, or `data`. Raises BadInput where it is no longer there."""
    from polymodal.workflow.training import open_rows

    place = data if data is not None else Path(str(_source(index).get("data", "")))
    if data is None and not place.is_absolute():
        raise BadInput("--data", "the catalogue of the index", "nothing", "Say where it is: --data DATA")
    if not place.exists():
        raise BadInput("--data", "the catalogue of the index", f"nothing at {place}", "Say where it is: --data DATA")
    return open_rows(place)


def _source(index: Path) -> dict[str, Any]:
    """Where model and data were when the index was built; {} where nobody knows."""
    try:
        found = json.loads((index / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
