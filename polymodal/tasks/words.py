"""Words for a text that is missing: by the head or by the texts of the nearest items, and how many are right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate import Difference, Interval, interval, paired
from polymodal.evaluate.intervals import Clusters
from polymodal.evaluate.values import Result

__all__ = ["Worded", "frequent_words", "head_words", "judge_words", "neighbour_words", "words_in"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# a word and its share, the best first
Proposal = list[tuple[str, float]]

_VOTE = 0.07  # temperature of the votes of neighbours, as of the k-NN probe


@dataclass(frozen=True)
class Worded(Result):
    """One way of proposing words.

    Args:
        precision: share of the proposed words that the hidden text has; a proposal of fewer than k words is not
            excused.
        recall: share of the words of the hidden text that were proposed.
        better: ours minus this in precision, paired; None for ours.
    """

    name: str
    precision: Interval
    recall: Interval
    better: Difference | None = None


def words_in(text: str) -> list[str]:
    """The different words of a text, in lower case, in their order."""
    return list(dict.fromkeys(re.findall(r"\w+", text.casefold())))


def frequent_words(texts: Sequence[Collection[str]], k: int) -> Proposal:
    """The control: the words that most texts have."""
    count = Counter(word for words in texts for word in words)
    best = sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    return [(word, times / max(len(texts), 1)) for word, times in best]


def neighbour_words(
    rows: Ints, scores: npt.NDArray[np.float32], texts: Sequence[Collection[str]], k: int
) -> list[Proposal]:
    """The words of the nearest texts, each with the share of the votes of those that have it.

    Args:
        rows: (n, K) nearest texts, -1 for none; scores: (n, K) cosines. A text's vote is exp(cosine / 0.07).
    """
    weight = np.where(rows >= 0, np.exp((scores - scores[:, :1]) / _VOTE), 0.0)
    weight /= np.maximum(weight.sum(1, keepdims=True), 1e-12)
    out: list[Proposal] = []
    for near, votes in zip(rows.tolist(), weight.tolist(), strict=True):
        share: dict[str, float] = {}
        for row, vote in zip(near, votes, strict=True):
            for word in texts[row] if row >= 0 else ():
                share[word] = share.get(word, 0.0) + vote
        out.append(sorted(share.items(), key=lambda pair: (-pair[1], pair[0]))[:k])
    return out


def head_words(
    choices: Sequence[Sequence[tuple[str, float]]], known: Mapping[str, int] | Collection[str], k: int
) -> Proposal:
    """Whole words among the pieces that a head finds likely, each by the place where it is likeliest.

    Args:
        choices: of each place the likeliest pieces with their probabilities. known: words that texts have; a piece that
            is none of them is a part of a word.
    """
    best: dict[str, float] = {}
    for row in choices:
        for piece, share in row:
            word = piece.strip().casefold()
            if word in known:
                best[word] = max(share, best.get(word, 0.0))
    return sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def judge_words(
    ways: Mapping[str, Sequence[Proposal]],
    truth: Sequence[Collection[str]],
    k: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> tuple[Worded, ...]:
    """Several ways on the same hidden texts; the first is ours. `clusters`: (n,) texts that are drawn together."""
    options: Any = {"resamples": resamples, "seed": seed, "clusters": clusters}
    out: list[Worded] = []
    ours: Floats | None = None
    for name, proposals in ways.items():
        hits = np.asarray([sum(w in t for w, _ in p) for p, t in zip(proposals, truth, strict=True)], np.float64)
        length = np.asarray([max(len(t), 1) for t in truth], np.float64)
        better = None if ours is None else paired(ours, hits / k, **options)
        ours = hits / k if ours is None else ours
        out.append(Worded(name, interval(hits / k, **options), interval(hits / length, **options), better))
    return tuple(out)
