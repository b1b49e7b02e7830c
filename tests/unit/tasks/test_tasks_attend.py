"""Attention is what the trunk computes, and occlusion is what painting over does."""

from __future__ import annotations

import micro
import numpy as np
import pytest
import torch

from polymodal.embed import Embedder
from polymodal.modalities.image import ImageConfig
from polymodal.nn.attention import Attention, pack
from polymodal.recipe import build_model
from polymodal.tasks.attend import attend, grid_of, occlusion, said_by
from polymodal.tensors import Tokens
from polymodal.types import BadInput, MediaError, Record

SIZE = 32


def embedder(stages: tuple[str, ...] = ("towers", "trunk")) -> Embedder:
    torch.manual_seed(0)
    made = micro.recipe(stages)
    picture = ImageConfig(size=SIZE, margin=8, patch=16, max_pictures=1)
    made = made.replace(modalities={**made.modalities, "photo": picture})
    fitted = {**micro.fit(made, micro.records()), "photo": {}}
    return Embedder(build_model(made, fitted), made, "digest")


def record(**more) -> Record:
    picture = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 3), np.uint8)
    return Record("a", {"title": "red shoe", "facts": (("colour", "red"),), "photo": picture} | more)


def test_weights_are_those_of_the_forward_pass():
    torch.manual_seed(0)
    attention, valid = Attention(8, 2), torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]]).bool()
    x, layout = pack(Tokens(torch.randn(3, 4, 8), valid))
    values = attention.qkv(x).view(len(x), 3, 2, 4)[:, 2].split(layout.lengths)
    mixed = [
        torch.einsum("hij,jhd->ihd", w, v).flatten(1) for w, v in zip(attention.weights(x, layout), values, strict=True)
    ]
    torch.testing.assert_close(attention.out(torch.cat(mixed)), attention(x, layout))


def test_every_token_is_named_and_looks_at_something():
    model = embedder()
    found = attend(model, record())
    assert found.layers.shape == (1, len(found.parts), len(found.parts))
    np.testing.assert_allclose(found.layers.sum(2), 1, atol=1e-5)
    np.testing.assert_allclose(found.rollout().sum(1), 1, atol=1e-5)
    assert found.parts[0] == "item"
    assert len(found.of("photo")) == 4
    assert set(found.parts) == {"item", "title", "facts", "photo"}
    between = found.between()
    assert all(sum(row.values()) == pytest.approx(1, abs=1e-5) for row in between.values())
    words = said_by(model.network.modality("title"), found.fields["title"])
    assert [word for word, _ in words] == ["red", "shoe"]
    assert sorted(np.concatenate([at for _, at in words])) == list(range(len(found.of("title"))))


def test_looking_leaves_no_trace():
    model = embedder()
    before = model.embed([record()]).vectors
    attend(model, record())
    np.testing.assert_array_equal(model.embed([record()]).vectors, before)
    assert not any(module._forward_pre_hooks for module in model.network.modules())


def test_patches_stand_on_a_grid():
    found = attend(embedder(), record())
    grid = grid_of(found.fields["photo"])
    assert grid is not None
    np.testing.assert_array_equal(grid.fill(np.arange(4.0)), [[0, 1], [2, 3]])
    assert np.isnan(grid.fill(np.arange(4.0), picture=1)).all()
    assert grid_of(found.fields["title"]) is None


def test_occlusion_of_an_even_picture_changes_nothing_and_of_a_spot_only_the_spot():
    model = embedder()
    even = np.full((1, 40, 40, 3), 120, np.uint8)
    np.testing.assert_allclose(occlusion(model, record(photo=even), "photo", shape=(4, 4)), 0, atol=1e-6)
    # two shades in equal parts, so that their mean is neither; the outer margin is not read
    spot = even.copy()
    spot[0, 4:12, 4:12] += 60
    found = occlusion(model, record(photo=spot), "photo", shape=(4, 4))
    assert np.unravel_index(np.abs(found).argmax(), found.shape) == (0, 0)
    other = model.embed([Record("b", {"title": "blue lamp"})]).vectors[0]
    toward = occlusion(model, record(photo=spot), "photo", other, shape=(4, 4))
    assert toward.shape == (4, 4)
    assert np.abs(toward[0, 0]) == np.abs(toward).max()


def test_what_is_refused():
    with pytest.raises(BadInput, match="a trunk"):
        attend(embedder(("towers",)), record())
    with pytest.raises(BadInput, match="a picture in 'photo'"):
        occlusion(embedder(), Record("a", {"title": "red"}), "photo")
    with pytest.raises(MediaError):
        attend(embedder(), record(photo=b"no picture"))
    with pytest.raises(BadInput, match="at least one of"):
        attend(embedder(), Record("a", {"smell": "good"}))
