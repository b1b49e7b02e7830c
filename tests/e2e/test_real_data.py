"""benchmarks/real_data.py end to end on the real data sets, with a budget too small to learn anything."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from polymodal.types import BadInput

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "benchmarks"))

import _real_run  # noqa: E402
import real_data  # noqa: E402

needs_data = pytest.mark.skipif(not (DATA / "luma" / "records.parquet").is_file(), reason="needs ../shared/data")
TINY = ["--seeds", "3", "--on", "val", "--threads", "1", "--set", "train.steps=2", "--set", "train.batch_size=8"]


def small_luma(folder: Path) -> Path:
    """Ten training products, the val products and five test products of luma, with their pictures and reviews."""
    items = pq.read_table(DATA / "luma" / "records.parquet").to_pylist()
    kept: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for item in items:
        if item["group_id"] not in kept[item["split"]]:
            kept[item["split"]].append(item["group_id"])
    products = {*kept["train"][:10], *kept["val"], *kept["test"][:5]}
    for name in ("records", "reviews"):
        table = pq.read_table(DATA / "luma" / f"{name}.parquet")
        (folder / "luma").mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pc.field("group_id").isin(products)), folder / "luma" / f"{name}.parquet")
    (folder / "luma" / "images").mkdir()
    for path in {path for item in items if item["group_id"] in products for path in item["images"]}:
        shutil.copy(DATA / "luma" / path, folder / "luma" / path)
    return folder


@needs_data
@pytest.mark.slow
def test_luma_runs_through_and_counts_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = small_luma(tmp_path / "data")
    report = real_data.main(["luma", "--data", str(data), "--out", str(tmp_path / "out"), *TINY, "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out" / "report.json").read_text())
    lines = {line["figure"]: line for line in report["figures"]}
    review = lines["review -> product R@1"]
    assert (review["candidates"], review["queries"]) == (10 + 18 + 5, 24)
    assert review["chance"] == pytest.approx(1 / 33)
    assert set(review["controls"]) == {"TF-IDF", "random", "untrained"}
    # all 42 val variants against one another, less the query itself; 6 of them have no other colour
    colour = lines["other colour, image R@1"]
    assert (colour["candidates"], colour["queries"]) == (42, 36)
    assert lines["other colour, all mAP"]["controls"]["TF-IDF"]["mean"] > 0.9
    assert all(0 <= line["low"] <= line["mean"] <= line["high"] <= 1 for line in report["figures"])
    assert "0 test products in train or val" in report["facts"][0]


@needs_data
def test_reviews_of_other_splits_are_never_trained_on(tmp_path: Path) -> None:
    real_data.make_task("luma", DATA).catalogue(tmp_path)
    rows = _real_run.open_rows(tmp_path)
    products = {split: {r.group for r in _real_run.records(rows, split)} for split in ("train", "val", "test")}
    assert len(products["train"]) == 130
    assert not products["train"] & (products["val"] | products["test"])
    reviews = [r for r in _real_run.records(rows, "train") if r.id.startswith("review:")]
    assert len(reviews) == 246


@needs_data
def test_grocery_split_cuts_products_unless_they_are_kept_out(tmp_path: Path) -> None:
    for name, kept_out in (("grocery", 0), ("grocery-unseen", 17)):
        task = real_data.make_task(name, DATA)
        task.catalogue(tmp_path / name)
        rows = _real_run.open_rows(tmp_path / name)
        train = {r.group for r in _real_run.records(rows, "train")}
        test = {r.group for r in _real_run.records(rows, "test")}
        assert len(test) == 81
        assert len(test - train) == kept_out


def test_data_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"records\.parquet"):
        real_data.make_task("stamps", tmp_path)


def test_an_output_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(BadInput, match="--out"):
        real_data.main(["luma", "--data", str(DATA), "--out", str(tmp_path), "--threads", "1"])


def test_summary_averages_seeds_per_query_and_keeps_unjudged_queries_out() -> None:
    def scores(values: list[float]) -> _real_run.Scores:
        return _real_run.Scores({"f": np.asarray(values)}, {"f": 0.25}, {"f": 4}, {"f": ("a", "b", "c")})

    models, controls = [scores([1, 0, np.nan]), scores([1, 1, np.nan])], {"c": scores([0, 0, np.nan])}
    line = _real_run.summarise(models, controls, {})[0]
    assert (line["mean"], line["queries"], line["per_seed"]) == (0.75, 2, [0.5, 1.0])
    assert line["sd"] == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert line["low"] <= 0.75 <= line["high"]
    assert line["controls"]["c"]["mean"] == 0
    one = _real_run.summarise(models, controls, {"b": "g", "c": "g"})[0]
    assert (one["mean"], one["low"], one["high"]) == (0.75, line["low"], line["high"])  # c is never judged


def test_product_vectors_are_means_of_unit_length() -> None:
    vectors = _real_run.unit(("a", "b", "c"), np.asarray([[1.0, 0], [0, 1], [0, 2]]), "m")
    made = _real_run.by_product(vectors, {"a": "p", "b": "p", "c": "q"})
    assert made.ids == ("p", "q")
    np.testing.assert_allclose(made.vectors, [[0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)


@needs_data
@pytest.mark.slow
def test_every_seed_runs_the_commands_once_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import real_tasks

    data = small_luma(tmp_path / "data")
    asked = ["luma", "stamps", "--data", str(data), "--out", str(tmp_path / "out"), "--seeds", "0", "1"]
    asked += ["--epochs", "1", "--set", "train.batch_size=8"]
    found = real_tasks.main([*asked, "--only", "cluster", "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out) == found == {"luma": json.loads((tmp_path / "out" / "luma" / "figures.json").read_text())}
    assert err.count("cluster {model}") == 3  # two seeds, and the model before training
    assert "stamps: not in" in err
    lines = {line["figure"]: line for line in found["luma"]}
    nmi = lines["category, nmi: fused"]
    assert nmi["mean"] == pytest.approx(np.mean(nmi["per_seed"]))
    assert nmi["half"] == pytest.approx(12.706 * np.std(nmi["per_seed"], ddof=1) / 2**0.5, rel=1e-3)
    assert 0 < nmi["untrained"] <= 1
    # stopped in training, before the model was written
    shutil.rmtree(tmp_path / "out" / "luma" / "seed-1" / "run" / "model")
    again = real_tasks.main([*asked, "--only", "cluster", "--json"])
    assert (tmp_path / "out" / "luma" / "seed-1" / "run" / "model").is_dir()
    assert again == found
    assert "cluster {model}" not in capsys.readouterr().err
    with pytest.raises(BadInput, match="runs of this recipe"):
        real_tasks.main([*asked, "--set", "train.learning_rate=0.1", "--only", "cluster", "--json"])
