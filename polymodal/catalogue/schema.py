"""What `catalogue.toml` says: which column is what. The only schema of a catalogue."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from polymodal.config import Config, nearest
from polymodal.types import BadInput

__all__ = ["CONFIG_NAME", "CatalogueConfig", "Form", "ModalitySource", "label_name", "to_toml"]

CONFIG_NAME = "catalogue.toml"

# how the cells of a modality are written: several files, one file, text, name and value pairs, numbers
Form = Literal["files", "file", "text", "pairs", "numbers"]

# the form that a kind has unless the file says otherwise; a new kind of modality names its form in catalogue.toml
_FORMS: Mapping[str, Form] = {
    "image": "files",
    "video": "file",
    "audio": "file",
    "text": "text",
    "table": "pairs",
    "features": "numbers",
}


class ModalitySource(Config):
    """Where one modality comes from.

    Args:
        kind: the kind of modality ("image", "text", ...), the name of its module.
        columns: at least one. `files`: every file of every column. `file`: the first column that has one.
            `text`: joined by newlines. `pairs`: JSON objects, lists of pairs, maps, or plain columns whose name is
            the attribute's name. `numbers`: lists of numbers, `.npy` files (paths, or
            their content as bytes), or one number a column.
        form: how the cells are written; "" takes the usual one of the kind.
        separator: for files in one text cell ("a.jpg|b.jpg"); "" means a cell is one path or a JSON list.
    """

    kind: str
    columns: tuple[str, ...] = Field(min_length=1)
    form: Form | Literal[""] = ""
    separator: str = ""

    def cell_form(self, name: str) -> Form:
        """The form in force. Raises BadInput when the kind has no usual form and none is given."""
        form = self.form or _FORMS.get(self.kind)
        if form is None:
            raise BadInput(
                f"modalities.{name}.form",
                f"the form of kind {self.kind!r}: files, file, text, pairs or numbers",
                "nothing",
                f"Kinds with a usual form: {', '.join(sorted(_FORMS))}.",
            )
        return form


class CatalogueConfig(Config):
    """A catalogue on disk: tables, a media root, and which column is what.

    Args:
        path: the folder that `table` and `media_root` are relative to; a config read from a file has the file's folder.
        table: a Parquet, CSV, TSV or JSONL file, a pattern ("*.jsonl") or a folder of such files, read in sorted order.
        media_root: media paths are relative to it and may not leave it.
        id: the id column; "" numbers the rows of the catalogue from 0.
        group: rows with one value are not negatives of one another (parent SKU, GTIN); "" for none.
        split: train, val or test; "" for none.
        labels: columns for evaluation only; a leading `label_` is dropped from the label's name.
        modalities: modality name -> source.
        max_text: characters kept of a text cell; longer ones are cut and counted.
        max_attributes: pairs kept of one row; more are cut and counted.
        max_files: files kept of one cell; more are cut and counted.
    """

    path: str = "."
    table: str = "."
    media_root: str = "."
    id: str = ""
    group: str = ""
    split: str = ""
    labels: tuple[str, ...] = ()
    modalities: dict[str, ModalitySource] = Field(default_factory=dict)
    max_text: int = Field(default=20_000, ge=1)
    max_attributes: int = Field(default=256, ge=1)
    max_files: int = Field(default=32, ge=1)

    @classmethod
    def read(cls, path: Path) -> CatalogueConfig:
        """The config in a TOML file, with `path` set to the file's folder.

        Raises:
            BadInput: no such file, not TOML, unknown or ill-typed field (with the nearest known name), no modality.
        """
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise BadInput(str(path), "a readable TOML file", error.strerror) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(str(path), "valid TOML", error) from None
        sources = data.get("modalities", {})
        if not isinstance(sources, dict):
            raise BadInput(f"{path.name}.modalities", "tables like [modalities.image]", repr(sources))
        # parsed one by one, so that an unknown key is answered with the nearest name of a source
        data["modalities"] = {
            name: ModalitySource.parse(
                _table(source, f"{path.name}.modalities.{name}"), f"{path.name}.modalities.{name}"
            )
            for name, source in sources.items()
        }
        config = cls.parse(data, path.name)
        return config.replace(path=str((path.parent / config.path).resolve()))

    def check(self) -> None:
        """Raises BadInput for what the types cannot say: no modality, an unusable name, labels that collide."""
        if not self.modalities:
            raise BadInput("modalities", "at least one table like [modalities.image]", "none")
        for name, source in self.modalities.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name == "item":
                raise BadInput("modalities", "names of letters, digits, - and _, other than 'item'", repr(name))
            source.cell_form(name)
        names = [label_name(column) for column in self.labels]
        if len(set(names)) != len(names):
            raise BadInput("labels", "labels with different names", repr(list(self.labels)))

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Field of this config -> the columns it names, for checking them against the table."""
        roles: dict[str, tuple[str, ...]] = {
            name: (getattr(self, name),) for name in ("id", "group", "split") if getattr(self, name)
        }
        roles["labels"] = self.labels
        roles.update({f"modalities.{name}.columns": source.columns for name, source in self.modalities.items()})
        return roles

    def write(self, path: Path) -> None:
        """Write the config as TOML; `path` is left out, because a file's folder says it."""
        path.write_text(to_toml(self), "utf-8")


def label_name(column: str) -> str:
    """A label's name: its column without a leading `label_`."""
    return column.removeprefix("label_") or column


def to_toml(config: CatalogueConfig) -> str:
    """The config as TOML text that `CatalogueConfig.read` reads back equal; defaults are left out."""
    usual = CatalogueConfig()
    lines = [
        f"{name} = {_toml(value)}"
        for name in CatalogueConfig.model_fields
        if name not in ("path", "modalities") and (value := getattr(config, name)) != getattr(usual, name)
    ]
    for name, source in config.modalities.items():
        lines += [
            "",
            f"[modalities.{_key(name)}]",
            f"kind = {_toml(source.kind)}",
            f"columns = {_toml(source.columns)}",
        ]
        lines += [f"{field} = {_toml(text)}" for field in ("form", "separator") if (text := getattr(source, field))]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(data: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise BadInput(field, "a table with kind and columns", repr(data))
    # before the types are checked: a mistyped `columns` should not be answered with "columns is missing"
    for name in data:
        if name not in ModalitySource.model_fields:
            raise BadInput(
                f"{field}.{name}", "a known field", repr(name), nearest(name, list(ModalitySource.model_fields))
            )
    return data


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # a JSON string is a TOML basic string but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
