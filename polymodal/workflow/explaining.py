"""A model and data in; out what each modality is worth, and which explanation of that can be believed here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polymodal.config import nearest
from polymodal.evaluate import AS_IS, Interval, Subset, label_leak, leak_warning
from polymodal.evaluate.explain import RankCorrelation
from polymodal.evaluate.information import PairSplit
from polymodal.evaluate.intervals import Floats
from polymodal.evaluate.values import plain
from polymodal.tasks import trusted
from polymodal.tasks import worth as task
from polymodal.tasks.trusted import Detection
from polymodal.tasks.worth import Values, Worth
from polymodal.types import BadInput, Embeddings, MissingExtra, Record
from polymodal.workflow.files import write_bytes
from polymodal.workflow.harmony import has_harmony, item_harmony
from polymodal.workflow.opened import Opened, Progress, open_task
from polymodal.workflow.subsets import Evaluated

__all__ = ["ExplainResult", "ExplainSettings", "Score", "explain_catalogue"]

Score = Literal["precision", "probability", "similarity"]


@dataclass(frozen=True)
class ExplainSettings:
    """What is explained, and how.

    Args:
        split: items that are explained; train_split: items that probes learn from.
        label: what counts as right; None: the first label of the data.
        score: of an item: the average precision of finding others of its label, the probability that a linear probe
            gives its label, or its mean cosine with the others.
        modalities: the ones to explain; all that model and data share by default.
        max_items: at most; the probes learn from twice as many; drawn with `seed`.
        check: also exchange cells on purpose, and see which reading finds them.
    """

    split: str = "test"
    train_split: str = "train"
    label: str | None = None
    score: Score = "precision"
    modalities: tuple[str, ...] = ()
    max_items: int = 1000
    check: bool = True
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class ExplainResult:
    """What the modalities are worth.

    Args:
        label: what counted as right. worth: every reading.
        bits: modality -> what a probe reads of the label from it alone. pairs: what two modalities tell together and
            apart. Both are empty where there is too little to learn from.
        detections: how often each reading finds an exchanged cell; () where it was not asked for.
        foretold: reading -> how its values rank with what is lost when a modality is deleted from the catalogue.
        figures: names of the pictures in `out`. notes: what was left out, and why.
    """

    out: Path | None
    model: str
    label: str
    worth: Worth
    bits: Mapping[str, Interval]
    pairs: tuple[PairSplit, ...]
    detections: tuple[Detection, ...]
    foretold: Mapping[str, RankCorrelation]
    figures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON; numbers that are not finite become None."""
        return {
            "out": None if self.out is None else str(self.out),
            "model": self.model,
            "label": self.label,
            "worth": self.worth.to_json(),
            "bits": plain(self.bits),
            "pairs": plain(self.pairs),
            "detections": plain(self.detections),
            "foretold": plain(self.foretold),
            "figures": list(self.figures),
            "notes": list(self.notes),
        }


def explain_catalogue(
    model: Path,
    data: Path,
    out: Path | None = None,
    settings: ExplainSettings | None = None,
    *,
    command: str = "polymodal explain",
    device: str = "cpu",
    progress: Progress | None = None,
) -> ExplainResult:
    """Explain a split, and write explain.json, explain.md, items.csv and figures.

    Args:
        out: a folder; what an earlier call wrote there is replaced. None writes nothing.
        command: named in the files.

    Raises:
        BadInput: a split, label or modality that is not there; a label that no two items share; too many modalities.
        MissingExtra: matplotlib or scikit-learn is not installed.
    """
    settings = settings or ExplainSettings()
    check_folder(out)
    opened = open_task(model, data, device, progress)
    names = chosen_names(opened, settings.modalities)
    label, keys = opened.label(settings.label)
    records = only(opened.records(settings.split, settings.max_items, settings.seed), names)
    found = opened.vectors(records, "embedding", all_subsets(names))
    learnt, notes = _learnt(opened, settings, names, {r.id for r in records})
    values = values_of(settings.score, found, names, keys, learnt)
    result = task.worth(values, others_of(opened, found, values), **_options(opened, settings))
    bits, pairs = _probed(learnt, found, names, keys, _options(opened, settings))
    if learnt is not None and not pairs and len(names) > 1:
        notes.append("No pair of modalities has enough labelled items that have both, to learn from and to test.")
    notes += [warning] if (warning := leak_warning([label_leak(records, keys, label, names)])) else []
    detections: tuple[Detection, ...] = ()
    if settings.check and len(names) > 1:
        detections = _checked(opened, records, found, names, keys, learnt, settings)
    losses = trusted.deleted(task.precision_values(found.fused, found.presence, names, keys), found.fused, keys)
    foretold = trusted.foretold(result.readings, losses, seed=settings.seed)
    made = ExplainResult(
        out, opened.embedder.model, label, result, bits, pairs, detections, foretold, notes=tuple(notes)
    )
    return made if out is None else _written(made, out, command)


def check_folder(out: Path | None) -> None:
    """Raises BadInput where a file has the name of the folder to write into."""
    if out is not None and out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")


def chosen_names(opened: Opened, wanted: Sequence[str]) -> list[str]:
    """The modalities to explain, in the model's order. Raises BadInput for one that is not there."""
    known = [name for name in opened.embedder.modalities if name in opened.rows.modalities]
    for name in wanted:
        if name not in known:
            raise BadInput("--modalities", "modalities of model and data", repr(name), nearest(name, known))
    names = [name for name in known if not wanted or name in wanted]
    if len(names) > task.MOST_MODALITIES:
        raise BadInput("modalities", f"at most {task.MOST_MODALITIES}", len(names), "Name them: --modalities a,b,c")
    return names


def only(records: Sequence[Record], names: Collection[str]) -> list[Record]:
    """The records with some of their modalities, without those that are left with nothing."""
    cut = [replace(r, values={n: v for n, v in r.values.items() if n in names}) for r in records]
    return [record for record in cut if record.values]


def all_subsets(names: Sequence[str]) -> list[Subset]:
    """Every subset but the empty one."""
    return [frozenset(n for at, n in enumerate(names) if code >> at & 1) for code in range(1, 1 << len(names))]


def values_of(
    score: Score,
    found: Evaluated,
    names: Sequence[str],
    keys: Mapping[str, str],
    learnt: Evaluated | None,
    corpus: Embeddings | None = None,
) -> Values:
    """The table of values that a score gives. Raises BadInput where a probe has nothing to learn from."""
    if score == "precision":
        return task.precision_values(found.fused, found.presence, names, keys, corpus=corpus)
    if score == "similarity":
        return task.similarity_values(found.fused, found.presence, names, keys, corpus=corpus)
    if learnt is None:
        raise BadInput("--score probability", "items to learn from", "none", "Name their split: --train-split")
    return task.probability_values(found.fused, found.presence, names, keys, learnt.fused[AS_IS])


def _options(opened: Opened, settings: ExplainSettings) -> Any:
    return {"resamples": settings.resamples, "seed": settings.seed, "together": opened.together}


def _learnt(
    opened: Opened, settings: ExplainSettings, names: Sequence[str], explained: Collection[str]
) -> tuple[Evaluated | None, list[str]]:
    """Vectors of rows that probes learn from, none of those explained, and what to say where there are none."""
    splits = set(opened.rows.index["split"].to_pylist())
    rows = (
        opened.records(settings.train_split, 2 * settings.max_items, settings.seed)
        if settings.train_split in splits
        else []
    )
    rows = [record for record in only(rows, names) if record.id not in explained]
    if not rows:
        return None, [f"No items of split {settings.train_split!r} are left to learn from: no pairs, no probabilities."]
    single = [frozenset({name}) for name in names]
    return opened.vectors(rows, "embedding what probes learn from", single), []


def others_of(opened: Opened, found: Evaluated, values: Values) -> dict[str, Floats]:
    """Readings that look at no label: what the harmonised weights say, where the model has them, and plain cosines."""
    if values.present.shape[1] < 2:
        return {}
    out = {}
    if has_harmony(opened.embedder.recipe):
        weights, present = item_harmony(opened.embedder.recipe, found, values.names, values.ids)
        out["agreement"] = task.agreement_of(weights, present)
    return out | {"cosine": task.cosine_of(found.fused, values)}


def _probed(
    learnt: Evaluated | None, found: Evaluated, names: Sequence[str], keys: Mapping[str, str], options: Any
) -> tuple[dict[str, Interval], tuple[PairSplit, ...]]:
    """What probes read from each modality alone, and from pairs."""
    if learnt is None:
        return {}, ()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    # matrices this small are slower on two threads that fight for busy cores than on one
    with threadpool_limits(1):
        asked = (learnt.fused, found.fused, names, keys)
        return task.probe_bits(*asked, **options), task.pair_splits(*asked, **options)


def _checked(
    opened: Opened,
    records: Sequence[Record],
    found: Evaluated,
    names: Sequence[str],
    keys: Mapping[str, str],
    learnt: Evaluated | None,
    settings: ExplainSettings,
) -> tuple[Detection, ...]:
    """The readings again, of items with one wrong cell each among a catalogue that is right."""
    wrong, truth = trusted.exchange_cells(records, names, keys, seed=settings.seed)
    again = opened.vectors([r for r in wrong if r.id in truth], "checking", all_subsets(names)) if truth else None
    if again is None:
        return ()
    values = values_of(settings.score, again, names, keys, learnt, found.fused[AS_IS])
    if not np.isfinite(values.whole).any():
        return ()
    made = task.worth(values, others_of(opened, again, values), resamples=0)
    return trusted.detect(made.readings, values, truth, **_options(opened, settings))


def _written(result: ExplainResult, out: Path, command: str) -> ExplainResult:
    from polymodal.workflow.explain_figures import catalogue_figures
    from polymodal.workflow.explain_text import catalogue_markdown

    pictures = catalogue_figures(result)
    result = replace(result, figures=tuple(pictures))
    out.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        write_bytes(out / name, content)
    write_bytes(out / "items.csv", _csv(result.worth))
    write_bytes(out / "explain.md", catalogue_markdown(result, command).encode())
    said = {"command": command, **result.to_json()}
    write_bytes(out / "explain.json", (json.dumps(said, ensure_ascii=False, indent=1) + "\n").encode())
    return result


def _csv(worth: Worth) -> bytes:
    """A line for each modality that an item has."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "modality", *(one.name for one in worth.readings)])
    for row, name in enumerate(worth.values.ids):
        for column, modality in enumerate(worth.values.names):
            if worth.values.present[row, column]:
                numbers = [one.per_item[row, column] for one in worth.readings]
                writer.writerow([name, modality, *(f"{x:.6f}" if np.isfinite(x) else "" for x in numbers)])
    return file.getvalue().encode()
