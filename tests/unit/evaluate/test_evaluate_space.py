"""The map of the report: what its data say is so."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from polymodal.evaluate import Report
from polymodal.evaluate.space import space_map
from polymodal.types import Embeddings

pytest.importorskip("sklearn")

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def report(n: int = 40, pictures: bool = True) -> Report:
    x = np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    ids = tuple(f"i{k:02d}" for k in range(n))
    thumbs = {}
    for k, i in enumerate(ids):
        file = io.BytesIO()
        Image.new("RGB", (30, 60), COLOURS[k % 3]).save(file, "PNG")
        thumbs[i] = file.getvalue() if k % 4 else b"broken"
    return Report(
        "t",
        "c",
        space=Embeddings(ids, x / np.linalg.norm(x, axis=1, keepdims=True), "m"),
        space_labels={i: f"label {k % 13}" for k, i in enumerate(ids) if k},
        space_label="kind",
        space_presence={i: frozenset({"text"} if k % 2 else {"image", "text"}) for k, i in enumerate(ids)},
        thumbnails=thumbs if pictures else {},
    )


def data_of(body: str) -> dict:
    return json.loads(re.search(r'id="space-data">(.*?)</script>', body, re.DOTALL)[1])


def test_neighbours_and_colours_are_those_of_the_items():
    made = report()
    body, _ = space_map(made)
    data = data_of(body)
    assert made.space is not None
    scores = made.space.vectors @ made.space.vectors.T
    np.fill_diagonal(scores, -1)
    np.testing.assert_array_equal(data["near"], np.argsort(-scores, 1)[:, :5])
    label, pattern, cluster = data["colourings"]
    assert (label["name"], pattern["name"], cluster["name"]) == ("kind", "what an item has", "cluster")
    assert len(label["names"]) == 10  # as many as there are colours; the others are grey
    for i, code in zip(data["ids"], label["codes"], strict=True):
        own = made.space_labels.get(i)
        assert code == (label["names"].index(own) if own in label["names"] else -1)
    assert [pattern["names"][c] for c in pattern["codes"][:2]] == ["image + text", "text"]
    assert body.count("<circle") == 40
    assert all(0 <= x <= 1000 and 0 <= y <= 720 for x, y in data["at"])


def test_every_thumbnail_is_where_the_data_say():
    body, _ = space_map(report())
    data = data_of(body)
    sheet = re.search(r'href="data:image/jpeg;base64,([^"]+)"', body)[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))))
    for k, number in enumerate(data["thumbs"]):
        if k % 4 == 0:
            assert number == -1  # it could not be read
            continue
        side = data["side"]
        top, left = number // data["across"] * side, number % data["across"] * side
        middle = pixels[top + side // 2, left + side // 2].astype(int)
        assert np.abs(middle - COLOURS[k % 3]).max() < 25


def test_more_items_than_points_are_drawn_by_the_seed():
    first, lead = space_map(report(), most=12)
    assert first.count("<circle") == 12
    assert "12 of 40 items" in lead
    assert data_of(first)["ids"] == data_of(space_map(report(), most=12)[0])["ids"]
    assert data_of(first)["ids"] != data_of(space_map(report(), most=12, seed=1)[0])["ids"]


def test_without_pictures_labels_or_many_items_there_is_still_a_map():
    body, _ = space_map(report(pictures=False))
    markup = re.sub(r"<script>.*</script>", "", body, flags=re.DOTALL)
    assert "space-sheet" not in markup
    assert "space-show" not in markup
    few = Report("t", "c", space=Embeddings(("a", "b"), np.eye(2, dtype=np.float32), "m"))
    body, lead = space_map(few)
    assert data_of(body)["colourings"] == []
    assert "PCA" in lead
