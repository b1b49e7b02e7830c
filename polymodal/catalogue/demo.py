"""The generated demo catalogue: a toy shop with planted factors, planted gaps and planted faults, from one seed.

It is the test bed of the library: what a model should be able to know, from which modality, is decided here and
written down beside the data. Information design (weak = a hint that another factor leaves):

========  ====================  ======================  =====================  ====================  ==================
factor    image                 text (title)            table (attributes)     video                 audio
========  ====================  ======================  =====================  ====================  ==================
category  partly: outline,      partly: synonyms; 15 %  partly: department     partly: outline,      weak: pitch band
          accessory (5 kinds,   generic, 15 % only the  (5 kinds, right in     accessory in 40 %,
          in 85 %)              department, 5 % wrong   64 %), tags, sizes     favourite motions
shape     fully                 partly (51 %)           weak (category)        fully                 no (category)
colour    fully                 partly (80 %)           partly (62 %)          fully                 no
material  fully (surface)       partly (60 %)           partly (85 %)          no                    no
brand     partly (mark, 50 %)   partly (51 %)           partly (85 %)          no                    no
size      weak (scale)          partly (S, L: 43 %)     partly (85 %)          weak (scale)          no
price     weak                  weak                    fully (95 %)           weak                  no
motion    weak (category)       partly (21 %)           weak (category)        fully                 no (category)
sound     no                    no                      no                     no                    fully, only here
origin    no                    no                      fully, only here       no                    no
========  ====================  ======================  =====================  ====================  ==================

`sound` and `origin` are drawn per item, independent of every other factor, of one another and of what is missing: not
even the other variants of a product reveal them. A category is one cell of the grid accessory x department, so a
picture and a table know together what neither knows alone. Items come in groups (one design; the variants differ in
colour and size); a split never cuts a group. Gaps come in patterns: a seller (brand) or a kind of product lacks a
modality as a habit, and video and audio go together.

Faults, each item has at most one, all of them in `truth.parquet`: near-duplicates (another id, another group, the same
split; the photo and the title slightly different), exchanged pictures (pairs of one split), and broken media files
of every `MediaReason` but "unreadable".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.catalogue import _demo_media as media
from polymodal.catalogue import _demo_render as render
from polymodal.catalogue import _demo_words as words
from polymodal.catalogue._demo_plan import MODALITIES, DemoConfig, gaps, kinds_of, plan, plant, random_of
from polymodal.catalogue._demo_words import Item
from polymodal.types import BadInput

__all__ = ["FACTORS", "MODALITIES", "DemoConfig", "Truth", "generate"]

FACTORS = ("category", "shape", "colour", "material", "brand", "size", "motion", "sound", "origin")

_PICTURE, _TITLE, _TABLE, _CLIP, _SOUND, _COPY = range(1, 7)  # streams of random numbers of one item
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Truth:
    """What was planted: one row per item, in the order of `items.parquet`.

    Args:
        table: the columns of `Item` (FACTORS, price, pitch, wording, ...) and `removed_<modality>`; "" = no such fault.
    """

    table: pa.Table

    @classmethod
    def read(cls, root: Path) -> Self:
        """The truth of the catalogue in `root`. Raises BadInput where there is none."""
        path = Path(root) / "truth.parquet"
        if not path.is_file():
            raise BadInput("truth", "a folder that `polymodal demo` made", path, "There is no truth.parquet in it.")
        return cls(pq.read_table(path))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        """One column (n,): text as an object array, numbers and booleans as such."""
        if column not in self.table.column_names:
            raise BadInput("truth", f"one of {', '.join(self.table.column_names)}", repr(column))
        return np.asarray(self.table[column].to_numpy(zero_copy_only=False))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.table["id"].to_pylist())

    def present(self, modality: str) -> npt.NDArray[np.bool_]:
        """Whether the catalogue lists the cell, (n,). A corrupt cell is listed."""
        return ~self[f"removed_{modality}"].astype(bool)

    def duplicates(self) -> dict[str, str]:
        """Id of each planted duplicate -> id of its original."""
        return self._pairs("duplicate_of")

    def swapped(self) -> dict[str, str]:
        """Id of each item with a wrong picture -> id of the item that the picture shows."""
        return self._pairs("swapped_with")

    def corrupt(self) -> dict[str, tuple[str, str]]:
        """Id -> (modality, reason) of each media file that is broken on purpose."""
        reasons = self._pairs("corrupt_reason")
        return {name: (modality, reasons[name]) for name, modality in self._pairs("corrupt_modality").items()}

    def _pairs(self, column: str) -> dict[str, str]:
        values = self.table[column].to_pylist()
        return {name: value for name, value in zip(self.ids, values, strict=True) if value}


def generate(root: Path, config: DemoConfig | None = None, progress: Progress | None = None) -> Truth:
    """Write the catalogue into the new folder `root`: items.parquet, catalogue.toml, media/, truth.parquet, README.md.

    The same config gives the same bytes (media: with the same versions of Pillow and FFmpeg). The folder is written
    beside its place and renamed when whole, so a `root` that exists is complete.

    Args:
        root: a folder that does not exist yet, or is empty.
        config: the knobs; the defaults are the demo of the README.
        progress: called with (items done, items in all).

    Raises:
        BadInput: `root` holds something already.
    """
    root, config = Path(root), config or DemoConfig()
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        raise BadInput("demo.root", "a new or empty folder", root, "Delete it first, or choose another.")
    items = plan(config)
    removed = gaps(items, config)
    plant(items, removed, config)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for modality in ("image", "video", "audio"):
        (partial / "media" / modality).mkdir(parents=True)
    by_id, rows = {item.id: item for item in items}, []
    for item in items:
        rows.append(_row(item, by_id, removed[item.index], partial, config))
        if progress is not None:
            progress(item.index + 1, len(items))
    lacks = [{f"removed_{m}": bool(gap) for m, gap in zip(MODALITIES, line, strict=True)} for line in removed]
    truth = Truth(pa.Table.from_pylist([asdict(item) | lack for item, lack in zip(items, lacks, strict=True)]))
    _write(partial, rows, truth, config)
    if root.is_dir():
        root.rmdir()
    partial.rename(root)
    return truth


def _row(
    item: Item, by_id: Mapping[str, Item], lacks: npt.NDArray[np.bool_], root: Path, config: DemoConfig
) -> dict[str, Any]:
    """Writes the item's media files; returns its line of `items.parquet`. None = the cell is removed."""
    source = by_id.get(item.duplicate_of, item)
    cells: dict[str, Any] = dict.fromkeys(MODALITIES)
    text = words.title(item, random_of(config, _TITLE, source.index), kinds_of(config), config.title_noise)
    table = words.attributes(item, random_of(config, _TABLE, item.index), config.attribute_gaps)
    if item.duplicate_of:
        text = words.retitle(text, item.language, random_of(config, _TITLE, _COPY, item.index))
    cells |= {"text": text, "table": json.dumps(table, ensure_ascii=False)}
    makers: dict[str, Callable[[], list[bytes]]] = {
        "image": lambda: _pictures(by_id.get(item.swapped_with, source), item, config),
        "video": lambda: [_clip(source, config)],
        "audio": lambda: [_sound(source, config)],
    }
    for modality, lack in zip(MODALITIES, lacks, strict=True):
        if lack:
            cells[modality] = None
        elif modality in makers:
            cells[modality] = [_file(item, modality, n, b, root) for n, b in enumerate(makers[modality]())]
    for modality in ("video", "audio"):
        cells[modality] = cells[modality][0] if cells[modality] else None
    factors = {name: getattr(item, name) for name in FACTORS}
    return {"id": item.id, "group_id": item.group_id, "split": item.split} | cells | factors


def _look(item: Item) -> render.Look:
    scale = words.SIZE_FACTOR[item.size]
    return render.Look(item.shape, item.colour, item.material, item.kind.accessory, item.brand, scale, item.motion)


def _pictures(shown: Item, item: Item, config: DemoConfig) -> list[bytes]:
    made = []
    for number in range(shown.pictures):
        image = render.picture(_look(shown), config.image_size, random_of(config, _PICTURE, shown.index, number))
        if item.duplicate_of:
            image = media.touched_up(image, random_of(config, _PICTURE, _COPY, item.index, number))
        made.append(media.jpeg(image))
    return made


def _clip(item: Item, config: DemoConfig) -> bytes:
    frames = render.frames(_look(item), config.clip_size, config.frames, random_of(config, _CLIP, item.index))
    return media.mp4(frames, config.fps, config.key_every)


def _sound(item: Item, config: DemoConfig) -> bytes:
    band, rng = words.BANDS.index(item.pitch), random_of(config, _SOUND, item.index)
    return media.wav(media.sound(item.sound, band, config.seconds, config.rate, rng), config.rate)


def _file(item: Item, modality: str, number: int, content: bytes, root: Path) -> str:
    """Writes one media file, whole or broken as planned; returns what the catalogue says its path is."""
    ending = {"image": "jpg", "video": "mp4", "audio": "wav"}[modality]
    reason = item.corrupt_reason if item.corrupt_modality == modality else ""
    if reason == "outside the media root":
        return f"../{item.id}.{ending}" if modality == "image" else f"/outside/{item.id}.{ending}"
    if reason == "over the limits":
        ending = "png"
    path = f"media/{modality}/{item.id}_{number}.{ending}"
    written = content if reason == "" else media.broken(reason, content)
    if written is not None:
        (root / path).write_bytes(written)
    return path


def _write(root: Path, rows: Sequence[Mapping[str, Any]], truth: Truth, config: DemoConfig) -> None:
    text = pa.string()
    names = ("id", "group_id", "split", *MODALITIES, *FACTORS)
    schema = pa.schema([(name, pa.list_(text) if name == "image" else text) for name in names])
    columns = {"text": "title", "table": "attributes"}
    table = pa.Table.from_pylist([dict(row) for row in rows], schema)
    table = table.rename_columns([columns.get(name, name) for name in names])
    pq.write_table(table, root / "items.parquet", row_group_size=256)
    pq.write_table(truth.table, root / "truth.parquet")
    lines = ['table = "items.parquet"', 'media_root = "."', 'id = "id"', 'group = "group_id"', 'split = "split"']
    lines.append(f"labels = {json.dumps(list(FACTORS))}")
    for name in MODALITIES:
        lines += ["", f"[modalities.{name}]", f'kind = "{name}"', f'columns = ["{columns.get(name, name)}"]']
    (root / "catalogue.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "README.md").write_text(_readme(truth, config), encoding="utf-8")


def _readme(truth: Truth, config: DemoConfig) -> str:
    have = ", ".join(f"{m} {truth.present(m).mean():.0%}" for m in MODALITIES)
    lines = [
        f"# A generated toy shop of {len(truth)} products",
        "",
        "Made by `polymodal demo`; nothing here is real. `items.parquet` is the catalogue, `catalogue.toml` says",
        "which column is what, `media/` has pictures, clips and sounds, `truth.parquet` what was planted:",
        "every factor, every removed cell and every fault. `polymodal/catalogue/demo.py` says which modality",
        "tells which factor.",
        "",
        f"Cells listed: {have}.",
        f"Faults: {len(truth.duplicates())} near-duplicates, {len(truth.swapped())} items with another item's picture,",
        f"{len(truth.corrupt())} broken media files.",
        "",
        "Knobs:",
        "",
        *(f"- `{name}` = {value}" for name, value in config.model_dump().items()),
    ]
    return "\n".join(lines) + "\n"
