"""What `polymodal cluster` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.evaluate import Interval
from polymodal.tasks.clusters import Agreement, Card
from polymodal.workflow.clusters import ClusterResult

__all__ = ["cluster_text"]

_CARDS = 20


def cluster_text(result: ClusterResult) -> RenderableType:
    """Cards in lines, agreement with labels, where the files are."""
    parts: list[RenderableType] = [_cards(result.cards), Text("")]
    if result.agreements:
        parts += [_agreement("Agreement with labels", [("", one) for one in result.agreements]), Text("")]
    if result.controls:
        parts += [_agreement(f"Each modality alone, {result.controls[0][1].label}", result.controls), Text("")]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("clusters", f"{result.k} of {result.items} items")
    if result.starts > 1 and result.k > 1:
        facts.add_row("stability", f"{result.stability:.3f} over {result.starts} starts (adjusted Rand index)")
    if result.silhouettes:
        facts.add_row("silhouette", ", ".join(f"{k} {value:.3f}" for k, value in result.silhouettes.items()))
    if result.empty:
        facts.add_row("left out", f"{result.empty} items with nothing that the model reads")
    facts.add_row("page", str(result.folder / "clusters.html"))
    facts.add_row("table", str(result.folder / "assignments.parquet"))
    return Group(*parts, facts)


def _cards(cards: Sequence[Card]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "items", "cosine", "stability"):
        table.add_column(name, justify="right")
    table.add_column("most typical", max_width=34, overflow="ellipsis", no_wrap=True)
    table.add_column("telling", overflow="fold")
    for card in cards[:_CARDS]:
        name, title, _ = card.typical[0]
        told = ", ".join(f"{t.term} {t.inside}/{t.size}" for t in card.telling[:4])
        stable = "-" if card.stability != card.stability else f"{card.stability:.2f}"
        figures = (str(card.number), str(card.size), f"{card.cosine:.2f}", stable)
        table.add_row(*figures, Text(title or name), Text(told, style="dim"))
    if len(cards) > _CARDS:
        table.add_row("", "", "", "", f"… and {len(cards) - _CARDS} more on the page")
    return table


def _agreement(title: str, found: Sequence[tuple[str, Agreement]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
    named = any(what for what, _ in found)
    first, rest = ("clustered", ("items",)) if named else ("label", ("items", "values"))
    for name in (first, *rest, "NMI, 95 %", "chance", "ARI, 95 %", "purity, 95 %", "chance"):
        table.add_column(name, justify="left" if name == first else "right", no_wrap=True)
    for what, one in found:
        counts = (str(one.items),) if named else (str(one.items), str(one.values))
        nmi, purity = f"{one.by_chance['nmi']:.3f}", f"{one.by_chance['purity']:.3f}"
        shown = (_cell(one.nmi), nmi, _cell(one.ari), _cell(one.purity), purity)
        table.add_row(Text(what or one.label), *counts, *shown)
    return table


def _cell(found: Interval) -> str:
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
