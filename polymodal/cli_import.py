"""`polymodal import`: the commands that make a catalogue of something else."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from polymodal.workflow.options import Json
from polymodal.workflow.terminal import bar, console, emit

__all__ = ["app"]


app = App(
    name="import",
    help="Make a catalogue of a release, or generate a large one.\n\nStart with: polymodal import generate big",
    help_format="plaintext",
)


@app.command
def m5product(source: Path, out: Path, *, json: Json = False) -> None:
    """Read a release of M5Product: annotations, id lists, region files, features, media.

    What is malformed is listed in OUT/quarantine.jsonl and left out. Media and .npy files stay where they are.
    Example: polymodal import m5product release catalogue

    Args:
        source: The folder of the release.
        out: New folder for the catalogue.
    """
    from polymodal.workflow.importing import import_release

    # how many rows there are is not known before the last one
    with bar("importing", console()) as progress:
        result = import_release(source, out, lambda rows: progress(rows, rows))
    emit(json, result.to_json(), result.to_text())


@app.command
def generate(
    out: Path,
    *,
    rows: int = 1_000_000,
    seed: int = 0,
    categories: int = 6232,
    incomplete: float = 0.2,
    unimodal: float = 0.05,
    json: Json = False,
) -> None:
    """Generate a catalogue with M5Product's statistics: five modalities, a long tail, gaps; 300 bytes a row.

    Example: polymodal import generate big --rows 100000

    Args:
        out: New folder for the catalogue.
        rows: How many.
        seed: Decides everything else; a row is the same however many there are.
        categories: Labels, long-tailed.
        incomplete: Share of rows that lack a modality.
        unimodal: Share of rows that have exactly one.
    """
    from polymodal.workflow.importing import generate_catalogue

    settings = {"rows": rows, "seed": seed, "categories": categories, "incomplete": incomplete, "unimodal": unimodal}
    with bar("generating", console()) as progress:
        result = generate_catalogue(out, settings, progress)
    emit(json, result.to_json(), result.to_text())
