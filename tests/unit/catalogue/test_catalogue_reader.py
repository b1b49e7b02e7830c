"""The reader: every way a cell may be written, every way it may be wrong, and the same records from every format."""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polymodal.catalogue.codec import write_npy
from polymodal.catalogue.quarantine import CUT
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource
from polymodal.types import BadInput, Record

PICTURE = b"\xff\xd8\xff picture"


def _jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "items.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _config(folder: Path, table: str = "items.jsonl", **fields: Any) -> CatalogueConfig:
    sources = {
        name: ModalitySource(kind=kind, columns=tuple(columns)) for name, (kind, *columns) in fields.pop("m").items()
    }
    return CatalogueConfig(path=str(folder), table=table, id=fields.pop("id", "id"), modalities=sources, **fields)


def _read(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> tuple[list[Record], Catalogue]:
    _jsonl(folder, rows)
    catalogue = Catalogue(_config(folder, **fields))
    return [r for b in range(len(catalogue.blocks)) for r in catalogue.block(b)], catalogue


def _reasons(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [(entry.id, entry.reason) for entry in catalogue.quarantine]


# -- rows and index -------------------------------------------------------------------------------------------------


def test_blocks_index_labels_groups_and_splits(tmp_path: Path) -> None:
    rows = [
        {
            "id": n,
            "title": f"t{n}" if n % 2 else "",
            "g": None if n % 3 else n // 3,
            "split": "Validation",
            "label_c": 2.0,
        }
        for n in range(600)
    ]
    records, catalogue = _read(
        tmp_path, rows, m={"text": ("text", "title")}, group="g", split="split", labels=("label_c",)
    )
    assert catalogue.blocks == (256, 256, 88)
    assert len(catalogue) == len(records) == 600
    assert catalogue.modalities == {"text": "text"}
    assert records[0] == Record("0", {}, {"c": "2"}, "0")
    assert records[1] == Record("1", {"text": "t1"}, {"c": "2"}, None)
    index = catalogue.index
    assert index.schema.names == ["id", "split", "group", "label_c", "has_text"]
    assert index["id"].to_pylist() == [r.id for r in records]
    assert set(index["split"].to_pylist()) == {"val"}
    assert index["has_text"].to_pylist() == ["text" in r.values for r in records]
    assert catalogue.block(2)[0].id == "512"


def test_rows_without_an_id_column_are_numbered(tmp_path: Path) -> None:
    records, _ = _read(tmp_path, [{"title": "a"}, {"title": "b"}], m={"text": ("text", "title")}, id="")
    assert [r.id for r in records] == ["0", "1"]


def test_duplicate_ids_and_rows_without_one_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [{"id": i, "title": str(n)} for n, i in enumerate(["a", "b", "a", None, "c", " ", "b"])]
    records, catalogue = _read(tmp_path, rows, m={"text": ("text", "title")})
    assert [(r.id, r.values["text"]) for r in records] == [("a", "0"), ("b", "1"), ("c", "4")]
    assert catalogue.blocks == (3,)
    assert catalogue.index["id"].to_pylist() == ["a", "b", "c"]
    assert _reasons(catalogue) == [("a", "duplicate id"), ("", "no id"), ("", "no id"), ("b", "duplicate id")]
    assert "row 2" in catalogue.dropped[0].detail
    assert "row 0" in catalogue.dropped[0].detail


def test_a_block_of_duplicates_only_disappears(tmp_path: Path) -> None:
    rows = [{"id": n % 256, "title": str(n)} for n in range(512)] + [{"id": "last", "title": "z"}]
    records, catalogue = _read(tmp_path, rows, m={"text": ("text", "title")})
    assert catalogue.blocks == (256, 1)
    assert records[-1] == Record("last", {"text": "z"})
    assert len(catalogue.dropped) == 256


def test_a_row_with_nothing_is_kept(tmp_path: Path) -> None:
    records, _ = _read(
        tmp_path, [{"id": "a"}, {"id": "b", "title": None}, {"id": "c", "title": "x"}], m={"text": ("text", "title")}
    )
    assert [dict(r.values) for r in records] == [{}, {}, {"text": "x"}]


def test_a_modality_that_no_row_has_is_legal(tmp_path: Path) -> None:
    records, catalogue = _read(
        tmp_path,
        [{"id": n, "title": "x", "image": None} for n in range(3)],
        m={"text": ("text", "title"), "image": ("image", "image")},
    )
    assert all(set(r.values) == {"text"} for r in records)
    assert catalogue.index["has_image"].to_pylist() == [False] * 3


def test_empty_catalogues_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n\n")
    (tmp_path / "none.csv").write_text("")
    (tmp_path / "head.csv").write_text("id,title\n")
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "title": pa.array([], pa.string())}), tmp_path / "none.parquet"
    )
    for name in ("none.jsonl", "none.csv", "head.csv", "none.parquet"):
        with pytest.raises(BadInput, match="catalogue is empty"):
            Catalogue(_config(tmp_path, name, m={"text": ("text", "title")}))
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent", tmp_path / "absent.toml"):
        with pytest.raises(BadInput):
            Catalogue.open(path)


def test_unknown_columns_are_named_with_the_nearest(tmp_path: Path) -> None:
    _jsonl(tmp_path, [{"id": "a", "title": "x"}])
    with pytest.raises(BadInput, match=r"modalities.text.columns.*titel.*Did you mean 'title'"):
        Catalogue(_config(tmp_path, m={"text": ("text", "titel")}))
    with pytest.raises(BadInput, match=r"^id: .*'ids'.*'id'"):
        Catalogue(_config(tmp_path, m={"text": ("text", "title")}, id="ids"))
    with pytest.raises(BadInput, match="media_root"):
        Catalogue(_config(tmp_path, m={"text": ("text", "title")}, media_root="no"))
    _jsonl(tmp_path, [{"id": None, "title": "x"}])
    with pytest.raises(BadInput, match="id: expected at least one row with an id"):
        Catalogue(_config(tmp_path, m={"text": ("text", "title")}))


def test_broken_tables_are_refused_with_their_place(tmp_path: Path) -> None:
    cases = {
        "a.jsonl": '{"id": 1, "title": "x"}\n{"id": 2,\n',
        "b.jsonl": "[1, 2]\n",
        "c.csv": "id,title\n1,2,3\n",
        "d.parquet": "not parquet",
        "e.csv": "id,id,title\n1,2,3\n",
        "f.txt": "id\n1\n",
    }
    for name, text in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput) as caught:
            Catalogue(_config(tmp_path, name, m={"text": ("text", "title")}))
        assert name in str(caught.value)
    with pytest.raises(BadInput, match=r"a\.jsonl:2"):
        Catalogue(_config(tmp_path, "a.jsonl", m={"text": ("text", "title")}))


def test_tables_of_different_columns_and_formats_are_one_catalogue(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    _jsonl(folder, [{"id": "j", "title": "x"}], "2.jsonl")
    (folder / "1.csv").write_text("id,extra\n007,5\n")
    pq.write_table(pa.table({"id": ["p"], "title": ["y"], "extra": [1.5]}), folder / "3.parquet")
    (folder / "README.md").write_text("no table")
    catalogue = Catalogue(_config(tmp_path, "tables", m={"text": ("text", "title"), "table": ("table", "extra")}))
    assert [(r.id, dict(r.values)) for r in catalogue] == [
        ("007", {"table": (("extra", 5.0),)}),
        ("j", {"text": "x"}),
        ("p", {"text": "y", "table": (("extra", 1.5),)}),
    ]


def test_large_row_groups_and_small_ones_read_alike(tmp_path: Path) -> None:
    table = pa.table({"id": [str(n) for n in range(3000)], "title": [f"t{n}" for n in range(3000)]})
    found = []
    for size in (3000, 100):
        pq.write_table(table, tmp_path / "items.parquet", row_group_size=size)
        catalogue = Catalogue(_config(tmp_path, "items.parquet", m={"text": ("text", "title")}))
        assert max(catalogue.blocks) <= 256
        last = len(catalogue.blocks) - 1
        assert catalogue.block(last)[-1].id == "2999"
        found.append(list(catalogue))
    assert found[0] == found[1]


def test_open_takes_folder_toml_and_file_and_survives_pickling(tmp_path: Path) -> None:
    _jsonl(tmp_path, [{"id": "a", "title": "x"}])
    guessed = Catalogue.open(tmp_path / "items.jsonl")
    assert list(Catalogue.open(tmp_path)) == list(guessed)
    guessed.config.write(tmp_path / "catalogue.toml")
    assert list(Catalogue.open(tmp_path)) == list(Catalogue.open(tmp_path / "catalogue.toml")) == list(guessed)
    # a spawned loader worker gets the catalogue this way
    assert list(pickle.loads(pickle.dumps(guessed))) == list(guessed)


def test_digest_follows_content_and_mapping_not_the_place(tmp_path: Path) -> None:
    digests = []
    for name, title in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        _jsonl(tmp_path / name, [{"id": "a", "title": title}])
        digests.append(Catalogue(_config(tmp_path / name, m={"text": ("text", "title")})).digest())
    assert digests[0] == digests[1] != digests[2]
    assert Catalogue(_config(tmp_path / "a", m={"words": ("text", "title")})).digest() != digests[0]


# -- media ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "catalogue"
    (root / "pics").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "[1].jpg"):
        (root / "pics" / name).write_bytes(PICTURE)
    (root / "pics" / "zero.jpg").write_bytes(b"")
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    (tmp_path / "catalogue-other").mkdir()
    (tmp_path / "catalogue-other" / "x.jpg").write_bytes(PICTURE)
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "outdir").symlink_to(tmp_path)
    (root / "pics" / "inner").mkdir()
    (root / "deep").symlink_to(root / "pics" / "inner")
    (root / "in.jpg").symlink_to(root / "pics" / "a.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


OUT = "outside the media root"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.jpg", OUT),
        ("pics/../../secret.jpg", OUT),
        ("../catalogue-other/x.jpg", OUT),
        ("outdir/secret.jpg", OUT),
        ("outdir/../secret.jpg", OUT),
        # inside once the link is followed, but outside as written
        ("deep/../../pics/a.jpg", OUT),
        ("out.jpg", OUT),
        ("/etc/passwd", OUT),
        ("http://example.org/a.jpg", OUT),
        ("file:///etc/passwd", OUT),
        ("C:\\a.jpg", OUT),
        ("\\\\host\\a.jpg", OUT),
        ("..", OUT),
        ("pics/nul\0.jpg", "missing"),
        ("pics/none.jpg", "missing"),
        ("pics/" + "x" * 5000, "missing"),
        ("pics/zero.jpg", "empty"),
        ("pics", "wrong type"),
        (".", OUT),
        ("pipe.jpg", "wrong type"),
    ],
)
def test_bad_paths_are_quarantined_and_the_key_is_absent(media: Path, path: str, reason: str) -> None:
    records, catalogue = _read(
        media, [{"id": "x", "image": path, "title": "t"}], m={"image": ("image", "image"), "text": ("text", "title")}
    )
    assert dict(records[0].values) == {"text": "t"}
    (entry,) = catalogue.quarantine
    assert (entry.id, entry.modality, entry.reason) == ("x", "image", reason)
    assert entry.source == path[:300].strip()
    catalogue.block(0)
    assert len(catalogue.quarantine) == 1, "reading again must not count again"


def test_absolute_path_into_the_root_is_refused_too(media: Path) -> None:
    records, catalogue = _read(
        media, [{"id": "x", "image": str(media / "pics/a.jpg")}], m={"image": ("image", "image")}
    )
    assert records[0].values == {}
    assert _reasons(catalogue) == [("x", OUT)]


def test_an_image_cell_may_hold_several_pictures(media: Path) -> None:
    a, b = media / "pics/a.jpg", media / "pics/b.jpg"
    rows = [
        {"id": "one", "image": "pics/a.jpg"},
        {"id": "list", "image": ["pics/a.jpg", "pics/b.jpg"]},
        {"id": "json", "image": '["pics/a.jpg", "pics/b.jpg"]'},
        {"id": "columns", "image": "pics/a.jpg", "back": "pics/b.jpg"},
        {"id": "one bad", "image": ["pics/a.jpg", "pics/none.jpg", None, ""]},
        {"id": "bracket", "image": "pics/[1].jpg"},
        {"id": "link inside", "image": "in.jpg"},
        {"id": "dots inside", "image": "pics/../pics/./a.jpg"},
        {"id": "number", "image": 7},
        {"id": "empty list", "image": []},
    ]
    records, catalogue = _read(media, rows, m={"image": ("image", "image", "back")})
    values = {r.id: r.values.get("image") for r in records}
    assert values == {
        "one": a,
        "list": [a, b],
        "json": [a, b],
        "columns": [a, b],
        "one bad": a,
        "bracket": media / "pics/[1].jpg",
        "link inside": a,
        "dots inside": a,
        "number": None,
        "empty list": None,
    }
    assert _reasons(catalogue) == [("one bad", "missing"), ("number", "wrong type")]


def test_one_file_modalities_take_the_first_usable(media: Path) -> None:
    rows = [
        {"id": 1, "voice": None, "effect": "pics/b.jpg"},
        {"id": 2, "voice": "pics/none", "effect": ["pics/a.jpg", "pics/b.jpg"]},
    ]
    records, _ = _read(media, rows, m={"audio": ("audio", "voice", "effect")})
    assert [r.values["audio"].name for r in records] == ["b.jpg", "a.jpg"]


def test_separators_and_limits_of_files(media: Path) -> None:
    _jsonl(media, [{"id": 1, "image": "pics/a.jpg | pics/b.jpg|pics/a.jpg"}])
    source = ModalitySource(kind="image", columns=("image",), separator="|")
    catalogue = Catalogue(
        CatalogueConfig(path=str(media), table="items.jsonl", id="id", modalities={"image": source}, max_files=2)
    )
    assert [p.name for p in catalogue.block(0)[0].values["image"]] == ["a.jpg", "b.jpg"]
    assert _reasons(catalogue) == [("1", CUT)]


def test_inline_media_of_parquet(media: Path) -> None:
    inline = pa.array([{"bytes": PICTURE, "path": None}, {"bytes": None, "path": "pics/a.jpg"}, None])
    table = pa.table({"id": ["a", "b", "c"], "image": inline, "sound": pa.array([b"OggS", b"", None], pa.binary())})
    pq.write_table(table, media / "items.parquet")
    catalogue = Catalogue(_config(media, "items.parquet", m={"image": ("image", "image"), "audio": ("audio", "sound")}))
    assert [dict(r.values) for r in catalogue.block(0)] == [
        {"image": PICTURE, "audio": b"OggS"},
        {"image": media / "pics/a.jpg"},
        {},
    ]
    assert catalogue.index["has_audio"].to_pylist() == [True, False, False]
    assert _reasons(catalogue) == []


# -- text, tables, numbers ------------------------------------------------------------------------------------------


def test_text_columns_are_joined_and_a_10_mb_title_is_cut(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "title": " 红色帆布鞋 ", "body": None},
        {"id": 2, "title": "a", "body": ["b", "", "c"]},
        {"id": 3, "title": "x" * 10_000_000, "body": "never"},
        {"id": 4, "title": {"en": "frog", "ja": "カエル"}, "body": 501},
        {"id": 5, "title": "lone \ud800 surrogate", "body": "[not json"},
    ]
    records, catalogue = _read(tmp_path, rows, m={"text": ("text", "title", "body")}, max_text=1000)
    texts = [r.values["text"] for r in records]
    assert texts[:2] == ["红色帆布鞋", "a\nb\nc"]
    assert texts[2] == "x" * 1000
    assert texts[3] == "frog\nカエル\n501"
    assert texts[4] == "lone ? surrogate\n[not json"
    (entry,) = catalogue.quarantine
    assert (entry.id, entry.reason) == ("3", CUT)
    assert "10000006 characters, 1000 kept" in entry.detail


def test_a_10_mb_title_in_csv(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title\n1," + "x" * 10_000_000 + "\n2,y\n")
    catalogue = Catalogue(_config(tmp_path, "items.csv", m={"text": ("text", "title")}, max_text=5))
    assert [r.values["text"] for r in catalogue] == ["xxxxx", "y"]


def test_attributes_in_every_notation(tmp_path: Path) -> None:
    wanted = (("colour", "red"), ("price", 5.5), ("size", "S"), ("size", "M"), ("new", "yes"))
    flat = {"colour": "red", "price": 5.5, "size": ["S", "M"], "new": True}
    rows = [
        {"id": "object", "a": flat},
        {"id": "text", "a": json.dumps(flat)},
        {"id": "pairs", "a": [[name, value] for name, value in flat.items()]},
        {"id": "pairs text", "a": json.dumps([[name, value] for name, value in flat.items()])},
        {"id": "named", "a": [{"name": name, "value": value} for name, value in flat.items()]},
        {"id": "columns", "colour": "red", "price": 5.5, "size": ["S", "M"], "new": True},
        {"id": "empties", "a": {**flat, "x": None, "y": "", "z": " ", "e": [], "f": {}}},
    ]
    records, catalogue = _read(tmp_path, rows, m={"table": ("table", "a", "colour", "price", "size", "new")})
    for record in records:
        assert record.values["table"] == wanted, record.id
    assert catalogue.quarantine == []


def test_nested_malformed_and_infinite_attributes(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(
        '{"id": 1, "a": {"size": {"w": 3, "h": NaN}, "x": Infinity, "y": -Infinity, "ok": 1}}\n'
        '{"id": 2, "a": "{\\"cut"}\n'
        '{"id": 3, "a": {"n": NaN}}\n'
        '{"id": 4, "a": "' + "[" * 100_000 + '"}\n'
        '{"id": 5, "a": {"big": 1' + "0" * 400 + "}}\n"
    )
    catalogue = Catalogue(_config(tmp_path, m={"table": ("table", "a")}))
    block = catalogue.read(0)
    assert [r.values.get("table") for r in block.records] == [(("size.w", 3.0), ("ok", 1.0)), None, None, None, None]
    assert [(e.id, e.reason) for e in block.quarantined] == [("2", "malformed"), ("4", "malformed")]
    assert block.not_finite == {
        ("table", "size.h"): 1,
        ("table", "x"): 1,
        ("table", "y"): 1,
        ("table", "n"): 1,
        ("table", "big"): 1,
    }


def test_csv_columns_are_numbers_only_if_all_cells_are(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "id,price,code,mixed,flag,nans\n007,1.5,0012,1,true,nan\n008,-2e3,12,x,False,3\n009,,7,2,,inf\n"
    )
    columns = ("price", "code", "mixed", "flag", "nans")
    catalogue = Catalogue(_config(tmp_path, "items.csv", m={"table": ("table", *columns)}, labels=("code",)))
    block = catalogue.read(0)
    assert [r.id for r in block.records] == ["007", "008", "009"]
    assert [r.labels["code"] for r in block.records] == ["0012", "12", "7"]
    assert [dict(r.values["table"]) for r in block.records] == [
        {"price": 1.5, "code": "0012", "mixed": "1", "flag": "yes"},
        {"price": -2000.0, "code": "12", "mixed": "x", "flag": "no", "nans": 3.0},
        {"code": "7", "mixed": "2"},
    ]
    assert block.not_finite == {("table", "nans"): 2}


def test_too_many_attributes_are_cut(tmp_path: Path) -> None:
    rows = [{"id": 1, "a": {str(n): n for n in range(10)}}]
    records, catalogue = _read(tmp_path, rows, m={"table": ("table", "a")}, max_attributes=3)
    assert len(records[0].values["table"]) == 3
    assert _reasons(catalogue) == [("1", CUT)]


def test_numbers_as_lists_columns_and_files(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 3), np.float32))
    rows = [
        {"id": "list", "v": [1, 2.5]},
        {"id": "rows", "v": [[1, 2], [3, 4]]},
        {"id": "text", "v": "[1, 2.5]"},
        {"id": "file", "v": "v.npy"},
        {"id": "ragged", "v": [[1], [2, 3]]},
        {"id": "words", "v": ["a"]},
        {"id": "none", "v": None},
    ]
    records, catalogue = _read(tmp_path, rows, m={"features": ("features", "v")})
    values = {r.id: r.values.get("features") for r in records}
    np.testing.assert_array_equal(values["list"], np.array([[1, 2.5]], np.float32))
    np.testing.assert_array_equal(values["rows"], np.array([[1, 2], [3, 4]], np.float32))
    np.testing.assert_array_equal(values["text"], values["list"])
    assert values["list"].dtype == np.float32
    assert values["file"] == tmp_path / "v.npy"
    assert values["ragged"] is values["words"] is values["none"] is None
    assert _reasons(catalogue) == [("ragged", "malformed"), ("words", "malformed")]
    plain = [{"id": 1, "x": 1.0, "y": 2.0}, {"id": 2, "x": 1.0, "y": None}]
    records, catalogue = _read(tmp_path, plain, m={"features": ("features", "x", "y")})
    np.testing.assert_array_equal(records[0].values["features"], np.array([[1, 2]], np.float32))
    assert records[1].values == {}


def test_npy_content_in_cells(tmp_path: Path) -> None:
    good = write_npy(np.arange(6, dtype=np.float16).reshape(2, 3))
    objects = good.replace(b"'<f2'", b"'|O' ")
    cells = {
        "good": good,
        "row": write_npy(np.ones(3, np.float32)),
        "cut": good[:-1],
        "objects": objects,
        "words": write_npy(np.array(["a"])),
        "text": b"no array",
        "huge": good.replace(b"(2, 3)", b"(2, 9)"),
        "liar": good[:8] + b"\xff\xff" + good[10:],
        "deep": good[:10] + b"(" * 118,
        "none": None,
    }
    assert len(objects) == len(good)
    pq.write_table(
        pa.table({"id": list(cells), "v": pa.array(list(cells.values()), pa.binary())}), tmp_path / "a.parquet"
    )
    source = ModalitySource(kind="features", columns=("v",))
    catalogue = Catalogue(CatalogueConfig(path=str(tmp_path), id="id", modalities={"v": source}))
    values = {record.id: record.values.get("v") for record in catalogue.block(0)}
    np.testing.assert_array_equal(values.pop("good"), np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(values.pop("row"), np.ones((1, 3), np.float32))
    assert set(values.values()) == {None}
    assert _reasons(catalogue) == [(name, "malformed") for name in values if name != "none"]


# -- the same records from every format -----------------------------------------------------------------------------

_word = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFFF, exclude_categories=("Cs", "Cc")), max_size=8)
_number = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9)
_row = st.fixed_dictionaries(
    {
        "title": st.none() | _word | st.just('two\n"lines"'),
        "price": st.none() | _number,
        "attributes": st.none()
        | st.dictionaries(_word, _word | _number | st.booleans() | st.lists(_word, max_size=2), max_size=3),
        "group": st.none() | _word,
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_row, min_size=1, max_size=6))
def test_csv_jsonl_and_parquet_give_equal_records(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    full = [{"id": f"{n:03d}", **row} for n, row in enumerate(rows)]
    texts = [
        {**row, "attributes": None if row["attributes"] is None else json.dumps(row["attributes"])} for row in full
    ]
    _jsonl(tmp_path, full)
    with (tmp_path / "items.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(full[0]))
        writer.writeheader()
        writer.writerows({k: repr(v) if isinstance(v, float) else v for k, v in row.items()} for row in texts)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("title", pa.string()),
            ("price", pa.float64()),
            ("attributes", pa.string()),
            ("group", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(texts, schema), tmp_path / "items.parquet")
    m = {"text": ("text", "title"), "table": ("table", "attributes", "price")}
    found = [
        list(Catalogue(_config(tmp_path, f"items.{end}", m=m, group="group"))) for end in ("jsonl", "csv", "parquet")
    ]
    assert found[0] == found[2]
    assert found[0] == found[1]
    assert all(math.isfinite(v) for r in found[0] for _, v in r.values.get("table", ()) if isinstance(v, float))
