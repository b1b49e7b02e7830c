"""The loop. `Trainer.fit` is the whole of it; what it calls is in the files beside this one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from polymodal import presence
from polymodal.draws import seed_of
from polymodal.model import ITEM, Model
from polymodal.nn.blocks import metered
from polymodal.objective import Objective
from polymodal.recipe import Recipe
from polymodal.tensors import Batch, Losses
from polymodal.train import checkpoint as ckpt
from polymodal.train.distributed import Group
from polymodal.train.monitor import Alarm, Metrics, Ticker, effective_rank
from polymodal.train.optim import (
    Average,
    autocast,
    build_optimizer,
    learning_rate,
    optimizer_state,
    pick_precision,
    restore_optimizer,
)
from polymodal.types import BadInput, PolymodalError

__all__ = ["Interrupted", "Stream", "Trainer", "stop_flag"]


class Interrupted(PolymodalError):
    """Somebody pressed Ctrl-C; the run was saved and can go on."""


class Stream(Protocol):
    """Batches from any point on. The state is JSON and says which rows come next, whatever the number of ranks."""

    steps_per_epoch: int

    def start(self) -> Mapping[str, int]:
        """The state before the first batch."""

    def batches(self, state: Mapping[str, int]) -> Iterator[tuple[Mapping[str, int], Sequence[Batch]]]:
        """(state after, views) for ever, one epoch after the other."""


@dataclass
class Trainer:
    """Trains a model by an objective on a stream of batches.

    Resuming is exact: every random draw is keyed by (seed, step) or (seed, epoch, row), so a checkpoint holds weights,
    the optimiser's moments, a step and the stream's state, and nothing of any generator.
    """

    model: Model
    objective: Objective
    recipe: Recipe
    stream: Stream
    run: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: Group | None = None
    console: Console | None = None

    def __post_init__(self) -> None:
        config = self.recipe.train
        self.modules = nn.ModuleDict({"model": self.model.to(self.device), "objective": self.objective.to(self.device)})
        self.optimizer = build_optimizer(self.modules.values(), config)
        self.average = Average(self.model, config.ema) if config.ema else None
        self.steps = config.steps or config.epochs * self.stream.steps_per_epoch
        self.dtype = pick_precision(config.precision, self.device, self.recipe.model.width)
        self.step, self.state = 0, dict(self.stream.start())
        self.alarm = Alarm(self.recipe.model.embedding)
        self.blanks = {name: self.model.modality(name).blank() for name in self.model.names}
        if self.group is not None:
            self.objective.world = self.group
            if config.batch_size // config.accumulate % self.group.size:
                raise BadInput(
                    "train.batch_size",
                    f"a micro-batch that divides among {self.group.size} processes",
                    f"{config.batch_size} / {config.accumulate}",
                )

    def fit(self) -> None:
        """Train to the last step. Raises Interrupted after Ctrl-C (saved), Diverged when the loss is no number."""
        config, alarm = self.recipe.train, self.alarm
        metrics = Metrics(self.run / "metrics.jsonl", self.step) if self._first else None
        batches = self.stream.batches(self.state)
        begun, rows = time.monotonic(), 0
        with stop_flag() as pressed, Ticker(self.steps, self.step, self._console) as ticker:
            while self.step < self.steps:
                look = self.step % config.log_every == 0 or self.step == self.steps - 1
                micro = [self._take(batches) for _ in range(config.accumulate)]
                with metered() as flops:
                    losses, norm = self._update(micro)
                alarm.finite(self.step, bool(norm.isfinite()))
                self.step += 1
                rows += sum(len(views[0]) for views in micro) * (1 if self.group is None else self.group.size)
                if look:
                    rate = rows / (time.monotonic() - begun)
                    line = self._line(losses, norm, rate) | {"flops_valid": flops.valid, "flops_spent": flops.spent}
                    warmed = self.step > config.warmup * self.steps
                    line["alarms"] = alarm.look(line["loss"], line.get("effective_rank"), warmed)
                    if metrics is not None:
                        metrics.write(line)
                    ticker.step(self.step, line["loss"], rate)
                    for text in line["alarms"]:
                        ticker.say(f"[bold red]alarm[/] {text}")
                stopped = bool(pressed) if self.group is None else self.group.any(bool(pressed))
                saved = stopped or self.step % config.checkpoint_every == 0 or self.step == self.steps
                if saved:
                    self.save()
                # pressed while the last step was saved, it would be lost
                if stopped or (saved and pressed and self.group is None):
                    raise Interrupted(
                        f"Stopped after step {self.step} of {self.steps}, saved. "
                        f"Go on with: polymodal train --resume {self.run}"
                    )

    def _take(self, batches: Iterator[tuple[Mapping[str, int], Sequence[Batch]]]) -> list[Batch]:
        state, views = next(batches)
        self.state = dict(state)
        return [presence.complete(view, self.blanks).to(self.device) for view in views]

    def _update(self, micro: Sequence[Sequence[Batch]]) -> tuple[Losses, Tensor]:
        """One step on some micro-batches, then the critics' own: the losses of the last micro-batch and the norm of the
        gradient, both of the step proper."""
        config = self.recipe.train
        torch.manual_seed(seed_of(config.seed, self.step, "dropout", 0 if self.group is None else self.group.rank))
        self.modules.train()
        losses, norm = self._descend(self.objective, micro, list(self.modules.parameters()))
        if self.average is not None and bool(norm.isfinite()):
            self.average.update(self.step)
        for turn in range(self.objective.critic_steps):
            self._descend(self.objective.critic_losses, micro, self.objective.critic_parameters(), "critic", turn)
        return losses, norm

    def _descend(
        self,
        compute: Callable[..., Losses],
        micro: Sequence[Sequence[Batch]],
        parameters: list[nn.Parameter],
        *turn: str | int,
    ) -> tuple[Losses, Tensor]:
        """Move `parameters` against their gradient. What has no gradient does not move, and its moments stay."""
        config = self.recipe.train
        self.optimizer.zero_grad(set_to_none=True)
        for at, views in enumerate(micro):
            with autocast(self.dtype, self.device):
                losses = compute(self.model, views, seed_of(config.seed, self.step, at, *turn))
            total = losses.total if self.group is None else self.group.share(losses)
            (total / len(micro)).backward()  # type: ignore[no-untyped-call]
        if self.group is not None:
            self.group.sum_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        if bool(norm.isfinite()):
            for settings in self.optimizer.param_groups:
                settings["lr"] = learning_rate(config, self.step, self.steps)
            self.optimizer.step()
        return losses, norm

    @property
    def _first(self) -> bool:
        return self.group is None or self.group.rank == 0

    @property
    def _console(self) -> Console | None:
        return self.console if self._first else None

    @torch.no_grad()
    def _line(self, losses: Losses, norm: Tensor, rate: float) -> dict[str, Any]:
        losses = losses if self.group is None else self.group.whole(losses)
        line: dict[str, Any] = {"step": self.step, "epoch": self.state.get("epoch", 0), "loss": float(losses.total)}
        line["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        line["gradient_norm"] = float(norm)
        line["items_per_second"] = round(rate, 2)
        line["terms"] = {name: [float(term.value), int(term.count)] for name, term in losses.terms.items()}
        line["log"] = {name: float(value) for name, value in losses.log.items()}
        item = losses.embedded.get(ITEM)
        if item is not None:
            z, there = (v if self.group is None else self.group.gather(v) for v in (item.z, item.present))
            line["effective_rank"] = effective_rank(z[there].float())
        return line

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of the run as it stands (rank 0 only; the others wait)."""
        if self._first:
            tensors: dict[str, Mapping[str, Tensor]] = {
                "model": self.model.state_dict(),
                "objective": self.objective.state_dict(),
                "optimizer": optimizer_state(self.optimizer),
            }
            if self.average is not None:
                tensors["average"] = self.average.values
            state = {"step": self.step, "stream": self.state, "alarm": self.alarm.state()}
            ckpt.save(self.run / "checkpoints", ckpt.Checkpoint(self.step, tensors, state), self.recipe.train.keep)
        if self.group is not None:
            torch.distributed.barrier()

    def resume(self) -> list[str]:
        """Take up the newest whole checkpoint of the run; returns what to tell people about damaged ones."""
        found, said = ckpt.latest(self.run / "checkpoints")
        self.model.load_state_dict(found.tensors["model"])
        self.objective.load_state_dict(found.tensors["objective"])
        restore_optimizer(self.optimizer, found.tensors["optimizer"])
        if self.average is not None:
            self.average.values = {k: v.to(self.device) for k, v in found.tensors["average"].items()}
        self.step, self.state = int(found.state["step"]), dict(found.state["stream"])
        self.alarm.restore(found.state["alarm"])
        return said

    def exported(self) -> dict[str, Tensor]:
        """The weights to keep: the average where there is one, else the last."""
        weights = dict(self.model.state_dict())
        return weights | (self.average.values if self.average is not None else {})


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """A list that the first Ctrl-C (or SIGTERM) puts something into; a second one interrupts at once."""
    stopped: list[int] = []

    def note(number: int, _frame: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    before: dict[int, Any] = {}
    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: nobody can press Ctrl-C here
        pass
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
