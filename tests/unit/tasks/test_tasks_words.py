"""Words for missing texts: votes, pieces and figures by hand."""

import numpy as np
import pytest

from polymodal.tasks.words import frequent_words, head_words, judge_words, neighbour_words, words_in


def test_words_are_different_and_in_lower_case():
    assert words_in("Red lamp, RED oak-lamp!") == ["red", "lamp", "oak"]


def test_nearest_texts_vote_by_how_near_they_are():
    rows = np.asarray([[0, 1, -1], [2, 1, 0]])
    scores = np.asarray([[0.9, 0.83, -np.inf], [0.5, 0.5, 0.5]], np.float32)
    texts = [["red", "lamp"], ["blue", "lamp"], ["red", "vase"]]
    first, second = neighbour_words(rows, scores, texts, 2)
    near = 1 / (1 + np.exp(-1))
    assert first == [("lamp", pytest.approx(1.0)), ("red", pytest.approx(near, abs=1e-4))]
    assert second == [("lamp", pytest.approx(2 / 3)), ("red", pytest.approx(2 / 3))]


def test_pieces_that_are_no_words_are_left_out():
    choices = [[("red", 0.5), ("la", 0.4)], [("lamp", 0.3), ("red", 0.6)]]
    assert head_words(choices, {"red", "lamp"}, 5) == [("red", 0.6), ("lamp", 0.3)]


def test_figures_by_hand():
    truth = [["red", "lamp"], ["blue", "vase", "new", "big"]]
    ways = {"ours": [[("red", 1.0), ("lamp", 0.5)], [("blue", 1.0)]], "control": [frequent_words(truth, 2)] * 2}
    ours, control = judge_words(ways, truth, 2, resamples=20)
    assert ours.precision.mean == pytest.approx(0.75)
    assert ours.recall.mean == pytest.approx((1 + 0.25) / 2)
    assert [w for w, _ in ways["control"][0]] == ["big", "blue"]
    assert control.better is not None
    assert control.better.mean == pytest.approx(0.75 - 0.5)
