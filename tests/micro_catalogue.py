"""A catalogue of words and attributes on disk, small enough to compare methods on within seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLOURS = ("red", "blue", "green", "black")
SHAPES = ("shoe", "lamp", "vase", "chair")

# models of a few thousand parameters
MICRO = (
    "model.width=16", "model.embedding=8", "model.unique=0", "model.tower.layers=1", "model.tower.heads=2",
    "model.trunk.layers=1", "model.trunk.heads=2", "train.batch_size=8", "train.precision=fp32",
)  # fmt: skip


def write(folder: Path, count: int = 48) -> Path:
    """`count` items of two modalities; some lack one of them. Groups are pairs, a fourth of them is for testing."""
    random = np.random.default_rng(0)
    rows = []
    for at in range(count):
        colour, shape = COLOURS[int(random.integers(4))], SHAPES[int(random.integers(4))]
        attributes = json.dumps({"colour": colour, "shape": shape, "price": int(random.integers(50))})
        rows.append(
            {
                "id": f"i{at:03d}",
                "group": f"g{at // 2:03d}",
                "split": "test" if at // 2 % 4 == 0 else "train",
                "title": None if at % 4 == 1 else f"{colour} {shape}",
                "facts": None if at % 6 == 4 else attributes,
                "colour": colour,
                "shape": shape,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    lines = ['table = "items.parquet"', 'id = "id"', 'group = "group"', 'split = "split"']
    lines.append('labels = ["colour", "shape"]')
    for name, kind, column in (("title", "text", "title"), ("facts", "table", "facts")):
        lines += ["", f"[modalities.{name}]", f'kind = "{kind}"', f'columns = ["{column}"]']
    (folder / "catalogue.toml").write_text("\n".join(lines) + "\n")
    return folder
