"""Which recipes there are, one of them in full, and a run by one of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from polymodal.config import discover
from polymodal.types import BadInput
from polymodal.workflow.records import check_names
from polymodal.workflow.training import TrainResult, find_recipe, open_rows, resume, train

__all__ = ["choose_kinds", "list_recipes", "show_recipe", "train_or_resume"]


def list_recipes() -> dict[str, str]:
    """Name -> what it is, in one sentence."""
    out = {}
    for name, module in discover("polymodal.recipes").items():
        for function in module.__all__:
            made = getattr(module, function)
            if inspect.isfunction(made):
                out[name if function == "recipe" else f"{name}/{function}"] = (
                    (inspect.getdoc(made) or "").split("\n\n")[0].replace("\n", " ")
                )
    return out


def show_recipe(name: str, size: str | None = None, modalities: Sequence[str] = ()) -> dict[str, Any]:
    """The whole recipe as JSON, for the named kinds of modality; all kinds by default."""
    kinds = list(discover("polymodal.modalities"))
    check_names("--modalities", modalities, kinds, "a kind of modality")
    return find_recipe(name, {kind: kind for kind in modalities or kinds}, size).model_dump(mode="json")


def choose_kinds(known: dict[str, str], wanted: Sequence[str]) -> dict[str, str]:
    """The named modalities of some data, in the order of the data; all where none is named. Raises BadInput."""
    check_names("--modalities", wanted, known, "a modality of the data")
    return {name: kind for name, kind in known.items() if not wanted or name in wanted}


def train_or_resume(
    recipe: str | None,
    data: Path | None,
    run: Path | None,
    resumed: Path | None,
    size: str | None,
    settings: Sequence[str],
    modalities: Sequence[str],
    *,
    console: Console | None = None,
    device: str | None = None,
) -> TrainResult:
    """A new run of a recipe, or an interrupted one taken up again: whichever was asked for.

    Raises:
        BadInput: both or neither asked for; what `train` and `resume` refuse.
    """
    if resumed is not None:
        if recipe is not None or data is not None or run is not None or size or settings or modalities:
            raise BadInput(
                "--resume",
                "nothing else but --device",
                "more",
                "It keeps the recipe and data it began with.",
            )
        return resume(resumed, console, device)
    if recipe is None or data is None or run is None:
        missing = "RECIPE" if recipe is None else "DATA" if data is None else "--run DIR"
        example = "Example: polymodal train scale demo/shards --run run"
        raise BadInput("train", "RECIPE DATA --run DIR, or --resume DIR", f"no {missing}", example)
    kinds = choose_kinds(dict(open_rows(data).modalities), modalities)
    made = find_recipe(recipe, kinds, size).override(settings)
    return train(made.replace(data=str(data)), run, console, device)
