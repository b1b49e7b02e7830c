"""What a comparison runs: methods, sets of modalities, seeds, budgets; checked before anything is trained."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from polymodal.config import nearest
from polymodal.recipe import Recipe, TrainConfig
from polymodal.types import BadInput
from polymodal.workflow.listing import list_recipes
from polymodal.workflow.records import check_names
from polymodal.workflow.training import find_recipe

__all__ = ["ALL", "CompareSettings", "Job", "Method", "Setting", "equalised", "modality_sets", "parse_methods", "slug"]

ALL = "all"
_FIRST = "scale"  # what the others are set against where no method is named
# the papers add modalities in this order; kinds that are not named come last
_ORDER = ("text", "image", "table", "video", "audio")
# what is the same for every method; what else a recipe says of its training, it keeps
_SHARED = (
    "batch_size", "accumulate", "learning_rate", "betas", "warmup", "final", "weight_decay", "clip", "ema", "precision"
)  # fmt: skip


@dataclass(frozen=True)
class CompareSettings:
    """What is compared, and how it is measured.

    Args:
        methods: `RECIPE[/FUNCTION][:SETTING[;SETTING...]]`, the first is what the others are compared with; all
            recipes when empty, SCALE first.
        modalities: sets of modalities, "image,text" or "all"; a model is trained for each set.
        seeds: of training; the data, its split and the items measured stay the same.
        steps: budget in steps, or None; seconds: budget in seconds of training, or None. Both: both are run.
        size: of the models and of the shards that are prepared.
        settings: of every method's recipe, before a method's own.
        split, train_split, label, max_items: as of `polymodal evaluate`.
        combinations: measure every combination of modalities, not only one more at a time.
    """

    methods: tuple[str, ...] = ()
    modalities: tuple[str, ...] = (ALL,)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = 300
    seconds: float | None = None
    size: str = "tiny"
    settings: tuple[str, ...] = ()
    split: str = "test"
    train_split: str = "train"
    label: str | None = None
    max_items: int = 1000
    combinations: bool = False

    def check(self) -> None:
        """Raises BadInput for budgets and seeds that make no sense."""
        if self.steps is None and self.seconds is None:
            raise BadInput("--budget-steps", "a number of steps, or --budget-seconds", "neither")
        if self.steps is not None and self.steps < 1:
            raise BadInput("--budget-steps", "a positive number", self.steps)
        if self.seconds is not None and not self.seconds > 0:
            raise BadInput("--budget-seconds", "a positive number", self.seconds)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise BadInput("--seeds", "one or more different numbers", " ".join(map(str, self.seeds)) or "none")
        if self.max_items < 2:
            raise BadInput("--max-items", "at least 2", self.max_items)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Method:
    """A recipe, and settings that are its own. `name` is how it was asked for."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """`scale`, `scale/reference`, `scale:objective.harmonise.form=none;train.clip=0.5`."""
        recipe, _, rest = text.partition(":")
        settings = tuple(part.strip() for part in rest.split(";") if part.strip())
        return cls(text.strip(), recipe.strip(), settings)


@dataclass(frozen=True)
class Setting:
    """One table of the comparison: a set of modalities under one budget ("steps", "seconds", or "untrained")."""

    modalities: tuple[str, ...]
    budget: str
    amount: float

    @property
    def name(self) -> str:
        """`image + text, 300 steps`."""
        budget = self.budget if self.budget == "untrained" else f"{self.amount:g} {self.budget}"
        return f"{' + '.join(self.modalities)}, {budget}"


@dataclass(frozen=True)
class Job:
    """One model to train."""

    method: str
    setting: Setting
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Name of its folder: readable, and other for every other recipe."""
        digest = hashlib.sha256(self.recipe.model_dump_json(exclude={"data", "name"}).encode()).hexdigest()[:10]
        return f"{slug(self.method)}-{slug('+'.join(self.setting.modalities))}-seed{self.seed}-{digest}"


def slug(text: str) -> str:
    """Text as a part of a file's name, at most 48 characters."""
    return re.sub(r"[^A-Za-z0-9+.=]+", "_", text)[:48].strip("_")


def parse_methods(asked: Sequence[str]) -> tuple[Method, ...]:
    """The methods, each once; every recipe where none is asked for. Raises BadInput with the nearest known name."""
    known = list_recipes()
    texts = list(asked) or sorted((name for name in known if "/" not in name), key=lambda name: (name != _FIRST, name))
    methods = tuple(Method.parse(text) for text in dict.fromkeys(texts))
    for method in methods:
        check_names("--methods", [method.recipe], known, "a recipe")
    return methods


def modality_sets(asked: Sequence[str], known: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Each set in the order in which modalities are added. Raises BadInput for a modality that the data lacks."""
    order = sorted(known, key=lambda name: _ORDER.index(known[name]) if known[name] in _ORDER else len(_ORDER))
    out = []
    for text in asked or (ALL,):
        wanted = [part.strip() for part in text.split(",") if part.strip()]
        if wanted != [ALL]:
            check_names("--modalities", wanted, [*known, ALL], "a modality of the data, or all")
        chosen = tuple(name for name in order if ALL in wanted or name in wanted)
        if not chosen:
            raise BadInput("--modalities", "names separated by commas, or all", repr(text), nearest("", list(known)))
        out.append(chosen)
    return tuple(dict.fromkeys(out))


def equalised(method: Method, kinds: Mapping[str, str], settings: CompareSettings, seed: int) -> Recipe:
    """A method's recipe with the training that all share. Raises BadInput for a setting that the recipe lacks."""
    made = find_recipe(method.recipe, kinds, settings.size)
    common = TrainConfig(batch_size=64)
    made = made.replace(train=made.train.replace(**{name: getattr(common, name) for name in _SHARED}))
    try:
        made = made.override([*settings.settings, *method.settings])
    except BadInput as error:
        raise BadInput(f"--methods {method.name}: {error.field}", error.expected, error.got, error.hint) from None
    return made.override([f"train.seed={json.dumps(seed)}", "train.keep=1"])
