"""The Lance index beyond the contract: the graph, durability, the missing extra."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from polymodal.index import create_index, open_index
from polymodal.types import Embeddings, MissingExtra

pytest.importorskip("lancedb")


def clustered(n: int, width: int = 16) -> Embeddings:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, width))
    x = centres[rng.integers(0, 20, n)] + 0.5 * rng.normal(size=(n, width))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Embeddings(tuple(f"{i:05d}" for i in range(n)), x.astype(np.float32), "m")


def test_the_graph_states_the_recall_it_was_measured_to_have(tmp_path: Path) -> None:
    embeddings = clustered(2500)
    exact, lance = create_index("exact", "m", 16), create_index("lance", "m", 16, flat_below=1000)
    attributes = [{"even": "yes" if i % 2 == 0 else "no", "rare": "yes" if i % 50 == 0 else "no"} for i in range(2500)]
    for index in (exact, lance):
        index.add(embeddings, attributes)
    lance.save(tmp_path)
    graph = json.loads((tmp_path / "manifest.json").read_text())["graph"]
    assert graph["type"] == "IVF_HNSW_SQ"
    assert graph["recall_at_10"] >= 0.9
    opened = open_index(tmp_path)
    queries = embeddings.vectors[5:2500:100] + np.float32(0.01)
    for where, least in ((None, 0.9), ({"even": "yes"}, 0.85), ({"rare": "yes"}, 1.0)):
        truth, found = exact.search(queries, 10, where), opened.search(queries, 10, where)
        share = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(truth, found, strict=True)]
        assert np.mean(share) >= least
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    late = Embeddings(("late",), queries[:1], "m")
    opened.add(late, [{"even": "yes"}])
    assert opened.search(queries[:1], 1)[0][0].id == "late"


def test_an_opened_index_is_durable_at_once(tmp_path: Path) -> None:
    index = create_index("lance", "m", 16)
    index.add(clustered(10), [{"n": float(i)} for i in range(10)])
    index.save(tmp_path)
    writer = open_index(tmp_path)
    writer.remove(["00003"])
    writer.add(Embeddings(("x",), clustered(1).vectors, "m"), [{"colour": "red", "size": 4}])
    reader = open_index(tmp_path)
    assert len(reader) == 10
    assert [h.id for h in reader.search(clustered(1).vectors, 9, {"size": {"min": 4}})[0]] == ["x"]
    assert [h.id for h in reader.search(clustered(1).vectors, 9, {"colour": "red"})[0]] == ["x"]


def test_killed_between_manifest_and_column_opens_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = create_index("lance", "m", 16)
    index.add(clustered(3))
    index.save(tmp_path)
    writer = open_index(tmp_path)

    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_add_columns", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.add(clustered(3), [{"weight": 2}] * 3)
    reader = open_index(tmp_path)
    assert reader.search(clustered(1).vectors, 3, {"weight": {"min": 0}}) == [[]]


def test_without_lancedb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtra, match=r"polymodal\[lance\]"):
        create_index("lance", "m", 4)
    assert create_index("auto", "m", 4, rows=10**6).kind == "exact"
