from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polymodal.draws import seed_of, uniform
from polymodal.tensors import stable_hash

SIGNED = st.integers(-(2**63), 2**63 - 1)
WORD = 2**64 - 1


def splitmix(x: int) -> int:
    """The finaliser of splitmix64 in whole numbers, from its publication."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


@given(SIGNED, st.lists(SIGNED, min_size=1, max_size=4), st.integers(1, 4))
def test_draws_are_splitmix64(seed, keys, count):
    found = uniform(seed, torch.tensor(keys), count)
    for row, key in enumerate(keys):
        start = splitmix((key + seed) & WORD)
        for at in range(count):
            bits = splitmix((start + (at + 1) * 0x9E3779B97F4A7C15) & WORD)
            assert float(found[row, at]) == (bits >> 40) / 2**24


def test_known_values_stay():
    """Whoever changes these changes every stored run."""
    assert seed_of(0, 1, "hide", "text") == 2122567633611927079
    got = uniform(2122567633611927079, torch.tensor([0, 1, stable_hash("row-1")]), 2)
    want = [
        [0.6981526613235474, 0.6898221969604492],
        [0.5790542960166931, 0.08594357967376709],
        [0.30673837661743164, 0.6811873912811279],
    ]
    assert got.tolist() == want


@given(st.lists(SIGNED, min_size=1, max_size=6, unique=True), st.integers(1, 8), SIGNED)
def test_a_draw_belongs_to_its_row(keys, count, seed):
    together = uniform(seed, torch.tensor(keys), count)
    for row, key in enumerate(keys):
        assert torch.equal(uniform(seed, torch.tensor([key]), count)[0], together[row])
    assert torch.equal(uniform(seed, torch.tensor(keys), count + 5)[:, :count], together)
    assert torch.equal(uniform(seed, torch.tensor(keys), count), together)


def test_no_global_state_is_read_or_written():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = uniform(5, torch.arange(3), 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(uniform(5, torch.arange(3), 4), one)


@pytest.mark.parametrize("keys", ["counting", "hashed"])
def test_draws_are_uniform_and_unrelated(keys):
    rows, count = 2000, 50
    key = torch.arange(rows) if keys == "counting" else torch.tensor([stable_hash(str(i)) for i in range(rows)])
    u = uniform(seed_of("test"), key, count).double()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    expected = rows * count / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # chi squared, 19 degrees of freedom, 0.1 %
    spread = 4 / (12 * rows) ** 0.5
    assert (u.mean(0) - 0.5).abs().max() < spread  # each counter
    for other in (uniform(seed_of("tesu"), key, count).double(), u.roll(1, 0), u.roll(1, 1)):
        assert abs(float(torch.corrcoef(torch.stack([u.flatten(), other.flatten()]))[0, 1])) < 4 / (rows * count) ** 0.5


def test_seeds_differ_by_every_part():
    seeds = {seed_of(a, b, c) for a in range(5) for b in range(5) for c in ("hide", "drop")}
    assert len(seeds) == 50
    assert seed_of(1, 23) != seed_of(12, 3)
