from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polymodal.losses.contrastive import contrast, false_negatives, pairwise_contrast

SEEDS = st.integers(0, 2**31)


def world(
    rows: int = 6, modalities: int = 3, seed: int = 0, presence: float = 0.7
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(modalities, rows, 4, generator=generator, dtype=torch.float64), dim=-1)
    return z.float(), torch.rand(modalities, rows, generator=generator) < presence


def slow(z, present, scale, weights=None, apply="logit", ignore=None, negatives="both"):
    """The definition, anchor by anchor and candidate by candidate, in float64."""
    z, found = z.double(), {}
    for i, j in itertools.combinations(range(len(z)), 2):
        losses = []
        both = [b for b in range(z.shape[1]) if present[i, b] and present[j, b]]
        for (a, c), b in itertools.product(((i, j), (j, i)), both):
            w = 1.0 if weights is None else float(weights[b, i, j])
            k = scale * (w if apply == "logit" else 1.0)
            against = [(c, g) for g in both if g != b]
            if negatives == "both":
                against += [(a, g) for g in both if g != b]
            if ignore is not None:
                against = [(m, g) for m, g in against if not ignore[i, j, b, g]]
            positive = z[a, b] @ z[c, b] * k
            logits = torch.stack([positive, *(z[a, b] @ z[m, g] * k for m, g in against)])
            losses.append((logits.logsumexp(0) - positive) * (w if apply == "loss" else 1.0))
        found[i, j] = (float(torch.stack(losses).mean()) if losses else 0.0, len(losses))
    return found


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from(["logit", "loss"]), st.sampled_from(["both", "cross"]), st.booleans(), st.booleans())
def test_one_product_is_the_loops(seed, apply, negatives, weighted, ignoring):
    z, present = world(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(6, 3, 3, generator=generator) if weighted else None
    groups = torch.randint(0, 3, (6,), generator=generator)
    ignore = false_negatives(groups, torch.zeros(3, 6, dtype=torch.long)) if ignoring else None
    got = pairwise_contrast(z, present, 5.0, weights=weights, apply=apply, ignore=ignore, negatives=negatives)
    want = slow(z, present, 5.0, weights, apply, ignore, negatives)
    assert list(got) == list(want)
    for pair, (value, count) in want.items():
        assert int(got[pair].count) == count
        assert float(got[pair].value) == pytest.approx(value, abs=1e-5)


def test_cross_negatives_are_clip():
    z, _ = world(rows=8, modalities=2)
    (term,) = pairwise_contrast(z, torch.ones(2, 8, dtype=torch.bool), 10.0, negatives="cross").values()
    logits, at = z[0] @ z[1].T * 10, torch.arange(8)
    clip = (F.cross_entropy(logits, at) + F.cross_entropy(logits.T, at)) / 2
    assert float(term.value) == pytest.approx(float(clip), abs=1e-6)
    single = contrast(z[0], torch.ones(8, dtype=torch.bool), z[1], torch.ones(8, dtype=torch.bool), 10.0)
    assert float(single.value) == pytest.approx(float(clip), abs=1e-6)
    assert int(term.count) == int(single.count) == 16


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from(["both", "cross"]))
def test_two_processes_are_one(seed, negatives):
    """Each half of the rows against gathered candidates; sums weighted by their counts, and all gradients."""
    z, present = world(rows=8, seed=seed)
    groups, digests = torch.arange(8) // 2 * (torch.arange(8) % 3), torch.arange(24).view(3, 8) % 5

    def halves(term_of):
        leaf = z.clone().requires_grad_()
        terms = [term_of(leaf, slice(b, b + 4), b) for b in (0, 4)]
        names = list(terms[0])
        counts = {n: sum(int(t[n].count) for t in terms) for n in names}
        values = {n: sum(t[n].value * t[n].count for t in terms) / max(counts[n], 1) for n in names}
        sum(values.values()).backward()
        return {n: (float(v.detach()), counts[n]) for n, v in values.items()}, leaf.grad

    def whole(term_of):
        leaf = z.clone().requires_grad_()
        terms = term_of(leaf)
        sum(t.value for t in terms.values()).backward()
        return {n: (float(t.value.detach()), int(t.count)) for n, t in terms.items()}, leaf.grad

    def pairs_whole(leaf):
        return pairwise_contrast(leaf, present, 5.0, ignore=false_negatives(groups, digests), negatives=negatives)

    def pairs_part(leaf, s, offset):
        ignore = false_negatives(groups[s], digests[:, s], all_groups=groups, all_digests=digests)
        return pairwise_contrast(
            leaf[:, s],
            present[:, s],
            5.0,
            candidates=leaf,
            candidates_present=present,
            offset=offset,
            ignore=ignore,
            negatives=negatives,
        )

    def single_whole(leaf):
        return {
            "t": contrast(
                leaf[0],
                present[0] & present[1],
                leaf[1],
                present[1],
                5.0,
                ignore=false_negatives(groups, digests)[1, 1],
            )
        }

    def single_part(leaf, s, offset):
        ignore = false_negatives(groups[s], digests[:, s], all_groups=groups, all_digests=digests)[1, 1]
        both = present[0] & present[1]
        return {
            "t": contrast(
                leaf[0, s],
                both[s],
                leaf[1],
                present[1],
                5.0,
                all_anchors=leaf[0],
                all_present=both,
                offset=offset,
                ignore=ignore,
            )
        }

    for one, two in ((pairs_whole, pairs_part), (single_whole, single_part)):
        (terms, gradient), (terms_2, gradient_2) = whole(one), halves(two)
        for name, (value, count) in terms.items():
            assert terms_2[name][1] == count
            assert terms_2[name][0] == pytest.approx(value, abs=1e-5)
        assert (gradient - gradient_2).abs().max() < 1e-5


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_absent_rows_are_never_read(seed):
    z, present = world(seed=seed)
    dirty = torch.where(present[..., None], z, torch.nan).requires_grad_()
    clean = z.clone().requires_grad_()
    results = []
    for leaf in (clean, dirty):
        pairs = pairwise_contrast(leaf, present, 5.0)
        single = contrast(leaf[0], present[0], leaf[1], present[1], 5.0)
        (sum(t.value for t in pairs.values()) + single.value).backward()
        results.append([float(t.value.detach()) for t in (*pairs.values(), single)])
    assert results[0] == results[1]
    assert torch.equal(clean.grad, dirty.grad)
    assert dirty.grad[~present].eq(0).all()


def test_rows_without_a_pair_do_not_count():
    z, _ = world(rows=3, modalities=2)
    for present in (torch.zeros(2, 3, dtype=torch.bool), torch.tensor([[True] * 3, [False] * 3])):
        leaf = z.clone().requires_grad_()
        (term,) = pairwise_contrast(leaf, present, 5.0).values()
        single = contrast(leaf[0], present[0], leaf[1], present[1], 5.0)
        (term.value + single.value).backward()
        assert (float(term.value.detach()), int(term.count), float(single.value.detach()), int(single.count)) == (
            0,
            0,
            0,
            0,
        )
        assert leaf.grad.eq(0).all()


def test_one_row_has_no_negatives_and_no_loss():
    z, _ = world(rows=1, modalities=2)
    leaf = z.clone().requires_grad_()
    (term,) = pairwise_contrast(leaf, torch.ones(2, 1, dtype=torch.bool), 5.0).values()
    term.value.backward()
    assert (float(term.value.detach()), int(term.count)) == (pytest.approx(0.0, abs=1e-6), 2)
    assert leaf.grad.abs().max() < 1e-6


def test_a_repeated_cell_and_a_sibling_are_no_negatives():
    groups = torch.tensor([1, 2, 1, 3])
    digests = torch.tensor([[5, 6, 7, 6], [0, 0, 8, 9]])
    found = false_negatives(groups, digests)
    assert found.shape == (2, 2, 4, 4)
    assert found[0, 0, 0].tolist() == [True, False, True, False]  # itself and its sibling
    assert found[0, 0, 1].tolist() == [False, True, False, True]  # the same content in the first modality
    assert found[1, 1, 1].tolist() == [False, True, False, False]  # absent in the second: 0 equals nothing
    assert found[0, 1, 1, 3]  # a pair is no negative when either side is the same
    assert torch.equal(found, found.transpose(2, 3))


def test_what_is_ignored_has_no_part_in_the_loss():
    z, _ = world(rows=4, modalities=2)
    present = torch.ones(2, 4, dtype=torch.bool)
    groups = torch.tensor([0, 1, 2, 2])
    ignore = false_negatives(groups, torch.zeros(2, 4, dtype=torch.long))
    for row in range(2):
        leaf = z.clone().requires_grad_()
        one = contrast(leaf[0], torch.arange(4) == 2, leaf[1], present[1], 5.0, ignore=ignore[0, 0])
        one.value.backward()
        assert leaf.grad[1, row].abs().sum() > 0
        assert leaf.grad[1, 3].abs().sum() == 0
