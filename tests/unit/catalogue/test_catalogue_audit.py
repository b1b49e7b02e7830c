"""The audit counts what was planted, in text and JSON, whole or interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polymodal.catalogue.audit import audit
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource
from polymodal.catalogue.scripts import SCRIPTS, count_scripts, main_script
from polymodal.types import BadInput, MediaError

TITLES = [
    "red canvas shoe",
    "红色帆布鞋",
    "красная обувь",
    "حذاء أحمر",
    "빨간 신발",
    "カエルです",
    "κόκκινο",
    "נעל",
    "जूता",
    "รองเท้า",
    "501",
    "!?",
]


class Files:
    """Decodes a file as bytes; `bad` files are truncated."""

    def decode(self, source: Any) -> Any:
        content = source.read_bytes()
        if content == b"bad":
            raise MediaError("truncated", "ends early")
        return np.frombuffer(content, np.uint8)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    rows: list[dict[str, Any]] = []
    for n in range(400):
        (tmp_path / f"{n}.jpg").write_bytes(b"bad" if n == 8 else b"same" if n < 4 else f"picture {n}".encode())
        rows.append(
            {
                "id": str(n),
                "image": f"{n}.jpg" if n % 2 == 0 else None,
                "title": TITLES[n % 12] if n < 390 else None,
                "a": {"price": float(n), "colour": "red" if n % 4 else "blue"} if n < 100 else None,
                "sound": None,
                "g": n // 4,
                "split": "train" if n < 202 else "test",
                "label_kind": "shoe" if n < 200 else "hat" if n < 360 else f"rare{n}" if n < 380 else None,
            }
        )
    rows[10]["image"] = "../secret.jpg"
    rows[12]["image"] = "none.jpg"
    rows[5]["a"] = {"price": float("nan"), "colour": float("inf")}
    rows[7]["title"] = "x" * 500
    rows += [{"id": "3", "title": "again"}, {"id": "3"}, {"id": None}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sources = {"image": "image", "text": "title", "table": "a", "audio": "sound"}
    return Catalogue(
        CatalogueConfig(
            path=str(tmp_path),
            table="items.jsonl",
            id="id",
            group="g",
            split="split",
            labels=("label_kind",),
            modalities={kind: ModalitySource(kind=kind, columns=(column,)) for kind, column in sources.items()},
            max_text=100,
        )
    )


def test_everything_planted_is_found(catalogue: Catalogue) -> None:
    seen: list[tuple[int, int]] = []
    found = audit(catalogue, {"image": Files()}, progress=lambda *at: seen.append(at))
    assert seen == [(256, 400), (400, 400)]
    assert (found.rows, found.total, found.dropped, found.complete, found.decoded) == (400, 400, 3, True, True)
    assert found.duplicates == {"3": 2}
    # 200 even rows, less the truncated, the escaping and the missing one
    assert found.modalities["image"]["present"] == 197
    assert found.modalities["image"]["identical"] == 2
    assert found.modalities["image"]["most_repeated"] == {"cells": 2, "id": "0"}
    assert found.modalities["audio"]["present"] == 0
    assert found.empty == 5
    assert sum(found.patterns.values()) == 400
    assert found.patterns["nothing"] == 5
    assert found.patterns["image"] == 5
    assert found.reasons["image"] == {"outside the media root": 1, "missing": 1, "truncated": 1}
    assert found.reasons["text"] == {"cut to the limit": 1}
    assert found.reasons[""] == {"duplicate id": 2, "no id": 1}
    assert ("8", "image", "8.jpg", "truncated") in [(e.id, e.modality, e.source, e.reason) for e in found.quarantine]
    assert found.splits == {"test": 198, "train": 202}
    assert found.groups == {"groups": 100, "rows": 400, "largest": 4, "of_several_rows": 100, "cut": 1}


def test_labels_attributes_and_scripts(catalogue: Catalogue) -> None:
    found = audit(catalogue, {"image": Files()})
    kind = found.labels["kind"]
    assert (kind["rows"], kind["values"], kind["singletons"]) == (380, 22, 20)
    assert [kind[part]["values"] for part in ("head", "torso", "tail")] == [1, 1, 20]
    assert [kind[part]["rows"] for part in ("head", "torso", "tail")] == [200, 160, 20]
    assert list(kind["top"].items())[:2] == [("shoe", 200), ("hat", 160)]
    price, colour = found.attributes["table"]["price"], found.attributes["table"]["colour"]
    assert (price["rows"], price["numeric"], price["symbolic"], price["not_finite"]) == (99, 99, 0, 1)
    assert (price["minimum"], price["maximum"]) == (0.0, 99.0)
    assert (colour["symbolic"], colour["values"], colour["not_finite"]) == (99, 2, 1)
    rows = {script: s["rows"] for script, s in found.scripts["text"].items()}
    assert set(rows) == {
        "Latin",
        "Han",
        "Cyrillic",
        "Arabic",
        "Hangul",
        "Kana",
        "Greek",
        "Hebrew",
        "Devanagari",
        "Thai",
        "digits",
        "other",
    }
    assert sum(rows.values()) == found.modalities["text"]["present"] == 390
    assert found.modalities["text"]["characters"]["max"] == 100


def test_warnings_name_what_matters(catalogue: Catalogue) -> None:
    told = "\n".join(audit(catalogue, {"image": Files()}).warnings)
    for words in (
        "No row has audio",
        "5 rows have no usable modality",
        "3 rows are left out",
        "1 groups have rows in several splits",
        "image: 3 files or cells cannot be used",
        "text: 1 cells were cut",
        "2 attribute numbers are NaN or infinite",
        "text: 389 of 390 cells have a twin",
    ):
        assert words in told
    assert "verbatim" not in told


def test_label_in_the_text_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,title,category\n1,A red Shoe,shoe\n2,a hat,hat\n3,nothing,hat\n")
    catalogue = Catalogue.open(tmp_path / "a.csv")
    assert "Label category stands verbatim in the text of 2 of 3 rows" in "\n".join(audit(catalogue).warnings)


def test_json_and_text(catalogue: Catalogue) -> None:
    found = audit(catalogue, {"image": Files()})
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert again["patterns"] == found.patterns
    assert again["quarantine"][0]["reason"] == "duplicate id"
    text = found.to_text(listed=3)
    for words in (
        "400 rows, 3 left out, 5 with nothing",
        "Present together",
        "Scripts of text",
        "truncated",
        "price",
        "… and",
        "  ! ",
    ):
        assert words in text


def test_without_decoding_broken_files_count_as_present(catalogue: Catalogue) -> None:
    found = audit(catalogue, {"image": Files()}, decode=False)
    assert not found.decoded
    assert found.modalities["image"]["present"] == 198
    assert "media not decoded" in found.to_text()


def test_limited_and_interrupted(catalogue: Catalogue) -> None:
    for limit in (10, 256, 300):
        limited = audit(catalogue, limit=limit)
        assert (limited.rows, limited.complete) == (limit, False)
        assert sum(limited.patterns.values()) == sum(limited.splits.values()) == limit
    assert audit(catalogue, limit=400).complete
    # a limit is about the cells too: row 10 leads out, row 12 names no file, row 5 has two numbers that are none
    assert "image" not in audit(catalogue, limit=10).reasons
    assert audit(catalogue, limit=11).reasons["image"] == {"outside the media root": 1}
    assert sum(a["not_finite"] for a in audit(catalogue, limit=5).attributes["table"].values()) == 0
    assert sum(a["not_finite"] for a in audit(catalogue, limit=6).attributes["table"].values()) == 2

    def stop(rows: int, total: int) -> None:
        raise KeyboardInterrupt

    interrupted = audit(catalogue, progress=stop)
    assert (interrupted.rows, interrupted.complete, interrupted.total) == (256, False, 400)
    assert sum(interrupted.splits.values()) == 256
    assert "not complete" in interrupted.to_text()
    with pytest.raises(BadInput):
        audit(catalogue, limit=0)


def test_scripts_by_character() -> None:
    for text, script in zip(
        TITLES,
        [
            "Latin",
            "Han",
            "Cyrillic",
            "Arabic",
            "Hangul",
            "Kana",
            "Greek",
            "Hebrew",
            "Devanagari",
            "Thai",
            "digits",
            "other",
        ],
        strict=True,
    ):
        assert main_script(count_scripts(text)) == script
    counts = dict(zip(SCRIPTS, count_scripts("aé1 红🐸"), strict=True))
    assert {name: n for name, n in counts.items() if n} == {"Latin": 2, "digits": 1, "Han": 1, "pictographs": 1}
    assert count_scripts("").sum() == 0
