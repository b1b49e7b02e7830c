"""Where vectors are kept and found again: `create_index`, `open_index`, and the `Index` they return.

A kind of index is a module of this package with a class whose `kind` is the module's name; there is nothing to
register. Never imports torch.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from polymodal.config import discover, nearest
from polymodal.index._where import Facet
from polymodal.index.base import Index, UnknownId, read_manifest
from polymodal.types import BadInput

__all__ = ["Facet", "Index", "UnknownId", "create_index", "index_kinds", "open_index"]

# up to here brute force answers in milliseconds; beyond it, "auto" takes the index on disk where that is installed
EXACT_ROWS = 100_000


def index_kinds() -> dict[str, type[Index]]:
    """Kind -> class, found by walking this package."""
    found = {}
    for name, module in discover(__name__).items():
        classes = _classes(module)
        if classes:
            found[name] = classes[0]
    return found


def _classes(module: ModuleType) -> list[type[Index]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Index)
        and value.__module__ == module.__name__
        and getattr(value, "kind", None) == module.__name__.rpartition(".")[2]
    ]


def create_index(kind: str, model: str, width: int, rows: int = 0, **options: Any) -> Index:
    """An empty index.

    Args:
        kind: "exact", "lance", another module of this package, or "auto": exact for up to 100,000 rows or where
            lancedb is not installed, else lance.
        model: digest of the model that makes the vectors.
        width: length of a vector.
        rows: about how many rows will come; only "auto" reads it.
        options: passed to the class.

    Raises:
        BadInput: no such kind, with the nearest name.
        MissingExtra: the kind needs a package that is not installed.
    """
    if kind == "auto":
        kind = "lance" if rows > EXACT_ROWS and find_spec("lancedb") is not None else "exact"
    return _class(kind, "kind")(model, width, **options)


def open_index(directory: Path, model: str | None = None) -> Index:
    """The index saved in `directory`, of whichever kind its manifest names. Raises as `Index.open` does."""
    manifest = read_manifest(Path(directory))
    return _class(str(manifest.get("kind")), f"{directory}/manifest.json: kind").open(Path(directory), model)


def _class(kind: str, field: str) -> type[Index]:
    kinds = index_kinds()
    if kind not in kinds:
        raise BadInput(field, "a kind of index", repr(kind), nearest(kind, [*kinds, "auto"]))
    return kinds[kind]
