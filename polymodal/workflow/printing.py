"""Results as a terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from polymodal.catalogue.prepare import Prepared
    from polymodal.workflow.demo import DemoResult
    from polymodal.workflow.evaluation import EvaluateResult
    from polymodal.workflow.indexing import IndexResult
    from polymodal.workflow.searching import SearchResult
    from polymodal.workflow.training import TrainResult
    from polymodal.workflow.vectors import EmbedResult

__all__ = [
    "demo_text",
    "embed_text",
    "evaluate_text",
    "facts_text",
    "index_text",
    "prepare_text",
    "prepared_json",
    "score_text",
    "search_text",
    "short_text",
    "train_text",
]

_BAR = 12


def facts_text(rows: Mapping[str, Any]) -> Table:
    """Names and values, one a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(str(value)))
    return table


def _counts(reasons: Mapping[str, int]) -> str:
    total = sum(reasons.values())
    return (
        f"{total} cells or files ({', '.join(f'{reason} {n}' for reason, n in reasons.items())})" if total else "none"
    )


def prepared_json(result: Prepared) -> dict[str, Any]:
    """What `prepare` left, as JSON."""
    return {
        "folder": str(result.folder),
        "rows": result.rows,
        "shards": result.shards,
        "skipped": result.skipped,
        "quarantined": result.quarantined,
        "reasons": dict(result.reasons),
        "left_out": list(result.left_out),
    }


def prepare_text(result: Prepared) -> RenderableType:
    """What `prepare` left."""
    before = f", {result.skipped} of them made before" if result.skipped else ""
    facts = {
        "shards": f"{result.shards} in {result.folder}{before}",
        "rows": result.rows,
        "set aside": _counts(result.reasons),
    }
    if result.quarantined:
        facts["listed in"] = result.folder / "quarantine.jsonl"
    if result.left_out:
        facts["left out"] = ", ".join(result.left_out)
    return facts_text(facts)


def train_text(result: TrainResult) -> RenderableType:
    """What a training run left."""
    last = result.last
    facts: dict[str, Any] = {
        "model": result.model,
        "trained": f"{result.steps} steps over {result.rows} rows in {result.precision}",
        "parameters": f"{result.parameters / 1e6:.2f} million",
    }
    if last:
        facts["last loss"] = f"{last['loss']:.3f}, {last['items_per_second']:.0f} items a second"
    if result.quarantined:
        facts["set aside"] = f"{result.quarantined} cells that could not be read"
    return facts_text({**facts, "next": f"polymodal embed {result.run} DATA --out vectors.parquet"})


def embed_text(result: EmbedResult) -> RenderableType:
    """What `embed` wrote."""
    facts: dict[str, Any] = {
        "vectors": f"{result.vectors} of {result.width} numbers in {result.out}",
        "model": result.model,
    }
    if result.empty:
        facts["left out"] = f"{result.empty} rows with nothing that the model can read"
    facts["set aside"] = _counts(result.quarantined)
    return facts_text({**facts, "next": f"polymodal index {result.out} DATA --out index"})


def index_text(result: IndexResult) -> RenderableType:
    """What `index` built."""
    facts = {
        "index": f"{result.items} items in {result.out} ({result.kind})",
        "model": result.model,
        "filters": ", ".join(result.attributes) or "none",
        "media": f"{result.media} files or pictures to show",
        "next": f"polymodal search {result.out} --text '...'   or   polymodal serve {result.out}",
    }
    return facts_text(facts)


def search_text(result: SearchResult) -> RenderableType:
    """Hits with score bars."""
    asked = ", ".join(f"{name} {short_text(value)}".removeprefix("similar ") for name, value in result.query.items())
    if not result.hits:
        return Group(Text(f"Nothing found for {asked}."), Text("Loosen the filter (--where).", style="dim"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", justify="right")
    table.add_column("score", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("title", min_width=20, overflow="fold")
    table.add_column("attributes", style="dim", max_width=56, overflow="ellipsis")
    for hit in result.hits:
        attributes = "  ".join(f"{name}={short_text(value)}" for name, value in hit["attributes"].items())
        title = Text(hit["title"]) if hit["title"] else Text("(no title)", style="dim italic")
        table.add_row(str(hit["rank"]), score_text(hit["score"]), Text(hit["id"]), title, Text(attributes))
    return Group(Text(f"{len(result.hits)} nearest to {asked}", style="bold"), table)


def score_text(score: float) -> Text:
    """A score with a bar from 0 to 1."""
    eighths = round(max(0.0, min(1.0, score)) * _BAR * 8)
    bar = "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
    return Text.assemble(f"{score:6.3f} ", (bar.ljust(_BAR), "cyan"))


def short_text(value: Any, most: int = 60) -> str:
    """A value on one line, at most `most` characters."""
    if isinstance(value, dict) and value and set(value) <= {"min", "max"}:
        # a range, as `--where` takes it
        text = f"{short_text(value.get('min', ''))}..{short_text(value.get('max', ''))}"
    elif isinstance(value, dict):
        text = ", ".join(f"{k}={short_text(v)}" for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        text = "/".join(short_text(one) for one in value)
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def evaluate_text(result: EvaluateResult) -> RenderableType:
    """Headlines, the tally, and where the report is."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column()
    table.add_column(style="dim")
    for headline in result.headlines:
        table.add_row(headline["value"], Text(headline["label"]), Text(headline["note"]))
    where = facts_text(
        {"items": result.items, "model": result.model, "report": result.html_path, "numbers": result.json_path}
    )
    return Group(table, Text(""), Text(result.tally), Text(""), where)


def demo_text(result: DemoResult) -> RenderableType:
    """The headline figures of the demo, and what to do next."""
    if not result.figures:
        return Group(
            facts_text(
                {
                    "catalogue": result.root / "catalogue",
                    "next": f"polymodal audit {result.root / 'catalogue'}   or   polymodal demo {result.root}",
                }
            )
        )
    table = Table(
        title="Items that training never saw", title_justify="left", box=None, pad_edge=False, header_style="dim"
    )
    for name in ("question", "figure", "against"):
        table.add_column(name, no_wrap=name == "figure")
    for row in _demo_rows(result.figures):
        table.add_row(*(Text(cell) for cell in row))
    seconds = sum(stage.seconds for stage in result.stages)
    root = result.root
    facts = {
        "took": f"{seconds:.0f} s",
        "report": root / "report" / "report.html",
        "search": f"polymodal search {root / 'index'} --text 'red lamp' --attr material=wood",
        "page": f"polymodal serve {root / 'index'}",
    }
    return Group(Text(""), table, Text(""), facts_text(facts))


def _demo_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = {name: one for name, one in figures["retrieval"].items() if name in ("text → image", "image → text")}
    rows = [
        (f"{name}, R@1", f"{one['r_at_1']:.1%}", f"chance {one['chance']:.2%} over {one['corpus']} items")
        for name, one in found.items()
    ]
    controls = figures["controls"]
    if "fused" in controls:
        ours, chance = controls["fused"]["map"], controls["random"]["map"]
        rows.append((f"fused, mAP of the same {figures['label']}", f"{ours:.3f}", f"random vectors {chance:.3f}"))
        alone = [name for name in controls if name.endswith(" alone")]
        hardest = min(alone, key=lambda name: controls[name]["fused_minus"], default="")
        wanted = [name for name in (hardest, "zero imputation", "mean fusion") if name in controls]
        rows += [(f"  minus {n}", f"{controls[n]['fused_minus']:+.3f}", _verdict(controls[n])) for n in wanted]
    for name, one in figures["probes"].items():
        # the two factors that the shop shows in one modality only
        if ", items with " in name and name.startswith(("sound ", "origin ")):
            rows.append((f"probe: {name}", f"{one['accuracy']:.1%}", f"always the most frequent {one['chance']:.1%}"))
    return rows


def _verdict(one: Mapping[str, Any]) -> str:
    said = {"first": "fused is better", "second": "fused is worse", "unclear": "no clear difference"}[one["verdict"]]
    return f"{said}, 95 % {one['fused_minus_low']:+.3f} to {one['fused_minus_high']:+.3f}"
