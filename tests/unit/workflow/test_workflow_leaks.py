"""Commands say where the input names the label that they score, and are silent where it does not."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polymodal import cli


@pytest.fixture(scope="module")
def quiet(micro_shop, tmp_path_factory):
    """The shop with labels that no text names."""
    data = tmp_path_factory.mktemp("leaks") / "quiet"
    shutil.copytree(micro_shop[1], data)
    rows = pq.read_table(data / "items.parquet").to_pylist()
    for row in rows:
        row["colour"], row["shape"] = f"tone {row['colour']}", f"form {row['shape']}"
    pq.write_table(pa.Table.from_pylist(rows), data / "items.parquet")
    return data


@pytest.mark.parametrize("leaks", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        ["retrieve", "--label", "colour", "--resamples", "20"],
        ["cluster", "-k", "4", "--out", "OUT"],
        ["outliers", "--label", "colour", "--draws", "2", "--resamples", "20", "--out", "OUT"],
        ["explain", "--label", "colour", "--unchecked"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_scores_a_label_warns(micro_shop, quiet, tmp_path, capsys, command, leaks):
    run, data = micro_shop
    name, *options = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    for json_too in ([], ["--json"]):
        assert cli.main([name, str(run), str(data if leaks else quiet), *options, *json_too]) == 0
        told = " ".join("".join(capsys.readouterr()).split())
        assert ("names their label, word for word: colour 100%" in told) is leaks


def test_no_label_is_scored_where_the_item_itself_is_right(micro_shop, capsys):
    run, data = micro_shop
    side = ["--queries", "facts", "--corpus", "title", "--relevance", "item", "--split", "train", "--resamples", "20"]
    assert cli.main(["retrieve", str(run), str(data), *side, "--json"]) == 0
    assert "names their label" not in capsys.readouterr().out


@pytest.mark.parametrize("leaks", [True, False])
def test_evaluate_warns_of_labels_in_the_input(micro_shop, quiet, tmp_path, capsys, leaks):
    run, data = micro_shop
    data = data if leaks else quiet
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
