"""What every kind of index must do, over all kinds there are: a new file in the package is tested from the start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polymodal.index import Index, UnknownId, create_index, index_kinds, open_index
from polymodal.types import BadInput, Embeddings, MissingExtra, ModelMismatch

WIDTH = 8
COLOURS = ("red", "green", "blue", "dark blue")
# a database behind the index makes each example slow, so examples are few and the deadline is off
FEW = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=sorted(index_kinds()))
def kind(request: pytest.FixtureRequest) -> str:
    try:
        create_index(request.param, "m", 2)
    except MissingExtra as missing:
        pytest.skip(str(missing))
    return str(request.param)


def unit(rng: np.random.Generator, n: int, width: int = WIDTH) -> np.ndarray:
    x = rng.normal(size=(n, width)).astype(np.float32)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def items(n: int = 60, seed: int = 0) -> tuple[Embeddings, list[dict[str, object]]]:
    rng = np.random.default_rng(seed)
    attributes: list[dict[str, object]] = []
    for i in range(n):
        row: dict[str, object] = {"colour": COLOURS[i % 4], "tags": [f"t{i % 3}", f"t{i % 5}"], "new": i % 2 == 0}
        if i % 4:
            row |= {"price": i * 0.5, "sizes": [float(i), float(i + 100)]}
        attributes.append(row)
    return Embeddings(tuple(f"i{j:03d}" for j in range(n)), unit(rng, n), "m1"), attributes


def filled(kind: str, n: int = 60) -> Index:
    index = create_index(kind, "m1", WIDTH)
    index.add(*items(n))
    return index


def brute(embeddings: Embeddings, query: np.ndarray, k: int, keep: set[str] | None = None) -> list[str]:
    scores = embeddings.vectors.astype(np.float64) @ query.astype(np.float64)
    order = sorted(zip(-scores, embeddings.ids, strict=True))
    return [name for _, name in order if keep is None or name in keep][:k]


def ids(hits: list[list]) -> list[list[str]]:
    return [[hit.id for hit in row] for row in hits]


def test_the_known_kinds_are_found() -> None:
    assert {"exact", "lance"} <= set(index_kinds())
    with pytest.raises(BadInput, match="exact"):
        create_index("exakt", "m", 2)
    assert create_index("auto", "m", 2, rows=10).kind == "exact"


@pytest.mark.parametrize("k", [1, 7, 60, 100])
def test_finds_what_brute_force_finds(kind: str, k: int) -> None:
    index, (embeddings, attributes) = filled(kind), items()
    queries = unit(np.random.default_rng(1), 5)
    hits = index.search(queries, k)
    assert ids(hits) == [brute(embeddings, query, k) for query in queries]
    for query, row in zip(queries, hits, strict=True):
        for hit in row:
            assert hit.score == pytest.approx(float(embeddings.rows([hit.id])[0] @ query), abs=1e-5)
    assert hits[0][0].attributes["colour"] == attributes[int(hits[0][0].id[1:])]["colour"]


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ({"colour": "red"}, lambda i: i % 4 == 0),
        ({"colour": ["red", "dark blue"]}, lambda i: i % 4 in (0, 3)),
        ({"colour": "no such colour"}, lambda i: False),
        ({"tags": "t2"}, lambda i: i % 3 == 2 or i % 5 == 2),
        ({"new": True}, lambda i: i % 2 == 0),
        ({"price": 4.5}, lambda i: i == 9),
        ({"price": {"min": 10}}, lambda i: i % 4 and i >= 20),
        ({"price": {"min": 4.5, "max": 10}}, lambda i: i % 4 and 9 <= i <= 20),
        ({"sizes": {"min": 110, "max": 120}}, lambda i: i % 4 and 10 <= i <= 20),
        ({"colour": "green", "price": {"max": 10}}, lambda i: i % 4 == 1 and i <= 20),
    ],
)
def test_filters(kind: str, where: dict, keep) -> None:
    index, (embeddings, _) = filled(kind), items()
    queries = unit(np.random.default_rng(2), 3)
    wanted = {f"i{i:03d}" for i in range(60) if keep(i)}
    assert ids(index.search(queries, 20, where)) == [brute(embeddings, query, 20, wanted) for query in queries]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"color": "red"}, "Did you mean 'colour'"),
        ({"price": "cheap"}, "a number"),
        ({"colour": 3}, "expected text"),
        ({"colour": {"min": 1}}, "holds text"),
        ({"price": {"least": 1}}, '"min"'),
        ({"price": {}}, '"min"'),
        ({"price": {"min": "a"}}, "a number"),
        ({"price": {"min": 3, "max": 1}}, "min <= max"),
        ({"price": float("nan")}, "finite"),
        ({"colour": []}, "at least one"),
        ({"colour": None}, "null"),
        (["colour"], "an object"),
    ],
)
def test_a_filter_that_cannot_be_answered_is_refused(kind: str, where: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        filled(kind).search(unit(np.random.default_rng(0), 1), 3, where)  # type: ignore[arg-type]


def test_ties_go_by_id_wherever_they_stand(kind: str) -> None:
    rng = np.random.default_rng(3)
    base = unit(rng, 3)
    names = [f"x{j:03d}" for j in rng.permutation(120)]
    vectors = np.concatenate([np.repeat(base[:1], 100, axis=0), np.repeat(base[1:2], 20, axis=0)])
    index = create_index(kind, "m1", WIDTH)
    index.add(Embeddings(tuple(names), vectors, "m1"))
    found = ids(index.search(base[:1], 7))[0]
    assert found == sorted(names[:100])[:7]


def test_add_replaces_and_remove_forgets(kind: str) -> None:
    index, (embeddings, _) = filled(kind), items()
    other = unit(np.random.default_rng(9), 2)
    index.add(Embeddings(("i005", "new"), other, "m1"), [{"colour": "gold"}, {"colour": "gold"}])
    assert len(index) == 61
    assert np.array_equal(index.get(["new", "i005"]).vectors, other[::-1])
    assert ids(index.search(other[:1], 2, {"colour": "gold"})) == [["i005", "new"]]
    assert index.attributes_of(["i005"]) == [{"colour": "gold"}]
    assert index.remove(["i005", "new", "never there"]) == 2
    assert len(index) == 59
    assert "i005" not in index
    assert "i006" in index
    keep = set(embeddings.ids) - {"i005"}
    assert ids(index.search(other, 5)) == [brute(embeddings, query, 5, keep) for query in other]
    with pytest.raises(UnknownId, match="i005"):
        index.get(["i005"])


def test_what_is_saved_is_what_is_opened(kind: str, tmp_path: Path) -> None:
    index, queries = filled(kind), unit(np.random.default_rng(4), 3)
    index.save(tmp_path / "index")
    opened = open_index(tmp_path / "index", "m1")
    assert (type(opened), len(opened), opened.model, opened.width) == (type(index), 60, "m1", WIDTH)
    assert opened.search(queries, 9) == index.search(queries, 9)
    assert opened.facets() == index.facets()
    assert opened.search(queries, 9, {"price": {"min": 3}}) == index.search(queries, 9, {"price": {"min": 3}})


def test_save_replaces_what_was_there_and_keeps_other_files(kind: str, tmp_path: Path) -> None:
    filled(kind).save(tmp_path)
    (tmp_path / "cards.parquet").write_bytes(b"mine")
    opened = open_index(tmp_path)
    opened.remove([f"i{j:03d}" for j in range(50)])
    opened.add(Embeddings(("late",), unit(np.random.default_rng(1), 1), "m1"), [{"weight": 3, "colour": 7}])
    opened.save(tmp_path)
    again = open_index(tmp_path)
    assert len(again) == 11
    assert ids(again.search(again.get(["late"]).vectors, 5, {"weight": {"max": 3}})) == [["late"]]
    assert ids(again.search(again.get(["late"]).vectors, 5, {"colour": [7, "none"]})) == [["late"]]
    filled(kind, 20).save(tmp_path)
    assert len(open_index(tmp_path)) == 20
    assert (tmp_path / "cards.parquet").read_bytes() == b"mine"


def test_another_models_vectors_are_refused(kind: str, tmp_path: Path) -> None:
    index, (embeddings, _) = filled(kind), items()
    foreign = Embeddings(embeddings.ids, embeddings.vectors, "m2")
    index.save(tmp_path)
    for act in (
        lambda: index.add(foreign),
        lambda: index.search(foreign, 3),
        lambda: open_index(tmp_path, "m2"),
        lambda: type(index).open(tmp_path, "m2"),
    ):
        with pytest.raises(ModelMismatch, match=r"m[12].*m[12].*rebuild the index"):
            act()


def test_bad_vectors_and_numbers_are_refused(kind: str) -> None:
    index = filled(kind)
    good = unit(np.random.default_rng(0), 2)
    bad = good.copy()
    bad[1, 3] = np.nan
    for vectors in (bad, good[:, :5], good[0], good.astype(np.int64)):
        with pytest.raises(BadInput, match="vectors"):
            index.search(vectors, 3)
    for k in (0, -1, 2.5, True):
        with pytest.raises(BadInput, match="k:"):
            index.search(good, k)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="width"):
        index.add(Embeddings(("a",), np.ones((1, 3), np.float32), "m1"))
    with pytest.raises(BadInput, match="one per vector"):
        index.add(Embeddings(("a",), good[:1], "m1"), [{}, {}])
    for value in (float("inf"), {"deep": 1}, object(), "\ud800"):
        with pytest.raises(BadInput, match="attributes"):
            index.add(Embeddings(("a",), good[:1], "m1"), [{"x": value}])
    assert len(index) == 60


def test_an_empty_index_answers(kind: str, tmp_path: Path) -> None:
    index = create_index(kind, "m1", WIDTH)
    queries = unit(np.random.default_rng(0), 2)
    assert index.search(queries, 3) == [[], []]
    assert index.search(queries[:0], 3) == []
    assert index.remove(["a"]) == 0
    index.save(tmp_path)
    opened = open_index(tmp_path)
    assert len(opened) == 0
    assert opened.search(queries, 3) == [[], []]
    assert len(opened.get([])) == 0


def test_a_damaged_index_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no manifest"):
        open_index(tmp_path / "nothing")
    filled(kind).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    data = json.loads(manifest.read_text())
    for change in ({"version": 99}, {"kind": "../evil"}, {"format": "other"}, {"width": "8"}, {"attributes": [1]}):
        manifest.write_text(json.dumps({**data, **change}))
        with pytest.raises(BadInput):
            open_index(tmp_path)
    for change in ({"file": "../../x", "table": "../../x"}, {"file": "none.parquet", "table": "none"}):
        manifest.write_text(json.dumps({**data, **change}))
        with pytest.raises(BadInput, match=r"rebuild|Rebuild"):
            open_index(tmp_path)
    manifest.write_text(json.dumps(data)[:40])
    with pytest.raises(BadInput, match="damaged"):
        open_index(tmp_path)


def test_facets_say_what_can_be_filtered(kind: str) -> None:
    facets = filled(kind).facets()
    assert list(facets) == ["colour", "new", "price", "sizes", "tags"]
    assert facets["colour"].kind == "text"
    assert dict(facets["colour"].values) == dict.fromkeys(COLOURS, 15)
    assert (facets["price"].kind, facets["price"].low, facets["price"].high) == ("number", 0.5, 29.5)


# anything a person can type: quotes, backslashes, control characters, any script, what looks like SQL
words = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.sampled_from(
        ["' OR 1=1 --", "\\' OR true", "a''b", '"; DROP TABLE items', "%", "_", "\x00", "0:red", "$1", "?"]
    ),
)


@FEW
@given(st.lists(words, min_size=2, max_size=6, unique=True), words)
def test_any_text_is_a_value_and_never_a_command(kind: str, values: list[str], name: str) -> None:
    index = create_index(kind, "m1", 2)
    vectors = np.tile(np.array([[1, 0]], np.float32), (len(values), 1))
    index.add(Embeddings(tuple(values), vectors, "m1"), [{name: value, "other": "x"} for value in values])
    for value in values:
        assert ids(index.search(vectors[:1], 10, {name: value})) == [[value]]
    assert ids(index.search(vectors[:1], 10, {name: values[:2]})) == [sorted(values[:2])]
    assert index.get(values[:1]).ids == (values[0],)
    assert index.remove(values[:1]) == 1
    assert index.known(values) == set(values[1:])


@FEW
@given(
    st.lists(st.floats(-1e300, 1e300) | st.integers(-(2**40), 2**40), min_size=1, max_size=8),
    st.floats(-1e300, 1e300),
    st.floats(-1e300, 1e300),
)
def test_any_number_is_found_by_itself_and_by_its_range(kind: str, numbers: list[float], a: float, b: float) -> None:
    index = create_index(kind, "m1", 2)
    vectors = np.tile(np.array([[0, 1]], np.float32), (len(numbers), 1))
    names = [f"{i}" for i in range(len(numbers))]
    index.add(Embeddings(tuple(names), vectors, "m1"), [{"n": x} for x in numbers])
    low, high = min(a, b), max(a, b)
    inside = [name for name, x in zip(names, numbers, strict=True) if low <= x <= high]
    assert ids(index.search(vectors[:1], 10, {"n": {"min": low, "max": high}})) == [inside]
    same = [name for name, x in zip(names, numbers, strict=True) if x == numbers[0]]
    assert ids(index.search(vectors[:1], 10, {"n": numbers[0]})) == [same]
