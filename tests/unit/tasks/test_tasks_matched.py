"""Why two items match: exact sums, and what is not there adds nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.tasks.matched import explain_match
from polymodal.types import BadInput

NAMES = ("image", "text", "table")


def side(has: frozenset[str], seed: int) -> dict[frozenset[str], np.ndarray]:
    random = np.random.default_rng(seed)
    subsets = [frozenset(s) for k in range(1, len(has) + 1) for s in itertools.combinations(sorted(has), k)]
    raw = {s: random.standard_normal(6) for s in subsets}
    return {s: x / np.linalg.norm(x) for s, x in raw.items()}


some = st.sets(st.sampled_from(NAMES), min_size=1).map(frozenset)


@given(some, some, st.integers(0, 1000))
def test_contributions_of_either_side_sum_to_the_score(a, b, seed):
    one, other = side(a, seed), side(b, seed + 1)
    found = explain_match(("q", one), ("x", other), NAMES)
    assert found.score == pytest.approx(float(one[a] @ other[b]))
    for made, has in zip(found.sides, (a, b), strict=True):
        assert set(made.contributions) == has
        assert sum(made.contributions.values()) == pytest.approx(found.score)
    assert set(found.cross) == a
    assert all(set(row) == b for row in found.cross.values())


def test_a_modality_that_changes_nothing_adds_nothing():
    x, y = np.asarray([1.0, 0.0]), np.asarray([0.6, 0.8])
    image, both = frozenset({"image"}), frozenset({"image", "text"})
    orthogonal = np.asarray([-0.8, 0.6])
    found = explain_match(("q", {image: x, frozenset({"text"}): orthogonal, both: x}), ("x", {frozenset(): y}), NAMES)
    assert found.score == pytest.approx(0.6)
    assert found.sides[0].contributions == pytest.approx({"image": 0.6, "text": 0.0})
    assert found.sides[0].without["text"] == pytest.approx(0.0)
    assert len(found.sides) == 1  # an item known by its vector alone has no modalities to tell of
    assert found.cross == {}


def test_a_side_without_a_vector_is_refused():
    with pytest.raises(BadInput):
        explain_match(("q", {}), ("x", {frozenset(): np.ones(1)}), NAMES)
