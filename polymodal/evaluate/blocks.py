"""The pieces the page is built from: sections, tables, figures, cards."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polymodal.evaluate.contents import Report
from polymodal.evaluate.intervals import Difference, Interval
from polymodal.evaluate.pictures import data_uri
from polymodal.evaluate.robustness import Cell
from polymodal.evaluate.summary import Statement
from polymodal.evaluate.values import Subset

__all__ = ["Section", "card", "esc", "figure", "heat_table", "score", "scored", "table", "verdict_table"]

_SHADES = ((0.15, "#e3f0f0"), (0.35, "#b9dcd9"), (0.55, "#6db6b6"), (0.75, "#26818c"), (1.01, "#145a72"))
_BADGES = {"first": "wins", "second": "does not win", "unclear": "unclear"}


def esc(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=True)


@dataclass(frozen=True)
class Section:
    """One section; `body` is HTML, empty = nothing to show."""

    name: str
    title: str
    lead: str
    body: str

    def html(self, command: str) -> str:
        made = f'<span class="command">Made by <code>{esc(command)}</code></span>' if command else ""
        lead = f'<p class="lead">{esc(self.lead)}</p>' if self.lead else ""
        return f'<section id="{self.name}"><h2>{esc(self.title)}</h2>{lead}{self.body}{made}</section>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table; a heading that starts with `n:` marks a column of numbers.

    Cells are HTML, made by the caller; `kind` is a class of the page's style.
    """
    numeric = [h.startswith("n:") for h in head]
    top = "".join(f'<th{_class(n)} scope="col">{h.removeprefix("n:")}</th>' for h, n in zip(head, numeric, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{_class(n)}>{cell}</td>" for cell, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    shown = f"<thead><tr>{top}</tr></thead>" if any(h.removeprefix("n:") for h in head) else ""
    return f'<div class="scroll"><table class="{kind}">{shown}<tbody>{body}</tbody></table></div>'


def _class(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def score(interval: Interval) -> str:
    """Mean and interval as a cell."""
    if interval.n == 0:
        return "–"
    return f'{interval.mean:.3f} <span class="ci">{interval.low:.3f}–{interval.high:.3f}</span>'


def scored(difference: Difference | None) -> str:
    """A paired difference as a cell."""
    if difference is None or difference.n == 0:
        return "–"
    mean, low, high = (f"{x:+.3f}".replace("-", "−") for x in (difference.mean, difference.low, difference.high))
    return f'{mean} <span class="ci">{low} to {high}</span>'


def figure(svg: str, caption: str, *, wide: bool = False) -> str:
    """A figure that scrolls by itself on a narrow screen."""
    said = f"<figcaption>{esc(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll{" wide" if wide else ""}">{svg}</div>{said}</figure>'


def verdict_table(said: Sequence[Statement], reference: str) -> str:
    """Who won, one line for each control and task."""
    rows, before = [], ""
    for line in said:
        badge = f'<span class="badge {line.verdict}">{_BADGES[line.verdict]}</span>'
        against = f"<b>{esc(line.control)}</b>" if line.control != before else ""
        made = f"<br><span class='ci'>from {esc(line.where)}, {line.difference.n:,} items</span>"
        rows.append((against, esc(line.task) + made, badge, scored(line.difference)))
        before = line.control
    return table((f"{esc(reference)} against", "task", "", f"n:{esc(reference)} minus control"), rows, kind="verdicts")


def heat_table(names: Sequence[str], singles: Sequence[Subset], cells: Mapping[tuple[Subset, Subset], Cell]) -> str:
    """R@1 between single modalities, with interval and chance."""
    top = "".join(f'<th scope="col">{esc(n)}</th>' for n in names)
    most = max(c.metrics["hit@1"].mean for c in cells.values() if c.query in singles and c.target in singles)
    body = ""
    for name, query in zip(names, singles, strict=True):
        row = "".join(_heat_cell(cells.get((query, target)), most) for target in singles)
        body += f'<tr><th scope="row">{esc(name)}</th>{row}</tr>'
    head = f"<thead><tr><th></th>{top}</tr></thead>"
    return f'<div class="scroll"><table class="heat">{head}<tbody>{body}</tbody></table></div>'


def _heat_cell(cell: Cell | None, most: float) -> str:
    if cell is None:
        return '<td class="none">·</td>'
    found = cell.metrics["hit@1"]
    share = found.mean / most if most > 0 else 0.0
    shade = next(colour for limit, colour in _SHADES if share < limit)
    ink = "#ffffff" if share >= 0.55 else "#17323c"
    small = f"{100 * found.low:.0f}–{100 * found.high:.0f} · {100 * cell.chance.get('hit@1', 0):.2g}"
    return f'<td style="background:{shade};color:{ink}">{100 * found.mean:.1f}<small>{small}</small></td>'


def card(name: str, result: Report, kind: str, note: str, *, picture: bool = True, text: bool = True) -> str:
    """One item: picture if there is one, title, one more line. `note` is HTML.

    `picture`, `text`: False leaves that part out, for a query that did not hold it.
    """
    uri = data_uri(result.thumbnails[name]) if picture and name in result.thumbnails else None
    title = esc(result.titles.get(name, name) if text else name)
    shown = (
        f'<img src="{uri}" alt="{title}">'
        if uri
        else f"<span>{'no picture' if picture else 'asked without a picture'}</span>"
    )
    extra = result.descriptions.get(name, "") if picture and text else ""
    more = f"<small>{esc(extra)}</small>" if extra else ""
    return (
        f'<div class="card {kind}"><div class="picture">{shown}</div>'
        f'<div class="text"><b>{title}</b>{more}<small>{note}</small></div></div>'
    )
