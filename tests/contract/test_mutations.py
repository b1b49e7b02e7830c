"""Three of the defects of tests/mutations.py; the command itself checks all."""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, ROOT, check

NAMED = {m.name: m for m in MUTATIONS}


def test_every_mutation_still_fits_the_code():
    assert len(NAMED) == len(MUTATIONS) >= 10
    for mutation in MUTATIONS:
        assert (ROOT / "polymodal" / mutation.file).read_text().count(mutation.old) == 1, mutation.name
        assert mutation.old != mutation.new
        assert all((ROOT / test).exists() for test in mutation.tests)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["candidates with an absent side kept as negatives", "mean divides by everything", "bucket mask ignored"]
)
def test_a_defect_put_back_is_caught(name):
    assert check(NAMED[name]) == "caught"
