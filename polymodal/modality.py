"""Modality: what one kind of input must know about itself. One file in `modalities/` per kind, nothing else to edit.

The life of a cell::

    source --decode--> value --augment--> value --preprocess--> fields (N, ...)      loader, one cell, no gradient
       |                  |                                        |
       path, bytes, text  array, text or pairs; stored in shards   presence.fill pads N: absent = no valid token
                                                                   v
    fields (K, ...) --embed--> (K, D) + positions (K, D)           model, valid tokens only
                    --target--> (K, ...)  head(x) -> prediction    objective, hidden tokens only
                    distance(prediction, target) -> (K,)

Every tensor field has the token axis first, so shared code needs no branch on the kind of a modality.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from polymodal.config import Config
from polymodal.tensors import Cells, Fields

__all__ = ["Fitted", "Guess", "Modality", "ModalityConfig", "Question", "standardise"]

# what a modality learnt from the catalogue before training (vocabulary, mean and spread), as JSON
Fitted = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A cell with something to fill in: fields of N tokens, and which of them are unknown, (N,) bool. What the fields
    say of the content of an unknown token is never read. `prior` is the log-probability of this form of the question
    among others (how many pieces a word has)."""

    fields: Fields
    hidden: Tensor
    prior: float = 0.0


@dataclass(frozen=True)
class Guess:
    """What a decoder says of the unknown tokens of a cell.

    Args:
        value: the cell as `decode` would return it, known tokens kept; of a part that was asked for by name, its value.
        confidence: probability of the chosen symbol of each unknown token; None where the target is continuous.
        choices: the likeliest symbols of each unknown token with their probabilities, best first.
        score: sum of the log-probabilities of the chosen symbols, and the prior of the question; 0 for continuous
            targets. It compares forms of one question.
    """

    value: Any
    confidence: tuple[float, ...] | None = None
    choices: tuple[tuple[tuple[str, float], ...], ...] = ()
    score: float = 0.0


class ModalityConfig(Config):
    """Base of every modality's config. A subclass gives `kind` its default and builds its class."""

    kind: str

    def fit(self, values: Iterable[Any]) -> Fitted:
        """What `values` (decoded cells of the training rows, streamed) teach: JSON, stored with the model."""
        return {}

    def build(self, width: int, fitted: Fitted) -> Modality:
        """The modality for a model of width D. `fitted` is what `fit` returned."""
        raise NotImplementedError

    def decoder(self) -> Modality:
        """A modality good for `decode` alone, before anything is fitted. `prepare` and `audit` use it."""
        raise NotImplementedError


class Modality(nn.Module, ABC):
    """One kind of input. Needs: subclasses set `kind` and implement the abstract methods below."""

    kind: ClassVar[str]
    # True where decode reads files, which may be bad, and not plain table cells
    is_media: ClassVar[bool] = False

    # -- loader side: one cell at a time ------------------------------------------------------------------------

    @abstractmethod
    def decode(self, source: Any) -> Any:
        """The source as a plain value: numpy array, str, or list of pairs. A decoded value passes unchanged.

        Raises:
            MediaError: the cell cannot be used; the caller quarantines it with the reason.
        """

    def augment(self, value: Any, generator: torch.Generator) -> Any:
        """A random variation of `value` that means the same. Never changes the value in place."""
        return value

    @abstractmethod
    def preprocess(self, value: Any) -> Fields:
        """Fields of N >= 1 tokens, each (N, ...); N = 0 is an empty cell, the same as an absent one."""

    def knows(self, value: Any) -> bool:
        """Whether any part of a decoded value was there when the modality was fitted; True where that says nothing."""
        return True

    @abstractmethod
    def blank(self) -> Fields:
        """Fields of the cell that zero imputation would attend (a black picture, silence): the control's, only."""

    def example(self, seed: int) -> Any:
        """A random decoded value of ordinary size: contract tests and benchmarks are made of these."""
        raise NotImplementedError(f"{type(self).__name__} gives no example, and the contract tests need one")

    def show(self, value: Any) -> tuple[str, bytes]:
        """A decoded value for people: (media type, content), e.g. ("image/png", ...) or ("text/plain", ...)."""
        return "text/plain", str(value).encode()

    # -- model side: packed tokens of many cells -----------------------------------------------------------------

    @abstractmethod
    def embed(self, fields: Fields) -> Tensor:
        """Content of the tokens: fields (K, ...) -> (K, D)."""

    @abstractmethod
    def positions(self, fields: Fields) -> Tensor:
        """Where the tokens stand, without their content: (K, ...) -> (K, D). A mask token keeps it."""

    def query(self, fields: Fields) -> Tensor:
        """What a decoder of a whole cell is told of the token it is to produce: (K, ...) -> (K, D).

        Its position, by default. A modality whose positions mean nothing by themselves adds what is asked for (a table:
        which attribute), but never the content.
        """
        return self.positions(fields)

    def coordinates(self, fields: Fields) -> Tensor | None:
        """Where the tokens stand on a grid, (K, n) of n = 1 to 3 axes; None where places are no numbers.

        A decoder that knows places by a fixed code reads it. The default takes the fields `time`, `row` and `column`,
        else `position`.
        """
        axes = [fields[name] for name in ("time", "row", "column") if name in fields]
        axes = axes or [fields[name] for name in ("position",) if name in fields]
        return torch.stack(axes, 1) if axes else None

    @abstractmethod
    def target(self, fields: Fields) -> Tensor:
        """What a hidden token is to be predicted as: (K, ...) -> (K, T), continuous targets standardised."""

    @abstractmethod
    def head(self, width: int) -> nn.Module:
        """A fresh decoder (K, width) -> prediction that `distance` takes. It belongs to the objective."""

    @abstractmethod
    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of each token, (K,), in float32; about 1 for an untrained continuous head."""

    def parts(self) -> tuple[str, ...]:
        """What can be asked for by name (a table: its attributes); () where a cell is asked for as a whole."""
        return ()

    def ask(self, value: Any | None, part: str | None = None) -> list[Question]:
        """The forms of the question what a cell says, or what `part` of it is; the guess of the best score is taken.

        Args:
            value: decoded, what is known of the cell; None where it is absent.
            part: one of `parts()`; None for the whole cell.
        """
        fields = self.blank()
        return [Question(fields, torch.ones(len(next(iter(fields.values()))), dtype=torch.bool))]

    def answer(self, question: Question, prediction: Tensor) -> Guess:
        """What a head's prediction (H, ...) for the H unknown tokens means."""
        raise NotImplementedError(f"{type(self).__name__} cannot say what a prediction means")

    def weigh(self, question: Question, prediction: Tensor, values: Sequence[str]) -> Tensor:
        """Log-probability that each of `values` is the answer, (V,); -inf where this form of the question has no room.

        Over the forms of a question and all that could be said the probabilities add up to 1.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot say how likely a value is")

    def overlap(self, fields: Fields) -> Tensor | None:
        """Which tokens hide together. Fields (B, N, ...) -> (B, N, N) bool, True where hiding i must hide j.

        None: each token hides alone. The default reads the field `unit` (B, N) int64, if there is one: tokens of one
        unit (one attribute's name, one frame's tube, one word) hide together.
        """
        unit = fields.get("unit")
        return None if unit is None else unit[:, :, None] == unit[:, None, :]

    def maskable(self, fields: Fields) -> Tensor | None:
        """Which tokens may be hidden and predicted, (B, N) bool; None: all. Marks of begin and end, say, may not."""
        return None

    def may_hide(self, cells: Cells) -> Tensor:
        """The valid tokens of cells that are `maskable`, (B, N) bool."""
        allowed = self.maskable(cells.fields)
        return cells.valid if allowed is None else cells.valid & allowed

    def sequence(self, fields: Fields) -> Tensor | None:
        """Where tokens follow one another and a near one tells of the next: their places, (B, N) int64. None: a set."""
        return None

    def symbols(self, fields: Fields) -> Tensor | None:
        """What to count when two cells are compared by what they contain, (B, N) int64; None: nothing countable."""
        return None

    def substitute(self, fields: Fields, draws: Tensor) -> Fields | None:
        """Packed fields with random content by `draws` (K,) in [0, 1), drawn from all that could stand there.

        None: there is no such thing; what stands elsewhere in the same row is taken.
        """
        return None

    def mask(self) -> Tensor | None:
        """The content (D,) that stands for a hidden token, where the modality has one of its own ([MASK])."""
        return None

    def whole(self, fields: Fields) -> Tensor | None:
        """Packed tokens whose content is the mean of all others of their cell, (K,) bool; None: no such token."""
        return None

    def tables(self) -> Mapping[str, Tensor]:
        """Parameters that a file of pretrained weights may fill, by their names there; none by default."""
        return {}

    def table(self) -> Tensor | None:
        """The vectors (V, D) of the symbols that `head` predicts, where it could share them; None: no such thing."""
        return None


def standardise(moments: Iterable[np.ndarray], floor: float = 1e-3) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per column of arrays (n, T), streamed; deviations are at least `floor`."""
    count, total, square = 0, np.zeros(1), np.zeros(1)
    for array in moments:
        block = np.asarray(array, np.float64)
        count, total, square = count + len(block), total + block.sum(0), square + (block**2).sum(0)
    mean = total / max(count, 1)
    spread = np.sqrt(np.maximum(square / max(count, 1) - mean**2, floor**2))
    return mean.tolist(), spread.tolist()
