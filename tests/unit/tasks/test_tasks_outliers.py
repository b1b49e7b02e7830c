"""Strange items, the modality that is strange, and unknown classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.evaluate.outliers import auroc
from polymodal.tasks.items import Items
from polymodal.tasks.mismatch import disagreement
from polymodal.tasks.outliers import (
    _resampled,
    _Sides,
    auroc_interval,
    evidence_of,
    misfit,
    nearest_known,
    rank_strange,
    stranger_scores,
    unknown_classes,
)
from polymodal.types import BadInput, Embeddings


def unit(z):
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def blobs(n, seed, classes=6, prefix="i", noise=0.15):
    random = np.random.default_rng(seed)
    codes = random.integers(0, classes, n)
    ids = tuple(f"{prefix}{at}" for at in range(n))
    z = unit(np.eye(8)[codes] + noise * random.standard_normal((n, 8)))
    return Embeddings(ids, z, "m"), {i: "abcdef"[c] for i, c in zip(ids, codes, strict=True)}


def test_items_of_classes_that_were_left_out_are_noticed():
    train, known = blobs(240, 0, prefix="r")
    test, asked = blobs(120, 1, prefix="t")
    found, left = unknown_classes(train, test, known | asked, draws=4, share=0.3)
    by = {one.score: one.auroc for one in found}
    assert set(by) == {"Mahalanobis", "max-softmax", "nearest known", "distance to mean", "random"}
    assert min(by[name].mean for name in ("Mahalanobis", "max-softmax", "nearest known")) > 0.9
    assert abs(by["random"].mean - 0.5) < 0.12
    assert all(one.low <= one.mean <= one.high for one in by.values())
    assert [len(names) for names in left] == [2] * 4
    assert len(set(left)) > 1
    again, _ = unknown_classes(train, test, known | asked, draws=4, share=0.3)
    assert again == found


def test_classes_left_out_are_not_learnt():
    train, known = blobs(240, 0, prefix="r")
    test, asked = blobs(120, 1, prefix="t")
    wrong = dict.fromkeys(known, "a") | {i: "bcdef"[at % 5] for at, i in enumerate(known) if at % 3}
    # labels that have nothing to do with the vectors: nothing can be noticed
    found, _ = unknown_classes(train, test, wrong | {i: "abcdef"[at % 6] for at, i in enumerate(asked)}, draws=6)
    assert all(abs(one.auroc.mean - 0.5) < 0.12 for one in found)
    for labels in ({}, {i: v for i, v in (known | asked).items() if v in "ab"}):
        with pytest.raises(BadInput, match="three values"):
            unknown_classes(train, test, labels)
    with pytest.raises(BadInput, match="hold-out"):
        unknown_classes(train, test, known | asked, share=1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.lists(st.integers(0, 5), min_size=2, max_size=9))
def test_resampled_auroc_is_that_of_the_items_drawn(known, strange):
    from polymodal.evaluate.intervals import resample_weights

    one, two = np.asarray(known, np.float64), np.asarray(strange, np.float64)
    found = _resampled(_Sides(one, two), 5, 3)
    mine = np.concatenate(list(resample_weights(len(one), 5, 3))).astype(int)
    theirs = np.concatenate(list(resample_weights(len(two), 5, 4))).astype(int)
    wanted = [auroc(np.repeat(one, a), np.repeat(two, b)) for a, b in zip(mine, theirs, strict=True)]
    assert found == pytest.approx(wanted)


def test_the_interval_holds_the_figure():
    random = np.random.default_rng(0)
    ids, strange = [f"i{at}" for at in range(250)], np.arange(250) >= 200
    values = np.concatenate([random.normal(0, 1, 200), random.normal(1, 1, 50)])
    found = auroc_interval(ids, values, strange)
    assert found.low < found.mean < found.high
    assert found.high - found.low < 0.2
    assert auroc_interval(list("abcdef"), np.arange(6.0), np.arange(6) > 2, resamples=0).low == 1.0
    # three variants of each, which say the same: as sure as of one
    names = [f"{i}.{copy}" for i in ids for copy in range(3)]
    groups = {name: name.split(".")[0] for name in names}
    again = auroc_interval(names, np.repeat(values, 3), np.repeat(strange, 3), together=groups)
    assert (again.low, again.high) == pytest.approx((found.low, found.high))
    alone = auroc_interval(names, np.repeat(values, 3), np.repeat(strange, 3))
    assert alone.high - alone.low < 0.7 * (found.high - found.low)


def test_an_item_is_not_its_own_neighbour():
    z = Embeddings(("a", "b", "c"), unit(np.asarray([[1, 0], [1, 0.1], [0, 1.0]])), "m")
    wanted = [1 - (z.vectors[i] @ np.delete(z.vectors, i, 0).T).min() for i in range(3)]
    assert nearest_known(z, z) == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(BadInput, match="two to compare"):
        nearest_known(Embeddings(("a",), z.vectors[:1], "m"), Embeddings(("a",), z.vectors[:1], "m"))


def test_without_labels_there_is_one_class_and_no_softmax():
    train, _ = blobs(60, 0)
    assert set(stranger_scores(train, train, None)) == {"Mahalanobis", "nearest known", "distance to mean", "random"}


def test_evidence_is_in_robust_deviations():
    scores = np.concatenate([np.linspace(-1, 1, 99), [50.0]])
    found = evidence_of("far", "", [f"i{n}" for n in range(100)], scores)
    values = np.asarray(list(found.values.values()))
    assert np.median(values) == pytest.approx(0, abs=1e-9)
    assert values[-1] > 50  # the outlier does not hide itself
    most = evidence_of("far", "", list("abcd"), np.asarray([0, 0, 0, 1.0]))
    assert most.values["d"] == pytest.approx(4 / 1.2533)
    assert set(evidence_of("far", "", list("abc"), np.asarray([0.2, 0.2 + 1e-9, 0.2])).values.values()) == {0.0}


def shop(swap, modalities=("image", "text", "table")):
    """Items that say one thing in every modality; some have the picture of another one."""
    random = np.random.default_rng(0)
    what = random.standard_normal((80, 16))
    ids = tuple(f"i{at}" for at in range(80))
    towers = {}
    for name in modalities:
        z = what + 0.3 * random.standard_normal(what.shape)
        if name == "image":
            z[list(swap)] = z[[*swap[1:], swap[0]]]
        keep = [at for at in range(80) if name != "table" or at % 4]
        towers[name] = Embeddings(tuple(ids[at] for at in keep), unit(z[keep]), "m")
    return Items(Embeddings(ids, unit(what), "m"), towers)


def test_the_wrong_picture_is_found_and_named():
    swap = (5, 17, 33, 61)
    first = rank_strange(misfit(shop(swap)))[: len(swap)]
    assert {one.id for one in first} == {f"i{at}" for at in swap}
    assert {one.modality for one in first} == {"image"}
    assert all(one.score == max(one.evidence.values()) for one in first)


def test_two_modalities_say_that_not_which():
    swap = (4, 16, 33, 61)  # the first two have no table
    evidence = {one.modality: one for one in misfit(shop(swap))}
    assert set(evidence) == {"image + text", "image", "text", "table"}
    assert set(evidence["image + text"].values) == {f"i{at}" for at in range(0, 80, 4)}
    first = {one.id: one.modality for one in rank_strange(list(evidence.values()))[:4]}
    assert first == {"i4": "image + text", "i16": "image + text", "i33": "image", "i61": "image"}
    assert misfit(shop((1, 2), ("image",))) == []


def test_ranking_breaks_ties_by_id_and_keeps_all_evidence():
    one = evidence_of("a", "image", ["x", "y"], np.asarray([1.0, 1.0]))
    two = evidence_of("b", "", ["y", "z"], np.asarray([0.0, 9.0]))
    found = rank_strange([one, two])
    assert [item.id for item in found] == sorted(["x", "y", "z"], key=lambda i: (-{"z": found[0].score}.get(i, 0), i))
    assert set(next(item for item in found if item.id == "y").evidence) == {"a", "b"}


def test_the_misfit_is_the_evidence_of_mismatch():
    items = shop((5, 17))
    found = next(one for one in misfit(items) if one.modality == "image")
    odds = disagreement(items).odds[:, 0]
    rows = [at for at in range(80) if at % 4]  # those with a table
    wanted = evidence_of("", "", [items.ids[at] for at in rows], odds[rows]).values
    assert found.values == pytest.approx(wanted)
