from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.tasks.two_stage import Cost, rerank
from polymodal.types import BadInput, Record


class Table:
    """A matcher whose probabilities stand in a table by id; it notes what it was asked to encode and to compare."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.encoded, self.compared = table, [], 0

    def pairs(self, queries, candidates, left, right):
        self.encoded.append([r.id for r in (*queries, *candidates)])
        assert len({r.id for r in candidates}) == len(candidates)
        self.compared += len(left)
        rows = [int(queries[q].id[1:]) for q in left]
        return np.asarray(
            [self.table[q, int(candidates[c].id[1:])] for q, c in zip(rows, right, strict=True)], np.float32
        )


QUERIES = [Record(f"q{n}", {"t": "x"}) for n in range(5)]
ITEMS = [Record(f"i{n}", {"t": "x"}) for n in range(9)]


def fetch(rows):
    assert list(rows) == sorted(set(rows))
    return [ITEMS[row] for row in rows]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 9999), most=st.integers(1, 12), length=st.integers(1, 9), held=st.integers(1, 12))
def test_the_head_ranks_the_top_and_the_rest_stays(seed, most, length, held):
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(9)[:length] for _ in range(5)])
    for row in rows:
        row[int(rng.integers(1, length + 1)) :] = -1
    table = rng.integers(0, 3, (5, 9)) / 2.0  # many ties
    table[rng.random((5, 9)) < 0.3] = np.nan
    matcher = Table(table)
    top = rows[:, :most]
    if not np.isfinite(table[np.arange(5)[:, None], top][top >= 0]).any():
        with pytest.raises(BadInput, match="compare"):
            rerank(matcher, QUERIES, fetch, rows, most, held=held)
        return
    found = rerank(matcher, QUERIES, fetch, rows, most, held=held)
    for q in range(5):
        listed = [i for i in rows[q].tolist() if i >= 0]
        known = [i for i in listed[:most] if np.isfinite(table[q, i])]
        expected = sorted(known, key=lambda i: -table[q, i]) + [i for i in listed if i not in known]
        assert found.rows[q].tolist() == expected + [-1] * (length - len(expected))
    there = np.where(found.rows >= 0, found.scores, -99)
    assert (np.diff(there, axis=1) <= 0).all()
    assert found.cost.pairs == matcher.compared == int((top >= 0).sum())
    assert found.cost.encodings == sum(map(len, matcher.encoded))


def test_a_small_corpus_is_encoded_once():
    rows = np.tile(np.arange(9), (5, 1))
    matcher = Table(np.ones((5, 9)))
    found = rerank(matcher, QUERIES, fetch, rows, 4)
    assert found.cost.encodings == 5 + 4
    assert len(matcher.encoded) == 1
    # no more than four candidates at a time: lists of other items are other chunks
    rows[2:] = rows[2:, ::-1]
    assert rerank(matcher, QUERIES, fetch, rows, 4, held=4).cost.encodings == (2 + 4) + (3 + 4)


def test_refusals_and_sums():
    with pytest.raises(BadInput, match="at least 1"):
        rerank(Table(np.ones((5, 9))), QUERIES, fetch, np.zeros((5, 1), int), 0)
    assert Cost(1, 2, 0.5) + Cost(3, 4, 0.25) == Cost(4, 6, 0.75)
