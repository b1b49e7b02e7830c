"""The whole way of a new user on a small generated catalogue, by the commands: what one writes the next one reads."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polymodal.cli import main
from polymodal.workflow.vectors import read_vectors

pytestmark = pytest.mark.slow

MICRO = [
    "model.width=16", "model.embedding=16", "model.tower.layers=1", "model.tower.heads=2",
    "model.trunk.layers=1", "model.trunk.heads=2", "train.batch_size=16", "train.log_every=1",
]  # fmt: skip
Call = Callable[..., Any]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "import sys; from polymodal.cli import main; sys.exit(main())", *map(str, arguments)]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process; the exit code, what it printed as JSON or text, and what it said."""

    def run(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        got = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert got == code, err
        assert "Traceback" not in err
        if code:
            return err
        return json.loads(out) if "--json" in arguments else out

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue, shards, a trained run, vectors and an index of 60 items."""
    root = tmp_path_factory.mktemp("journey")
    data, shards, run, vectors, index = (root / name for name in ("d/catalogue", "shards", "run", "v.parquet", "index"))
    for arguments in (
        ["demo", root / "d", "--items", 60, "--only-data"],
        ["prepare", data, shards],
        ["train", "scale", shards, "--run", run, "--set", "train.steps=6", *MICRO],
        ["embed", run, shards, "--out", vectors],
        ["index", vectors, data, "--out", index, "--kind", "exact"],
    ):
        assert main([str(argument) for argument in arguments]) == 0
    return root


def test_the_catalogue_is_audited_and_guessed(place: Path, call: Call) -> None:
    found = call("audit", place / "d/catalogue", "--json")
    assert found["rows"] == 60
    assert found["decoded"]
    assert set(found["modalities"]) == {"image", "text", "table", "video", "audio"}
    assert not call("audit", place / "d/catalogue", "--no-decode", "--json")["decoded"]
    assert "Modalities" in call("audit", place / "d/catalogue", "--no-decode")
    guessed = call("guess", place / "d/catalogue/items.parquet", "--json")
    assert guessed["config"]["id"] == "id"
    assert guessed["written"] is None


def test_prepare_again_goes_on_and_says_what_was_there(place: Path, call: Call) -> None:
    again = call("prepare", place / "d/catalogue", place / "shards", "--json")
    assert again["rows"] == 60
    assert again["skipped"] == again["shards"]


def test_shards_and_the_raw_catalogue_give_the_same_vectors(place: Path, call: Call) -> None:
    said = call("embed", place / "run", place / "d/catalogue", "--out", place / "raw.parquet", "--json")
    assert said["vectors"] == 60
    assert said["width"] == 16 + 5 * 128  # the shared part, and a block for each of five modalities
    raw, prepared = read_vectors(place / "raw.parquet"), read_vectors(place / "v.parquet")
    assert raw.ids == prepared.ids
    assert raw.model == prepared.model
    assert abs(raw.vectors - prepared.vectors).max() < 1e-5


def test_only_some_modalities_of_one_split(place: Path, call: Call) -> None:
    said = call(
        "embed",
        place / "run",
        place / "shards",
        "--out",
        place / "t.parquet",
        "--split",
        "test",
        "--only",
        "text",
        "--json",
    )
    whole = read_vectors(place / "v.parquet")
    some = read_vectors(place / "t.parquet")
    assert 0 < said["vectors"] < 60
    assert set(some.ids) < set(whole.ids)
    assert abs(whole.rows(some.ids) - some.vectors).max() > 1e-3


@pytest.mark.parametrize("kind", ["exact", "lance"])
def test_search_by_any_mix(place: Path, call: Call, kind: str) -> None:
    if kind == "lance":
        pytest.importorskip("lancedb")
    index = place / f"index-{kind}"
    built = call("index", place / "v.parquet", place / "d/catalogue", "--out", index, "--kind", kind, "--json")
    assert built["items"] == 60
    assert built["kind"] == kind
    assert "material" in built["attributes"]
    assert built["media"] > 0
    assert not any(name.startswith("label_") for name in built["attributes"])
    by_text = call("search", index, "--text", "red cushion", "-k", 5, "--json")
    assert len(by_text["hits"]) == 5
    assert by_text["query"] == {"text": "red cushion"}
    scores = [hit["score"] for hit in by_text["hits"]]
    assert scores == sorted(scores, reverse=True)
    picture = next((place / "d/catalogue/media/image").glob("*_0.jpg"))
    mixed = call(
        "search", index, "--image", picture, "--attr", "material=cotton", "--where", "price=1..40", "-k", 3, "--json"
    )
    assert mixed["hits"]
    assert all(1 <= hit["attributes"]["price"] <= 40 for hit in mixed["hits"])
    first = by_text["hits"][0]["id"]
    near = call("similar", index, first, "-k", 4, "--json")
    assert len(near["hits"]) == 4
    assert first not in [hit["id"] for hit in near["hits"]]
    assert first in call("search", index, "--text", "red cushion")


def test_an_item_finds_itself_by_what_it_has(place: Path, call: Call) -> None:
    vectors = read_vectors(place / "v.parquet")
    row = vectors.ids[0]
    only = call("embed", place / "run", place / "shards", "--out", place / "again.parquet", "--json")
    assert only["vectors"] == 60
    assert row in read_vectors(place / "again.parquet").ids


def test_an_index_of_prepared_shards_has_pictures_and_labels(place: Path, call: Call) -> None:
    built = call("index", place / "v.parquet", place / "shards", "--out", place / "index-s", "--with-labels", "--json")
    assert built["media"] > 0
    assert "label_category" in built["attributes"]
    # built again, it replaces itself and nothing is left aside
    call("index", place / "v.parquet", place / "shards", "--out", place / "index-s", "--json")
    assert not list(place.glob(".index-s*"))


def test_evaluate_writes_a_report_that_stands_alone(place: Path, call: Call) -> None:
    pytest.importorskip("matplotlib")
    out = place / "report"
    said = call("evaluate", place / "run", place / "shards", "--out", out, "--resamples", 20, "--json")
    assert said["items"] > 5
    report = json.loads((out / "report.json").read_text())
    assert {"matrix", "comparisons", "probes", "clusterings", "weights", "breakdowns", "examples", "curves"} <= set(
        report
    )
    controls = {row["control"] for row in report["comparisons"][0]["scores"]}
    assert {"fused", "zero imputation", "mean fusion", "random", "image alone"} <= controls
    page = (out / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "url(http" not in page
    assert "data:image" in page
    assert str(place / "run") not in page.partition("</title>")[0]
    text = call("evaluate", place / "run/model", place / "shards", "--out", out, "--resamples", 5, "--label", "sound")
    assert "same sound" in text
    assert str(out / "report.html") in text


def test_ctrl_c_saves_and_resume_ends_as_if_never_stopped(place: Path, tmp_path: Path, call: Call) -> None:
    run = tmp_path / "run"
    settings = [*MICRO, "train.steps=24", "train.checkpoint_every=1000"]
    arguments = command("train", "scale", place / "shards", "--run", run, "--set", *settings)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) >= 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert f"polymodal train --resume {run}" in err
    assert "Traceback" not in err
    assert call("train", "--resume", run, "--json")["steps"] == 24
    whole = tmp_path / "whole"
    call("train", "scale", place / "shards", "--run", whole, "--set", *settings, "--json")
    assert (run / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


def test_the_demo_in_one_go_skips_what_is_done(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("CI", "true")
    arguments = ("demo", tmp_path / "d", "--items", 60, "--epochs", 1, "--set", *MICRO, "--json")
    first = call(*arguments)
    assert [stage["name"] for stage in first["stages"]] == [
        "catalogue",
        "audit",
        "prepare",
        "train",
        "embed",
        "evaluate",
        "index",
    ]
    assert not any(stage["skipped"] for stage in first["stages"])
    assert Path(first["report"]).is_file()
    again = call(*arguments)
    assert all(stage["skipped"] for stage in again["stages"])
    assert again["figures"] == first["figures"]
    (tmp_path / "d/report/report.html").unlink()
    third = {stage["name"]: stage["skipped"] for stage in call(*arguments)["stages"]}
    assert not third["evaluate"]
    assert third["train"]
    assert third["index"]
    assert "items=61" in call("demo", tmp_path / "d", "--items", 61, code=2)


def test_serve_answers_and_ctrl_c_ends_it(place: Path) -> None:
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command("serve", place / "index", "--port", port), stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/api/health", timeout=1) as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.1)
        form = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nred cushion\r\n--x--\r\n'
        request = urllib.request.Request(
            f"{address}/api/search", form, {"Content-Type": "multipart/form-data; boundary=x"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["results"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert address in err


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_message_and_exit_code_2(place: Path, tmp_path: Path, call: Call) -> None:
    shards, run, index = place / "shards", place / "run", place / "index"
    broken = tmp_path / "broken.jpg"
    whole = next((place / "d/catalogue/media/image").glob("*_0.jpg")).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    cases = {
        ("train", "scale", shards, "--run", run): "--resume",
        ("train", "scal", shards, "--run", tmp_path / "r"): "'scale'",
        ("train", "scale/referense", shards, "--run", tmp_path / "r"): "'reference'",
        ("train", "scale", shards, "--run", tmp_path / "r", "--set", "train.stepz=3"): "'steps'",
        ("train", "scale", shards, "--run", tmp_path / "r", "--modalities", "imag"): "'image'",
        ("train", "scale", shards, "--run", tmp_path / "r", "--size", "small"): "--size",
        ("train", "scale", tmp_path / "nowhere", "--run", tmp_path / "r"): "nowhere",
        ("train", "scale", shards): "no --run",
        ("train", "--resume", tmp_path): "run directory",
        ("embed", run, shards, "--out", tmp_path / "v.parquet", "--only", "txt"): "'text'",
        ("embed", run, shards, "--out", tmp_path / "v.parquet", "--split", "tset"): "'test'",
        ("embed", tmp_path, shards, "--out", tmp_path / "v.parquet"): "model folder",
        ("index", place / "d/catalogue/items.parquet", shards, "--out", tmp_path / "i"): "polymodal embed",
        ("index", place / "v.parquet", shards, "--out", place / "d/catalogue"): "something else",
        ("index", place / "v.parquet", shards, "--out", tmp_path / "i", "--kind", "exat"): "'exact'",
        ("search", index): "something to search by",
        ("search", index, "--text", "  "): "some words",
        ("search", index, "--image", tmp_path / "none.jpg"): "none.jpg",
        ("search", index, "--image", broken): "truncated",
        ("search", index, "--query", "imag=x"): "'image'",
        ("search", index, "--text", "a", "--where", "prise=1..2"): "'price'",
        ("search", index, "--text", "a", "--where", "price"): "NAME=VALUE",
        ("search", index, "--text", "a", "-k", 0): "at least 1",
        ("search", tmp_path, "--text", "a"): "polymodal index",
        ("similar", index, "nobody"): "nobody",
        ("evaluate", run, shards, "--out", tmp_path / "e", "--label", "colur"): "'colour'",
        ("evaluate", run, shards, "--out", tmp_path / "e", "--split", "tset"): "'test'",
        ("audit", tmp_path / "nowhere"): "nowhere",
        ("demo", place): "demo",
        ("recipes", "scal"): "'scale'",
        ("serch",): "search",
        ("search", index, "--txt", "a"): "--text",
    }
    for arguments, wanted in cases.items():
        err = call(*arguments, code=2)
        assert wanted in err, (arguments, err)
    assert not any((tmp_path / name).exists() for name in ("r", "v.parquet", "i", "e")), (
        "a refused command left something"
    )


def test_an_index_of_another_model_is_refused(place: Path, tmp_path: Path, call: Call) -> None:
    other = tmp_path / "other"
    call("train", "scale", place / "shards", "--run", other, "--set", "train.steps=1", "train.seed=5", *MICRO)
    err = call("search", place / "index", "--model", other, "--text", "a", code=2)
    digest = json.loads((place / "index/manifest.json").read_text())["model"]
    assert digest in err
    assert str(other) in err


def test_the_model_is_found_again_when_everything_moves(place: Path, tmp_path: Path, call: Call) -> None:
    import shutil

    for name in ("run", "index"):
        shutil.copytree(place / name, tmp_path / "moved" / name)
    source = tmp_path / "moved/index/source.json"
    places = json.loads(source.read_text())
    source.write_text(json.dumps({**places, "path": "/gone"}))
    assert call("search", tmp_path / "moved/index", "--text", "a", "--json")["hits"]
    shutil.rmtree(tmp_path / "moved/run")
    assert "--model" in call("search", tmp_path / "moved/index", "--text", "a", code=2)
