from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from polymodal.config import Config, discover, nearest, parse_kind
from polymodal.modality import ModalityConfig
from polymodal.types import BadInput


class Inner(Config):
    rate: float = Field(0.1, gt=0)
    kind: Literal["a", "b"] = "a"


class Outer(Config):
    name: str = "x"
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)
    more: dict[str, float] = Field(default_factory=dict)
    limit: int | None = None


def test_frozen_and_strict():
    with pytest.raises(ValueError, match="frozen"):
        Outer().name = "y"
    with pytest.raises(BadInput, match="Did you mean 'inner'") as caught:
        Outer.parse({"iner": {}})
    assert caught.value.field == "iner"
    with pytest.raises(BadInput, match="Did you mean 'rate'") as caught:
        Outer.parse({"inner": {"rat": 1}}, "recipe")
    assert caught.value.field == "recipe.inner.rat"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_numbers_out_of_range_are_refused(number):
    with pytest.raises(BadInput, match=r"inner\.rate"):
        Outer.parse({"inner": {"rate": number}})


def test_replace_checks_again():
    assert Outer().replace(name="y").name == "y"
    assert Outer().replace(inner=Inner(rate=2)).inner.rate == 2
    with pytest.raises(BadInput, match="unknwon"):
        Outer().replace(unknwon=1)
    with pytest.raises(BadInput, match="rate"):
        Inner().replace(rate=0)


def test_overrides():
    changed = Outer().override(
        ["inner.rate=0.5", "name=hello world", "sizes=[3]", "limit=7", 'more={"k": 1}', "inner.kind=b"]
    )
    assert changed == Outer(name="hello world", inner=Inner(rate=0.5, kind="b"), sizes=(3,), limit=7, more={"k": 1})
    assert changed.override(["limit=null", "more.k=2"]) == changed.replace(limit=None, more={"k": 2})
    assert Outer().override([]) == Outer()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("inner.rat=1", "Did you mean 'rate'"),
        ("iner.rate=1", "Did you mean 'inner'"),
        ("name.first=1", "a field of name"),
        ("inner.rate", "NAME=VALUE"),
        ("inner.rate=fast", r"inner\.rate"),
        ("inner.rate=NaN", r"inner\.rate"),
        ("inner.kind=c", r"inner\.kind"),
        ("zzz=1", "Known: inner, limit, more, name, sizes"),
    ],
)
def test_overrides_that_are_refused(setting, said):
    with pytest.raises(BadInput, match=said):
        Outer().override([setting])


@given(
    st.builds(
        Outer,
        name=st.text(),
        inner=st.builds(Inner, rate=st.floats(1e-9, 1e9)),
        more=st.dictionaries(st.text(), st.floats(-9, 9)),
    )
)
def test_json_both_ways(config):
    assert Outer.parse(json.loads(config.model_dump_json())) == config


def test_nearest():
    assert nearest("imge", ["image", "text"]) == "Did you mean 'image'?"
    assert nearest("qqq", ["b", "a"]) == "Known: a, b."
    assert nearest("x", []) == ""
    ids = [f"P{at:04d}" for at in range(2000)]
    assert nearest("nope", ids).startswith("Known: P0000, P0001,")
    assert nearest("nope", ids).endswith("P0029 and 1,970 more.")


def test_discover_skips_helpers():
    found = discover("polymodal.modalities")
    assert {"audio", "features", "image", "table", "text", "video"} <= set(found)
    assert not any(name.startswith("_") for name in found)


def test_parse_kind_looks_inside_the_package_only():
    made = parse_kind("polymodal.modalities", {"kind": "text", "max_tokens": 7}, "m", ModalityConfig)
    assert (made.kind, made.max_tokens) == ("text", 7)
    assert parse_kind("polymodal.modalities", made, "m", ModalityConfig) is made
    for bad, said in [
        ({"kind": "txt"}, "Did you mean 'text'"),
        ({"kind": "os.system"}, "a component of polymodal.modalities"),
        ({"kind": ["text"]}, "a component"),
        ({}, "an object with a 'kind'"),
        ("text", "an object with a 'kind'"),
    ]:
        with pytest.raises(BadInput, match=said):
            parse_kind("polymodal.modalities", bad, "m", ModalityConfig)
    with pytest.raises(BadInput, match="Did you mean 'max_tokens'"):
        parse_kind("polymodal.modalities", {"kind": "text", "max_token": 7}, "m", ModalityConfig)
