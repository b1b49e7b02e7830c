"""The demo catalogue is what it says it is: planted factors, gaps and faults, the same for the same seed."""

from __future__ import annotations

import hashlib
import tomllib
import wave
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from demo_shop import Catalogue
from PIL import Image
from scipy.stats import chi2_contingency

from polymodal.catalogue._demo_media import FAULTS, sound
from polymodal.catalogue._demo_plan import gaps, plan
from polymodal.catalogue._demo_words import BANDS, CATEGORIES, COLOURS, LANGUAGES, SOUNDS, retitle
from polymodal.catalogue.demo import FACTORS, MODALITIES, DemoConfig, Truth, generate
from polymodal.types import BadInput

SMALL = DemoConfig(items=24, image_size=32, clip_size=32, frames=4, seconds=0.2, rate=8000, duplicates=0.1, corrupt=0.1)


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("demo") / "small", SMALL)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    config = SMALL.replace(items=200, corrupt=0.2, swapped=0.1, seed=5)
    return Catalogue(tmp_path_factory.mktemp("demo") / "faulty", config)


# -- the folder ----------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_other_seed_other_bytes(small: Catalogue, tmp_path: Path) -> None:
    generate(tmp_path / "again", SMALL)
    assert _digests(tmp_path / "again") == _digests(small.root)
    generate(tmp_path / "other", SMALL.replace(seed=1))
    assert _digests(tmp_path / "other")["truth.parquet"] != _digests(small.root)["truth.parquet"]


def test_what_an_item_looks_like_does_not_depend_on_what_is_missing(small: Catalogue, tmp_path: Path) -> None:
    whole = Catalogue(tmp_path / "whole", SMALL.replace(missing=0, corrupt=0))
    assert all(whole.truth.present(m).all() for m in MODALITIES)
    shared, kept = _digests(whole.root), small.truth.corrupt()
    for path, digest in _digests(small.root).items():
        if path.startswith("media/") and path.split("/")[-1].split("_")[0] not in kept:
            assert small.truth.swapped() or shared[path] == digest


def test_catalogue_toml_names_columns_that_exist(small: Catalogue) -> None:
    told = tomllib.loads((small.root / "catalogue.toml").read_text(encoding="utf-8"))
    columns = set(pq.read_schema(small.root / told["table"]).names)
    assert {told["id"], told["group"], told["split"], *told["labels"]} <= columns
    assert {name: spec["kind"] for name, spec in told["modalities"].items()} == {m: m for m in MODALITIES}
    assert all(column in columns for spec in told["modalities"].values() for column in spec["columns"])
    assert not any(column in FACTORS for spec in told["modalities"].values() for column in spec["columns"])


def test_table_and_truth_speak_of_the_same_items(small: Catalogue) -> None:
    assert Truth.read(small.root).table.equals(small.truth.table)
    assert small.truth.ids == tuple(row["id"] for row in small.rows)
    columns = dict(zip(MODALITIES, MODALITIES, strict=True)) | {"text": "title", "table": "attributes"}
    for modality, column in columns.items():
        assert [row[column] is not None for row in small.rows] == small.truth.present(modality).tolist()
    for factor in FACTORS:
        assert [row[factor] for row in small.rows] == small.truth[factor].tolist()


def test_every_listed_file_is_there_and_no_other(small: Catalogue) -> None:
    listed = {path for row in small.rows for path in [*(row["image"] or []), row["video"], row["audio"]] if path}
    present = {str(path.relative_to(small.root)) for path in (small.root / "media").rglob("*") if path.is_file()}
    gone = {i for i, (_, why) in small.truth.corrupt().items() if why in ("missing", "outside the media root")}
    assert present <= listed
    assert all(any(name in path for name in gone) for path in listed - present)


def test_media_have_the_asked_sizes(small: Catalogue) -> None:
    config, bad = small.config, small.truth.corrupt()
    for row in small.rows:
        if row["id"] in bad:
            continue
        if row["image"]:
            assert small.picture(row).shape == (config.image_size, config.image_size, 3)
        if row["video"]:
            assert small.clip(row).shape == (config.frames, config.clip_size, config.clip_size, 3)
        if row["audio"]:
            assert len(small.samples(row)) == int(config.seconds * config.rate)


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"demo\.root"):
        generate(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_an_interrupted_run_leaves_no_folder_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 5:
            raise Stop

    config = SMALL.replace(items=10)
    with pytest.raises(Stop):
        generate(tmp_path / "demo", config, stop)
    assert not (tmp_path / "demo").exists()
    seen: list[tuple[int, int]] = []
    assert len(generate(tmp_path / "demo", config, lambda done, total: seen.append((done, total)))) == 10
    assert seen == [(n, 10) for n in range(1, 11)]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_truth_refuses_what_it_lacks(small: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="truth"):
        Truth.read(tmp_path)
    with pytest.raises(BadInput, match="flavour"):
        small.truth["flavour"]


@pytest.mark.parametrize("items", [10, 20, 41])
def test_small_catalogues_work(items: int, tmp_path: Path) -> None:
    truth = generate(tmp_path / "demo", SMALL.replace(items=items, corrupt=0.3, swapped=0.3, missing=0.8))
    assert len(truth) == items
    assert np.stack([truth.present(m) for m in MODALITIES]).any(0).all()


# -- splits, gaps, faults ------------------------------------------------------------------------------------------


def test_splits_have_their_shares_and_never_cut_a_group(faulty: Catalogue) -> None:
    share = Counter(faulty.truth["split"].tolist())
    assert abs(share["test"] / len(faulty.rows) - 0.2) < 0.03
    assert abs(share["val"] / len(faulty.rows) - 0.1) < 0.03
    split = dict(zip(faulty.truth.ids, faulty.truth["split"], strict=True))
    groups: dict[str, set[str]] = {}
    for row in faulty.rows:
        groups.setdefault(row["group_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in groups.values())
    assert all(split[copy] == split[old] for copy, old in faulty.truth.duplicates().items())


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_the_share_of_missing_cells_is_the_knob(missing: float) -> None:
    removed = _gaps_of(DemoConfig(items=500, missing=missing))
    assert removed.mean() == pytest.approx(missing, abs=1e-3)
    assert not removed.all(1).any()


def _gaps_of(config: DemoConfig) -> np.ndarray:
    return gaps(plan(config), config)


def test_what_is_missing_comes_in_patterns() -> None:
    config = DemoConfig()
    removed, brands = _gaps_of(config), np.array([item.brand for item in plan(config)])
    video, audio = removed[:, MODALITIES.index("video")], removed[:, MODALITIES.index("audio")]
    assert np.corrcoef(video, audio)[0, 1] > 0.3
    assert _p_value(brands, video) < 1e-6
    scattered = _gaps_of(config.replace(correlation=0))
    assert abs(np.corrcoef(scattered[:, -1], scattered[:, -2])[0, 1]) < 0.15


def test_categories_have_a_long_tail() -> None:
    count = Counter(item.category for item in plan(DemoConfig()))
    assert len(count) == 14
    assert count[CATEGORIES[0].name] > 4 * count[CATEGORIES[13].name]


def test_every_kind_of_fault_is_planted_and_recorded(faulty: Catalogue) -> None:
    assert set(faulty.truth.corrupt().values()) == set(FAULTS)
    assert len(faulty.truth.corrupt()) == 40
    assert len(faulty.truth.swapped()) == 20
    assert len(faulty.truth.duplicates()) == 20
    kinds = [set(faulty.truth.corrupt()), set(faulty.truth.swapped()), set(faulty.truth.duplicates())]
    assert sum(map(len, kinds)) == len(set.union(*kinds))


def test_broken_files_are_broken_as_recorded(faulty: Catalogue) -> None:
    for name, (modality, reason) in faulty.truth.corrupt().items():
        cell = faulty.by_id[name][modality]
        path = cell[0] if modality == "image" else cell
        file = faulty.root / path
        if reason == "outside the media root":
            assert not file.resolve().is_relative_to(faulty.root.resolve())
        elif reason == "missing":
            assert not file.exists()
        elif reason == "empty":
            assert file.stat().st_size == 0
        elif reason == "wrong type":
            assert file.read_bytes().startswith(b"<html>")
        elif reason == "truncated":
            assert file.stat().st_size > 0
            with pytest.raises((OSError, av.error.FFmpegError, AssertionError)):
                _decode(file, modality)
        else:
            width, height = Image.open(file).size
            assert width * height > 64_000_000
            assert file.stat().st_size < 60_000


def _decode(file: Path, modality: str) -> None:
    if modality == "image":
        Image.open(file).load()
    elif modality == "video":
        with av.open(str(file)) as container:
            list(container.decode(video=0))
    else:
        with wave.open(str(file)) as sound_file:
            promised = sound_file.getnframes()
            assert len(sound_file.readframes(promised)) == promised * 2


def test_faulty_items_have_something_else(faulty: Catalogue) -> None:
    listed = dict(zip(faulty.truth.ids, np.stack([faulty.truth.present(m) for m in MODALITIES], 1), strict=True))
    assert all(listed[name].sum() >= 2 for name in faulty.truth.corrupt())


def test_exchanged_pictures_show_the_partner(faulty: Catalogue, tmp_path: Path) -> None:
    config = faulty.config
    right = Catalogue(tmp_path / "right", config.replace(swapped=0, corrupt=0))
    swapped = faulty.truth.swapped()
    for name, partner in swapped.items():
        assert swapped[partner] == name
        mine, theirs = faulty.by_id[name], right.by_id[partner]
        assert mine["category"] != theirs["category"]
        assert mine["split"] == theirs["split"]
        assert len(mine["image"]) == len(theirs["image"])
        assert (faulty.picture(mine) == right.picture(theirs)).all()


def test_duplicates_are_nearly_their_originals(faulty: Catalogue) -> None:
    seen = 0
    for name, old in faulty.truth.duplicates().items():
        copy, first = faulty.by_id[name], faulty.by_id[old]
        assert copy["group_id"] != first["group_id"]
        assert all(copy[factor] == first[factor] for factor in FACTORS)
        if copy["title"] and first["title"]:
            assert copy["title"] != first["title"]
            assert first["title"].lower() in copy["title"].lower()
        if copy["image"] and first["image"]:
            ours, theirs = faulty.picture(copy).astype(float), faulty.picture(first).astype(float)
            assert 0 < np.abs(ours - theirs).mean() < 25
            seen += 1
    assert seen > 5


def test_retitle_always_changes_the_title() -> None:
    for seed in range(30):
        for language in LANGUAGES:
            assert retitle("TOY", language, np.random.default_rng(seed)) != "TOY"


def _p_value(a: np.ndarray, b: np.ndarray) -> float:
    rows, columns = np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return float(chi2_contingency(table).pvalue)


def test_sounds_of_a_class_differ_and_stay_in_range() -> None:
    for name in SOUNDS:
        for band in range(len(BANDS)):
            first, second = (sound(name, band, 0.3, 8000, np.random.default_rng(seed)) for seed in (1, 2))
            assert first.shape == (2400,)
            assert np.isfinite(first).all()
            assert 0.2 < np.abs(first).max() < 1
            assert not np.allclose(first, second)


def test_categories_are_cells_of_a_grid() -> None:
    assert len({(kind.accessory, kind.department) for kind in CATEGORIES}) == len(CATEGORIES)
    assert all(len(kind.nouns) == len(LANGUAGES) and all(kind.nouns) for kind in CATEGORIES)
    assert all(len(spelled) == len(LANGUAGES) for spelled in COLOURS.values())
