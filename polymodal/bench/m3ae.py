"""Do titles teach the vector of a picture, how much of them should be hidden, must they stand beside their pictures?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from polymodal.bench._base import Cell, Options, Result, Table, over_seeds
from polymodal.bench._kept import kept
from polymodal.catalogue.demo import FACTORS, DemoConfig, generate
from polymodal.catalogue.loader import Loader
from polymodal.catalogue.sampler import BlockShuffle
from polymodal.draws import uniform
from polymodal.embed import Embedder
from polymodal.evaluate import knn_probe, linear_probe
from polymodal.modality import Fitted
from polymodal.model import ITEM, Model
from polymodal.recipe import Recipe, build_model
from polymodal.recipes.m3ae import recipe
from polymodal.tensors import stable_hash
from polymodal.train.trainer import Trainer
from polymodal.types import BadInput, Embeddings, Record
from polymodal.workflow.records import label_columns, records_of
from polymodal.workflow.training import open_rows, prepare_data, split_rows

__all__ = ["ARMS", "Arm", "Size", "run"]

_KINDS = {"image": "image", "text": "text"}


@dataclass(frozen=True)
class Arm:
    """One training run.

    Args:
        table: which question it answers. name: its row there.
        ratio: share of a text that is hidden; of a picture it is always 0.75.
        captions: share of the training items whose text is used.
        paired: a text stands in the row of its picture; False: in a row of its own.
        fields: of the objective, where they differ from the recipe's.
    """

    table: str
    name: str
    ratio: float = 0.75
    captions: float = 1.0
    paired: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)


ARMS = (
    *(Arm("ratio", f"{r:.0%} of the text hidden", ratio=r) for r in (0.15, 0.5, 0.75, 0.9)),
    *(Arm("captions", f"{c:.0%} of the items have a text", captions=c) for c in (0.0, 0.1, 0.3)),
    *(Arm("pairing", f"{c:.0%}, text in a row of its own", captions=c, paired=False) for c in (0.3, 1.0)),
    Arm("pairing", "100%, paired, no vector read by the decoder", fields={"vectors": False, "bottleneck": 0.0}),
)
# rows of other tables that belong into a table as well
_SHARED = {
    "captions": {"75% of the text hidden": "100% of the items have a text"},
    "pairing": {
        "0% of the items have a text": "0%",
        "30% of the items have a text": "30%, paired",
        "75% of the text hidden": "100%, paired",
    },
}
_TITLES = {
    "ratio": "How much of a text is hidden (all items have one)",
    "captions": "How many items have a text (75 % of it hidden)",
    "pairing": "Text in the picture's row, or in a row of its own",
}
_CONTROLS = ("untrained model", "raw pixels (16 x 16)", "most frequent value")


@dataclass(frozen=True)
class Size:
    """Items of the generated catalogue, training steps, items of a step, the label that is probed, and which of the
    three questions to answer."""

    items: int = 1200
    steps: int = 500
    batch: int = 64
    label: str = "colour"
    tables: tuple[str, ...] = ("ratio", "captions", "pairing")

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that the tables need."""
        return tuple(arm for arm in ARMS if any(arm.table == t or arm.name in _SHARED.get(t, {}) for t in self.tables))


@dataclass(frozen=True)
class _Shop:
    """A catalogue in memory: decoded training and test records, labels, and what the modalities learnt of it."""

    train: list[Record]
    test: list[Record]
    labels: Mapping[str, str]
    recipe: Recipe
    fitted: Mapping[str, Fitted]


class _Memory:
    """Rows in memory, 64 to a block, as a loader reads them."""

    modalities = _KINDS

    def __init__(self, rows: Sequence[Record]) -> None:
        self._parts = [list(rows[at : at + 64]) for at in range(0, len(rows), 64)]
        self.blocks = tuple(map(len, self._parts))
        self.index = pa.table({"id": [record.id for record in rows]})

    def block(self, number: int) -> list[Record]:
        return self._parts[number]

    def __len__(self) -> int:
        return sum(self.blocks)


def run(options: Options) -> Result:
    """M3AE on pictures and titles of the generated shop: what its vector of a picture alone tells of a label.

    Every arm starts from the same weights and takes the same number of steps over the same pictures. Score: accuracy of
    a linear probe and of 10 nearest neighbours, learnt on the training items and tested on unseen ones, all of them
    embedded by picture alone.

    Args:
        options: `settings` may hold items, steps, batch, label (colour: pictures show it, 80 % of the titles tell it),
            and tables ("ratio", "captions", "pairing", with commas).

    Raises:
        BadInput: another setting, label or table.

    Source: Geng et al. 2022 (M3AE), figures 3 and 5: linear probe on ImageNet after CC12M; 75 % is best there, 10 % of
        the captions give more than half of the gain.
    Differences: toy catalogue, tiny model, the item vector instead of the CLS feature.
    """
    size = _sized(options)
    scores = [_repetition(seed, size, options) for seed in options.seeds]
    tables = tuple(_table(name, scores) for name in size.tables)
    settings = {"items": size.items, "steps": size.steps, "batch": size.batch, "seeds": list(options.seeds)}
    settings |= {"quick": options.quick, "label": size.label, "tables": list(size.tables)}
    question = f"Does M3AE learn from titles to see the {size.label} of a picture, and from how many of them?"
    return Result("m3ae", question, tables, _findings(scores), settings=settings)


def _sized(options: Options) -> Size:
    size = Size(items=150, steps=3, batch=16) if options.quick else Size()
    for name, value in options.settings.items():
        if name == "tables" and set(value.split(",")) <= set(_TITLES):
            size = replace(size, tables=tuple(value.split(",")))
        elif name == "label" and value in FACTORS:
            size = replace(size, label=value)
        elif name in ("items", "steps", "batch"):
            counts: dict[str, Any] = {name: int(value)}
            size = replace(size, **counts)
        else:
            raise BadInput(
                "settings",
                f"items, steps, batch, label={'|'.join(FACTORS)} or tables={','.join(_TITLES)}",
                f"{name}={value}",
            )
    return size


def _repetition(seed: int, size: Size, options: Options) -> dict[str, dict[str, float]]:
    """Arm or control -> {"linear", "k-NN"}; each arm that was finished before is taken from `options.out`."""
    with tempfile.TemporaryDirectory(prefix="polymodal-bench-") as folder:

        @cache
        def shop() -> _Shop:
            return _open(Path(folder), seed, size)

        def trained(arm: Arm) -> dict[str, float]:
            scores = _probe(shop(), _vectors(shop(), _train(shop(), arm, seed, size, Path(folder))))
            options.say(f"seed {seed}: {arm.name}: {json.dumps(scores)}")
            return scores

        deciding = {"items": size.items, "steps": size.steps, "batch": size.batch, "label": size.label}
        done: dict[str, dict[str, float]]
        done = kept(options, __name__, {**deciding, "arm": "controls"}, seed, lambda: _controls(shop(), seed))
        for arm in size.arms:
            done[arm.name] = kept(options, __name__, {**deciding, "arm": arm.name}, seed, partial(trained, arm))
        return done


def _open(folder: Path, seed: int, size: Size) -> _Shop:
    """A new catalogue of which every item has picture and title; clips and sounds, which are not used, are short."""
    cheap: dict[str, Any] = {"frames": 2, "clip_size": 16, "seconds": 0.2, "rate": 8000}
    generate(folder / "shop", DemoConfig(seed=seed, items=size.items, missing=0.0, second_picture=0.0, **cheap))
    made = recipe(_KINDS, "tiny")
    prepare_data(folder / "shop", folder / "ready", made, workers=1)
    rows = open_rows(folder / "ready")
    train, test = (
        [
            Record(r.id, {n: v for n, v in r.values.items() if n in _KINDS})
            for r in records_of(rows, split_rows(rows, s))
        ]
        for s in ("train", "test")
    )
    image = made.modalities["image"].replace(max_pictures=1)
    made = made.replace(modalities={**made.modalities, "image": image})
    fitted = {
        name: config.fit([r.values[name] for r in train if name in r.values])
        for name, config in made.modalities.items()
    }
    test = [record for record in test if "image" in record.values]
    return _Shop(train, test, label_columns(rows)[size.label], made, fitted)


def _records(shop: _Shop, arm: Arm, seed: int) -> list[Record]:
    """The training rows of an arm. The items with a text at 10 % are among those at 30 %."""
    keys = torch.tensor([stable_hash(record.id) for record in shop.train])
    draws = uniform(seed, keys, 1)[:, 0]
    rank = draws.argsort().argsort()
    out: list[Record] = []
    for record, place in zip(shop.train, rank.tolist(), strict=True):
        values = dict(record.values)
        text = values.pop("text", None)
        keep = text is not None and place < round(arm.captions * len(shop.train))
        if keep and arm.paired:
            values["text"] = text
        elif keep:
            out.append(Record(f"{record.id} text", {"text": text}))
        if values:
            out.append(Record(record.id, values))
    return out


def _train(shop: _Shop, arm: Arm, seed: int, size: Size, folder: Path) -> Model:
    rows = _records(shop, arm, seed)
    # texts in rows of their own make batches of more rows, so that every step has as many pictures as in other arms
    batch = min(len(rows), round(size.batch * len(rows) / len(shop.train)))
    ratios = {"image": 0.75, "text": arm.ratio}
    made = shop.recipe.replace(
        objective=shop.recipe.objective.replace(ratios=ratios, **arm.fields),
        train=shop.recipe.train.replace(
            seed=seed, steps=size.steps, batch_size=batch, precision="fp32", checkpoint_every=10**6
        ),
    )
    model = _model(shop, seed)
    objective = made.objective.build(model)
    memory = _Memory(rows)
    modalities = {name: model.modality(name) for name in model.names}
    sampler = BlockShuffle(memory.blocks, np.arange(len(memory)), seed)
    loader = Loader(memory, modalities, sampler, batch_size=batch, seed=seed, views=1, augment=True)
    with tempfile.TemporaryDirectory(dir=folder) as run_folder:
        Trainer(model, objective, made, loader, Path(run_folder)).fit()
    return model


def _model(shop: _Shop, seed: int) -> Model:
    torch.manual_seed(seed)
    return build_model(shop.recipe, dict(shop.fitted))


def _vectors(shop: _Shop, model: Model) -> tuple[Embeddings, Embeddings]:
    """Item vectors of training and test items, from their pictures alone."""
    embedder = Embedder(model, shop.recipe.replace(train=shop.recipe.train.replace(precision="fp32")), "bench")
    train, test = (embedder.vectors(rows, [ITEM], only=["image"])[ITEM] for rows in (shop.train, shop.test))
    return train, test


def _probe(shop: _Shop, vectors: tuple[Embeddings, Embeddings]) -> dict[str, float]:
    train, test = vectors
    linear = linear_probe(train, test, shop.labels, penalties=(0.003, 0.1, 10.0), resamples=0)
    near = knn_probe(train, test, shop.labels, resamples=0)
    return {"linear": linear.accuracy.mean, "k-NN": near.accuracy.mean}


def _controls(shop: _Shop, seed: int) -> dict[str, dict[str, float]]:
    pixels = _pixels(shop.train), _pixels(shop.test)
    train, test = pixels
    chance = knn_probe(train, test, shop.labels, resamples=0).chance
    return {
        "untrained model": _probe(shop, _vectors(shop, _model(shop, seed))),
        "raw pixels (16 x 16)": _probe(shop, pixels),
        "most frequent value": {"linear": chance, "k-NN": chance},
    }


def _pixels(records: Sequence[Record]) -> Embeddings:
    """Pictures averaged to 16 x 16, the mean picture of each row taken off, unit length."""
    rows = [record for record in records if "image" in record.values]
    levels = torch.stack([torch.from_numpy(np.array(r.values["image"][0])).permute(2, 0, 1).float() for r in rows])
    small = torch.nn.functional.adaptive_avg_pool2d(levels, 16).flatten(1)
    z = torch.nn.functional.normalize(small - small.mean(1, keepdim=True), dim=1)
    return Embeddings(tuple(r.id for r in rows), z.numpy(), "pixels")


def _cells(scores: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> tuple[Cell, Cell]:
    linear, near = (over_seeds([s[name][how] for s in scores]) for how in ("linear", "k-NN"))
    return linear, near


def _table(table: str, scores: Sequence[Mapping[str, Mapping[str, float]]]) -> Table:
    shared = _SHARED.get(table, {})
    named = [(arm.name, shared.get(arm.name, arm.name)) for arm in ARMS if arm.table == table or arm.name in shared]
    rows = [(label, *_cells(scores, name)) for name, label in [*named, *((c, c) for c in _CONTROLS)]]
    return Table(_TITLES[table], ("trained with", "linear probe", "10 nearest neighbours"), tuple(rows))


def _findings(scores: Sequence[Mapping[str, Mapping[str, float]]]) -> tuple[str, ...]:
    """What follows from the arms that there are."""
    ratios = [arm.name for arm in ARMS if arm.table == "ratio"]
    none, tenth, whole = "0% of the items have a text", "10% of the items have a text", "75% of the text hidden"
    apart = next(arm.name for arm in ARMS if not arm.paired and arm.captions == 1)
    bare = next(arm.name for arm in ARMS if arm.fields)
    pixels, untrained = "raw pixels (16 x 16)", "untrained model"
    said: list[tuple[Sequence[str], Callable[[], str]]] = [
        (ratios, lambda: f"Best text ratio by linear probe: {_best(scores, ratios)}. M3AE's figure 5: 75%."),
        ([none, whole], lambda: f"Titles for all items against none: {_change(scores, whole, none)}."),
        (
            [none, tenth, whole],
            lambda: (
                f"Titles for a tenth of the items against none: {_change(scores, tenth, none)}"
                f"{_part(scores, tenth, whole, none)}. M3AE's figure 3: 57% of the whole gain."
            ),
        ),
        ([apart, whole], lambda: f"Titles in rows of their own against paired: {_change(scores, apart, whole)}."),
        ([apart, none], lambda: f"Titles in rows of their own against no titles: {_change(scores, apart, none)}."),
        (
            [bare, whole],
            lambda: f"No vector for the decoder to read (the paper) against ours: {_change(scores, bare, whole)}.",
        ),
        ([whole], lambda: f"All titles against raw pixels: {_change(scores, whole, pixels)}."),
        ([whole], lambda: f"All titles against the untrained model: {_change(scores, whole, untrained)}."),
    ]
    return tuple(text() for needed, text in said if all(name in s for s in scores for name in needed))


def _linear(scores: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> float:
    return over_seeds([s[name]["linear"] for s in scores]).mean


def _best(scores: Sequence[Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> str:
    best = max(names, key=lambda name: _linear(scores, name))
    return f"{best} ({', '.join(f'{_linear(scores, name):.3f}' for name in names)} in the order of the table)"


def _change(scores: Sequence[Mapping[str, Mapping[str, float]]], one: str, other: str) -> str:
    """Difference of the linear probes, seed by seed."""
    cell = over_seeds([s[one]["linear"] - s[other]["linear"] for s in scores])
    return f"{cell.mean:+.3f}" if cell.n < 2 else f"{cell.mean:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]"


def _part(scores: Sequence[Mapping[str, Mapping[str, float]]], some: str, whole: str, none: str) -> str:
    """What share of the whole gain some titles bring, where there is a gain."""
    gain, part = _linear(scores, whole) - _linear(scores, none), _linear(scores, some) - _linear(scores, none)
    return f", {part / gain:.0%} of what all titles bring" if gain > 0.005 and part >= 0 else ""
