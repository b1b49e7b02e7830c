"""What the searches for faults found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.workflow.printing import facts_text, short_text

if TYPE_CHECKING:
    from polymodal.tasks.dedup_figures import Found
    from polymodal.tasks.ranking import Ranked
    from polymodal.workflow.completion import CompleteResult
    from polymodal.workflow.dedup import DedupResult
    from polymodal.workflow.mismatch import MismatchResult, Swapped
    from polymodal.workflow.word_completion import WordsResult

__all__ = ["complete_text", "dedup_text", "mismatch_text", "rankings_table", "words_text"]

_GROUPS = 10
_ROWS = 10
_MEMBERS = 4
_SAYS = 0.6  # how well some pair of modalities must tell true cells from exchanged ones


def rankings_table(title: str, rankings: Sequence[Ranked], auroc: bool = True) -> Table:
    """Our score above its controls."""
    measured = [*(["AUROC"] if auroc else []), "average precision", "precision at k", "ours minus this"]
    table = _table(title, ["ranked by", *measured])
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
        "similarity": f"{result.threshold:.4f} or more, {how}",
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
    return Group(*parts, facts_text(facts))


def _found(name: str, found: Found) -> RenderableType:
    k = found.rankings[0].k if found.rankings else 0
    return rankings_table(f"Pairs of {name}, k = {k}", found.rankings, auroc=False)


def _groups(result: DedupResult) -> Table:
    more = f", {len(result.groups) - _GROUPS} more" if len(result.groups) > _GROUPS else ""
    shown = min(len(result.groups), _GROUPS)
    table = Table(
        title=f"{shown} groups{more}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("alike", justify="right", no_wrap=True)
    table.add_column("title", max_width=34, overflow="ellipsis", no_wrap=True)
    table.add_column("like which, and why", overflow="fold")
    for number, group in enumerate(result.groups[:_GROUPS], 1):
        rows = [row for row in result.rows if row["group"] == number][:_MEMBERS]
        said: set[frozenset[str]] = set()
        for at, row in enumerate(rows):
            alike = "same" if row["kind"] == "identical" else f"{row['similarity']:.3f}"
            pair = frozenset((row["id"], row["nearest"]))
            why = Text("") if pair in said else Text.assemble(row["nearest"], ": ", (row["reason"], "dim"))
            said.add(pair)
            title = Text(row["title"]) if row["title"] else Text("(no title)", style="dim italic")
            table.add_row("" if at else str(number), Text(row["id"]), alike, title, why)
        if len(group.members) > _MEMBERS:
            table.add_row("", Text(f"{len(group.members) - _MEMBERS} more", style="dim"), "", "", "")
    return table


def mismatch_text(result: MismatchResult) -> RenderableType:
    """The worst items with their reasons, and the figures where something was planted or known."""
    table = _table(f"The {min(_ROWS, len(result.rows))} items that fit worst", ())
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("odds", justify="right", no_wrap=True)
    table.add_column("in doubt", no_wrap=True)
    table.add_column("title, and why", overflow="fold")
    for row in result.rows[:_ROWS]:
        title = Text(short_text(row["title"])) if row["title"] else Text("(no title)", style="dim italic")
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
    if max(result.told.values()) < _SAYS:
        facts["note"] = "the vectors of single modalities of this model cannot be compared: this order is chance"
    if result.out is not None:
        facts["listed in"] = str(result.out)
    return Group(*parts, facts_text(facts))


def _swapped(found: Swapped, known: bool) -> RenderableType:
    what = "known wrong cells" if known else f"exchanged {found.modality} cells"
    named = "" if found.named is None else f"; the right modality is named in {found.named}"
    return rankings_table(f"{found.wrong} {what}, among {found.among} items{named}", found.rankings)


def complete_text(result: CompleteResult) -> RenderableType:
    """The first proposals, and what such proposals were worth on hidden cells."""
    parts: list[RenderableType] = []
    if result.rows:
        parts += [_proposals(result), Text("")]
    for how in ("attribute", "cell"):
        what = "the attribute" if how == "attribute" else "the whole cell"
        if how in result.measured or how in result.judged:
            table = _measured(result, how, what) if result.numeric else _judged(result, how, what)
            parts += [table, Text("")]
    where = "that the model WAS trained on: too good" if result.trained else "that the model was not trained on"
    facts = {
        "attribute": f"{result.attribute}: {result.known} items have it, {result.missing} lack it",
        "proposals": f"{len(result.rows)} by {result.by}"
        + ("" if result.numeric else f", confidence {result.min_confidence:g} or more")
        + (f"; {result.silent} items have nothing to conclude from" if result.silent else ""),
        "measured on": f"items {where}",
    }
    if result.note:
        facts["note"] = result.note
    if result.out is not None:
        facts["listed in"] = str(result.out)
    return Group(*parts, facts_text(facts))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _proposals(result: CompleteResult) -> Table:
    table = _table(f"The first {min(_ROWS, len(result.rows))} of {len(result.rows)} proposals", ())
    table.add_column("id", no_wrap=True)
    table.add_column(result.attribute, no_wrap=True)
    table.add_column("interval" if result.numeric else "sure", no_wrap=True)
    if not result.numeric:
        table.add_column("else", no_wrap=True, style="dim")
    table.add_column("title", max_width=34, overflow="ellipsis", no_wrap=True)
    table.add_column("evidence", overflow="fold", style="dim")
    for row in result.rows[:_ROWS]:
        title = Text(row["title"]) if row["title"] else Text("(no title)", style="dim italic")
        if result.numeric:
            said = [f"{row['proposal']:g}", f"{row['low']:g} to {row['high']:g}"]
        else:
            said = [
                row["proposal"],
                f"{row['confidence']:.2f}",
                f"{row['runner_up']} {row['runner_up_confidence']:.2f}",
            ]
        table.add_row(Text(row["id"]), *(Text(cell) for cell in said), title, Text(row["evidence"]))
    return table


def _judged(result: CompleteResult, how: str, what: str) -> Table:
    ways = result.judged[how]
    table = _table(
        f"{ways[0].accuracy.n} cells with {what} hidden",
        ("by", "accuracy", "calibration error", "sure", "right of those", "ours minus this"),
    )
    for one in ways:
        gap = "" if one.better is None else f"{one.better.mean:+.3f} [{one.better.low:+.3f}, {one.better.high:+.3f}]"
        right = str(one.right) if one.right.n else "-"
        table.add_row(one.name, str(one.accuracy), str(one.calibration), f"{one.sure.mean:.0%}", right, gap)
    return table


def _measured(result: CompleteResult, how: str, what: str) -> Table:
    ways = result.measured[how]
    table = _table(
        f"{ways[0].error.n} cells with {what} hidden, interval of {result.min_confidence:.0%}",
        ("by", "mean error, in units", "inside the interval", "its width", "this minus ours"),
    )
    for one in ways:
        gap = "" if one.better is None else f"{one.better.mean:+.3g} [{one.better.low:+.3g}, {one.better.high:+.3g}]"
        error = f"{one.error.mean:.3g} [{one.error.low:.3g}, {one.error.high:.3g}]"
        width = "-" if one.width is None else f"{one.width:.3g}"
        table.add_row(one.name, error, str(one.covered or "-"), width, gap)
    return table


def words_text(result: WordsResult) -> RenderableType:
    """The first proposals, and how many words of hidden texts were proposed."""
    parts: list[RenderableType] = []
    if result.rows:
        title = f"The first {min(_ROWS, len(result.rows))} of {len(result.rows)} proposals"
        table = _table(title, ("id", f"words of {result.modality}", "text of the nearest item"))
        for row in result.rows[:_ROWS]:
            said = Text(row["nearest_text"][:44] or "-", style="dim")
            table.add_row(Text(row["id"]), Text(row["words"][:48]), said)
        parts += [table, Text("")]
    table = _table(
        f"{result.judged[0].precision.n} hidden texts, {result.settings['words']} words each",
        ("by", "right of the proposed", "found of the text's", "ours minus this"),
    )
    for one in result.judged:
        gap = "" if one.better is None else f"{one.better.mean:+.3f} [{one.better.low:+.3f}, {one.better.high:+.3f}]"
        table.add_row(one.name, str(one.precision), str(one.recall), gap)
    facts = {
        "modality": f"{result.modality}: {result.known} items have it, {result.missing} lack it",
        "proposals": f"{len(result.rows)} by {result.by}",
    }
    if result.note:
        facts["note"] = result.note
    if result.out is not None:
        facts["listed in"] = str(result.out)
    return Group(*parts, table, Text(""), facts_text(facts))
