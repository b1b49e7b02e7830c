"""What is hidden is what comes back, and nothing else changes."""

from __future__ import annotations

import micro
import numpy as np
import pytest
import torch

from polymodal.complete import Completer
from polymodal.modalities.image import ImageConfig
from polymodal.recipe import build_model
from polymodal.tasks.restore import level_error, restore
from polymodal.types import BadInput, Record


@pytest.fixture(scope="module")
def completer() -> Completer:
    torch.manual_seed(0)
    made = micro.recipe()
    picture = ImageConfig(size=32, margin=8, patch=16, max_pictures=1)
    made = made.replace(modalities={**made.modalities, "photo": picture})
    model = build_model(made, {**micro.fit(made, micro.records()), "photo": {}})
    return Completer(model, made.objective.build(model), made)


def record() -> Record:
    picture = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 3), np.uint8)
    facts = (("colour", "red"), ("price", 4.0), ("shape", "shoe"))
    return Record("a", {"title": "red shoe number 7", "facts": facts, "photo": picture})


def test_half_of_each_modality_is_hidden_in_turn(completer):
    found = restore(completer, record(), 0.5)
    assert set(found) == {"title", "facts", "photo"}
    photo = found["photo"]
    assert (photo.hidden, photo.tokens) == (2, 4)
    assert photo.original.shape == photo.seen.shape == photo.said.shape == (1, 32, 32, 3)
    np.testing.assert_array_equal(photo.original[0], record().values["photo"][0, 4:36, 4:36])
    blocks = [(slice(r, r + 16), slice(c, c + 16)) for r in (0, 16) for c in (0, 16)]
    same = [bool((photo.said[0][b] == photo.original[0][b]).all()) for b in blocks]
    assert same.count(True) == 2
    blank = [bool((photo.seen[0][b] == photo.original[0][b]).all()) for b in blocks]
    assert blank == same  # what the picture of the hidden shows as gone is what was reconstructed
    assert level_error(photo) > 0
    title = found["title"]
    assert title.original == "red shoe number 7"
    assert title.seen.split().count("▁▁▁") == 2
    kept = [a for a, b in zip(title.original.split(), title.seen.split(), strict=True) if b != "▁▁▁"]
    assert [w for w in title.said.split() if w in kept] == kept
    assert found["facts"].hidden == 3
    assert isinstance(found["facts"].said["price"], float)
    assert 0 <= found["facts"].right <= 1


def test_the_draw_belongs_to_the_item_and_the_seed(completer):
    first, again = (restore(completer, record(), 0.5, seed=1)["title"].seen for _ in range(2))
    assert first == again
    assert len({restore(completer, record(), 0.5, seed=s)["title"].seen for s in range(8)}) > 1


def test_an_only_modality_is_never_hidden_as_a_whole(completer):
    alone = Record("a", {"title": "red shoe"})
    assert restore(completer, alone, 1.0) == {}
    assert restore(completer, alone, 0.5)["title"].hidden == 1
    with pytest.raises(BadInput, match="--hide"):
        restore(completer, alone, 0.0)
