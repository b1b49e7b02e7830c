"""`polymodal compare` and `polymodal bench` as a user calls them, on a generated shop with five modalities."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polymodal.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
MICRO = [
    "model.width=16", "model.embedding=8", "model.tower.layers=1", "model.tower.heads=2", "model.trunk.layers=1",
    "model.trunk.heads=2", "train.batch_size=16",
]  # fmt: skip
EQUAL = "scale:objective.harmonise.form=none"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "import sys; from polymodal.cli import main; sys.exit(main())", *map(str, arguments)]


def test_methods_are_compared_on_a_shop_and_ctrl_c_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", str(tmp_path / "shop"), "--items", "80", "--only-data"]) == 0
    data, out = tmp_path / "shop" / "catalogue", tmp_path / "out"
    asked = ["compare", data, "--out", out, "--methods", "scale", EQUAL, "--modalities", "all", "text,image"]
    asked += ["--seeds", 0, "--budget-steps", 3, "--label", "shape", "--json", "--set", *MICRO]
    # a shell gives its background jobs an ignored SIGINT, which children inherit
    process = subprocess.Popen(
        command(*asked),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 240
    while not list(out.glob("runs/*/done.json")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (3, ""), said
    assert "same command" in said
    assert "Traceback" not in said
    first = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/done.json")}
    assert first
    capsys.readouterr()
    assert main([str(one) for one in asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(path.stat().st_mtime_ns == when for path, when in first.items())
    assert [(r["method"], len(r["setting"]["modalities"]), r["error"]) for r in found["runs"]] == [
        ("scale", 5, ""), (EQUAL, 5, ""), ("scale", 2, ""), (EQUAL, 2, "")
    ]  # fmt: skip
    assert all(r["figures"]["coarse/standard/map@10"] > 0 for r in found["runs"])
    assert "added/text+image+table+video+audio/accuracy" in found["runs"][0]["figures"]
    assert found == json.loads((out / "compare.json").read_text())
    assert sorted(path.name for path in out.glob("*.png")) == found["pictures"]
    assert len(found["pictures"]) == 4


@pytest.mark.skipif(not (DATA / "luma" / "records.parquet").is_file(), reason="needs ../shared/data")
def test_a_real_catalogue_is_compared_and_one_that_is_not_there_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import compare_real
    from test_real_data import small_luma

    data = small_luma(tmp_path / "data")
    settings = [one for setting in MICRO for one in ("--set", setting)]
    asked = ["stamps", "luma", "--data", str(data), "--out", str(tmp_path / "out"), "--methods", "scale"]
    asked += ["--modalities", "image,text", "--seeds", "0", "--budget-steps", "2", "--on", "val", "--threads", "1"]
    found = compare_real.main([*asked, "--json", *settings])
    out, err = capsys.readouterr()
    assert "stamps: not in" in err
    assert json.loads(out).keys() == found.keys() == {"luma"}
    (run,) = found["luma"]["runs"]
    assert run["error"] == ""
    assert run["figures"]["items"] == 42  # variants of the val split, and no reviews
    assert found["luma"]["settings"]["label"] == "category"
