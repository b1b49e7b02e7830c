"""A generated catalogue, opened for tests."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from polymodal.catalogue.demo import DemoConfig, generate


class Catalogue:
    """A generated folder, read as a user would."""

    def __init__(self, root: Path, config: DemoConfig) -> None:
        self.root, self.config = root, config
        self.truth = generate(root, config)
        self.rows: list[dict[str, Any]] = pq.read_table(root / "items.parquet").to_pylist()
        self.by_id = {row["id"]: row for row in self.rows}

    def picture(self, row: dict[str, Any], number: int = 0) -> np.ndarray:
        return np.asarray(Image.open(self.root / row["image"][number]).convert("RGB"))

    def clip(self, row: dict[str, Any]) -> np.ndarray:
        with av.open(str(self.root / row["video"])) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    def samples(self, row: dict[str, Any]) -> np.ndarray:
        with wave.open(str(self.root / row["audio"])) as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
