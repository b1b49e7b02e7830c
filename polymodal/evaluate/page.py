"""The report as one HTML page: which sections there are, in which order."""

from __future__ import annotations

from collections.abc import Iterator

from polymodal.evaluate import plots
from polymodal.evaluate.blocks import (
    Section,
    card,
    esc,
    figure,
    heat_table,
    score,
    scored,
    table,
    verdict_table,
)
from polymodal.evaluate.contents import Breakdown, Example, Facts, Report
from polymodal.evaluate.leak import leak_warning
from polymodal.evaluate.retrieval import Retrieval
from polymodal.evaluate.robustness import SubsetMatrix
from polymodal.evaluate.space import space_map
from polymodal.evaluate.style import CSS
from polymodal.evaluate.summary import statements, tally
from polymodal.evaluate.values import subset_name

__all__ = ["page"]


def page(result: Report, *, seed: int = 0) -> str:
    """The whole document. Every text that came from a catalogue is escaped."""
    sections = [section for section in _sections(result, seed) if section.body]
    links = "".join(f'<li><a href="#{s.name}">{esc(s.title)}</a></li>' for s in sections)
    body = "".join(s.html(result.commands.get(s.name, result.command)) for s in sections)
    made = f"Made {esc(result.made)}. " if result.made else ""
    notes = "".join(f"<p>{esc(note)}</p>" for note in result.notes)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(result.title)}</title><style>{CSS}</style></head><body><div class='frame'>"
        f'<nav aria-label="Contents"><strong>Contents</strong><ol>{links}</ol></nav><main>'
        f'<header><p class="eyebrow">polymodal evaluation</p><h1>{esc(result.title)}</h1>'
        f'<span class="command">Made by <code>{esc(result.command)}</code></span></header>'
        f"{body}<footer>{notes}<p>{made}Intervals are 95 % percentile bootstrap intervals over items, "
        "over groups where items have one. "
        "All search is exact; ties are ordered by id.</p></footer></main></div></body></html>\n"
    )


def _sections(result: Report, seed: int) -> Iterator[Section]:
    yield _summary(result)
    if result.facts is not None:
        yield _facts(result.facts)
    yield _retrievals(result)
    if result.matrix is not None and result.matrix.cells:
        yield _matrix(result, result.matrix)
    yield _controls(result)
    yield _probes(result)
    yield _breakdowns(result.breakdowns)
    yield _weights(result)
    yield _curves(result)
    yield _space(result, seed)
    yield _examples(result)


def _summary(result: Report) -> Section:
    tiles = "".join(
        f'<div class="tile"><b>{esc(h.value)}</b><span>{esc(h.label)}</span><small>{esc(h.note)}</small></div>'
        for h in result.headlines
    )
    body = f'<div class="tiles">{tiles}</div>' if tiles else ""
    leaking = leak_warning(result.leaks)
    body += f'<p class="warning">{esc(leaking)}</p>' if leaking else ""
    for comparison in result.comparisons:
        said = statements(comparison)
        if said:
            body += f"<p class='said'>{esc(tally(said, comparison.reference))}</p>"
            body += verdict_table(said, comparison.reference)
    lead = "The headline numbers, and whether the learned vector beats what it has to beat."
    return Section("summary", "Summary", lead, body)


def _facts(facts: Facts) -> Section:
    rows = [("items", f"{facts.rows:,}"), *((f"split {name}", f"{n:,}") for name, n in facts.splits.items())]
    rows += [(f"values of {name}", f"{n:,}") for name, n in facts.labels.items()]
    rows.append(("cells that could not be read", f"{facts.quarantined:,}"))
    counts = table(("", "n:count"), [(esc(a), b) for a, b in rows])
    meter = '<span class="meter" aria-hidden="true"><i style="width:{:.1f}%"></i></span>'
    present = table(
        ("modality", "", "n:present"),
        [(esc(m), meter.format(100 * share), f"{100 * share:.1f} %") for m, share in facts.presence.items()],
    )
    patterns = table(
        ("what an item has", "n:items", "n:share"),
        [(esc(_pattern(p)), f"{n:,}", f"{100 * n / max(facts.rows, 1):.1f} %") for p, n in facts.patterns],
    )
    body = f'<div class="pair"><div>{counts}</div><div>{present if facts.presence else ""}</div></div>'
    if facts.patterns:
        body += f"<h3>Patterns of presence</h3>{patterns}"
    return Section("facts", "The catalogue", "What was evaluated, and how much of it is missing.", body)


def _pattern(pattern: frozenset[str]) -> str:
    return subset_name(pattern) if pattern else "nothing"


# the columns of the one table; hit@k is the R@k of cross-modal papers. Of the names of a column the first that was
# measured counts: where a single item is right, mAP is MRR
_COLUMNS = {"R@1": ("hit@1",), "R@5": ("hit@5",), "R@10": ("hit@10",), "mAP": ("map", "mrr")}


def _retrievals(result: Report) -> Section:
    """One line for each thing that was looked for; all metrics and cut-offs are folded below it."""
    found = result.retrievals
    columns = [
        name for name in _COLUMNS if any(metric in one.metrics for one in found.values() for metric in _COLUMNS[name])
    ]
    rows = [
        (_unbroken(name), f"{one.queries - one.unjudged:,}", f"{one.corpus:,}", *(_compact(one, c) for c in columns))
        for name, one in found.items()
    ]
    body = ""
    if rows:
        head = ("what looks for what", "n:queries", "n:among", *(f"n:{c}" for c in columns))
        folded = "".join(_in_full(name, one) for name, one in found.items())
        body = table(head, rows) + f"<details><summary>All metrics and cut-offs of each</summary>{folded}</details>"
    lead = (
        "Below each mean its 95 % interval and, after the dot, what a random ranking is expected to reach. "
        "Where a single item is right, mAP is MRR."
    )
    return Section("retrieval", "Retrieval", lead, body)


def _unbroken(name: str) -> str:
    return esc(name).replace(" ", "\N{NO-BREAK SPACE}")


def _compact(found: Retrieval, column: str) -> str:
    metric = next((name for name in _COLUMNS[column] if name in found.metrics), None)
    if metric is None:
        return "–"
    one = found.metrics[metric]
    luck = f" · {found.chance[metric]:.3f}" if metric in found.chance else ""
    return f"{one.mean:.3f}<br><span class='ci'>{one.low:.3f}–{one.high:.3f}{luck}</span>"


def _in_full(name: str, found: Retrieval) -> str:
    unjudged = f", {found.unjudged:,} queries without a right answer left out" if found.unjudged else ""
    said = f"{found.queries:,} queries, {found.corpus:,} items to find among{unjudged}."
    return f"<h3>{esc(name)}</h3><p class='muted'>{said}</p>{_by_cut(found)}"


def _by_cut(found: Retrieval) -> str:
    """One row per metric, one column per cut-off."""
    pairs = [(kind, cut or "all") for kind, _, cut in (m.partition("@") for m in found.metrics)]
    cuts = sorted({cut for _, cut in pairs}, key=lambda c: (c == "all", int(c) if c != "all" else 0))
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in pairs):
        names = [kind if cut == "all" else f"{kind}@{cut}" for cut in cuts]
        rows.append((esc(kind), *(_with_chance(found, name) for name in names)))
    return table(("metric", *("n:whole list" if c == "all" else f"n:first {c}" for c in cuts)), rows)


def _with_chance(found: Retrieval, metric: str) -> str:
    if metric not in found.metrics:
        return ""
    luck = f"<br><span class='ci'>chance {found.chance[metric]:.3f}</span>" if metric in found.chance else ""
    return score(found.metrics[metric]) + luck


def _matrix(result: Report, matrix: SubsetMatrix) -> Section:
    singles = [frozenset({m}) for m in matrix.modalities]
    cells = {(c.query, c.target): c for c in matrix.cells}
    known = [c for pair, c in cells.items() if pair[0] in singles and pair[1] in singles]
    body = ""
    if known:
        body += "<h3>From one modality to another: R@1, %</h3>" + heat_table(matrix.modalities, singles, cells)
        body += "<p class='muted'>Below each number its 95 % interval, and chance. Rows ask, columns answer.</p>"
    subsets, _ = matrix.grid("hit@1")
    if len(subsets) > len(singles):
        drawn = plots.matrix_map(matrix, "hit@1", "matrix")
        body += "<h3>From every subset to every other: R@1, %</h3>" + figure(
            drawn,
            "Each row is a query made from the marked modalities, each column a corpus made from the marked "
            "modalities of the same items. Empty: the two share a modality, or no item has both.",
            wide=True,
        )
    rows = [
        (
            esc(subset_name(c.query)),
            esc(subset_name(c.target)),
            f"{c.queries:,}",
            f"{c.corpus:,}",
            *(score(c.metrics[m]) for m in ("hit@1", "hit@5", "hit@10", "mrr")),
            f"{c.chance.get('hit@1', 0):.4f}",
        )
        for c in matrix.cells
    ]
    head = ("query", "answers", "n:queries", "n:corpus", "n:R@1", "n:R@5", "n:R@10", "n:MRR", "n:chance R@1")
    body += f"<details><summary>All {len(rows)} cells with intervals</summary>{table(head, rows)}</details>"
    if result.subset_scores:
        body += (
            "<details><summary>Each subset alone: same-label retrieval and k-NN accuracy</summary>"
            + table(
                ("made from", "n:items", "n:label mAP", "n:k-NN accuracy"),
                [
                    (esc(subset_name(s.subset)), f"{s.items:,}", score(s.label_map), score(s.label_knn))
                    for s in result.subset_scores
                ],
            )
            + "</details>"
        )
    lead = "An item's vector made from some of its modalities looks for the same item's vector made from others."
    return Section("matrix", "Subset to subset", lead, body)


def _controls(result: Report) -> Section:
    parts = []
    for number, comparison in enumerate(result.comparisons):
        if not comparison.scores:
            continue
        drawn = plots.control_bars(comparison, f"controls{number}")
        shown = figure(
            drawn,
            "Bars: mean over items (each item's mean over its subsets of that size); lines: 95 % "
            "intervals. “As is”: whatever each item has.",
        )
        rows = [
            (str(s.size), esc(s.control), esc(s.metric), score(s.score), scored(s.difference)) for s in comparison.sizes
        ]
        rows += [
            (
                "as is" if not d.subset else esc(subset_name(d.subset)),
                esc(d.control),
                esc(d.metric),
                "",
                scored(d.difference),
            )
            for d in comparison.differences
        ]
        ours = esc(comparison.reference)
        head = ("modalities", "control", "metric", "n:mean, 95 % interval", f"n:{ours} minus control")
        title = f"<h3>Label: {esc(comparison.label)}</h3>"
        parts.append(f"{title}{shown}<details><summary>All paired differences</summary>{table(head, rows)}</details>")
    lead = "The same items, the same questions, other ways to make the vector. Differences are paired by item."
    return Section("controls", "Against the controls", lead, "".join(parts))


def _probes(result: Report) -> Section:
    body = ""
    if result.probes:
        body += table(
            ("what", "method", "n:classes", "n:tested", "n:accuracy", "n:balanced", "n:chance"),
            [
                (
                    esc(p.name),
                    esc(p.method),
                    f"{p.classes}",
                    f"{p.tested:,}",
                    score(p.accuracy),
                    score(p.balanced),
                    f"{p.chance:.3f}",
                )
                for p in result.probes
            ],
        )
        for probe in result.probes:
            bands = "; ".join(f"{b.name} {b.score.mean:.3f} (n = {b.n})" for b in probe.bands)
            rows = [(esc(c.name), f"{c.n:,}", score(c.score)) for c in probe.per_class]
            body += (
                f"<details><summary>{esc(probe.name)}, {esc(probe.method)}: per class</summary>"
                f"<p class='muted'>{esc(bands)}</p>{table(('class', 'n:tested', 'n:recall'), rows)}</details>"
            )
    if result.regressions:
        numbers = [(esc(r.name), f"{r.trained:,}", f"{r.tested:,}", score(r.r2)) for r in result.regressions]
        body += "<h3>Numbers, by ridge regression</h3>" + table(("what", "n:trained", "n:tested", "n:R²"), numbers)
    body += _clusters(result)
    lead = "Classifiers and clusters on the frozen vectors. A factor that a linear probe finds is in the vector."
    return Section("probes", "What the vector knows", lead, body)


def _clusters(result: Report) -> str:
    body = ""
    if result.clusterings:
        head = ("label", "n:k", "n:items", "n:NMI", "n:purity", "n:ARI")
        rows = [
            (
                esc(c.name),
                f"{c.k}",
                f"{c.items:,}",
                *(_spread(*pair) for pair in ((c.nmi, c.nmi_std), (c.purity, c.purity_std), (c.ari, c.ari_std))),
            )
            for c in result.clusterings
        ]
        body += f"<h3>Clusters, by k-means</h3>{table(head, rows)}"
        body += "<p class='muted'>Mean and standard deviation over seeds.</p>"
    if result.geometry:
        shape = [
            (esc(name), f"{g.items:,}", f"{g.effective_rank:.1f} of {g.width}", f"{g.uniformity:.3f}")
            for name, g in result.geometry.items()
        ]
        body += "<h3>Shape of the space</h3>"
        body += table(("vectors", "n:items", "n:effective rank", "n:uniformity"), shape)
    return body


def _spread(mean: float, deviation: float) -> str:
    return f"{mean:.3f} ± {deviation:.3f}"


def _breakdowns(breakdowns: tuple[Breakdown, ...]) -> Section:
    body = "".join(
        f"<div><h3>{esc(b.title)}</h3>"
        + table(("", "n:items", f"n:{esc(b.metric)}"), [(esc(r.name), f"{r.n:,}", score(r.score)) for r in b.rows])
        + "</div>"
        for b in breakdowns
    )
    lead = "Where the vector is good and where it is not."
    return Section("breakdowns", "By pattern and frequency", lead, f'<div class="pair">{body}</div>' if body else "")


def _weights(result: Report) -> Section:
    maps = "".join(
        f"<div><h3>{esc(run)}</h3>{figure(plots.weights_map(w, f'weights{number}'), '')}</div>"
        for number, (run, w) in enumerate(result.weights.items())
    )
    body = f'<div class="pair">{maps}</div>' if maps else ""
    if result.correlations:
        rows = [
            (esc(name), f"{c.rho:+.3f}", f"{c.p:.3f}", f"{c.n}", "all orders" if c.exact else "drawn orders")
            for name, c in result.correlations.items()
        ]
        body += "<h3>Do the weights say which modality is useful?</h3>" + table(
            ("compared", "n:Spearman's rho", "n:p", "n:points", "p from"), rows
        )
    lead = "How strongly each pair of modalities is weighted, averaged over the items that have both."
    return Section("weights", "Harmonised weights", lead, body)


def _curves(result: Report) -> Section:
    body = figure(plots.curve_panels(result.curves, "curves"), "") if result.curves else ""
    return Section("curves", "Training", "What the trainer logged; the dark line is a running mean.", body)


def _space(result: Report, seed: int) -> Section:
    if result.space is None or len(result.space) < 2:
        return Section("space", "Map of the space", "", "")
    body, lead = space_map(result, seed=seed)
    return Section("space", "Map of the space", lead, body)


def _examples(result: Report) -> Section:
    body = "".join(_example(example, result) for example in result.examples)
    return Section("examples", "Examples", "Queries drawn at random (seeded), with their first answers.", body)


def _example(example: Example, result: Report) -> str:
    shown = {"picture": example.query_picture, "text": example.query_text}
    cards = card(example.query, result, "query", "the query", **shown)
    for rank, answer in enumerate(example.answers, 1):
        mark = "✓ right" if answer.right else "✗ wrong"
        note = f'<span class="mark">{mark}</span> · {rank} · {answer.score:.3f}'
        cards += card(answer.id, result, "right" if answer.right else "wrong", note)
    return f'<div class="example"><h3>{esc(example.task)}</h3><div class="row">{cards}</div></div>'
