"""What the demo catalogue is going to hold: its knobs, and every item's factors, split, gaps and faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import Field

from polymodal.catalogue import _demo_words as words
from polymodal.catalogue._demo_media import FAULTS
from polymodal.catalogue._demo_words import Item
from polymodal.config import Config

__all__ = ["MODALITIES", "DemoConfig", "gaps", "kinds_of", "plan", "plant", "random_of"]

MODALITIES = ("image", "text", "table", "video", "audio")

# how readily a modality is missing, in units of the spread of the habits: a catalogue has more titles than clips
_READINESS = {"image": -0.55, "text": -0.8, "table": -0.15, "video": 0.75, "audio": 0.75}


class DemoConfig(Config):
    """How large, how sparse, how noisy and how faulty the demo catalogue is.

    Args:
        seed: decides everything; items of another seed share nothing.
        items: rows, duplicates included.
        categories: kinds of products, the first of 16.
        zipf: category number r has a share in proportion to r ** -zipf.
        variants: a product comes in 1 to this many variants.
        missing: share of the items x 5 cells that is removed; every item keeps at least one.
        correlation: of what is missing, with brand, category and between video and audio; 0 removes independently.
        title_noise: share of generic titles, of vague ones, of typos and of words left out; a third as many titles name
            a wrong category.
        attribute_gaps: probability that one attribute of a table is missing.
        foreign: share of titles that are German or Chinese, half each.
        second_picture: share of items with two pictures.
        duplicates, swapped, corrupt: shares of items with that fault; `swapped` counts both items of a pair.
        val, test: shares of the items.
        image_size, clip_size: pixels, square. frames, fps, key_every: of a clip; a key frame every so many frames.
        seconds, rate: of a sound, in seconds and samples per second.
    """

    seed: int = Field(0, ge=0)
    items: int = Field(2000, ge=10)
    categories: int = Field(14, ge=2, le=len(words.CATEGORIES))
    zipf: float = Field(0.8, ge=0, le=3)
    variants: int = Field(4, ge=1, le=8)
    missing: float = Field(0.4, ge=0, le=0.8)
    correlation: float = Field(0.7, ge=0, le=1)
    title_noise: float = Field(0.15, ge=0, le=0.4)
    attribute_gaps: float = Field(0.15, ge=0, le=0.4)
    foreign: float = Field(0.2, ge=0, le=1)
    second_picture: float = Field(0.2, ge=0, le=1)
    duplicates: float = Field(0.02, ge=0, le=0.3)
    swapped: float = Field(0.02, ge=0, le=0.3)
    corrupt: float = Field(0.016, ge=0, le=0.3)
    val: float = Field(0.1, ge=0, le=0.4)
    test: float = Field(0.2, ge=0, le=0.5)
    image_size: int = Field(96, ge=16, le=1024)
    clip_size: int = Field(64, ge=16, le=512, multiple_of=2)
    frames: int = Field(12, ge=2, le=200)
    fps: int = Field(8, ge=1, le=60)
    key_every: int = Field(2, ge=1)
    seconds: float = Field(0.8, ge=0.2, le=30)
    rate: int = Field(16000, ge=8000, le=48000)


def random_of(config: DemoConfig, *stream: int) -> np.random.Generator:
    """The generator of one stream of one item; no stream depends on how much another one used."""
    return np.random.default_rng([config.seed, *stream])


def kinds_of(config: DemoConfig) -> tuple[words.Category, ...]:
    """The categories of this catalogue."""
    return words.CATEGORIES[: config.categories]


def _pick(
    rng: np.random.Generator, options: Iterable[str], weights: Sequence[float] | npt.NDArray[np.float64] | None = None
) -> str:
    names = list(options)
    shares = None if weights is None else np.asarray(weights) / np.sum(weights)
    return names[int(rng.choice(len(names), p=shares))]


def plan(config: DemoConfig) -> list[Item]:
    """All items with their factors, ids and splits, duplicates among them, in a random order."""
    rng = random_of(config, 0)
    copies = round(config.duplicates * config.items)
    items: list[Item] = []
    while len(items) < config.items - copies:
        items.extend(_variants(rng, f"G{len(items):06d}", config))
    del items[config.items - copies :]
    place = [int(p) for p in rng.permutation(config.items)]
    for item in items:
        _put(item, place.pop())
    _split(items, config, rng)
    for at in rng.choice(len(items), copies, replace=False):
        old = items[int(at)]
        price = round(old.price * rng.uniform(0.97, 1.03), 2)
        copy = replace(old, price=price, duplicate_of=old.id)
        _put(copy, place.pop())
        copy.group_id = f"D{copy.index:06d}"
        items.append(copy)
    return sorted(items, key=lambda item: item.index)


def _put(item: Item, index: int) -> None:
    item.index, item.id = index, f"P{index:06d}"


def _variants(rng: np.random.Generator, group: str, config: DemoConfig) -> list[Item]:
    """One product: a category, shape, material, brand and motion; its variants differ in colour, size and the rest."""
    kinds = kinds_of(config)
    rank = np.arange(1, len(kinds) + 1, dtype=np.float64)
    share = rank**-config.zipf
    number = int(rng.choice(len(kinds), p=share / share.sum()))
    kind, motions = kinds[number], list(words.MOTIONS)
    liked = [0.1 + 0.2 * (m == number % 6) + 0.2 * (m == (number // 2 + 3) % 6) for m in range(len(motions))]
    design = {
        "shape": _pick(rng, kind.shapes, (0.55, 0.3, 0.15)),
        "material": _pick(rng, words.MATERIALS),
        "brand": _pick(rng, words.BRANDS),
        "motion": _pick(rng, motions, liked),
    }
    looks = [(colour, size) for colour in words.COLOURS for size in words.SIZES]
    chosen = rng.choice(len(looks), int(rng.integers(1, config.variants + 1)), replace=False)
    return [_item(rng, group, kind, design, *looks[int(at)], config) for at in chosen]


def _item(
    rng: np.random.Generator,
    group: str,
    kind: words.Category,
    design: Mapping[str, str],
    colour: str,
    size: str,
    config: DemoConfig,
) -> Item:
    length = kind.size_cm * words.SIZE_FACTOR[size] * float(np.exp(rng.normal(0, 0.08)))
    weight = 0.5 * length**2 * words.MATERIAL_WEIGHT[design["material"]] * float(np.exp(rng.normal(0, 0.15)))
    worth = kind.price * words.MATERIAL_PRICE[design["material"]] * words.BRANDS[design["brand"]]
    price = worth * words.SIZE_FACTOR[size] * float(np.exp(rng.normal(0, 0.1)))
    near = np.array([0.1, 0.1, 0.1])
    near[kind.band] = 0.8
    half = config.foreign / 2
    return Item(
        index=-1,
        group_id=group,
        category=kind.name,
        shape=design["shape"],
        material=design["material"],
        brand=design["brand"],
        motion=design["motion"],
        colour=colour,
        size=size,
        sound=_pick(rng, words.SOUNDS),
        origin=_pick(rng, words.ORIGINS),
        pitch=_pick(rng, words.BANDS, near),
        price=round(price, 2),
        size_cm=round(length, 1),
        weight_g=round(weight, 0),
        language=_pick(rng, words.LANGUAGES, (1 - config.foreign, half, half)),
        pictures=1 + int(rng.random() < config.second_picture),
    )


def _split(items: Sequence[Item], config: DemoConfig, rng: np.random.Generator) -> None:
    """Whole groups, in a random order, into test, then val, until each has its share; the rest is train."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group_id, []).append(item)
    order = list(groups)
    rng.shuffle(order)
    filled = 0
    for name in order:
        done = filled / len(items)
        split = "test" if done < config.test else "val" if done < config.test + config.val else "train"
        filled += len(groups[name])
        for item in groups[name]:
            item.split = split


def gaps(items: Sequence[Item], config: DemoConfig) -> npt.NDArray[np.bool_]:
    """Which cells are removed, (n, 5): exactly the share `missing`, the readiest first.

    The readiness of a cell is that of its modality, plus habits (of the brand and of the category, per modality and in
    all; one draw per item that video and audio share), plus chance. A cell that is the item's least ready one stays.
    """
    rng, n, wide = random_of(config, 1), len(items), len(MODALITIES)
    brands, kinds = list(words.BRANDS), [c.name for c in words.CATEGORIES]
    seller, sort = rng.normal(0, 1, (len(brands), wide)), rng.normal(0, 1, (len(kinds), wide))
    clip, ear = MODALITIES.index("video"), MODALITIES.index("audio")
    seller[:, ear], sort[:, ear] = seller[:, clip], sort[:, clip]
    habit = np.stack([0.8 * seller[brands.index(i.brand)] + 0.5 * sort[kinds.index(i.category)] for i in items])
    own = np.zeros((n, wide))
    own[:, [clip, ear]] = rng.normal(0, 1.1, (n, 1))
    chance = rng.normal(0, 1, (n, wide))
    tie = config.correlation
    ready = np.array([_READINESS[m] for m in MODALITIES]) + tie * (habit + own) + (1 - tie**2) ** 0.5 * chance
    index = {item.id: item.index for item in items}
    for item in items:
        if item.duplicate_of:
            ready[item.index] = ready[index[item.duplicate_of]]
    free = np.flatnonzero((ready > ready.min(1, keepdims=True)).ravel())
    count = min(round(config.missing * n * wide), len(free))
    removed = np.zeros(n * wide, np.bool_)
    removed[free[np.argsort(-ready.ravel()[free], kind="stable")[:count]]] = True
    return removed.reshape(n, wide)


def plant(items: Sequence[Item], removed: npt.NDArray[np.bool_], config: DemoConfig) -> None:
    """Marks exchanged pictures and broken files, on items that are neither faulty nor a duplicate nor its original."""
    rng = random_of(config, 2)
    involved = {item.duplicate_of for item in items} | {item.id for item in items if item.duplicate_of}
    clean = [items[int(i)] for i in rng.permutation(len(items)) if items[int(i)].id not in involved]
    with_picture = [item for item in clean if not removed[item.index, 0]]
    for _ in range(round(config.swapped * config.items / 2)):
        first = with_picture.pop() if with_picture else None
        partner = next((o for o in with_picture if first and _unlike(first, o)), None)
        if first is None or partner is None:
            break
        with_picture.remove(partner)
        first.swapped_with, partner.swapped_with = partner.id, first.id
    clean = [item for item in clean if not item.swapped_with and (~removed[item.index]).sum() >= 2]
    for number in range(round(config.corrupt * config.items)):
        modality, reason = FAULTS[number % len(FAULTS)]
        at = MODALITIES.index(modality)
        fits = (i for i in clean if not removed[i.index, at] and (modality != "image" or i.pictures == 1))
        chosen = next(fits, None)
        if chosen is not None:
            clean.remove(chosen)
            chosen.corrupt_modality, chosen.corrupt_reason = modality, reason


def _unlike(first: Item, second: Item) -> bool:
    return first.split == second.split and first.category != second.category and first.colour != second.colour
