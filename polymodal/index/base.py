"""Index: where vectors are kept and found again. One file per kind; a new kind is a new file in this package.

The base class checks what comes in (another model's vectors, widths, NaN, filters), so that every kind refuses the
same things with the same words; a kind only stores, removes and ranks.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from polymodal.index._where import Attributes, Condition, Facet, Schema, clean_attributes, parse_where
from polymodal.types import BadInput, Embeddings, Hit, ModelMismatch, Where

__all__ = ["Index", "Row", "UnknownId", "rank", "read_manifest", "sha256_of", "write_manifest"]

Vectors = npt.NDArray[np.float32]

MANIFEST = "manifest.json"
FORMAT = "polymodal-index"
SCHEMA_VERSION = 1
# scores closer than this may differ by rounding alone, so they are computed again before they are ordered
_SLACK = 1e-5


class UnknownId(BadInput):
    """An id that the index does not hold."""

    def __init__(self, name: str) -> None:
        super().__init__("id", "an id in the index", repr(name))


class Row:
    """One item on its way into an index: id, attributes as given back (`shown`) and as filtered (`flat`)."""

    __slots__ = ("flat", "id", "shown")

    def __init__(self, name: str, shown: dict[str, Any], flat: Attributes) -> None:
        self.id, self.shown, self.flat = name, shown, flat


class Index(ABC):
    """Vectors by id, with attributes to filter on.

    Args:
        model: digest of the model that makes the vectors.
        width: E, the length of a vector.

    The score of a hit is the inner product (the cosine for unit vectors); equal scores are ordered by id.
    """

    kind: ClassVar[str]

    def __init__(self, model: str, width: int) -> None:
        if not model:
            raise BadInput("Index.model", "the digest of a model", repr(model))
        if width < 1:
            raise BadInput("Index.width", "a width of at least 1", width)
        self.model, self.width = model, width
        self._schema: Schema = {}
        self._facets: dict[str, Facet] | None = None

    # -- what a kind implements: everything is checked before it arrives here --------------------------------------

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _put(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Store rows with vectors (n, E); an id that is there is replaced."""

    @abstractmethod
    def _drop(self, ids: Sequence[str]) -> None:
        """Forget ids, all of which are there."""

    @abstractmethod
    def _find(self, vectors: Vectors, k: int, conditions: tuple[Condition, ...]) -> list[list[Hit]]: ...

    @abstractmethod
    def _vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Vectors (n, E) of ids in their order, all of which are there."""

    @abstractmethod
    def _attributes_of(self, ids: Sequence[str]) -> list[Mapping[str, Any]]: ...

    @abstractmethod
    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that are in the index."""

    @abstractmethod
    def facets(self) -> Mapping[str, Facet]:
        """What can be filtered: attribute -> kind of its values, the frequent ones, the range of numbers."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything below `directory`; whoever opens it meanwhile sees the old state or the new one."""

    @classmethod
    @abstractmethod
    def open(cls, directory: Path, model: str | None = None) -> Self:
        """The index saved in `directory`.

        Args:
            directory: where `save` wrote.
            model: digest of the model whose vectors will be searched; None to take any.

        Raises:
            ModelMismatch: the index was built by another model.
            BadInput: no index, an unknown version, a damaged file.
        """

    # -- what callers use ------------------------------------------------------------------------------------------

    def add(self, embeddings: Embeddings, attributes: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Store vectors; an id that is there already is replaced, vector and attributes both.

        Args:
            embeddings: n vectors of this index's model and width.
            attributes: n mappings name -> text, number, yes/no, or a list of those; None for no attributes.

        Raises:
            ModelMismatch: vectors of another model.
            BadInput: another width, another number of attributes than vectors, values that cannot be filtered on.
        """
        self.check_model(embeddings.model, "these vectors")
        if embeddings.width != self.width:
            raise BadInput("embeddings", f"vectors of width {self.width}", f"width {embeddings.width}")
        if attributes is not None and len(attributes) != len(embeddings):
            raise BadInput("attributes", f"{len(embeddings)} mappings, one per vector", f"{len(attributes)}")
        schema = dict(self._schema)
        given = attributes if attributes is not None else [{}] * len(embeddings)
        for name in embeddings.ids:
            _check_id(name)
        rows = [Row(name, *clean_attributes(raw, schema)) for name, raw in zip(embeddings.ids, given, strict=True)]
        if not rows:
            return
        self._schema, self._facets = schema, None
        self._put(rows, embeddings.vectors)

    def remove(self, ids: Iterable[str]) -> int:
        """Forget ids; those that are not there are ignored. Returns how many were removed."""
        wanted = list(dict.fromkeys(ids))
        here = self.known(wanted)
        if here:
            self._drop([name for name in wanted if name in here])
            self._facets = None
        return len(here)

    def search(self, vectors: Vectors | Embeddings, k: int, where: Where | None = None) -> list[list[Hit]]:
        """The k best of the items that satisfy `where`, best first, for each query.

        Args:
            vectors: (q, E) floating, finite; or Embeddings, whose model is then checked too.
            k: how many, at least 1; fewer come back when fewer are left.
            where: attribute -> value, list of accepted values, or {"min": x, "max": y}; all must hold.

        Raises:
            ModelMismatch: queries of another model.
            BadInput: a wrong shape, NaN, k < 1, a filter the index cannot answer.
        """
        if isinstance(vectors, Embeddings):
            self.check_model(vectors.model, "these queries")
            vectors = vectors.vectors
        queries = _queries(vectors, self.width)
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise BadInput("k", "a whole number of at least 1", repr(k))
        conditions = parse_where(where, self._schema)
        if not len(queries) or not len(self):
            return [[] for _ in queries]
        return self._find(queries, int(k), conditions)

    def get(self, ids: Iterable[str]) -> Embeddings:
        """The stored vectors of `ids`, in that order, each once. Raises UnknownId."""
        wanted = self._all_known(ids)
        return Embeddings(tuple(wanted), self._vectors_of(wanted), self.model)

    def attributes_of(self, ids: Iterable[str]) -> list[Mapping[str, Any]]:
        """The stored attributes of `ids`, in that order, each once. Raises UnknownId."""
        return self._attributes_of(self._all_known(ids))

    def check_model(self, model: str, what: str) -> None:
        """Raises ModelMismatch, naming both digests, unless `model` is this index's."""
        if model != self.model:
            raise ModelMismatch(
                what,
                f"model {self.model}, which built the index",
                f"model {model}",
                "Use the model that built the index, or embed the catalogue again and rebuild the index.",
            )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.known([name]))

    def _all_known(self, ids: Iterable[str]) -> list[str]:
        wanted = list(dict.fromkeys(ids))
        here = self.known(wanted)
        for name in wanted:
            if name not in here:
                raise UnknownId(name)
        return wanted


def _check_id(name: str) -> None:
    if not isinstance(name, str) or not name:
        raise BadInput("embeddings.ids", "non-empty text", repr(name))
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput("embeddings.ids", "Unicode text", repr(name)) from None


def _queries(vectors: Vectors, width: int) -> Vectors:
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != width or not np.issubdtype(array.dtype, np.floating):
        raise BadInput("vectors", f"floating numbers of shape (queries, {width})", f"{array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise BadInput("vectors", "finite numbers", f"NaN or infinity in query {_first_bad(array)}")
    return np.ascontiguousarray(array, np.float32)


def _first_bad(array: npt.NDArray[Any]) -> int:
    return int(np.flatnonzero(~np.isfinite(array).all(1))[0])


def slack(query: Vectors) -> float:
    """How far rounding can move a score of this query: relative to its length, for stored vectors of length 1."""
    return _SLACK * max(1.0, float(np.linalg.norm(query)))


def rank(query: Vectors, ids: Sequence[str], vectors: Vectors, k: int) -> list[tuple[int, float]]:
    """The k best of some candidates as (position, score), equal scores by id.

    Scores are summed row by row in float64: a blocked float32 product gives two equal vectors different last bits
    depending on where they stand, and ties would then depend on the order of insertion.

    Args:
        query: (E,).
        ids: n ids.
        vectors: (n, E).
        k: how many.
    """
    wide = query.astype(np.float64)
    blocks = [(vectors[i : i + 8192].astype(np.float64) * wide).sum(1) for i in range(0, len(vectors), 8192)]
    scores = np.concatenate(blocks).astype(np.float32) if blocks else np.zeros(0, np.float32)
    order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:k]
    return [(row, float(scores[row])) for row in order]


# -- the manifest: the commit point of a save ------------------------------------------------------------------------


def write_manifest(directory: Path, index: Index, facts: Mapping[str, Any]) -> None:
    """Replace the manifest in one step; what it names must be on the disk already."""
    data = {
        "format": FORMAT,
        "version": SCHEMA_VERSION,
        "kind": index.kind,
        "model": index.model,
        "width": index.width,
        "attributes": index._schema,
        **facts,
    }
    part = directory / f"{MANIFEST}.{os.getpid()}.part"
    with part.open("w", encoding="utf-8") as out:
        json.dump(data, out, ensure_ascii=False, indent=1)
        out.flush()
        os.fsync(out.fileno())
    part.replace(directory / MANIFEST)


def read_manifest(directory: Path, kind: str | None = None, model: str | None = None) -> dict[str, Any]:
    """What the index in `directory` says of itself, checked. Raises as `Index.open` does."""
    path = Path(directory) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(str(directory), "an index", "no manifest.json", "Build one with `polymodal index`.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BadInput(str(path), f"the manifest of a {FORMAT}", repr(data))
    if data.get("version") != SCHEMA_VERSION:
        raise BadInput(
            str(path),
            f"version {SCHEMA_VERSION}",
            data.get("version"),
            "It was written by another release: rebuild it.",
        )
    if kind is not None and data.get("kind") != kind:
        raise BadInput(str(path), f"an index of kind {kind!r}", repr(data.get("kind")), "Use `open_index`.")
    _check_fields(path, data)
    if model is not None and model != data["model"]:
        raise ModelMismatch(
            str(directory),
            f"an index built by model {model}",
            f"one built by model {data['model']}",
            "Use the model that built the index, or embed the catalogue again and rebuild the index.",
        )
    return data


def _check_fields(path: Path, data: Mapping[str, Any]) -> None:
    kinds: tuple[Literal["text", "number", "mixed"], ...] = ("text", "number", "mixed")
    schema = data.get("attributes")
    if not isinstance(data.get("model"), str) or not isinstance(data.get("width"), int):
        raise damaged(path, "no model or width")
    if not isinstance(schema, dict) or any(kind not in kinds for kind in schema.values()):
        raise damaged(path, "attributes are not as written")


def damaged(path: Path, detail: str) -> BadInput:
    """The error for a file that is not as it was written."""
    return BadInput(str(path), "the file as it was written", detail, "It is damaged: rebuild the index.")


def inside(directory: Path, name: object) -> Path:
    """The file `name` of an index directory; a manifest that points elsewhere is refused."""
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise damaged(directory / MANIFEST, f"file name {name!r}")
    return directory / name


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits; a directory is none."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
