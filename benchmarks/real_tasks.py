"""Every task of the command line on the real catalogues, with a finished training, over seeds.

    python benchmarks/real_tasks.py luma --data ../shared/data --out runs/tasks --seeds 0 1 2
    python benchmarks/real_tasks.py grocery luma stamps --out runs/tasks --json

Trains with the settings of `real_data.py` (which were chosen on the validation split for other figures), then runs the
commands as a user would, each in a process of its own, for every seed and for the model before training. What a command
printed as JSON is kept in OUT/NAME/seed-S, and is not computed again when the script goes on; a run of another recipe
in OUT is refused. A figure is a mean over seeds with a 95 % interval (Student's t over seeds); controls that no seed
changes have none. Where a command refuses, that is shown in place of its figures.

What to know when reading:

- grocery: texts and iconic pictures exist once a product, and test products are training products: they give the label
  away, and `classify` says so. Its figures of the modality "photo" alone are those of seeing.
- luma: reviews ask, and are no items. The other colours of a product share its text.
- stamps: nearly every voice is French.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from _real_figures import READERS
from _real_run import recipe_of, recipe_on
from compare_real import LABELS, TASKS, is_there, make_catalogue
from rich.console import Console
from rich.table import Table

from polymodal.bench._base import over_seeds
from polymodal.catalogue.reader import Catalogue
from polymodal.recipe import Recipe
from polymodal.types import BadInput, PolymodalError
from polymodal.workflow.training import prepare_data, resume, train

UNTRAINED = "untrained"
LINKS = ("upsell", "related", "crosssell")

# modality words are those of the catalogues of `real_data.py`; {data}, {shards}, {index} and {label} are filled in
COMMANDS: Mapping[str, Sequence[str]] = {
    "luma": (
        "retrieve {model} {shards} --queries image --corpus text,table --relevance item,coarse --label {label}",
        "retrieve {model} {shards} --learn-split val --label {label}",
        "retrieve {model} {shards} --pairs {data}/reviews.parquet --columns query,group_id --learn-split val",
        "classify {model} {shards} --label {label} --out {out}.csv",
        "cluster {model} {shards} --label {label} -k 11 --out {out}",
        "dedup {model} {shards} --plant 60",
        "mismatch {model} {shards} --split test --modality image --label {label} --plant 20",
        "complete {model} {shards} --attribute gender",
        "complete {model} {shards} --attribute color",
        "outliers {model} {shards} --label {label} --out {out}",
        "recommend-eval {index} {links}/upsell.parquet",
        "recommend-eval {index} {links}/related.parquet",
        "recommend-eval {index} {links}/crosssell.parquet",
        "explain {model} {shards} --label {label}",
    ),
    "grocery": (
        "retrieve {model} {shards} --queries photo --corpus photo --corpus-split train --label {label}",
        "retrieve {model} {shards} --queries photo --corpus text,iconic --relevance fine,coarse --label {label}",
        "classify {model} {shards} --label {label} --out {out}.csv",
        "cluster {model} {shards} --label {label} -k 43 --split test --out {out}",
        "dedup {model} {shards} --split test --plant 100",
        "mismatch {model} {shards} --split test --modality photo --label {label} --plant 100",
        "outliers {model} {shards} --label {label} --out {out}",
        "recommend-eval {index} --labels {label}",
        "explain {model} {shards} --label {label}",
    ),
    "stamps": (
        "retrieve {model} {shards} --queries image --corpus text,french --relevance item,coarse --label {label}",
        "retrieve {model} {shards} --learn-split val --label {label}",
        "classify {model} {shards} --label {label} --out {out}.csv",
        "cluster {model} {shards} --label {label} -k 12 --out {out}",
        "dedup {model} {shards} --plant 60",
        "mismatch {model} {shards} --split test --modality image --label {label} --plant 20",
        "mismatch {model} {shards} --split test --modality voice --label {label} --plant 20",
        "outliers {model} {shards} --label {label} --out {out}",
        "recommend-eval {index} --labels {label} --as text",
        "explain {model} {shards} --label {label}",
    ),
}


def polymodal(words: Sequence[str]) -> tuple[str, str]:
    """Run the command line; what it printed, and what it complained of ("" where it did not)."""
    code = "import sys; from polymodal.cli import main; sys.exit(main())"
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    return ran.stdout, "" if ran.returncode == 0 else ran.stderr.strip() or f"exit code {ran.returncode}"


def learn(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Catalogue, shards and one model a seed, each made once; name -> run."""
    task = TASKS[name](options.data)
    make_catalogue(name, options.data, folder / "catalogue")
    recipe = recipe_of(task, Catalogue.open(folder / "catalogue"), options.settings, options.epochs, options.recipe)
    shards = prepare_data(folder / "catalogue", folder / "shards", recipe, workers=1).folder
    runs = {}
    for seed in [None, *options.seeds]:
        run = folder / (UNTRAINED if seed is None else f"seed-{seed}") / "run"
        wanted = recipe_on(recipe, shards, seed or 0, trained=seed is not None)
        started = run / "recipe.json"
        if not started.is_file():
            train(wanted, run)
        elif Recipe.parse(json.loads(started.read_text())).replace(data=wanted.data) != wanted:
            raise BadInput("--out", "a folder with runs of this recipe, or a new one", run, "Name another folder.")
        elif not (run / "model").is_dir():
            resume(run)
        runs[run.parent.name] = run
    return runs


def links_of(data: Path, folder: Path) -> None:
    """A table of each kind of link, as `recommend-eval` wants them."""
    if not (data / "links.parquet").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(data / "links.parquet")
    for kind in LINKS:
        pq.write_table(table.filter(pc.equal(table["kind"], kind)).drop_columns("kind"), folder / f"{kind}.parquet")


def measure(name: str, options: argparse.Namespace, folder: Path, run: Path) -> dict[str, dict[str, float] | str]:
    """Command -> its figures, or what it complained of."""
    out, shards = run.parent, folder / "shards"
    places = {
        "model": str(run),
        "shards": str(shards),
        "index": str(out / "index"),
        "data": str(options.data / name),
        "links": str(folder / "links"),
        "label": LABELS[name],
    }
    found: dict[str, dict[str, float] | str] = {}
    for number, command in enumerate(COMMANDS[name]):
        task = command.split()[0]
        if options.only and task not in options.only:
            continue
        kept = out / f"{number:02d}-{task}.json"
        content = json.loads(kept.read_text()) if kept.is_file() else {}
        if content.get("command") != command:
            if "{index}" in command and not (out / "index").is_dir():
                _index(run, shards, out)
            filled = [word.format(**places, out=str(kept.with_suffix(""))) for word in command.split()]
            printed, wrong = polymodal([*filled, "--json"])
            print(f"{name} {out.name}: {command}{': ' + wrong if wrong else ''}", file=sys.stderr)
            content = {"command": command, "wrong": wrong, "printed": None if wrong else json.loads(printed)}
            kept.write_text(json.dumps(content, ensure_ascii=False))
        found[command] = content["wrong"] or READERS[task](content["printed"])
    return found


def _index(run: Path, shards: Path, out: Path) -> None:
    vectors = str(out / "vectors.parquet")
    for words in (
        ["embed", str(run), str(shards), "--out", vectors],
        ["index", vectors, str(shards), "--out", str(out / "index")],
    ):
        _, wrong = polymodal(words)
        if wrong:
            raise SystemExit(f"{' '.join(words)}: {wrong}")


def summarise(models: Mapping[str, Mapping[str, dict[str, float] | str]]) -> list[dict[str, Any]]:
    """A line a figure: mean, half of the 95 % interval (None where no seed changes it), each seed, before training."""
    trained = [found for name, found in models.items() if name != UNTRAINED]
    lines: list[dict[str, Any]] = []
    for command, first in trained[0].items():
        all_of = [found[command] for found in trained]
        wrong = next((one for one in all_of if isinstance(one, str)), None)
        if wrong is not None or isinstance(first, str):
            lines.append({"command": command, "wrong": wrong})
            continue
        before = models[UNTRAINED][command]
        for figure in first:
            values = [one.get(figure, math.nan) for one in all_of if not isinstance(one, str)]
            values = [value for value in values if not math.isnan(value)]
            cell = over_seeds(values)
            lines.append(
                {
                    "command": command,
                    "figure": figure,
                    "mean": cell.mean if cell.n else None,
                    "half": cell.high - cell.mean if len(set(values)) > 1 else None,
                    "per_seed": values,
                    UNTRAINED: _known(before, figure),
                }
            )
    return lines


def _known(found: dict[str, float] | str, figure: str) -> float | None:
    value = math.nan if isinstance(found, str) else found.get(figure, math.nan)
    return None if math.isnan(value) else value


def show(name: str, lines: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The lines as a table, a section a command."""
    table = Table(title=name, title_justify="left")
    for column in ("figure", "mean ± half of the interval", "each seed", UNTRAINED):
        table.add_column(column, justify="left" if column == "figure" else "right")
    last = ""
    for line in lines:
        if line["command"] != last:
            last = line["command"]
            table.add_section()
            table.add_row(f"[bold]{last}[/]")
        if "wrong" in line:
            table.add_row(f"  {line['wrong']}")
            continue
        half = "" if line["half"] is None else f" ± {line['half']:.3f}"
        before = "-" if line[UNTRAINED] is None or not half else f"{line[UNTRAINED]:.3f}"
        seeds = " ".join(f"{v:.3f}" for v in line["per_seed"]) if half else ""
        mean = "-" if line["mean"] is None else f"{line['mean']:.3f}{half}"
        table.add_row(f"  {line['figure']}", mean, seeds, before)
    console.print(table)


def main(argv: list[str]) -> dict[str, Any]:
    """Every set that is there; set -> its lines, also in OUT/NAME/figures.json."""
    parser = argparse.ArgumentParser(prog="real_tasks.py", description="Every task on real catalogues.")
    parser.add_argument("names", nargs="+", choices=sorted(COMMANDS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="goes on with what is there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", help="instead of the task's own, SCALE")
    parser.add_argument("--epochs", type=int, help="instead of the chosen number")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--only", nargs="+", choices=sorted(READERS), help="these commands")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    found: dict[str, Any] = {}
    for name in options.names:
        if not is_there(name, options.data):
            continue
        folder = options.out / name
        links_of(options.data / name, folder / "links")
        runs = learn(name, options, folder)
        found[name] = summarise({which: measure(name, options, folder, run) for which, run in runs.items()})
        (folder / "figures.json").write_text(json.dumps(found[name], ensure_ascii=False, indent=1))
        if not options.json:
            show(name, found[name], Console(width=160))
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PolymodalError as error:
        sys.exit(str(error))
