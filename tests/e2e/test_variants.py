"""benchmarks/variants.py: figures by hand, and from end to end on the micro shop."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import micro_catalogue
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import variants


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_the_correlation_is_the_one_that_was_planted(share):
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(3000), random.integers(1, 5, 3000))
    own = random.standard_normal(len(groups)) * (1 - share) ** 0.5
    errors = own + (random.standard_normal(3000) * share**0.5)[groups]
    assert variants.correlation(errors, groups) == pytest.approx(share, abs=0.03)


def test_halvings_hold_what_is_promised_and_vary_more_with_groups():
    random = np.random.default_rng(0)
    each, alone = np.abs(random.standard_normal(100)), np.arange(400)
    four = np.repeat(np.arange(100), 4)
    together = variants.coverage(np.repeat(each, 4), four, 0.8, 400)
    apart = variants.coverage(np.abs(random.standard_normal(400)), alone, 0.8, 400)
    for held in (together, apart):
        assert held.mean() == pytest.approx(0.8, abs=0.015)
    assert together.std() > 1.5 * apart.std()


def test_from_end_to_end(micro_shop, tmp_path, capsys):
    data = micro_catalogue.write(tmp_path / "catalogue", 240)
    rows = pq.read_table(data / "items.parquet").to_pylist()
    for at, row in enumerate(rows):
        row |= {"group": f"g{at // 6}", "split": "test" if at // 6 % 4 == 0 else "train"}
    pq.write_table(pa.Table.from_pylist(rows), data / "items.parquet")
    found = variants.main(["--run", str(micro_shop[0]), "--data", str(data), "--halvings", "20", "--json"])
    assert json.loads(capsys.readouterr().out) == found
    assert {one["way"] for one in found["ways"]} == {"head", "neighbours"}
    assert all(0.5 < one["held"] < 1 for one in found["ways"])
    assert all(one["groups"] < one["n"] and one["times"] > 0 for one in found["widths"])
    variants.main(["--run", str(micro_shop[0]), "--data", str(data), "--halvings", "20"])
    assert "times as wide" in capsys.readouterr().out
