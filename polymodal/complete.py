"""Completer: what a record lacks, as a trained decoder reconstructs it from what the record has.

The decoder belongs to the objective, which is thrown away when a model is exported. A completer is therefore loaded
from a **run directory**: it takes model and objective from the newest whole checkpoint there (the model's moving
average where the run has one). `recipe.json`, `fitted.json` and one folder of `checkpoints/` are all that it needs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polymodal import presence
from polymodal.catalogue.quarantine import decode_record
from polymodal.config import nearest
from polymodal.modality import Guess, Question
from polymodal.model import Model
from polymodal.recipe import Recipe, build_model
from polymodal.tensors import Batch, Fields
from polymodal.train.checkpoint import latest
from polymodal.types import BadInput, MediaError, Record

__all__ = ["Completer", "Predicts"]

_ROWS = 64  # records at a time


@runtime_checkable
class Predicts(Protocol):
    """An objective that can say what hidden tokens are."""

    def predict(self, model: Model, batch: Batch, visible: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Modality -> predictions for its tokens that are valid and not visible, (K, ...), row by row."""


class Completer:
    """A trained model and its decoder.

    Args:
        model, objective: of one checkpoint.
        recipe: they were trained by.

    Raises:
        BadInput: an objective that cannot predict hidden tokens. M3AE is made for it; SCALE can, less well.

    What comes out is a guess: continuous parts are means over what would be possible, so pictures are blurred, and the
    words of a text are chosen each for itself.
    """

    def __init__(self, model: Model, objective: torch.nn.Module, recipe: Recipe) -> None:
        if not isinstance(objective, Predicts):
            raise BadInput(
                "run",
                "a run whose objective reconstructs",
                recipe.objective.kind,
                "Train one: polymodal train m3ae DATA",
            )
        self.network, self.recipe = model.eval(), recipe
        objective.eval()
        self.objective: Predicts = objective

    @classmethod
    def load(cls, run: Path | str) -> Self:
        """From a run directory.

        Raises:
            BadInput: no run directory, or one of an objective that cannot predict.
            CorruptCheckpoint: it has no whole checkpoint.
        """
        run = Path(run)
        if not (run / "recipe.json").is_file() or not (run / "checkpoints").is_dir():
            raise BadInput("run", "a run directory with its checkpoints", run, "An exported model has no decoder.")
        recipe = Recipe.parse(json.loads((run / "recipe.json").read_text()))
        model = build_model(recipe, json.loads((run / "fitted.json").read_text()))
        objective = recipe.objective.build(model)
        found, _ = latest(run / "checkpoints")
        model.load_state_dict({**found.tensors["model"], **found.tensors.get("average", {})})
        objective.load_state_dict(found.tensors["objective"])
        return cls(model, objective, recipe)

    def complete(
        self, record: Record, names: Collection[str] | None = None, hidden: Mapping[str, npt.ArrayLike] | None = None
    ) -> dict[str, Guess]:
        """What the record lacks.

        Args:
            record: with sources or decoded values; the modalities that the model does not know are not read.
            names: modalities to reconstruct ("image"), or parts of one ("facts.colour"). A modality that the record has
                is reconstructed as if it had not; a part takes the other parts of its cell into account. None:
                every modality that the record lacks, a table by all attributes that are known.
            hidden: modality -> (N,) bool over its tokens: those are taken to be unknown and filled in, the others kept.

        Returns:
            Name as asked for -> `Guess`.

        Raises:
            BadInput: an unknown name; a record that has nothing to conclude from.
            MediaError: a cell that cannot be decoded.
        """
        known = self._decoded(record)
        hidden = hidden or {}
        asked = [(name, question) for name, mask in hidden.items() for question in self._masked(known, name, mask)]
        if names is None and not hidden:
            names = [n for m in self.network.names if m not in known for n in self._all(m)]
        for name in names or ():
            asked += [(name, question) for question in self._questions(known, name)]
        if not asked:
            return {}
        best: dict[str, Guess] = {}
        for name, guess in self._guesses(known, asked):
            if name not in best or guess.score > best[name].score:
                best[name] = guess
        return best

    def _decoded(self, record: Record) -> dict[str, Any]:
        modalities = {name: self.network.modality(name) for name in self.network.names}
        decoded, bad = decode_record(record, modalities, None)
        if bad:
            raise MediaError("unreadable", f"{bad[0].modality}: {bad[0].reason} {bad[0].detail}".rstrip())
        return dict(decoded.values)

    def _all(self, name: str) -> list[str]:
        return [f"{name}.{part}" for part in self.network.modality(name).parts()] or [name]

    def _split(self, name: str) -> tuple[str, str | None]:
        """Modality and part. A modality's own name may have dots in it."""
        for modality in self.network.names:
            if name == modality:
                return modality, None
            if name.startswith(f"{modality}.") and self.network.modality(modality).parts():
                return modality, name.removeprefix(f"{modality}.")
        known = [n for m in self.network.names for n in (m, *self._all(m))]
        raise BadInput("names", "modalities, or parts of them", repr(name), nearest(name, known))

    def _questions(self, known: Mapping[str, Any], name: str) -> list[Question]:
        modality, part = self._split(name)
        return self.network.modality(modality).ask(known.get(modality), part)

    def _masked(self, known: Mapping[str, Any], name: str, mask: npt.ArrayLike) -> list[Question]:
        if name not in known:
            raise BadInput("hidden", f"of {', '.join(known)}", repr(name), nearest(name, list(known)))
        modality = self.network.modality(name)
        if modality.parts():
            raise BadInput(f"hidden[{name!r}]", "a modality without parts", name, f"Ask for {self._all(name)[0]!r}.")
        fields = modality.preprocess(known[name])
        wanted, count = torch.as_tensor(mask, dtype=torch.bool), len(next(iter(fields.values())))
        if wanted.shape != (count,):
            raise BadInput(f"hidden[{name!r}]", f"({count},) bool", tuple(wanted.shape))
        return [Question(fields, wanted)]

    def weigh(self, records: Sequence[Record], name: str, values: Sequence[str]) -> npt.NDArray[np.float64]:
        """How likely each of the values is for a part, such as "facts.colour", of many records at once.

        Args:
            records: cells that cannot be decoded are left out of them. A part that a record has is taken to be unknown.
            values: that the part may have, in words.

        Returns:
            (N, V) log-probabilities, not normalised over `values`; -inf for a value of a length that training never
            saw. NaN where a record has nothing to conclude from.
        """
        out = np.full((len(records), len(values)), np.nan)
        modality = self.network.modality(self._split(name)[0])
        for at, forms in self._forms(records, name):
            each = [modality.weigh(question, prediction, values) for question, prediction in forms]
            out[at] = torch.stack(each).amax(0).double().numpy()
        return out

    def guesses(self, records: Sequence[Record], name: str) -> list[Guess | None]:
        """What `complete` says of one modality or part, of many records at once; None as NaN in `weigh`."""
        out: list[Guess | None] = [None] * len(records)
        modality = self.network.modality(self._split(name)[0])
        for at, forms in self._forms(records, name):
            out[at] = max((modality.answer(*form) for form in forms), key=lambda guess: guess.score)
        return out

    def _forms(self, records: Sequence[Record], name: str) -> Iterator[tuple[int, list[tuple[Question, Tensor]]]]:
        """The place of every record that says anything else, and the forms of the question with their predictions."""
        modality, part = self._split(name)
        decoders = {n: self.network.modality(n) for n in self.network.names}
        for begin in range(0, len(records), _ROWS):
            rows, places = [], []
            for at, record in enumerate(records[begin : begin + _ROWS], begin):
                known = dict(decode_record(record, decoders, None)[0].values)
                rest = known.get(modality, ())
                if part is None or not any(pair[0] != part for pair in rest):
                    known = {n: value for n, value in known.items() if n != modality}
                if not known:
                    continue
                for question in decoders[modality].ask(known.get(modality), part):
                    rows.append((self._fields(known), modality, question))
                    places.append(at)
            found: dict[int, list[tuple[Question, Tensor]]] = {}
            for at, row, prediction in zip(places, rows, self._predict(rows) if rows else [], strict=True):
                found.setdefault(at, []).append((row[2], prediction))
            yield from found.items()

    def _fields(self, known: Mapping[str, Any]) -> dict[str, Fields]:
        return {name: self.network.modality(name).preprocess(value) for name, value in known.items()}

    def _guesses(self, known: Mapping[str, Any], asked: list[tuple[str, Question]]) -> list[tuple[str, Guess]]:
        """Every question is a row of its own, so that no answer leans on another guess."""
        of = [name if name in self.network.names else self._split(name)[0] for name, _ in asked]
        fields = self._fields(known)
        rows = [(fields, modality, question) for modality, (_, question) in zip(of, asked, strict=True)]
        return [
            (name, self.network.modality(modality).answer(question, prediction))
            for (name, question), modality, prediction in zip(asked, of, self._predict(rows), strict=True)
        ]

    @torch.inference_mode()
    def _predict(self, rows: Sequence[tuple[Mapping[str, Fields], str, Question]]) -> list[Tensor]:
        """What the head says of the unknown tokens of each row: known fields, a modality, what is asked of it."""
        cells, visible = {}, {}
        for name in self.network.names:
            given: list[Fields | None] = [
                question.fields if of == name else fields.get(name) for fields, of, question in rows
            ]
            filled = presence.fill(given)
            if filled is None:
                continue
            cells[name], visible[name] = filled, filled.valid.clone()
            for at, (_, of, question) in enumerate(rows):
                if of == name:
                    visible[name][at, : len(question.hidden)] &= ~question.hidden
        alone = ~torch.stack([mask.any(1) for mask in visible.values()]).any(0)
        if bool(alone.any()):
            raise BadInput("record", "something to conclude from", f"nothing but {rows[int(alone.int().argmax())][1]}")
        batch = Batch(tuple(f"{at}" for at in range(len(rows))), cells)
        predictions = self.objective.predict(self.network, batch, visible)
        hidden = {name: (batch.cells[name].valid & ~mask).sum(1).tolist() for name, mask in visible.items()}
        out = []
        for at, (_, of, _question) in enumerate(rows):
            begin = sum(hidden[of][:at])
            out.append(predictions[of][begin : begin + hidden[of][at]])
        return out
