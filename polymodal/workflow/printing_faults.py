"""What the searches for faults found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from polymodal.tasks.dedup_figures import Found
    from polymodal.tasks.ranking import Ranked
    from polymodal.workflow.dedup import DedupResult
    from polymodal.workflow.mismatch import MismatchResult, Swapped

__all__ = ["dedup_text", "facts_table", "mismatch_text", "rankings_table"]

_GROUPS = 10
_ROWS = 10


def facts_table(rows: Mapping[str, Any]) -> Table:
    """Names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(str(value)))
    return table


def rankings_table(title: str, rankings: Sequence[Ranked], auroc: bool = True) -> Table:
    """Our score above its controls."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column("ranked by", no_wrap=True)
    for name in (*(["AUROC"] if auroc else []), "average precision", "precision at k", "ours minus this"):
        table.add_column(name, no_wrap=True)
    for one in rankings:
        gap = "" if one.better is None else f"{one.better.mean:+.3f} [{one.better.low:+.3f}, {one.better.high:+.3f}]"
        cells = [str(one.auroc)] if auroc else []
        table.add_row(one.name, *cells, str(one.average_precision), str(one.precision), gap)
    return table


def dedup_text(result: DedupResult) -> RenderableType:
    """The first groups, and the figures where something was planted or known."""
    how = "derived from planted copies" if result.derived else "as given"
    identical = sum(row["kind"] == "identical" for row in result.rows)
    facts = {
        "items": f"{result.items}, {len(result.rows)} of them in {len(result.groups)} groups, {identical} identical",
        "similarity": f"{result.threshold:.3f} or more, {how}",
    }
    parts: list[RenderableType] = []
    if result.groups:
        parts += [_groups(result), Text("")]
    for name, found in (("planted copies", result.planted), ("known duplicates", result.known)):
        if found is not None:
            facts[name] = f"precision {found.precision}, recall {found.recall} of {found.known} at this similarity"
            parts += [_found(name, found), Text("")]
    if result.out is not None:
        facts["listed in"] = str(result.out)
    return Group(*parts, facts_table(facts))


def _found(name: str, found: Found) -> RenderableType:
    k = found.rankings[0].k if found.rankings else 0
    return rankings_table(f"Pairs of {name}, k = {k}", found.rankings, auroc=False)


def _groups(result: DedupResult) -> Table:
    more = f", {len(result.groups) - _GROUPS} more" if len(result.groups) > _GROUPS else ""
    shown = min(len(result.groups), _GROUPS)
    table = Table(
        title=f"{shown} groups{more}", title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("alike", justify="right", no_wrap=True)
    table.add_column("title", max_width=34, overflow="ellipsis", no_wrap=True)
    table.add_column("like which, and why", overflow="fold")
    said: set[frozenset[str]] = set()
    for at, row in enumerate(result.rows):
        if row["group"] > _GROUPS:
            break
        first = at == 0 or result.rows[at - 1]["group"] != row["group"]
        alike = "same" if row["kind"] == "identical" else f"{row['similarity']:.3f}"
        pair = frozenset((row["id"], row["nearest"]))
        why = Text("") if pair in said else Text.assemble(row["nearest"], ": ", (row["reason"], "dim"))
        said.add(pair)
        title = Text(row["title"]) if row["title"] else Text("(no title)", style="dim italic")
        table.add_row(str(row["group"]) if first else "", Text(row["id"]), alike, title, why)
    return table


def mismatch_text(result: MismatchResult) -> RenderableType:
    """The worst items with their reasons, and the figures where something was planted or known."""
    table = Table(
        title=f"The {min(_ROWS, len(result.rows))} items that fit worst",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("odds", justify="right", no_wrap=True)
    table.add_column("in doubt", no_wrap=True)
    table.add_column("title, and why", overflow="fold")
    for row in result.rows[:_ROWS]:
        title = Text(row["title"]) if row["title"] else Text("(no title)", style="dim italic")
        near = f"nearest by it {row['nearest_by_it'] or '-'}, by the rest {row['nearest_by_rest'] or '-'}"
        why = Group(title, Text(row["reason"], style="dim"), Text(near, style="dim"))
        table.add_row(str(row["rank"]), Text(row["id"]), f"{row['odds']:.1f}", Text(row["modality"]), why)
    parts: list[RenderableType] = [table, Text("")]
    for found in (*result.planted, *([result.known] if result.known is not None else [])):
        parts += [_swapped(found, found is result.known), Text("")]
    told = sorted(result.told.items(), key=lambda one: -one[1])
    facts = {
        "judged": f"{result.judged} of {result.items} items; the others have nothing to compare",
        "what tells": ", ".join(f"{a} ~ {b} {value:.2f}" for (a, b), value in told) + " (0.5: nothing)",
    }
    if result.out is not None:
        facts["listed in"] = str(result.out)
    return Group(*parts, facts_table(facts))


def _swapped(found: Swapped, known: bool) -> RenderableType:
    what = "known wrong cells" if known else f"exchanged {found.modality} cells"
    named = "" if found.named is None else f"; the right modality is named in {found.named}"
    return rankings_table(f"{found.wrong} {what}, among {found.among} items{named}", found.rankings)
