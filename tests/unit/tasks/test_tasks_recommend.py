"""Recommending: each step against a plain search through everything, and what must never be in a list."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.index import Index, UnknownId, create_index
from polymodal.tasks.probability import Platt
from polymodal.tasks.recommend import Recommended, Recommender, Rerank, Wanted, check_topic, middle, mmr, recency
from polymodal.types import BadInput, Embeddings, MediaError, ModelMismatch, Record

MODEL = "m1"


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def shop(n: int = 60, width: int = 6, seed: int = 0) -> tuple[Index, dict[str, np.ndarray], dict[str, str | None]]:
    """n items; every second one has a sibling of its group close by; prices rise."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n, width))
    vectors[1::2] = vectors[::2] + 0.1 * random.standard_normal((n - n // 2 - n % 2, width))
    vectors = unit(vectors)
    ids = [f"i{at:03d}" for at in range(n)]
    index = create_index("exact", MODEL, width)
    index.add(Embeddings(tuple(ids), vectors, MODEL), [{"price": at} for at in range(n)])
    groups = {name: f"g{at // 2}" if at % 5 else None for at, name in enumerate(ids)}
    return index, dict(zip(ids, vectors, strict=True)), groups


def recommender(seed: int = 0, **rest) -> tuple[Recommender, dict[str, np.ndarray], dict[str, str | None]]:
    index, vectors, groups = shop(seed=seed)
    return Recommender(index, lambda ids: [groups.get(name) for name in ids], **rest), vectors, groups


def topic(vector: np.ndarray, model: str = MODEL) -> Embeddings:
    return Embeddings(("t",), unit(vector[None]), model)


def ids(found: Sequence[Recommended]) -> list[str]:
    return [one.id for one in found]


def brute(scores: dict[str, float], groups: dict[str, str | None], k: int, barred: Sequence[str] = ()) -> list[str]:
    """By falling score one of each group, nothing of the groups of what is barred."""
    taken, out = {groups[name] for name in barred} - {None}, []
    for name in sorted(scores, key=lambda n: (-scores[n], n)):
        if name in barred or groups[name] in taken:
            continue
        out.append(name)
        taken |= {groups[name]} - {None}
    return out[:k]


@pytest.mark.parametrize("pool", [1, 7, 500])
def test_a_topic_gets_its_nearest_items_one_of_each_group(pool: int) -> None:
    it, vectors, groups = recommender()
    asked = np.random.default_rng(5).standard_normal(6)
    scores = {name: float(v @ unit(asked[None])[0]) for name, v in vectors.items()}
    [found] = it.for_topics(topic(asked), Wanted(9, pool=pool))
    assert ids(found) == brute(scores, groups, 9)
    assert [one.score for one in found] == pytest.approx([scores[name] for name in ids(found)], abs=1e-5)
    assert {one.by for one in found} == {"vectors"}
    assert [one.probability for one in found] == [None] * 9
    [all_] = it.for_topics(topic(asked), Wanted(1000))
    assert len(all_) == len(brute(scores, groups, 1000)) < 60


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=8), st.integers(1, 60), st.integers(0, 3))
def test_a_history_is_its_weighted_mean_or_its_nearest_item(seen: list[int], k: int, seed: int) -> None:
    it, vectors, groups = recommender(seed)
    history = [f"i{at:03d}" for at in seen]
    weights = 0.5 ** (np.arange(len(history))[::-1] / 5)
    rows = np.stack([vectors[name] for name in history]).astype(np.float64)
    mean = weights @ rows
    by_mean = {name: float(v @ mean / np.linalg.norm(mean)) for name, v in vectors.items()}
    by_max = {name: float((rows @ v * weights).max()) for name, v in vectors.items()}
    for blend, scores in (("mean", by_mean), ("max", by_max)):
        found = ids(it.for_history(history, Wanted(k, pool=1), blend=blend))
        wanted = brute(scores, groups, k, history)
        # rounding may exchange two items whose scores are all but equal
        assert [scores[a] for a in found] == pytest.approx([scores[a] for a in wanted], abs=1e-5)
        assert not set(found) & set(history)


def test_recent_items_count_more() -> None:
    it, vectors, _ = recommender()
    assert recency(3, 1).tolist() == [0.25, 0.5, 1]
    assert recency(2, float("inf")).tolist() == [1, 1]
    first, last = it.for_history(["i000", "i030"], Wanted(60)), it.for_history(["i030", "i000"], Wanted(60))
    near = max(
        (n for n in vectors if n not in ("i000", "i001", "i030", "i031")), key=lambda n: vectors[n] @ vectors["i000"]
    )
    score = {one.id: one.score for one in first}
    assert {one.id: one.score for one in last}[near] > score[near]
    with pytest.raises(BadInput, match="half_life"):
        recency(2, 0)


def test_a_new_item_is_recommended_from_the_moment_it_is_in_the_index() -> None:
    it, vectors, _ = recommender()
    asked = topic(np.eye(6)[0])
    assert "new" not in ids(it.for_topics(asked, Wanted(5))[0])
    it.index.add(Embeddings(("new",), unit(np.eye(6)[:1] + 0.01), MODEL))
    assert ids(it.for_topics(asked, Wanted(5))[0])[0] == "new"
    nearest = max(vectors, key=lambda name: vectors[name][0])
    assert "new" in ids(it.for_history([nearest], Wanted(5)))
    assert "new" not in ids(it.for_history(["new"], Wanted(5)))
    it.index.remove(["new"])
    assert "new" not in ids(it.for_topics(asked, Wanted(5))[0])


def test_only_what_satisfies_the_filter() -> None:
    it, vectors, groups = recommender()
    asked = np.eye(6)[1]
    some = {name: float(v @ asked) for name, v in vectors.items() if int(name[1:]) <= 20}
    where = {"price": {"max": 20}}
    assert ids(it.for_topics(topic(asked), Wanted(6), where)[0]) == brute(some, groups, 6)
    assert all(int(name[1:]) <= 20 for name in ids(it.for_history(["i050"], Wanted(60), where)))
    assert it.for_topics(topic(asked), Wanted(6), {"price": {"min": 100}})[0] == []
    with pytest.raises(BadInput, match="an attribute of the index"):
        it.for_topics(topic(asked), Wanted(6), {"prise": 3})


# -- MMR ----------------------------------------------------------------------------------------------------------


def plain_mmr(relevance: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> list[int]:
    """As the formula is written, in Python."""
    cosine = unit(vectors).astype(np.float64) @ unit(vectors).T
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):
        left = [i for i in range(len(relevance)) if i not in chosen]
        value = {
            i: relevance[i]
            if not chosen
            else (1 - diversity) * relevance[i] - diversity * max(cosine[i, j] for j in chosen)
            for i in left
        }
        chosen.append(max(left, key=lambda i: (value[i], -i)))
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.5, 1.0])
def test_mmr_is_the_formula(diversity: float) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        vectors, relevance = random.standard_normal((30, 4)), random.random(30)
        assert mmr(relevance, vectors, 12, diversity) == plain_mmr(relevance, vectors, 12, diversity)


def test_more_diversity_gives_less_alike_lists() -> None:
    it, vectors, _ = recommender()
    asked = topic(np.eye(6)[0])

    def alike(found: list[Recommended]) -> float:
        return float(np.mean([vectors[a] @ vectors[b] for a, b in itertools.combinations(ids(found), 2)]))

    plain, some, much = (it.for_topics(asked, Wanted(8, diversity=d, pool=40))[0] for d in (0, 0.3, 0.8))
    assert alike(plain) > alike(some) > alike(much)
    assert ids(plain)[0] == ids(some)[0] == ids(much)[0]
    assert mmr([1.0, 1.0], np.eye(2), 5, 0.5) == [0, 1]
    assert mmr([], np.zeros((0, 2)), 5, 0.5) == []


# -- the matching head, and what its scores are worth ---------------------------------------------------------------


class Head:
    """Likes items by the number in their id; cannot compare every third, cannot read what is broken."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.asked: list[int] = []

    def pairs(self, queries, candidates, left, right):
        self.asked.append(len(right))
        if any(record.id == self.broken for record in candidates):
            raise MediaError("truncated", self.broken)
        numbers = np.array([int(candidates[at].id[1:]) for at in right])
        return np.where(numbers % 3 == 0, np.nan, numbers / 100).astype(np.float32)


def records(names: Sequence[str]) -> dict[str, Record]:
    return {name: Record(name, {"text": name}) for name in names}


def test_the_matching_head_ranks_the_pool_again() -> None:
    it, vectors, _ = recommender()
    asked = topic(np.eye(6)[0])
    pool = ids(it.for_topics(asked, Wanted(20, pool=20))[0])
    head = Head()
    [found] = it.for_topics(asked, Wanted(20, pool=20), rerank=Rerank(head, records(["t"]), records(list(vectors))))
    judged = [name for name in pool if int(name[1:]) % 3]
    assert ids(found) == [*sorted(judged, reverse=True), *(n for n in pool if n not in judged)]
    assert [one.by for one in found] == ["match"] * len(judged) + ["vectors"] * (20 - len(judged))
    assert found[0].score == pytest.approx(int(found[0].id[1:]) / 100)
    assert head.asked == [20]


def test_what_cannot_be_read_or_is_no_record_stands_behind() -> None:
    it, vectors, _ = recommender()
    asked = topic(np.eye(6)[0])
    pool = ids(it.for_topics(asked, Wanted(20, pool=20))[0])
    broken = next(name for name in pool if int(name[1:]) % 3)
    rerank = Rerank(Head(broken), records(["t"]), records(list(vectors)))
    [found] = it.for_topics(asked, Wanted(20, pool=20), rerank=rerank)
    assert {one.id: one.by for one in found}[broken] == "vectors"
    assert found[0].by == "match"
    # a topic without a record (a cluster) is ranked by vectors
    [plain] = it.for_topics(asked, Wanted(20, pool=20), rerank=Rerank(Head(), {}, records(list(vectors))))
    assert ids(plain) == pool


def test_a_threshold_needs_a_calibration_and_keeps_to_it() -> None:
    it, vectors, _ = recommender(calibration={"topic": Platt(10.0, -4.0)})
    asked = topic(np.eye(6)[0])
    [found] = it.for_topics(asked, Wanted(60, least=0.5))
    # 10 s - 4 > 0 where the cosine is above 0.4
    assert found
    assert all(one.score >= 0.4 and (one.probability or 0) >= 0.5 for one in found)
    [all_] = it.for_topics(asked, Wanted(60))
    assert [one.id for one in all_ if one.score >= 0.4] == ids(found)
    assert all_[0].probability == pytest.approx(1 / (1 + np.exp(-(10 * all_[0].score - 4))))
    with pytest.raises(BadInput, match=r"calibration for 'history', got one for topic.*recommend-eval"):
        it.for_history(["i000"], Wanted(5, least=0.5))
    with pytest.raises(BadInput, match="calibration for 'topic match'"):
        it.for_topics(asked, Wanted(5, least=0.5), rerank=Rerank(Head(), {}, {}))
    assert [one.probability for one in it.for_history(["i000"], Wanted(2))] == [None, None]
    assert vectors


# -- what is refused ------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused() -> None:
    it, _, _ = recommender()
    with pytest.raises(BadInput, match="at least one id"):
        it.for_history([], Wanted())
    with pytest.raises(BadInput, match="at least one id"):
        it.for_history("i000", Wanted())
    with pytest.raises(UnknownId, match="nobody"):
        it.for_history(["i000", "nobody"], Wanted())
    with pytest.raises(BadInput, match="mean or max"):
        it.for_history(["i000"], Wanted(), blend="sum")
    with pytest.raises(ModelMismatch, match="m2"):
        it.for_topics(topic(np.eye(6)[0], "m2"), Wanted())
    with pytest.raises(BadInput, match="cancel"):
        middle(np.array([[1.0, 0], [-1, 0]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"k": -3},
        {"k": True},
        {"k": 2.5},
        {"pool": 0},
        {"diversity": 1.1},
        {"diversity": float("nan")},
        {"least": -0.1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Wanted(**wrong)


class Reader:
    """An embedder that knows Latin letters only."""

    model, width = MODEL, 6
    modalities: ClassVar = {"title": "text", "photo": "image"}

    def embed(self, records):
        raise AssertionError

    def unknown(self, record: Record) -> tuple[str, ...]:
        return tuple(name for name, value in record.values.items() if name == "title" and not value.isascii())


def test_a_topic_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(BadInput, match=r"пляж.*Nothing of it is known to the model"):
        check_topic(Reader(), Record("t", {"title": "пляж"}))
    check_topic(Reader(), Record("t", {"title": "beach"}))
    check_topic(Reader(), Record("t", {"title": "пляж", "photo": b"x"}))
    with pytest.raises(BadInput, match="at least one of title, photo"):
        check_topic(Reader(), Record("t", {}))


def test_torch_is_not_needed() -> None:
    code = "import sys, polymodal.tasks.recommend, polymodal.tasks.probability; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
