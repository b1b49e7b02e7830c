"""What modalities are worth, in a world of known vectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from polymodal.evaluate import AS_IS
from polymodal.evaluate.shapley import subset_code
from polymodal.tasks import trusted
from polymodal.tasks import worth as task
from polymodal.types import BadInput, Embeddings, Record

NAMES = ("image", "text", "audio")
CLASSES = 4


def world(n: int = 80, seed: int = 0, wrong: dict[str, str] | None = None):
    """Image tells the class, text does in a third of the items, audio is noise; vectors of a subset are the mean."""
    random = np.random.default_rng(seed)
    classes = np.arange(n) % CLASSES
    ids = tuple(f"i{k:02d}" for k in range(n))
    own = {m: random.standard_normal((n, 12)) * 0.2 for m in NAMES}
    own["image"] += 3 * np.eye(12)[classes]
    own["text"] += 3 * np.eye(12)[classes] * (np.arange(n) % 3 == 0)[:, None]
    own["audio"] *= 8
    for i, m in (wrong or {}).items():
        own[m][ids.index(i)] = own[m][(ids.index(i) + 1) % n]
    has = {i: frozenset(NAMES) if k % 5 else frozenset({"image", "text"}) for k, i in enumerate(ids)}

    def fused(rows: list[int], subset) -> Embeddings:
        made = []
        for row in rows:
            used = sorted(subset or has[ids[row]])
            made.append(np.mean([own[m][row] for m in used], 0))
        x = np.stack(made)
        return Embeddings(tuple(ids[r] for r in rows), (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f"), "m")

    subsets = [frozenset(s) for k in (1, 2, 3) for s in itertools.combinations(NAMES, k)]
    vectors = {s: fused([r for r, i in enumerate(ids) if s <= has[i]], s) for s in subsets}
    vectors[AS_IS] = fused(list(range(n)), AS_IS)
    return vectors, has, {i: f"class {c}" for i, c in zip(ids, classes, strict=True)}


@pytest.fixture(scope="module")
def made():
    vectors, has, keys = world()
    return task.worth(task.precision_values(vectors, has, NAMES, keys), resamples=50), vectors, has, keys


@pytest.mark.parametrize("score", ["precision", "probability", "similarity"])
def test_the_telling_modality_is_worth_most_in_every_reading_and_score(score):
    vectors, has, keys = world()
    if score == "precision":
        values = task.precision_values(vectors, has, NAMES, keys)
    elif score == "similarity":
        values = task.similarity_values(vectors, has, NAMES, keys)
    else:
        values = task.probability_values(vectors, has, NAMES, keys, world(seed=9)[0][AS_IS])
    found = task.worth(values, resamples=20)
    for reading in found.readings:
        means = {name: one.mean for name, one in reading.modalities.items()}
        assert max(means, key=means.get) == "image", reading.name
        assert means["audio"] < means["text"]
    assert found.full.mean > found.empty


def test_shapley_sums_to_the_score_and_absent_modalities_have_no_value(made):
    found, _, has, _ = made
    values, each = found.values, found.reading("shapley").per_item
    np.testing.assert_allclose(np.nansum(each, 1), values.whole - values.table[:, 0], atol=1e-9)
    for row, i in enumerate(values.ids):
        for at, name in enumerate(NAMES):
            assert np.isfinite(each[row, at]) == (name in has[i])
    assert found.reading("shapley").modalities["audio"].n == 64


def test_values_are_those_of_the_subsets_by_hand(made):
    found, vectors, _, keys = made
    subset = frozenset({"image", "audio"})
    query, corpus = vectors[subset], vectors[AS_IS]
    i = query.ids[3]
    order = [j for _, j in sorted(zip(-(corpus.vectors @ query.rows([i])[0]), corpus.ids, strict=True)) if j != i]
    right = np.asarray([keys[j] == keys[i] for j in order])
    wanted = (np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean()
    column = subset_code(subset, NAMES)
    assert found.values.table[found.values.ids.index(i), column] == pytest.approx(wanted, abs=1e-6)


def test_deleting_the_telling_modality_costs_most_and_is_foretold(made):
    found, vectors, _, keys = made
    losses = trusted.deleted(found.values, vectors, keys)
    means = np.nanmean(losses, 0)
    assert means.argmax() == 0
    told = trusted.foretold(found.readings, losses, most=100)
    assert told["shapley"].rho > 0.5
    assert told["shapley"].p < 0.01
    assert told["shapley"].n == 100


def records(n: int = 80) -> list[Record]:
    _, has, _ = world(n)
    return [Record(i, {m: f"{i} {m}" for m in has[i]}) for i in has]


def test_one_cell_of_each_item_is_exchanged_for_one_of_another_label():
    _, _, keys = world()
    before = records()
    after, truth = trusted.exchange_cells(before, NAMES, keys, seed=3)
    assert len(truth) == len(before)
    for old, new in zip(before, after, strict=True):
        changed = {m for m in old.values if old.values[m] != new.values[m]}
        assert changed == {truth[old.id]}
        donor, modality = new.values[truth[old.id]].split()
        assert modality == truth[old.id]
        assert keys[donor] != keys[old.id]
    assert trusted.exchange_cells(before, NAMES, keys, seed=3)[1] == truth
    assert trusted.exchange_cells(before, NAMES, keys, seed=4)[1] != truth
    alone = [Record("x", {"image": 1}), *before]
    assert "x" not in trusted.exchange_cells(alone, NAMES, keys | {"x": "class 0"})[1]


def test_readings_find_exchanged_pictures_and_a_blind_reading_is_at_chance():
    clean, _, keys = world()
    truth = {f"i{k:02d}": "image" for k in range(0, 80, 2)}
    vectors, has, _ = world(wrong=truth)
    values = task.precision_values(vectors, has, NAMES, keys, corpus=clean[AS_IS])
    blind = task.Reading("blind", {}, np.where(values.present, 0.0, np.nan))
    found = {d.name: d for d in trusted.detect([*task.worth(values).readings, blind], values, truth, resamples=50)}
    assert found["shapley"].found.n == 40
    assert found["shapley"].difference.low > 0
    assert found["blind"].found.mean == pytest.approx(found["blind"].chance)
    assert set(found["shapley"].by_modality) == {"image"}


def test_agreement_is_the_mean_weight_with_the_others_present():
    weights = np.arange(9.0).reshape(1, 3, 3)
    found = task.agreement_of(np.repeat(weights, 3, 0), np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0]], bool))
    np.testing.assert_allclose(found[0], [1.5, 4.0, 6.5])
    np.testing.assert_array_equal(found[1], [2.0, np.nan, 6.0])
    assert np.isnan(found[2]).all()


def test_cosine_is_between_what_each_says_alone(made):
    found, vectors, _, _ = made
    each = task.cosine_of(vectors, found.values)
    i = found.values.ids[1]  # it has all three
    x, y, z = (vectors[frozenset({m})].rows([i])[0] for m in NAMES)
    np.testing.assert_allclose(each[1], [(x @ y + x @ z) / 2, (x @ y + y @ z) / 2, (x @ z + y @ z) / 2], atol=1e-6)
    assert np.isfinite(each[0]).tolist() == [True, True, False]


def test_pairs_say_who_tells_alone():
    learnt, tested = world(seed=1)[0], world(seed=2)
    found = task.pair_splits(learnt, tested[0], NAMES, tested[2], resamples=20)
    assert [(p.first, p.second) for p in found] == [("image", "text"), ("image", "audio"), ("text", "audio")]
    bits = task.probe_bits(learnt, tested[0], NAMES, tested[2], resamples=20)
    assert bits["image"].mean > 1.5 > bits["text"].mean > 0.2 > abs(bits["audio"].mean)
    assert bits["audio"].n == 64
    assert task.probe_bits(learnt, tested[0], NAMES, tested[2], fewest=70).keys() == {"image", "text"}
    image_audio = found[1]
    assert image_audio.unique_first.mean > 1.5
    assert abs(image_audio.unique_second.mean) < 0.3
    assert image_audio.entropy == pytest.approx(2.0)
    assert task.pair_splits(learnt, tested[0], NAMES, tested[2], fewest=70)[0].items == 80
    assert len(task.pair_splits(learnt, tested[0], NAMES, tested[2], fewest=70)) == 1


def test_what_is_refused():
    vectors, has, keys = world()
    with pytest.raises(BadInput, match="--modalities"):
        task.precision_values(vectors, has, [f"m{k}" for k in range(9)], keys)
    with pytest.raises(BadInput, match="two items of this split share"):
        task.worth(task.precision_values(vectors, has, NAMES, {"i00": "alone"}))
    with pytest.raises(BadInput, match="--train-split"):
        task.probability_values(vectors, has, NAMES, {}, vectors[AS_IS])
