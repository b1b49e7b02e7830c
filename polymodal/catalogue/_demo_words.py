"""The vocabulary of the demo catalogue, and what it writes: titles in three languages and attribute tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from polymodal.types import MediaReason

__all__ = [
    "ACCESSORIES",
    "BANDS",
    "BRANDS",
    "CATEGORIES",
    "COLOURS",
    "DEPARTMENTS",
    "LANGUAGES",
    "MATERIALS",
    "MOTIONS",
    "ORIGINS",
    "SHAPES",
    "SIZES",
    "SOUNDS",
    "Category",
    "Item",
    "attributes",
    "retitle",
    "title",
]

LANGUAGES = ("en", "de", "zh")
Words = tuple[str, str, str]  # one word per language, in the order of LANGUAGES


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of product. Accessory x department is unique; each alone leaves three or four candidates.

    Args:
        accessory: what a picture shows beside the outline.
        department: what the attribute table says of it.
        band: its usual pitch, 0 low to 2 high.
        shapes: the outlines it comes in, the usual one first.
        price, size_cm: of a plain medium one.
        nouns: synonyms per language.
        tags: what its sellers like to tick.
    """

    name: str
    accessory: str
    department: str
    band: int
    shapes: tuple[str, str, str]
    price: float
    size_cm: float
    nouns: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    tags: tuple[str, ...]


ACCESSORIES = ("none", "wheels", "string", "stand", "handle")
DEPARTMENTS = ("home", "play", "outdoor", "party", "travel")
BANDS = ("low", "middle", "high")
SIZES = ("S", "M", "L")
SOUNDS = ("bell", "horn", "flute", "rattle", "buzz", "chirp")
ORIGINS = ("Portugal", "Vietnam", "Poland", "Mexico", "Kenya", "Japan")

SHAPES: dict[str, Words] = {
    "circle": ("round", "rund", "圆形"),
    "square": ("square", "quadratisch", "方形"),
    "triangle": ("triangular", "dreieckig", "三角形"),
    "star": ("star-shaped", "sternförmig", "星形"),
    "hexagon": ("hexagonal", "sechseckig", "六角形"),
    "heart": ("heart-shaped", "herzförmig", "心形"),
    "ring": ("ring-shaped", "ringförmig", "环形"),
    "diamond": ("diamond-shaped", "rautenförmig", "菱形"),
}
COLOURS: dict[str, Words] = {
    "red": ("red", "Rot", "红色"),
    "orange": ("orange", "Orange", "橙色"),
    "yellow": ("yellow", "Gelb", "黄色"),
    "green": ("green", "Grün", "绿色"),
    "turquoise": ("turquoise", "Türkis", "青绿色"),
    "blue": ("blue", "Blau", "蓝色"),
    "purple": ("purple", "Lila", "紫色"),
    "pink": ("pink", "Rosa", "粉色"),
    "brown": ("brown", "Braun", "棕色"),
    "black": ("black", "Schwarz", "黑色"),
}
MATERIALS: dict[str, Words] = {
    "wood": ("wooden", "Holz", "木质"),
    "cotton": ("cotton", "Baumwolle", "棉质"),
    "stone": ("stone", "Stein", "石质"),
    "plastic": ("plastic", "Kunststoff", "塑料"),
    "metal": ("metal", "Metall", "金属"),
    "felt": ("felt", "Filz", "毛毡"),
}
MOTIONS: dict[str, Words] = {
    "slide left": ("rolls to the left", "gleitet nach links", "向左滑动"),
    "slide right": ("rolls to the right", "gleitet nach rechts", "向右滑动"),
    "bounce": ("bounces up and down", "hüpft auf und ab", "会弹跳"),
    "spin": ("spins round", "dreht sich", "会旋转"),
    "grow": ("grows when used", "wird größer", "会变大"),
    "blink": ("blinks", "blinkt", "会闪烁"),
}
# name -> factor on the price
BRANDS = {
    "Lumo": 1.0, "Kivi": 0.7, "Norrsten": 1.6, "Patapo": 0.85, "Veldt & Co": 1.3,
    "Oriko": 1.1, "Brumm": 0.9, "Solenne": 1.9, "Tixi": 0.6, "Hanover Play": 1.2,
}  # fmt: skip
MATERIAL_PRICE = {"wood": 1.2, "cotton": 0.9, "stone": 1.5, "plastic": 0.6, "metal": 1.4, "felt": 0.8}
MATERIAL_WEIGHT = {"wood": 1.0, "cotton": 0.4, "stone": 2.6, "plastic": 0.7, "metal": 2.0, "felt": 0.5}
SIZE_FACTOR = {"S": 0.7, "M": 1.0, "L": 1.4}


def _kind(line: str, nouns: str) -> Category:
    name, accessory, department, band, shapes, price, size, tags = line.split("|")
    first, second, third = shapes.split()
    english, german, chinese = (tuple(words.split("|")) for words in nouns.split("; "))
    spelled, sold = (english, german, chinese), tuple(tags.split(", "))
    return Category(
        name, accessory, department, int(band), (first, second, third), float(price), float(size), spelled, sold
    )


# the order is the order of the Zipf tail
CATEGORIES = (
    _kind(
        "cushion|none|home|0|square circle heart|18|40|washable, soft, gift idea",
        "cushion|pillow|throw pillow; Kissen|Sofakissen; 靠垫|抱枕",
    ),
    _kind(
        "toy car|wheels|play|1|hexagon square circle|15|14|for children, rolls, collectable",
        "toy car|racer|model car; Spielzeugauto|Rennwagen; 玩具车|小汽车",
    ),
    _kind(
        "kite|string|outdoor|2|diamond triangle star|22|70|light, weatherproof, for children",
        "kite|wind flyer|stunt kite; Drachen|Lenkdrachen; 风筝|纸鸢",
    ),
    _kind(
        "lamp|stand|home|0|triangle circle hexagon|45|35|with battery, gift idea, fragile",
        "lamp|table light|night light; Lampe|Nachtlicht; 台灯|夜灯",
    ),
    _kind(
        "bag|handle|travel|0|square hexagon heart|35|38|washable, light, foldable",
        "bag|tote|shopper; Tasche|Tragetasche; 手提包|购物袋",
    ),
    _kind(
        "building block|none|play|1|square triangle hexagon|9|8|for children, stackable, collectable",
        "building block|toy brick|stacker; Baustein|Bauklotz; 积木|拼装块",
    ),
    _kind(
        "scooter|wheels|outdoor|2|diamond triangle hexagon|60|80|rolls, weatherproof, foldable",
        "scooter|kick board|push scooter; Roller|Tretroller; 滑板车|踏板车",
    ),
    _kind(
        "balloon|string|party|2|circle heart star|5|30|light, for children, gift idea",
        "balloon|party balloon|floater; Luftballon|Ballon; 气球|派对球",
    ),
    _kind(
        "alarm clock|stand|travel|2|circle ring square|28|12|with battery, fragile, foldable",
        "alarm clock|desk clock|timer; Wecker|Tischuhr; 闹钟|座钟",
    ),
    _kind(
        "bucket|handle|outdoor|1|hexagon circle triangle|12|25|weatherproof, stackable, washable",
        "bucket|pail|sand bucket; Eimer|Sandeimer; 水桶|沙桶",
    ),
    _kind(
        "puzzle|none|travel|1|heart star diamond|16|24|for children, gift idea, foldable",
        "puzzle|jigsaw|brain teaser; Puzzle|Legespiel; 拼图|益智拼板",
    ),
    _kind(
        "suitcase|wheels|travel|0|square circle ring|90|60|rolls, weatherproof, stackable",
        "suitcase|trolley case|cabin case; Koffer|Rollkoffer; 行李箱|拉杆箱",
    ),
    _kind(
        "yo-yo|string|play|1|ring circle hexagon|8|6|for children, collectable, light",
        "yo-yo|spinning disc|string toy; Jo-Jo|Fadenspiel; 悠悠球|溜溜球",
    ),
    _kind(
        "music box|stand|party|2|heart star ring|38|13|gift idea, fragile, collectable",
        "music box|musical box|melody box; Spieluhr|Spieldose; 音乐盒|八音盒",
    ),
    _kind(
        "rattle|handle|play|1|ring star heart|11|15|soft, washable, for children",
        "rattle|shaker|baby toy; Rassel|Klapper; 摇铃|拨浪鼓",
    ),
    _kind(
        "money box|stand|play|0|star diamond square|14|16|fragile, collectable, gift idea",
        "money box|coin bank|savings box; Spardose|Sparbüchse; 存钱罐|储蓄罐",
    ),
)

# what a seller writes who does not want to say more: nouns of a whole department
_VAGUE: dict[str, Words] = {
    "home": ("home accessory", "Wohnaccessoire", "家居用品"),
    "play": ("toy", "Spielzeug", "玩具"),
    "outdoor": ("outdoor gear", "Artikel für draußen", "户外用品"),
    "party": ("party item", "Partyartikel", "派对用品"),
    "travel": ("travel accessory", "Reisezubehör", "旅行用品"),
}
_GENERIC: tuple[tuple[str, ...], ...] = (
    ("great gift", "best seller, top quality", "must have", "new arrival", "special offer"),
    ("tolles Geschenk", "Bestseller, Top-Qualität", "Neuheit", "Sonderangebot"),
    ("送礼佳品", "热销爆款", "新品上市", "限时特价"),
)
_PRAISE: tuple[tuple[str, ...], ...] = (
    ("lovely", "new", "handy", "classic", "original", "modern"),
    ("schön", "neu", "praktisch", "klassisch", "modern"),
    ("全新", "精美", "经典", "时尚"),
)
_MENTIONED = {"colour": 0.94, "material": 0.7, "shape": 0.6, "brand": 0.6, "size": 0.5, "motion": 0.25}
_SIZE_WORDS: dict[str, Words] = {"S": ("small", "klein", "小号"), "M": ("", "", ""), "L": ("large", "groß", "大号")}


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One product with every planted factor; `truth.parquet` has one row of these per item."""

    index: int
    id: str = ""
    group_id: str
    split: str = ""
    category: str
    shape: str
    material: str
    brand: str
    motion: str
    colour: str
    size: str
    sound: str
    origin: str
    pitch: str
    price: float
    size_cm: float
    weight_g: float
    language: str
    wording: str = "exact"
    pictures: int
    duplicate_of: str = ""
    swapped_with: str = ""
    corrupt_modality: str = ""
    corrupt_reason: MediaReason | Literal[""] = ""

    @property
    def kind(self) -> Category:
        return _BY_NAME[self.category]


_BY_NAME = {category.name: category for category in CATEGORIES}


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def wording(rng: np.random.Generator, noise: float) -> str:
    """How a title names its category: exact, generic (not at all), vague (the department) or wrong."""
    steps = (("generic", noise), ("vague", noise), ("wrong", noise / 3))
    draw = float(rng.random())
    for name, share in steps:
        if draw < share:
            return name
        draw -= share
    return "exact"


def _noun(item: Item, rng: np.random.Generator, tongue: int, categories: Sequence[Category]) -> str:
    if item.wording == "generic":
        return _one(rng, _GENERIC[tongue])
    if item.wording == "vague":
        return _VAGUE[item.kind.department][tongue]
    others = [c for c in categories if c.name != item.category]
    named = others[int(rng.integers(len(others)))] if item.wording == "wrong" and others else item.kind
    return _one(rng, named.nouns[tongue])


def title(item: Item, rng: np.random.Generator, categories: Sequence[Category], noise: float) -> str:
    """A title of `item` in its language; sets `item.wording` to how it names the category.

    Mentions colour (80 %), material (60 %), shape (50 %), brand (50 %), size (40 %) and motion (20 %); every mention
    is left out with probability `noise` more; a typo in a share `noise` of the English and German titles.
    """
    tongue = LANGUAGES.index(item.language)
    item.wording = wording(rng, noise)
    said = {name: bool(rng.random() < share * (1 - noise)) for name, share in _MENTIONED.items()}
    words = {
        "colour": COLOURS[item.colour][tongue],
        "material": MATERIALS[item.material][tongue],
        "shape": SHAPES[item.shape][tongue],
        "brand": item.brand,
        "size": _SIZE_WORDS[item.size][tongue],
        "motion": MOTIONS[item.motion][tongue],
    }
    part = {name: words[name] if said[name] else "" for name in words}
    part["noun"] = _noun(item, rng, tongue, categories)
    part["praise"] = _one(rng, _PRAISE[tongue]) if rng.random() < 0.35 else ""
    text = (_english, _german, _chinese)[tongue](part, int(rng.integers(4)))
    if item.language != "zh" and rng.random() < noise:
        text = _typo(text, rng)
    return text


def _join(words: Sequence[str], glue: str = " ") -> str:
    return glue.join(word for word in words if word)


def _english(p: dict[str, str], order: int) -> str:
    name = _join([p["praise"], p["size"], p["shape"], p["colour"], p["material"], p["noun"]])
    if order == 0:
        return _capital(_join([_join([name, p["motion"]], ", "), p["brand"] and f"by {p['brand']}"]))
    if order == 1:
        details = _join([p["colour"], p["material"], p["size"], p["shape"], p["motion"]], ", ")
        return _capital(_join([p["brand"], p["praise"], p["noun"], details and f"({details})"]))
    if order == 2:
        return _capital(
            _join([p["noun"], p["brand"], p["colour"], _join([p["shape"], p["material"]]), p["motion"]], " - ")
        )
    return _capital(_join([_join([p["brand"], name]), p["motion"] and f"which {p['motion']}"]))


def _german(p: dict[str, str], order: int) -> str:
    colour, material = p["colour"] and f"in {p['colour']}", p["material"] and f"aus {p['material']}"
    maker = p["brand"] and f"von {p['brand']}"
    if order % 2:
        return _capital(
            _join([_join([p["brand"], p["noun"], colour]), material, p["shape"], p["size"], p["motion"]], ", ")
        )
    return _capital(
        _join(
            [_join([p["noun"], maker]), p["praise"], p["size"], p["shape"], _join([colour, material]), p["motion"]],
            ", ",
        )
    )


def _chinese(p: dict[str, str], order: int) -> str:
    body = p["praise"] + p["colour"] + p["material"] + p["shape"] + p["noun"] + p["size"]
    if order % 2:
        return _join([p["noun"], p["brand"], p["colour"] + p["material"], p["shape"], p["size"], p["motion"]])
    return _join([p["brand"], body, p["motion"]])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _typo(text: str, rng: np.random.Generator) -> str:
    places = [i for i in range(1, len(text) - 2) if text[i].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    at = places[int(rng.integers(len(places)))]
    if rng.random() < 0.5:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :]


def retitle(text: str, language: str, rng: np.random.Generator) -> str:
    """The same title as another seller lists it: a word of praise more, or another case; never the same string."""
    praise = _one(rng, _PRAISE[LANGUAGES.index(language)])
    if language == "zh":
        return f"{text} {praise}"
    return (f"{_capital(praise)}: {text}", f"{text} ({praise})", f"{text.upper()}!")[int(rng.integers(3))]


def attributes(item: Item, rng: np.random.Generator, gaps: float) -> dict[str, Any]:
    """The attribute table: `origin` always; every other attribute is missing with probability `gaps`.

    `department` is missing twice as often and wrong in a tenth of the rows; tags are ticked carelessly. Numbers stay
    numbers, `tags` and `age` are what is list-valued and boolean.
    """
    kind = item.kind
    department = kind.department if rng.random() < 0.9 else _one(rng, DEPARTMENTS)
    everything = sorted({tag for category in CATEGORIES for tag in category.tags})
    ticked = [tag for tag in everything if rng.random() < (0.55 if tag in kind.tags else 0.12)]
    full: list[tuple[str, Any, float]] = [
        ("brand", item.brand, gaps),
        ("price", item.price, gaps / 3),
        ("size", item.size, gaps),
        ("size_cm", item.size_cm, gaps),
        ("weight_g", item.weight_g, gaps),
        ("material", item.material, gaps),
        ("colour", item.colour, 2.5 * gaps),
        ("department", department, 2 * gaps),
        ("tags", ticked, gaps),
        ("in_stock", bool(rng.random() < 0.8), gaps),
        ("origin", item.origin, 0.0),
    ]
    draws = rng.random(len(full))
    return {name: value for (name, value, gap), draw in zip(full, draws, strict=True) if draw >= gap and value != []}
