"""Catalogues made of something else: a release read in, a large one generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymodal.catalogue.m5product import Imported, import_m5product
from polymodal.catalogue.scale_up import Generated, ScaleUpConfig, generate

__all__ = ["GenerateResult", "ImportResult", "generate_catalogue", "import_release"]


@dataclass(frozen=True)
class ImportResult:
    """What was imported, and as text."""

    made: Imported

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return self.made.to_json()

    def to_text(self) -> str:
        """The result for a terminal."""
        made = self.made
        lines = [
            f"{made.rows} rows in {made.folder}",
            *_presence(made.present, made.rows, made.complete, made.unimodal),
        ]
        lines += [f"list {name}: {found} of {ids} ids have a row" for name, (ids, found) in made.lists.items()]
        if made.repeated:
            lines.append(f"{made.repeated} entries repeat what another annotation file has")
        if made.links:
            lines.append(f"links, not fetched: {_list(made.links)}")
        if made.unmatched_regions:
            lines.append(f"{made.unmatched_regions} region lines belong to no row")
        lines.append(f"{made.quarantined} entries, lines and files set aside, listed in quarantine.jsonl")
        lines += [f"  {modality or 'entries'}: {_list(reasons)}" for modality, reasons in made.reasons.items()]
        if made.layout.ignored:
            lines.append(f"not read: {', '.join(made.layout.ignored[:10])}")
        return "\n".join([*lines, f"Next: polymodal audit {made.folder}"])


@dataclass(frozen=True)
class GenerateResult:
    """What was generated, and as text."""

    made: Generated

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {**vars(self.made), "folder": str(self.made.folder)}

    def to_text(self) -> str:
        """The result for a terminal."""
        made = self.made
        size = f"{made.bytes / 1e6:.1f} MB, {made.bytes / made.rows:.0f} bytes a row"
        lines = [f"{made.rows} rows in {made.folder} ({size}), {made.categories} categories"]
        lines += _presence(made.present, made.rows, made.complete, made.unimodal)
        return "\n".join([*lines, f"Next: polymodal audit {made.folder} --no-decode"])


def import_release(source: Path, out: Path, progress: Callable[[int], None] | None = None) -> ImportResult:
    """A release of M5Product as a catalogue. Raises BadInput as `import_m5product` does."""
    return ImportResult(import_m5product(source, out, progress=progress))


def generate_catalogue(
    out: Path, settings: Mapping[str, Any], progress: Callable[[int, int], None] | None = None
) -> GenerateResult:
    """A catalogue with M5Product's statistics. Raises BadInput for a setting out of range, or an `out` in use."""
    return GenerateResult(generate(out, ScaleUpConfig.parse(settings, "generate"), progress))


def _presence(present: Mapping[str, int], rows: int, complete: int, unimodal: int) -> Sequence[str]:
    have = ", ".join(f"{name} {count / rows:.1%}" for name, count in present.items())
    return (have, f"{1 - complete / rows:.1%} lack a modality, {unimodal / rows:.1%} have exactly one")


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
