"""`evaluate` says where the input names the label that it scores, and is silent where it does not."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polymodal import cli


@pytest.mark.parametrize("leaks", [True, False])
def test_evaluate_warns_of_labels_in_the_input(micro_shop, tmp_path, capsys, leaks):
    run, data = micro_shop
    if not leaks:
        shutil.copytree(data, tmp_path / "quiet")
        data = tmp_path / "quiet"
        rows = pq.read_table(data / "items.parquet").to_pylist()
        for row in rows:
            row["colour"], row["shape"] = f"tone {row['colour']}", f"form {row['shape']}"
        pq.write_table(pa.Table.from_pylist(rows), data / "items.parquet")
    out = tmp_path / "report"
    assert cli.main(["evaluate", str(run), str(data), "--out", str(out), "--resamples", "20", "--json"]) == 0
    shown, told = capsys.readouterr()
    report = json.loads((out / "report.json").read_text())
    assert [leak["label"] for leak in report["leaks"]] == ["colour", "shape"]
    assert all((leak["share"] > 0.9) is leaks for leak in report["leaks"])
    told = " ".join(told.split())
    assert ("warning: The input of more than half" in told) is leaks
    assert ("colour 100% (facts 100%, title 100%); shape 100%" in told) is leaks
    assert bool(json.loads(shown)["warning"]) is leaks
    assert ('class="warning"' in (out / "report.html").read_text()) is leaks
