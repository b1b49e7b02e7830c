"""Trifeature: does a method keep what two pictures share, what each alone shows, and what only both together say?"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from polymodal import presence
from polymodal.bench import _trifeature_data as data
from polymodal.bench._base import Cell, Options, Result, Table, over_seeds
from polymodal.bench._kept import kept
from polymodal.config import parse_kind
from polymodal.draws import seed_of
from polymodal.model import ITEM, Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.recipe import TrainConfig
from polymodal.tensors import Batch, Cells, Tokens
from polymodal.train.optim import autocast, build_optimizer, learning_rate
from polymodal.types import BadInput, MissingExtra

__all__ = ["METHODS", "run"]

QUESTION = (
    "Two pictures of one shape: does the representation keep the shape (redundancy), the texture of each picture "
    "(uniqueness), and whether the colour of the second is the one that belongs to the texture of the first (synergy)?"
)
NAMES = ("first", "second")
BATCH = 128
TASKS = ("redundancy", "uniqueness", "synergy")
PENALTIES = (0.01, 0.1)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """What is trained (None: nothing) in a model of which stages."""

    objective: Mapping[str, Any] | None
    trunk: bool = False


METHODS: Mapping[str, Method] = {
    "raw pixels, 10 x 10": Method(None),
    "untrained towers": Method(None),
    "untrained trunk": Method(None, trunk=True),
    "Cross": Method({"kind": "clip", "temperature": 0.1, "learn_temperature": False}),
    "Cross+Self": Method({"kind": "cross_self", "temperature": 0.1, "learn_temperature": False}),
    "FactorCL": Method({"kind": "factorcl"}),
    "subset -> held-out": Method(
        {"kind": "confu", "fuse": "model", "temperature": 0.1, "learn_temperature": False}, trunk=True
    ),
    "CoMM": Method({"kind": "comm", "readout_weight": 0.0}, trunk=True),
}


@dataclass(frozen=True)
class Setting:
    """One experiment: pictures, the pairs to train on and the pairs to probe with, the C that a probe chooses from."""

    train: data.Pictures
    test: data.Pictures
    rule: data.Ints
    biased: bool
    steps: int
    penalties: tuple[float, ...]


def run(options: Options) -> Result:
    """Two trainings a method and seed: on pairs that share the shape alone, for redundancy and uniqueness, and on pairs
    that also follow a fixed rule from texture to colour, for synergy.

    Settings: `steps` of the first training (1000) and `synergy_steps` of the second (as many); `methods`, names of
    METHODS separated by ";"; `penalties`, the C that a probe may choose from, with commas (0.01,0.1; CoMM's own
    protocol searches 1e-6 to 1e6).
    """
    quick = options.quick
    steps = int(options.settings.get("steps", "20" if quick else "1000"))
    long = int(options.settings.get("synergy_steps", steps))
    chosen = [m.strip() for m in options.settings.get("methods", ";".join(METHODS)).split(";")]
    for name in chosen:
        if name not in METHODS:
            raise BadInput("methods", f"names among {'; '.join(METHODS)}", repr(name))
    penalties = _penalties(options.settings.get("penalties"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in options.seeds:
        for name in chosen:
            scores: dict[str, float] = {}
            for biased in (False, True):
                scores |= _scores(options, name, seed, long if biased else steps, biased, penalties)
            found[name].append(scores)
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (name, *(over_seeds([each[task] for each in found[name]]) for task in TASKS), _cost(found[name]))
        for name in chosen
    )
    chance = ("chance", *[f"{1 / data.KINDS:.3f}"] * 2, "0.500", "-")
    table = Table("Accuracy of a linear probe", ("method", *TASKS, "CPU s"), (*rows, chance))
    settings = {"steps": steps, "synergy_steps": long, "batch": BATCH, "seeds": list(options.seeds)}
    settings |= {"side": data.SIDE, "penalties": list(penalties), "quick": quick}
    return Result("trifeature", QUESTION, (table,), _findings(found), settings=settings)


def _penalties(given: str | None) -> tuple[float, ...]:
    """The numbers of the setting `penalties`."""
    if given is None:
        return PENALTIES
    try:
        found = tuple(float(part) for part in given.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < c < float("inf") for c in found):
        raise BadInput("penalties", "numbers above 0, separated by commas", repr(given))
    return found


def _cost(each: Sequence[Mapping[str, float]]) -> str:
    """CPU seconds of both trainings and their probes."""
    return f"{np.mean([scores['seconds False'] + scores['seconds True'] for scores in each]):.0f}"


def _scores(
    options: Options, name: str, seed: int, steps: int, biased: bool, penalties: tuple[float, ...]
) -> dict[str, float]:
    """The scores of one training and the CPU seconds it took."""

    def compute() -> dict[str, float]:
        begun = time.process_time()
        scores = _one(name, seed, steps, biased, options.quick, penalties)
        taken = time.process_time() - begun
        options.say(f"{name}, seed {seed}, {'biased' if biased else 'unbiased'}: {scores} in {taken:.0f} s")
        return scores | {f"seconds {biased}": taken}

    deciding = {
        "method": name,
        "objective": METHODS[name].objective,
        "steps": steps,
        "biased": biased,
        "penalties": penalties,
    }
    found: dict[str, float] = kept(options, __name__, deciding, seed, compute, also=(data.__name__,))
    return found


def _one(name: str, seed: int, steps: int, biased: bool, quick: bool, penalties: tuple[float, ...]) -> dict[str, float]:
    train, test = data.pictures(seed, renders=1 if quick else 3)
    rule = np.random.default_rng([seed, 2]).permutation(data.KINDS)
    setting = Setting(train, test, rule, biased, steps, penalties)
    method = METHODS[name]
    model = _model(method, seed)
    if method.objective is not None:
        _train(model, method.objective, setting, seed)
    raw = name.startswith("raw")
    return _probe(model, setting, seed, raw, 400 if quick else 3000)


def _model(method: Method, seed: int) -> Model:
    torch.manual_seed(seed)
    config = ModelConfig(
        width=128,
        embedding=128,
        stages=("towers", "trunk") if method.trunk else ("towers",),
        tower=StackConfig(layers=0),
        trunk=StackConfig(layers=1, heads=8),
        summary="token",
    )
    return Model({name: data.PictureConfig().build(config.width, {}) for name in NAMES}, config)


def _scaled(pixels: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).float() / 127.5 - 1


def _batch(inputs: Mapping[str, Tensor], digests: Mapping[str, Tensor], keys: Tensor) -> Batch:
    there = torch.ones(len(keys), 1, dtype=torch.bool)
    cells = {name: Cells({"pixels": pixels[:, None]}, there) for name, pixels in inputs.items()}
    return Batch(tuple(map(str, keys.tolist())), cells, dict(digests), keys, keys)


def _train(model: Model, described: Mapping[str, Any], setting: Setting, seed: int) -> None:
    """AdamW at 1e-3 with a cosine, the same for every method; views are augmented for all of them."""
    random, generator = np.random.default_rng([seed, 3]), torch.Generator().manual_seed(seed)
    of = setting.train
    first, second = data.pairs(of, 10_000, random, setting.rule if setting.biased else None, 1.0)
    config = parse_kind("polymodal.objectives", dict(described), "objective", ObjectiveConfig)
    objective: Objective = config.build(model)
    shape = TrainConfig(learning_rate=1e-3, warmup=0.05, weight_decay=1e-4)
    optimizer = build_optimizer([model, objective], shape)
    for step in range(setting.steps):
        rows = torch.from_numpy(random.permutation(len(first))[:BATCH])
        picks = {"first": first[rows], "second": second[rows]}
        clean = {name: _scaled(of.pixels[at]) for name, at in picks.items()}
        # one picture stands in several pairs: identical content is no negative
        digests = {name: torch.from_numpy(at + 1) for name, at in picks.items()}
        views = [
            _batch({n: data.augmented(x, generator) for n, x in clean.items()}, digests, rows)
            for _ in range(objective.views)
        ]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(shape, step, setting.steps)
        _step(model, objective, views, seed_of(seed, step), optimizer)


def _step(model: Model, objective: Objective, views: Sequence[Batch], seed: int, optimizer: Any) -> None:
    """One step, and those of the critics of an objective that has any."""
    compute = [objective, *[getattr(objective, "critic_losses", None)] * int(getattr(objective, "critic_steps", 0))]
    for turn, losses in enumerate(compute):
        assert losses is not None
        optimizer.zero_grad(set_to_none=True)
        with autocast(torch.bfloat16, torch.device("cpu")):
            total = losses(model, views, seed_of(seed, turn)).total
        total.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()


# -- probes ------------------------------------------------------------------------------------------------------------


def _probe(model: Model, setting: Setting, seed: int, raw: bool, count: int) -> dict[str, float]:
    """Redundancy and uniqueness from the unbiased training, synergy from the biased one."""
    random = np.random.default_rng([seed, 4])
    tasks = ("synergy",) if setting.biased else ("redundancy", "uniqueness")
    share = {"synergy": 0.5}
    found: dict[str, float] = {}
    for task in tasks:
        rule = setting.rule if task == "synergy" else None
        sides = []
        for of, n in ((setting.train, count), (setting.test, count // 2)):
            first, second = data.pairs(of, n, random, rule, share.get(task, 0.0))
            sides.append((_features(model, of, first, second, raw), _labels(of, first, second, setting.rule, task)))
        (x, y), (test_x, test_y) = sides
        found[task] = float(
            np.mean([_accuracy(x, a, test_x, b, setting.penalties) for a, b in zip(y, test_y, strict=True)])
        )
    return found


def _labels(of: data.Pictures, first: data.Ints, second: data.Ints, rule: data.Ints, task: str) -> list[data.Ints]:
    if task == "redundancy":
        return [of.shape[first]]
    if task == "uniqueness":
        return [of.texture[first], of.texture[second]]
    return [data.matched(of, first, second, rule).astype(np.int64)]


@torch.no_grad()
def _features(model: Model, of: data.Pictures, first: data.Ints, second: data.Ints, raw: bool) -> Floats:
    """What the item projection of a trunk reads, or the outputs of the towers side by side; not the projections."""
    if raw:
        small = F.avg_pool2d(_scaled(of.pixels), 4).flatten(1)
        return torch.cat([small[first], small[second]], 1).numpy()
    # each picture goes through each encoder once, pairs are made of the tokens
    tokens: dict[str, list[Tokens]] = {name: [] for name in NAMES}
    for at in torch.split(torch.arange(len(of.pixels)), 200):
        pixels = _scaled(of.pixels[at])
        for name, part in model.tokenize(_batch(dict.fromkeys(NAMES, pixels), {}, at)).items():
            tokens[name].append(part)
    parts = {}
    for name, rows in zip(NAMES, (first, second), strict=True):
        x, valid = torch.cat([part.x for part in tokens[name]]), torch.cat([part.valid for part in tokens[name]])
        parts[name] = Tokens(x[rows], valid[rows])
    last = model.encode(parts).last
    read = [last[ITEM]] if ITEM in last else [last[name] for name in NAMES]
    return torch.cat([presence.pool(part).z for part in read], 1).float().numpy()


def _accuracy(
    x: Floats, y: data.Ints, test_x: Floats, test_y: data.Ints, penalties: tuple[float, ...] = PENALTIES
) -> float:
    """Mean recall over the classes of a logistic regression on standardised columns; C by a held-out fifth."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import balanced_accuracy_score
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
    cut = len(x) * 4 // 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed budget of iterations

        def fitted(c: float, rows: slice) -> Any:
            return LogisticRegression(C=c, max_iter=100, class_weight="balanced").fit(x[rows], y[rows])

        held = [balanced_accuracy_score(y[cut:], fitted(c, slice(cut)).predict(x[cut:])) for c in penalties]
        best = fitted(penalties[int(np.argmax(held))], slice(None))
        return float(balanced_accuracy_score(test_y, best.predict(test_x)))


def _findings(found: Mapping[str, Sequence[Mapping[str, float]]]) -> tuple[str, ...]:
    """Whether the published order appears: Cross fails uniqueness and synergy, CoMM leads both."""
    mean = {name: {task: float(np.mean([s[task] for s in each])) for task in TASKS} for name, each in found.items()}
    trained = {name: scores for name, scores in mean.items() if METHODS[name].objective is not None}
    said = []
    for task in ("uniqueness", "synergy"):
        order = sorted(trained, key=lambda name: -trained[name][task])
        said.append(f"{task}: " + ", ".join(f"{name} {trained[name][task]:.3f}" for name in order))
        if "CoMM" in trained and len(trained) > 1:
            said.append(f"CoMM {'leads' if order[0] == 'CoMM' else 'does not lead'} {task}.")
    return tuple(said)
