"""Clusters and outliers of a catalogue: files, the page, known faults, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polymodal import cli
from polymodal.types import BadInput
from polymodal.workflow.clusters import ClusterSettings, cluster_data
from polymodal.workflow.outliers import OutlierSettings, find_outliers


def test_the_files_say_the_same(micro_shop, tmp_path):
    run, data = micro_shop
    made = cluster_data(run, data, tmp_path / "out", ClusterSettings(5, starts=3))
    table = pq.read_table(tmp_path / "out" / "assignments.parquet").to_pylist()
    sizes = np.bincount([row["cluster"] for row in table], minlength=5)
    assert sizes.tolist() == [card.size for card in made.cards]
    assert len(table) == made.items == 48 - made.empty
    rows = {row["id"]: row for row in pq.read_table(data / "items.parquet").to_pylist()}
    assert all(row["label_colour"] == rows[row["id"]]["colour"] for row in table)
    assert all(row["cluster"] != row["second_cluster"] for row in table)
    written = json.loads((tmp_path / "out" / "clusters.json").read_text())
    assert written == json.loads(json.dumps(made.to_json()))
    assert [one["label"] for one in written["agreements"]] == ["colour", "shape"]
    assert {what.strip() for what, _ in written["controls"]} == {"title alone", "facts alone", "fused, its items"}
    html = (tmp_path / "out" / "clusters.html").read_text()
    for card in made.cards:
        assert f'id="cluster-{card.number}"' in html
        assert all(name in html for name, _, _ in card.typical)
    again = cluster_data(run, data, tmp_path / "again", ClusterSettings(5, starts=3))
    for name in ("assignments.parquet", "clusters.json"):
        first, second = ((tmp_path / place / name).read_bytes() for place in ("out", "again"))
        assert first.replace(b"/out", b"/again") == second
    assert again.stability == made.stability


def test_a_number_is_chosen_where_none_is_given(micro_shop, tmp_path, capsys):
    run, data = micro_shop
    assert cli.main(["cluster", str(run), str(data), "--out", str(tmp_path / "o"), "--starts", "2", "--no-alone"]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "o" / "clusters.json").read_text())
    best = max(found["silhouettes"].items(), key=lambda one: one[1])
    assert found["k"] == int(best[0])
    assert "silhouette" in shown


def test_what_is_refused_leaves_nothing(micro_shop, tmp_path):
    run, data = micro_shop
    for settings, said in (
        (ClusterSettings(49), "at most the 48"),
        (ClusterSettings(0), "between 1 and"),
        (ClusterSettings(3, label="color"), "Did you mean 'colour'"),
        (ClusterSettings(3, split="tset"), "Did you mean 'test'"),
    ):
        with pytest.raises(BadInput, match=said):
            cluster_data(run, data, tmp_path / "out", settings)
    assert cli.main(["cluster", str(run), str(data), "-k", "many", "--out", str(tmp_path / "out")]) == 2
    for settings, said in ((OutlierSettings("color"), "Did you mean"), (OutlierSettings(share=1.5), "hold-out")):
        with pytest.raises(BadInput, match=said):
            find_outliers(run, data, tmp_path / "out", settings)
    with pytest.raises(BadInput, match="Parquet file of known faults"):
        find_outliers(run, data, tmp_path / "out", truth=data / "catalogue.toml")
    with pytest.raises(BadInput, match="columns id and outlier"):
        find_outliers(run, data, tmp_path / "out", truth=data / "items.parquet")
    assert list(tmp_path.iterdir()) == []


def test_every_item_is_ranked_with_a_reason_and_faults_are_measured(micro_shop, tmp_path):
    run, data = micro_shop
    ids = pq.read_table(data / "items.parquet")["id"].to_pylist()
    faults = pa.table({"id": ids[:9], "outlier": ["title"] * 8 + [None]})
    pq.write_table(faults, tmp_path / "truth.parquet")
    made = find_outliers(
        run, data, tmp_path / "out", OutlierSettings("colour", draws=2, resamples=50), truth=tmp_path / "truth.parquet"
    )
    table = pq.read_table(tmp_path / "out" / "outliers.parquet").to_pylist()
    assert len(table) == made.items
    assert [row["strangeness"] for row in table] == sorted((row["strangeness"] for row in table), reverse=True)
    for row in table:
        assert row[row["reason"]] == row["strangeness"]
    (planted,) = made.planted
    assert planted.faults + planted.unseen == 8
    assert set(planted.auroc) >= {"Mahalanobis", "max-softmax", "nearest known", "random", "misfit of that modality"}
    assert [len(names) for names in made.left_out] == [1, 1]
    assert json.loads((tmp_path / "out" / "outliers.json").read_text()) == json.loads(json.dumps(made.to_json()))


def test_a_catalogue_without_labels_is_ranked_all_the_same(micro_shop, tmp_path, capsys):
    run, data = micro_shop
    shutil.copytree(data, tmp_path / "bare")
    toml = (tmp_path / "bare" / "catalogue.toml").read_text()
    lines = [line for line in toml.splitlines() if not line.startswith(("labels", "split"))]
    (tmp_path / "bare" / "catalogue.toml").write_text("\n".join(lines))
    assert cli.main(["outliers", str(run), str(tmp_path / "bare"), "--out", str(tmp_path / "out"), "--top", "3"]) == 0
    shown = capsys.readouterr().out
    assert "The strangest of" in shown
    assert "compared with one another" in shown
    found = json.loads((tmp_path / "out" / "outliers.json").read_text())
    assert (found["unknown"], found["label"]) == ([], "")
