from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.evaluate import Ties
from polymodal.tasks import lexical
from polymodal.tasks.lexical import Bm25, fuse, text_of, words_of
from polymodal.types import BadInput, MissingExtra, Record

NONE = np.full(0, -1)


def by_hand(texts: list[str], query: str, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """The formula, written out."""
    said = [Counter(words_of(text)) for text in texts]
    lengths = [sum(words.values()) for words in said]
    mean = sum(lengths) / len(lengths)
    scores = []
    for words, length in zip(said, lengths, strict=True):
        total = 0.0
        for word in set(words_of(query)):
            often = sum(word in other for other in said)
            rare = math.log(1 + (len(said) - often + 0.5) / (often + 0.5))
            total += rare * words[word] / (words[word] + k1 * (1 - b + b * length / mean)) if words[word] else 0.0
        scores.append(total)
    return scores


WORDS = st.lists(st.sampled_from(["red", "blue", "shoe", "lamp", "vase"]), max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=8), query=WORDS)
def test_bm25_is_its_formula(texts, query):
    if not any(texts):
        with pytest.raises(BadInput, match="word"):
            Bm25(texts)
        return
    np.testing.assert_allclose(Bm25(texts).scores([query])[0], by_hand(texts, query), rtol=2e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(WORDS, min_size=1, max_size=8).filter(any), query=WORDS, k=st.integers(1, 9), own=st.integers(-1, 7)
)
def test_search_lists_what_shares_a_word_best_first_ties_by_id(texts, query, k, own):
    own = min(own, len(texts) - 1)
    ids = [f"i{(n * 5) % 11:02d}{n}" for n in range(len(texts))]
    found = Bm25(texts)
    rows, scores = found.search([query], k, Ties.by(ids), np.asarray([own]))
    said = found.scores([query])[0]
    order = sorted((n for n in range(len(texts)) if said[n] > 0 and n != own), key=lambda n: (-said[n], ids[n]))
    width = min(k, len(texts))
    assert rows[0].tolist() == (order + [-1] * width)[:width]
    assert scores[0][rows[0] >= 0] == pytest.approx([said[n] for n in order[:width]])


def test_words_of_any_script():
    assert words_of("Red SHOE, size_cm ﬁt!") == ["red", "shoe", "size", "cm", "fit"]
    assert words_of("हिन्दी किताब") == ["हिन्दी", "किताब"]  # vowel signs are marks and belong to the word
    assert words_of("小汽车 Play") == ["小汽", "汽车", "play"]
    assert words_of("猫") == ["猫"]
    assert words_of("iPhone手机壳x2") == ["iphone", "手机", "机壳", "x2"]
    assert words_of("ｶﾞﾗｽ") == words_of("ガラス")  # half-width kana are the same letters
    assert words_of("") == words_of("— … !") == []
    assert words_of("e\u0301te\u0301") == words_of("été")  # two ways to write one letter


def test_a_part_of_a_chinese_title_is_found():
    found = Bm25(["红色小汽车", "蓝色风筝", "red car"])
    rows, _ = found.search(["汽车"], 3)
    assert rows[0].tolist() == [0, -1, -1]


def test_a_word_counts_once_or_as_often_as_it_is_said():
    found = Bm25(["red shoe", "blue shoe", "red red hat"])
    once, said = found.scores(["red red shoe"])[0], found.scores(["red red shoe"], repeated=True)[0]
    red, shoe = found.scores(["red"])[0], found.scores(["shoe"])[0]
    assert once == pytest.approx(red + shoe)
    assert said == pytest.approx(2 * red + shoe)
    rows, scores = found.search(["red red shoe"], 3, repeated=True)
    assert scores[0] == pytest.approx(said[rows[0]])


def test_labels_and_groups_are_never_words():
    """A control that reads the labels it is judged by would win for nothing."""
    facts = (("size", 4.0), ("tags", "new"), ("tags", "light"), ("fit", "x 2"))
    record = Record("id9", {"title": "red shoe", "facts": facts},
                    {"category": "sneaker", "colour": "scarlet"}, "group7")  # fmt: skip
    said = words_of(text_of(record))
    # nor names of attributes, which all items say, nor numbers, which are equal by chance
    assert said == ["red", "shoe", "new", "light", "x", "2"]
    assert text_of(Record("x", {"image": np.zeros((1, 2, 2, 3), np.uint8)})) == ""


def test_reciprocal_rank_fusion_by_hand():
    one, other = np.asarray([[0, 2, 1, -1]]), np.asarray([[3, 2, -1, -1]])
    rows, scores = fuse([one, other], 5, 5)
    assert rows[0].tolist() == [2, 0, 3, 1, -1]
    assert scores[0, :4] == pytest.approx([1 / 62 + 1 / 62, 1 / 61, 1 / 61, 1 / 63])
    ties = Ties.by(["z", "b", "c", "a", "e"])
    assert fuse([one, other], 5, 3, ties)[0][0].tolist() == [2, 3, 0]  # a before z


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    queries=st.integers(0, 5),
    lists=st.integers(1, 3),
    places=st.sampled_from([1, 8, 1 << 23]),
)
def test_fusion_against_a_plain_sum(seed, queries, lists, places):
    rng = np.random.default_rng(seed)
    corpus = 7
    made = []
    for _ in range(lists):
        rows = np.stack([rng.permutation(corpus)[:4] for _ in range(queries)]) if queries else np.zeros((0, 4), int)
        made.append(np.where(np.arange(4) < rng.integers(0, 5), rows, -1))
    before, lexical._PLACES = lexical._PLACES, places  # blocks of any size
    try:
        rows, _ = fuse(made, corpus, 9)
    finally:
        lexical._PLACES = before
    for query in range(queries):
        total = Counter()
        for found in made:
            for rank, item in enumerate(found[query].tolist(), 1):
                if item >= 0:
                    total[item] += 1 / (60 + rank)
        order = sorted(total, key=lambda item: (-np.float32(total[item]), item))
        assert rows[query].tolist() == order + [-1] * (corpus - len(order))


def test_without_bm25s_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(MissingExtra, match="report"):
        Bm25(["red"])
