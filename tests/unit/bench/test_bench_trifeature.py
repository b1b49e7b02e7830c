"""Trifeature: the pictures, the pairs and the probes, and the experiment at the size of a test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polymodal.bench import _trifeature_data as data
from polymodal.bench import trifeature
from polymodal.bench._base import Options
from polymodal.types import BadInput


@pytest.fixture(scope="module")
def drawn():
    return data.pictures(0)


def combinations(of):
    return set(zip(of.shape.tolist(), of.texture.tolist(), of.colour.tolist(), strict=True))


def test_test_pictures_are_of_combinations_never_trained_on(drawn):
    train, test = drawn
    assert (len(train.pixels), len(test.pixels)) == (2400, 800)  # 800 combinations three times, 200 four times
    assert not combinations(train) & combinations(test)
    assert len(combinations(train) | combinations(test)) == data.KINDS**3
    assert train.pixels.shape[1:] == (3, data.SIDE, data.SIDE)


def test_every_factor_shows_in_the_pixels(drawn):
    """Pictures of one combination resemble one another more than those that differ in one factor, on average."""
    random = np.random.default_rng(0)

    def mean(shape, texture, colour):
        drawn = [data._render(shape, texture, colour, random).astype(float) for _ in range(40)]
        return np.mean(drawn, 0)

    base = mean(0, 0, 0)
    noise = np.abs(base - mean(0, 0, 0)).mean()
    for other in ((9, 0, 0), (0, 2, 0), (0, 0, 2)):
        assert np.abs(base - mean(*other)).mean() > 1.2 * noise
    assert len({data._render(s, 0, 0, np.random.default_rng(1)).tobytes() for s in range(10)}) == 10
    assert len({data._render(0, t, 0, np.random.default_rng(1)).tobytes() for t in range(10)}) == 10


def test_pairs_share_the_shape_and_follow_the_rule_as_often_as_asked(drawn):
    train, _ = drawn
    rule, random = np.random.default_rng(5).permutation(data.KINDS), np.random.default_rng(6)
    for share in (0.0, 0.5, 1.0):
        first, second = data.pairs(train, 400, random, rule, share)
        assert (train.shape[first] == train.shape[second]).all()
        assert data.matched(train, first, second, rule).mean() == share
    first, second = data.pairs(train, 4000, random, None, 0.0)
    assert (train.shape[first] == train.shape[second]).all()
    assert (first != second).all()
    assert 0.07 < data.matched(train, first, second, rule).mean() < 0.13  # by chance one in ten


def test_augmentation_is_a_function_of_its_generator():
    pixels = torch.rand(4, 3, data.SIDE, data.SIDE)
    one, two, other = (data.augmented(pixels, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == pixels.shape


def test_the_probe_is_balanced_accuracy():
    random = np.random.default_rng(0)
    y = (random.random(400) < 0.1).astype(np.int64)
    noise = random.normal(size=(400, 3)).astype(np.float32)
    assert 0.3 < trifeature._accuracy(noise, y, noise, y) < 0.75  # 0.9 by always saying no, were it not balanced
    knows = np.concatenate([noise, y[:, None].astype(np.float32)], 1)
    assert trifeature._accuracy(knows, y, knows, y) == pytest.approx(1.0)


def test_it_runs_keeps_and_says_what_it_found(tmp_path):
    said: list[str] = []
    settings = {"steps": "1", "synergy_steps": "1", "methods": "Cross; CoMM;untrained towers"}
    options = Options(seeds=(0,), quick=True, out=tmp_path, say=said.append, settings=settings)
    result = trifeature.run(options)
    (table,) = result.tables
    assert [row[0] for row in table.rows] == ["Cross", "CoMM", "untrained towers", "chance"]
    assert len(said) == 6
    assert any("synergy" in finding for finding in result.findings)
    again = trifeature.run(options)
    assert all("kept from before" in line for line in said[6:])  # nothing was done twice
    assert again.to_json() == result.to_json()


def test_an_unknown_method_is_refused():
    with pytest.raises(BadInput, match="names among"):
        trifeature.run(Options(settings={"methods": "Cross,CoMM"}))


@pytest.mark.parametrize("given", ["", "0.1,0", "0.1;1", "inf"])
def test_penalties_that_are_no_positive_numbers_are_refused(given):
    with pytest.raises(BadInput, match="penalties"):
        trifeature.run(Options(settings={"penalties": given}))


def test_the_probe_chooses_among_the_penalties_it_is_given():
    """A direction of little weight is only read by a probe that may choose a large C."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 60)
    x = np.concatenate([random.normal(size=(60, 40)), y[:, None] * 2.0], 1).astype(np.float32)
    test_y = random.integers(0, 2, 2000)
    test_x = np.concatenate([random.normal(size=(2000, 40)), test_y[:, None] * 2.0], 1).astype(np.float32)
    weak, strong = (trifeature._accuracy(x, y, test_x, test_y, c) for c in ((1e-4,), (1.0,)))
    assert trifeature._accuracy(x, y, test_x, test_y, (1e-4, 1.0)) in (weak, strong)
    assert weak != strong
