"""What a report shows, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from polymodal.evaluate.breakdown import GroupScore
from polymodal.evaluate.clustering import Clustering
from polymodal.evaluate.controls import Comparison
from polymodal.evaluate.explain import Geometry, MeanWeights, RankCorrelation
from polymodal.evaluate.leak import Leak
from polymodal.evaluate.probe import Classification, Regression
from polymodal.evaluate.retrieval import Retrieval
from polymodal.evaluate.robustness import SubsetMatrix, SubsetScore
from polymodal.evaluate.summary import statements
from polymodal.evaluate.values import Result, Subset
from polymodal.types import Embeddings

__all__ = ["Answer", "Breakdown", "Example", "Facts", "Headline", "Report"]


@dataclass(frozen=True)
class Headline(Result):
    """One number on top of the page: `value` as it is to be read, what it is, and a note (interval, chance)."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Facts(Result):
    """What was evaluated.

    Args:
        rows: items of the catalogue; splits: split -> items.
        presence: modality -> share of the rows that have it, in [0, 1].
        patterns: (which modalities, rows), as many as are worth showing.
        labels: label column -> distinct values; quarantined: cells that could not be read.
    """

    rows: int
    splits: Mapping[str, int] = field(default_factory=dict)
    presence: Mapping[str, float] = field(default_factory=dict)
    patterns: Sequence[tuple[Subset, int]] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    quarantined: int = 0


@dataclass(frozen=True)
class Answer(Result):
    """One answer of an example: `score` cosine, `right` whether it is a right answer."""

    id: str
    score: float
    right: bool


@dataclass(frozen=True)
class Example(Result):
    """One query and its first answers. `task` says what looked for what ("text -> image").

    `query_picture`, `query_text`: show of the query what it was asked with, not what it did not contain.
    """

    task: str
    query: str
    answers: tuple[Answer, ...]
    query_picture: bool = True
    query_text: bool = True


@dataclass(frozen=True)
class Breakdown(Result):
    """A table of one metric by groups of items."""

    title: str
    metric: str
    rows: tuple[GroupScore, ...]


@dataclass(frozen=True)
class Report(Result):
    """Everything the page shows; every part may be left out.

    Args:
        title: of the page; command: the command that made the evaluation; made: when, as text.
        headlines, facts, retrievals (name -> Retrieval), matrix, subset_scores, comparisons, probes, regressions,
            clusterings, weights (run -> MeanWeights), correlations, geometry, breakdowns, examples: results.
        curves: series -> (step, value) pairs, see `read_curves`.
        space, space_labels, space_presence: embeddings for the map, id -> label and id -> its modalities; space_label:
            what the label is called.
        thumbnails: id -> encoded PNG or JPEG; titles: id -> text; descriptions: id -> one more line.
        commands: section (`matrix controls weights curves space examples probes breakdowns facts`) -> the command that
            made it; `command` where missing.
        leaks: how often the input names each label that is scored.
        notes: sentences for the end of the page.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset(
        {"space", "space_labels", "space_label", "space_presence", "thumbnails", "descriptions", "titles"}
    )
    title: str
    command: str
    made: str = ""
    headlines: tuple[Headline, ...] = ()
    facts: Facts | None = None
    retrievals: Mapping[str, Retrieval] = field(default_factory=dict)
    matrix: SubsetMatrix | None = None
    subset_scores: tuple[SubsetScore, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    probes: tuple[Classification, ...] = ()
    regressions: tuple[Regression, ...] = ()
    clusterings: tuple[Clustering, ...] = ()
    weights: Mapping[str, MeanWeights] = field(default_factory=dict)
    correlations: Mapping[str, RankCorrelation] = field(default_factory=dict)
    geometry: Mapping[str, Geometry] = field(default_factory=dict)
    breakdowns: tuple[Breakdown, ...] = ()
    examples: tuple[Example, ...] = ()
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    space: Embeddings | None = None
    space_labels: Mapping[str, str] = field(default_factory=dict)
    space_label: str = ""
    space_presence: Mapping[str, Subset] = field(default_factory=dict, repr=False)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    titles: Mapping[str, str] = field(default_factory=dict, repr=False)
    descriptions: Mapping[str, str] = field(default_factory=dict, repr=False)
    commands: Mapping[str, str] = field(default_factory=dict)
    leaks: tuple[Leak, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All results and, first, the statements which control won."""
        said = [s.to_json() for c in self.comparisons for s in statements(c)]
        return {"format": 1, "statements": said, **super().to_json()}
