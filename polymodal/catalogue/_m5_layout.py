"""What lies where in a folder of the M5Product release, told by the names of folders and the beginnings of files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from polymodal.catalogue._m5_json import content_of
from polymodal.config import Config
from polymodal.types import BadInput

__all__ = ["ENDINGS", "TAKEN", "Layout", "find_layout", "split_of"]

# endings of media files, tried in this order
ENDINGS = {
    "image": ("jpg", "jpeg", "png", "webp"),
    "video": ("mp4", "avi", "mkv", "webm"),
    "audio": ("mp3", "wav", "m4a", "flac"),
}
# names of the catalogue's other modalities and columns
TAKEN = frozenset(
    (*ENDINGS, "text", "table", "regions", "id", "split", "category", "lists", "url", "title", "attributes")
)
_FOLDERS = {"img": "image", "picture": "image", "pic": "image", "photo": "image", "clip": "video", "sound": "audio"}


class Layout(Config):
    """Where the parts of a release are; paths are relative to its folder.

    Args:
        annotations: JSON or JSON Lines of records. An id counts where it comes first, so the narrower files first.
        lists: name -> file of ids: JSON list, JSON object (its keys), or an id a line.
        label_list: JSON list of label texts, for labels that are written as numbers; "" for none.
        regions: region files, TSV.
        media: "image", "video", "audio" -> folder of files called by the id.
        features: name of the modality -> folder of .npy files called by the id.
        ignored: what else was found, for people.
    """

    annotations: tuple[str, ...] = Field(min_length=1)
    lists: dict[str, str] = Field(default_factory=dict)
    label_list: str = ""
    regions: tuple[str, ...] = ()
    media: dict[str, str] = Field(default_factory=dict)
    features: dict[str, str] = Field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def paths(self) -> tuple[str, ...]:
        """All files and folders that are read."""
        folders = (*self.lists.values(), *self.media.values(), *self.features.values())
        return (*self.annotations, *filter(None, (self.label_list,)), *self.regions, *folders)


def find_layout(source: Path) -> Layout:
    """The layout of the folder `source`, looked at two levels deep.

    Media folders are called image(s), video(s), audio(s) or like it. A folder of .npy files is called `features/<name>`
    or `<name>_features`. Files are told by what they begin with; a list of texts whose name has "label" is the list of
    labels. Names that start with a point are left alone.

    Raises:
        BadInput: no such folder, or no annotations in it.
    """
    if not source.is_dir():
        raise BadInput("SOURCE", "the folder of the release", source)
    media: dict[str, str] = {}
    features: dict[str, str] = {}
    files: list[Path] = []
    for folder in _folders(source):
        name = _modality(folder.name)
        where = folder.relative_to(source).as_posix()
        if _is_features(folder):
            free = f"{name}_features" if name in TAKEN else name
            features.setdefault(free, where)
        elif name in ENDINGS:
            media.setdefault(name, where)
        else:
            files += _files(folder)
    found = _sorted(source, [*_files(source), *files])
    if not found["annotations"]:
        raise BadInput("SOURCE", "a JSON file of records, such as train_id_label.json", source, "None was found.")
    labels = found["labels"]
    return Layout(
        annotations=tuple(sorted(found["annotations"], key=_narrow_first)),
        lists=_named(found["lists"]),
        label_list=labels[0] if labels else "",
        regions=tuple(found["regions"]),
        media=media,
        features=features,
        ignored=tuple([*found["ignored"], *labels[1:]][:100]),
    )


def split_of(name: str) -> str:
    """The split that the name of a file or list speaks of: test, val, train or ""."""
    name = name.lower()
    for split, words in (("test", "test|query|gallery"), ("val", "val|dev"), ("train", "train")):
        if re.search(words, name):
            return split
    return ""


def _named(files: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for file in files:
        name = re.sub(r"(_?ids?)?(_list)?$", "", Path(file).stem) or Path(file).stem
        names[file if name in names else name] = file
    return names


def _narrow_first(file: str) -> tuple[int, str]:
    # "test" before "train" before "all": what is tested on must not be trained on
    return ("test", "val", "train", "").index(split_of(Path(file).stem)), file


def _folders(source: Path) -> Iterator[Path]:
    for folder in _children(source):
        yield folder
        if _modality(folder.name) not in ENDINGS and not _is_features(folder):
            yield from _children(folder)


def _children(folder: Path) -> Sequence[Path]:
    with os.scandir(folder) as found:
        names = sorted(one.name for one in found if one.is_dir(follow_symlinks=False) and not one.name.startswith("."))
    return [folder / name for name in names]


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as found:
        names = sorted(one.name for one in found if one.is_file(follow_symlinks=False) and not one.name.startswith("."))
    return [folder / name for name in names]


def _modality(name: str) -> str:
    plain = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-")
    plain = plain if re.match(r"[a-z]", plain) and plain != "item" else f"m_{plain}"
    single = plain.removesuffix("s") if plain.removesuffix("s") in {*ENDINGS, *_FOLDERS} else plain
    return _FOLDERS.get(single, single)


def _is_features(folder: Path) -> bool:
    if re.search(r"_feat(ure)?s?$", folder.name.lower()):
        return True
    return folder.parent.name.lower() in ("feature", "features")


def _sorted(source: Path, files: Sequence[Path]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {kind: [] for kind in ("annotations", "lists", "labels", "regions", "ignored")}
    for file in files:
        found[_kind(file)].append(file.relative_to(source).as_posix())
    return found


def _kind(file: Path) -> str:
    ending = file.suffix.lower()
    if ending == ".tsv":
        return "regions"
    if ending == ".txt":
        return "lists" if split_of(file.stem) or "id" in file.stem.lower() else "ignored"
    if ending not in (".json", ".jsonl", ".ndjson"):
        return "ignored"
    try:
        content = content_of(file)
    except OSError:
        return "ignored"
    if content in ("records by id", "records", "lines"):
        return "annotations"
    if content in ("words", "keys"):
        return "labels" if content == "words" and "label" in file.stem.lower() else "lists"
    return "ignored"
