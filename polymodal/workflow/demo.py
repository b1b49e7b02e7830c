"""The whole way on a generated shop, from catalogue to index; goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from polymodal.catalogue.demo import DemoConfig, generate
from polymodal.types import BadInput
from polymodal.workflow.files import write_json
from polymodal.workflow.terminal import bar

__all__ = ["DemoResult", "Stage", "run_demo"]

SETTINGS = "demo.json"


@dataclass
class Stage:
    """One stage of the demo: seconds, whether an earlier call had finished it, and one line on what came out."""

    name: str
    seconds: float = 0.0
    skipped: bool = False
    said: str = ""


@dataclass
class DemoResult:
    """Everything the demo made, and the figures of its report."""

    root: Path
    stages: list[Stage] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "root": str(self.root),
            "stages": [vars(stage) for stage in self.stages],
            "seconds": round(sum(stage.seconds for stage in self.stages), 2),
            "figures": self.figures,
            "report": str(self.root / "report" / "report.html"),
            "index": str(self.root / "index"),
        }


def run_demo(
    root: Path,
    *,
    items: int = 2000,
    seed: int = 0,
    missing: float = 0.4,
    only_data: bool = False,
    settings: Sequence[str] = (),
    console: Console | None = None,
) -> DemoResult:
    """Make the demo in `root`, or go on with it; what an earlier call finished is kept.

    Args:
        only_data: stop after the catalogue.
        settings: of the recipe, "train.epochs=5".
        console: shows the stages as they end.

    Raises:
        BadInput: `root` holds something else, or a demo of other settings.
    """
    run = _Run(
        root, DemoConfig.parse({"items": items, "seed": seed, "missing": missing}, "demo"), tuple(settings), console
    )
    run.begin()
    run.catalogue()
    if not only_data:
        for stage in (run.audit, run.prepare, run.train, run.embed, run.evaluate, run.index):
            stage()
    return run.result


class _Run:
    """One call of the demo."""

    def __init__(self, root: Path, config: DemoConfig, settings: Sequence[str], console: Console | None) -> None:
        self.root, self.config, self.settings, self.console = root, config, settings, console
        self.result = DemoResult(root)
        self.data, self.shards, self.folder = root / "catalogue", root / "shards", root / "run"
        self.vectors = root / "vectors.parquet"

    def begin(self) -> None:
        """Claims the folder, or finds the same demo begun in it."""
        wanted = self.config.model_dump(mode="json")
        place = self.root / SETTINGS
        if place.is_file():
            earlier = json.loads(place.read_text(encoding="utf-8"))
            changed = [f"{name}={earlier.get(name)}" for name, value in wanted.items() if earlier.get(name) != value]
            if changed:
                asked = ", ".join(f"{name.partition('=')[0]}={wanted[name.partition('=')[0]]}" for name in changed)
                raise BadInput(
                    f"demo in {self.root}",
                    f"a demo with {asked}",
                    f"one with {', '.join(changed)}",
                    "Choose another folder: polymodal demo FOLDER",
                )
            return
        if self.root.is_file() or (self.root.is_dir() and any(self.root.iterdir())):
            raise BadInput(
                "ROOT",
                "a new or empty folder, or a demo to go on with",
                self.root,
                "Choose another: polymodal demo FOLDER",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(place, wanted)

    @contextmanager
    def _stage(self, name: str, done: bool) -> Iterator[Stage]:
        stage, begun = Stage(name, skipped=done), time.monotonic()
        yield stage
        stage.seconds = 0.0 if done else round(time.monotonic() - begun, 2)
        self.result.stages.append(stage)
        if self.console is not None:
            took = "[dim]done before[/]" if stage.skipped else f"{stage.seconds:6.1f} s"
            self.console.print(f"[green]✓[/] {name:<10} {took:>8}  {stage.said}", highlight=False, soft_wrap=True)

    def _bar(self, title: str) -> Any:
        return bar(title, self.console)

    # -- the stages ---------------------------------------------------------------------------------------------------

    def catalogue(self) -> None:
        """Pictures, titles, attributes, clips and sounds of a shop that does not exist."""
        with self._stage("catalogue", (self.data / "catalogue.toml").is_file()) as stage:
            if not stage.skipped:
                with self._bar("generating") as progress:
                    generate(self.data, self.config, progress)
            stage.said = (
                f"{self.config.items} products in {self.data}, {self.config.missing:.0%} of their cells missing"
            )

    def audit(self) -> None:
        """Which modalities there are, and what is broken."""
        from polymodal.workflow.checking import audit_data

        place = self.root / "audit.json"
        with self._stage("audit", place.is_file()) as stage:
            if not stage.skipped:
                # without decoding: `prepare` decodes every file next and says which are broken
                with self._bar("auditing") as progress:
                    write_json(place, audit_data(self.data, decode=False, progress=progress).to_json())
            found = json.loads(place.read_text(encoding="utf-8"))
            stage.said = ", ".join(f"{name} {m['share']:.0%}" for name, m in found["modalities"].items())

    def prepare(self) -> None:
        """Every file decoded once, into Parquet."""
        from polymodal.workflow.training import prepare_data

        with self._stage("prepare", (self.shards / "manifest.json").is_file()) as stage:
            if not stage.skipped:
                with self._bar("decoding") as progress:
                    prepare_data(self.data, self.shards, self._recipe(self.data), progress=progress)
            manifest = json.loads((self.shards / "manifest.json").read_text(encoding="utf-8"))
            stage.said = f"decoded into {self.shards}, {manifest['quarantined']} bad files or rows set aside"

    def train(self) -> None:
        """The five-modality model."""
        from polymodal.workflow.training import resume, train

        done = (self.folder / "model" / "model.safetensors").is_file()
        with self._stage("train", done) as stage:
            if not done and (self.folder / "recipe.json").is_file():
                resume(self.folder, self.console)
            elif not done:
                # stopped while the modalities were fitted: there is nothing in it to keep
                shutil.rmtree(self.folder, ignore_errors=True)
                recipe = self._recipe(self.shards).override(self.settings).replace(data=str(self.shards))
                train(recipe, self.folder, self.console)
            stage.said = _last_line(self.folder / "metrics.jsonl")

    def embed(self) -> None:
        """One vector an item."""
        from polymodal.workflow.vectors import embed_data, read_facts

        done = self.vectors.is_file() and read_facts(self.vectors).model == self._digest()
        with self._stage("embed", done) as stage:
            if not done:
                with self._bar("embedding") as progress:
                    embed_data(self.folder, self.shards, self.vectors, progress=progress)
            facts = read_facts(self.vectors)
            stage.said = f"{facts.rows} vectors of {facts.width} numbers in {self.vectors}"

    def evaluate(self) -> None:
        """The report over items that training never saw."""
        from polymodal.workflow.evaluation import evaluate
        from polymodal.workflow.terminal import stage_bar

        report, place = self.root / "report", self.root / "figures.json"
        done = place.is_file() and json.loads(place.read_text(encoding="utf-8"))["model"] == self._digest()
        with self._stage("evaluate", done and (report / "report.html").is_file()) as stage:
            if not stage.skipped:
                command = f"polymodal evaluate {self.folder} {self.shards} --out {report}"
                with stage_bar(self.console) as progress:
                    write_json(
                        place, evaluate(self.folder, self.shards, report, command=command, progress=progress).to_json()
                    )
            found = json.loads(place.read_text(encoding="utf-8"))
            self.result.figures = found["figures"]
            stage.said = f"{found['items']} unseen items, report in {report / 'report.html'}"

    def index(self) -> None:
        """What search and the page open."""
        from polymodal.index.base import read_manifest
        from polymodal.workflow.indexing import SOURCE, build_index

        out = self.root / "index"
        done = (out / SOURCE).is_file() and read_manifest(out)["model"] == self._digest()
        with self._stage("index", done) as stage:
            if not done:
                build_index(self.vectors, self.data, out)
            stage.said = f"search by any mix: polymodal search {out} --text 'red lamp'"

    # -- what the stages share ----------------------------------------------------------------------------------------

    def _recipe(self, data: Path) -> Any:
        from polymodal.workflow.training import find_recipe, open_rows

        return find_recipe("scale", open_rows(data).modalities, "tiny")

    def _digest(self) -> str:
        """The model's digest, as `Embedder` computes it."""
        from polymodal.embed import Embedder

        return Embedder.load(self.folder).model


def _last_line(metrics: Path) -> str:
    last = json.loads(metrics.read_text(encoding="utf-8").splitlines()[-1])
    return f"{last['step']} steps, loss {last['loss']:.2f}, {last['items_per_second']:.0f} items a second"
