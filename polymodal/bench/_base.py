"""What every experiment takes and returns: seeds and budget in, tables with intervals, pictures and findings out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Cell", "Options", "Result", "Table", "over_seeds"]

# two-sided 95 % quantiles of Student's t for 1 ... 10 degrees of freedom; 1.96 beyond
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Options:
    """How an experiment is run.

    Args:
        seeds: one repetition each; nothing else may differ between repetitions.
        quick: a budget of seconds, to see that it works; its figures mean nothing and are marked so.
        out: folder of what it keeps between calls (finished repetitions), or None.
        say: told of progress, one line at a time.
        settings: further NAME=VALUE pairs that the experiment documents.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = False
    out: Path | None = None
    say: Callable[[str], None] = lambda _: None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A figure over seeds: mean and the 95 % interval of the mean (Student's t); one seed has no interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "-"
        return f"{self.mean:.3f}" if self.n < 2 else f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, float | int]:
        """As JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def over_seeds(values: Sequence[float]) -> Cell:
    """The Cell of one figure measured once per seed; values that are no number are left out."""
    kept = np.asarray([v for v in values if math.isfinite(v)], np.float64)
    if not len(kept):
        return Cell(math.nan, math.nan, math.nan, 0)
    mean = float(kept.mean())
    if len(kept) == 1:
        return Cell(mean, mean, mean, 1)
    quantile = _T[len(kept) - 2] if len(kept) - 2 < len(_T) else 1.96
    half = quantile * float(kept.std(ddof=1)) / math.sqrt(len(kept))
    return Cell(mean, mean - half, mean + half, len(kept))


@dataclass(frozen=True)
class Table:
    """Rows of text and Cells under named columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        rows = [[c.to_json() if isinstance(c, Cell) else c for c in row] for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows}

    def to_markdown(self) -> str:
        """As a Markdown table with its title."""
        head = [f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        body = [f"| {' | '.join(str(cell) for cell in row)} |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *head, *body])


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Args:
        name: of the module.
        question: one sentence.
        tables: the figures.
        findings: sentences that follow from the tables, whichever way they came out; each is computed, not written in
            advance.
        pictures: file name -> PNG.
        settings: everything that decided the figures, as JSON.
    """

    name: str
    question: str
    tables: tuple[Table, ...]
    findings: tuple[str, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON, without the pictures' content."""
        return {
            "name": self.name,
            "question": self.question,
            "tables": [table.to_json() for table in self.tables],
            "findings": list(self.findings),
            "pictures": sorted(self.pictures),
            "settings": dict(self.settings),
        }

    def to_markdown(self) -> str:
        """As Markdown: question, tables, findings."""
        parts = [self.question, *(table.to_markdown() for table in self.tables)]
        return "\n\n".join([*parts, *(f"- {text}" for text in self.findings)])
