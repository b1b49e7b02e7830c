"""Explanations as a terminal and a Markdown file show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.evaluate.intervals import Interval
from polymodal.tasks.worth import READINGS

if TYPE_CHECKING:
    from polymodal.tasks.matched import Match
    from polymodal.workflow.explaining import ExplainResult
    from polymodal.workflow.explaining_item import ItemResult

__all__ = ["catalogue_markdown", "catalogue_text", "item_text"]

Rows = list[tuple[str, ...]]
_BAR = 12


def _number(value: float) -> str:
    return f"{value:+.3f}" if np.isfinite(value) else "–"


def _interval(one: Interval) -> str:
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" if one.n else "–"


def _half(one: Interval) -> str:
    """The interval by its wider half: it fits a terminal."""
    return f"{one.mean:+.3f} ±{max(one.high - one.mean, one.mean - one.low):.3f}" if one.n else "–"


# -- a catalogue -----------------------------------------------------------------------------------------------------


def _tables(
    result: ExplainResult, interval: Callable[[Interval], str] = _interval
) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Title, heads and rows of every table."""
    worth = result.worth
    made = [_worth_table(result, interval)]
    if result.detections:
        items, chance = result.detections[0].found.n, result.detections[0].chance
        made.append(
            (
                f"Which reading points at a cell that was exchanged ({items} items, one wrong cell each; "
                f"chance {chance:.3f})",
                ("reading", "found", "above chance", *worth.values.names),
                [
                    (
                        d.name,
                        f"{d.found.mean:.3f} [{d.found.low:.3f}, {d.found.high:.3f}]",
                        _number(d.difference.mean),
                        *(f"{d.by_modality[n].mean:.3f}" if n in d.by_modality else "–" for n in worth.values.names),
                    )
                    for d in sorted(result.detections, key=lambda d: -d.found.mean)
                ],
            )
        )
    if result.foretold:
        rows: Rows = [
            (name, f"{c.rho:+.3f}", f"{c.p:.3f}" if c.p >= 0.001 else "< 0.001", str(c.n))
            for name, c in result.foretold.items()
        ]
        title = "Rank correlation with what is lost when the modality is deleted from the whole catalogue"
        made.append((title, ("reading", "rho", "p", "cells"), rows))
    if result.pairs:
        made.append(_pair_table(result))
    return made


def _worth_table(result: ExplainResult, interval: Callable[[Interval], str]) -> tuple[str, tuple[str, ...], Rows]:
    worth, first = result.worth, result.worth.readings[0]
    order = sorted(worth.values.names, key=lambda n: -np.nan_to_num(first.modalities[n].mean, nan=-np.inf))
    whole, nothing = f"{worth.full.mean:.3f} from everything an item has", f"{worth.empty:.3f} from nothing"
    heads = ["modality", "items", *(one.name for one in worth.readings)]
    rows = [[n, str(first.modalities[n].n), *(interval(one.modalities[n]) for one in worth.readings)] for n in order]
    if result.bits:
        heads.append("probe, bits")
        rows = [[*row, interval(result.bits[row[0]]) if row[0] in result.bits else "–"] for row in rows]
    title = f"What each modality is worth for {result.label}: {worth.score}, {whole}, {nothing}"
    return title, tuple(heads), [tuple(row) for row in rows]


def _pair_table(result: ExplainResult) -> tuple[str, tuple[str, ...], Rows]:
    entropy = max(pair.entropy for pair in result.pairs)
    rows: Rows = [
        (
            f"{p.first}, {p.second}",
            str(p.items),
            *(
                f"{one.mean:+.2f}"
                for one in (p.alone_first, p.alone_second, p.together, p.shared, p.unique_first, p.unique_second)
            ),
            f"{p.synergy.mean:+.2f} [{p.synergy.low:+.2f}, {p.synergy.high:+.2f}]",
        )
        for p in result.pairs
    ]
    heads = ("a, b", "items", "a alone", "b alone", "together", "shared", "only a", "only b", "synergy")
    return f"What pairs of modalities tell of {result.label}, bits by probes (it has {entropy:.2f})", heads, rows


def catalogue_text(result: ExplainResult) -> RenderableType:
    """All tables, which reading to believe, and where the files are."""
    parts: list[RenderableType] = []
    for title, heads, rows in _tables(result, _half):
        parts += [Text(title, style="bold"), _table(heads, rows), Text("")]
    parts.append(Text(trust(result)))
    parts += [Text(note, style="dim") for note in result.notes]
    if result.out is not None:
        parts.append(
            Text(f"Written: {result.out / 'explain.md'}, explain.json, items.csv, {', '.join(result.figures)}")
        )
    return Group(*parts)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """The first column to the left, the others to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for at, name in enumerate(heads):
        table.add_column(name, justify="left" if at == 0 or not name else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def trust(result: ExplainResult) -> str:
    """One sentence: which readings found the exchanged cells better than chance."""
    if not result.detections:
        return "Nothing was exchanged to check the readings."
    good = [d for d in sorted(result.detections, key=lambda d: -d.found.mean) if d.difference.low > 0]
    if not good:
        return "No reading finds an exchanged cell better than chance: believe none of them for a single item."
    said = ", ".join(f"{d.name} ({d.found.mean:.0%})" for d in good)
    return f"For a single item, better than chance ({good[0].chance:.0%}) at finding a wrong cell: {said}."


def catalogue_markdown(result: ExplainResult, command: str) -> str:
    """The same tables as a file, with what each reading means."""
    lines = [
        f"# What the modalities are worth for {result.label}",
        "",
        f"Made by `{command}`, model {result.model}.",
        "",
    ]
    for title, heads, rows in _tables(result):
        lines += [f"## {title}", "", _line(heads), _line(["---"] * len(heads)), *map(_line, rows), ""]
    shown = [one.name for one in result.worth.readings]
    lines += [f"- **{name}**: {READINGS[name]}." for name in shown]
    if result.bits:
        lines.append("- **probe, bits**: what a linear probe reads of the label from the modality alone.")
    lines += ["", trust(result), "", *result.notes, ""]
    lines += [f"![{name}]({name})" for name in result.figures]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# -- an item ---------------------------------------------------------------------------------------------------------


def item_text(result: ItemResult) -> RenderableType:
    """What the modalities of one item are worth, why it matches another one, and where the pictures are."""
    parts: list[RenderableType] = []
    if result.title or result.values:  # a query has neither
        parts += [Text(f"{result.id}  {result.title}".rstrip(), style="bold"), Text("")]
    if result.values:
        score = f"{result.score} of {result.label} = {result.value}"
        parts += [Text(f"{score}: {result.full:.3f} from all, {result.empty:.3f} from nothing")]
        parts += [_values(result.values), Text("")]
    if result.match is not None:
        parts += [*_match(result.match), Text("")]
    parts += [Text(note, style="dim") for note in result.notes]
    if result.out is not None:
        parts.append(Text(f"Written: {result.out / 'explain.json'}, {', '.join(result.figures)}".rstrip(", ")))
    return Group(*parts)


def _values(values: Mapping[str, Mapping[str, float]]) -> Table:
    most = max((abs(v) for v in values["shapley"].values()), default=0.0)
    rows: list[tuple[str | Text, ...]] = [
        (name, _bar(value, most), *(_number(values[one].get(name, float("nan"))) for one in values))
        for name, value in _falling(values["shapley"])
    ]
    return _table(("modality", "", *values), rows)


def _falling(values: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda pair: -pair[1])


def _match(match: Match) -> list[RenderableType]:
    out: list[RenderableType] = []
    for side, other in zip(match.sides, (match.item, match.query), strict=False):
        out.append(Text(f"Why {side.id} and {other} are {match.score:.3f} close: what the modalities of {side.id} add"))
        most = max((abs(v) for v in side.contributions.values()), default=0.0)
        rows: list[tuple[str | Text, ...]] = [
            (name, _bar(value, most), _number(value), _number(side.without[name]), _number(side.alone[name]))
            for name, value in _falling(side.contributions)
        ]
        rows.append((Text("sum", style="dim"), "", _number(sum(side.contributions.values())), "", ""))
        out += [_table(("modality", "", "adds", "lost without", "alone"), rows), Text("")]
    if match.cross:
        columns = list(next(iter(match.cross.values())))
        cells = [(name, *(_number(row[c]) for c in columns)) for name, row in match.cross.items()]
        out.append(Text(f"Cosine of one modality of {match.query} (rows) with one of {match.item} (columns)"))
        # a heading that is empty would be read as a column of bars
        out.append(_table((" ", *columns), cells))
    return out


def _bar(value: float, most: float) -> Text:
    length = round(_BAR * abs(value) / most) if most > 0 and np.isfinite(value) else 0
    return Text(("█" * length).ljust(_BAR), style="cyan" if value >= 0 else "red")
