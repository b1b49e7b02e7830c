"""Does the input name the label that is scored? Then a good score says that the text was read, not what was learnt."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polymodal.evaluate.values import Result
from polymodal.types import Record

__all__ = ["UNSPACED", "Leak", "label_leak", "leak_warning", "spoken", "texts_of"]

# share of the items from which a label counts as given away
LIMIT = 0.5
_BY_CHANCE = 200  # values that are looked for in other items, to see how often a name turns up without meaning anything

# scripts that write no spaces between words (Thai, Lao, Myanmar, Khmer, kana, Han), and Hangul, whose words are phrases
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af]+"
)


@dataclass(frozen=True)
class Leak(Result):
    """How often the items' own input says the value of their label.

    Args:
        label: its name. items: scored items that have it.
        share: of those, whose text or attribute values hold the value, word for word, in [0, 1].
        by_modality: modality -> the same share of the items that have it.
        chance: share of the items that hold another item's value, drawn by how frequent the values are: what turns up
            without being said of the item.
        example: (id, modality, value) of the first such item; empty where there is none.
    """

    label: str
    items: int
    share: float
    by_modality: Mapping[str, float]
    chance: float
    example: tuple[str, str, str] | tuple[()]

    @property
    def leaks(self) -> bool:
        """Whether more than half of the items name their label."""
        return self.share > LIMIT


def leak_warning(found: Iterable[Leak]) -> str:
    """What to tell people of the labels that leak; "" where none does."""
    said = []
    for leak in found:
        if leak.leaks:
            where = ", ".join(f"{name} {share:.0%}" for name, share in leak.by_modality.items() if share > 0)
            said.append(f"{leak.label} {leak.share:.0%} ({where})")
    if not said:
        return ""
    return (
        f"The input of more than half of the scored items names their label, word for word: {'; '.join(said)}. "
        "Scores on it say how well that was read: trust those of modalities that do not name it."
    )


def spoken(text: str) -> str:
    """A text as words between single spaces, one space at each end: in compatibility form, case folded, punctuation
    and underscores left out, so that `T-shirt` is found in `t_shirts / T SHIRT`, and `art` is not found in `cart`.

    In scripts written without spaces, and in Hangul, whose words carry endings, each letter is a word, so that a value
    is found wherever it stands.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if folded.isascii():
        return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in folded).split())} "
    return f" {' '.join(''.join(_apart(c) for c in folded).split())} "


def _apart(letter: str) -> str:
    if unicodedata.category(letter)[0] not in "LMN":
        return " "
    return f" {letter} " if UNSPACED.match(letter) else letter


def texts_of(value: Any) -> Iterator[str]:
    """The words that a cell says: a text, or the values of its attributes; nothing of arrays and files."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for content in value.values():
            yield from _words(content)
    elif isinstance(value, (tuple, list)) and all(_is_pair(part) for part in value):
        for _, content in value:
            yield from _words(content)


def _is_pair(part: Any) -> bool:
    return isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[0], str)


def _words(content: Any) -> Iterator[str]:
    if isinstance(content, (tuple, list)):
        for one in content:
            yield from _words(one)
    elif isinstance(content, float) and content.is_integer():
        yield str(int(content))
    elif isinstance(content, (str, int, float)):
        yield str(content)


def label_leak(
    records: Sequence[Record], values: Mapping[str, str], label: str, modalities: Collection[str] | None = None
) -> Leak:
    """Look for each scored item's label value in its own input.

    Args:
        records: the scored items, with sources or decoded values.
        values: id -> label value; items without one are left out.
        label: its name. modalities: that the model reads; all by default.

    A value counts where all its words stand in the text of a cell one after the other, whole (see `spoken`).
    """
    said: list[str] = []
    own: list[str] = []
    has: Counter[str] = Counter()
    named: Counter[str] = Counter()
    example: tuple[str, str, str] | tuple[()] = ()
    hits = 0
    for record in (r for r in records if r.id in values):
        wanted = spoken(values[record.id])
        cells = {
            name: "\n".join(spoken(text) for text in texts_of(value))
            for name, value in record.values.items()
            if modalities is None or name in modalities
        }
        found = [name for name, text in cells.items() if wanted.strip() and wanted in text]
        has.update(list(cells))
        named.update(found)
        hits += bool(found)
        example = example or ((record.id, found[0], values[record.id]) if found else ())
        said.append("\n".join(cells.values()))
        own.append(wanted)
    share = {name: named[name] / has[name] for name in sorted(has, key=lambda name: (-named[name] / has[name], name))}
    return Leak(label, len(own), hits / max(len(own), 1), share, _chance(said, own), example)


def _chance(said: Sequence[str], own: Sequence[str]) -> float:
    """Share of (item, value of an item with another value) whose text holds the value."""
    counts = Counter(own)
    drawn = sorted(counts)
    if len(drawn) > _BY_CHANCE:
        drawn = [drawn[i] for i in np.random.default_rng(0).permutation(len(drawn))[:_BY_CHANCE]]
    met = pairs = 0
    for value in drawn:
        others = [text for text, mine in zip(said, own, strict=True) if mine != value]
        met += counts[value] * (sum(value in text for text in others) if value.strip() else 0)
        pairs += counts[value] * len(others)
    return met / pairs if pairs else 0.0
