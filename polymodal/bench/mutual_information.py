"""How near the bounds come to an information that is known: NCE, CLUB and NCE-CLUB on correlated Gaussians."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from polymodal.bench._base import Cell, Options, Result, Table, over_seeds
from polymodal.bench._synthetic import Floats, gaussian_pairs
from polymodal.losses.critics import ConcatCritic, DotCritic, mlp
from polymodal.losses.information import capacity, club, nce, pairing
from polymodal.types import MissingExtra

__all__ = ["run"]

QUESTION = "Do the bounds enclose a mutual information that is known, and how far are they from it?"
NATS = (2.0, 4.0, 6.0, 8.0, 10.0)
BATCH, RATE, HIDDEN = 64, 5e-3, 512
BOUNDS = ("NCE", "NCE-CLUB", "NCE, dot", "NCE-CLUB, dot", "CLUB")
# bound -> the value of every step
Curve: TypeAlias = dict[str, list[float]]


class Gaussian(nn.Module):
    """q(y|x), a diagonal Gaussian whose mean and log variance are MLPs of x: what plain CLUB is made of.

    Source: Cheng et al. 2020, "CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information", section 3.2;
        Linear95/CLUB, `CLUB`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean, self.spread = mlp([dim, HIDDEN // 2, dim]), mlp([dim, HIDDEN // 2, dim])

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """CLUB of a batch and the loss of q, both scalars."""
        mean, log_variance = self.mean(x), torch.tanh(self.spread(x))
        precision = (-log_variance).exp()
        own = -0.5 * ((mean - y).square() * precision)
        # over all pairs: E (m - y')^2 = (m - mean of y)^2 + variance of y
        every = -0.5 * (((mean - y.mean(0)).square() + y.var(0, unbiased=False)) * precision)
        return (own.sum(1) - every.sum(1)).mean(), -(own - 0.5 * log_variance).sum(1).mean()


def estimate(dim: int, steps: int, seed: int) -> Curve:
    """The bounds of every step, before its update, at 2, 4, ... 10 nats in turn, `steps` each, by models carried on."""
    torch.manual_seed(seed)
    critics = {"": ConcatCritic(dim, dim, HIDDEN, layers=1, rows=0), ", dot": DotCritic(dim, dim, HIDDEN // 2, 1, 32)}
    q = Gaussian(dim)
    modules = [*critics.values(), q]
    optimizer = torch.optim.Adam([p for m in modules for p in m.parameters()], lr=RATE, fused=True)
    there = torch.ones(BATCH, dtype=torch.bool)
    pairs = pairing(there, there)
    most = float(capacity(pairs))
    curve: Curve = {name: [] for name in BOUNDS}
    for level, nats in enumerate(NATS):
        stream = gaussian_pairs(nats, dim, BATCH, 1000 * seed + level)
        for _ in range(steps):
            x, y = next(stream)
            loss = torch.zeros(())
            for kind, critic in critics.items():
                scores = critic(x, y)
                low = nce(scores, pairs).value
                curve[f"NCE{kind}"].append(most - float(low.detach()))
                curve[f"NCE-CLUB{kind}"].append(float(club(scores.detach(), pairs).value))
                loss = loss + low
            high, fit = q(x, y)
            curve["CLUB"].append(float(high.detach()))
            optimizer.zero_grad(set_to_none=True)
            (loss + fit).backward()
            optimizer.step()
    return curve


def run(options: Options) -> Result:
    """NCE, NCE-CLUB (critic of the concatenation as in the paper, and dot) and CLUB at 2 to 10 nats.

    Settings: `dims` ("20"; the paper has "20,50,100,200"); `steps` per level (600; the paper has 4000). A figure is the
    mean over the last third of a level's steps.
    """
    quick = options.quick
    steps = int(options.settings.get("steps", "30" if quick else "600"))
    dims = [int(d) for d in options.settings.get("dims", "20").split(",")]
    tables, findings, curves = [], ["A quick run: these figures mean nothing."] if quick else [], {}
    for dim in dims:
        found = []
        for seed in options.seeds:
            found.append(estimate(dim, steps, seed))
            options.say(f"{dim} dimensions, seed {seed}")
        curves[dim] = {name: np.mean([f[name] for f in found], 0) for name in BOUNDS}
        table, said = _summary(dim, found, steps)
        tables.append(table)
        findings += said
    settings = {"dims": dims, "steps": steps, "batch": BATCH, "rate": RATE, "hidden": HIDDEN, "seeds": options.seeds}
    pictures = {"mutual_information.png": _picture(curves, steps)}
    return Result("mutual_information", QUESTION, tuple(tables), tuple(findings), pictures, settings)


def _summary(dim: int, found: Sequence[Curve], steps: int) -> tuple[Table, list[str]]:
    last = {
        (name, level): [float(np.mean(f[name][level * steps + steps * 2 // 3 : (level + 1) * steps])) for f in found]
        for name in BOUNDS
        for level in range(len(NATS))
    }
    rows: list[tuple[str | Cell, ...]] = [
        (f"{nats:.0f}", *(over_seeds(last[name, level]) for name in BOUNDS)) for level, nats in enumerate(NATS)
    ]
    said = []
    for name in BOUNDS:
        upper, means = "CLUB" in name, [float(np.mean(last[name, level])) for level in range(len(NATS))]
        right = [f"{n:.0f}" for n, m in zip(NATS, means, strict=True) if (m >= n if upper else m <= n)]
        side = "above" if upper else "below"
        said.append(f"d={dim}: {name} lies {side} the truth at {', '.join(right) or 'none'} nats.")
    title = f"{dim} dimensions, batch {BATCH} (log {BATCH} = {math.log(BATCH):.2f} nats), {steps} steps a level"
    return Table(title, ("truth", *BOUNDS), tuple(rows)), said


def _picture(curves: Mapping[int, Mapping[str, Floats]], steps: int) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    figure = Figure(figsize=(5.5 * len(curves), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (dim, curve) in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True):
        for name, values in curve.items():
            axis.plot(_smooth(values), label=name, linewidth=1.3)
        axis.step(np.arange(len(NATS) + 1) * steps, [*NATS, NATS[-1]], where="post", color="black", label="truth")
        axis.set(title=f"{dim} dimensions", xlabel="step", ylabel="nats", ylim=(0, 2.5 * NATS[-1]))
    axis.legend(frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def _smooth(values: Floats, span: int = 200) -> Floats:
    """Exponential moving average of the paper's span, started at the first value."""
    out, state, share = np.empty(len(values), np.float32), float(values[0]), 2 / (span + 1)
    for at, value in enumerate(values):
        state += share * (float(value) - state)
        out[at] = state
    return out
