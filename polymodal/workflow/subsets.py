"""The vectors of every subset of modalities, for the price of the stages that mix them: towers are run once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from polymodal import presence
from polymodal.catalogue.loader import collate
from polymodal.catalogue.quarantine import Quarantined
from polymodal.embed import Embedder
from polymodal.evaluate import AS_IS, Subset
from polymodal.nn.stages import ITEM, Stage
from polymodal.tensors import Batch, Embedded, Encoded, Parts, Tokens
from polymodal.train.optim import autocast
from polymodal.types import Embeddings, Record

__all__ = ["Evaluated", "SubsetVectors", "embed_subsets", "subsets_of"]

Found = tuple[list[str], list[np.ndarray]]


def subsets_of(names: Sequence[str]) -> list[Subset]:
    """All subsets of up to five modalities; of more, the single ones, the pairs and all together."""
    sizes = range(1, len(names) + 1) if len(names) <= 5 else (1, 2, len(names))
    return [frozenset(chosen) for size in sizes for chosen in itertools.combinations(names, size)]


@dataclass
class Evaluated:
    """Vectors of some rows.

    Args:
        fused: subset -> item vectors made from it alone, of the rows that have all of it; AS_IS: whatever a row has.
        imputed: the same with blank cells attended in place of every modality outside the subset.
        towers: modality -> its own vectors, before any other was seen.
        presence: id -> the modalities that could be read.
        digests: modality -> {id: hash of the decoded cell}: equal cells have equal ones.
    """

    fused: dict[Subset, Embeddings] = field(default_factory=dict)
    imputed: dict[Subset, Embeddings] = field(default_factory=dict)
    towers: dict[str, Embeddings] = field(default_factory=dict)
    presence: dict[str, Subset] = field(default_factory=dict)
    digests: dict[str, dict[str, int]] = field(default_factory=dict)


class SubsetVectors:
    """Runs one model over batches, subset by subset.

    Args:
        embedder: the model. One that was trained with zero imputation is always run with it.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder, self.network = embedder, embedder.network
        self.modalities = {name: self.network.modality(name) for name in self.network.names}
        # stages before the first that mixes modalities do not depend on the subset
        mixing = [cast(Stage, stage).mixes for stage in self.network.stages]
        self.alone = mixing.index(True) if True in mixing else len(mixing)
        self.blank = self._blank()

    def batch(self, records: Sequence[Record], bad: list[Quarantined]) -> Batch:
        """The rows as they are, without imputation."""
        return collate(records, self.modalities, quarantine=bad.append).to(self.embedder.device)

    @torch.inference_mode()
    def _blank(self) -> tuple[Parts, ...]:
        fields = {name: presence.fill([dict(modality.blank())]) for name, modality in self.modalities.items()}
        cells = {name: cell for name, cell in fields.items() if cell is not None}
        return self.towers(Batch(("blank",), cells).to(self.embedder.device))

    @torch.inference_mode()
    def towers(self, batch: Batch) -> tuple[Parts, ...]:
        """The parts before any modality has seen another: tokens, then the output of each stage that does not mix."""
        with autocast(self.embedder.dtype, self.embedder.device):
            stages: list[Parts] = [self.network.tokenize(batch)]
            for stage in self.network.stages[: self.alone]:
                stages.append(stage(stages[-1]))
        return tuple(stages)

    @torch.inference_mode()
    def vectors(self, stages: Sequence[Parts], names: Collection[str]) -> dict[str, Embedded]:
        """What the model exports for parts that `towers` (and `choose`) made."""
        with autocast(self.embedder.dtype, self.embedder.device):
            done = list(stages)
            for stage in self.network.stages[self.alone :]:
                done.append(stage(done[-1]))
            return self.network.embeddings(Encoded(tuple(done[1:]), done[0]), names)

    def choose(self, stages: Sequence[Parts], subset: Subset, rows: Tensor, impute: bool) -> tuple[Parts, ...]:
        """Some rows with the modalities of a subset (AS_IS: all they have), blanks for the rest if imputed."""
        out = []
        for stage, blank in zip(stages, self.blank, strict=True):
            parts = {}
            for name in self.modalities:
                tokens = stage.get(name) if not subset or name in subset else None
                kept = None if tokens is None else Tokens(tokens.x[rows], tokens.valid[rows])
                if impute:
                    kept = _fill(kept, blank[name], len(rows))
                if kept is not None:
                    parts[name] = kept
            out.append(parts)
        return tuple(out)


def _fill(tokens: Tokens | None, blank: Tokens, rows: int) -> Tokens:
    """The tokens, and the blank ones in the rows that have none."""
    empty = Tokens(blank.x.expand(rows, -1, -1), blank.valid.expand(rows, -1))
    if tokens is None:
        return empty
    absent = ~tokens.valid.any(1)
    both = presence.join({"own": tokens, "blank": presence.restrict(empty, absent)})
    return both


def embed_subsets(
    embedder: Embedder,
    records: Sequence[Record],
    subsets: Sequence[Subset],
    *,
    control: bool = True,
    names: Collection[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluated:
    """All vectors that an evaluation needs of some rows, decoding and running the towers once.

    Args:
        subsets: to run besides AS_IS.
        control: also the zero-imputation control.
        names: modalities whose own vectors are wanted; all by default.
        progress: called with the number of rows done.
    """
    runner = SubsetVectors(embedder)
    imputing = embedder.recipe.train.zero_imputation
    control = control and not imputing  # such a model is its own control
    found: dict[tuple[str, Subset], Found] = {}
    towers: dict[str, Found] = {}
    out = Evaluated()
    for begin in range(0, len(records), embedder.batch_size):
        batch = runner.batch(records[begin : begin + embedder.batch_size], embedder.quarantine)
        if batch.cells:
            has = {name: there.cpu().numpy() for name, there in batch.present.items()}
            for row, name in enumerate(batch.ids):
                out.presence[name] = frozenset(m for m, there in has.items() if there[row])
            for name, there in has.items():
                digests = zip(batch.ids, batch.digests[name].tolist(), there, strict=True)
                out.digests.setdefault(name, {}).update((i, digest) for i, digest, own in digests if own)
            _run_batch(runner, batch, subsets, (imputing, True) if control else (imputing,), found, towers, names)
        if progress is not None:
            progress(len(batch))
    digest = embedder.model
    out.fused = {s: _join(f, digest) for (kind, s), f in found.items() if kind == "fused"}
    out.imputed = {s: _join(f, digest) for (kind, s), f in found.items() if kind == "imputed"}
    out.towers = {name: _join(f, digest) for name, f in towers.items()}
    return out


def _run_batch(
    runner: SubsetVectors,
    batch: Batch,
    subsets: Sequence[Subset],
    imputes: Sequence[bool],
    found: dict[tuple[str, Subset], Found],
    towers: dict[str, Found],
    names: Collection[str] | None,
) -> None:
    stages = runner.towers(batch)
    none = torch.zeros(len(batch), dtype=torch.bool, device=runner.embedder.device)
    has = {name: batch.present.get(name, none) for name in runner.modalities}
    for subset in (AS_IS, *subsets):
        wanted = [has[name] for name in (subset or has)]
        stacked = torch.stack(wanted)
        rows = (stacked.all(0) if subset else stacked.any(0)).nonzero()[:, 0]
        if not len(rows):
            continue
        ids = [batch.ids[row] for row in rows.tolist()]
        for control, impute in zip(("fused", "imputed"), imputes, strict=False):
            own = (
                [name for name in runner.modalities if names is None or name in names]
                if not subset and control == "fused"
                else []
            )
            vectors = runner.vectors(runner.choose(stages, subset, rows, impute), [ITEM, *own])
            _collect(found.setdefault((control, subset), ([], [])), ids, vectors[ITEM])
            for name in own:
                if name in vectors:
                    real = Embedded(vectors[name].z, vectors[name].present & has[name][rows])
                    _collect(towers.setdefault(name, ([], [])), ids, real)


def _collect(into: Found, ids: Sequence[str], embedded: Embedded) -> None:
    present = embedded.present.cpu().numpy()
    into[0].extend(name for name, there in zip(ids, present, strict=True) if there)
    into[1].append(embedded.z.float().cpu().numpy()[present])


def _join(found: Found, digest: str) -> Embeddings:
    return Embeddings(tuple(found[0]), np.concatenate(found[1]), digest)
