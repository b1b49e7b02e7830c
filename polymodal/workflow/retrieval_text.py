"""What `polymodal retrieve` and `polymodal tune-matcher` found, as a terminal shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polymodal.evaluate import Interval
from polymodal.workflow.matcher_tuning import TuneResult
from polymodal.workflow.retrieval import Finding, RetrieveResult

__all__ = ["retrieve_text", "tune_text"]

_VERDICTS = {"first": "better", "second": "worse", "unclear": "no clear difference"}


def retrieve_text(result: RetrieveResult) -> RenderableType:
    """A table for each judgement, the differences, the costs, the notes."""
    (queries, asked), (corpus, made) = result.queries, result.corpus
    head = Text.assemble(
        (f"{queries} queries", "bold"), f" from {asked}, ", (f"{corpus} items", "bold"), f" from {made}"
    )
    parts: list[RenderableType] = [head]
    for finding in result.findings:
        parts += [Text(""), _table(finding, result.cut), *_gaps(finding, result.cut)]
    parts += [Text(""), _costs(result)]
    parts += [*_learnt(result), *(Text(note, style="dim") for note in result.notes)]
    if result.out is not None:
        parts.append(Text(f"TREC runs and qrels, and all metrics as JSON: {result.out}", style="dim"))
    return Group(*parts)


def _table(finding: Finding, cut: int) -> Table:
    table = Table(
        title=f"Right: {finding.title}", title_justify="left", title_style="bold", box=None, pad_edge=False,
        header_style="dim",
    )  # fmt: skip
    # hit@1 is what cross-modal papers call R@1
    columns = {"hit@1": "hit@1", **{k: f"{m}@{cut}" for k, m in _names(cut).items()}, "MRR": "mrr"}
    some = next(iter(finding.systems.values())).metrics
    columns = {title: metric for title, metric in columns.items() if metric in some}
    last = [f"SCALE's mAP@{cut}"] if finding.scale else []
    for title in ("", *columns, *last):
        table.add_column(title, no_wrap=True, justify="left" if not title else "right")
    for name, found in finding.systems.items():
        cells = [_cell(found.metrics[metric]) for metric in columns.values()]
        table.add_row(name, *cells, *(f"{finding.scale[name][f'map@{cut}'].mean:.3f}" for _ in last))
    chance = next(iter(finding.systems.values())).chance
    expected = [f"{chance[metric]:.3f}" if metric in chance else "" for metric in columns.values()]
    table.add_row(Text("a random order", style="dim"), *(Text(cell, style="dim") for cell in expected))
    return table


def _names(cut: int) -> dict[str, str]:
    return {f"mAP@{cut}": "map", f"P@{cut}": "precision", f"R@{cut}": "recall", f"nDCG@{cut}": "ndcg"}


def _cell(value: Interval) -> str:
    """Half the width of the interval, as 120 columns have no room for both ends; those are in the JSON."""
    half = f"{(value.high - value.low) / 2:.3f}".removeprefix("0")
    return f"{value.mean:.3f} ±{half}"


def _gaps(finding: Finding, cut: int) -> list[Text]:
    lines = []
    for (first, second), gap in finding.differences.items():
        said = f"{first} against {second}, mAP@{cut}: {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], "
        lines.append(Text.assemble((said, "dim"), (_VERDICTS[gap.verdict], "" if gap.verdict == "unclear" else "bold")))
    return lines


def _learnt(result: RetrieveResult) -> list[Text]:
    lines = []
    for finding in result.findings:
        for name, blend in result.learnt.get(finding.name, {}).items():
            weights = ", ".join(f"{feature} {weight:+.2f}" for feature, weight in blend.told().items())
            said = f"{name}, {finding.title}: learnt on {blend.queries} queries; a deviation of each counts {weights}."
            lines.append(Text(said, style="dim"))
    return lines


def _costs(result: RetrieveResult) -> Table:
    table = Table(
        title="What each costs", title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for title in ("", "encodings", "pair passes", "CPU seconds"):
        table.add_column(title, no_wrap=True, justify="left" if not title else "right")
    for name, cost in result.costs.items():
        table.add_row(name, f"{cost.encodings:,}", f"{cost.pairs:,}", f"{cost.seconds:.2f}")
    return table


def tune_text(result: TuneResult) -> RenderableType:
    """What was learnt from, the losses, and what to do next."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    facts = {
        "tuned on": f"{result.pairs:,} right pairs of {result.queries:,} queries and {result.items:,} items",
        "left out": f"{result.left_out:,} queries of other splits, {result.unread:,} whose items cannot be read",
        "loss": ", ".join(f"{loss:.3f}" for loss in result.losses),
        "took": f"{result.seconds:.0f} CPU seconds",
        "model": result.out,
        "next": f"polymodal retrieve MODEL DATA --pairs LOG --rerank 100 --matcher {result.out}",
    }
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))
    return Group(table, *(Text(note, style="dim") for note in result.notes))
