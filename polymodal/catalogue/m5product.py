"""The release format of M5Product, read into a catalogue as every command of this library takes it.

A release is a folder with some of these parts; `find_layout` tells them by their names and beginnings:

* annotations: JSON `{id: {"title" | "caption", "pv" | "tabular", "label", "url", "image", ...}}`, a JSON list of such
  records with `item_id`, or one a line. `pv` is `name#:#value#;#name#:#value`; ids lose what follows a `#`;
* id lists (gallery, query, train, test): JSON list, JSON object, or an id a line;
* region files: TSV of id, width, height, number of boxes, and base64 of float32 boxes and features;
* features: `<folder>/<id>.npy`; media: `<folder>/<id>.jpg`, `.mp4`, `.mp3`.

Files of millions of entries are read as they come. Memory holds 8 bytes an id and 18 bytes a region line; nothing else
grows. Media and .npy files stay where they are (`media_root` is the release), region vectors go into the table.

Source: the data set's web site (Xiaodongsuper/M5Product_dataset) and what the released code reads (SCALE_code at
227ae08, M5Product_toolkit at 8d97264). We have not seen the data itself, which is under a commitment letter: for
researchers only, not to be passed on. Nothing of it is here.
Differences: links are counted and never fetched. The LMDB form of the region files is not read: it holds the same.
Regions keep their number; the release's code pads them to 36.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from polymodal.catalogue._m5_grammar import Region, format_pv, parse_pv, read_region, write_region
from polymodal.catalogue._m5_ids import Ids, Membership, RegionFiles, hashes
from polymodal.catalogue._m5_json import content_of, entries
from polymodal.catalogue._m5_layout import TAKEN, Layout, find_layout, split_of
from polymodal.catalogue._m5_rows import FIELDS, Row, RowMaker, id_of
from polymodal.catalogue._parts import Parts, new_folder
from polymodal.catalogue.quarantine import Quarantined
from polymodal.catalogue.schema import CONFIG_NAME, CatalogueConfig, ModalitySource
from polymodal.catalogue.tables import BLOCK
from polymodal.types import BadInput

__all__ = [
    "Imported",
    "Layout",
    "Region",
    "find_layout",
    "format_pv",
    "import_m5product",
    "parse_pv",
    "read_region",
    "write_region",
]

QUARANTINE, SUMMARY = "quarantine.jsonl", "import.json"
# modality of the catalogue -> (kind, column); the folders of features come behind
_MODALITIES = {
    "text": ("text", "title"),
    "table": ("table", "attributes"),
    "image": ("image", "image"),
    "regions": ("features", "regions"),
    "video": ("video", "video"),
    "audio": ("audio", "audio"),
}
_KNOWN = frozenset(name for field, names in FIELDS.items() if field != "id" for name in names)
# rows written; their number is not known before the end
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Imported:
    """What an import left on disk; also in `import.json`.

    Args:
        folder: the catalogue.
        rows: in it.
        present: modality -> rows that have it.
        complete: rows with all of those modalities.
        unimodal: rows with exactly one.
        lists: id list -> [ids, ids that have a row].
        repeated: entries of ids that an earlier annotation file has.
        links: modality -> entries that name a URL, which nobody fetches.
        unmatched_regions: region lines of ids that no annotation has.
        quarantined: lines of `quarantine.jsonl`.
        reasons: modality ("" for entries, lines and files) -> reason -> how many.
        layout: what was found where.
    """

    folder: Path
    rows: int
    present: dict[str, int]
    complete: int
    unimodal: int
    lists: dict[str, tuple[int, int]]
    repeated: int
    links: dict[str, int]
    unmatched_regions: int
    quarantined: int
    reasons: dict[str, dict[str, int]]
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {**vars(self), "folder": str(self.folder), "layout": self.layout.model_dump(mode="json")}


def import_m5product(
    source: Path, out: Path, layout: Layout | None = None, progress: Progress | None = None
) -> Imported:
    """Read a release into the new folder `out`: items/part-*.parquet, catalogue.toml, quarantine.jsonl, import.json.

    A malformed entry, line or file is written to the quarantine with its reason, counted, and left out; it never stops
    the import. `out` appears when it is whole.

    Args:
        source: the folder of the release; it is only read, and no path or link leads out of it.
        out: a folder that does not exist yet, or is empty.
        layout: where the parts are; found by itself if not given.
        progress: called with the rows written.

    Raises:
        BadInput: no annotations in `source`, no row in them, a layout that leads out of it, `out` holds something.
    """
    source = Path(source).resolve()
    layout = layout or find_layout(source)
    for part in layout.paths():
        if not (source / part).resolve().is_relative_to(source):
            raise BadInput("layout", f"paths inside {source}", repr(part))
    for name in TAKEN & set(layout.features):
        raise BadInput("layout.features", "names that no other part of the catalogue has", repr(name))
    with new_folder(Path(out)) as folder, (folder / QUARANTINE).open("w", encoding="utf-8") as stream:
        run = _Import(source, layout, stream)
        with Parts(folder / "items", run.schema()) as parts:
            for columns in run.blocks():
                parts.write(columns)
                if progress is not None:
                    progress(parts.rows)
        if not parts.rows:
            raise BadInput("SOURCE", "at least one record that can be read", run.told(), "No row was imported.")
        run.config().write(folder / CONFIG_NAME)
        result = run.result(Path(out), parts.rows)
        (folder / SUMMARY).write_text(json.dumps(result.to_json(), ensure_ascii=False, indent=1), encoding="utf-8")
    return result


class _Import:
    """One release on its way into one folder."""

    def __init__(self, source: Path, layout: Layout, quarantine: TextIO) -> None:
        self._source, self._layout, self._quarantine = source, layout, quarantine
        self._reasons: dict[str, Counter[str]] = {}
        self._modalities = {**_MODALITIES, **{name: ("features", name) for name in layout.features}}
        self._present: Counter[str] = Counter()
        self._sizes: Counter[tuple[str, ...]] = Counter()
        self._repeated = 0
        self._lists = [Membership(name, hashes(self._ids(file))) for name, file in sorted(layout.lists.items())]
        self._regions = RegionFiles(
            [source / file for file in layout.regions], id_of, lambda *told: self.report(told[0], "regions", *told[1:])
        )
        labels = [str(text) for text in self._ids(layout.label_list, plain=True)] if layout.label_list else []
        self._maker = RowMaker(source, layout, self._regions, labels, self.report)

    def report(self, row: str, modality: str, source: str, reason: str, detail: str) -> None:
        """One more entry of the quarantine."""
        self._reasons.setdefault(modality, Counter())[reason] += 1
        entry = Quarantined(row, modality, source[:300], reason, detail[:300])
        line = json.dumps(entry.to_json(), ensure_ascii=False).encode("utf-8", "replace").decode()
        self._quarantine.write(line + "\n")

    def told(self) -> str:
        """The reasons so far, for a message."""
        reasons: Mapping[str, int] = self._reasons.get("", {})
        return ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "no entries"

    # -- reading ---------------------------------------------------------------------------------------------------

    def _entries(self, file: str) -> Iterator[tuple[str, Any]]:
        path = self._source / file
        try:
            content = content_of(path)
            if content == "nothing":
                self.report("", "", file, "malformed", "neither a JSON object nor a list")
                return
            yield from entries(path, content, lambda reason, detail: self.report("", "", file, reason, detail))
        except OSError as error:
            self.report("", "", file, "unreadable", error.strerror or str(error))

    def _lines(self, file: str) -> Iterator[object]:
        try:
            with (self._source / file).open(encoding="utf-8-sig", errors="replace") as stream:
                while line := stream.readline(1 << 16):
                    if line.strip():
                        yield line.strip()
        except OSError as error:
            self.report("", "", file, "unreadable", error.strerror or str(error))

    def _first(self, file: str) -> Iterator[object]:
        return (key or value for key, value in self._entries(file))

    def _ids(self, file: str, plain: bool = False) -> Iterator[str]:
        """The ids of a list, or its texts as they are."""
        for name in self._lines(file) if file.lower().endswith(".txt") else self._first(file):
            if plain and isinstance(name, (str, int)):
                yield str(name)
            elif found := id_of(name):
                yield found
            else:
                self.report("", "", file, "malformed", f"{str(name)[:80]!r} is no id")

    def _named(self, file: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The entries that are records with an id."""
        for key, entry in self._entries(file):
            if not isinstance(entry, dict) or not (key or _KNOWN & set(entry)):
                self.report(id_of(key), "", file, "malformed", f"a record is needed, not {str(entry)[:80]!r}")
                continue
            name = id_of(key or next((entry[n] for n in FIELDS["id"] if n in entry), None))
            if not name:
                self.report("", "", file, "no id", f"{key[:80]!r}" if key else "a record without item_id")
            elif not _KNOWN & set(entry):
                self.report(name, "", file, "malformed", f"none of {', '.join(sorted(_KNOWN))}: {str(entry)[:80]!r}")
            else:
                yield name, entry

    def blocks(self) -> Iterator[dict[str, list[Any]]]:
        """The columns of at most 256 rows at a time."""
        earlier = Ids()
        for file in self._layout.annotations:
            inside = Ids()
            records = self._named(file)
            while chunk := list(islice(records, BLOCK)):
                numbers = hashes(name for name, _ in chunk)
                known, fresh = earlier.holds(numbers), inside.add(numbers)
                self._repeated += int(known.sum())
                for (name, _), old, new in zip(chunk, known, fresh, strict=True):
                    if not new and not old:
                        self.report(name, "", file, "duplicate id", "an earlier entry has the same id and is kept")
                kept = [record for record, wanted in zip(chunk, fresh & ~known, strict=True) if wanted]
                yield self._columns(kept, split_of(Path(file).stem))
            earlier.join(inside)

    # -- writing ---------------------------------------------------------------------------------------------------

    def schema(self) -> pa.Schema:
        text = pa.string()
        plain = [(name, text) for name in ("id", "split", "category", "lists", "url", "title")]
        pairs = [("attributes", pa.list_(pa.list_(text))), ("image", pa.list_(text))]
        rest = [("regions", pa.large_binary()), ("video", text), ("audio", text)]
        return pa.schema([*plain, *pairs, *rest, *((name, text) for name in self._layout.features)])

    def _columns(self, records: Sequence[tuple[str, Mapping[str, Any]]], split: str) -> dict[str, list[Any]]:
        numbers = hashes(name for name, _ in records)
        members = [(one.name, one.holds(numbers)) for one in self._lists]
        rows: list[Row] = []
        for at, (name, entry) in enumerate(records):
            lists = [which for which, held in members if held[at]]
            row = {"id": name, "lists": "+".join(lists) or None, "split": _split(split, lists)}
            row |= self._maker.row(name, entry)
            have = tuple(m for m, (_, column) in self._modalities.items() if row[column] is not None)
            self._present.update(have)
            self._sizes[have] += 1
            rows.append(row)
        return {field: [row[field] for row in rows] for field in self.schema().names}

    # -- the end ---------------------------------------------------------------------------------------------------

    def _found(self) -> tuple[str, ...]:
        return tuple(name for name in self._modalities if self._present[name])

    def config(self) -> CatalogueConfig:
        """What catalogue.toml says. Raises BadInput where no row has anything."""
        if not self._found():
            raise BadInput("SOURCE", "records with a title, attributes or files", "none", "No row was imported.")
        sources = {
            name: ModalitySource(kind=kind, columns=(column,))
            for name, (kind, column) in self._modalities.items()
            if self._present[name]
        }
        return CatalogueConfig(
            table="items",
            media_root=str(self._source),
            id="id",
            split="split",
            labels=("category", "lists") if self._lists else ("category",),
            modalities=sources,
        )

    def result(self, folder: Path, rows: int) -> Imported:
        self._regions.close()
        found = self._found()
        return Imported(
            folder=folder,
            rows=rows,
            present={name: self._present[name] for name in found},
            complete=self._sizes[found],
            unimodal=sum(count for have, count in self._sizes.items() if len(have) == 1),
            lists={one.name: (len(one), one.found) for one in self._lists},
            repeated=self._repeated,
            links=dict(self._maker.links),
            unmatched_regions=self._regions.unmatched,
            quarantined=sum(count for counts in self._reasons.values() for count in counts.values()),
            reasons={modality: dict(counts.most_common()) for modality, counts in sorted(self._reasons.items())},
            layout=self._layout,
        )


def _split(file: str, lists: Sequence[str]) -> str:
    """Of a row: what is tested on in any list is not trained on; what no list and no file speaks of is."""
    spoken = {split_of(name) for name in lists} | {file}
    return next((split for split in ("test", "val", "train") if split in spoken), "train")
