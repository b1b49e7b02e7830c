"""Runs a comparison: what is finished is kept, what fails is reported in its row, Ctrl-C loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from polymodal.bench._base import Result, Table
from polymodal.bench._kept import write_whole
from polymodal.compare._budget import flops_of_a_step, seconds_of_a_step, steps_within, trained_seconds
from polymodal.compare._controls import control_figures
from polymodal.compare._figures import Figures, model_figures
from polymodal.compare._plan import (
    CompareSettings,
    Job,
    Method,
    Setting,
    equalised,
    modality_sets,
    parse_methods,
    slug,
)
from polymodal.compare._report import report
from polymodal.compare._view import Controls, Run
from polymodal.compare._world import World, check_data, having, open_world
from polymodal.embed import Embedder
from polymodal.recipe import Recipe
from polymodal.train.trainer import Interrupted
from polymodal.types import BadInput, MissingExtra, PolymodalError
from polymodal.workflow.terminal import bar
from polymodal.workflow.training import open_rows, resume, train

__all__ = ["Compared", "compare"]

_CLAIM = "comparison.json"
_MEASURE = 2  # goes up when what is measured changes, so that kept figures are not read as new ones
T = TypeVar("T")


@dataclass(frozen=True)
class Compared:
    """What a comparison found and where it is written; `shown` are the tables for a terminal, `warning` what
    to say where the input names the label."""

    result: Result
    folder: Path
    content: dict[str, Any]
    shown: tuple[Table, ...]
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return self.content


def compare(
    data: Path,
    out: Path,
    settings: CompareSettings | None = None,
    *,
    console: Console | None = None,
    device: str = "cpu",
    command: str = "polymodal compare",
) -> Compared:
    """Train and measure every method; write compare.json, compare.md and figures into `out`.

    Called again, with more methods, seeds, sets or budgets too, it trains only what is not finished.

    Args:
        data: a catalogue (decoded once into `out`/shards) or prepared shards.
        out: a new folder, or that of the same comparison.
        console: told of progress.

    Raises:
        BadInput: an unknown method or modality, budgets that make no sense, a folder of another comparison.
        Interrupted: after Ctrl-C; what was finished is kept, and the run that was stopped goes on next time.
        MissingExtra: scikit-learn or matplotlib is not installed.
        PolymodalError: no method could be trained.
    """
    settings = settings or CompareSettings()
    settings.check()
    for package, module in (("scikit-learn", "sklearn"), ("matplotlib", "matplotlib")):
        if find_spec(module) is None:
            raise MissingExtra(package, "report")  # before anything is trained that could not be measured
    methods = parse_methods(settings.methods)
    rows = open_rows(data)
    sets = modality_sets(settings.modalities, rows.modalities)
    check_data(rows, settings)
    for names in sets:
        _recipes(
            methods, {name: rows.modalities[name] for name in names}, settings
        )  # what is mistyped, before a folder
    _claim(out, data, settings)
    with bar("decoding", console) as progress:
        world = open_world(data, out, settings, progress)
    for names in sets:
        if not having(world.tested, names) or not having(world.learnt, names):
            raise BadInput("--modalities", "modalities that some tested and some training item has", ",".join(names))
    bench = _Comparison(world, out, settings, methods, console, device)
    for names in sets:
        bench.run(names)
    result, content, shown, warning = report(world, settings, bench.runs, bench.controls, command)
    _write(out, result, content, command)
    if all(run.error for run in bench.runs):
        raise PolymodalError(f"No method could be trained. {bench.runs[0].method}: {bench.runs[0].error}")
    return Compared(result, out, content, shown, warning)


def _recipes(
    methods: Sequence[Method], kinds: Mapping[str, str], settings: CompareSettings
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Method -> recipe, and why a method has none. Raises BadInput for a setting that was mistyped."""
    made: dict[str, Recipe] = {}
    broken: dict[str, str] = {}
    for method in methods:
        try:
            made[method.name] = equalised(method, kinds, settings, 0)
        except BadInput as error:
            if error.field.startswith("--methods"):
                raise
            broken[method.name] = str(error)  # the method itself cannot do these modalities
    return made, broken


def _claim(out: Path, data: Path, settings: CompareSettings) -> None:
    """The folder is this comparison's alone: figures of other data or items must not stand in one table."""
    if out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")
    mine = {
        "data": str(data.resolve()),
        "size": settings.size,
        **{name: getattr(settings, name) for name in ("split", "train_split", "label", "max_items")},
    }
    place = out / _CLAIM
    if place.is_file():
        found = json.loads(place.read_text(encoding="utf-8"))
        other = next((name for name in mine if found.get(name) != mine[name]), None)
        if other is not None:
            raise BadInput(
                "--out",
                f"a folder of the same comparison ({other} {mine[other]!r})",
                f"{out}, whose {other} is {found.get(other)!r}",
                "Choose another folder.",
            )
    elif out.is_dir() and any(out.iterdir()):
        raise BadInput("--out", "a new or empty folder, or one that polymodal compare made", out)
    write_whole(place, json.dumps(mine, indent=1).encode())


@dataclass
class _Comparison:
    """One comparison under way."""

    world: World
    out: Path
    settings: CompareSettings
    methods: Sequence[Method]
    console: Console | None
    device: str
    runs: list[Run] = field(default_factory=list)
    controls: list[Controls] = field(default_factory=list)

    def run(self, names: tuple[str, ...]) -> None:
        """Everything of one set of modalities."""
        recipes, broken = _recipes(self.methods, {name: self.world.kinds[name] for name in names}, self.settings)
        recipes = {name: recipe.replace(data=str(self.world.data)) for name, recipe in recipes.items()}
        flops, pace = self._costs(names, recipes, broken)
        budgets = [("steps", self.settings.steps), ("seconds", self.settings.seconds)]
        for budget, amount in [(b, a) for b, a in budgets if a is not None]:
            setting = Setting(names, budget, float(amount))
            for seed in self.settings.seeds:
                for method in self.methods:
                    error = broken.get(method.name, "")
                    steps = 0 if error else self._steps(setting, pace.get(method.name, 1.0))
                    row = Run(method.name, setting, seed, steps, flops.get(method.name, 0.0), error=error)
                    self.runs.append(row if error else self._try(row, recipes[method.name]))
        self.controls.append(self._controls(names, {n: r for n, r in recipes.items() if n not in broken}))

    def _say(self, text: str) -> None:
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False)

    def _guard(self, what: str, do: Callable[[], T]) -> tuple[T | None, str]:
        """The value, or why there is none. A method that fails is a finding about it, whatever it fails of."""
        try:
            return do(), ""
        except Interrupted:
            raise Interrupted(f"Stopped at {what}; what is finished is kept. Go on with the same command.") from None
        except Exception as error:  # noqa: BLE001
            text = " ".join(str(error).split())
            said = text if isinstance(error, PolymodalError) else f"{type(error).__name__}: {text}"
            self._say(f"{what}: {said[:200]}")
            return None, said[:500] or type(error).__name__

    # -- before training ----------------------------------------------------------------------------------------------

    def _costs(
        self, names: tuple[str, ...], recipes: Mapping[str, Recipe], broken: dict[str, str]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Operations of a step and, for a budget of seconds, its seconds; what fails here joins `broken`."""
        flops = {name: self._cost("flops", 0, names, name, recipes[name], broken, flops_of_a_step) for name in recipes}
        pace: dict[str, float] = {}
        turns = (0, 1) if self.settings.seconds is not None else ()
        for turn in turns:  # all methods in turn, twice: a busy minute does not hit one of them alone
            for name in [n for n in recipes if n not in broken]:
                found = self._cost("seconds", turn, names, name, recipes[name], broken, seconds_of_a_step)
                pace[name] = min(found, pace.get(name, found))
        return flops, pace

    def _cost(
        self,
        kind: str,
        turn: int,
        names: tuple[str, ...],
        name: str,
        recipe: Recipe,
        broken: dict[str, str],
        count: Callable[[Recipe, Path, str], float],
    ) -> float:
        job = Job(name, Setting(names, "steps", 1), 0, recipe)
        place = self.out / "costs" / f"{job.folder}-{kind}{turn}.json"
        if place.is_file():
            return float(json.loads(place.read_text())[kind])
        self._say(f"{name}, {' + '.join(names)}: counting {kind} of a step")
        shutil.rmtree(self.out / "costs" / "run", ignore_errors=True)
        value, error = self._guard(name, lambda: count(recipe, self.out / "costs" / "run", self.device))
        if value is None:
            broken[name] = error
            return 0.0
        write_whole(place, json.dumps({kind: value}).encode())
        return value

    def _steps(self, setting: Setting, pace: float) -> int:
        return int(setting.amount) if setting.budget == "steps" else steps_within(setting.amount, pace)

    # -- training and measuring ---------------------------------------------------------------------------------------

    def _try(self, row: Run, recipe: Recipe) -> Run:
        log = max(1, row.steps // 20)
        changes = [f"train.steps={row.steps}", f"train.seed={row.seed}", f"train.log_every={log}"]
        job = Job(row.method, row.setting, row.seed, recipe.override(changes))
        what = f"{row.method}, {row.setting.name}, seed {row.seed}"
        found, error = self._guard(what, lambda: self._one(job, what))
        if found is None:
            return row.with_error(error)
        done, figures = found
        return row.with_figures(done["parameters"], done["seconds"], figures)

    def _one(self, job: Job, what: str) -> tuple[dict[str, Any], Figures]:
        place = self.out / "runs" / job.folder
        done = self._train(job.recipe, place, what)
        key = {"measure": _MEASURE, "combinations": self.settings.combinations}
        kept = place / "figures.json"
        if kept.is_file():
            found = json.loads(kept.read_text(encoding="utf-8"))
            if found["key"] == key:
                return done, found["figures"]
        self._say(f"{what}: measuring")
        embedder = Embedder.load(place, self.device)
        figures = model_figures(embedder, self.world, job.setting.modalities, self.settings.combinations)
        write_whole(kept, json.dumps({"key": key, "figures": figures}, ensure_ascii=False).encode())
        return done, figures

    def _train(self, recipe: Recipe, place: Path, what: str) -> dict[str, Any]:
        finished = place / "done.json"
        if finished.is_file():
            return dict(json.loads(finished.read_text(encoding="utf-8")))
        resumed = (place / "recipe.json").is_file()
        self._say(f"{what}: {'going on' if resumed else 'training'}")
        if resumed:
            result = resume(place, self.console, self.device)
        else:
            shutil.rmtree(place, ignore_errors=True)  # stopped before there was anything to keep
            result = train(recipe, place, self.console, self.device)
        seconds = trained_seconds(place, recipe.train.batch_size, result.steps, resumed)
        done = {"steps": result.steps, "seconds": seconds, "parameters": result.parameters}
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        write_whole(finished, json.dumps(done).encode())
        return done

    # -- controls -----------------------------------------------------------------------------------------------------

    def _controls(self, names: tuple[str, ...], recipes: Mapping[str, Recipe]) -> Controls:
        """Chance and words, and each shape of model before training."""
        seeds = self.settings.seeds
        place = self.out / "controls" / f"{slug('+'.join(names))}-{'-'.join(map(str, seeds))[:60]}-{_MEASURE}.json"
        if place.is_file():
            found = json.loads(place.read_text(encoding="utf-8"))
        else:
            self._say(f"{' + '.join(names)}: controls")
            found = control_figures(self.world, names, seeds)
            write_whole(place, json.dumps(found, ensure_ascii=False).encode())
        shapes: dict[str, tuple[str, Recipe]] = {}
        for method, recipe in recipes.items():
            shapes.setdefault(_shape(recipe), (method, recipe))
        untrained = {m: f"{shapes[_shape(recipe)][0]}, untrained" for m, recipe in recipes.items()}
        for method, recipe in shapes.values():
            name = untrained[method]
            still = recipe.override(["train.learning_rate=1e-12", "train.weight_decay=0"])
            rows = [self._try(Run(name, Setting(names, "untrained", 1.0), seed, 1, 0.0), still) for seed in seeds]
            found[name] = [row.figures for row in rows if not row.error]
        return Controls(names, {name: figures for name, figures in found.items() if figures}, untrained)


def _shape(recipe: Recipe) -> str:
    """What decides a model before it is trained, apart from its seed."""
    return recipe.model.model_dump_json() + json.dumps(
        {name: config.model_dump(mode="json") for name, config in recipe.modalities.items()}
    )


def _write(out: Path, result: Result, content: Mapping[str, Any], command: str) -> None:
    """Pictures first, compare.json last."""
    for name, picture in result.pictures.items():
        write_whole(out / name, picture)
    shown = [f"![{Path(name).stem}]({name})" for name in sorted(result.pictures)]
    text = "\n\n".join(["# Methods compared", f"Made by `{command}`.", result.to_markdown(), *shown]) + "\n"
    write_whole(out / "compare.md", text.encode())
    write_whole(out / "compare.json", json.dumps(content, ensure_ascii=False, indent=1).encode())
