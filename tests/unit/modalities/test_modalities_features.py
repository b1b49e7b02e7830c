from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polymodal.modalities.features import Features, FeaturesConfig
from polymodal.types import BadInput, MediaError

RANDOM = np.random.default_rng(0)
CELLS = [
    (RANDOM.normal(size=(n, 5)) * [1, 10, 100, 1, 1] + [0, 5, -9, 0, 1]).astype(np.float32) for n in (3, 1, 7) * 30
]


def build(config: FeaturesConfig, cells: list[Any] = CELLS) -> Features:
    return config.build(8, config.fit(iter(cells)))


@pytest.fixture(scope="module")
def features() -> Features:
    return build(FeaturesConfig())


def test_width_is_found_and_vectors_standardised(features: Features) -> None:
    assert features.channels == 5
    vectors = torch.cat([features.preprocess(cell)["vector"] for cell in CELLS])
    assert torch.allclose(vectors.mean(0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(vectors.std(0, correction=0), torch.ones(5), atol=1e-3)
    perfect = features.distance(torch.zeros_like(vectors), vectors)
    assert perfect.shape == (len(vectors),)
    assert abs(perfect.mean() - 1) < 0.01


@pytest.mark.parametrize(
    "source", [CELLS[0], CELLS[0].tolist(), CELLS[0].astype(np.float64), CELLS[0][0], [1, 2, 3, 4, 5]]
)
def test_decode_takes_arrays_and_lists(features: Features, source: Any) -> None:
    value = features.decode(source)
    assert value.dtype == np.float32
    assert value.shape[1] == 5
    assert np.array_equal(features.decode(value), value)


def test_decode_takes_npy_files(features: Features, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CELLS[0].astype(np.float16))
    assert features.decode(tmp_path / "a.npy").shape == (3, 5)


def test_bad_files(features: Features, tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", CELLS[0])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    (tmp_path / "zero.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("hello, no array here")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=CELLS[0])
    # numpy answers a header that ends inside a bracket with an error of the tokenizer
    header = b"{'descr': '<f4', 'shape': (("
    (tmp_path / "bracket.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    reasons = {}
    for name in ("bracket.npy", "cut.npy", "zero.npy", "text.npy", "objects.npy", "many.npz", "none.npy"):
        with pytest.raises(MediaError) as caught:
            features.decode(tmp_path / name)
        reasons[name.split(".")[0]] = caught.value.reason
    assert reasons == {
        "bracket": "unreadable",
        "cut": "unreadable",
        "zero": "empty",
        "text": "unreadable",
        "objects": "unreadable",
        "many": "wrong type",
        "none": "missing",
    }


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((2, 4)), "unreadable"),
        (np.full((2, 5), np.nan), "unreadable"),
        (np.array([[1, 2, 3, 4, np.inf]]), "unreadable"),
        (np.full((1, 5), 1e300), "unreadable"),
        (np.zeros((2, 5, 1)), "unreadable"),
        ([[1, 2], [3]], "unreadable"),
        (np.zeros((0, 5)), "empty"),
        ("text", "wrong type"),
        (None, "wrong type"),
        ({"vectors": [[1.0]]}, "wrong type"),
    ],
)
def test_unusable(features: Features, source: Any, reason: str) -> None:
    with pytest.raises(MediaError) as caught:
        features.decode(source)
    assert caught.value.reason == reason


def test_longer_cells_are_cut() -> None:
    assert len(build(FeaturesConfig(max_vectors=4)).decode(np.zeros((9, 5)))) == 4


def test_augment(features: Features) -> None:
    value = np.ones((40, 5), np.float32)
    before = value.copy()
    views = [features.augment(value, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert len(views[0]) < 40
    assert views[0].shape != views[2].shape or not np.array_equal(views[0], views[2])
    assert np.array_equal(value, before)
    # noise in units of each channel
    spread = np.concatenate([features.augment(value, torch.Generator().manual_seed(s)) for s in range(50)]).std(0)
    assert spread[2] / spread[0] == pytest.approx(100, rel=0.3)
    assert all(len(features.augment(value[:1], torch.Generator().manual_seed(s))) == 1 for s in range(50))


def test_boxes() -> None:
    config = FeaturesConfig(boxes=True, ordered=False)
    boxes = [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.4], [0.5, 0.5, 1, 1]]
    source = {"vectors": CELLS[0], "boxes": boxes}
    features = build(config, [config.decoder().decode(source)])
    value = features.decode(source)
    assert value.shape == (3, 9)
    assert np.array_equal(features.decode(value), value)
    fields = features.preprocess(value)
    assert fields["box"][:, 4].tolist() == pytest.approx([0.25, 0.2, 0.25])
    overlap = features.overlap({name: field[None] for name, field in fields.items()})
    assert overlap is not None
    assert overlap[0].tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    augmented = features.augment(value, torch.Generator().manual_seed(0))
    assert {tuple(box) for box in augmented[:, 5:].tolist()} <= {tuple(box) for box in value[:, 5:].tolist()}
    assert not torch.equal(features.positions(fields)[0], features.positions(fields)[2])
    with pytest.raises(MediaError, match="boxes"):
        features.decode({"vectors": CELLS[0], "boxes": [[0, 0, 2, 1]] * 3})
    with pytest.raises(MediaError, match="expected"):
        features.decode({"vectors": CELLS[0], "boxes": [[0, 0, 1, 1]]})


def test_model_side(features: Features) -> None:
    fields = features.preprocess(CELLS[0])
    assert features.embed(fields).shape == features.positions(fields).shape == (3, 8)
    assert features.head(16)(torch.randn(3, 16)).shape == features.target(fields).shape == (3, 5)
    assert features.overlap({name: field[None] for name, field in fields.items()}) is None
    assert set(features.blank()) == set(fields)
    assert len(features.preprocess(CELLS[0][:0])["vector"]) == 0


def test_fit_and_build_check() -> None:
    assert FeaturesConfig().fit(iter(()))["channels"] == 1
    assert FeaturesConfig(channels=7).fit(iter(()))["mean"] == [0.0] * 7
    mixed = FeaturesConfig().fit(iter([CELLS[0], np.zeros((2, 3), np.float32), CELLS[1]]))
    assert mixed == FeaturesConfig().fit(iter([CELLS[0], CELLS[1]]))
    with pytest.raises(BadInput, match="fitted"):
        FeaturesConfig().build(8, {})
    with pytest.raises(BadInput, match="channels"):
        FeaturesConfig(channels=3).build(8, FeaturesConfig().fit(iter(CELLS)))
    assert FeaturesConfig().decoder().decode([[1, 2]]).shape == (1, 2)
