"""A release in M5Product's format, by the commands: import, audit, prepare, train; and the same of a generated one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from m5_release import CHANNELS, Release

from polymodal.catalogue.shards import Shards
from polymodal.cli import main
from polymodal.embed import Embedder

MICRO = [
    "model.width=16", "model.embedding=16", "model.tower.layers=1", "model.tower.heads=2", "model.trunk.layers=1",
    "model.trunk.heads=2", "train.batch_size=16", "train.log_every=1", "train.steps=2",
]  # fmt: skip
Call = Callable[..., Any]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process; what it printed as JSON."""

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.mark.slow
def test_a_release_is_imported_audited_prepared_and_trained_on(tmp_path: Path, call: Call) -> None:
    release = Release(tmp_path / "release")
    # sound when imported, but not when decoded: the next steps set it aside
    release.raw("images/102.jpg", (release.root / "images" / "102.jpg").read_bytes()[:-200])
    np.save(release.root / "features" / "video" / "104.npy", np.full((1, 8), np.nan, np.float32))
    release.raw("audios/101.mp3", "no sound")
    # malformed already when imported
    release.raw("regions/part2.tsv", "105\tshort\n")
    data, shards, run = tmp_path / "data", tmp_path / "shards", tmp_path / "run"

    made = call("import", "m5product", release.root, data)
    assert (made["rows"], made["quarantined"]) == (52, 1)
    assert made["reasons"] == {"regions": {"malformed": 1}}
    found = call("audit", data)
    assert (found["rows"], found["splits"]) == (52, {"test": 12, "train": 40})
    assert found["reasons"] == {
        "audio": {"wrong type": 1},
        "image": {"truncated": 1},
        "video_features": {"unreadable": 1},
    }
    assert found["modalities"]["image"]["present"] == made["present"]["image"] - 1
    assert found["modalities"]["regions"]["present"] == made["present"]["regions"]
    assert found["attributes"]["table"]["价格"]["numeric"] == 30
    prepared = call("prepare", data, shards)
    assert (prepared["rows"], prepared["quarantined"]) == (52, 3)
    stored = Shards.open(shards).block(0)
    assert {record.values["regions"].shape for record in stored if "regions" in record.values} == {(3, CHANNELS + 4)}
    # the boxes count as such when asked for
    boxes = ["modalities.regions.boxes=true", "modalities.regions.ordered=false"]
    trained = call("train", "scale", shards, "--run", run, "--set", *MICRO, *boxes)
    assert trained["steps"] == 2
    embedder = Embedder.load(run)
    assert embedder.modalities["regions"] == "features"
    assert np.isfinite(embedder.embed([record for record in stored if "regions" in record.values]).vectors).all()


@pytest.mark.slow
def test_a_generated_catalogue_is_trained_on(tmp_path: Path, call: Call) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    made = call("import", "generate", data, "--rows", 600, "--categories", 50)
    assert made["rows"] == 600
    found = call("audit", data, "--limit", 300)
    assert (found["rows"], found["total"], found["reasons"]) == (300, 600, {})
    # straight from the table: nothing to prepare, the media are in the cells
    assert call("train", "scale", data, "--run", run, "--set", *MICRO)["steps"] == 2
