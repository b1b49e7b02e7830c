"""What two sources tell apart and together, where the world is known."""

from __future__ import annotations

import numpy as np
import pytest

from polymodal.evaluate.information import ProbabilityProbe, information_gain, label_entropy, split_pair
from polymodal.types import BadInput

N = 4000


def bits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 2, N), random.integers(0, 2, N)


def split(first: np.ndarray, second: np.ndarray, both: np.ndarray, label: np.ndarray):
    """Learns from one half, tests on the other."""
    labels = [str(one) for one in label]
    train, test = slice(0, N // 2), slice(N // 2, N)
    gains = []
    for x in (first, second, both):
        probe = ProbabilityProbe(x[train], labels[train], (10.0,))
        gains.append(information_gain(probe, x[test], labels[test]))
    return split_pair(("a", "b"), (gains[0], gains[1], gains[2]), label_entropy(probe), resamples=100)


def one_hot(codes: np.ndarray) -> np.ndarray:
    return np.eye(codes.max() + 1)[codes]


@pytest.mark.parametrize("world", ["copy", "cell", "first", "xor"])
def test_the_four_amounts_of_known_worlds(world):
    x, y = bits(0)
    noise = np.random.default_rng(1).integers(0, 2, N)
    sources = {
        "copy": (x, x, x),
        "cell": (x, y, 2 * x + y),
        "first": (x, noise, x),
        "xor": (x, y, x ^ y),
    }
    first, second, label = sources[world]
    both = one_hot(2 * first + second)  # every cell a column, so that a linear probe can see an exclusive or
    found = split(one_hot(first), one_hot(second), both, label)
    wanted = {"copy": (1, 0, 0, 0), "cell": (0, 1, 1, 0), "first": (0, 1, 0, 0), "xor": (0, 0, 0, 1)}[world]
    amounts = (found.shared, found.unique_first, found.unique_second, found.synergy)
    for one, value in zip(amounts, wanted, strict=True):
        assert one.mean == pytest.approx(value, abs=0.03)
        assert one.low - 0.03 <= value <= one.high + 0.03
    assert sum(one.mean for one in amounts) == pytest.approx(found.together.mean)
    assert found.entropy == pytest.approx(2 if world == "cell" else 1, abs=0.01)


def test_noise_tells_nothing_because_the_frequencies_are_a_candidate():
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((60, 40)), [str(i % 3) for i in range(60)]
    asked, told = random.standard_normal((300, 40)), [str(i % 3) for i in range(300)]
    gain = information_gain(ProbabilityProbe(x, labels), asked, told)
    assert gain.mean() == pytest.approx(0.0, abs=0.02)


def test_a_label_that_was_not_learnt_cannot_be_judged():
    x = np.random.default_rng(0).standard_normal((20, 3))
    probe = ProbabilityProbe(x, ["a", "b"] * 10)
    gain = information_gain(probe, x[:4], ["a", "b", "c", "a"])
    assert np.isnan(gain).tolist() == [False, False, True, False]
    with pytest.raises(BadInput, match="can be judged"):
        split_pair(("a", "b"), (gain[2:3],) * 3, 1.0)
    with pytest.raises(BadInput, match="two labels"):
        ProbabilityProbe(x, ["a"] * 20)
