"""Values as people read them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from polymodal.tasks.outliers import Strange
from polymodal.workflow.outlier_text import outlier_text
from polymodal.workflow.outliers import OutlierResult
from polymodal.workflow.printing import short_text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"price": {"min": 10.0, "max": 50}}, "price=10..50"),
        ({"price": {"max": 5}, "brand": ["Kivi", "Lumo"]}, "price=..5, brand=Kivi/Lumo"),
        ({"price": {"min": 0}}, "price=0.."),
        ({}, ""),
        ("a" * 80, "a" * 59 + "…"),
    ],
)
def test_on_one_line(value, shown):
    assert short_text(value) == shown


def test_a_description_for_a_title_does_not_flood_the_table():
    strange = Strange("a", 3.0, "image does not fit the rest", "image", {})
    result = OutlierResult(
        Path("out"), "m", 1, "", (strange,), {"a": "long words " * 90}, (), (), (), {}, {}, ()
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=120)
    console.print(outlier_text(result))
    said = console.file.getvalue()
    assert "long words" in said
    assert len(said.splitlines()) < 12
