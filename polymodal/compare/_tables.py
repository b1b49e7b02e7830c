"""The tables of a comparison: methods and controls in rows, figures with intervals over seeds in columns."""

from __future__ import annotations

import math

from polymodal.bench._base import Cell, Table, over_seeds
from polymodal.compare._figures import CUTS
from polymodal.compare._view import JUDGED, TASKS, WAYS, View

__all__ = ["make_tables"]

Row = tuple[str | Cell, ...]

_SHOWN = tuple(f"{kind}@{k}" for kind in ("map", "precision") for k in CUTS)
_READABLE = {"map": "mAP", "precision": "Prec"}
_RULES = {"standard": "AP over min(k, right), Prec over k", "released": "AP and Prec of SCALE's released script"}


def make_tables(view: View) -> list[Table]:
    """Summary, differences and cost first: these are for a terminal."""
    made = [_summary(view), *_against(view), _cost(view)]
    for task in TASKS:
        made += [_ranked(view, task, rule) for rule in _RULES if view.measured(f"{task}/{rule}/map@1")]
    if len(view.setting.modalities) > 1:
        made.append(_fusion(view))
        for task in TASKS:
            made += [_added(view, task, rule) for rule in _RULES if view.rungs(f"{task}/{rule}/map@1")]
        made.append(_crossed(view))
    return [table for table in made if table.rows]


def _summary(view: View) -> Table:
    """Table 5 of M5Product in shape: one line a method, by the standard AP."""
    figures = (
        "coarse/standard/map@1", "coarse/standard/map@10", "fine/standard/map@10", "accuracy", "nmi", "purity",
        "cross/mean/hit@10",
    )  # fmt: skip
    head = ("method", "coarse mAP@1", "coarse mAP@10", "fine mAP@10", "accuracy", "NMI", "purity", "cross R@10")
    facts = view.world.facts()
    title = f"{view.setting.name}: {facts['tested']} items, {facts['classes']} values of {view.world.label}"
    rows: list[Row] = []
    for name in view.names:
        failed = name in view.methods and name not in view.worked
        rows.append((name, *["failed"] * len(figures)) if failed else (name, *(view.cell(name, f) for f in figures)))
    return Table(title, head, tuple(rows))


def _against(view: View) -> list[Table]:
    """The first method against the others, and each method against what it has to beat; differences paired by seed."""
    made, first = [], view.methods[0]
    shown = {figure: name for figure, name in JUDGED.items() if view.measured(figure)}
    rows: list[Row] = [(m, *(view.minus(m, first, f) for f in shown)) for m in view.worked if m != first]
    if rows and first in view.worked:
        title = f"{view.setting.name}: minus {first}"
        made.append(Table(title, ("method", *shown.values()), tuple(rows)))
    figure = "coarse/standard/map@10"
    controls: list[Row] = [(m, *(view.minus(m, name, figure) for name in view.beaten)) for m in view.worked]
    title = f"{view.setting.name}: {JUDGED[figure]}, the method minus"
    return [*made, Table(title, ("method", *view.beaten), tuple(controls))]


def _cost(view: View) -> Table:
    rows: list[Row] = []
    for method in view.methods:
        each = [run for run in view.runs if run.method == method]
        said = "; ".join(dict.fromkeys(_short(run.error) for run in each if run.error))
        each = [run for run in each if not run.error]
        if not each:
            rows.append((method, "-", "-", "-", "-", "-", said))
            continue
        seconds = over_seeds([run.seconds for run in each if run.seconds is not None])
        giga, steps = each[0].flops / 1e9, each[0].steps
        parameters, spent = f"{each[0].parameters / 1e6:.3f}", f"{giga * steps:.0f}"
        rows.append((method, parameters, str(steps), _plain(seconds), f"{giga:.2f}", spent, said))
    head = ("method", "million parameters", "steps", "seconds", "GFLOP a step", "GFLOP in all", "failed")
    return Table(f"{view.setting.name}: cost of training", head, tuple(rows))


def _ranked(view: View, task: str, rule: str) -> Table:
    title = f"{view.setting.name}: {task} retrieval ({_same(view, task)}), {_RULES[rule]}"
    names = [*view.worked, *view.controls.figures]
    rows: list[Row] = [(n, *(view.cell(n, f"{task}/{rule}/{shown}") for shown in _SHOWN)) for n in names]
    return Table(title, ("method", *map(_name, _SHOWN)), tuple(rows))


def _same(view: View, task: str) -> str:
    return f"same {view.world.label}" if task == "coarse" else "same group"


def _fusion(view: View) -> Table:
    """The model's item vector against others made from the same model."""
    kinds = [(task, way) for task in TASKS for way in ("", *WAYS)]
    kinds = [(task, way) for task, way in kinds if view.measured(_made(task, way))]
    title = f"{view.setting.name}: mAP@10 of the item's own vector, and of two others made by the same model"
    head = ("method", *(f"{task}, {way or 'own'}" for task, way in kinds))
    rows: list[Row] = [(m, *(view.cell(m, _made(*kind)) for kind in kinds)) for m in view.worked]
    return Table(title, head, tuple(rows))


def _made(task: str, way: str) -> str:
    return f"{way}/{task}/standard/map@10".removeprefix("/")


def _added(view: View, task: str, rule: str) -> Table:
    """Tables 3 and 4 of M5Product in shape."""
    figures = ["accuracy", *(f"{task}/{rule}/{name}" for name in _SHOWN)]
    rows: list[Row] = []
    for method in view.worked:
        for rung in view.rungs(f"{task}/{rule}/map@1"):
            items = view.cell(method, f"added/{rung}/items")
            cells = [view.cell(method, f"added/{rung}/{figure}") for figure in figures]
            rows.append((method, rung.replace("+", " + "), f"{items.mean:.0f}" if items.n else "-", *cells))
    title = f"{view.setting.name}: made from some modalities alone, {task} retrieval, {_RULES[rule]}"
    return Table(title, ("method", "made from", "items", "accuracy", *map(_name, _SHOWN)), tuple(rows))


def _crossed(view: View) -> Table:
    pairs = [f"{a} → {b}" for a in view.setting.modalities for b in view.setting.modalities if a != b]
    rows: list[Row] = []
    for pair in [pair for pair in [*pairs, "mean"] if view.measured(f"cross/{pair}/hit@1")]:
        known = [one for m in view.worked for one in view.done(m).values()]
        chance = [one[name] for one in known if (name := f"cross chance/{pair}/hit@1") in one]
        cells = [view.cell(m, f"cross/{pair}/hit@{k}") for m in view.worked for k in (1, 10)]
        rows.append((pair, f"{chance[0] if chance else math.nan:.4f}", *cells))
    head = [f"{method} R@{k}" for method in view.worked for k in (1, 10)]
    title = f"{view.setting.name}: the item made from one modality finds the same item made from another"
    return Table(title, ("", "chance R@1", *head), tuple(rows))


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"


def _plain(cell: Cell) -> str:
    """Seconds, with one digit."""
    if not cell.n:
        return "-"
    return f"{cell.mean:.1f}" if cell.n < 2 else f"{cell.mean:.1f} [{cell.low:.1f}, {cell.high:.1f}]"


def _name(metric: str) -> str:
    kind, _, cut = metric.partition("@")
    return f"{_READABLE[kind]}@{cut}"
