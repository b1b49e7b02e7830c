"""The exact index beyond the contract: its file, its blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polymodal.index import create_index, exact, open_index
from polymodal.types import BadInput, Embeddings


def some(n: int, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return Embeddings(tuple(f"{i}" for i in range(n)), vectors, "m")


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    index = create_index("exact", "m", 6)
    index.add(some(30))
    index.save(tmp_path)
    [path] = tmp_path.glob("exact-*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match=r"checksum.*rebuild"):
        open_index(tmp_path)
    path.unlink()
    with pytest.raises(BadInput, match="no such file"):
        open_index(tmp_path)


def test_a_save_that_dies_before_the_manifest_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = create_index("exact", "m", 6)
    index.add(some(10))
    index.save(tmp_path)
    index.add(some(20, seed=1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exact, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        index.save(tmp_path)
    monkeypatch.undo()
    assert len(open_index(tmp_path)) == 10
    index.save(tmp_path)
    assert len(open_index(tmp_path)) == 20
    assert len(list(tmp_path.iterdir())) == 2


def test_blocks_of_queries_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    index = create_index("exact", "m", 6)
    for start in range(0, 50, 7):
        part = some(50)
        index.add(Embeddings(part.ids[start : start + 7], part.vectors[start : start + 7], "m"))
    queries = some(9, seed=2)
    whole = index.search(queries, 5)
    monkeypatch.setattr(exact, "_SCORES", 60)
    assert index.search(queries, 5) == whole
    assert len(index) == 50


def test_hits_do_not_share_their_attributes_with_the_index() -> None:
    index = create_index("exact", "m", 6)
    index.add(some(1), [{"a": "x"}])
    index.search(some(1), 1)[0][0].attributes["a"] = "changed"  # type: ignore[index]
    assert index.attributes_of(["0"]) == [{"a": "x"}]
