"""Text: titles, descriptions, reviews, in any script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.modalities import _pieces
from polymodal.modalities._pieces import Pieces, WordPieces
from polymodal.modality import Fitted, Guess, Modality, ModalityConfig, Question
from polymodal.nn.positions import sincos
from polymodal.tensors import Fields
from polymodal.types import MediaError

__all__ = ["Text", "TextConfig"]

_ASKED = 8


class TextConfig(ModalityConfig):
    """How text is read.

    Args:
        vocabulary: most pieces that the tokenizer may have, 2 reserved ones and 256 bytes included.
        max_tokens: N, pieces read of a text; the rest is cut.
        max_chars: characters kept of a text, before anything else is done with it.
        lower: ignore case.
        compatible: NFKC rather than NFC.
        drop_words: augmentation: chance of each word to be left out.
        places: learned vectors of places, or the fixed sines and cosines of Vaswani et al. ("sincos").
        words_as_unit: hide whole words; False: each piece for itself.
        bert: a folder of Hugging Face form whose WordPiece vocabulary is taken (tokenizer.json, or vocab.txt with
            `lower`) instead of learning one. It is read once, before training, and stored with the model.
        positions: rows of the table of positions, where it is to be longer than `max_tokens` (BERT: 512).
    """

    kind: Literal["text"] = "text"
    vocabulary: int = Field(8000, ge=300, le=1_000_000)
    max_tokens: int = Field(32, ge=1, le=4096)
    max_chars: int = Field(20_000, ge=1)
    lower: bool = True
    compatible: bool = True
    drop_words: float = Field(0.1, ge=0, lt=1)
    places: Literal["learned", "sincos"] = "learned"
    words_as_unit: bool = True
    bert: str | None = None
    positions: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _room(self) -> TextConfig:
        if self.bert is not None and self.max_tokens < 3:
            raise ValueError("max_tokens must be at least 3 with bert: two of them are marks")
        if self.positions is not None and self.positions < self.max_tokens:
            raise ValueError(f"positions {self.positions} is less than max_tokens {self.max_tokens}")
        return self

    def fit(self, values: Iterable[Any]) -> Fitted:
        """Trains the tokenizer: `{"tokenizer": JSON}`; with `bert` reads it: `{"tokenizer": JSON, "form": "bert"}`."""
        if self.bert is not None:
            return {"tokenizer": WordPieces.read(Path(self.bert), self.lower).dump(), "form": "bert"}
        return {"tokenizer": Pieces.train(values, self.vocabulary, self.lower, self.compatible).dump()}

    def build(self, width: int, fitted: Fitted) -> Text:
        """Raises BadInput where `fitted` holds no tokenizer."""
        form = WordPieces if fitted.get("form") == "bert" else Pieces
        return Text(self, width, form.load(fitted.get("tokenizer"), "fitted['tokenizer']"))

    def decoder(self) -> Text:
        """A Text whose tokenizer knows single bytes only."""
        return Text(self, 1, Pieces.train((), self.vocabulary, self.lower, self.compatible))


class Text(Modality):
    """Pieces of words, one token each.

    Fields of N <= max_tokens tokens: `id` int64, `position` int64 from 0, `start` int64 (1 where a piece begins a
    word), `unit` int64 (number of the word). No begin or end token: the model's summary token does that work.
    With the tokenizer of a BERT folder there are both, they are never hidden, [MASK] stands for what is, and `start` is
    0 throughout: its table then is BERT's of segments.

    Source: Devlin et al. 2019 (BERT): learned positions, the head, masking whole words.
    Differences: `start` is a field with its own embedding rather than "##" in the vocabulary; targets carry no label
    smoothing; the head is not tied to the embeddings (it belongs to the objective, they to the exported model).
    """

    kind: ClassVar[str] = "text"

    def __init__(self, config: TextConfig, width: int, pieces: Pieces | WordPieces) -> None:
        super().__init__()
        self.config, self.pieces = config, pieces
        self.content = _pieces.embedding(pieces.size, width)
        places = config.positions or config.max_tokens
        self.place = _pieces.embedding(places, width) if config.places == "learned" else None
        self.start = _pieces.embedding(2, width)

    def decode(self, source: Any) -> str:
        """The text on one line, without controls and lone surrogates, cut at `max_chars`.

        Raises:
            MediaError: "wrong type" where it is not a str; "empty" where nothing visible is left, so that the cell
                counts as absent and the audit says why.
        """
        if not isinstance(source, str):
            raise MediaError("wrong type", f"expected text, got {type(source).__name__}")
        text = _pieces.clean(source, self.config.max_chars)
        if not text:
            raise MediaError("empty", "nothing but space")
        return text

    def augment(self, value: str, generator: torch.Generator) -> str:
        """Leaves words out (Han characters, where there are no spaces), never all of them."""
        if self.config.drop_words == 0:
            return value
        spans = _pieces.words(value)
        if len(spans) < 2:
            return value
        keep = _pieces.keep_some(len(spans), self.config.drop_words, generator).tolist()
        kept, end = [], 0
        for (first, last), stays in zip(spans, keep, strict=True):
            kept.append(value[end : last if stays else first])
            end = last
        return " ".join("".join(kept).split())

    def preprocess(self, value: str) -> Fields:
        """Fields of the first `max_tokens` pieces; an empty text has none."""
        ids, words = self.pieces.encode(value, self.config.max_tokens)
        word = torch.tensor(words, dtype=torch.long)
        position = torch.arange(len(ids))
        start = torch.ones_like(word)
        start[1:] = word[1:] != word[:-1]
        if self.pieces.marks:
            start.zero_()
        unit = word if self.config.words_as_unit else position
        return {"id": torch.tensor(ids, dtype=torch.long), "position": position, "start": start, "unit": unit}

    def knows(self, value: str) -> bool:
        """Whether any word of it is made of more than single bytes (of more than [UNK])."""
        return self.pieces.known(value, self.config.max_tokens)

    def example(self, seed: int) -> str:
        """Three to nine words of a small vocabulary."""
        words = ("red", "shoe", "large", "cotton", "lamp", "blue", "vase", "Schuh", "红色", "鞋子", "chair", "soft")
        numbers = np.random.default_rng(seed)
        return " ".join(numbers.choice(words, int(numbers.integers(3, 10))))

    def blank(self) -> Fields:
        """One token with the id 0, which no text produces."""
        zero = torch.zeros(1, dtype=torch.long)
        return {"id": zero, "position": zero, "start": zero + 1, "unit": zero}

    def embed(self, fields: Fields) -> Tensor:
        embedded: Tensor = self.content(fields["id"])
        return embedded

    def positions(self, fields: Fields) -> Tensor:
        """Place in the text, and whether a word begins here: a hidden piece keeps both."""
        starts: Tensor = self.start(fields["start"])
        if self.place is None:
            return starts + sincos(fields["position"][:, None], starts.shape[1])
        places: Tensor = self.place(fields["position"])
        return places + starts

    def sequence(self, fields: Fields) -> Tensor:
        """Number of the word, or of the piece where pieces are hidden one by one."""
        return fields["unit"]

    def maskable(self, fields: Fields) -> Tensor | None:
        """All but the marks of begin and end, where there are any."""
        if not self.pieces.marks:
            return None
        return (fields["id"] != self.pieces.marks["cls"]) & (fields["id"] != self.pieces.marks["sep"])

    def mask(self) -> Tensor | None:
        """The vector of [MASK], where the vocabulary has it."""
        return self.content.weight[self.pieces.marks["mask"]] if self.pieces.marks else None

    def tables(self) -> Mapping[str, Tensor]:
        """By the names of a BERT file; the segments only where `start` means them."""
        named = {"word_embeddings": self.content}
        if self.place is not None:
            named["position_embeddings"] = self.place
        if self.pieces.marks:
            named["token_type_embeddings"] = self.start
        return {name: table.weight for name, table in named.items()}

    def symbols(self, fields: Fields) -> Tensor:
        """The pieces."""
        return fields["id"]

    def substitute(self, fields: Fields, draws: Tensor) -> Fields:
        """Any piece of the vocabulary."""
        first = self.pieces.first
        return {**fields, "id": first + (draws * (self.pieces.size - first)).long()}

    def table(self) -> Tensor:
        """The vectors of the pieces, (vocabulary, D)."""
        return self.content.weight

    def target(self, fields: Fields) -> Tensor:
        """(K, 1) int64: the id."""
        return fields["id"][:, None]

    def head(self, width: int) -> nn.Module:
        """(K, width) -> (K, vocabulary) logits."""
        return _pieces.symbol_head(width, self.pieces.size)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross entropy in nats; ln(vocabulary) for a head that knows nothing."""
        return F.cross_entropy(prediction.float(), target[:, 0].long(), reduction="none")

    def ask(self, value: str | None, part: str | None = None) -> list[Question]:
        """A text of eight unknown words of one piece each: how long it would be, nobody knows."""
        count, marks = min(_ASKED, self.config.max_tokens), self.pieces.marks
        place, ids = torch.arange(count), torch.zeros(count, dtype=torch.long)
        hidden = torch.ones(count, dtype=torch.bool)
        if marks:
            ids[0], ids[-1] = marks["cls"], marks["sep"]
            hidden[0] = hidden[-1] = False
        return [
            Question({"id": ids, "position": place, "start": torch.full_like(place, not marks), "unit": place}, hidden)
        ]

    def answer(self, question: Question, prediction: Tensor) -> Guess:
        """The text, each unknown piece the likeliest in its place whatever the others are."""
        ids = question.fields["id"].clone()
        best, choices = self.pieces.likeliest(prediction)
        ids[question.hidden] = torch.tensor(best, dtype=torch.long)
        words: list[list[int]] = []
        for piece, start in zip(ids.tolist(), question.fields["start"].tolist(), strict=True):
            if start or not words:
                words.append([])
            words[-1].append(piece)
        confidence, score = _pieces.surest(choices)
        return Guess(" ".join(self.pieces.decode(word) for word in words), confidence, choices, score)
