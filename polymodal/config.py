"""What every Config shares: frozen, keyword-only, strict, JSON both ways, dotted overrides, did-you-mean.

A Config stands directly above the class it configures, in the same file. There is no registry: a component's `kind`
is the name of its module, and the module is found by walking the package (`discover`).
"""

from __future__ import annotations

import difflib
import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from polymodal.types import BadInput

__all__ = ["Config", "discover", "nearest", "parse_kind"]


class Config(BaseModel):
    """Base of all configurations: immutable, unknown fields refused, NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "") -> Self:
        """`data` checked by the types of the fields. Raises BadInput naming the field, with the nearest known name."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise _explain(error, cls, where) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields replaced and everything checked again."""
        return type(self).parse({**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    def override(self, settings: Sequence[str]) -> Self:
        """Apply `["objective.mask_ratio=0.3", ...]`: values are JSON where they parse as JSON, else text.

        Raises BadInput for a setting without `=`, or a field that does not exist, with the nearest name.
        """
        data = self.model_dump(mode="json")
        for setting in settings:
            path, equals, text = setting.partition("=")
            if not equals:
                raise BadInput("--set", "NAME=VALUE", repr(setting))
            _assign(data, path.strip(), _value(text.strip()))
        return type(self).parse(data)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    node: Any = data
    for depth, name in enumerate([*parents, leaf]):
        if not isinstance(node, dict) or name not in node:
            known = list(node) if isinstance(node, dict) else []
            at = ".".join(path.split(".")[:depth]) or "the recipe"
            raise BadInput("--set", f"a field of {at}", repr(name), nearest(name, known))
        if depth < len(parents):
            node = node[name]
    node[leaf] = value


def nearest(name: str, known: Sequence[str], most: int = 30) -> str:
    """A sentence naming the closest of `known`, or the first `most` of them when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    if not known:
        return ""
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return f"Known: {', '.join(sorted(known)[:most])}{more}."


def _explain(error: ValidationError, cls: type[BaseModel], where: str) -> BadInput:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    field = ".".join([where, *path] if where else path)
    if first["type"] == "extra_forbidden":
        parent: Any = cls
        for part in path[:-1]:
            inner = parent.model_fields.get(part)
            parent = inner.annotation if inner is not None else None
            if not (isinstance(parent, type) and issubclass(parent, BaseModel)):
                parent = None
                break
        known = list(parent.model_fields) if parent is not None else []
        return BadInput(field, "a known field", repr(path[-1]), nearest(path[-1], known))
    return BadInput(field or cls.__name__, first["msg"], repr(first.get("input")))


@cache
def discover(package: str) -> dict[str, ModuleType]:
    """The modules of `package` by name, imported; those that start with an underscore are helpers, not components."""
    root = importlib.import_module(package)
    names = [m.name for m in pkgutil.iter_modules(root.__path__) if not m.name.startswith("_")]
    return {name: importlib.import_module(f"{package}.{name}") for name in sorted(names)}


def parse_kind(package: str, data: Any, field: str, base: type[Config]) -> Any:
    """A config of the component that `data["kind"]` names, by looking it up in `package`; configs pass through.

    Only modules inside `package` can be named: a model directory cannot make us import its code.
    """
    if isinstance(data, base):
        return data
    if not isinstance(data, Mapping) or "kind" not in data:
        raise BadInput(field, "an object with a 'kind'", repr(data))
    modules = discover(package)
    found = [
        value
        for module in modules.values()
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and value.model_fields.get("kind") is not None
        and value.model_fields["kind"].default == data["kind"]
    ]
    if len(found) != 1:
        raise BadInput(
            f"{field}.kind", f"a component of {package}", repr(data["kind"]), nearest(str(data["kind"]), list(modules))
        )
    return found[0].parse(data, field)
