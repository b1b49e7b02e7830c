"""Values as people read them."""

from __future__ import annotations

import pytest

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
