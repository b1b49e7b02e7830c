"""Queries and filters as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polymodal.types import BadInput
from polymodal.workflow.searching import make_query, parse_where

MODEL = {"photo": "image", "title": "text", "attributes": "table", "sound": "audio"}


def test_kinds_find_the_modality_of_the_model(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.touch()
    record = make_query(
        MODEL, {"text": ["red shoe"], "image": [file, file], "audio": []}, ["material=felt", "price=12.5"]
    )
    assert dict(record.values) == {
        "title": "red shoe",
        "photo": [file, file],
        "attributes": (("material", "felt"), ("price", 12.5)),
    }


def test_a_modality_can_be_named() -> None:
    record = make_query({"title": "text", "review": "text"}, {}, (), ["review=a = b"])
    assert dict(record.values) == {"review": "a = b"}
    with pytest.raises(BadInput, match="--query title="):
        make_query({"title": "text", "review": "text"}, {"text": ["a"]})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({},), "something to search by"),
        (({"text": [" "]},), "some words"),
        (({"text": ["a", "b"]},), "2 of them"),
        (({"video": [Path("a.mp4")]},), "no video"),
        (({"image": [Path("/none.jpg")]},), "no file"),
        (({}, ["material"]), "NAME=VALUE"),
        (({}, ["=felt"]), "NAME=VALUE"),
        (({}, [], ["titel=x"]), "'title'"),
        (({}, [], ["title"]), "MODALITY=VALUE"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make_query(MODEL, *arguments)


def test_filters() -> None:
    kinds = {"price": "number", "brand": "text", "size": "mixed"}
    assert parse_where(["price=10..50", "brand=Kivi", "brand=Lumo", "size=38"], kinds) == {
        "price": {"min": 10.0, "max": 50.0},
        "brand": ["Kivi", "Lumo"],
        "size": [38.0],
    }
    assert parse_where(["price=..5"], kinds) == {"price": {"max": 5.0}}
    # text keeps what looks like a number or a range
    assert parse_where(["brand=1..2", "brand=7"], kinds) == {"brand": ["1..2", "7"]}
    for wrong in ("prise=3", "price", "price=..", "price=a..b"):
        with pytest.raises(BadInput, match="--where"):
            parse_where([wrong], kinds)
