"""Planted copies: nearly the same, of the same form, the original untouched."""

import numpy as np
import pytest

from polymodal.tasks.plant import COPY, plant_copies, vary
from polymodal.types import BadInput, Record


def value_of(seed):
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, 255, 32, dtype=np.float32)
    picture = np.stack(
        [smooth[None, :] * np.ones((32, 1)), smooth[:, None] * np.ones((1, 32)), np.full((32, 32), 99)], -1
    )
    return {
        "image": np.stack([picture, picture[::-1]]).astype(np.uint8),
        "text": f"a red wooden lamp number {seed}",
        "facts": (("colour", str(rng.choice(["red", "blue"]))), ("price", 20.0 + seed)),
        "sound": rng.normal(size=(20, 8)).astype(np.float16),
    }


RECORDS = [Record(f"r{at}", value_of(at), group="g") for at in range(40)]


def test_copies_are_near_and_of_the_same_form():
    before = [repr(r.values["facts"]) + r.values["text"] + str(r.values["image"].sum()) for r in RECORDS]
    copies, truth = plant_copies(RECORDS, 30, seed=1)
    by_id = {r.id: r for r in RECORDS}
    assert len(truth) == len(copies) == len(set(truth.values())) == 30
    for copy in copies:
        assert copy.id == COPY + truth[copy.id]
        assert copy.group is None
        old = by_id[truth[copy.id]]
        assert len(copy.values) >= len(old.values) - 1
        for name, value in copy.values.items():
            check = {"image": near_picture, "text": near_text, "facts": near_facts, "sound": near_sound}[name]
            check(old.values[name], value)
    assert before == [repr(r.values["facts"]) + r.values["text"] + str(r.values["image"].sum()) for r in RECORDS]
    assert 0 < sum(len(copy.values) == 3 for copy in copies) < 20


def near_picture(old, new):
    assert new.shape == old.shape
    assert new.dtype == np.uint8
    assert 0 < np.abs(new.astype(float) - old).mean() < 40


def near_text(old, new):
    assert old != new
    assert set(new.split()) <= set(old.split())
    assert abs(len(new.split()) - len(old.split())) <= 1


def near_facts(old, new):
    assert [n for n, _ in old] == [n for n, _ in new]
    changed = [(a, b) for (_, a), (_, b) in zip(old, new, strict=True) if a != b]
    assert len(changed) == 1
    assert type(changed[0][0]) is type(changed[0][1])


def near_sound(old, new):
    assert new.shape == old.shape
    assert new.dtype == old.dtype
    assert np.corrcoef(old.ravel().astype(float), new.ravel().astype(float))[0, 1] > 0.99


def test_the_seed_decides():
    one, other = (plant_copies(RECORDS, 5, seed=s)[0] for s in (3, 3))
    assert [c.id for c in one] == [c.id for c in other]
    assert all(
        (a.values["text"] == b.values["text"])
        for a, b in zip(one, other, strict=True)
        if "text" in a.values and "text" in b.values
    )
    assert [c.id for c in plant_copies(RECORDS, 5, seed=4)[0]] != [c.id for c in one]


def test_a_single_word_changes_too():
    assert vary("lamp", np.random.default_rng(0)) == "lamp lamp"


def test_more_copies_than_items_are_refused():
    with pytest.raises(BadInput, match="--plant"):
        plant_copies(RECORDS, 41)
