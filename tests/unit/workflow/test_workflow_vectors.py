"""The file of vectors: written whole or not at all, refused when it is something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polymodal.types import BadInput, Embeddings
from polymodal.workflow.vectors import _writer, check_kinds, read_facts, read_vectors

FACTS = {"model": "m1", "model_path": "/run/model", "data": "/data"}


def write(path: Path, *blocks: Embeddings) -> None:
    with _writer(path, 3, FACTS) as put:
        for block in blocks:
            put(block)


def some(*ids: str) -> Embeddings:
    vectors = np.random.default_rng(len(ids)).standard_normal((len(ids), 3)).astype(np.float32)
    return Embeddings(ids, vectors, "m1")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    first, second = some("a", "b"), some("ç")
    write(tmp_path / "new" / "v.parquet", first, second)
    found = read_vectors(tmp_path / "new" / "v.parquet")
    assert found.ids == ("a", "b", "ç")
    assert found.model == "m1"
    assert np.array_equal(found.vectors, np.concatenate([first.vectors, second.vectors]))
    facts = read_facts(tmp_path / "new" / "v.parquet")
    assert (facts.rows, facts.width, facts.model_path) == (3, 3, "/run/model")


def test_an_error_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    write(tmp_path / "v.parquet", some("a"))

    def broken() -> None:
        with _writer(tmp_path / "v.parquet", 3, FACTS) as put:
            put(some("b", "c"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert read_vectors(tmp_path / "v.parquet").ids == ("a",)
    assert [path.name for path in tmp_path.iterdir()] == ["v.parquet"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file"):
        read_vectors(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(BadInput, match="polymodal embed"):
        read_vectors(tmp_path / "text.parquet")
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0, 2.0]]}), tmp_path / "plain.parquet")
    with pytest.raises(BadInput, match="polymodal embed"):
        read_vectors(tmp_path / "plain.parquet")
    write(tmp_path / "empty.parquet")
    with pytest.raises(BadInput, match="at least one vector"):
        read_vectors(tmp_path / "empty.parquet")
    whole = tmp_path / "v.parquet"
    write(whole, some("a", "b"))
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(BadInput):
        read_vectors(whole)


def test_a_folder_as_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--out"):
        write(tmp_path, some("a"))


def test_a_name_of_another_kind_is_refused() -> None:
    check_kinds({"a": "text", "b": "image"}, {"a": "text"})
    with pytest.raises(BadInput, match="'image'"):
        check_kinds({"a": "text"}, {"a": "image"})
    with pytest.raises(BadInput, match="one of the model's"):
        check_kinds({"a": "text"}, {"b": "text"})
