"""What was measured, looked at by setting: figures over seeds of a method or control, and differences of two."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from polymodal.bench._base import Cell, over_seeds
from polymodal.compare._figures import Figures
from polymodal.compare._plan import Setting
from polymodal.compare._world import World

__all__ = ["ITSELF", "JUDGED", "TASKS", "WAYS", "Controls", "Run", "View"]

TASKS = ("coarse", "fine")
# other ways to make the item's vector from the same model
WAYS = ("mean fusion", "zero imputation")
ITSELF = "itself untrained"
# what methods are judged by: figure -> how it is called
JUDGED = {
    "coarse/standard/map@10": "coarse mAP@10",
    "fine/standard/map@10": "fine mAP@10",
    "accuracy": "accuracy",
    "cross/mean/hit@10": "cross-modal R@10",
}


@dataclass(frozen=True)
class Run:
    """One model: how it was trained and what was measured, or why not."""

    method: str
    setting: Setting
    seed: int
    steps: int
    flops: float
    parameters: int = 0
    seconds: float | None = None
    figures: Figures = field(default_factory=dict)
    error: str = ""

    def with_figures(self, parameters: int, seconds: float | None, figures: Figures) -> Self:
        """The run when it is done."""
        return dataclasses.replace(self, parameters=parameters, seconds=seconds, figures=figures)

    def with_error(self, error: str) -> Self:
        """The run when it failed."""
        return dataclasses.replace(self, error=error)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Controls:
    """Control -> figures of each seed, for one set of modalities.

    `untrained`: method -> the control that is a model of its shape before training.
    """

    modalities: tuple[str, ...]
    figures: Mapping[str, Sequence[Figures]]
    untrained: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One setting: a set of modalities under one budget.

    Args:
        runs: of this setting, the methods in the order asked for. controls: of these modalities.
    """

    world: World
    setting: Setting
    runs: Sequence[Run]
    controls: Controls

    @property
    def methods(self) -> list[str]:
        """All methods, those that failed too."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def worked(self) -> list[str]:
        """Methods with a run that worked."""
        return [method for method in self.methods if self.done(method)]

    @property
    def names(self) -> list[str]:
        """Methods, then controls."""
        return [*self.methods, *self.controls.figures]

    def done(self, method: str) -> dict[int, Figures]:
        """Seed -> figures of the runs that worked."""
        return {run.seed: run.figures for run in self.runs if run.method == method and not run.error}

    def cell(self, name: str, figure: str) -> Cell:
        """A figure of a method or control over seeds."""
        each = self.done(name).values() if name in self.methods else self.controls.figures.get(name, ())
        return over_seeds([found.get(figure, math.nan) for found in each])

    def measured(self, figure: str) -> bool:
        """Whether anything has the figure."""
        return any(self.cell(name, figure).n for name in self.names)

    def rungs(self, figure: str) -> list[str]:
        """Combinations of modalities of which the figure was measured, in order."""
        found = [f.split("/")[1] for m in self.methods for one in self.done(m).values() for f in one if "added/" in f]
        return [rung for rung in dict.fromkeys(found) if self.measured(f"added/{rung}/{figure}")]

    @property
    def beaten(self) -> list[str]:
        """What every method has to beat: controls, itself untrained, and its own other ways."""
        plain = [name for name in self.controls.figures if name not in self.controls.untrained.values()]
        itself = [ITSELF] if len(plain) < len(self.controls.figures) else []
        return [*plain, *itself, *(way for way in WAYS if self.measured(f"{way}/coarse/standard/map@10"))]

    def minus(self, method: str, other: str, figure: str) -> Cell:
        """A method minus another, a control, ITSELF, or one of its own WAYS, paired by seed."""
        mine = self.done(method)
        other = self.controls.untrained.get(method, other) if other == ITSELF else other
        if other in WAYS:
            return over_seeds([f.get(figure, math.nan) - f.get(f"{other}/{figure}", math.nan) for f in mine.values()])
        theirs = [self._other(other, seed, at, figure) for at, seed in enumerate(mine)]
        return over_seeds([f.get(figure, math.nan) - v for f, v in zip(mine.values(), theirs, strict=True)])

    def _other(self, name: str, seed: int, at: int, figure: str) -> float:
        if name in self.controls.figures:
            each = self.controls.figures[name]
            return each[min(at, len(each) - 1)].get(figure, math.nan)  # words have one value, whatever the seed
        return self.done(name).get(seed, {}).get(figure, math.nan)
