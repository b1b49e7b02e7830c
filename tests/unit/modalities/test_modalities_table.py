from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.modalities.table import Table, TableConfig
from polymodal.types import BadInput, MediaError

ROWS: list[dict[str, Any]] = [
    {"colour": c, "price": 10.0 + i, "size": i % 4, "brand": "acme"} for i, c in enumerate(["red", "blue", "红色"] * 20)
]


def fitted(config: TableConfig, rows: list[Any] = ROWS) -> Table:
    decoder = config.decoder()
    return config.build(8, config.fit(iter([decoder.decode(row) for row in rows])))


@pytest.fixture(scope="module")
def table() -> Table:
    return fitted(TableConfig(vocabulary=500))


def same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"b": "x", "a": 2}, (("a", 2.0), ("b", "x"))),
        ([("b", "x"), ["a", True]], (("a", "yes"), ("b", "x"))),
        ({"a": ["x", "y", None]}, (("a", "x"), ("a", "y"))),
        ({"a": {"b": 1, "c": {"d": "e"}}}, (("a.b", 1.0), ("a.c.d", "e"))),
        ({"a": None, "b": "", "c": math.nan, "d": math.inf, "e": "  ", "f": False, "g": 10**400}, (("f", "no"),)),
        ('{"a": "1"}', (("a", 1.0),)),
        ({"a": np.float32(1.5), "b": np.int64(3), "c": np.bool_(True)}, (("a", 1.5), ("b", 3.0), ("c", "yes"))),
        ({"": 5}, (("?", 5.0),)),
        ({" a\x00 b ": " x  y\n"}, (("a b", "x y"),)),
    ],
)
def test_decode(table: Table, source: Any, expected: Any) -> None:
    assert table.decode(source) == expected
    assert table.decode(expected) == expected


@pytest.mark.parametrize("text", ["12", "12.5", "-3", "0", "0.50", "-0.1"])
def test_unambiguous_numbers_are_numbers(table: Table, text: str) -> None:
    assert table.decode({"a": text}) == (("a", float(text)),)
    kept = fitted(TableConfig(vocabulary=500, parse_numbers=False))
    assert kept.decode({"a": text}) == (("a", text),)


@pytest.mark.parametrize(
    "text",
    ["007", "1e999", "1e5", "12-14", "1,5", "1.", ".5", "+1", "0x1f", "nan", "inf", "1_0", "٣", "12345678901", "--1"],
)
def test_what_only_looks_like_a_number_stays_text(table: Table, text: str) -> None:
    assert table.decode({"a": text}) == (("a", text),)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({}, "empty"),
        ({"a": None}, "empty"),
        ((), "empty"),
        (3, "wrong type"),
        (None, "wrong type"),
        ([1, 2], "wrong type"),
        ([("a", 1, 2)], "wrong type"),
        ({"a": object()}, "wrong type"),
        ("{not json", "unreadable"),
        ("[" * 100_000, "unreadable"),
        ({"a": list(range(20_000))}, "over the limits"),
    ],
)
def test_unusable(table: Table, source: Any, reason: str) -> None:
    with pytest.raises(MediaError) as caught:
        table.decode(source)
    assert caught.value.reason == reason


def test_deep_nesting_is_refused(table: Table) -> None:
    node: Any = "x"
    for _ in range(5000):
        node = {"a": node}
    with pytest.raises(MediaError, match="nested"):
        table.decode(node)


VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.text(min_size=1, max_size=8), st.booleans())


@given(st.lists(st.tuples(st.sampled_from(["colour", "price", "x", "новое", "鞋"]), VALUES), max_size=12), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_row_does_not_matter(
    table: Table, pairs: list[tuple[str, Any]], shuffle: random.Random
) -> None:
    mixed = list(pairs)
    shuffle.shuffle(mixed)
    try:
        value = table.decode(pairs)
    except MediaError:
        return
    other = table.decode(mixed)
    assert value == other == table.decode(value)
    fields = table.preprocess(value)
    assert same(fields, table.preprocess(tuple(reversed(value))))
    assert torch.isfinite(fields["number"]).all()
    assert fields["number"].abs().max() <= 6
    assert not fields["number"][~fields["numeric"]].any()
    x = table.embed(fields) + table.positions(fields)
    assert x.isfinite().all()


def test_one_group_a_side(table: Table) -> None:
    fields = table.preprocess(table.decode({"colour": "red", "price": "12", "zzz": "dark blue zzzz"}))
    assert fields["slot"].unique().tolist() == [0, 1, 2]
    assert torch.equal(fields["unit"], 2 * fields["slot"] + fields["side"])
    price = fields["slot"] == 1
    assert fields["numeric"][price & (fields["side"] == 1)].tolist() == [True]
    assert (fields["id"] == 1).sum() == fields["numeric"].sum() == 1
    overlap = table.overlap({name: value[None] for name, value in fields.items()})
    assert overlap is not None
    last = torch.nonzero((fields["slot"] == 2) & (fields["side"] == 1)).flatten()
    assert len(last) > 1
    assert overlap[0][last[0]].nonzero().flatten().tolist() == last.tolist()


def test_numbers_are_standardised_by_name(table: Table) -> None:
    def number(name: str, x: float) -> float:
        fields = table.preprocess(((name, x),))
        return float(fields["number"][fields["numeric"]])

    prices = np.asarray([number("price", row["price"]) for row in ROWS])
    assert abs(np.median(prices)) < 0.1
    assert 0.5 < prices.std() < 1.5
    assert number("price", 20) < number("price", 21) < number("price", 1000) < number("price", 1e6)
    assert number("price", 20) != number("size", 20)
    # a name never seen: finite, ordered, and neither zero
    assert -6 <= number("new", -1e300) < number("new", 1) < number("new", 50) < number("new", 1e9) <= 6
    assert number("price", 1e308) == 6


@pytest.mark.parametrize("numbers", [[5.0] * 9, [0.0] * 5, [1e308, -1e308, 0.0], [3.0], [0, 0, 0, 0, 0, 0, 0, 9.0], []])
def test_degenerate_scales(numbers: list[float]) -> None:
    table = fitted(TableConfig(vocabulary=300), [{"a": x} for x in numbers] or [{"a": "x"}])
    values = [table.preprocess((("a", x),))["number"][-1].item() for x in (-1e308, 0.0, 5.0, 6.0, 1e308)]
    assert all(map(math.isfinite, values))
    assert values == sorted(values)


def test_names_never_seen_get_a_place_of_their_own(table: Table) -> None:
    known = table.preprocess((("price", 1.0),))["attribute"].unique()
    new = table.preprocess((("voltage", 1.0),))["attribute"].unique()
    assert known < 4 <= new < 4 + 64
    assert TableConfig(vocabulary=300, max_names=2).fit([(("a", 1.0), ("b", "x"), ("c", "y"), ("c", "z"))])[
        "names"
    ] == ["c", "a"]


def test_too_many_attributes_keep_the_common_names() -> None:
    table = fitted(TableConfig(vocabulary=500, max_attributes=3))
    row = {f"a{i}": "x" for i in range(50)} | {"price": 1, "colour": "red"}
    fields = table.preprocess(table.decode(row))
    assert fields["slot"].max() == 2
    kept = fields["attribute"].unique().tolist()
    assert len([a for a in kept if a < 4]) == 2


def test_empty_and_blank(table: Table) -> None:
    empty = table.preprocess(())
    assert {len(field) for field in empty.values()} == {0}
    assert set(empty) == set(table.blank())
    assert table.embed(empty).shape == (0, 8)
    assert table.blank()["id"].tolist() == [0]


def test_augment_shuffles_slots_and_drops(table: Table) -> None:
    value = table.decode({f"a{i:02}": float(i) for i in range(20)})
    views = [table.augment(value, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert views[0] == views[1] != views[2]
    assert set(views[0]) <= set(value)
    assert any(set(view) < set(value) for view in views)
    assert not same(table.preprocess(views[0]), table.preprocess(tuple(views[0])))
    never = fitted(TableConfig(vocabulary=500, drop=0))
    assert set(never.augment(value, torch.Generator())) == set(value)
    one = table.decode({"a": 1})
    assert all(table.augment(one, torch.Generator().manual_seed(seed)) == one for seed in range(50))


def test_content_and_place_are_apart(table: Table) -> None:
    red, blue = (table.preprocess(table.decode({"colour": c, "price": p})) for c, p in (("red", 1), ("blue", 2)))
    assert torch.equal(table.positions(red), table.positions(blue))
    assert not torch.equal(table.embed(red), table.embed(blue))
    # what stands in `number` of a word is never read
    spoilt = {**red, "number": torch.where(red["numeric"], red["number"], 7.0)}
    assert torch.equal(table.embed(red), table.embed(spoilt))


def test_distance_of_words_and_numbers(table: Table) -> None:
    fields = table.preprocess(table.decode({"colour": "red", "price": 12}))
    target = table.target(fields)
    prediction = torch.zeros(len(target), table.pieces.size + 1, requires_grad=True)
    loss = table.distance(prediction, target)
    numeric = fields["numeric"]
    assert torch.allclose(loss[~numeric], torch.tensor(math.log(table.pieces.size)))
    expected = torch.nn.functional.smooth_l1_loss(torch.zeros(1), target[numeric][:, 1])
    assert torch.allclose(loss[numeric], expected)
    gradient = torch.autograd.grad(loss.sum(), prediction)[0]
    assert not gradient[numeric, :-1].any()
    assert not gradient[~numeric, -1].any()
    assert table.head(16)(torch.randn(3, 16)).shape == (3, table.pieces.size + 1)


def test_fit_is_deterministic_and_build_checks() -> None:
    config = TableConfig(vocabulary=400)
    values = [config.decoder().decode(row) for row in ROWS]
    many = [(("a", float(i)),) for i in range(5000)]
    assert config.fit(iter(values)) == config.fit(iter(values)) == json.loads(json.dumps(config.fit(iter(values))))
    assert config.fit(iter(many)) == config.fit(iter(many))
    middle = config.fit(iter(many))["scales"][0][0]
    assert 2000 < middle < 3000
    with pytest.raises(BadInput, match="names"):
        config.build(8, {})
    assert config.build(8, config.fit(iter(()))).preprocess((("a", 1.0),))["number"].isfinite().all()


def asked(table: Table, part: str, words: str) -> tuple[Any, Any]:
    """The question for a part that takes the pieces of `words`, and logits that prefer those."""
    ids = table.pieces.encode(words, 6)[0]
    question = next(q for q in table.ask(None, part) if int(q.hidden.sum()) == len(ids))
    logits = torch.zeros(len(ids), table.pieces.size + 1)
    logits[torch.arange(len(ids)), torch.tensor(ids)] = 6.0
    return question, logits


TONES = [{"tone": t, "sku": f"{i:03d}x"} for i, t in enumerate(["dark blue", "light red"] * 20)]


def test_an_attribute_whose_values_are_known_is_answered_with_one_of_them():
    table = fitted(TableConfig(vocabulary=500), TONES)
    question, logits = asked(table, "tone", "dark red")
    logits[1, table.pieces.encode("blue", 6)[0]] = 5.0  # piece by piece it would be "dark red", which nothing is
    guess = table.answer(question, logits)
    assert guess.value.replace(" ", "") == "darkblue"
    # against "light" in the first place and "red" in the second, not against every piece there is
    assert guess.confidence == pytest.approx((1 / (1 + math.exp(-6)), 1 / (1 + math.exp(1))))
    assert guess.score == pytest.approx(sum(math.log(p) for p in guess.confidence) + question.prior)
    assert [piece for piece, _ in guess.choices[1]] == ["red", "blue"]
    assert table.answer(*asked(table, "tone", "light red")).value.replace(" ", "") == "lightred"


def test_values_that_do_not_come_again_are_no_list_to_choose_from():
    config = TableConfig(vocabulary=500)
    decoder = config.decoder()
    found = config.fit(iter([decoder.decode(row) for row in TONES]))
    of = dict(zip(found["names"], found["values"], strict=True))
    assert of == {"tone": ["dark blue", "light red"], "sku": []}
    many = [{"model": f"m{i % 300} x"} for i in range(900)]
    assert config.fit(iter([decoder.decode(row) for row in many]))["values"] == [[]]  # more than are held
