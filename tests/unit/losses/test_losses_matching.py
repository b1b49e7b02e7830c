from __future__ import annotations

import pytest
import torch

from polymodal.losses.groups import own_row, span
from polymodal.losses.matching import count_symbols, hard_pool, in_pool, match, tfidf

BAD = float("nan")


def test_match_counts_rows_that_count_and_reads_no_other():
    logits = torch.tensor([[2.0, -2.0], [BAD, BAD], [0.0, 0.0], [5.0, 0.0]], requires_grad=True)
    counted = torch.tensor([True, False, True, False])
    term = match(logits, torch.tensor([True, False, False, True]), counted)
    assert int(term.count) == 2
    assert float(term.value.detach()) == pytest.approx((4.01815 + 0.693147) / 2, abs=1e-5)
    term.value.backward()
    assert logits.grad[[1, 3]].eq(0).all()
    assert logits.grad[0, 0] > 0 > logits.grad[0, 1], 'a mismatched row is pushed away from "match"'
    assert float(match(logits, counted, counted & False).value.detach()) == 0.0


def test_counts_are_of_valid_symbols_only():
    symbols = torch.tensor([[7, 7, 9], [9, 4, 7], [5, 5, 5]])
    valid = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    assert count_symbols(symbols, valid).tolist() == [[0, 2, 1], [1, 0, 1], [0, 0, 0]]
    assert count_symbols(symbols, valid & False).shape == (3, 0)


def test_tfidf_of_each_anchor_knows_only_its_own_rows():
    """Frequencies are counted over `among`: a row outside changes nothing, one inside does."""
    counts = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 5]])
    three = torch.ones(4, 4, dtype=torch.bool)
    three[:, 3] = False
    alone = tfidf(counts[:3], torch.ones(3, 3, dtype=torch.bool))
    assert torch.allclose(tfidf(counts, three)[:3, :3], alone)
    assert not torch.allclose(tfidf(counts, ~(three & False))[:3, :3], alone)
    assert torch.allclose(alone.diagonal(), torch.ones(3))
    nothing = tfidf(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool))
    assert nothing.eq(0).all(), "a cell without a symbol is like none"


def test_pool_is_a_band_cut_off_and_short_where_there_is_no_more():
    similarity = torch.tensor([[1.0, 0.6, 0.4, 0.4, 0.1, -0.2]])
    anyone = torch.ones(1, 6, dtype=torch.bool)
    assert hard_pool(similarity, anyone, (0.0, 0.5), 2).tolist() == [[2, 3]]
    assert hard_pool(similarity, anyone, (0.0, 0.5), 9).tolist() == [[2, 3, 4, -1, -1, -1]]
    assert hard_pool(similarity, anyone, (-1.0, 2.0), 9).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert hard_pool(similarity, anyone & (similarity != 0.4), (0.0, 0.5), 2).tolist() == [[4, -1]]
    assert hard_pool(similarity, anyone, (0.0, 0.6), 1).tolist() == [[2]], "the upper end is outside"
    # what differs by rounding alone is a tie, and ties go by place
    noisy = torch.tensor([[0.3, 0.3 + 3e-8, 0.3 - 3e-8]])
    assert hard_pool(noisy, torch.ones(1, 3, dtype=torch.bool), (0.0, 0.5), 3).tolist() == [[0, 1, 2]]


def test_a_pool_as_a_mask():
    pool = torch.tensor([[2, 0, -1], [-1, -1, -1]])
    assert in_pool(pool, 4).tolist() == [[True, False, True, False], [False] * 4]


def test_span_counts_places_among_what_may_be_hidden():
    valid = torch.tensor(
        [[False, True, True, True, False, True, False], [True, True, True, False, False, False, False]]
    )
    # start 1 of 0..4, length 2 of 1..4
    draws = torch.tensor([[1.5 / 5, 1.5 / 4], [0.1, 0.1]])
    assert span(valid, draws)[0].nonzero()[:, 0].tolist() == [2, 3]
    assert not span(valid, draws)[1].any(), "three tokens are too few"
    assert not span(valid, torch.tensor([[0.99, 0.5]] * 2))[0].any(), "a start behind the last hides nothing"
    assert span(valid, torch.tensor([[0.0, 0.99]] * 2))[0].equal(valid[0])


def test_a_random_token_is_of_the_same_row():
    valid = torch.tensor([[True, True, False], [False, False, False], [False, True, True]])
    starts = own_row(valid, torch.tensor([0.0, 0.999, 0.499, 0.5]))
    assert starts.tolist() == [0, 1, 2, 3]
    assert own_row(valid & False, torch.zeros(0)).tolist() == []
