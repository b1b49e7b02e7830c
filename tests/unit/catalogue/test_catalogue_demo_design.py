"""The information design of the demo catalogue, measured: simple probes read a factor only where it should be."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from demo_shop import Catalogue
from PIL import Image
from scipy.ndimage import label
from scipy.stats import chi2_contingency

from polymodal.catalogue._demo_words import LANGUAGES
from polymodal.catalogue.demo import FACTORS, MODALITIES, DemoConfig


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Every cell there and none at fault: what the information design is measured on."""
    config = DemoConfig(
        items=400,
        missing=0,
        duplicates=0,
        swapped=0,
        corrupt=0,
        second_picture=0,
        image_size=48,
        clip_size=48,
        frames=6,
        seconds=0.5,
        seed=3,
    )
    return Catalogue(tmp_path_factory.mktemp("demo") / "full", config)


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


def test_variants_of_a_group_share_the_design_and_not_the_look(full: Catalogue) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in full.rows:
        groups.setdefault(row["group_id"], []).append(row)
    assert max(map(len, groups.values())) == full.config.variants
    for rows in groups.values():
        assert all(len({row[f] for row in rows}) == 1 for f in ("category", "shape", "material", "brand", "motion"))
        assert len({(row["colour"], row["size"]) for row in rows}) == len(rows)
    assert any(len({row["origin"] for row in rows}) > 1 for rows in groups.values())


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
        bands = np.log(np.stack([power[:, a : max(b, a + 1)].mean(1) for a, b in pairwise(edges)], 1) + 1e-4)
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
    makers = {
        "image": _image_features,
        "text": _text_features,
        "table": _table_features,
        "video": _video_features,
        "audio": _audio_features,
    }
    return {name: make(full) for name, make in makers.items()}


def _probe(full: Catalogue, features: np.ndarray, factor: str) -> float:
    """Accuracy on the test split of a logistic regression on the rest."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    test, wanted = full.truth["split"] == "test", full.truth[factor].astype(str)
    scaled = features / (features.std(0) + 0.1) if features.shape[1] < 1000 else features
    model = make_pipeline(StandardScaler(with_std=False), LogisticRegression(C=0.1, max_iter=100, tol=1e-3))
    return float(model.fit(scaled[~test], wanted[~test]).score(scaled[test], wanted[test]))


# (modality, factor, at least): what simple features must show; chance is 0.1 for colours, 0.17 for six classes
VISIBLE = [
    ("audio", "sound", 0.95),
    ("table", "origin", 0.97),
    ("video", "motion", 0.85),
    ("image", "colour", 0.85),
    ("video", "colour", 0.85),
    ("image", "shape", 0.55),
    ("video", "shape", 0.35),
    ("image", "material", 0.4),
    ("text", "colour", 0.5),
    ("text", "shape", 0.4),
    ("text", "material", 0.35),
    ("table", "material", 0.6),
    ("table", "brand", 0.6),
    ("text", "brand", 0.3),
    ("table", "size", 0.7),
]


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
