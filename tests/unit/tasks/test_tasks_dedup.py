"""Duplicates: candidates and groups against brute force, the threshold on cases that can be reckoned, the reasons."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.tasks.dedup import candidates, copies_of, group_pairs, reason, threshold_of, unit
from polymodal.tasks.dedup_figures import figures
from polymodal.tasks.items import Items
from polymodal.types import BadInput, Embeddings


def items_of(vectors, groups=None, digests=None, cells=None):
    ids = tuple(f"i{at:02d}" for at in range(len(vectors)))
    own = Embeddings(ids, unit(np.asarray(vectors, np.float32)), "m")
    known = {"text": {i: at for at, i in enumerate(ids)}} if digests is None else digests
    return Items(own, {"text": own}, known, cells or {}, groups or {})


def drawn(seed, n=14, width=3):
    return np.random.default_rng(seed).normal(size=(n, width))


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_candidates_are_the_nearest_of_other_groups(seed, k):
    vectors = drawn(seed)
    groups = {f"i{at:02d}": f"g{at // 3}" for at in range(14)}
    found = candidates(items_of(vectors, groups), neighbours=k)
    cosines = unit(vectors.astype(np.float32)) @ unit(vectors.astype(np.float32)).T
    got = {tuple(pair): float(s) for pair, s in zip(found.pairs.tolist(), found.similarity, strict=True)}
    for row in range(14):
        others = [at for at in range(14) if at // 3 != row // 3]
        for other in sorted(others, key=lambda at: -cosines[row, at])[:k]:
            pair = (min(row, other), max(row, other))
            assert got[pair] == pytest.approx(cosines[pair], abs=1e-5)
    assert all(a // 3 != b // 3 for a, b in got)
    assert len(got) == len(found)


def test_exact_copies_are_found_in_one_group_too_and_whatever_their_vectors():
    digests = {"text": {"i00": 7, "i01": 7, "i02": 8, "i03": 7}, "image": {"i03": 1, "i02": 2}}
    items = items_of([[1, 0], [0, 1], [1, 0.01], [-1, 0]], {"i00": "g", "i01": "g"}, digests)
    assert copies_of(items) == [[0, 1]]
    found = candidates(items, neighbours=1)
    same = found.pairs[found.identical].tolist()
    assert same == [[0, 1]]
    groups = group_pairs(items, found, 0.9999999)
    assert [[m.id for m in g.members] for g in groups] == [["i00", "i01"]]
    assert groups[0].members[0].identical
    assert groups[0].members[0].similarity == 1.0


@given(st.integers(0, 10_000), st.floats(0.3, 0.99))
def test_every_two_members_of_a_group_are_as_similar_as_asked(seed, threshold):
    vectors = drawn(seed)
    items = items_of(vectors)
    found = candidates(items, neighbours=13)
    groups = group_pairs(items, found, threshold)
    cosines, at = items.fused.vectors @ items.fused.vectors.T, items.places()
    home = {m.id: number for number, g in enumerate(groups) for m in g.members}
    for group in groups:
        rows = [at[m.id] for m in group.members]
        least = min(float(cosines[a, b]) for a, b in combinations(rows, 2))
        assert least >= threshold - 1e-5
        assert group.similarity == pytest.approx(least, abs=1e-5)
    # and nothing that could be joined is left apart
    best = np.unravel_index(np.where(np.eye(14, dtype=bool), -1, cosines).argmax(), cosines.shape)
    if cosines[best] >= threshold + 1e-5:
        assert home[f"i{best[0]:02d}"] == home[f"i{best[1]:02d}"]


def test_a_chain_of_small_steps_is_no_group():
    angles = np.radians([0, 20, 40, 60, 80])
    items = items_of(np.stack([np.cos(angles), np.sin(angles)], 1))
    groups = group_pairs(items, candidates(items), float(np.cos(np.radians(25))))
    assert max(len(g.members) for g in groups) == 2
    assert sum(len(g.members) for g in groups) == 4


def test_rows_of_one_group_are_no_near_duplicates_unless_asked():
    items = items_of([[1, 0], [1, 0.001], [0, 1]], {"i00": "g", "i01": "g"})
    assert not group_pairs(items, candidates(items), 0.9)
    assert len(group_pairs(items, candidates(items, within_groups=True), 0.9)) == 1


def test_threshold_is_the_best_f1():
    copies, nearest = np.asarray([0.99, 0.98, 0.97, 0.6]), np.asarray([*np.linspace(0.5, 0.9, 60), 0.965])

    def f1(t):
        r, a = (copies >= t).mean(), (nearest >= t).mean()
        return 2 * 0.05 * r / (0.05 + 0.05 * r + a / 2)

    found = threshold_of(copies, nearest)
    assert found == 0.97
    assert f1(found) == max(f1(t) for t in copies)
    # vectors that do not tell copies from neighbours: a tenth of the items, and no more, may be taken for duplicates
    nearest = np.linspace(0.9, 1, 101)
    assert threshold_of(np.full(20, 0.8), nearest) == pytest.approx(0.99)
    with pytest.raises(BadInput):
        threshold_of(copies, np.zeros(0))


def test_reasons_say_what_agrees():
    cells = {
        "text": {"i00": "Red Lamp", "i01": "red  lamp"},
        "facts": {"i00": (("colour", "red"), ("price", 12.5)), "i01": (("colour", "blue"), ("size", "S"))},
    }
    digests = {
        "text": {"i00": 1, "i01": 2},
        "facts": {"i00": 3, "i01": 4},
        "image": {"i00": 5, "i01": 5},
        "audio": {"i01": 6},
    }
    items = items_of([[1, 0], [1, 0.1]], digests=digests, cells=cells)
    said = reason(items, 0, 1)
    assert said == (
        "text equal, facts differs in colour (red / blue); 2 that one lacks, image identical, audio only in i01"
    )


def test_figures_count_pairs_of_groups():
    items = items_of(
        [[1, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 1, 0.01], [0, 0, 1]], cells={"text": {"i00": "a b", "i02": "a c"}}
    )
    found = candidates(items)
    groups = group_pairs(items, found, 0.99)
    made = figures(items, found, groups, [("i00", "i01"), ("i00", "i04")], resamples=20)
    assert made.known == 2
    assert made.recall.mean == 0.5
    assert made.precision.mean == 0.5  # i02 and i03 are one too, but nobody knows
    ours = made.rankings[0]
    assert ours.name == "model"
    assert made.rankings[-1].name == "random order"
    only = figures(items, found, groups, [("i00", "i01")], among=np.asarray([True, *[False] * 4]), resamples=20)
    assert only.precision.mean == 1.0


def test_bad_input():
    with pytest.raises(BadInput, match="two items"):
        candidates(items_of([[1, 0]]))
    with pytest.raises(BadInput, match="neighbours"):
        candidates(items_of([[1, 0], [0, 1]]), neighbours=0)
