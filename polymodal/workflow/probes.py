"""What a linear classifier and nearest neighbours read from the fused vector, and from each modality alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polymodal.evaluate import AS_IS, Classification, knn_probe, linear_probe
from polymodal.types import Embeddings, MissingExtra
from polymodal.workflow.subsets import Evaluated

__all__ = ["ProbePlan", "probe_labels", "probe_name"]

# far apart: a finer choice costs more than it gives; the weak one is for factors that only one modality tells
_PENALTIES = (0.003, 0.1, 10.0)
_MOST_CLASSES = 200


@dataclass(frozen=True)
class ProbePlan:
    """Vectors of the rows that probes learn from and are tested on, labels, modality names, options of intervals."""

    learnt: Evaluated
    tested: Evaluated
    labels: Mapping[str, Mapping[str, str]]
    names: Sequence[str]
    options: Mapping[str, Any]


def probe_name(label: str, source: str, where: str = "") -> str:
    """`sound from audio`, `sound from fused, items with audio`."""
    return f"{label} from {source}" + (f", items with {where}" if where else "")


def probe_labels(plan: ProbePlan, chosen: str | None) -> tuple[Classification, ...]:
    """Probes of every label, the chosen one first: fused, each modality alone, and fused on the rows that have the
    modality that tells most about the label. k-NN for the chosen label."""
    if AS_IS not in plan.learnt.fused:
        return ()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    # matrices this small are ten times slower on two threads that fight for busy cores than on one
    with threadpool_limits(1):
        return tuple(_probe_labels(plan, chosen))


def _probe_labels(plan: ProbePlan, chosen: str | None) -> list[Classification]:
    out: list[Classification] = []
    for label in sorted(plan.labels, key=lambda name: name != chosen):
        values = plan.labels[label]
        fused = _probe(plan, label, "fused", plan.learnt.fused[AS_IS], plan.tested.fused[AS_IS])
        if fused is None:
            continue
        out.append(fused)
        if label == chosen:
            out.append(
                knn_probe(
                    plan.learnt.fused[AS_IS],
                    plan.tested.fused[AS_IS],
                    values,
                    name=probe_name(label, "fused"),
                    **plan.options,
                )
            )
        single = {name: probe for name in plan.names if (probe := _single(plan, label, name)) is not None}
        out += single.values()
        if single:
            best = max(single, key=lambda name: (single[name].accuracy.mean - single[name].chance, name))
            fused = _restricted(plan, label, best)
            out += [fused] if fused is not None else []
    return out


def _single(plan: ProbePlan, label: str, name: str) -> Classification | None:
    if name not in plan.learnt.towers:
        return None
    return _probe(plan, label, name, plan.learnt.towers[name], plan.tested.towers[name])


def _restricted(plan: ProbePlan, label: str, name: str) -> Classification | None:
    """Fused, over the rows that have the modality."""
    train, test = (_having(e.fused[AS_IS], e, name) for e in (plan.learnt, plan.tested))
    return _probe(plan, label, "fused", train, test, name)


def _having(vectors: Embeddings, found: Evaluated, name: str) -> Embeddings:
    rows = [row for row, i in enumerate(vectors.ids) if name in found.presence[i]]
    return Embeddings(tuple(vectors.ids[r] for r in rows), vectors.vectors[rows], vectors.model)


def _probe(
    plan: ProbePlan, label: str, source: str, train: Embeddings, test: Embeddings, where: str = ""
) -> Classification | None:
    """None where there is too little to learn from: fewer than two labels with two items each, or nothing to test."""
    values = plan.labels[label]
    counts: dict[str, int] = {}
    for i in train.ids:
        if i in values:
            counts[values[i]] = counts.get(values[i], 0) + 1
    tested = sum(i in values for i in test.ids)
    if sum(n > 1 for n in counts.values()) < 2 or len(counts) > _MOST_CLASSES or not tested:
        return None
    name = probe_name(label, source, where)
    return linear_probe(train, test, values, penalties=_PENALTIES, name=name, **plan.options)
