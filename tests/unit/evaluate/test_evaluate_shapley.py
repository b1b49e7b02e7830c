"""Shapley values against their definition over orders, and against their axioms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.evaluate.shapley import leave_one_out, shapley, subset_code, subset_codes
from polymodal.types import BadInput


@st.composite
def games(draw):
    size, n = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    present = random.random((n, size)) < 0.7
    return random.standard_normal((n, 1 << size)), present


def by_orders(values: np.ndarray, members: list[int]) -> dict[int, float]:
    """The mean of what each player adds, over every order in which they can come."""
    total = dict.fromkeys(members, 0.0)
    orders = list(itertools.permutations(members))
    for order in orders:
        code = 0
        for player in order:
            total[player] += values[code | 1 << player] - values[code]
            code |= 1 << player
    return {player: value / len(orders) for player, value in total.items()}


@given(games())
def test_it_is_the_mean_over_all_orders_of_what_is_present(game):
    values, present = game
    found = shapley(values, present)
    for row, has in enumerate(present):
        wanted = by_orders(values[row], np.flatnonzero(has).tolist())
        for player in range(present.shape[1]):
            if player in wanted:
                assert found[row, player] == pytest.approx(wanted[player])
            else:
                assert np.isnan(found[row, player])  # absent: no value, and above all not 0


@given(games())
def test_values_sum_to_the_whole_minus_nothing(game):
    values, present = game
    whole = values[np.arange(len(values)), subset_codes(present)]
    some = present.any(1)
    np.testing.assert_allclose(np.nansum(shapley(values, present), 1)[some], (whole - values[:, 0])[some], atol=1e-12)


@given(games(), st.integers(0, 3), st.integers(0, 3))
def test_equal_players_get_the_same_and_a_dummy_nothing(game, a, b):
    values, present = game
    size = present.shape[1]
    a, b = a % size, b % size
    codes = np.arange(1 << size)
    present = np.ones_like(present)
    swapped = codes & ~(1 << a | 1 << b) | (codes >> a & 1) << b | (codes >> b & 1) << a
    fair = shapley((values + values[:, swapped]) / 2, present)
    np.testing.assert_allclose(fair[:, a], fair[:, b])
    dummy = values[:, codes & ~(1 << a)]
    np.testing.assert_allclose(shapley(dummy, present)[:, a], 0, atol=1e-12)
    np.testing.assert_allclose(leave_one_out(dummy, present)[:, a], 0, atol=1e-12)


def test_what_two_modalities_both_tell_is_halved_and_to_leave_one_out_invisible():
    either = np.asarray([[0.0, 1.0, 1.0, 1.0]])  # image or text is enough
    present = np.ones((1, 2), bool)
    assert shapley(either, present).tolist() == [[0.5, 0.5]]
    assert leave_one_out(either, present).tolist() == [[0.0, 0.0]]


def test_columns_of_subsets_that_a_row_lacks_are_never_read():
    names = ("image", "text", "audio")
    values = np.full((1, 8), np.nan)
    has = frozenset({"image", "audio"})
    for size in (0, 1, 2):
        for subset in itertools.combinations(sorted(has), size):
            values[0, subset_code(frozenset(subset), names)] = size
    present = np.asarray([[True, False, True]])
    np.testing.assert_array_equal(shapley(values, present), [[1.0, np.nan, 1.0]])
    values[0, subset_code(frozenset({"audio"}), names)] = np.nan
    assert np.isnan(shapley(values, present)).all()
    with pytest.raises(BadInput, match="2\\^M"):
        shapley(values[:, :4], present)
