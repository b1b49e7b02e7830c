"""The command that explains, from model and data to files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from polymodal import cli
from polymodal.types import BadInput, Record
from polymodal.workflow.explaining import ExplainSettings, explain_catalogue
from polymodal.workflow.explaining_item import explain_item, explain_query

READINGS = {"shapley", "leave one out", "alone", "agreement", "cosine"}
QUICK = ExplainSettings(resamples=20, split="train", train_split="train")


def test_a_catalogue_is_explained_whole_or_not_at_all(micro_shop, tmp_path):
    found = explain_catalogue(*micro_shop, tmp_path / "out", replace(QUICK, split="test", max_items=30))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"explain.json", "explain.md", "items.csv", *found.figures}
    for name in found.figures:
        assert Image.open(tmp_path / "out" / name).format == "PNG"
    said = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert said["label"] == "colour"
    assert {one["name"] for one in said["worth"]["readings"]} == READINGS
    assert {one["name"] for one in said["detections"]} == READINGS
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "items.csv").read_text())))
    values = found.worth.values
    assert len(rows) == int(values.present.sum())
    each = {(row["id"], row["modality"]): float(row["shapley"] or "nan") for row in rows}
    whole = {i: sum(v for (j, _), v in each.items() if j == i) for i in values.ids}
    np.testing.assert_allclose([whole[i] for i in values.ids], values.whole - values.table[:, 0], atol=1e-5)
    again = explain_catalogue(*micro_shop, None, replace(QUICK, split="test", max_items=30))
    assert again.worth.to_json() == found.worth.to_json()


def test_an_item_and_its_match_with_pictures(micro_shop, tmp_path):
    found = explain_item(*micro_shop, "i000", "i002", tmp_path / "item", QUICK)
    assert found.match is not None
    assert sum(found.match.sides[0].contributions.values()) == pytest.approx(found.match.score)
    assert sum(found.values["shapley"].values()) == pytest.approx(found.full - found.empty)
    assert {path.name for path in (tmp_path / "item").iterdir()} == {"explain.json", *found.figures}
    assert "attention.png" in found.figures
    assert "restored.png" in found.figures
    assert found.attention["item"].keys() == {"item", "title", "facts"}
    lacks = explain_item(*micro_shop, "i001", None, None, QUICK)  # it has no title
    assert lacks.values["shapley"].keys() == {"facts"}
    assert lacks.figures == ()


@pytest.mark.parametrize("score", ["probability", "similarity"])
def test_other_scores_sum_up_too(micro_shop, score):
    settings = replace(QUICK, split="test", score=score, check=False, label="shape", modalities=("facts",))
    found = explain_catalogue(*micro_shop, None, settings)
    assert found.detections == ()
    assert found.worth.values.names == ("facts",)
    each, values = found.worth.reading("shapley").per_item, found.worth.values
    np.testing.assert_allclose(each[:, 0], values.whole - values.table[:, 0], atol=1e-9)
    item = explain_item(*micro_shop, values.ids[0], None, None, replace(settings, modalities=()))
    assert sum(item.values["shapley"].values()) == pytest.approx(item.full - item.empty)


def test_an_exported_model_has_no_decoder_and_says_so(micro_shop, tmp_path):
    run, data = micro_shop
    shutil.copytree(run / "model", tmp_path / "model")
    found = explain_item(tmp_path / "model", data, "i000", None, tmp_path / "item", QUICK)
    assert "restored.png" not in found.figures
    assert any("No reconstruction" in note for note in found.notes)


def test_why_an_item_answers_a_query(micro_shop, tmp_path):
    from polymodal.workflow.indexing import build_index
    from polymodal.workflow.searching import open_engine
    from polymodal.workflow.vectors import embed_data

    run, data = micro_shop
    embed_data(run, data, tmp_path / "v.parquet")
    build_index(tmp_path / "v.parquet", data, tmp_path / "index")
    asked = Record("query", {"title": "red shoe", "facts": (("colour", "red"),)})
    found = explain_query(open_engine(tmp_path / "index"), asked, "i000", tmp_path / "why")
    assert {path.name for path in (tmp_path / "why").iterdir()} == {"explain.json", "attention.png"}
    assert found.match is not None
    (side,) = found.match.sides
    assert side.contributions.keys() == {"title", "facts"}
    assert sum(side.contributions.values()) == pytest.approx(found.match.score)
    call = ["explain", str(tmp_path / "index"), "--text", "red shoe", "--with", "i000", "--json"]
    assert cli.main(call) == 0
    assert cli.main([*call[:-2], "no-such-item"]) == 2
    assert cli.main([*call, "--id", "i001"]) == 2


def test_what_is_refused(micro_shop, tmp_path, capsys):
    run, data = map(str, micro_shop)
    wrong = {
        "a label of the data": ["--label", "color"],
        "modalities of model and data": ["--modalities", "picture"],
        "split: expected": ["--split", "validation"],
        "an id of the data": ["--id", "i999"],
        "--id of the item": ["--with", "i001"],
        "a share above 0": ["--id", "i000", "--hide", "2", "--out", str(tmp_path / "x")],
    }
    for said, arguments in wrong.items():
        assert cli.main(["explain", run, data, *arguments]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert cli.main(["explain", run]) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="a folder"):
        explain_catalogue(*micro_shop, tmp_path / "file", QUICK)
