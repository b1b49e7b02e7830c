"""What a run tells people and files: metrics.jsonl, a progress line, alarms."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from polymodal.types import PolymodalError

__all__ = ["Alarm", "Diverged", "Metrics", "Ticker", "effective_rank"]


class Diverged(PolymodalError):
    """The loss or its gradient stopped being a number, step after step."""


def effective_rank(z: Tensor) -> float:
    """How many directions a set of vectors uses, 1 to min(n, E): exp of the entropy of the normalised singular values.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007. Vectors are centred first, so a collapsed set gives 1.
    """
    if len(z) < 2:
        return 1.0
    singular = torch.linalg.svdvals((z - z.mean(0)).double())
    total = singular.sum()
    if total <= 1e-12:
        return 1.0
    share = (singular / total).clamp(min=1e-12)
    return float(torch.exp(-(share * share.log()).sum()))


class Alarm:
    """Watches a run for divergence and collapse, and says so once each.

    Args:
        width: E. Collapse is an effective rank below 2 % of E (at least 1.5) in three looks in a row after warm-up.
        patience: steps in a row whose loss or gradient is not finite before the run stops.
    """

    def __init__(self, width: int, patience: int = 5) -> None:
        self.floor, self.patience = max(1.5, 0.02 * width), patience
        self.bad_steps = self.low_looks = 0
        self.best = float("inf")
        self.said: set[str] = set()

    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON: a resumed run warns where an uninterrupted one would have."""
        best = self.best if math.isfinite(self.best) else None
        return {"bad_steps": self.bad_steps, "low_looks": self.low_looks, "best": best, "said": sorted(self.said)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """`state` undone."""
        self.bad_steps, self.low_looks, self.said = state["bad_steps"], state["low_looks"], set(state["said"])
        self.best = float("inf") if state["best"] is None else state["best"]

    def finite(self, step: int, ok: bool) -> None:
        """Take note whether a step was finite. Raises Diverged after `patience` in a row that were not."""
        self.bad_steps = 0 if ok else self.bad_steps + 1
        if self.bad_steps >= self.patience:
            raise Diverged(
                f"Loss or gradient was not finite in {self.patience} steps in a row (step {step}). The last checkpoint "
                "is whole; resume from it with a lower learning rate (--set train.learning_rate=...) or "
                "--set train.precision=fp32."
            )

    def look(self, loss: float, rank: float | None, warmed: bool) -> list[str]:
        """Warnings, if any, from the loss and the effective rank of the item vectors."""
        out = []
        if warmed and loss > 3 * self.best + 1:
            out.append(f"divergence: the loss is {loss:.3g}, it has been {self.best:.3g}")
        self.best = min(self.best, loss)
        if rank is not None:
            self.low_looks = self.low_looks + 1 if warmed and rank < self.floor else 0
            if self.low_looks >= 3:
                out.append(
                    f"collapse: item vectors use {rank:.1f} directions (effective rank), fewer than {self.floor:.1f}"
                )
        new = [text for text in out if text.partition(":")[0] not in self.said]
        self.said |= {text.partition(":")[0] for text in new}
        return new


class Metrics:
    """`metrics.jsonl`: one object a line. Lines after `step` are dropped when a run is resumed, so that the file of a
    resumed run says what an uninterrupted one would have said."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            aside = path.with_name(f".{path.name}.part")
            aside.write_text("".join(line + "\n" for line in lines))
            aside.replace(path)

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line and hand it to the system at once."""
        with self.path.open("a") as out:
            out.write(json.dumps(values, sort_keys=False) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Ticker:
    """A progress line with loss, rate and time left; plain lines where the output is no terminal; nothing if quiet."""

    def __init__(self, steps: int, done: int, console: Console | None, every: int = 50) -> None:
        self.console, self.steps, self.every = console, steps, every
        self.live = console is not None and console.is_terminal
        self.begun, self.first = time.monotonic(), done
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("training", total=steps, completed=done, said="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, step: int, loss: float, rate: float) -> None:
        """Show where the run stands after `step` steps: rows per second, and the loss of the last look."""
        said = f"loss {loss:.3f}  {rate:.0f} items/s"
        self.bar.update(self.task, completed=step, said=said)
        if self.console is not None and not self.live and (step % self.every == 0 or step == self.steps):
            left = (time.monotonic() - self.begun) / max(step - self.first, 1) * (self.steps - step)
            self.console.print(f"step {step}/{self.steps}  {said}  {left:.0f} s left", highlight=False)

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self.console is not None:
            self.console.print(text, highlight=False)
