"""Intervals over seeds and the forms of a result."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from polymodal.bench._base import Cell, Result, Table, over_seeds


@pytest.mark.parametrize("n", [2, 3, 5, 11])
def test_the_interval_is_students(n):
    values = np.random.default_rng(n).normal(size=n)
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    found = over_seeds(values.tolist())
    assert (found.mean, found.n) == (pytest.approx(values.mean()), n)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_one_seed_has_no_interval_and_none_no_value():
    assert str(over_seeds([0.25])) == "0.250"
    assert str(over_seeds([])) == str(over_seeds([math.nan])) == "-"
    assert over_seeds([1.0, math.nan, 3.0]).n == 2


def test_a_result_is_markdown_and_json():
    table = Table("T", ("method", "R@1"), (("ours", Cell(0.5, 0.4, 0.6, 3)), ("chance", "0.010")))
    made = Result("toy", "Does it?", (table,), ("It does.",), {"a.png": b"x"}, {"steps": 3})
    assert "| ours | 0.500 [0.400, 0.600] |" in made.to_markdown()
    assert made.to_markdown().endswith("- It does.")
    again = json.loads(json.dumps(made.to_json()))
    assert again["tables"][0]["rows"][0][1]["n"] == 3
    assert again["pictures"] == ["a.png"]
