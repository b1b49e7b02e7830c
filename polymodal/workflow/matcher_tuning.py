"""A model with a matching head and a query log in, a model whose head knows those queries out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.embed import export, model_folder
from polymodal.match import Matcher
from polymodal.tasks.tune_matcher import TuneConfig, likely_wrong, tune_matcher
from polymodal.types import BadInput
from polymodal.workflow.files import folder_aside
from polymodal.workflow.opened import Opened, open_task
from polymodal.workflow.pairs import QueryLog, open_log, text_modality
from polymodal.workflow.records import check_names
from polymodal.workflow.sides import Side, side_of_records, side_of_rows
from polymodal.workflow.training import split_rows

__all__ = ["TuneResult", "tune_data"]

Ints = npt.NDArray[np.int64]
_MOST_ITEMS = 20_000  # held in memory, decoded


@dataclass(frozen=True)
class TuneResult:
    """What fine-tuning left.

    Args:
        out: folder with the model, and with tuning.json.
        queries, items, pairs: that it learnt from.
        left_out: queries of the log that were not used, because some of their items are of another split.
        unread: those whose items lack what items are made of.
        losses: mean of every epoch.
        seconds: of CPU time.
    """

    out: Path
    queries: int
    items: int
    pairs: int
    left_out: int
    unread: int
    losses: tuple[float, ...]
    seconds: float
    config: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "out": str(self.out), "losses": list(self.losses), "notes": list(self.notes)}


def tune_data(
    model: Path,
    data: Path,
    pairs: Path,
    out: Path,
    config: TuneConfig | None = None,
    *,
    columns: tuple[str, str] = ("query", "id"),
    query_modality: str | None = None,
    corpus: tuple[str, ...] = (),
    split: str = "train",
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> TuneResult:
    """Fine-tune the matching head of a model on a query log.

    Learnt from are the queries whose items are all of `split`; wrong answers are items and queries of it: nothing of
    an item of another split is seen.

    Args:
        pairs: a table of words and the id or the group of an item; `columns` of it.
        query_modality: the text that words are put into; the model's only one by default.
        corpus: modalities that items are made of; () as they are.
        out: a new folder.

    Raises:
        BadInput: a model without a matching head, no pair in the split, a folder that holds something.
    """
    config = config or TuneConfig()
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise BadInput("--out", "a new or empty folder", out)
    opened = open_task(model, data, device, progress)
    matcher = Matcher(opened.embedder)
    known = [name for name in opened.embedder.modalities if name in opened.rows.modalities]
    check_names("--corpus", corpus, known, "modalities of the model and the data")
    log = open_log(pairs, opened.rows, columns)
    start = time.process_time()
    queries, items, right = _sides(
        opened, log, split, text_modality(opened.embedder.modalities, query_modality), corpus
    )
    spared = _spared(opened, items, right, len(queries.ids))
    wrong = likely_wrong(queries.vectors, items.vectors, spared, config.pool)
    losses = tune_matcher(
        matcher.embedder,
        queries.fetch(range(len(queries.ids))),
        items.fetch(range(len(items.ids))),
        right,
        wrong,
        config,
        None if progress is None else lambda done, total: progress("tuning", done, total),
    )
    chosen = len(log.of_split(split))
    made = TuneResult(
        out, len(queries.ids), len(items.ids), len(right), len(log.texts) - chosen, chosen - len(queries.ids),
        tuple(losses), round(time.process_time() - start, 2), config.model_dump(),
        (*log.notes, *(() if log.has_splits else ("The data has no splits: it cannot measure what was tuned on it.",))),
    )  # fmt: skip
    _write(out, model, opened, made)
    return made


def _sides(
    opened: Opened, log: QueryLog, split: str, modality: str, corpus: tuple[str, ...]
) -> tuple[Side, Side, Ints]:
    """Queries, items, and the right pairs (P, 2) of places among them."""
    chosen = log.of_split(split)
    wanted = {item for query in chosen for item in log.right[query]}
    rows = split_rows(opened.rows, split)
    ids = opened.rows.index["id"].to_pylist()
    first = [row for row in rows.tolist() if ids[row] in wanted]
    others = np.random.default_rng(0).permutation([row for row in rows.tolist() if ids[row] not in wanted])
    items = side_of_rows(
        opened, np.asarray([*first, *others[: max(0, _MOST_ITEMS - len(first))]], np.int64), corpus, "corpus"
    )
    at = {name: place for place, name in enumerate(items.ids)}
    usable = tuple(query for query in chosen if any(item in at for item in log.right[query]))
    if not usable:
        raise BadInput(
            "--pairs", f"queries whose items are all of split {split!r}, and can be read", f"none of {len(log.texts)}"
        )
    queries = side_of_records(opened, log.records(usable, modality), "queries")
    pairs = [(row, at[i]) for row, query in enumerate(queries.ids) for i in log.right[query] if i in at]
    return queries, items, np.asarray(pairs, np.int64)


def _spared(opened: Opened, items: Side, right: Ints, queries: int) -> dict[int, set[int]]:
    """Query -> items that must not count as wrong: its right ones and the variants of those."""
    groups = opened.together
    members: dict[str, list[int]] = {}
    for place, name in enumerate(items.ids):
        if name in groups:
            members.setdefault(groups[name], []).append(place)
    out: dict[int, set[int]] = {row: set() for row in range(queries)}
    for query, item in right.tolist():
        out[query].update([item, *members.get(groups.get(items.ids[item], ""), ())])
    return out


def _write(out: Path, model: Path, opened: Opened, made: TuneResult) -> None:
    """The folder, whole or not at all."""
    with folder_aside(out) as part:
        fitted = json.loads((model_folder(model) / "fitted.json").read_text(encoding="utf-8"))
        export(part / "model", opened.embedder.recipe, fitted, opened.embedder.network.state_dict())
        (part / "tuning.json").write_text(json.dumps(made.to_json(), ensure_ascii=False, indent=1), encoding="utf-8")
