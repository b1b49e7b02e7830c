"""Recommendations and their figures as a terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.workflow.printing import facts_text, score_text, short_text

if TYPE_CHECKING:
    from polymodal.evaluate import Difference, Interval
    from polymodal.workflow.recommend_eval import RecommendEvalResult, Section
    from polymodal.workflow.recommending import RecommendResult, TopicsResult

__all__ = ["eval_text", "recommend_text", "topics_text"]


def recommend_text(result: RecommendResult) -> RenderableType:
    """A list with score bars; the column of probabilities only where there is a calibration."""
    asked = ", ".join(f"{name} {short_text(value)}" for name, value in result.asked.items())
    if not result.items:
        return Group(Text(f"Nothing to recommend for {asked}."), Text("Loosen --where or --least.", style="dim"))
    likely = any(item["probability"] is not None for item in result.items)
    table = _table("", "score", *(["likely"] if likely else []), "id", "group", "title", "attributes")
    for item in result.items:
        attributes = "  ".join(f"{name}={short_text(value)}" for name, value in item["attributes"].items())
        title = Text(item["title"]) if item["title"] else Text("(no title)", style="dim italic")
        cells: list[str | Text] = [str(item["rank"]), score_text(item["score"])]
        if likely:
            cells.append("-" if item["probability"] is None else f"{item['probability']:.2f}")
        cells += [Text(item["id"]), Text(item["group"] or "-", style="dim"), title, Text(attributes)]
        table.add_row(*cells)
    return Group(Text(f"{len(result.items)} for {asked}", style="bold"), table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        if name == "title":
            table.add_column(name, min_width=20, overflow="fold")
        elif name == "attributes":
            table.add_column(name, style="dim", max_width=44, no_wrap=True, overflow="ellipsis")
        else:
            table.add_column(name, no_wrap=True, justify="right" if name in ("", "likely") else "left")
    return table


def topics_text(result: TopicsResult) -> RenderableType:
    """What was written, and the first items of the first topics."""
    facts: dict[str, Any] = {
        "lists": f"{result.topics} topics, {result.rows} rows in {result.out}",
        "recommended": f"{result.items} of {result.catalogue} items",
        "ranked again": f"{result.ranked_again} rows" if not result.why_not else f"no: {result.why_not}",
    }
    if result.refused:
        facts["refused"] = "; ".join(f"{name}: {why}" for name, why in list(result.refused.items())[:5])
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("topic", max_width=40, overflow="fold")
    table.add_column("first of its list", overflow="fold")
    for name, titles in result.first.items():
        shown = Text("  |  ".join(titles)) if titles else Text("nothing likely enough", style="dim italic")
        table.add_row(Text(name), shown)
    return Group(facts_text(facts), Text(), table)


def eval_text(result: RecommendEvalResult) -> RenderableType:
    """A table of methods and one of calibration for each kind of case."""
    parts: list[RenderableType] = []
    for section in result.sections:
        parts += [_methods(section), Text()]
        if section.calibrated:
            parts += [_calibration(section), Text()]
    parts += [Text(note, style="dim") for note in result.notes]
    if result.written is not None:
        parts.append(Text(f"Calibration written to {result.written}: polymodal recommend {result.index} --least 0.5"))
    return Group(*parts)


def _methods(section: Section) -> RenderableType:
    left = f", {section.left_out} could not be asked" if section.left_out else ""
    head = Text.assemble(
        (f"{section.kind}", "bold"),
        f"  {section.measured} of {section.cases} cases measured ({section.fitted} fitted popularity and calibration"
        f"{left}); lists of {section.k} from {section.groups} groups of {section.items} items",
    )
    # hit@k is in the JSON; a line has room for the others
    names = [name for name in section.methods[0].metrics if not name.startswith("hit")]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", no_wrap=True)
    for name in names:
        table.add_column(name, no_wrap=True)
    table.add_column("coverage", justify="right", no_wrap=True)
    table.add_column(f"{section.methods[0].name} ahead, ndcg", no_wrap=True)
    for method in section.methods:
        figures = [_interval(method.metrics[name]) for name in names]
        table.add_row(method.name, *figures, f"{method.coverage:.2f}", _behind(method.behind, section.k))
    return Group(head, table)


def _interval(value: Interval) -> str:
    return _short(f"{value.mean:.2f} [{value.low:.2f} {value.high:.2f}]") if value.mean == value.mean else "-"


def _short(figures: str) -> str:
    """Without the zeros before the points: a line is 120 characters."""
    return figures.replace("0.", ".")


def _behind(behind: Mapping[str, Difference], k: int) -> str:
    found = behind.get(f"ndcg@{k}")
    return "" if found is None else _short(f"{found.mean:+.3f} [{found.low:+.3f} {found.high:+.3f}]")


def _calibration(section: Section) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("asked", "probability", "calibration error", "Brier", "pairs", "right"):
        table.add_column(name, no_wrap=True)
    for asked, one in section.calibrated.items():
        for way, error in one.error.items():
            figures = f"{error.mean:.3f} [{error.low:.3f} {error.high:.3f}]"
            table.add_row(asked, way, figures, f"{one.brier[way]:.4f}", str(one.pairs), f"{one.right:.3f}")
    return table
