"""The command line: parses and calls, nothing else. What the commands do is in `polymodal.workflow`.

Modules are imported inside the commands, because torch takes seconds to load and `--help` must not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from polymodal import cli_methods, cli_tasks
from polymodal.workflow.options import Count, Device, Files, Flag, Json, Settings, Size, Texts, command
from polymodal.workflow.shell import run_app
from polymodal.workflow.terminal import bar, caution, console, emit, stage_bar

__all__ = ["app", "main"]

app = App(
    name="polymodal",
    help="One vector per catalogue item from whatever the item has, and search with it.\n\nStart with: polymodal demo",
    version=lambda: installed_version("polymodal"),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says what to do next
)
app.command("polymodal.cli_import:app", name="import", help="Make a catalogue of a release, or generate a large one.")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@app.command
def demo(
    root: Path = Path("demo"),
    *,
    items: int = 2000,
    seed: int = 0,
    missing: float = 0.4,
    only_data: Flag = False,
    epochs: int | None = None,
    set_: Settings = None,
    serve: bool = True,
    port: int = 8000,
    json: Json = False,
) -> None:
    """Generate a toy shop, train a five-modality model on it, evaluate it, and open the search page.

    Called again it goes on where it was stopped. Example: polymodal demo shop --items 500 --no-serve

    Args:
        root: Folder for everything that is made.
        items: Products of the shop.
        seed: Decides what the shop holds.
        missing: Share of the cells (product x modality) that are missing.
        only_data: Stop when the catalogue is written.
        epochs: Passes over the training items; the recipe's by default.
        set_: Other settings of the recipe, such as train.learning_rate=5e-4.
        serve: End on the search page; never where CI=true.
        port: Of the search page.
    """
    from polymodal.workflow.demo import run_demo
    from polymodal.workflow.printing import demo_text
    from polymodal.workflow.serving import serve_index

    settings = [*(set_ or []), *([f"train.epochs={epochs}"] if epochs is not None else [])]
    result = run_demo(
        root, items=items, seed=seed, missing=missing, only_data=only_data, settings=settings, console=console()
    )
    emit(json, result.to_json(), demo_text(result))
    if serve and not only_data and os.environ.get("CI", "").lower() not in ("true", "1"):
        serve_index(root / "index", None, "127.0.0.1", port, "cpu", console())


@app.command
def audit(data: Path, *, decode: bool = True, limit: int | None = None, json: Json = False) -> None:
    """Say what a catalogue holds, lacks and gets wrong: presence, labels, duplicates, every bad media file.

    Example: polymodal audit demo/catalogue

    Args:
        data: A catalogue: a folder with catalogue.toml, or a table whose columns are guessed.
        decode: Decode the media, which finds the broken ones; --no-decode looks at paths and cells only.
        limit: Look at this many rows.
    """
    from polymodal.workflow.checking import audit_data

    with bar("auditing", console()) as progress:
        found = audit_data(data, decode=decode, limit=limit, progress=progress)
    emit(json, found.to_json(), found.to_text())


@app.command
def guess(data: Path, *, write: Flag = False, json: Json = False) -> None:
    """Print the catalogue.toml that fits a table, with the reason for every column.

    Example: polymodal guess products.csv --write

    Args:
        data: A table (Parquet, CSV, TSV, JSONL) or a folder of them.
        write: Save it as catalogue.toml beside the table.
    """
    from polymodal.workflow.checking import guess_data

    found = guess_data(data, write)
    emit(json, found.to_json(), found.to_text())


@app.command
def prepare(
    data: Path, out: Path, *, size: Size = "tiny", workers: int = 2, force: Flag = False, json: Json = False
) -> None:
    """Decode every file of a catalogue once, into Parquet shards that train and evaluate read.

    Called again it goes on where it was stopped. Example: polymodal prepare demo/catalogue shards

    Args:
        data: A catalogue.
        out: Folder for the shards.
        size: Of the model they are for: it decides the size of the pictures.
        workers: Threads that decode.
        force: Start over where OUT holds shards of another catalogue or size.
    """
    from polymodal.workflow.printing import prepare_text, prepared_json
    from polymodal.workflow.training import find_recipe, open_rows, prepare_data

    recipe = find_recipe("scale", open_rows(data).modalities, size)
    with bar("decoding", console()) as progress:
        result = prepare_data(data, out, recipe, workers=workers, progress=progress, force=force)
    emit(json, prepared_json(result), prepare_text(result))


@app.command
def train(
    recipe: str | None = None,
    data: Path | None = None,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    size: Size | None = None,
    set_: Settings = None,
    modalities: str | None = None,
    device: Device | None = None,
    json: Json = False,
) -> None:
    """Train a model. Ctrl-C saves; --resume goes on, to the same result as if never stopped.

    Examples: polymodal train scale demo/shards --run run --set train.epochs=5
              polymodal train --resume run

    Args:
        recipe: See: polymodal recipes.
        data: A catalogue or prepared shards.
        run: New folder for the model, its checkpoints and metrics.
        resume: The folder of a run that was interrupted.
        size: tiny by default.
        set_: Settings of the recipe, such as train.epochs=5 objective.mask_ratio=0.3.
        modalities: Names, separated by commas; all by default.
        device: cuda where there is one by default.
    """
    from polymodal.workflow.listing import train_or_resume
    from polymodal.workflow.printing import train_text

    made = (recipe, data, run, resume, size, set_ or (), _names(modalities))
    result = train_or_resume(*made, console=console(), device=device)
    emit(json, result.to_json(), train_text(result))


@app.command
def embed(
    model: Path,
    data: Path,
    *,
    out: Path,
    split: str | None = None,
    only: str | None = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Write one vector per item into a Parquet file.

    Example: polymodal embed run demo/shards --out vectors.parquet

    Args:
        model: A run or a model folder.
        data: A catalogue or prepared shards.
        out: The file: columns id and vector.
        split: Items of one split; all by default.
        only: Embed as if items had these modalities alone, such as text,image.
    """
    from polymodal.workflow.printing import embed_text
    from polymodal.workflow.vectors import embed_data

    with bar("embedding", console()) as progress:
        result = embed_data(model, data, out, split=split, only=_names(only), device=device, progress=progress)
    emit(json, result.to_json(), embed_text(result))


@app.command
def index(
    vectors: Path, data: Path, *, out: Path, kind: str = "auto", with_labels: Flag = False, json: Json = False
) -> None:
    """Build an index of vectors, with the attributes, titles and media of the items.

    Example: polymodal index vectors.parquet demo/catalogue --out index

    Args:
        vectors: As polymodal embed wrote them.
        data: The catalogue (its media are shown as they are) or prepared shards (small pictures).
        out: Folder of the index; an index in it is replaced.
        kind: auto, exact or lance.
        with_labels: Also filter on the labels, which are meant for evaluation.
    """
    from polymodal.workflow.indexing import build_index
    from polymodal.workflow.printing import index_text

    result = build_index(vectors, data, out, kind=kind, with_labels=with_labels)
    emit(json, result.to_json(), index_text(result))


@app.command
def search(
    index: Path,
    *,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    image: Files = None,
    audio: Path | None = None,
    video: Path | None = None,
    attr: Texts = None,
    query: Texts = None,
    where: Texts = None,
    k: Count = 10,
    model: Path | None = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Find the items nearest to any mix of words, pictures, sounds, clips and attributes.

    Examples: polymodal search index --text "red canvas shoes"
              polymodal search index --image photo.jpg --attr material=wood --where price=10..50

    Args:
        index: As polymodal index wrote it.
        text: Words.
        image: One picture or several.
        audio: A sound.
        video: A clip.
        attr: NAME=VALUE that the item should resemble.
        query: MODALITY=VALUE, by the modality's name, for a model with several of one kind.
        where: NAME=VALUE or NAME=MIN..MAX that items must satisfy.
        k: How many.
        model: The model, if it is no longer where it was.
    """
    from polymodal.workflow.printing import search_text
    from polymodal.workflow.searching import make_query, open_engine, run_search

    files: Mapping[str, Sequence[Path]] = {
        "image": image or [],
        "audio": [audio] if audio else [],
        "video": [video] if video else [],
    }
    engine = open_engine(index, model, device)
    record = make_query(engine.modalities, {"text": [] if text is None else [text], **files}, attr or [], query or [])
    result = run_search(engine, index, record, k, where or [])
    emit(json, result.to_json(), search_text(result))


@app.command
def similar(
    index: Path,
    ids: Annotated[list[str], Parameter(name="ID", negative=())],
    /,
    *,
    where: Texts = None,
    k: Count = 10,
    json: Json = False,
) -> None:
    """Find the items nearest to one item of the index, or to the middle of several.

    Example: polymodal similar index P000012 -k 5

    Args:
        index: As polymodal index wrote it.
        ids: One or more ids.
        where: NAME=VALUE or NAME=MIN..MAX that items must satisfy.
        k: How many.
    """
    from polymodal.workflow.printing import search_text
    from polymodal.workflow.searching import run_similar

    result = run_similar(index, ids, k, where or [])
    emit(json, result.to_json(), search_text(result))


@app.command
def evaluate(
    model: Path,
    data: Path,
    *,
    out: Path,
    split: str = "test",
    label: str | None = None,
    train_split: str = "train",
    max_items: int = 1000,
    resamples: int = 1000,
    seed: int = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure a model: every subset of modalities against every other and against controls, probes, clusters.

    Example: polymodal evaluate run demo/shards --out report

    Args:
        model: A run (its loss curves are shown too) or a model folder.
        data: A catalogue or prepared shards.
        out: Folder for report.json and report.html.
        split: Items to evaluate.
        label: What counts as the same in label retrieval; the first label by default.
        train_split: Items that the probes learn from.
        max_items: Evaluate at most this many.
        resamples: Of the bootstrap, which draws whole groups (variants of a product).
    """
    from polymodal.workflow.evaluation import EvaluateSettings
    from polymodal.workflow.evaluation import evaluate as run_evaluation
    from polymodal.workflow.printing import evaluate_text

    settings = EvaluateSettings(split, train_split, label, max_items, resamples, seed)
    said = command()
    with stage_bar(console()) as progress:
        result = run_evaluation(model, data, out, settings, command=said, device=device, progress=progress)
    caution(result.warning)
    emit(json, result.to_json(), evaluate_text(result))


@app.command
def serve(
    index: Path, *, model: Path | None = None, host: str = "127.0.0.1", port: int = 8000, device: Device = "cpu"
) -> None:
    """Open the search page and its HTTP interface over an index, until Ctrl-C.

    Example: polymodal serve demo/index --port 8080

    Args:
        index: As polymodal index wrote it.
        model: The model, if it is no longer where it was.
        host: 0.0.0.0 lets other machines in: there is no password.
    """
    from polymodal.workflow.serving import serve_index

    serve_index(index, model, host, port, device, console())


@app.command
def version(*, json: Json = False) -> None:
    """Print the version. Example: polymodal version"""
    found = installed_version("polymodal")
    emit(json, {"polymodal": found}, found)


cli_methods.register(app)
cli_tasks.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 3 for interrupted and saved, 1 for other errors."""
    # before torch is loaded: threads that wait for one another spin, and on cores that other work shares the usual
    # patience of GNU OpenMP turns half a second of training into fourteen (docs/results.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    return run_app(app, sys.argv[1:] if arguments is None else arguments)
