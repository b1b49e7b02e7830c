"""What the import commands say of what they made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from m5_release import Release, entry

from polymodal.types import BadInput
from polymodal.workflow.importing import generate_catalogue, import_release


def test_an_import_says_what_it_read_and_what_it_left(tmp_path: Path) -> None:
    release = Release(tmp_path / "release")
    release.json("all_id_label.json", {"100": entry(100), "300": {"title": "a", "image": "http://x.invalid/a.jpg"}})
    release.raw("regions/part2.tsv", "9\tshort\n999\t1\t1\t1\tAA\tAA\n")
    release.raw("README.pdf", "%PDF")
    seen: list[int] = []
    result = import_release(release.root, tmp_path / "out", seen.append)
    assert seen[-1] == result.made.rows == 53
    text = result.to_text()
    for words in (
        f"53 rows in {tmp_path / 'out'}",
        "text 100.0%",
        "list coarse_query: 3 of 3 ids have a row",
        "1 entries repeat",
        "links, not fetched: image 1",
        "1 region lines belong to no row",
        "1 entries, lines and files set aside",
        "regions: malformed 1",
        "not read: README.pdf",
        f"Next: polymodal audit {tmp_path / 'out'}",
    ):
        assert words in text
    assert json.loads(json.dumps(result.to_json()))["present"]["text"] == 53


def test_a_generated_catalogue_says_its_shares(tmp_path: Path) -> None:
    result = generate_catalogue(tmp_path / "out", {"rows": 300, "incomplete": 0.0, "unimodal": 0.0})
    text = result.to_text()
    assert "300 rows in" in text
    assert "0.0% lack a modality, 0.0% have exactly one" in text
    assert result.made.bytes == sum(file.stat().st_size for file in (tmp_path / "out" / "items").iterdir())
    assert json.loads(json.dumps(result.to_json()))["rows"] == 300
    with pytest.raises(BadInput, match="rows"):
        generate_catalogue(tmp_path / "other", {"rows": 0})
