"""Search by words, the control of every search by vectors, and the lists of several searches fused by rank."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, normalizers, pre_tokenizers

from polymodal.catalogue.attributes import attributes_of
from polymodal.evaluate import Ties, scored_top
from polymodal.evaluate.leak import UNSPACED
from polymodal.types import BadInput, MissingExtra, Record

__all__ = ["Bm25", "Lists", "fuse", "joined", "queries_at_once", "text_of", "words_of"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# (Q, K) corpus rows, best first, -1 after the end of a list; their scores
Lists = tuple[Ints, Floats]

# scores of one block of queries, whatever the size of the corpus
_PLACES = 1 << 23


def text_of(record: Record) -> str:
    """Every text of a record, then the values of its attributes. Labels and group are never in it.

    Names of attributes are left out, since every item that has the attribute says them, and so are numbers: two prices
    that happen to be equal are a rare word in common. Both made the control weaker on the demo shop.
    """
    texts = [value for value in record.values.values() if isinstance(value, str)]
    for value in attributes_of(record).values():
        texts += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return "\n".join(texts)


@cache
def _splitter() -> Any:
    steps = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    # marks belong to words: without them Devanagari and vocalised Arabic fall apart
    return steps, pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}\p{N}]+"), "removed")


def words_of(text: str) -> list[str]:
    """The words of a text in any script.

    NFKC and lower case; a word is a run of letters, marks and digits. Where a script writes no spaces, every two
    neighbouring characters are a word (one alone is one).

    Source: bigrams as in Lucene's CJKAnalyzer. Differences: Thai, Lao, Khmer and Myanmar too.
    """
    normalise, split = _splitter()
    found: list[str] = []
    for run, _ in split.pre_tokenize_str(normalise.normalize_str(text)):
        done = 0
        for match in UNSPACED.finditer(run):
            if match.start() > done:
                found.append(run[done : match.start()])
            some = match.group()
            found += [some[at : at + 2] for at in range(max(len(some) - 1, 1))]
            done = match.end()
        if done < len(run):
            found.append(run[done:])
    return found


class Bm25:
    """BM25 over some texts.

    ::

        s(q, d) = sum over words w of q   ln(1 + (N - n_w + 0.5) / (n_w + 0.5)) * f_wd / (f_wd + k1 (1 - b + b l_d / l))

    with f_wd occurrences of w in d, n_w texts with w, l_d words of d and l their mean. Words of a query count once, or,
    where it is asked for, as often as it says them.

    Args:
        texts: C texts. k1, b: as in the formula.

    Source: Robertson & Zaragoza 2009, in Lucene's form (idf never below 0, no constant k1 + 1), computed by bm25s
        (Lu 2024, arXiv 2407.03618). k1 = 1.2 and b = 0.75 are Lucene's.
    Differences: no stop words and no stemming, which are of one language.
    Raises:
        MissingExtra: bm25s is not installed. BadInput: no text has a word.
    """

    def __init__(self, texts: Iterable[str], k1: float = 1.2, b: float = 0.75) -> None:
        try:
            import bm25s
        except ImportError:
            raise MissingExtra("bm25s", "report") from None
        # it asks for DEBUG of its own accord
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self.vocabulary: dict[str, int] = {}
        grow = self.vocabulary.setdefault
        numbers = [[grow(word, len(self.vocabulary)) for word in words_of(text)] for text in texts]
        if not self.vocabulary:
            raise BadInput("texts", "at least one word", f"none in {len(numbers)} texts")
        self.size = len(numbers)
        self._scorer = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._scorer.index((numbers, self.vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, queries: Sequence[str], repeated: bool = False) -> Floats:
        """(Q, C); 0 where no word is shared. repeated: words count as often as the query says them."""
        out = np.zeros((len(queries), self.size), np.float32)
        for row, query in enumerate(queries):
            said = words_of(query) if repeated else dict.fromkeys(words_of(query))
            known = [self.vocabulary[word] for word in said if word in self.vocabulary]
            if known:
                out[row] = self._scorer.get_scores_from_ids(known)
        return out

    def search(
        self,
        queries: Sequence[str],
        k: int,
        ties: Ties | None = None,
        exclude: Ints | None = None,
        repeated: bool = False,
    ) -> tuple[Ints, Floats]:
        """The k texts of the highest score, of those that share a word with the query.

        Args:
            ties, exclude: as in `evaluate.top_k`. repeated: as in `scores`.

        Returns:
            rows and scores (Q, min(k, C)), as `evaluate.top_k`.
        """
        step, parts = queries_at_once(self.size), []
        for start in range(0, len(queries), step):
            scores = self.scores(queries[start : start + step], repeated)
            banned = None if exclude is None else exclude[start : start + step]
            parts.append(scored_top(np.where(scores > 0, scores, -np.inf), k, ties, banned))
        return joined(parts, min(k, self.size))


def fuse(lists: Sequence[Ints], corpus: int, depth: int, ties: Ties | None = None, k: int = 60) -> tuple[Ints, Floats]:
    """Reciprocal rank fusion: what several searches rank high comes first, whatever their scores mean.

    ::

        s(q, d) = sum over lists that have d   1 / (k + rank of d),   ranks from 1

    Args:
        lists: (Q, K) corpus rows each, best first, -1 after the end of a list.
        corpus: C. depth: length of the fused lists.
        ties: order of equal scores, as in `evaluate.top_k`.

    Returns:
        rows and scores (Q, min(depth, C)), as `evaluate.top_k`.

    Source: Cormack, Clarke and Büttcher, SIGIR 2009, k = 60.
    """
    queries, parts = len(lists[0]), []
    step = queries_at_once(corpus)
    for start in range(0, queries, step):
        some = [found[start : start + step] for found in lists]
        scores = np.zeros((len(some[0]), corpus + 1))
        for found in some:
            gain = 1 / (k + 1 + np.arange(found.shape[1]))
            # an item stands once in a list; -1 is the column that is thrown away
            scores[np.arange(len(found))[:, None], found] += np.where(found >= 0, gain, 0.0)
        listed = np.where(scores[:, :corpus] > 0, scores[:, :corpus], -np.inf).astype(np.float32)
        parts.append(scored_top(listed, depth, ties))
    return joined(parts, min(depth, corpus))


def queries_at_once(corpus: int) -> int:
    """How many queries' scores of a whole corpus are held at a time."""
    return max(1, _PLACES // corpus)


def joined(parts: Sequence[Lists], width: int) -> Lists:
    """Lists of consecutive queries as those of all; (0, width) of none."""
    if not parts:
        return np.zeros((0, width), np.int64), np.zeros((0, width), np.float32)
    rows, scores = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(scores)
