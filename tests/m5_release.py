"""A made-up release in M5Product's format, small, sound unless a test breaks something. Nothing of it is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from polymodal.catalogue.m5product import Region, format_pv, write_region

LABELS = ["shoes", "hats", "lamps"]
CHANNELS = 6


def region(name: str, title: str = "", n: int = 3, channels: int = CHANNELS) -> Region:
    """What a detector might have seen: `n` boxes inside a picture of 80 x 60."""
    numbers = np.random.default_rng(int(name) if name.isdigit() else 0)
    corners = np.sort(numbers.random((n, 2, 2)), 1).reshape(n, 4) * [80, 60, 80, 60]
    features = numbers.normal(size=(n, channels))
    return Region(name, 80, 60, corners.astype(np.float32), features.astype(np.float32), title)


def entry(number: int) -> dict[str, Any]:
    """The record of product `number`, as the code of the paper reads it."""
    pairs = [("颜色", f"红{number % 4}"), ("材质", "皮"), ("价格", str(10 + number))]
    return {
        "title": f"商品 {LABELS[number % 3]} {number}",
        "pv": format_pv(pairs) if number % 4 else "0",
        "label": LABELS[number % 3],
        "url": f"https://example.invalid/{number}",
    }


def documented(number: int) -> dict[str, Any]:
    """The same as the data set's web page documents it."""
    plain = entry(number)
    table = {"颜色": f"红{number % 4}", "材质": ["皮", "布"]}
    return {"item_id": str(number), "caption": plain["title"], "tabular": table, "label": plain["label"]}


class Release:
    """A folder of 40 training and 12 test products; every third has a picture, most have regions, video features.

    Args:
        root: made here.
    """

    train, test = range(100, 140), range(200, 212)

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("annotations", "regions", "images", "videos", "audios", "features/video"):
            (root / folder).mkdir(parents=True)
        self.json("annotations/train_id_label.json", {str(n): entry(n) for n in self.train})
        self.json("annotations/test_id_label.json", [documented(n) for n in self.test])
        self.json("annotations/label_list.json", LABELS)
        self.json("coarse_gallery_ids.json", [str(n) for n in self.test[3:]])
        (root / "coarse_query_ids.txt").write_text("".join(f"{n}\n" for n in self.test[:3]), "utf-8")
        self.json("fine_query.json", {str(n): 1 for n in self.test[:2]})
        lines = [write_region(region(str(n), entry(n)["title"])) for n in (*self.train, *self.test) if n % 5]
        (root / "regions" / "part0.tsv").write_bytes(b"".join(lines[::2]))
        (root / "regions" / "part1.tsv").write_bytes(b"".join(lines[1::2]))
        numbers = np.random.default_rng(0)
        for n in (*self.train, *self.test):
            if n % 3 == 0:
                (root / "images" / f"{n}.jpg").write_bytes(picture(n))
            if n % 2 == 0:
                vectors = numbers.normal(size=(2, 8)).astype(np.float16)
                np.save(root / "features" / "video" / f"{n}.npy", vectors)

    def json(self, name: str, content: Any) -> None:
        """Write one file."""
        (self.root / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")

    def raw(self, name: str, content: str | bytes) -> None:
        """Write one file as it is."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def picture(number: int) -> bytes:
    """A small JPEG."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.repeat(8, 0).repeat(8, 1)))
