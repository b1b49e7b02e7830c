"""Wrong cells: what is usual against brute force, planted swaps found, modalities that say nothing left out."""

import numpy as np
import pytest

from polymodal.tasks.items import Items
from polymodal.tasks.mismatch import (
    Fit,
    disagreement,
    fit_share,
    nearest_by,
    raw_disagreement,
    swap_cells,
)
from polymodal.tasks.ranking import rank_figures
from polymodal.types import BadInput, Embeddings


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def world(n=240, seed=0, noise=0.6, width=12, absent=0.0):
    """Image, text and table see the same thing; a sound is drawn apart. A tenth of the titles fit everything."""
    rng = np.random.default_rng(seed)
    thing = rng.normal(size=(n, width))
    ids = tuple(f"i{at:03d}" for at in range(n))
    towers, digests = {}, {}
    for name in ("image", "text", "table", "audio"):
        own = rng.normal(size=(n, width)) if name == "audio" else thing + noise * rng.normal(size=(n, width))
        rows = np.flatnonzero(rng.random(n) >= absent)
        towers[name] = Embeddings(tuple(ids[r] for r in rows), unit(own[rows]), "m")
        digests[name] = {ids[r]: int(r) for r in rows}
    return Items(Embeddings(ids, unit(thing), "m"), towers, digests, groups={i: i for i in ids})


def test_usual_is_the_mean_and_spread_over_all_partners():
    items = world(absent=0.3)
    fit = Fit.of(items.tower("image"), items.tower("text"))
    left, right = items.tower("image"), items.tower("text")
    cosines = left[0] @ right[0][right[1]].T
    both = np.flatnonzero(left[1] & right[1])
    assert fit.both.tolist() == both.tolist()
    assert np.allclose(fit.left_usual[0][both], cosines.mean(1)[both], atol=1e-5)
    assert np.allclose(fit.left_usual[1][both], cosines.std(1)[both], atol=1e-5)
    row, other = both[0], both[5]
    back = (left[0][left[1]] @ right[0].T)[:, other]
    cosine = float(left[0][row] @ right[0][other])
    by_hand = (cosine - cosines[row].mean()) / cosines[row].std() + (cosine - back.mean()) / back.std()
    assert fit.z(np.asarray([row]), np.asarray([other]))[0] == pytest.approx(by_hand / 2, abs=1e-4)


def test_swapped_cells_are_found_and_named_and_better_than_by_raw_cosine():
    items, wrong = swap_cells(world(), "image", 20, seed=1)
    found = disagreement(items)
    assert found.judged.all()
    auroc, precision, _ = rank_figures(found.score("image"), wrong)
    assert auroc.mean() > 0.95
    raw = rank_figures(raw_disagreement(items, "image"), wrong)[1]
    assert precision.mean() > raw.mean()
    named = [found.suspects(row) == ("image",) for row in np.flatnonzero(wrong)]
    assert np.mean(named) > 0.8
    row = int(np.flatnonzero(wrong)[np.argmax(found.score("image")[wrong])])
    assert "audio" not in found.against(row, "image")[:2]


def test_a_modality_that_says_nothing_adds_nothing():
    found = disagreement(world())
    assert found.told["image", "text"] > 0.95
    for pair in (("image", "audio"), ("text", "audio"), ("table", "audio")):
        assert found.told[pair] == pytest.approx(0.5, abs=0.08)
        assert np.abs(found.pairs[pair]).max() < 1.0
    assert np.abs(found.pairs["image", "text"]).max() > 2


def test_modalities_that_only_ever_disagree_are_no_evidence():
    items = world()
    against = Embeddings(items.ids, -items.towers["text"].vectors, "m")
    found = disagreement(Items(items.fused, {**items.towers, "text": against}, items.digests, groups=items.groups))
    assert found.told["image", "text"] < 0.1
    assert not found.pairs["image", "text"].any()


def test_rows_with_one_modality_cannot_be_judged():
    items = world(absent=0.6)
    found = disagreement(items)
    count = sum(items.tower(name)[1].astype(int) for name in items.towers)
    assert found.judged.tolist() == (count > 1).tolist()
    assert np.isneginf(found.score()[count < 2]).all()
    for at, name in enumerate(found.modalities):
        assert np.isneginf(found.odds[~items.tower(name)[1], at]).all()


def test_what_an_item_lacks_is_never_read():
    items = world(absent=0.4)
    before = disagreement(items)
    vectors = {}
    for name, own in items.towers.items():  # the same items in another order: rows of absent ones hold other things
        order = np.random.default_rng(0).permutation(len(own))
        vectors[name] = Embeddings(tuple(own.ids[r] for r in order), own.vectors[order], "m")
    after = disagreement(Items(items.fused, vectors, items.digests, groups=items.groups))
    assert np.allclose(before.odds, after.odds)


def test_two_modalities_cannot_be_told_apart():
    items = world()
    two = Items(items.fused, {n: items.towers[n] for n in ("image", "text")}, items.digests)
    assert disagreement(two).suspects(0) == ("image", "text")
    assert disagreement(two).suspects(0, "text") == ("text",)


def test_each_part_is_judged_by_what_is_usual_there():
    items = world(n=400)
    seen = np.arange(400) < 200
    own = items.towers["image"].vectors.copy()
    own[seen] = unit(items.towers["text"].vectors[seen] + 0.3 * own[seen])  # as if learnt by heart
    items = Items(
        items.fused, {**items.towers, "image": Embeddings(items.ids, own, "m")}, items.digests, groups=items.groups
    )
    alike, apart = disagreement(items), disagreement(items, [seen, ~seen])

    def gap(found):
        return found.pairs["image", "text"][~seen].mean() - found.pairs["image", "text"][seen].mean()

    assert abs(gap(apart)) < gap(alike) / 2


def test_swaps_are_between_groups_and_labels():
    items = world(60)
    groups = {i: f"g{at % 5}" for at, i in enumerate(items.ids)}
    label = {i: "abc"[at % 3] for at, i in enumerate(items.ids)}
    items = Items(items.fused, items.towers, items.digests, groups=groups)
    among = np.arange(60) < 40
    changed, wrong = swap_cells(items, "text", 12, among=among, label=label)
    assert wrong.sum() == 12
    assert not wrong[40:].any()
    old, new = items.towers["text"].vectors, changed.towers["text"].vectors
    for row in range(60):
        source = int(np.flatnonzero((old == new[row]).all(1))[0])
        assert (source != row) == wrong[row]
        if wrong[row]:
            a, b = items.ids[row], items.ids[source]
            assert groups[a] != groups[b]
            assert label[a] != label[b]
    assert changed.towers["image"] is items.towers["image"]


def test_share_of_better_fitting_cells_by_brute_force():
    items = world(absent=0.2)
    (text, has_text), (image, has_image) = items.tower("text"), items.tower("image")
    row = int(np.flatnonzero(has_text & has_image)[3])
    others = [r for r in np.flatnonzero(has_image).tolist() if r != row]
    better = sum(float(text[row] @ image[r]) > float(text[row] @ image[row]) for r in others)
    assert fit_share(items, np.asarray([row]), "image", "text")[0] == pytest.approx(better / len(others), abs=1e-6)
    near = max(others, key=lambda r: float(image[row] @ image[r]))
    assert nearest_by(items, row, "image", 1) == [items.ids[near]]


def test_bad_input():
    with pytest.raises(BadInput, match="two modalities"):
        disagreement(world(15))
    with pytest.raises(BadInput, match="--plant"):
        swap_cells(world(30), "image", 50)
