"""A generated catalogue with M5Product's statistics, of any size, streamed: what a million rows ask of the library.

=====================  ==============================  ================================================================
statistic              M5Product                       here
=====================  ==============================  ================================================================
incomplete rows        about 20 %                      `incomplete`, 20 %: they lack one to four of five modalities
of one modality        about 5 %                       `unimodal`, 5 % (they are among the incomplete)
categories             6,232, long-tailed              `categories`, Zipf-Mandelbrot with exponent `tail`
attribute names        5,679                           `names`; a category draws from 40 of them
attribute values       24,398,673 (3.9 a product)      3.9 a row in the mean, one to sixteen
products               listings; "same product" pairs  a fifth of the odd rows is another listing of the row before
=====================  ==============================  ================================================================

Everything else is small on purpose: a thumbnail of 16 x 16 pixels, vectors of 16 numbers for frames and sounds, made-up
Han words. What a modality tells: the title, table, picture and both vectors the category; the picture and the vectors
also two factors of the product, so that modalities of one row agree in more than their category.

A row is a function of (config without `rows`, row number). No row needs another block of 256 than its own, so any range
of rows can be made alone and is the same to the bit (pictures: with the same version of libjpeg). Random numbers are
raw bits of PCG64, whose stream numpy guarantees.

Source: M5Product (Dong et al., CVPR 2022) for the numbers in the table; the rest is ours. Which modalities the
incomplete rows lack is not published: here video and audio four times as often as a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg
from pydantic import Field, model_validator

from polymodal.catalogue._parts import Parts, new_folder
from polymodal.catalogue.codec import write_npy
from polymodal.catalogue.schema import CONFIG_NAME, CatalogueConfig, ModalitySource
from polymodal.catalogue.tables import BLOCK
from polymodal.config import Config

__all__ = ["MODALITIES", "Generated", "ScaleUpConfig", "blocks", "generate"]

MODALITIES = ("image", "text", "table", "video", "audio")
Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

# how often an incomplete row lacks each modality, and how often it is the only one, both ours (see above)
_LACKS = np.array([1.0, 0.5, 2.0, 4.0, 4.0])
_ALONE = np.array([0.35, 0.45, 0.10, 0.05, 0.05])
# one, two or three modalities are lacking
_HOW_MANY = np.array([0.5, 0.85, 1.0])
_SIDE, _CHANNELS, _FRAMES, _WORDS, _OWN_NAMES, _MOST_PAIRS = 16, 16, 4, 10, 40, 16
_FIRST_HAN, _HAN = 0x4E00, 4000
_CATEGORY_STREAM, _ROW_STREAM = 1, 2


class ScaleUpConfig(Config):
    """Knobs of the catalogue.

    Args:
        rows: how many.
        seed: decides everything else.
        categories: of the label; a rare one may have no row.
        tail: exponent of the category frequencies, p(k) ~ (k + 2.7)^-tail; 0 for even ones.
        names: attribute names in all.
        incomplete: share of rows that lack a modality.
        unimodal: share of rows that have exactly one.
        test, val: shares of the products that are held out.
    """

    rows: int = Field(1_000_000, ge=1)
    seed: int = Field(0, ge=0)
    categories: int = Field(6232, ge=1)
    tail: float = Field(1.0, ge=0)
    names: int = Field(5679, ge=_OWN_NAMES)
    incomplete: float = Field(0.2, ge=0, le=1)
    unimodal: float = Field(0.05, ge=0, le=1)
    test: float = Field(0.05, ge=0, le=0.5)
    val: float = Field(0.05, ge=0, le=0.5)

    @model_validator(mode="after")
    def _shares(self) -> ScaleUpConfig:
        if self.unimodal > self.incomplete:
            raise ValueError("unimodal rows are incomplete: unimodal must not exceed incomplete")
        return self


@dataclass(frozen=True)
class Generated:
    """What `generate` left on disk.

    Args:
        folder: the catalogue.
        rows: in it.
        bytes: of its tables.
        present: modality -> rows that have it.
        complete, unimodal: rows with all modalities, with exactly one.
        categories: that have a row.
    """

    folder: Path
    rows: int
    bytes: int
    present: dict[str, int]
    complete: int
    unimodal: int
    categories: int


def generate(root: Path, config: ScaleUpConfig | None = None, progress: Progress | None = None) -> Generated:
    """Write the catalogue into the new folder `root`: items/part-*.parquet and catalogue.toml. Media are in the cells.

    Memory does not grow with the rows. The folder appears when it is whole.

    Args:
        root: a folder that does not exist yet, or is empty.
        config: the knobs.
        progress: called after every block with rows done and rows in all.

    Raises:
        BadInput: `root` holds something already.
    """
    config = config or ScaleUpConfig()
    present, had = np.zeros(len(MODALITIES), np.int64), np.zeros(config.categories, bool)
    sizes = np.zeros(len(MODALITIES) + 1, np.int64)
    with new_folder(Path(root)) as folder:
        with Parts(folder / "items", _schema()) as parts:
            for plan, columns in _planned(config, 0, config.rows):
                parts.write(columns)
                present += plan.present.sum(0)
                sizes += np.bincount(plan.present.sum(1), minlength=len(sizes))
                had[plan.category] = True
                if progress is not None:
                    progress(parts.rows, config.rows)
        _describe().write(folder / CONFIG_NAME)
    size = sum(part.stat().st_size for part in (Path(root) / "items").iterdir())
    counts = dict(zip(MODALITIES, present.tolist(), strict=True))
    return Generated(Path(root), config.rows, size, counts, int(sizes[-1]), int(sizes[1]), int(had.sum()))


def blocks(config: ScaleUpConfig, start: int = 0, stop: int | None = None) -> Iterator[dict[str, list[Any]]]:
    """The columns of rows [start, stop), a block at a time; None is an absent cell. The same rows however cut."""
    for _, columns in _planned(config, start, config.rows if stop is None else min(stop, config.rows)):
        yield columns


def _describe() -> CatalogueConfig:
    kinds = {"image": "image", "text": "text", "table": "table", "video": "features", "audio": "features"}
    columns = {"text": "title", "table": "attributes"}
    sources = {n: ModalitySource(kind=kind, columns=(columns.get(n, n),)) for n, kind in kinds.items()}
    return CatalogueConfig(
        table="items", id="id", group="product", split="split", labels=("category",), modalities=sources
    )


def _schema() -> pa.Schema:
    text, binary = pa.string(), pa.large_binary()
    words = [(name, text) for name in ("id", "product", "split", "category", "title", "attributes")]
    return pa.schema([*words, *((name, binary) for name in ("image", "video", "audio"))])


# -- one block -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the rows of one block are before they are written: (n,) or (n, ...) each."""

    rows: npt.NDArray[np.int64]
    product: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    split: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    factors: Floats
    draws: Floats


def _planned(config: ScaleUpConfig, start: int, stop: int) -> Iterator[tuple[_Plan, dict[str, list[Any]]]]:
    world = _World(config)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        plan = world.plan(block)
        inside = slice(max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK))
        plan = _Plan(**{name: value[inside] for name, value in vars(plan).items()})
        yield plan, world.columns(plan)


class _World:
    """What all rows share: the frequencies of the categories, and what each category looks like."""

    def __init__(self, config: ScaleUpConfig) -> None:
        self._config = config
        weights = (np.arange(config.categories) + 2.7) ** -config.tail
        self._ends = np.cumsum(weights) / weights.sum()
        draws = _uniform([config.seed, _CATEGORY_STREAM], (config.categories, _WORDS + _OWN_NAMES + 3 * _CHANNELS + 6))
        cuts = np.cumsum([_WORDS, _OWN_NAMES, 6])
        words, names, self._colours, self._vectors = np.split(draws, cuts, axis=1)
        self._words = (words * 20_000).astype(np.int64)
        self._names = (names * config.names).astype(np.int64)

    def plan(self, block: int) -> _Plan:
        """All 256 rows of a block, those beyond the last one of the catalogue too."""
        draws = _uniform(
            [self._config.seed, _ROW_STREAM, block], (BLOCK, 20 + 3 * _MOST_PAIRS + _WORDS + _CHANNELS * 8)
        )
        rows = np.arange(block * BLOCK, (block + 1) * BLOCK)
        # another listing of the product of the row before: it takes over what belongs to the product
        first = np.arange(BLOCK)
        again = (first % 2 == 1) & (draws[:, 0] < 0.2)
        first = first - again
        category = np.minimum(np.searchsorted(self._ends, draws[first, 1]), self._config.categories - 1)
        held_out = np.cumsum([self._config.test, self._config.val])
        split = np.searchsorted(held_out, draws[first, 2], side="right")
        present = _presence(draws[:, 3:10], self._config)
        return _Plan(rows, rows[first], category, split, present, draws[first, 10:12], draws[:, 12:])

    def columns(self, plan: _Plan) -> dict[str, list[Any]]:
        """The cells; None where absent."""
        at = np.split(plan.draws, np.cumsum([8, 3 * _MOST_PAIRS, _WORDS, _FRAMES * _CHANNELS]), axis=1)
        made: dict[str, list[Any]] = {
            "image": self._pictures(plan, at[0]),
            "title": self._titles(plan, at[2]),
            "attributes": self._tables(plan, at[0][:, -1], at[1]),
            "video": self._tokens(plan, at[3], at[0][:, -2], 0),
            "audio": self._tokens(plan, at[4], at[0][:, -3], 1),
        }
        for place, name in enumerate(made):
            made[name] = [cell if has else None for cell, has in zip(made[name], plan.present[:, place], strict=True)]
        splits = ("test", "val", "train")
        return made | {
            "id": [f"R{row:09d}" for row in plan.rows.tolist()],
            "product": [f"P{row:09d}" for row in plan.product.tolist()],
            "split": [splits[part] for part in plan.split.tolist()],
            "category": [f"C{number:05d}" for number in plan.category.tolist()],
        }

    def _titles(self, plan: _Plan, draws: Floats) -> list[str]:
        """Four to eight words: two thirds of the category's ten, the rest anyone's."""
        own = self._words[plan.category]
        places = (draws * 3 * _WORDS).astype(np.int64)
        chosen = np.where(places < 2 * _WORDS, np.take_along_axis(own, places % _WORDS, 1), places * 613 + own[:, :1])
        lengths = (4 + draws[:, -1] * 5).astype(np.int64)
        words = (chosen % 20_000).tolist()
        return ["".join(map(_word, line[:n])) for line, n in zip(words, lengths.tolist(), strict=True)]

    def _tables(self, plan: _Plan, count: Floats, draws: Floats) -> list[str]:
        """JSON lists of pairs: every fourth name has numbers, the others one of 30 words. A name comes once in a row,
        so that 3.9 pairs of different names take 4.5 draws."""
        pairs = 1 + np.floor(np.log1p(-count) / np.log(3.5 / 4.5)).astype(np.int64)
        name, value, detail = np.split(draws, 3, axis=1)
        names = np.take_along_axis(self._names[plan.category], (name**2 * _OWN_NAMES).astype(np.int64), 1)
        numbers = np.round(10 ** (names % 5) * (0.1 + value + detail), 2)
        words = (names * 31 + (value * detail * 30).astype(np.int64)) % 20_000
        made = []
        lines = zip(names.tolist(), numbers.tolist(), words.tolist(), pairs.tolist(), strict=True)
        for row_names, row_numbers, row_words, n in lines:
            cells = list(zip(row_names, row_numbers, row_words, strict=True))[: min(n, _MOST_PAIRS)]
            found = {f"{_word(k)}{k}": number if k % 4 == 0 else _word(w) for k, number, w in cells}
            made.append(json.dumps(list(found.items()), ensure_ascii=False))
        return made

    def _tokens(self, plan: _Plan, draws: Floats, count: Floats, stream: int) -> list[bytes]:
        """One to four vectors of float16: the category's, the product's two factors, and noise."""
        centre = self._vectors[plan.category][:, (1 + stream) * _CHANNELS : (2 + stream) * _CHANNELS] * 2 - 1
        noise = draws.reshape(len(draws), _FRAMES, _CHANNELS) - 0.5
        vectors = centre[:, None] + noise
        vectors[:, :, :2] += 3 * plan.factors[:, None] - 1.5
        lengths = 1 + (count * _FRAMES).astype(np.int64)
        cells = vectors.astype(np.float16)
        return [write_npy(cell[:n]) for cell, n in zip(cells, lengths.tolist(), strict=True)]

    def _pictures(self, plan: _Plan, draws: Floats) -> list[bytes]:
        """JPEG of two of the category's colours, split where the product's factors say; a little light is the row's."""
        colours = self._colours[plan.category].reshape(-1, 2, 1, 1, 3) * (0.8 + 0.2 * draws[:, None, None, None, :1])
        grid = (np.arange(_SIDE) + 0.5) / _SIDE
        inside = grid[None, :, None] * 0.5 + grid[None, None, :] < 0.25 + plan.factors.sum(1)[:, None, None] / 2
        pixels = np.where(inside[..., None], colours[:, 0], colours[:, 1]) * 255
        return [simplejpeg.encode_jpeg(np.ascontiguousarray(p), quality=80) for p in pixels.astype(np.uint8)]


def _presence(draws: Floats, config: ScaleUpConfig) -> npt.NDArray[np.bool_]:
    """(n, 7) draws -> which of the five modalities each row has, never none."""
    n = len(draws)
    # weighted order without replacement (Efraimidis and Spirakis 2006): the largest u^(1/w) come first
    order = np.argsort(-(draws[:, :5] ** (1 / _LACKS)), axis=1)
    lacking = np.where(draws[:, 5] < config.incomplete, 1 + np.searchsorted(_HOW_MANY, draws[:, 6]), 0)
    present = np.ones((n, len(MODALITIES)), bool)
    np.put_along_axis(present, order, np.arange(len(MODALITIES)) >= lacking[:, None], axis=1)
    only = np.searchsorted(np.cumsum(_ALONE)[:-1], draws[:, 6], side="right")
    alone = draws[:, 5] < config.unimodal
    present[alone] = np.arange(len(MODALITIES)) == only[alone, None]
    return present


def _uniform(key: list[int], shape: tuple[int, int]) -> Floats:
    """Numbers in [0, 1) of 53 bits."""
    bits = np.random.PCG64(np.random.SeedSequence(key)).random_raw(shape[0] * shape[1])
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def _word(number: int) -> str:
    """Word `number` of 20,000: two Han characters that mean nothing together."""
    return chr(_FIRST_HAN + number * 7 % _HAN) + chr(_FIRST_HAN + number // 5 % _HAN)
