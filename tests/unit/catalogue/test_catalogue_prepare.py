"""Shards: the safe codec, equality with the raw catalogue, restart after a kill, refusal of what does not fit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.catalogue.codec import pack, unpack
from polymodal.catalogue.prepare import Prepared, prepare
from polymodal.catalogue.quarantine import decode_record
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.rows import Rows
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource
from polymodal.catalogue.shards import Shards
from polymodal.config import Config
from polymodal.types import BadInput, MediaError, Record


class BytesConfig(Config):
    """Settings of the fake decoder."""

    scale: int = 1


class Bytes:
    """Decodes a file of bytes as a small array; a file that starts with `bad` is unreadable."""

    def __init__(self, scale: int = 1) -> None:
        self.config = BytesConfig(scale=scale)

    def decode(self, source: Any) -> Any:
        content = source.read_bytes()
        if content.startswith(b"bad"):
            raise MediaError("truncated", f"ends early: {source}")
        return np.frombuffer(content, np.uint8) * np.uint8(self.config.scale)


class Pictures(Bytes):
    """The same for cells of several files."""

    def decode_each(self, sources: Sequence[Any]) -> tuple[Any | None, list[tuple[int, MediaError]]]:
        good, bad = [], []
        for place, source in enumerate(sources):
            try:
                good.append(self.decode(source))
            except MediaError as error:
                bad.append((place, error))
        return (np.concatenate(good) if good else None), bad


class Plain:
    """Passes values through."""

    def decode(self, source: Any) -> Any:
        return source


def _decoders(**changes: Any) -> dict[str, Any]:
    return {"image": Pictures(), "text": Plain(), "table": Plain(), "vector": Plain(), **changes}


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for n in range(50):
        (folder / f"{n}.bin").write_bytes((b"bad" if n == 7 else b"") + bytes([n, 1, 2]))
    rows = []
    for n in range(700):
        rows.append(
            {
                "id": f"i{n}" if n != 600 else "i5",
                "image": None
                if n % 3 == 0
                else [f"{n % 50}.bin", f"{(n + 1) % 50}.bin"]
                if n % 3 == 1
                else f"{n % 50}.bin",
                "title": "" if n % 5 == 0 else f"红 thing {n}",
                "a": {"price": n / 3, "colour": "red"} if n % 2 else None,
                "v": [n / 7, 1] if n % 11 == 0 else None,
                "g": f"g{n // 2}" if n % 2 else None,
                "split": "train" if n < 500 else "test",
                "label_kind": f"k{n % 4}" if n % 9 else None,
            }
        )
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sources = {
        "image": ("image", "image"),
        "text": ("text", "title"),
        "table": ("table", "a"),
        "vector": ("features", "v"),
    }
    return Catalogue(
        CatalogueConfig(
            path=str(folder),
            table="items.jsonl",
            id="id",
            group="g",
            split="split",
            labels=("label_kind",),
            modalities={name: ModalitySource(kind=kind, columns=(column,)) for name, (kind, column) in sources.items()},
        )
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _same(a: Record, b: Record) -> bool:
    if (a.id, a.labels, a.group, set(a.values)) != (b.id, b.labels, b.group, set(b.values)):
        return False
    return all(
        np.array_equal(x, b.values[name]) and x.dtype == b.values[name].dtype
        if isinstance(x, np.ndarray)
        else x == b.values[name]
        for name, x in a.values.items()
    )


# -- codec ----------------------------------------------------------------------------------------------------------

_scalars = st.text(st.characters(exclude_categories=("Cs",))) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",))), _scalars)).map(tuple))
def test_pairs_round_trip(pairs: tuple[tuple[str, str | float], ...]) -> None:
    assert unpack(pack(pairs)) == pairs


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_text_round_trip(text: str) -> None:
    assert unpack(pack(text)) == text


@given(
    st.sampled_from(["uint8", "float16", "float32", "float64", "int64", "bool"]),
    st.lists(st.integers(0, 4), min_size=0, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_arrays_round_trip(dtype: str, shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).normal(0, 50, shape).astype(dtype)
    for given_array in (array, np.asfortranarray(array), np.broadcast_to(array, (2, *array.shape))):
        back = unpack(pack(given_array))
        np.testing.assert_array_equal(back, given_array)
        assert back.dtype == array.dtype
        assert back.shape == given_array.shape
        assert back.flags.writeable


def test_codec_refuses_objects_and_foreign_bytes() -> None:
    for value in (np.array([{}]), {"a": 1}, 3, (("a", float("nan")),), (("a", b"x"),)):
        with pytest.raises(BadInput):
            pack(value)
    head = b"\x93NUMPY\x01\x00"
    hostile = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    huge = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }"
    cells = [
        b"",
        b"X",
        b"N",
        b"N" + b"x" * 99,
        b"J{",
        b"J3",
        b"T\xff",
        b"N" + head + b"\xff\xff",
        b"Ncos\nsystem\n",
        pickle.dumps(1),
    ]
    cells += [b"N" + head + len(h).to_bytes(2, "little") + h + bytes(8) for h in (hostile, huge)]
    for cell in cells:
        with pytest.raises(BadInput, match="shard"):
            unpack(cell)


# -- prepare and shards ---------------------------------------------------------------------------------------------


def test_shards_equal_the_decoded_raw_catalogue(catalogue: Catalogue, tmp_path: Path) -> None:
    done = prepare(catalogue, _decoders(), tmp_path / "out", rows_per_shard=300, block=100, workers=2)
    shards = Shards.open(tmp_path / "out", checksums=True)
    rows: Rows = shards
    raw: Rows = catalogue
    assert len(rows) == len(raw) == 699 == done.rows
    assert dict(rows.modalities) == dict(raw.modalities)
    # blocks of 256 make shards of 512 and 187 rows, written in row groups of 100
    assert shards.blocks == (100, 100, 100, 100, 100, 12, 100, 87)
    found = [r for b in range(len(rows.blocks)) for r in rows.block(b)]
    wanted = [decode_record(r, _decoders())[0] for b in range(len(raw.blocks)) for r in raw.block(b)]
    assert all(_same(a, b) for a, b in zip(found, wanted, strict=True))
    # training reads decoded records through the same decoders, which leave them as they are
    assert rows.index.schema == raw.index.schema
    for name in ("id", "split", "group", "label_kind", "has_text", "has_table", "has_vector"):
        assert rows.index[name].to_pylist() == raw.index[name].to_pylist(), name
    assert rows.index["has_image"].to_pylist() == ["image" in r.values for r in wanted]
    assert _same(pickle.loads(pickle.dumps(shards)).block(3)[0], shards.block(3)[0])


def test_one_bad_picture_of_several_keeps_the_others(catalogue: Catalogue, tmp_path: Path) -> None:
    done = prepare(catalogue, _decoders(), tmp_path / "out")
    records = {r.id: r for r in Shards.open(tmp_path / "out").block(0)}
    np.testing.assert_array_equal(records["i7"].values["image"], np.array([8, 1, 2], np.uint8))
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert lines[0]["reason"] == "duplicate id"
    assert {
        "id": "i7",
        "modality": "image",
        "source": "7.bin",
        "reason": "truncated",
        "detail": "ends early: 7.bin",
    } in lines
    expected = [e.to_json() for r in catalogue for e in decode_record(r, _decoders(), catalogue.media_root)[1]]
    assert len(expected) > 5
    assert lines[1:] == expected
    assert done.quarantined == len(lines)
    assert done.reasons == {"duplicate id": 1, "truncated": len(lines) - 1}
    # a cell of one bad file is absent
    assert "image" not in next(decode_record(r, _decoders())[0] for r in catalogue.block(0) if r.id == "i107").values


class Killed(Exception):
    """What a killed run is, for a test."""


def _until(limit: int) -> Any:
    def progress(rows: int, total: int) -> None:
        assert total == 699
        if rows >= limit:
            raise Killed

    return progress


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("limit", [1, 300, 600, 699])
def test_a_killed_run_continues_to_the_same_bytes(
    catalogue: Catalogue, tmp_path: Path, limit: int, workers: int
) -> None:
    whole = prepare(catalogue, _decoders(), tmp_path / "whole", rows_per_shard=200)
    with pytest.raises(Killed) as kept:
        prepare(catalogue, _decoders(), tmp_path / "out", rows_per_shard=200, workers=workers, progress=_until(limit))
    with pytest.raises(BadInput, match="continues it"):
        Shards.open(tmp_path / "out")
    (tmp_path / "out" / "shard-000002.partial").write_bytes(b"half a shard")
    seen: list[int] = []
    again = prepare(catalogue, _decoders(), tmp_path / "out", rows_per_shard=200, progress=lambda n, _: seen.append(n))
    assert kept is not None
    assert again.skipped == {1: 0, 300: 1, 600: 2, 699: 2}[limit]
    assert seen[-1] == 699
    assert _files(tmp_path / "out") == _files(tmp_path / "whole")
    assert whole.shards == again.shards == 3
    assert set(_files(tmp_path / "whole")) == {
        "manifest.json",
        "plan.json",
        "quarantine.jsonl",
        "shard-000000.parquet",
        "shard-000001.parquet",
        "shard-000002.parquet",
    }


def test_a_run_killed_at_the_very_end_is_finished_by_the_next(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: Any
) -> None:
    from polymodal.catalogue import prepare as module

    whole = prepare(catalogue, _decoders(), tmp_path / "whole")
    write = module._write

    def failing(path: Path, content: bytes) -> None:
        if path.name == "manifest.json":
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", failing)
        with pytest.raises(Killed):
            prepare(catalogue, _decoders(), tmp_path / "out")
    again = prepare(catalogue, _decoders(), tmp_path / "out")
    assert _files(tmp_path / "out") == _files(tmp_path / "whole")
    assert (again.skipped, again.quarantined) == (1, whole.quarantined)


def test_preparing_again_changes_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    first = prepare(catalogue, _decoders(), tmp_path / "out")
    before = _files(tmp_path / "out")
    second = prepare(catalogue, _decoders(), tmp_path / "out")
    assert _files(tmp_path / "out") == before
    assert second == Prepared(**{**vars(first), "skipped": first.shards})


def test_changed_catalogue_or_settings_are_refused_unless_forced(catalogue: Catalogue, tmp_path: Path) -> None:
    prepare(catalogue, _decoders(), tmp_path / "out")
    with pytest.raises(BadInput, match=r"other decoder settings.*--force"):
        prepare(catalogue, _decoders(image=Pictures(scale=2)), tmp_path / "out")
    with pytest.raises(BadInput, match="rows_per_shard"):
        prepare(catalogue, _decoders(), tmp_path / "out", rows_per_shard=100)
    table = Path(catalogue.config.path) / "items.jsonl"
    table.write_text("".join(table.read_text().splitlines(True)[:300]))
    fewer = Catalogue(catalogue.config)
    with pytest.raises(BadInput, match="another state of the catalogue"):
        prepare(fewer, _decoders(), tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    prepare(fewer, _decoders(), tmp_path / "out", force=True)
    assert len(Shards.open(tmp_path / "out", checksums=True)) == 300
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_what_prepare_refuses_at_once(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(BadInput, match="new or empty folder"):
            prepare(catalogue, _decoders(), tmp_path / "mine", force=force)
    with pytest.raises(BadInput, match="decoder for one of"):
        prepare(catalogue, {"picture": Pictures()}, tmp_path / "out")
    with pytest.raises(BadInput, match="workers"):
        prepare(catalogue, _decoders(), tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_modalities_without_a_decoder_are_left_out_and_named(catalogue: Catalogue, tmp_path: Path) -> None:
    done = prepare(catalogue, {"text": Plain(), "video": Plain()}, tmp_path / "out")
    assert done.left_out == ("image", "table", "vector")
    shards = Shards.open(tmp_path / "out")
    assert dict(shards.modalities) == {"text": "text"}
    assert shards.settings["text"]["class"].endswith("Plain")


def test_damaged_shards_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(catalogue, _decoders(), out)
    shard, manifest = out / "shard-000000.parquet", out / "manifest.json"
    content, said = shard.read_bytes(), manifest.read_text()
    flipped = bytearray(content)
    flipped[100] ^= 1
    shard.write_bytes(bytes(flipped))
    with pytest.raises(BadInput, match="another content"):
        Shards.open(out, checksums=True)
    shard.write_bytes(content[:-9])
    with pytest.raises(BadInput, match="another content"):
        Shards.open(out)
    shard.unlink()
    with pytest.raises(BadInput, match="no such file"):
        Shards.open(out)
    shard.write_bytes(content)
    for old, new in (
        ('"version": 1', '"version": 2'),
        ("shard-000000", "../shard-000000"),
        ('"rows": 699', '"rows": 698'),
        ("{", "["),
    ):
        assert old in said
        manifest.write_text(said.replace(old, new))
        with pytest.raises(BadInput):
            Shards.open(out)
    with pytest.raises(BadInput, match=r"no manifest\.json"):
        Shards.open(tmp_path)


def test_shards_are_plain_parquet_with_nullable_columns(catalogue: Catalogue, tmp_path: Path) -> None:
    prepare(catalogue, _decoders(), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "shard-000000.parquet")
    assert table["value_image"].null_count == table["has_image"].to_pylist().count(False) > 0
    assert pq.ParquetFile(tmp_path / "out" / "shard-000000.parquet").metadata.row_group(0).num_rows == 256
