"""The generated large catalogue: the statistics it promises, any range of rows alone, and memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from polymodal.catalogue.audit import audit
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.sampler import BlockShuffle, Cursor, locate
from polymodal.catalogue.scale_up import MODALITIES, Generated, ScaleUpConfig, blocks, generate
from polymodal.types import BadInput

ROWS = 6000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("scale") / "big", ScaleUpConfig(rows=ROWS))


@pytest.fixture(scope="module")
def catalogue(made: Generated) -> Catalogue:
    return Catalogue.open(made.folder)


def _rows(config: ScaleUpConfig, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, cells, strict=True))
        for columns in blocks(config, start, stop)
        for cells in zip(*columns.values(), strict=True)
    ]


def _near(count: int, share: float, rows: int = ROWS) -> bool:
    """Within four standard deviations of a share."""
    return abs(count - share * rows) < 4 * (rows * share * (1 - share)) ** 0.5


def test_presence_is_that_of_the_paper(made: Generated, catalogue: Catalogue) -> None:
    assert _near(ROWS - made.complete, 0.2)
    assert _near(made.unimodal, 0.05)
    present = np.stack([catalogue.index[f"has_{name}"].to_numpy(zero_copy_only=False) for name in MODALITIES], 1)
    assert present.sum(0).tolist() == list(made.present.values())
    sizes = Counter(present.sum(1).tolist())
    assert (sizes[5], sizes[1], sizes[0]) == (made.complete, made.unimodal, 0)
    assert all(sizes[n] for n in range(1, 6))
    assert made.present["text"] > made.present["image"] > made.present["table"] > made.present["audio"]


def test_other_shares_are_kept_too() -> None:
    def sizes(**knobs: float) -> Counter[int]:
        columns = ("image", "title", "attributes", "video", "audio")
        return Counter(sum(row[c] is not None for c in columns) for row in _rows(ScaleUpConfig(rows=2048, **knobs)))

    assert set(sizes(incomplete=0, unimodal=0)) == {5}
    assert set(sizes(incomplete=1, unimodal=1)) == {1}
    half = sizes(incomplete=0.5, unimodal=0)
    assert _near(2048 - half[5], 0.5, 2048)
    assert not half[1]


def test_labels_have_a_long_tail(catalogue: Catalogue) -> None:
    found = audit(catalogue, decode=False, limit=3000)
    category = found.labels["category"]
    assert found.rows == 3000
    assert category["values"] > 1000
    assert category["values"] > 9 * category["head"]["values"]
    assert category["singletons"] > 300
    even = {row["category"] for row in _rows(ScaleUpConfig(rows=2048, tail=0, categories=100))}
    assert len(even) == 100


def test_every_cell_can_be_used(made: Generated, catalogue: Catalogue) -> None:
    from polymodal.workflow.checking import audit_data

    found = audit_data(made.folder, limit=1000)
    assert found.reasons == {}
    assert found.decoded
    assert found.modalities["image"]["present"] == sum(catalogue.index["has_image"].to_pylist()[:1000])
    pairs = [len(json.loads(row["attributes"])) for row in _rows(ScaleUpConfig(rows=4096)) if row["attributes"]]
    assert abs(np.mean(pairs) - 24_398_673 / 6_313_067) < 0.2
    assert max(pairs) <= 16
    # few cells are twins: a model could not tell such rows apart
    assert all(m["identical"] < 0.05 * m["present"] for m in found.modalities.values())


def test_modalities_of_a_row_agree_in_category_and_product() -> None:
    rows = [row for row in _rows(ScaleUpConfig(rows=20_480, categories=20)) if row["video"] and row["audio"]]
    from polymodal.catalogue.codec import read_npy

    video, audio = (np.stack([read_npy(row[name]).mean(0, np.float32) for row in rows]) for name in ("video", "audio"))
    category = np.array([row["category"] for row in rows])
    centred = [np.copy(video), np.copy(audio)]
    for name in set(category):
        for cells in centred:
            cells[category == name] -= cells[category == name].mean(0)
    # within a category, the two factors of the product are in both, and nothing else is
    shared = [np.corrcoef(centred[0][:, c], centred[1][:, c])[0, 1] for c in range(16)]
    assert min(shared[:2]) > 0.9
    assert np.abs(shared[2:]).max() < 0.05
    between = np.stack([video[category == name].mean(0) for name in sorted(set(category))])
    assert between[:, 2:].std(0).min() > 0.2


def test_a_product_has_one_category_one_split_and_up_to_two_rows(catalogue: Catalogue) -> None:
    index = catalogue.index
    products: dict[str, set[tuple[str, str]]] = {}
    counts: Counter[str] = Counter()
    lines = zip(*(index[name].to_pylist() for name in ("group", "label_category", "split")), strict=True)
    for product, category, split in lines:
        products.setdefault(product, set()).add((category, split))
        counts[product] += 1
    assert all(len(found) == 1 for found in products.values())
    assert set(counts.values()) == {1, 2}
    assert _near(sum(n == 2 for n in counts.values()), 0.2, ROWS // 2)
    splits = Counter(index["split"].to_pylist())
    assert _near(splits["test"], 0.05)
    assert _near(splits["val"], 0.05)


@pytest.mark.parametrize(("start", "stop"), [(0, 600), (100, 101), (255, 257), (256, 512), (300, 600), (600, 600)])
def test_any_range_of_rows_is_the_same_alone(start: int, stop: int) -> None:
    config = ScaleUpConfig(rows=600, seed=3)
    whole = _rows(config)
    assert len(whole) == 600
    assert _rows(config, start, stop) == whole[start:stop]
    # nor does it matter how many rows there are in all
    assert _rows(config.replace(rows=5000), start, stop) == whole[start:stop]
    assert [row["id"] for row in whole[:2]] == ["R000000000", "R000000001"]


def test_the_files_hold_those_rows_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    config = ScaleUpConfig(rows=600, seed=3)
    seen: list[tuple[int, int]] = []
    generate(tmp_path / "a", config, lambda *at: seen.append(at))
    generate(tmp_path / "b", config)
    generate(tmp_path / "c", config.replace(seed=4))
    assert seen == [(256, 600), (512, 600), (600, 600)]
    content = [(tmp_path / name / "items" / "part-000000.parquet").read_bytes() for name in "abc"]
    assert content[0] == content[1] != content[2]
    table = pq.read_table(tmp_path / "a" / "items")
    assert table.select(list(_rows(config)[0])).to_pylist() == _rows(config)
    with pytest.raises(BadInput, match="new or empty"):
        generate(tmp_path / "a", config)


def test_files_end_and_row_groups_are_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polymodal.catalogue import _parts

    monkeypatch.setattr(_parts.Parts.__init__, "__defaults__", (512,))
    generate(tmp_path / "a", ScaleUpConfig(rows=1300))
    files = sorted((tmp_path / "a" / "items").iterdir())
    groups = [
        [pq.ParquetFile(file).metadata.row_group(g).num_rows for g in range(pq.ParquetFile(file).num_row_groups)]
        for file in files
    ]
    assert groups == [[256, 256], [256, 256], [256, 20]]
    assert Catalogue.open(tmp_path / "a").blocks == (256,) * 5 + (20,)


def test_block_shuffle_reads_each_block_once_an_epoch(catalogue: Catalogue) -> None:
    rows = np.flatnonzero(np.asarray(catalogue.index["split"].to_pylist()) == "train")
    sampler = BlockShuffle(catalogue.blocks, rows, seed=0, window=4, drop_last=False)
    taken, met = [], []
    for _, batch in sampler.batches(Cursor(), 64):
        taken += batch.tolist()
        block, _ = locate(catalogue.blocks, batch)
        met.append(set(block.tolist()))
    assert sorted(taken) == rows.tolist()
    # between its first and its last batch a block shares memory with those of its window and of one neighbour only
    spans = {b: [at for at, blocks in enumerate(met) if b in blocks] for b in range(len(catalogue.blocks))}
    alive = [sum(span[0] <= at <= span[-1] for span in spans.values()) for at in range(len(met))]
    assert max(alive) <= 8


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Peak memory of writing 4,096 and 24,576 rows, each in a process of its own."""
    code = (
        "import resource, sys; from pathlib import Path; "
        "from polymodal.catalogue.scale_up import *; "
        "generate(Path(sys.argv[1]), ScaleUpConfig(rows=int(sys.argv[2]))); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / str(rows)), str(rows)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for rows in (4096, 24_576)
    ]
    assert peaks[1] < peaks[0] + 24 * 1024


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"rows": 0}, {"unimodal": 0.3}, {"incomplete": 1.5}, {"categories": 0}, {"seed": -1}):
        with pytest.raises(BadInput):
            ScaleUpConfig.parse(bad)
