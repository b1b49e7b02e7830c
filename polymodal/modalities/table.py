"""Table: the attributes of an item, names with values; numbers stay numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.modalities import _pieces
from polymodal.modalities._pairs import flatten, parse
from polymodal.modalities._pieces import Pieces
from polymodal.modalities._survey import Survey, scale, stable_number
from polymodal.modality import Fitted, Guess, Modality, ModalityConfig, Question
from polymodal.tensors import Fields
from polymodal.types import BadInput, MediaError

__all__ = ["Pairs", "Table", "TableConfig"]

# what decode returns: (name, value) in the order of names, strings in the order they came in under one name
Pairs = tuple[tuple[str, str | float], ...]

_NUMBER_ID = 1
_NAME, _VALUE = 0, 1
_MOST_PAIRS, _NAME_CHARS = 10_000, 200
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,15})?")
# standardised numbers end here; asinh brings a value 200 spreads from the middle to 6
_LIMIT = 6.0


class TableConfig(ModalityConfig):
    """How attributes are read.

    Args:
        vocabulary: most pieces of the tokenizer for names and words, 2 reserved ones and 256 bytes included.
        max_attributes: attributes read of a row; beyond that the rarer names are cut.
        name_pieces, value_pieces: pieces read of a name and of a value. N <= max_attributes * (the sum of both).
        max_names: names with an index and a scale of their own; further and unseen names share `buckets` by hash.
        max_chars: characters kept of a value.
        parse_numbers: read "12", "-3" and "12.50" as numbers; never "007", "1e999", "12-14", "1,5" or ten digits.
        waves: frequencies that a number is read through.
        drop: augmentation: chance of each attribute to be left out.
        hide_names: names of attributes may be hidden too; False: values alone, the name says what is asked for.
        groups: attributes of one outer name (size.width, size.height) hide together, since one gives the other away.
    """

    kind: Literal["table"] = "table"
    vocabulary: int = Field(4000, ge=300, le=1_000_000)
    max_attributes: int = Field(32, ge=1, le=1024)
    name_pieces: int = Field(2, ge=1, le=64)
    value_pieces: int = Field(6, ge=1, le=64)
    max_names: int = Field(2048, ge=0)
    buckets: int = Field(64, ge=1)
    max_chars: int = Field(2000, ge=1)
    parse_numbers: bool = True
    waves: int = Field(16, ge=1, le=256)
    drop: float = Field(0.1, ge=0, lt=1)
    hide_names: bool = True
    groups: bool = False

    def fit(self, values: Iterable[Any]) -> Fitted:
        """The tokenizer, the names by falling frequency, and a middle and a spread for the numbers of each name.

        `{"tokenizer": JSON, "names": [...], "scales": [[middle, spread] or null, ...], "other": [middle, spread],
        "lengths": [[share of word values of one piece, two, ...], ...], "values": [[word, ...], ...]}`, the words empty
        where they are more than 256, or come less than twice on average.
        One pass; a sample of at most 1,024 numbers and 256 different words a name is held.
        """
        survey = Survey()
        pieces = Pieces.train(survey.read(values), self.vocabulary)
        names = survey.names(self.max_names)
        return {
            "tokenizer": pieces.dump(),
            "names": names,
            "scales": [scale(survey.numbers[name].kept) if name in survey.numbers else None for name in names],
            "lengths": [_lengths(pieces, survey.words.get(name, {}), self.value_pieces) for name in names],
            "values": [survey.closed(name) for name in names],
            "other": scale([math.asinh(x) for sample in survey.numbers.values() for x in sample.kept]),
        }

    def build(self, width: int, fitted: Fitted) -> Table:
        """Raises BadInput where `fitted` is not what `fit` returns."""
        for key in ("names", "scales", "other"):
            if key not in fitted:
                raise BadInput(f"fitted[{key!r}]", "what TableConfig.fit returned", "nothing")
        return Table(self, width, Pieces.load(fitted.get("tokenizer"), "fitted['tokenizer']"), fitted)

    def decoder(self) -> Table:
        """A Table whose tokenizer knows single bytes only."""
        return Table(self, 1, Pieces.train((), self.vocabulary), {"names": [], "scales": [], "other": [0.0, 1.0]})


class _Shuffled(tuple[tuple[str, str | float], ...]):
    """Pairs whose order `augment` has drawn: preprocess keeps it."""

    __slots__ = ()


class Table(Modality):
    """One group of tokens an attribute: the pieces of its name, then those of its value, or one token for a number.

    Fields of N tokens: `id` int64 (1 = a number), `number` float32 (standardised; 0 for words), `numeric` bool,
    `attribute` int64 (index of the name; unseen names by hash), `side` int64 (0 name, 1 value), `offset` int64 (piece
    in its side), `slot` int64 (rank of the attribute in its row), `unit` int64 (2 * slot + side: a whole name or a
    whole value hides together; with `groups` the slot is that of the group's first attribute).

    A number x of a name with median m and spread s (of the quartiles) is z = asinh((x - m) / s), within +-6: linear
    near the middle, logarithmic in the tails, so that one absurd price neither dominates nor looks like the next.
    Unseen names take asinh(x) for x, and m and s of all numbers so taken.
    It is read as [z, sin(2 pi f z), cos(2 pi f z)] -> Linear, f learned.

    The `slot` is the only tie between a name and its value. In training slots are drawn at random, so that a slot means
    nothing by itself; otherwise attributes stand in the order of their names, whatever the order of the row.

    Source: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning" (periodic
    embeddings); whole names and values hidden as in SCALE's MEM (Dong et al. 2022).
    Differences: frequencies are shared by all attributes rather than one set each, since a catalogue has thousands;
    the attribute's own vector is added instead. No ReLU after the Linear: the tower follows.
    """

    kind: ClassVar[str] = "table"
    frequencies: nn.Parameter

    def __init__(self, config: TableConfig, width: int, pieces: Pieces, fitted: Fitted) -> None:
        super().__init__()
        self.config, self.pieces = config, pieces
        self._index = {name: at for at, name in enumerate(fitted["names"])}
        self._scales: list[Sequence[float] | None] = list(fitted["scales"])
        self._other: Sequence[float] = fitted["other"]
        self._lengths: Sequence[Sequence[float]] = fitted.get("lengths", ())
        self._values: Sequence[Sequence[str]] = fitted.get("values", ())
        self._known: dict[tuple[str, int], list[int]] = {}
        self.content = _pieces.embedding(pieces.size, width)
        self.column = _pieces.embedding(len(self._index) + config.buckets, width)
        self.side = _pieces.embedding(2, width)
        self.slot = _pieces.embedding(config.max_attributes, width)
        self.offset = _pieces.embedding(max(config.name_pieces, config.value_pieces), width)
        self.frequencies = nn.Parameter(torch.randn(config.waves) * 0.3)
        self.number = nn.Linear(1 + 2 * config.waves, width)
        nn.init.normal_(self.number.weight, std=0.02)
        nn.init.zeros_(self.number.bias)

    # -- loader side ---------------------------------------------------------------------------------------------

    def decode(self, source: Any) -> Pairs:
        """(name, value) pairs in the order of their names; values are str or finite float.

        Args:
            source: a mapping, a sequence of pairs, or the JSON text of either. Lists give several pairs, nested
                mappings "outer.inner"; yes/no for bool; None, "", NaN and infinity are left out.

        Raises:
            MediaError: "wrong type" for anything else, "unreadable" JSON, "over the limits" (8 levels, 10,000 pairs),
                "empty" where no value is left.
        """
        if isinstance(source, str):
            source = parse(source)
        pairs: list[tuple[str, str | float]] = []
        for name, value in flatten("", source, 0):
            plain = self._plain(value)
            if plain is not None:
                pairs.append((_pieces.clean(name, _NAME_CHARS) or "?", plain))
            if len(pairs) > _MOST_PAIRS:
                raise MediaError("over the limits", f"more than {_MOST_PAIRS} attributes")
        if not pairs:
            raise MediaError("empty", "no attribute has a value")
        return tuple(sorted(pairs, key=_order))

    def _plain(self, value: Any) -> str | float | None:
        if isinstance(value, (bool, np.bool_)):
            return "yes" if value else "no"
        if isinstance(value, str):
            text = _pieces.clean(value, self.config.max_chars)
            if self.config.parse_numbers and _NUMBER.fullmatch(text):
                return float(text) + 0.0  # one number of 0 and -0
            return text or None
        try:
            number = float(value) + 0.0
        except OverflowError:
            return None
        except (TypeError, ValueError):
            raise MediaError("wrong type", f"a value of type {type(value).__name__}") from None
        return number if math.isfinite(number) else None

    def augment(self, value: Pairs, generator: torch.Generator) -> Pairs:
        """Leaves attributes out (never all) and draws which slot each of the others gets."""
        order = torch.randperm(len(value), generator=generator).numpy()
        keep = _pieces.keep_some(len(value), self.config.drop, generator)
        return _Shuffled(value[at] for at in order[keep[order]].tolist())

    def preprocess(self, value: Pairs) -> Fields:
        """Fields of all attributes; the same for every order of the pairs. No pair, no token."""
        pairs: Sequence[tuple[str, str | float]] = value if isinstance(value, _Shuffled) else sorted(value, key=_order)
        ids: list[int] = []
        numbers: list[float] = []
        places: list[tuple[int, int, int, int]] = []
        family: list[int] = []  # the first slot of each token's group
        heads: dict[str, int] = {}
        for slot, (name, content) in enumerate(self._most_common(pairs)):
            leader = heads.setdefault(name.partition(".")[0], slot) if self.config.groups else slot
            pieces, attribute = self._name(name)
            ids += pieces
            numbers += [0.0] * len(pieces)
            places += [(attribute, _NAME, offset, slot) for offset in range(len(pieces))]
            if isinstance(content, str):
                words = self._words(content, self.config.value_pieces)
                numbers += [0.0] * len(words)
            else:
                words = [_NUMBER_ID]
                numbers.append(self._standardised(name, content))
            ids += words
            places += [(attribute, _VALUE, offset, slot) for offset in range(len(words))]
            family += [leader] * (len(pieces) + len(words))
        return _fields(ids, numbers, places, family)

    def _most_common(self, pairs: Sequence[tuple[str, str | float]]) -> Sequence[tuple[str, str | float]]:
        most = self.config.max_attributes
        if len(pairs) <= most:
            return pairs
        common = sorted(range(len(pairs)), key=lambda at: (self._index.get(pairs[at][0], len(self._index)), at))
        return [pairs[at] for at in sorted(common[:most])]

    def _name(self, name: str) -> tuple[list[int], int]:
        attribute = self._index.get(name)
        if attribute is None:
            attribute = len(self._index) + stable_number(name) % self.config.buckets
        # a name that the tokenizer reduces to nothing still needs a token to tie its value to
        return self._words(name, self.config.name_pieces) or self._words("?", 1), attribute

    def _words(self, text: str, limit: int) -> list[int]:
        known = self._known.get((text, limit))
        if known is None:
            known = self.pieces.encode(text, limit)[0]
            # names and values repeat; the bound keeps free text from filling the memory
            if len(text) <= 64 and len(self._known) < 32_768:
                self._known[text, limit] = known
        return known

    def _standardised(self, name: str, number: float) -> float:
        at = self._index.get(name)
        scale = self._scales[at] if at is not None else None
        middle, spread = scale or self._other
        ratio = ((number if scale else math.asinh(number)) - middle) / spread
        return min(max(math.asinh(ratio), -_LIMIT), _LIMIT)

    def example(self, seed: int) -> Pairs:
        """Two to six attributes, words and numbers."""
        numbers = np.random.default_rng(seed)
        names = numbers.permutation(["colour", "price", "size", "brand", "weight", "material"])
        words = ("red", "blue", "Acme", "oak")
        return self.decode(
            {
                str(name): float(numbers.normal(20, 5)) if name in ("price", "weight") else str(numbers.choice(words))
                for name in names[: numbers.integers(2, 7)]
            }
        )

    def blank(self) -> Fields:
        """One token with the id 0, which no attribute produces."""
        return _fields([0], [0.0], [(0, _NAME, 0, 0)], [0])

    def show(self, value: Pairs) -> tuple[str, bytes]:
        """A line an attribute."""
        lines = [f"{name}: {content if isinstance(content, str) else f'{content:g}'}" for name, content in value]
        return "text/plain", "\n".join(lines).encode()

    # -- model side ----------------------------------------------------------------------------------------------

    def embed(self, fields: Fields) -> Tensor:
        """Content: the piece; for a number its waves and the attribute's vector besides."""
        z = fields["number"][:, None].to(self.frequencies.dtype)
        angle = 2 * math.pi * z * self.frequencies
        waves: Tensor = self.number(torch.cat([z, angle.sin(), angle.cos()], 1)) + self.column(fields["attribute"])
        pieces: Tensor = self.content(fields["id"])
        return pieces + waves.masked_fill(~fields["numeric"][:, None], 0.0)

    def positions(self, fields: Fields) -> Tensor:
        """Slot, side and offset; never the attribute, which would tell a hidden name."""
        places: Tensor = self.slot(fields["slot"]) + self.side(fields["side"]) + self.offset(fields["offset"])
        return places

    def query(self, fields: Fields) -> Tensor:
        """Position and attribute: a slot means nothing by itself, so the name is what is asked for."""
        asked: Tensor = self.positions(fields) + self.column(fields["attribute"])
        return asked

    def target(self, fields: Fields) -> Tensor:
        """(K, 2) float32: the id and the standardised number."""
        return torch.stack([fields["id"].float(), fields["number"].float()], 1)

    def maskable(self, fields: Fields) -> Tensor | None:
        """Values alone, where not `hide_names`."""
        return None if self.config.hide_names else fields["side"] == _VALUE

    def symbols(self, fields: Fields) -> Tensor:
        """The pieces, of names and of words."""
        return fields["id"]

    def head(self, width: int) -> nn.Module:
        """(K, width) -> (K, vocabulary + 1): logits, then the number."""
        return _pieces.symbol_head(width, self.pieces.size + 1)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of words in nats, smooth L1 of numbers."""
        prediction = prediction.float()
        ids = target[:, 0].long()
        words = F.cross_entropy(prediction[:, :-1], ids, reduction="none")
        numbers = F.smooth_l1_loss(prediction[:, -1], target[:, 1].float(), reduction="none")
        return torch.where(ids == _NUMBER_ID, numbers, words)

    def parts(self) -> tuple[str, ...]:
        """Names of attributes by falling frequency, as many as a row can have."""
        return tuple(self._index)[: self.config.max_attributes]

    def ask(self, value: Pairs | None, part: str | None = None) -> list[Question]:
        """What the attribute `part` is, beside the other attributes of `value`: as a number where its values are
        numbers, else as words of as many pieces as its values have."""
        if part is None:
            raise BadInput("names", "an attribute, as in 'table.colour'", "a whole table", f"Known: {self.parts()}.")
        kept = self._most_common(tuple(p for p in value or () if p[0] != part))
        others = tuple(kept)[: self.config.max_attributes - 1]
        known = self.preprocess(others)
        pieces, attribute = self._name(part)
        at = self._index.get(part)
        number = at is not None and self._scales[at] is not None
        name = [(attribute, _NAME, offset, len(others)) for offset in range(len(pieces))]
        forms = []
        lengths = self._lengths[at] if not number and at is not None and at < len(self._lengths) else [1.0]
        for count, share in enumerate(lengths, 1):
            if not share:
                continue
            places = [*name, *((attribute, _VALUE, offset, len(others)) for offset in range(count))]
            ids = [*pieces, *[_NUMBER_ID if number else 0] * count]
            asked = _fields(ids, [0.0] * len(ids), places, [len(others)] * len(ids))
            fields = {key: torch.cat([known[key], asked[key]]) for key in asked}
            hidden = torch.arange(len(fields["id"])) >= len(fields["id"]) - count
            forms.append(Question(fields, hidden, math.log(share)))
        return forms

    def answer(self, question: Question, prediction: Tensor) -> Guess:
        """The value of the attribute that was asked for: a number, or words with the confidence of each piece; one of
        its values where all are known."""
        at = int(question.fields["attribute"][question.hidden][0])
        if bool(question.fields["numeric"][question.hidden].any()):
            middle, spread = self._scales[at] or self._other
            return Guess(math.sinh(float(prediction[0, -1])) * spread + middle)
        allowed = self._allowed(at, len(prediction))
        chosen, confidence, score, choices = self.pieces.best_of(prediction[:, :-1], allowed)
        return Guess(self.pieces.decode(chosen), confidence, choices, score + question.prior)

    def _allowed(self, attribute: int, count: int) -> list[list[int]]:
        """The pieces of every known value that has so many; none for an attribute of any words."""
        known = self._values[attribute] if attribute < len(self._values) else ()
        return [ids for value in known if len(ids := self._words(value, self.config.value_pieces)) == count]

    def weigh(self, question: Question, prediction: Tensor, values: Sequence[str]) -> Tensor:
        """Words of as many pieces as are asked for; every piece the likelier the less others could stand there."""
        each = self.pieces.likelihoods(prediction[:, :-1])
        out = torch.full((len(values),), -torch.inf)
        for at, value in enumerate(values):
            ids = self._words(value, self.config.value_pieces)
            if len(ids) == len(each):
                out[at] = each[torch.arange(len(ids)), torch.tensor(ids)].sum() + question.prior
        return out


def _order(pair: tuple[str, str | float]) -> tuple[str, bool, str | float]:
    """Names in order; under one name numbers before words, so that the order of the row leaves no trace."""
    name, value = pair
    return name, isinstance(value, str), value


def _lengths(pieces: Pieces, values: Mapping[str, int], most: int) -> list[float]:
    """Which share of `values` (word -> how often) has one piece, two, ... `most`; one piece where there is none."""
    count = [0] * most
    for value, times in values.items():
        count[max(len(pieces.encode(value, most)[0]), 1) - 1] += times
    return [c / max(sum(count), 1) for c in count] if values else [1.0]


def _fields(ids: list[int], numbers: list[float], places: list[tuple[int, int, int, int]], family: list[int]) -> Fields:
    identity = torch.from_numpy(np.asarray(ids, np.int64))
    columns = torch.from_numpy(np.asarray(places, np.int64).reshape(-1, 4).T.copy())
    attribute, side, offset, slot = columns.unbind()
    return {
        "id": identity,
        "number": torch.from_numpy(np.asarray(numbers, np.float32)),
        "numeric": identity == _NUMBER_ID,
        "attribute": attribute,
        "side": side,
        "offset": offset,
        "slot": slot,
        "unit": 2 * torch.from_numpy(np.asarray(family, np.int64)) + side,
    }
