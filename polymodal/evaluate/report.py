"""The report of an evaluation: `report.json` for programs, a self-contained `report.html` for people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polymodal.evaluate.contents import Answer, Breakdown, Example, Facts, Headline, Report
from polymodal.evaluate.page import page
from polymodal.evaluate.relevance import Relevance
from polymodal.evaluate.topk import top_k
from polymodal.types import BadInput, Embeddings

__all__ = [
    "Answer",
    "Breakdown",
    "Example",
    "Facts",
    "Headline",
    "Report",
    "make_examples",
    "read_curves",
    "write_report",
]


def write_report(out_dir: Path, result: Report, *, seed: int = 0) -> tuple[Path, Path]:
    """Write `report.json` and `report.html`, each whole or not at all.

    The page needs no network and no other file; its script moves the map and nothing else. The JSON is written first
    and needs no optional package.

    Args:
        out_dir: made if it does not exist.
        seed: of the map's t-SNE.

    Returns:
        The two paths.

    Raises: MissingExtra: matplotlib (or scikit-learn, for the map) is not installed; the JSON is there.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    numbers, html = out_dir / "report.json", out_dir / "report.html"
    _write(numbers, json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write(html, page(result, seed=seed))
    return numbers, html


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def make_examples(
    task: str,
    queries: Embeddings,
    corpus: Embeddings,
    relevance: Relevance,
    *,
    count: int = 4,
    k: int = 5,
    ids: Sequence[str] | None = None,
    query_picture: bool = True,
    query_text: bool = True,
    seed: int = 0,
) -> tuple[Example, ...]:
    """Seeded, not chosen by hand: `count` random judged queries and their first k answers.

    Args:
        task: heading of each example.
        relevance: over `queries.ids` and `corpus.ids`.
        ids: show these queries instead of random ones.
        query_picture, query_text: whether the query held a picture and a text, see Example.
    """
    if ids is None:
        judged = np.flatnonzero(relevance.count > 0)
        drawn = np.random.default_rng(seed).permutation(judged)[:count]
    else:
        at = {name: row for row, name in enumerate(queries.ids)}
        unknown = [i for i in ids if i not in at]
        if unknown:
            raise BadInput("ids", "ids of queries", repr(unknown[0]))
        drawn = np.asarray([at[i] for i in ids], np.int64)
    if not len(drawn):
        return ()
    rows, scores = top_k(queries.vectors[drawn], corpus.vectors, k, ids=corpus.ids, exclude=relevance.own[drawn])
    right = relevance.gains(drawn, rows) > 0
    return tuple(
        Example(
            task,
            queries.ids[query],
            tuple(
                Answer(corpus.ids[r], float(s), bool(ok))
                for r, s, ok in zip(rows[n], scores[n], right[n], strict=True)
                if r >= 0
            ),
            query_picture,
            query_text,
        )
        for n, query in enumerate(drawn)
    )


def read_curves(path: Path, *, step: str = "step") -> dict[str, list[tuple[float, float]]]:
    """The numeric series of a `metrics.jsonl`: one JSON object a line, nested objects joined by a dot.

    Series with `total` or `loss` in their name come first. A torn last line (a run that was killed) is skipped, and so
    are lines without `step`.

    Raises: BadInput: another line is not a JSON object.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    curves: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise BadInput(f"{path.name}, line {number}", "a JSON object", line[:80]) from None
        if not isinstance(row, dict):
            raise BadInput(f"{path.name}, line {number}", "a JSON object", line[:80])
        flat = dict(_numbers(row, ""))
        at = flat.pop(step, None)
        if at is not None:
            for name, value in flat.items():
                curves.setdefault(name, []).append((at, value))
    return {name: curves[name] for name in sorted(curves, key=lambda n: ("total" not in n, "loss" not in n))}


def _numbers(row: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, dict):
            out += _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            out.append((prefix + name, float(value)))
    return out
