"""Figures of recommendation: by hand where a hand can count, and what no method may be given."""

from __future__ import annotations

import numpy as np
import pytest

from polymodal.tasks.recommend_eval import (
    Case,
    Pool,
    alike_labels,
    calibrate,
    compare_lists,
    halves,
    popular,
    shortlist,
    shuffled,
)
from polymodal.types import BadInput, Embeddings

GROUPS = {"a1": "a", "a2": "a", "b1": "b", "c": "c", "d": "d"}
VECTORS = Embeddings(tuple(GROUPS), np.eye(5, dtype=np.float32), "m")


def key(name: str) -> str:
    return GROUPS[name]


def test_a_shortlist_has_one_of_each_group_and_nothing_that_was_seen() -> None:
    assert shortlist(["a1", "a2", "b1", "c"], key, [], 2) == ["a1", "b1"]
    assert shortlist(["a1", "b1", "c"], key, ["a2"], 5) == ["b1", "c"]


def test_figures_by_hand() -> None:
    cases = [Case("x", frozenset(["a1", "a2", "c"])), Case("y", frozenset(["d"]))]
    lists = {
        "good": [["a2", "b1", "c"], ["d"]],
        "bad": [["b1", "d", "c"], ["a1", "b1", "c"]],
    }
    good, bad = compare_lists(lists, cases, key, VECTORS, k=3, resamples=50)
    # two groups are right for x, and both are found, at ranks 1 and 3
    assert good.metrics["recall@3"].mean == 1
    assert good.metrics["ndcg@3"].mean == pytest.approx(((1 + 1 / 2) / (1 + 1 / np.log2(3)) + 1) / 2)
    assert bad.metrics["recall@3"].mean == pytest.approx((1 / 2 + 0) / 2)
    assert good.coverage == 1
    assert bad.coverage == 1
    assert good.behind == {}
    assert bad.behind["recall@3"].mean == pytest.approx(0.75)
    # axes are at right angles; the list of one item has no pair
    assert good.metrics["diversity"].mean == pytest.approx(1)
    assert good.metrics["diversity"].n == 1


def test_a_wrong_variant_of_a_right_group_is_wrong() -> None:
    [only] = compare_lists({"one": [["a2"]] * 2}, [Case("x", frozenset(["a1"]))] * 2, key, VECTORS, k=3, resamples=0)
    assert only.metrics["recall@3"].mean == 0


def test_variety_counts_labels_that_differ() -> None:
    colour, size = {"a1": "red", "b1": "red", "c": "blue"}, {"a1": "S", "b1": "L"}
    # pairs: a1 b1 alike in colour of two labels; a1 c and b1 c have colour only
    assert alike_labels(["a1", "b1", "c"], [colour, size]) == pytest.approx(1 / 4)
    assert np.isnan(alike_labels(["d"], [colour]))


def test_controls() -> None:
    cases = [Case("x", frozenset(["c"]), history=("d",)), Case("y", frozenset(["c", "b1"]))]
    assert popular(cases, ["a1", "b1", "c", "d"])[0] == "c"
    assert popular(cases, ["a1", "b1", "c", "d"])[-1] == "a1"
    catalogue = [f"i{n}" for n in range(50)]
    one, two = shuffled(cases[0], catalogue, 0), shuffled(cases[1], catalogue, 0)
    assert sorted(one) == sorted(catalogue)
    assert one == shuffled(cases[0], catalogue, 0)
    assert one != two
    assert one != shuffled(cases[0], catalogue, 1)


def test_nothing_is_measured_on_what_it_was_fitted_on() -> None:
    cases = [Case(str(n), frozenset()) for n in range(21)]
    fit, measured = halves(cases, 3)
    assert not {c.name for c in fit} & {c.name for c in measured}
    assert len(fit) + len(measured) == 21
    assert [c.name for c in halves(cases, 3)[0]] == [c.name for c in fit]
    assert [c.name for c in halves(cases, 4)[0]] != [c.name for c in fit]
    with pytest.raises(BadInput, match="at least 4"):
        halves(cases[:3], 0)


def pools(n: int, seed: int) -> list[Pool]:
    """Cosines between 0.5 and 1 of which few are right: what a head trained on halves would call likely."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.5, 1, (n, 40))
    return [Pool(s, random.random(40) < 0.4 * (s - 0.5)) for s in scores]


def test_calibration_is_measured_on_other_cases_and_beside_a_constant() -> None:
    calibrators, found = calibrate(pools(100, 0), pools(100, 1), resamples=100)
    assert set(calibrators) == {"platt", "isotonic"}
    assert found.pairs == 4000
    assert found.right == pytest.approx(0.1, abs=0.02)
    assert found.error["score as it is"].mean > 0.6
    for way in ("platt", "isotonic"):
        assert found.error[way].mean < 0.03
        assert found.error[way].low <= found.error[way].mean
        # the constant is well calibrated too; only the Brier score says that it knows nothing
        assert found.brier[way] < found.brier["constant"]
    # what is measured does not move what is fitted
    again, _ = calibrate(pools(100, 0), pools(10, 7), resamples=0)
    assert again == calibrators
    with pytest.raises(BadInput, match="right ones of"):
        calibrate([Pool(np.ones(3), np.zeros(3, bool))], pools(2, 0))
