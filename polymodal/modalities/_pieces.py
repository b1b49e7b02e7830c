"""The tokenizer that the text and the table share: byte-level BPE, trained on the catalogue itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordPiece
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn

from polymodal.types import BadInput

__all__ = [
    "LONGEST_PIECE",
    "RESERVED",
    "Choices",
    "Pieces",
    "WordPieces",
    "clean",
    "embedding",
    "keep_some",
    "surest",
    "symbol_head",
    "words",
]

# of each token the likeliest pieces with their probabilities
Choices = tuple[tuple[tuple[str, float], ...], ...]

# ids below this are ours and no text can produce them: 0 is the blank token, 1 stands for a number
RESERVED = 2
LONGEST_PIECE = 16
# characters of a script that writes no spaces and whose characters carry meaning each: one word each
_HAN = r"㐀-䶿一-鿿豈-﫿\U00020000-\U0003FFFF"

_FIT_CHARS = 2000
# invisible characters that would make equal titles differ: controls, zero-width space, soft hyphen, bidi marks, BOM
_SPANS = [(0, 32), (127, 160), (0xAD, 0xAE), (0x200B, 0x200C), (0x200E, 0x2010), (0x202A, 0x202F), (0x2060, 0x2061)]
_INVISIBLE = {
    code: None
    for start, end in [*_SPANS, (0x2066, 0x206A), (0xFEFF, 0xFF00)]
    for code in range(start, end)
    if not chr(code).isspace()
}


def clean(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, without controls, lone surrogates and surplus space.

    The cut comes first, so that the cost of a 10 MB text is that of a copy.
    """
    cut = text.lstrip()[:limit]
    if not cut.isascii():
        cut = cut.encode("utf-8", "ignore").decode("utf-8")
    return " ".join(cut.translate(_INVISIBLE).split())


class Symbols:
    """What every tokenizer here can do: be kept as JSON, and say what a prediction means. Needs: `size`, the number of
    ids, `first`, the least id that stands for a piece of text, and `decode`.
    """

    size: int
    first: int

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, text: object, where: str) -> Self:
        """The tokenizer that `dump` wrote. Raises BadInput for anything else."""
        if not isinstance(text, str):
            raise BadInput(where, "the JSON of a tokenizer, as fit returns it", type(text).__name__)
        return cls(Tokenizer.from_str(text))

    def dump(self) -> str:
        """JSON."""
        return str(self._tokenizer.to_str())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some pieces, joined."""
        raise NotImplementedError

    def likelihoods(self, logits: Tensor) -> Tensor:
        """Log-probabilities of the pieces, (H, size) on the CPU; what is no piece has none."""
        scores = logits.float().cpu().clone()
        scores[:, : self.first] = -torch.inf
        return scores.log_softmax(-1)

    def likeliest(self, logits: Tensor, most: int = 5) -> tuple[list[int], Choices]:
        """The best id of each row of logits (H, size), and its `most` likeliest pieces with their probabilities."""
        values, at = self.likelihoods(logits).exp().topk(min(most, self.size - self.first))
        pairs = zip(at.tolist(), values.tolist(), strict=True)
        choices = tuple(tuple((self.decode([i]), p) for i, p in zip(*row, strict=True) if p > 0) for row in pairs)
        return at[:, 0].tolist() if len(at) else [], choices

    def best_of(
        self, logits: Tensor, words: Sequence[Sequence[int]]
    ) -> tuple[list[int], tuple[float, ...], float, Choices]:
        """The likeliest of some words of H pieces each, by logits (H, size): its ids, the probability of each, the sum
        of their logarithms, and `likeliest`'s choices. A piece stands against those that any of the words has in its
        place; against all where there is no word.

        The word is chosen as a whole: piece by piece "dark red" could come of "dark blue" and "light red".
        """
        if not words:
            best, choices = self.likeliest(logits)
            return best, *surest(choices), choices
        known = torch.tensor(words).T
        logits = logits.float().cpu()
        logits = logits + torch.full_like(logits, -torch.inf).scatter(1, known, 0.0)
        each = self.likelihoods(logits).gather(1, known)
        score, first = each.sum(0).max(0)
        chosen = known[:, first].tolist(), tuple(each[:, first].exp().tolist())
        return *chosen, float(score), self.likeliest(logits)[1]


class Pieces(Symbols):
    """Text -> numbers of pieces, any script; nothing is ever unknown, because every byte is a piece.

    NFKC and lower case (both optional), words split at spaces, at punctuation, between digits and letters, and before
    and after every Han character; then byte-level BPE in each word. Whether a piece begins a word is not part of the
    piece (no "##" and no leading-space twin), so that one vector serves both: callers give it to the model as a field.

    Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; bytes as the alphabet
    from Radford et al. 2019 (GPT-2); Han characters isolated as in Devlin et al. 2019 (BERT).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.first = RESERVED
        self.marks: Mapping[str, int] = {}
        self.size = RESERVED + tokenizer.get_vocab_size(with_added_tokens=False)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, lower: bool = True, compatible: bool = True) -> Pieces:
        """A tokenizer of at most `vocabulary` ids, the reserved ones included. Equal texts give equal JSON.

        Args:
            texts: streamed once; of each the first 2,000 characters count.
            vocabulary: at least 256 + RESERVED.
            lower: ignore case.
            compatible: NFKC (full-width letters, ligatures, circled digits become plain ones) rather than NFC.
        """
        tokenizer = Tokenizer(BPE())
        steps: list[normalizers.Normalizer] = [normalizers.NFKC() if compatible else normalizers.NFC()]
        if lower:
            steps.append(normalizers.Lowercase())
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
                pre_tokenizers.Punctuation("isolated"),
                pre_tokenizers.Digits(individual_digits=False),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        trainer = BpeTrainer(
            vocab_size=vocabulary - RESERVED,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            max_token_length=LONGEST_PIECE,
        )
        tokenizer.train_from_iterator(_shortened(texts), trainer)
        return cls(tokenizer)

    def encode(self, text: str, limit: int) -> tuple[list[int], list[int]]:
        """At most `limit` pieces: (their ids, the number of the word that each belongs to)."""
        # no more of the text can matter: a piece has at most 16 bytes; times 4 for what normalising contracts
        encoding = self._tokenizer.encode(text[: 4 * LONGEST_PIECE * limit], add_special_tokens=False)
        ids = [RESERVED + number for number in encoding.ids[:limit]]
        return ids, [word or 0 for word in encoding.word_ids[:limit]]

    def known(self, text: str, limit: int) -> bool:
        """Whether any piece is a whole word of one character, or more than one byte of a longer word.

        Nothing is unknown to bytes, so what the catalogue never had shows as words that fell into single ones.
        """
        ids, words = self.encode(text, limit)
        for at, number in enumerate(ids):
            piece, alone = self.decode([number]), words.count(words[at]) == 1
            if any(c.isalnum() for c in piece) and (alone or len(piece.encode()) > 1):
                return True
        return False

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some pieces, joined; reserved ids and broken bytes say nothing."""
        names = [self._tokenizer.id_to_token(i - RESERVED) for i in ids if i >= RESERVED]
        return str(decoders.ByteLevel().decode([n for n in names if n is not None])).replace("�", "")


def surest(choices: Choices) -> tuple[tuple[float, ...], float]:
    """The probability of each first choice, and the sum of their logarithms."""
    confidence = tuple(row[0][1] for row in choices)
    return confidence, sum(math.log(max(p, 1e-12)) for p in confidence)


class WordPieces(Symbols):
    """The tokenizer of a BERT folder: [CLS], the pieces of the text, [SEP]; ids as in the folder.

    `marks` holds the ids of [CLS], [SEP] and [MASK] as "cls", "sep" and "mask"; `first` is the first id that a random
    piece may have, 0 as in BERT.

    Source: Wu et al. 2016 (WordPiece) as in Devlin et al. 2019; the work is done by the library `tokenizers`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.first = 0
        self.size = tokenizer.get_vocab_size(with_added_tokens=True)
        found = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in ("cls", "sep", "mask")}
        lacking = [name for name, number in found.items() if number is None]
        if lacking:
            raise BadInput("text.bert", "a vocabulary with [CLS], [SEP] and [MASK]", f"no [{lacking[0].upper()}]")
        self.marks: Mapping[str, int] = {name: int(number or 0) for name, number in found.items()}

    @classmethod
    def read(cls, folder: Path, lower: bool) -> WordPieces:
        """From tokenizer.json, or else from vocab.txt with BERT's own splitting. Raises BadInput without either."""
        if (folder / "tokenizer.json").exists():
            tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return cls(tokenizer)
        if not (folder / "vocab.txt").exists():
            raise BadInput("text.bert", "a folder with tokenizer.json or vocab.txt", folder)
        lines = (folder / "vocab.txt").read_text("utf-8").splitlines()
        tokenizer = Tokenizer(WordPiece({word: at for at, word in enumerate(lines)}, unk_token="[UNK]"))  # noqa: S106
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return cls(tokenizer)

    def encode(self, text: str, limit: int) -> tuple[list[int], list[int]]:
        """At most `limit` pieces, the two marks among them: (their ids, the number of the word of each)."""
        room = max(limit - 2, 0)
        encoding = self._tokenizer.encode(text[: 4 * LONGEST_PIECE * limit], add_special_tokens=False)
        ids, words = encoding.ids[:room], [1 + (word or 0) for word in encoding.word_ids[:room]]
        last = words[-1] + 1 if words else 1
        return [self.marks["cls"], *ids, self.marks["sep"]], [0, *words, last]

    def known(self, text: str, limit: int) -> bool:
        """Whether any piece is a letter or more, and not [UNK]."""
        unknown = self._tokenizer.token_to_id("[UNK]")
        ids = [number for number in self.encode(text, limit)[0] if number != unknown]
        return any(c.isalnum() for c in self.decode(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some pieces, joined; marks say nothing."""
        kept = [self._tokenizer.id_to_token(i) for i in ids if i not in self.marks.values()]
        return str(decoders.WordPiece().decode([n for n in kept if n is not None]))


def _shortened(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield text[:_FIT_CHARS]


def embedding(rows: int, width: int) -> nn.Embedding:
    """A table of `rows` vectors, N(0, 0.02) as in BERT."""
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=0.02)
    return table


def symbol_head(width: int, outputs: int) -> nn.Sequential:
    """Dense, GELU, LayerNorm, Linear: (K, width) -> (K, outputs). The head of BERT's masked language model.

    Differences: not tied to the embeddings, because those belong to the exported model and the head to the objective.
    """
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, outputs))


def words(text: str) -> list[tuple[int, int]]:
    """Where the words of `text` stand: runs without space, and every Han character for itself."""
    return [match.span() for match in _WORD.finditer(text)]


def keep_some(count: int, drop: float, generator: torch.Generator) -> npt.NDArray[np.bool_]:
    """Which of `count` things stay when each is dropped with probability `drop`: (count,) bool, at least one True."""
    draws = torch.rand(count, generator=generator).numpy()
    keep: npt.NDArray[np.bool_] = draws >= drop
    keep[draws.argmax()] = True
    return keep


_WORD = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")
