"""The demo catalogue is what it says it is: planted factors, gaps and faults, the same for the same seed."""

from __future__ import annotations

import hashlib
import json
import tomllib
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import label
from scipy.stats import chi2_contingency

from polymodal.catalogue._demo_media import FAULTS
from polymodal.catalogue._demo_words import CATEGORIES, LANGUAGES, retitle
from polymodal.catalogue.demo import FACTORS, MODALITIES, DemoConfig, Truth, generate
from polymodal.types import BadInput

SMALL = DemoConfig(items=24, image_size=32, clip_size=32, frames=4, seconds=0.2, rate=8000, duplicates=0.1, corrupt=0.1)


class Catalogue:
    """A generated folder, read as a user would."""

    def __init__(self, root: Path, config: DemoConfig) -> None:
        self.root, self.config = root, config
        self.truth = generate(root, config)
        self.rows: list[dict[str, Any]] = pq.read_table(root / "items.parquet").to_pylist()
        self.by_id = {row["id"]: row for row in self.rows}

    def picture(self, row: dict[str, Any], number: int = 0) -> np.ndarray:
        return np.asarray(Image.open(self.root / row["image"][number]).convert("RGB"))

    def clip(self, row: dict[str, Any]) -> np.ndarray:
        with av.open(str(self.root / row["video"])) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    def samples(self, row: dict[str, Any]) -> np.ndarray:
        with wave.open(str(self.root / row["audio"])) as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


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


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Every cell there and none at fault: what the information design is measured on."""
    config = DemoConfig(
        items=450, missing=0, duplicates=0, swapped=0, corrupt=0, image_size=48, clip_size=48, frames=8, seconds=0.5, second_picture=0, seed=3
    )  # fmt: skip
    return Catalogue(tmp_path_factory.mktemp("demo") / "full", config)


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
    for modality, column in {m: m for m in MODALITIES} | {"text": "title", "table": "attributes"}.items():
        if column in small.rows[0]:
            assert [row[column] is not None for row in small.rows] == small.truth.present(modality).tolist()
    for factor in FACTORS:
        assert [row[factor] for row in small.rows] == small.truth[factor].tolist()


def test_every_listed_file_is_there_and_no_other(small: Catalogue) -> None:
    listed = {path for row in small.rows for path in [*(row["image"] or []), row["video"], row["audio"]] if path}
    present = {str(path.relative_to(small.root)) for path in (small.root / "media").rglob("*") if path.is_file()}
    gone = {i for i, (_, why) in small.truth.corrupt().items() if why in ("missing", "outside the media root")}
    assert present <= listed
    assert all(any(name in path for name in gone) for path in listed - present)


def test_attributes_are_objects_with_numbers_lists_and_gaps(full: Catalogue) -> None:
    tables = [json.loads(row["attributes"]) for row in full.rows]
    assert all(isinstance(table["price"], float) for table in tables if "price" in table)
    assert any(isinstance(table.get("tags"), list) and len(table["tags"]) > 1 for table in tables)
    assert any(isinstance(table.get("in_stock"), bool) for table in tables)
    assert all("origin" in table for table in tables)
    assert 0.75 < np.mean(["brand" in table for table in tables]) < 0.95
    assert not any("sound" in table or "category" in table for table in tables)


def test_titles_come_in_three_languages(full: Catalogue) -> None:
    share = Counter(full.truth["language"].tolist())
    assert set(share) == set(LANGUAGES)
    assert 0.7 < share["en"] / len(full.rows) < 0.9
    for row, language in zip(full.rows, full.truth["language"], strict=True):
        assert any("一" <= letter <= "鿿" for letter in row["title"]) == (language == "zh")


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


def test_splits_have_their_shares_and_never_cut_a_group(full: Catalogue, faulty: Catalogue) -> None:
    share = Counter(full.truth["split"].tolist())
    assert abs(share["test"] / len(full.rows) - 0.2) < 0.02
    assert abs(share["val"] / len(full.rows) - 0.1) < 0.02
    split = dict(zip(faulty.truth.ids, faulty.truth["split"], strict=True))
    groups: dict[str, set[str]] = {}
    for row in faulty.rows:
        groups.setdefault(row["group_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in groups.values())
    assert all(split[copy] == split[old] for copy, old in faulty.truth.duplicates().items())


def test_variants_of_a_group_share_the_design_and_not_the_look(full: Catalogue) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in full.rows:
        groups.setdefault(row["group_id"], []).append(row)
    assert max(map(len, groups.values())) == full.config.variants
    for rows in groups.values():
        assert all(len({row[f] for row in rows}) == 1 for f in ("category", "shape", "material", "brand", "motion"))
        assert len({(row["colour"], row["size"]) for row in rows}) == len(rows)
    assert any(len({row["origin"] for row in rows}) > 1 for rows in groups.values())


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_the_share_of_missing_cells_is_the_knob(missing: float) -> None:
    removed = _gaps_of(DemoConfig(items=500, missing=missing))
    assert removed.mean() == pytest.approx(missing, abs=1e-3)
    assert not removed.all(1).any()


def _gaps_of(config: DemoConfig) -> np.ndarray:
    from polymodal.catalogue._demo_plan import gaps, plan

    return gaps(plan(config), config)


def test_what_is_missing_comes_in_patterns() -> None:
    from polymodal.catalogue._demo_plan import plan

    config = DemoConfig()
    removed, brands = _gaps_of(config), np.array([item.brand for item in plan(config)])
    video, audio = removed[:, MODALITIES.index("video")], removed[:, MODALITIES.index("audio")]
    assert np.corrcoef(video, audio)[0, 1] > 0.3
    assert _p_value(brands, video) < 1e-6
    scattered = _gaps_of(config.replace(correlation=0))
    assert abs(np.corrcoef(scattered[:, -1], scattered[:, -2])[0, 1]) < 0.15


def test_categories_have_a_long_tail() -> None:
    from polymodal.catalogue._demo_plan import plan

    count = Counter(item.category for item in plan(DemoConfig()))
    assert len(count) == 14
    assert count[CATEGORIES[0].name] > 4 * count[CATEGORIES[13].name]


def test_every_kind_of_fault_is_planted_and_recorded(faulty: Catalogue) -> None:
    assert {fault for fault in faulty.truth.corrupt().values()} == set(FAULTS)
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


# -- information design --------------------------------------------------------------------------------------------


def _p_value(a: np.ndarray, b: np.ndarray) -> float:
    rows, columns = np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return float(chi2_contingency(table).pvalue)


def test_the_hidden_factors_are_independent_of_everything(full: Catalogue) -> None:
    for hidden in ("sound", "origin"):
        for other in (*FACTORS, "pitch", "language", "wording", "split"):
            if other != hidden:
                assert _p_value(full.truth[hidden], full.truth[other]) > 1e-3, (hidden, other)
        price = full.truth["price"]
        tercile = np.digitize(price, np.quantile(price, [1 / 3, 2 / 3]))
        assert _p_value(full.truth[hidden], tercile) > 1e-3
    assert _p_value(full.truth["category"], full.truth["shape"]) < 1e-6
    assert _p_value(full.truth["category"], full.truth["motion"]) < 1e-3


def test_price_follows_its_causes(full: Catalogue) -> None:
    from sklearn.linear_model import LinearRegression

    causes = ("category", "material", "brand", "size")
    features = np.concatenate([_one_hot(full.truth[name]) for name in causes], 1)
    assert (
        LinearRegression().fit(features, np.log(full.truth["price"])).score(features, np.log(full.truth["price"])) > 0.9
    )


def _one_hot(values: np.ndarray) -> np.ndarray:
    return (values[:, None] == np.unique(values)[None]).astype(float)


def _product(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands out from the scene: (mask, [x, y, area, light]) of one picture, by its colour alone."""
    top, low = pixels.max(2).astype(int), pixels.min(2).astype(int)
    parts, count = label((top - low > 60) | (top < 75))
    if count == 0:
        return np.zeros(top.shape, bool), np.zeros(4)
    mask = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    ys, xs = np.nonzero(mask)
    return mask, np.array([xs.mean(), ys.mean(), mask.mean() * 100, top[mask].mean()])


def _silhouette(mask: np.ndarray, side: int = 12) -> np.ndarray:
    if not mask.any():
        return np.zeros(side * side)
    ys, xs = np.nonzero(mask)
    cut = Image.fromarray(mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.uint8) * 255)
    return np.asarray(cut.resize((side, side), Image.Resampling.BOX), float).ravel() / 255


def _palette(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    hsv = np.asarray(Image.fromarray(pixels).convert("HSV"), float)[mask]
    bins = [(0, 256, 16), (0, 256, 4), (0, 256, 6)]
    return np.concatenate(
        [np.histogram(hsv[:, i], n, (a, b))[0] / max(len(hsv), 1) for i, (a, b, n) in enumerate(bins)]
    )


def _texture(pixels: np.ndarray, mask: np.ndarray) -> list[float]:
    """How much the brightness of the product changes over some distances, in its own units."""
    grey = pixels.astype(float).max(2)
    grey, found = grey / max(grey[mask].mean(), 1.0) if mask.any() else grey, []
    for lag in (1, 2, 4, 7):
        for axis in (0, 1):
            both = mask & np.roll(mask, lag, axis)
            change = np.abs(grey - np.roll(grey, lag, axis))[both] if both.any() else np.zeros(1)
            found += [change.mean() * 5, change.std() * 5]
    return found


def _image_features(full: Catalogue) -> np.ndarray:
    rows = []
    for row in full.rows:
        pixels = full.picture(row)
        mask, place = _product(pixels)
        around = np.asarray(Image.fromarray(pixels).convert("L").resize((16, 16), Image.Resampling.BOX), float) / 100
        rows.append(
            np.concatenate([_palette(pixels, mask), _silhouette(mask), around.ravel(), place, _texture(pixels, mask)])
        )
    return np.stack(rows)


def _video_features(full: Catalogue) -> np.ndarray:
    rows = []
    for row in full.rows:
        clip = full.clip(row)
        masks, places = zip(*(_product(frame) for frame in clip), strict=True)
        course = np.stack(places)
        turning = np.abs(np.diff(clip.astype(float).mean(3), axis=0)).mean((1, 2))
        moments = [course[-1] - course[0], course.std(0), [turning.mean(), turning.std()]]
        rows.append(np.concatenate([*moments, _silhouette(masks[0]), _palette(clip[0], masks[0])]))
    return np.stack(rows)


def _audio_features(full: Catalogue) -> np.ndarray:
    edges = np.geomspace(3, 128, 33).astype(int)
    rows = []
    for row in full.rows:
        samples = full.samples(row)
        frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::256] * np.hanning(512)
        power = np.abs(np.fft.rfft(frames)) ** 2
        bands = np.log(
            np.stack([power[:, a : max(b, a + 1)].mean(1) for a, b in zip(edges, edges[1:], strict=False)], 1) + 1e-4
        )
        rows.append(np.concatenate([bands.mean(0), bands.std(0), np.abs(np.diff(bands, axis=0)).mean(0)]))
    return np.stack(rows)


def _text_features(full: Catalogue) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=3, max_features=2500, sublinear_tf=True)
    return np.asarray(vectors.fit_transform([row["title"] for row in full.rows]).todense()) * 12


def _table_features(full: Catalogue) -> np.ndarray:
    from sklearn.feature_extraction import DictVectorizer

    rows = []
    for row in full.rows:
        seen: dict[str, float] = {}
        for name, value in json.loads(row["attributes"]).items():
            if isinstance(value, float):
                for step in (1.0, 2.0):
                    seen[f"{name}~{step}:{round(np.log2(value) * step)}"] = 1.0
            else:
                seen |= {f"{name}={v}": 1.0 for v in (value if isinstance(value, list) else [value])}
        rows.append(seen)
    return np.asarray(DictVectorizer(sparse=False).fit_transform(rows))


@pytest.fixture(scope="module")
def features(full: Catalogue) -> dict[str, np.ndarray]:
    pytest.importorskip("sklearn")
    makers = {"image": _image_features, "text": _text_features, "table": _table_features, "video": _video_features, "audio": _audio_features}  # fmt: skip
    return {name: make(full) for name, make in makers.items()}


def _probe(full: Catalogue, features: np.ndarray, factor: str) -> float:
    """Accuracy on the test split of a logistic regression on the rest."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    test, wanted = full.truth["split"] == "test", full.truth[factor].astype(str)
    scaled = features / (features.std(0) + 0.1) if features.shape[1] < 1000 else features
    model = make_pipeline(StandardScaler(with_std=False), LogisticRegression(C=0.1, max_iter=60))
    return float(model.fit(scaled[~test], wanted[~test]).score(scaled[test], wanted[test]))


# (modality, factor, at least): what simple features must show; chance is 0.1 for colours, 0.17 for six classes
VISIBLE = [
    ("audio", "sound", 0.95), ("table", "origin", 0.97), ("video", "motion", 0.85), ("image", "colour", 0.85), ("video", "colour", 0.85),
    ("image", "shape", 0.55), ("video", "shape", 0.35), ("image", "material", 0.4), ("text", "colour", 0.5), ("text", "shape", 0.4),
    ("text", "material", 0.35), ("table", "material", 0.6), ("table", "brand", 0.6), ("text", "brand", 0.3), ("table", "size", 0.7),
]  # fmt: skip


@pytest.mark.parametrize(("modality", "factor", "least"), VISIBLE)
def test_a_factor_can_be_read_where_the_design_says_so(
    full: Catalogue, features: dict[str, np.ndarray], modality: str, factor: str, least: float
) -> None:
    assert _probe(full, features[modality], factor) >= least


@pytest.mark.parametrize(("owner", "factor"), [("audio", "sound"), ("table", "origin")])
def test_a_hidden_factor_is_at_chance_everywhere_else(
    full: Catalogue, features: dict[str, np.ndarray], owner: str, factor: str
) -> None:
    for modality in MODALITIES:
        if modality != owner:
            assert _probe(full, features[modality], factor) < 0.36, modality


@pytest.mark.parametrize(
    ("modality", "factor"), [("audio", "colour"), ("audio", "brand"), ("video", "brand"), ("video", "material")]
)
def test_a_factor_cannot_be_read_where_the_design_says_no(
    full: Catalogue, features: dict[str, np.ndarray], modality: str, factor: str
) -> None:
    assert _probe(full, features[modality], factor) < 0.36


def test_category_needs_more_than_one_modality(full: Catalogue, features: dict[str, np.ndarray]) -> None:
    alone = {name: _probe(full, values, "category") for name, values in features.items()}
    assert all(0.15 < accuracy < 0.85 for accuracy in alone.values()), alone
    together = np.concatenate(
        [values / (values.std(0) + 0.1) if values.shape[1] < 1000 else values for values in features.values()], 1
    )
    assert _probe(full, together, "category") > max(alone.values())


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
