"""Labels that the input gives away."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.evaluate import label_leak, leak_warning
from polymodal.evaluate.leak import spoken
from polymodal.types import Record


@pytest.mark.parametrize(
    ("value", "text", "named"),
    [
        ("red", "a Red shoe", True),
        ("red", "a tired shoe", False),
        ("art", "cart, arts", False),
        ("T-shirt", "blue t_shirt", True),
        ("running shoe", "running a shoe", False),
        ("STRASSE", "Straße 5", True),
        ("café", "Café au lait", True),  # composed and decomposed
        ("运动鞋", "红色运动鞋男", True),  # no spaces: anywhere
        ("鞋运", "红色运动鞋", False),
        ("くつ", "赤いくつです", True),
        ("รองเท้า", "ซื้อรองเท้าแดง", True),
        ("किताब", "लाल किताबें", False),  # a mark goes on with the word
        ("किताब", "लाल किताब।", True),
        ("обувь", "Красная ОБУВЬ", True),
        ("S", "size S", True),
        ("S", "sizes", False),
        ("3", "13 pieces", False),
        ("!!", "wow!!", False),  # a value without a word is nowhere
    ],
)
def test_a_value_is_found_as_whole_words_whatever_the_script(value, text, named):
    assert (label_leak([Record("a", {"t": text})], {"a": value}, "x").share == 1.0) is named


@given(
    st.lists(st.sampled_from(["red", "blue", "re", "d", "shoe"]), min_size=1, max_size=6),
    st.sampled_from([" ", "-", ", "]),
)
def test_words_of_plain_english_are_those_of_a_regular_expression(words, between):
    text = between.join(words)
    assert (spoken("red") in spoken(text)) is bool(re.search(r"\bred\b", text))


def shop(named: int, of: int = 10) -> list[Record]:
    """`named` of ten items say their colour: in the title of even ones, in an attribute of odd ones."""
    made = []
    for at in range(of):
        colour = ("red", "blue")[at % 2]
        said = colour if at < named else "fine"
        values = {"title": f"a {said} shoe", "facts": (("size", "S"),), "photo": [1.0]}
        if at % 2:
            values |= {"title": "a shoe", "facts": (("tone", ("odd", said)), ("price", 3.0))}
        made.append(Record(f"i{at}", values, {"colour": colour}))
    return made


def test_shares_are_counted_by_hand():
    records = shop(6)
    found = label_leak(records, {r.id: r.labels["colour"] for r in records}, "colour")
    assert (found.items, found.share, found.leaks) == (10, 0.6, True)
    assert found.by_modality == {"facts": 0.3, "title": 0.3, "photo": 0.0}
    assert found.example == ("i0", "title", "red")
    assert found.chance == 0.0
    assert "colour 60% (facts 30%, title 30%)" in leak_warning([found])


def test_half_is_no_leak_and_neither_is_a_modality_that_is_not_read():
    records = shop(5)
    colours = {r.id: r.labels["colour"] for r in records}
    assert leak_warning([label_leak(records, colours, "colour")]) == ""
    every = shop(10)
    assert label_leak(every, colours, "colour").share == 1.0
    assert label_leak(every, colours, "colour", ["photo", "facts"]).share == 0.5
    assert label_leak(every, colours, "colour", []).share == 0.0


def test_what_is_said_by_chance_is_told_apart():
    records = [Record(f"i{at}", {"title": "red and blue"}, {}) for at in range(4)]
    found = label_leak(records, {"i0": "red", "i1": "blue", "i2": "red", "i3": "green"}, "colour")
    assert found.share == 0.75
    # red (weight 2) is in both others' texts, so is blue (3 others), green is in none of 3
    assert found.chance == pytest.approx((2 * 2 + 3) / (2 * 2 + 3 + 3))


def test_no_item_is_no_leak():
    found = label_leak([], {}, "colour")
    assert (found.items, found.share, found.chance, found.leaks) == (0, 0.0, 0.0, False)


def test_words_of_hangul_carry_endings():
    assert spoken("가방") in spoken("빨간 가방을 팝니다")
    assert spoken("구두") not in spoken("빨간 가방을 팝니다")
