"""What the items of a group say more often than the others: words, attribute values, high and low numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.leak import spoken
from polymodal.evaluate.values import Result
from polymodal.types import Record

__all__ = ["Telling", "telling_terms"]

# items that the prior counts for: what is said of all of them, spread as in the whole catalogue
_PRIOR = 10.0
_LEAST_Z = 2.0
_QUARTERS = ("lowest", "second", "third", "highest")

Term = tuple[str, str]  # modality, what is said


@dataclass(frozen=True)
class Telling(Result):
    """One term.

    Args:
        source: modality. term: a word, or `attribute = value`, or `attribute in the highest quarter (from 12)`.
        inside, size: items of the group that say it, of those that have the modality.
        outside, rest: the same of all other items.
        lift: share inside over share of all. z: log-odds ratio in standard deviations; only those above 2 are told.
    """

    source: str
    term: str
    inside: int
    size: int
    outside: int
    rest: int
    lift: float
    z: float


def telling_terms(
    records: Sequence[Record], groups: npt.NDArray[np.int64], count: int, *, most: int = 8
) -> list[tuple[Telling, ...]]:
    """The terms that tell each group from the rest, the surest first.

    Args:
        records: n, with texts and attributes. groups: (n,) in [0, count).
        most: terms of a group.

    An item counts once, however often it says a term. A term that one item of a group says tells nothing.
    Source: Monroe, Colaresi & Quinn 2008, "Fightin' Words", equations 15, 16 and 22 (log-odds ratio with an
        informative Dirichlet prior), on items in place of words.
    """
    quarters = _quarters(records)
    said = [set(_terms(record, quarters)) for record in records]
    has = [Counter[str]() for _ in range(count)]
    by_group = [Counter[Term]() for _ in range(count)]
    for record, terms, group in zip(records, said, groups.tolist(), strict=True):
        has[group].update(list(record.values))
        by_group[group].update(terms)
    all_has: Counter[str] = sum(has, Counter())
    everywhere: Counter[Term] = sum(by_group, Counter())
    return [_of_group(own, size, everywhere, all_has, most) for own, size in zip(by_group, has, strict=True)]


def _of_group(
    own: Mapping[Term, int], size: Mapping[str, int], everywhere: Mapping[Term, int], has: Mapping[str, int], most: int
) -> tuple[Telling, ...]:
    found = []
    for (source, term), inside in own.items():
        total, items, group = everywhere[source, term], has[source], size[source]
        rest, outside = items - group, total - inside
        if inside < 2 or not rest:
            continue
        prior = _PRIOR * total / items
        odds = _log_odds(inside, group, prior) - _log_odds(outside, rest, prior)
        z = odds / np.sqrt(1 / (inside + prior) + 1 / (outside + prior))
        if z > _LEAST_Z:
            lift = (inside / group) / (total / items)
            found.append(Telling(source, term, inside, group, outside, rest, float(lift), float(z)))
    return tuple(sorted(found, key=lambda one: (-one.z, one.source, one.term))[:most])


def _log_odds(said: int, items: int, prior: float) -> float:
    return float(np.log((said + prior) / max(items + _PRIOR - said - prior, 1e-9)))


def _terms(record: Record, quarters: Mapping[tuple[str, str], npt.NDArray[np.float64]]) -> Iterator[Term]:
    for source, value in record.values.items():
        if isinstance(value, str):
            yield from ((source, word) for word in _words(value))
            continue
        for name, content in _pairs(value):
            if _is_number(content):
                if (source, name) in quarters:
                    yield source, _quarter(name, float(content), quarters[source, name])
            else:
                yield source, f"{name} = {content}"


def _words(text: str) -> Iterator[str]:
    """Words, and pairs of neighbouring letters in scripts without spaces; lone letters and numbers say little."""
    before = ""
    for word in spoken(text).split():
        single = len(word) == 1 and not word.isascii()
        if single and before:
            yield before + word
        elif len(word) > 1 and not word.isdigit():
            yield word
        before = word if single else ""


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    for part in pairs:
        if isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[0], str):
            several = part[1] if isinstance(part[1], (tuple, list)) else [part[1]]
            for content in several:
                yield part[0], content


def _is_number(content: Any) -> bool:
    return isinstance(content, (int, float)) and not isinstance(content, bool) and bool(np.isfinite(content))


def _quarters(records: Sequence[Record]) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
    """The three numbers that cut each numeric attribute into quarters."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for source, value in record.values.items():
            for name, content in _pairs(value) if not isinstance(value, str) else ():
                if _is_number(content):
                    found.setdefault((source, name), []).append(float(content))
    cut = {key: np.quantile(values, [0.25, 0.5, 0.75]) for key, values in found.items()}
    return {key: edges for key, edges in cut.items() if len(set(edges.tolist())) == 3}


def _quarter(name: str, value: float, edges: npt.NDArray[np.float64]) -> str:
    at = int(np.searchsorted(edges, value, "right"))
    bounds = f"below {edges[0]:g}" if at == 0 else f"from {edges[at - 1]:g}" + (f" to {edges[at]:g}" if at < 3 else "")
    return f"{name} in the {_QUARTERS[at]} quarter ({bounds})"
