"""The notations of the M5Product release: what is written is read back equal, what is malformed is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from m5_release import region

from polymodal.catalogue import _m5_json
from polymodal.catalogue._m5_grammar import MAX_LINE, Refused
from polymodal.catalogue._m5_ids import Ids, Membership, hashes
from polymodal.catalogue._m5_json import content_of, entries
from polymodal.catalogue.m5product import Region, format_pv, parse_pv, read_region, write_region
from polymodal.types import BadInput

_part = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).map(str.strip).filter(bool)
_plain = _part.filter(lambda text: "#" not in text)
_marked = st.lists(st.sampled_from(["#", ":", ";", "a", " ", "红"]), min_size=1, max_size=8).map("".join)


# -- pv ------------------------------------------------------------------------------------------------------------


def test_pv_as_the_release_writes_it() -> None:
    assert parse_pv("颜色#:#红#;#尺码#:#XL#;#颜色#:#蓝") == ([("颜色", "红"), ("尺码", "XL"), ("颜色", "蓝")], [])
    # the mark of "no table" is any string of one character
    assert parse_pv("0") == parse_pv("") == parse_pv(" ") == ([], [])
    # the first mark of a piece counts, and a trailing separator is no piece
    assert parse_pv("a#:#b#:#c#;#") == ([("a", "b#:#c")], [])
    assert parse_pv("a#:##;#b#;##:#c#;# d #:# e ") == ([("d", "e")], ["a#:#", "b", "#:#c"])
    assert format_pv([]) == "0"


@given(st.lists(st.tuples(_plain, _plain), max_size=6))
def test_pv_round_trip(pairs: list[tuple[str, str]]) -> None:
    assert parse_pv(format_pv(pairs)) == (pairs, [])


@given(st.lists(st.tuples(_marked, _marked), max_size=4))
def test_pv_is_refused_or_read_back_whatever_it_holds(pairs: list[tuple[str, str]]) -> None:
    try:
        text = format_pv(pairs)
    except BadInput:
        assert any("#" in part or part != part.strip() for pair in pairs for part in pair)
    else:
        assert parse_pv(text) == (pairs, [])


@given(st.text())
def test_pv_never_stops_and_loses_nothing_silently(text: str) -> None:
    pairs, bad = parse_pv(text)
    assert all(name and value for name, value in pairs)
    assert len(pairs) + len(bad) <= text.count("#;#") + 1


# -- regions -------------------------------------------------------------------------------------------------------

_float = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(st.data(), st.integers(1, 5), st.integers(1, 7))
def test_region_round_trip(data: st.DataObject, n: int, channels: int) -> None:
    boxes = np.array(data.draw(st.lists(_float, min_size=4 * n, max_size=4 * n)), np.float32).reshape(n, 4)
    size = n * channels
    features = np.array(data.draw(st.lists(_float, min_size=size, max_size=size)), np.float32).reshape(n, channels)
    name = data.draw(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
    title = data.draw(st.text(st.characters(exclude_categories=("Cs",))).filter(lambda t: not set(t) & set("\r\n")))
    made = Region(name, data.draw(st.integers(1, 100_000)), 7, boxes, features, title)
    line = write_region(made)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    found = read_region(line)
    assert (found.id, found.width, found.height, found.title) == (made.id, made.width, made.height, made.title)
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_array_equal(found.features, features)


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=20), min_size=6, max_size=8).map(b"\t".join))
def test_any_bytes_are_read_or_refused(line: bytes) -> None:
    reason = "malformed"
    try:
        read_region(line)
    except Refused as error:
        reason = error.reason
    assert reason in ("malformed", "empty", "over the limits")


def _line(**changes: Any) -> bytes:
    fields = dict(
        zip(("id", "w", "h", "n", "boxes", "features", "title"), write_region(region("7")).split(b"\t"), strict=True)
    )
    return b"\t".join({**fields, **changes}.values())


def _b64(*numbers: float) -> bytes:
    return base64.b64encode(np.array(numbers, "<f4").tobytes())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"7\t80\t60", "malformed"),
        (_line(n=b"0"), "empty"),
        (_line(n=b"4"), "malformed"),
        (_line(n=b"-3"), "malformed"),
        (_line(n=b"3e9"), "malformed"),
        (_line(n=b"99999"), "over the limits"),
        (_line(w=b"0"), "malformed"),
        (_line(w=b"999999"), "over the limits"),
        (_line(boxes=b"*" * 64), "malformed"),
        (_line(boxes=b"A" * 65), "over the limits"),
        (_line(boxes=b"A" * 63), "malformed"),
        (_line(boxes=_b64(*[np.nan] * 12)), "malformed"),
        (_line(features=b""), "malformed"),
        (_line(features=_b64(*[1.0] * 16)), "malformed"),
        (_line(features=_b64(*[np.inf] * 18)), "malformed"),
        (_line(n=b"1", boxes=_b64(0, 0, 1, 1), features=b"AAAA" * 100_000), "over the limits"),
        (_line(id=b"\xff"), "malformed"),
        (b"7\t" + b"A" * MAX_LINE, "over the limits"),
    ],
)
def test_a_malformed_line_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read_region(line)
    assert refused.value.reason == reason


def test_a_line_may_lack_its_title_and_write_whole_numbers_with_a_point() -> None:
    line = _line(w=b"80.0", n=b" 3 ").rsplit(b"\t", 1)[0]
    found = read_region(line)
    assert (found.width, len(found.boxes), found.title) == (80, 3, "")
    assert read_region(_line(title=b"a\tb\r\n")).title == "a\tb"


def test_what_cannot_be_a_line_is_not_written() -> None:
    for bad in (Region("a\tb", 1, 1, *_arrays()), Region("a", 1, 1, *_arrays(), title="x\ny")):
        with pytest.raises(BadInput):
            write_region(bad)
    with pytest.raises(BadInput):
        write_region(Region("a", 1, 1, _arrays()[0], np.ones((3, 2), np.float32)))


def _arrays() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1, 4), np.float32), np.ones((1, 2), np.float32)


def test_a_cell_has_boxes_relative_to_the_picture_and_cut_at_its_border() -> None:
    boxes = np.array([[-8, 0, 40, 30], [40, 30, 100, 60]], np.float32)
    cell = Region("a", 80, 60, boxes, np.array([[1.5], [2]], np.float32)).cell()
    assert cell.dtype == np.float16
    np.testing.assert_array_equal(cell, [[1.5, 0, 0, 0.5, 0.5], [2, 0.5, 0.5, 1, 1]])
    large = Region("a", 80, 60, boxes, np.array([[1e6], [2]], np.float32)).cell()
    assert large.dtype == np.float32
    assert large[0, 0] == 1e6
    for corners in ([40, 0, 20, 30], [81, 0, 90, 30], [-9, 0, -1, 30]):
        with pytest.raises(Refused):
            Region("a", 80, 60, np.array([corners], np.float32), np.ones((1, 1), np.float32)).cell()


# -- JSON ----------------------------------------------------------------------------------------------------------


def _read(path: Path, text: str) -> tuple[list[Any], list[str]]:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    told: list[str] = []
    found = list(entries(path, content_of(path), lambda reason, detail: told.append(reason)))
    return found, told


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
@settings(max_examples=30)
@given(
    content=st.dictionaries(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1)
)
def test_entries_are_those_of_the_whole_file(chunk: int, content: dict[str, Any], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        # pieces as small as that cut entries everywhere
        patch.setattr(_m5_json, "_CHUNK", chunk)
        patch.setattr(_m5_json, "_LONGEST", 4000)
        clean = json.loads(json.dumps(content).encode("utf-8", "replace"))
        for indent in (None, 1):
            assert _read(path, json.dumps(content, indent=indent)) == (list(clean.items()), [])
            assert _read(path, json.dumps(list(content.values()), indent=indent)) == (
                [("", value) for value in clean.values()],
                [],
            )


def test_a_malformed_entry_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    text = '{"1": {"title": "a"}, "2": {"title": oops, "x": {"y": 1}}, "3": {"title": "c"}, '
    text += '"4": {"title": "d" "e"},\n"5": {}}'
    found, told = _read(path, text)
    names = [key for key, _ in found]
    assert [name for name in names if name.isdigit()] == ["1", "3", "5"]
    assert told.count("malformed") >= 2
    found, told = _read(path, '[{"a": 1}, {"a": [}, {"a": 3}]')
    assert ([value for _, value in found], told) == ([{"a": 1}, {"a": 3}], ["malformed"])
    deep = '{"1": {"x": 1}, "2": {"x": ' + "[" * 100_000 + '}, "3": {"x": 3}}'
    found, told = _read(path, deep)
    assert ([key for key, _ in found], told) == (["1", "3"], ["malformed"])


@pytest.mark.parametrize("cut", range(2, 40, 3))
def test_a_file_that_ends_early_gives_what_it_has(cut: int, tmp_path: Path) -> None:
    text = '{"1": {"a": 1}, "2": {"a": 2}, "3": {"a": 3}}'[:cut]
    path = tmp_path / "a.json"
    path.write_text(text)
    if content_of(path) == "nothing":
        return
    found, told = _read(path, text)
    assert [key for key, _ in found] == ["1", "2", "3"][: text.count("}")]
    assert told == ["truncated"]


def test_an_entry_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_m5_json, "_LONGEST", 1000)
    monkeypatch.setattr(_m5_json, "_CHUNK", 100)
    content = {"1": {"a": 1}, "2": {"a": "x" * 5000}, "3": {"a": 3}}
    found, told = _read(tmp_path / "a.json", json.dumps(content))
    assert [key for key, _ in found] == ["1", "3"]
    assert told == ["malformed"]
    lines = "".join(json.dumps(value) + "\n" for value in content.values())
    found, told = _read(tmp_path / "a.jsonl", lines)
    assert ([value for _, value in found], told) == ([{"a": 1}, {"a": 3}], ["over the limits"])


def test_content_is_told_by_the_beginning(tmp_path: Path) -> None:
    for text, content in (
        ('{"1": {"a": 1}}', "records by id"),
        ("{}", "records by id"),
        ('\ufeff [ {"a": 1}]', "records"),
        ('{"1": "x"}', "keys"),
        ('["a"]', "words"),
        ("[1, 2]", "words"),
        ("hello", "nothing"),
        ("", "nothing"),
        ('"a"', "nothing"),
    ):
        path = tmp_path / "a.json"
        path.write_text(text, "utf-8")
        assert content_of(path) == content, text


def test_text_that_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    found, told = _read(tmp_path / "a.json", '{"1": {"a\\ud800": ["\\udfff红"]}}')
    assert (found, told) == ([("1", {"a?": ["?红"]})], [])


# -- ids -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12))
def test_ids_are_a_set(batches: list[list[int]]) -> None:
    made, seen = Ids(), set[int]()
    for batch in batches:
        fresh = made.add(np.array(batch, np.int64))
        expected = []
        for number in batch:
            expected.append(number not in seen)
            seen.add(number)
        assert fresh.tolist() == expected
        assert len(made) == len(seen)
        assert made.holds(np.arange(50)).tolist() == [n in seen for n in range(50)]
        assert len(made._levels) <= 7


def test_membership_counts_each_id_once() -> None:
    one = Membership("x", hashes(["a", "b", "b", "c"]))
    assert (len(one), one.found) == (3, 0)
    assert one.holds(hashes(["b", "z", "b"])).tolist() == [True, False, True]
    assert one.found == 1
    assert Membership("none", hashes([])).holds(hashes(["a"])).tolist() == [False]
