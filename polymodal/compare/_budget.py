"""How long a method trains: steps, or the steps that fit into some seconds; and what a step costs in operations.

Seconds are measured on this machine while it does whatever else it does: they are noisy, and the smaller of the medians
of two turns is taken. Operations are counted, and are the same everywhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polymodal.recipe import Recipe
from polymodal.workflow.training import train

__all__ = ["flops_of_a_step", "seconds_of_a_step", "step_times", "steps_within", "trained_seconds"]

_CLOCKED, _WARM, _COUNTED = 14, 4, 2


def seconds_of_a_step(recipe: Recipe, place: Path, device: str) -> float:
    """Median seconds of a step, of a short run that is thrown away."""
    try:
        short = [f"train.steps={_CLOCKED}", "train.log_every=1", "train.checkpoint_every=1000000"]
        train(recipe.override(short), place, None, device)
        lines = (place / "metrics.jsonl").read_text().splitlines()
        return float(np.median(step_times(lines, recipe.train.batch_size)[_WARM:]))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def step_times(lines: Sequence[str], batch_size: int) -> list[float]:
    """Seconds of each step of `batch_size` rows, from the running rate of rows that a trainer logs at every step."""
    rates = [json.loads(line)["items_per_second"] for line in lines]
    until = [(at + 1) * batch_size / rate for at, rate in enumerate(rates) if rate > 0]
    return [float(step) for step in np.diff(np.asarray([0.0, *until]))]


def flops_of_a_step(recipe: Recipe, place: Path, device: str) -> float:
    """Operations of a step, forward and backward, of every matrix product: the mean of a few steps.

    Attention runs as plain products here, so that all of it is counted.
    """
    try:
        short = [f"train.steps={_COUNTED}", "train.checkpoint_every=1000000"]
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            train(recipe.override(short), place, None, device)
        return float(counter.get_total_flops()) / _COUNTED
    finally:
        shutil.rmtree(place, ignore_errors=True)


def steps_within(seconds: float, pace: float) -> int:
    """Steps that fit, at least one."""
    return max(1, round(seconds / pace))


def trained_seconds(run: Path, batch_size: int, steps: int, resumed: bool) -> float | None:
    """Seconds the loop took, from the last rate that was logged; None for a run that was stopped in between."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rate = json.loads(lines[-1])["items_per_second"] if lines else 0.0
    return None if resumed or not rate else steps * batch_size / rate
