"""A comparison as a whole: tables, sentences that follow from them, figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from polymodal.bench._base import Cell, Result, Table
from polymodal.bench._plots import Panel, curves, marks
from polymodal.compare._plan import CompareSettings
from polymodal.compare._tables import make_tables
from polymodal.compare._view import JUDGED, TASKS, Controls, Run, View
from polymodal.compare._world import World
from polymodal.evaluate import label_leak, leak_warning

__all__ = ["report"]

QUESTION = "Which method learns the better vector of an item from the same data, model size, batch and schedule?"
_NOISE = (
    "Budgets in seconds were measured on this machine while it did other things: a step was timed, and as many steps "
    "were trained as fit. They are noisy; the steps and operations beside them are not."
)
_OFF = 1.5
_MANY = "Intervals are 95 % of the mean over seeds (Student's t), and not corrected for how many are looked at."


def report(
    world: World, settings: CompareSettings, runs: Sequence[Run], controls: Sequence[Controls], command: str
) -> tuple[Result, dict[str, Any], tuple[Table, ...], str]:
    """The result, the content of compare.json, the tables that a terminal shows, and a warning where the input names
    the label."""
    tables: list[Table] = []
    shown: list[Table] = []
    findings: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, setting in enumerate(dict.fromkeys(run.setting for run in runs)):
        here = [run for run in runs if run.setting == setting]
        view = View(world, setting, here, next(c for c in controls if c.modalities == setting.modalities))
        made = make_tables(view)
        shown += made[: next(at for at, table in enumerate(made) if "cost of" in table.title) + 1]
        tables += made
        findings += _findings(view)
        pictures |= _pictures(view, f"compare-{number + 1}")
    leaks = {
        " + ".join(names): label_leak(world.tested, world.labels, world.label, names)
        for names in dict.fromkeys(run.setting.modalities for run in runs)
    }
    leaking = next((name for name, leak in leaks.items() if leak.leaks), None)
    warning = "" if leaking is None else f"{leaking}: {leak_warning([leaks[leaking]])}"
    findings += [warning] if warning else []
    findings += [_MANY] if len(settings.seeds) > 1 else ["One seed: no interval, and no verdict."]
    findings += [_NOISE, *_off_budget(settings.seconds, runs)] if settings.seconds is not None else []
    facts = {**settings.to_json(), **world.facts()}
    result = Result("compare", QUESTION, tuple(tables), tuple(findings), pictures, facts)
    content = {
        "format": 1,
        "command": command,
        **result.to_json(),
        "runs": [run.to_json() for run in runs],
        "controls": [dataclasses.asdict(c) for c in controls],
        "leaks": {names: leak.to_json() for names, leak in leaks.items()},
    }
    return result, content, tuple(shown), warning


def _off_budget(budget: float, runs: Sequence[Run]) -> list[str]:
    """Methods that took much more or less than the seconds they were given."""
    spent: dict[str, list[float]] = {}
    for run in runs:
        if run.setting.budget == "seconds" and run.seconds is not None:
            spent.setdefault(run.method, []).append(run.seconds)
    off = {m: max(each, key=lambda s: abs(math.log(s / budget))) for m, each in spent.items()}
    named = [f"{m} {s:.0f} s" for m, s in off.items() if not budget / _OFF <= s <= budget * _OFF]
    return [f"Not within {_OFF:g} times the {budget:g} s budget: {', '.join(named)}."] if named else []


def _findings(view: View) -> list[str]:
    """Who leads, who is clearly better or worse than the first, who does not clearly beat what must be beaten."""
    said = []
    for figure, name in JUDGED.items():
        known = [m for m in view.worked if view.cell(m, figure).n]
        if known:
            best = max(known, key=lambda m: view.cell(m, figure).mean)
            said.append(f"highest {name}: {best}, {view.cell(best, figure)}")
    first = view.methods[0]
    for figure, name in JUDGED.items():
        gaps = {m: view.minus(m, first, figure) for m in view.worked if m != first}
        for word, sign in (("better", 1), ("worse", -1)):
            clear = [f"{m} ({_signed(gap)})" for m, gap in gaps.items() if _clear(gap) == sign]
            said += [f"{name}, clearly {word} than {first}: {', '.join(clear)}"] if clear else []
        unclear = [f"{m} ({_signed(gap)})" for m, gap in gaps.items() if gap.n > 1 and not _clear(gap)]
        said += [f"{name}, no clear difference from {first}: {', '.join(unclear)}"] if unclear else []
    figure = "coarse/standard/map@10"
    for other in view.beaten:
        gaps = {m: view.minus(m, other, figure) for m in view.worked}
        kept = [m for m, gap in gaps.items() if gap.n > 1 and _clear(gap) < 1]
        if kept:
            said.append(f"{JUDGED[figure]}, not clearly above {other}: {', '.join(kept)}")
    for method in view.worked:
        blind = view.cell(method, "without a vector").mean
        if blind:
            said.append(f"{method} has no vector for {blind:.0f} of the items; they count as not found by it")
    failed = {run.method: run.error for run in view.runs if run.error}
    said += [f"{method} failed: {error}" for method, error in failed.items()]
    return [f"{view.setting.name}: {text.rstrip('.')}." for text in said]


def _clear(gap: Cell) -> int:
    """1 or -1 where the whole interval is on one side of 0; one seed is never clear."""
    return 0 if gap.n < 2 or gap.low <= 0 <= gap.high else (1 if gap.mean > 0 else -1)


def _signed(gap: Cell) -> str:
    return f"{gap.mean:+.3f}" if gap.n < 2 else f"{gap.mean:+.3f}, {gap.low:+.3f} to {gap.high:+.3f}"


def _pictures(view: View, name: str) -> dict[str, bytes]:
    """Methods and controls by what they are judged by; and, where modalities are added, the way up."""
    grey = frozenset(view.controls.figures)
    names = [*view.worked, *view.controls.figures]
    panels = [
        Panel(shown, {n: cell for n in names if (cell := view.cell(n, figure)).n}, muted=grey)
        for figure, shown in JUDGED.items()
        if view.measured(figure)
    ]
    made = {f"{name}.png": marks(panels)} if panels else {}
    climbs = [panel for task in TASKS if (panel := _climb(view, task)) is not None]
    return made | ({f"{name}-added.png": curves(climbs)} if climbs else {})


def _climb(view: View, task: str) -> Panel | None:
    figure = f"{task}/standard/map@10"
    names = view.setting.modalities
    rungs = ["+".join(names[: count + 1]) for count in range(len(names))]
    if len(rungs) < 2 or not all(view.measured(f"added/{rung}/{figure}") for rung in rungs):
        return None
    ticks = [names[0], *(f"+{n}" for n in names[1:])]
    return Panel(
        f"{task} mAP@10, items with {names[0]}",
        {m: [view.cell(m, f"added/{rung}/{figure}") for rung in rungs] for m in view.worked},
        ticks,
    )
