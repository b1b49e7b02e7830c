"""The commands about methods: which there are, experiments about them, one against another."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from cyclopts import App

from polymodal.workflow.options import Device, Flag, Json, Numbers, Settings, Size, Texts, command
from polymodal.workflow.terminal import caution, console, emit

__all__ = ["register"]

_SEEDS = (0, 1, 2)


def register(app: App) -> None:
    """Add these commands to an app."""
    for one in (recipes, bench, compare):
        app.command(one)


def recipes(
    name: str | None = None, *, size: Size | None = None, modalities: str | None = None, json: Json = False
) -> None:
    """List the recipes, or print one in full.

    Example: polymodal recipes scale --size base --json

    Args:
        name: Of a recipe.
        size: tiny, small or base.
        modalities: Kinds, separated by commas; all by default.
    """
    from polymodal.workflow.listing import list_recipes, show_recipe

    if name is not None:
        full = show_recipe(name, size, _parts([modalities or ""]))
        emit(json, full, json_module.dumps(full, indent=1))
        return
    _list(list_recipes(), json)


def bench(
    name: str | None = None,
    *,
    seeds: Numbers = None,
    quick: Flag = False,
    out: Path = Path("runs/bench"),
    set_: Settings = None,
    json: Json = False,
) -> None:
    """List the controlled experiments, or run one: tables with intervals over seeds, findings, figures.

    Called again it uses the repetitions that were finished. Example: polymodal bench xor --seeds 0 1 2

    Args:
        name: Of an experiment.
        seeds: One repetition each; 0 1 2 by default.
        quick: A budget of seconds, to see that it works; the figures mean nothing.
        out: Folder for NAME/result.json, result.md and the figures.
        set_: Settings of the experiment, NAME=VALUE.
    """
    from polymodal.bench._run import list_experiments, run_experiment
    from polymodal.bench._shown import bench_text

    if name is None:
        _list(list_experiments(), json)
        return
    shown = console()

    def say(text: str) -> None:
        if shown is not None:
            shown.print(text, highlight=False, markup=False)

    made = run_experiment(
        name, out, seeds=seeds or _SEEDS, quick=quick, settings=set_ or (), command=command(), say=say
    )
    found = made.result
    emit(json, made.to_json(), bench_text(found.question, found.tables, found.findings, str(made.folder)))


def compare(
    data: Path,
    *,
    out: Path,
    methods: Texts = None,
    modalities: Texts = None,
    seeds: Numbers = None,
    budget_steps: int | None = None,
    budget_seconds: float | None = None,
    size: Size = "tiny",
    set_: Settings = None,
    split: str = "test",
    train_split: str = "train",
    label: str | None = None,
    max_items: int = 1000,
    combinations: Flag = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train several methods on the same data with the same size, batch and schedule, and measure them side by side.

    Called again, with more methods or seeds too, it trains only what is not finished.

    Examples: polymodal compare demo/shards --methods scale,clip --budget-steps 300 --out compared
              polymodal compare shards --methods scale "scale:objective.harmonise.form=none" --out equal

    Args:
        data: A catalogue or prepared shards.
        out: Folder for the runs, compare.json, compare.md and figures.
        methods: Recipes, by default all main ones; RECIPE/FUNCTION is another form, RECIPE:SETTING;SETTING a variant.
            The others are set against the first.
        modalities: Sets of modalities, such as all image,text; a model is trained for each set.
        seeds: Of training; 0 1 2 by default.
        budget_steps: Steps of training, 300 unless seconds are given.
        budget_seconds: Seconds of training: as many steps as fit, by the clock of this machine.
        set_: Settings of every recipe, such as train.batch_size=128.
        split: Items to measure.
        train_split: Items that the probes learn from.
        label: What counts as the same in coarse retrieval, probes and clusters; the first label by default.
        max_items: Measure at most this many.
        combinations: Measure every combination of modalities, not only one more at a time.
    """
    from polymodal.bench._shown import bench_text
    from polymodal.compare import CompareSettings
    from polymodal.compare import compare as run

    steps = 300 if budget_steps is None and budget_seconds is None else budget_steps
    settings = CompareSettings(
        _methods(methods or ()), tuple(modalities or ("all",)), tuple(seeds or _SEEDS), steps, budget_seconds, size,
        tuple(set_ or ()), split, train_split, label, max_items, combinations,
    )  # fmt: skip
    made = run(data, out, settings, console=console(), device=device, command=command())
    caution(made.warning)
    where = f"{out / 'compare.md'}, which has all tables, and {out / 'compare.json'}"
    emit(json, made.to_json(), bench_text(made.result.question, made.shown, made.result.findings, where))


def _parts(texts: list[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _methods(texts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Names may stand behind commas; a variant's settings may have commas of their own, so it stands alone."""
    return tuple(one for text in texts for one in ([text] if ":" in text else _parts([text])))


def _list(found: dict[str, str], json: bool) -> None:
    width = max(map(len, found), default=0)
    emit(json, found, "\n".join(f"{one:<{width}}  {what}" for one, what in found.items()) or "There is none yet.")
