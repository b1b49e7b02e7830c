"""What encoders keep of what two modalities share and of what each alone knows, and whether heads tell them apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from polymodal.bench import _synthetic
from polymodal.bench._base import Cell, Options, Result, Table, over_seeds
from polymodal.bench._kept import kept
from polymodal.bench._synthetic import Floats, Labels, World, augmented, disentangled, factorised
from polymodal.losses.contrastive import contrast
from polymodal.losses.critics import CriticConfig, mlp
from polymodal.losses.disentangle import Canonical
from polymodal.objectives._factors import Inputs
from polymodal.objectives.factorcl import FactorCL, FactorCLConfig, Weights
from polymodal.tensors import Embedded
from polymodal.types import BadInput, MissingExtra

__all__ = ["METHODS", "Trained", "run"]

QUESTION = (
    "What do encoders trained by each method keep of the shared and the unique part of two modalities, and do "
    "FactorCL's shared and unique heads tell them apart?"
)
BATCH, WIDTH, RATE = 256, 128, 1e-4
# the notebook's heads have two hidden layers; its critics, MLPs of the concatenation with two hidden layers of 512, are
# dot critics here
_CRITIC = CriticConfig(kind="dot", hidden=512, layers=1, width=128, head_layers=2)
_NO_FUSION = Weights(fusion=0.0)
_SUP = FactorCLConfig(label="all", critic=_CRITIC, weights=_NO_FUSION, given_sides="left")
_SSL = FactorCLConfig(critic=_CRITIC, weights=_NO_FUSION)
# found on a world of seed 100, which no reported figure uses, as were the threshold and ridge of the canonical ones
_APART: dict[str, Any] = {
    "align": 10.0,
    "separate": 10.0,
    "heads": "core",
    "critic": _CRITIC.replace(head=16, head_layers=1),
}
METHODS: Mapping[str, FactorCLConfig | None] = {
    "raw input": None,
    "untrained encoder": None,
    "SimCLR": None,
    "SupCon": None,
    "FactorCL-SUP": _SUP,
    "FactorCL-SSL": _SSL,
    "FactorCL-SUP, factorised": _SUP.replace(**_APART, conditional="within_class"),
    "FactorCL-SSL, factorised": _SSL.replace(**_APART),
    "FactorCL-SUP, canonical": _SUP.replace(heads="canonical"),
    "FactorCL-SSL, canonical": _SSL.replace(heads="canonical"),
    # controls: how much of it the canonical directions of what was never trained have
    "raw input, canonical": None,
    "untrained encoder, canonical": None,
}
_CANONICAL = ", canonical"
Trained: TypeAlias = dict[str, float]


def encoder() -> nn.Module:
    """100 -> 512 x 3 -> 128, the notebook's."""
    return mlp([100, 512, 512, 512, WIDTH])


class Learner(nn.Module):
    """Two encoders and what trains them."""

    def __init__(self, names: Sequence[str], config: FactorCLConfig | None) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: encoder() for name in names})
        self.objective = None if config is None else FactorCL(config, tuple(names), WIDTH)
        self.projections = nn.ModuleDict({name: mlp([WIDTH] * 3) for name in names}) if config is None else None

    def vectors(self, x: Mapping[str, Tensor]) -> dict[str, Embedded]:
        """The encoders' outputs as vectors that are all there."""
        return {n: Embedded(self.encoders[n](v), torch.ones(len(v), dtype=torch.bool)) for n, v in x.items()}

    def inputs(self, views: Sequence[Mapping[str, Tensor]], keys: Tensor, labels: Tensor) -> Inputs:
        """What FactorCL's terms read."""
        seen = [self.vectors(view) for view in views]
        return Inputs(seen, seen, keys, labels)


def train(
    learner: Learner, world: World, labels: Labels, method: str, epochs: int, seed: int, batch: int = BATCH
) -> float:
    """Adam at 1e-4; every step is followed by one of the CLUB critics. Returns CPU s per epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(learner.parameters(), lr=RATE, fused=True)
    x = {name: torch.from_numpy(value) for name, value in world.inputs.items()}
    y = torch.from_numpy(labels)
    begun = time.process_time()
    for epoch in range(epochs):
        for at, rows in enumerate(torch.split(torch.randperm(len(y), generator=generator), batch)):
            if len(rows) < batch:
                continue
            clean = {name: value[rows] for name, value in x.items()}
            views = [clean]
            if learner.objective is not None and learner.objective.views == 2:
                views.append({name: augmented(value, generator) for name, value in clean.items()})
            for loss in losses(learner, views, rows, y[rows], method, epoch * 100_000 + at):
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return (time.process_time() - begun) / max(epochs, 1)


def losses(
    learner: Learner, views: Sequence[Mapping[str, Tensor]], keys: Tensor, y: Tensor, method: str, step: int
) -> Iterator[Tensor]:
    """What is minimised in turn, each after the parameters have moved."""
    objective = learner.objective
    if objective is None:
        yield _baseline(learner, views[0], y if method == "SupCon" else None)
        return
    yield objective.terms(learner.inputs(views, keys, y), step).total
    for _ in range(objective.critic_steps):
        with torch.no_grad():
            inputs = learner.inputs(views, keys, y)
        yield objective.critic_terms(inputs, step).total


def _baseline(learner: Learner, x: Mapping[str, Tensor], y: Tensor | None, scale: float = 1 / 0.07) -> Tensor:
    """SimCLR between the modalities, or SupCon where there are labels: at temperature 0.07, and as in the notebook of
    projections that are not scaled to unit length, without which its figures do not come out."""
    assert learner.projections is not None
    a, b = (learner.projections[n](v.z) for n, v in learner.vectors(x).items())
    there = torch.ones(len(a), dtype=torch.bool)
    if y is None:
        return contrast(a, there, b, there, scale).value
    same = (y[:, None] == y[None]).float()
    total = torch.zeros(())
    for logits in (a @ b.T * scale, b @ a.T * scale):
        total = total - ((logits.log_softmax(1) * same).sum(1) / same.sum(1)).mean() / 2
    return total


# -- probes ------------------------------------------------------------------------------------------------------------


def accuracy(train_x: Floats, train_y: Labels, test_x: Floats, test_y: Labels) -> float:
    """The published probe: scikit-learn's logistic regression, 200 iterations, nothing standardised."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtra("scikit-learn", "report") from None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged after 200 iterations is part of the protocol
        probe = LogisticRegression(max_iter=200).fit(train_x, train_y)
    return float(probe.score(test_x, test_y))


def explained(train_x: Floats, train_w: Floats, test_x: Floats, test_w: Floats, ridge: float = 1e-3) -> float:
    """R2 on test rows of a ridge regression from standardised columns; the ridge is relative to their variance."""
    mean, deviation = train_x.mean(0), train_x.std(0) + 1e-6
    a, b = ((x - mean).astype(np.float64) / deviation for x in (train_x, test_x))
    centre = train_w.mean(0)
    gram = a.T @ a / len(a) + ridge * np.eye(a.shape[1])
    weights = np.linalg.solve(gram, a.T @ (train_w - centre) / len(a))
    rest = test_w - centre - b @ weights
    return float(1 - (rest**2).sum() / ((test_w - test_w.mean(0)) ** 2).sum())


@torch.no_grad()
def representations(learner: Learner | None, world: World) -> dict[str, Floats]:
    """ "all" side by side, each modality's, and where there are heads Z_S and Z_U of each."""
    if learner is None:
        return {**world.inputs, "all": np.concatenate(list(world.inputs.values()), 1)}
    learner.eval()
    x = {n: torch.from_numpy(v) for n, v in world.inputs.items()}
    nothing = torch.zeros(len(next(iter(x.values()))), dtype=torch.long)
    inputs = learner.inputs([x], nothing, nothing)
    found = {n: v.z.numpy() for n, v in inputs.shared[0].items()}
    found["all"] = np.concatenate(list(found.values()), 1)
    if learner.objective is not None:
        for name, z in learner.objective.factors(inputs).items():
            kind, _, side = name.split("/")
            found[f"{kind}/{side}"] = z.numpy()
    return found


def canonical(before: dict[str, Floats], after: dict[str, Floats]) -> None:
    """Add the shared and the own directions of two representations, found on the rows of `before`, to both."""
    first, second = (n for n in before if n != "all")
    split = Canonical(before[first].shape[1])
    every = torch.ones(len(before[first]), dtype=torch.bool)
    split.update(torch.from_numpy(before[first]), torch.from_numpy(before[second]), every)
    for rows in (before, after):
        for side, name in enumerate((first, second)):
            parts = split.split(torch.from_numpy(rows[name]), side)
            rows |= {f"{kind}/{name}": z.numpy() for kind, z in zip(("shared", "unique"), parts, strict=True)}


# -- the experiment ----------------------------------------------------------------------------------------------------


def measure(method: str, world: World, rows: int, epochs: int, seed: int, batch: int = BATCH) -> Trained:
    """One repetition: train on the first `rows` rows, probe on the others."""
    train_rows, test_rows = (
        world.rows(at) for at in np.split(np.arange(len(next(iter(world.inputs.values())))), [rows])
    )
    torch.manual_seed(seed)
    # labels of the first name are the task of the supervised methods
    task = next(iter(world.labels))
    learner = None if method.startswith("raw input") else Learner(sorted(world.inputs), METHODS[method])
    found: Trained = {}
    if learner is not None and not method.startswith("untrained encoder"):
        # the baselines have twice the epochs, as in the notebook
        passes = epochs * (2 if learner.objective is None else 1)
        found["CPU s per epoch"] = train(learner, train_rows, train_rows.labels[task], method, passes, seed, batch)
    before, after = representations(learner, train_rows), representations(learner, test_rows)
    if method.endswith(_CANONICAL) and (learner is None or learner.objective is None):
        canonical(before, after)
    for name, labels in world.labels.items():
        found[f"accuracy {name}"] = accuracy(before["all"], labels[:rows], after["all"], labels[rows:])
    for name, z in before.items():
        for block, w in train_rows.blocks.items():
            found[f"R2 {name} {block}"] = explained(z, w, after[name], test_rows.blocks[block])
    return found


def run(options: Options) -> Result:
    """FactorCL's synthetic configuration, its published probe, R2 of every block from every representation, and the
    heads' own against foreign blocks.

    Settings: `methods`, names of METHODS separated by ";" (all); `epochs` (10; SimCLR and SupCon have twice as many);
    `rows` (30000, of which 80 % are trained on); `batch` (256); `world`: "factorcl" (blocks 10, 6, 6), or
    "disentangled" (three blocks of 50 and a label of each; supervised methods are trained on the shared block's).
    """
    quick = options.quick
    rows = int(options.settings.get("rows", "1500" if quick else "30000"))
    epochs = int(options.settings.get("epochs", "1" if quick else "10"))
    batch = int(options.settings.get("batch", BATCH))
    kind = options.settings.get("world", "factorcl")
    methods = [m.strip() for m in options.settings.get("methods", ";".join(METHODS)).split(";")]
    for method in methods:
        if method not in METHODS:
            raise BadInput("methods", f"names among {'; '.join(METHODS)}", repr(method))
    makers: dict[str, Callable[[int], World]] = {
        "factorcl": lambda seed: factorised(rows, {"12": 10, "1": 6, "2": 6}, seed),
        "disentangled": lambda seed: disentangled(rows, seed),
    }
    if kind not in makers:
        raise BadInput("world", " or ".join(makers), repr(kind))
    found: dict[str, list[Trained]] = {method: [] for method in methods}
    for seed in options.seeds:
        world = makers[kind](seed)
        for method in methods:
            deciding = {"world": kind, "rows": rows, "epochs": epochs, "batch": batch, "method": method}
            made = partial(measure, method, world, rows * 4 // 5, epochs, seed, batch)
            found[method].append(kept(options, __name__, deciding, seed, made, also=(_synthetic.__name__,)))
            options.say(f"seed {seed}, {method}: accuracy {next(_accuracies(found[method][-1])):.4f}")
    decided: dict[str, Any] = {
        "rows": rows,
        "epochs": epochs,
        "world": kind,
        "seeds": list(options.seeds),
        "batch": BATCH,
        "rate": RATE,
    }
    tables = (_encoders(found), _heads(found))
    marked = ("A quick run: these figures mean nothing.",) if quick else ()
    return Result("shared_unique", QUESTION, tables, (*marked, *_findings(found)), settings=decided)


def _accuracies(one: Trained) -> Iterator[float]:
    return (value for name, value in one.items() if name.startswith("accuracy"))


def _cell(runs: Sequence[Trained], name: str) -> Cell:
    return over_seeds([r.get(name, float("nan")) for r in runs])


def _encoders(found: Mapping[str, Sequence[Trained]]) -> Table:
    figures = [n for n in next(iter(found.values()))[0] if n.startswith(("accuracy", "R2 all"))]
    rows: list[tuple[str | Cell, ...]] = [
        (method, *(_cell(runs, n) for n in [*figures, "CPU s per epoch"])) for method, runs in found.items()
    ]
    title = "Logistic regression on both encoders side by side, and R2 of each block from them"
    return Table(title, ("method", *figures, "CPU s per epoch"), tuple(rows))


def _own_and_foreign(one: Trained, head: str) -> tuple[float, float]:
    """R2 of the block a head should have, and the larger of those that it should not, meaned over both sides."""
    sides = sorted({n.split()[1].split("/")[1] for n in one if n.startswith(f"R2 {head}/")})
    pairs = []
    for side in sides:
        blocks = {n.split()[2]: v for n, v in one.items() if n.startswith(f"R2 {head}/{side} ")}
        wanted = [b for b in blocks if (len(b) > 1) == (head == "shared") and side in b]
        pairs.append((np.mean([blocks[b] for b in wanted]), max(v for b, v in blocks.items() if b not in wanted)))
    own, foreign = np.mean(np.asarray(pairs), 0)
    return float(own), float(foreign)


def _heads(found: Mapping[str, Sequence[Trained]]) -> Table:
    rows = []
    for method, runs in found.items():
        if not any(n.startswith("R2 shared/") for n in runs[0]):
            continue
        for head in ("shared", "unique"):
            own, foreign = zip(*(_own_and_foreign(r, head) for r in runs), strict=True)
            gap = [a - b for a, b in zip(own, foreign, strict=True)]
            rows.append((method, head, over_seeds(own), over_seeds(foreign), over_seeds(gap)))
    title = "R2 of a head's own block against the foreign block it has most of"
    return Table(title, ("method", "head", "own", "foreign", "own - foreign"), tuple(rows))


def _findings(found: Mapping[str, Sequence[Trained]]) -> Iterator[str]:
    for method, runs in found.items():
        if any(n.startswith("R2 shared/") for n in runs[0]):
            gaps = {}
            for head in ("shared", "unique"):
                pairs = [_own_and_foreign(r, head) for r in runs]
                gaps[head] = float(np.mean([own - foreign for own, foreign in pairs]))
            good = all(gap >= 0.5 for gap in gaps.values())
            said = ", ".join(f"{head} {gap:+.2f}" for head, gap in gaps.items())
            yield f"{method}: own minus foreign R2 {said}: the heads {'factorise' if good else 'do not factorise'}."
    if "raw input" in found:
        first = next(n for n in found["raw input"][0] if n.startswith("accuracy"))
        raw = _cell(found["raw input"], first).mean
        beaten = [m for m, runs in found.items() if m != "raw input" and _cell(runs, first).mean > raw]
        yield f"Methods above the raw input ({raw:.4f}) in {first!r}: {', '.join(beaten) or 'none'}."
