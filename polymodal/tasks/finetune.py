"""Fine-tuning: the whole model and a linear head on its item vector learn one label; the best epoch is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from polymodal.config import Config
from polymodal.draws import seed_of
from polymodal.evaluate import LinearFit
from polymodal.model import ITEM, Model
from polymodal.tasks.calibration import negative_log_likelihood, temperature
from polymodal.tensors import Batch, stable_hash
from polymodal.train import checkpoint as ckpt
from polymodal.train.optim import autocast, learning_rate, optimizer_state, restore_optimizer
from polymodal.train.trainer import Interrupted, Stream, stop_flag

__all__ = ["Epoch", "Finetune", "FinetuneConfig", "Head", "label_code", "levels"]

# what happened so far, what of all
Progress = Callable[[int, int], None]


class FinetuneConfig(Config):
    """How a model is fine-tuned.

    Args:
        epochs: at most; patience: it stops after so many without a better validation loss.
        learning_rate: of the head and the projections, at its peak; a block d below the top has `layer_decay`^d of it.
        warmup, final: share of all steps until the peak; last rate, in peaks (a cosine in between).
        weight_decay: AdamW's, on the matrices of linear layers only. clip: largest norm of the gradient.
        balanced: all labels count alike, whatever their frequency, by adding their log frequencies to the scores in
            the loss.
        augment: vary cells at random. checkpoint_every: in steps.
    """

    epochs: int = Field(20, ge=1)
    patience: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    layer_decay: float = Field(0.7, gt=0, le=1)
    warmup: float = Field(0.1, ge=0, le=1)
    final: float = Field(0.01, ge=0, le=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0)
    balanced: bool = False
    augment: bool = True
    checkpoint_every: int = Field(50, ge=1)
    seed: int = 0


class Head(nn.Module):
    """Scores of C labels: a linear layer on standardised item vectors, which begins as a fitted probe."""

    centre: Tensor
    spread: Tensor

    def __init__(self, start: LinearFit) -> None:
        super().__init__()
        self.register_buffer("centre", torch.from_numpy(start.centre).float())
        self.register_buffer("spread", torch.from_numpy(start.spread).float())
        self.linear = nn.Linear(len(start.centre), len(start.labels))
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(start.weight))
            self.linear.bias.copy_(torch.from_numpy(start.bias))

    def forward(self, z: Tensor) -> Tensor:
        """(B, E) -> (B, C)."""
        scores: Tensor = self.linear((z.float() - self.centre) / self.spread)
        return scores

    def fit(self, like: LinearFit) -> LinearFit:
        """The head in the form of a probe, its labels and penalty those of `like`."""

        def plain(x: Tensor) -> Any:
            return x.detach().cpu().double().numpy()

        centre, spread = plain(self.centre), plain(self.spread)
        weight, bias = plain(self.linear.weight), plain(self.linear.bias)
        return LinearFit(like.labels, weight, bias, centre, spread, like.penalty, True)


def label_code(value: str) -> int:
    """What stands for a label value in `Batch.labels`."""
    return stable_hash(f"label\0{value}") & (2**63 - 1)


def levels(model: Model) -> tuple[dict[str, int], int]:
    """Parameter -> its level, and the level of the top: 0 for what embeds tokens, then one for each block that a
    token passes, the projections and the head at the top.

    Towers of different depth end at one level. What a stage adds before its first block has the level below that block,
    a norm after the last block that block's.

    Source: Clark et al. 2020 (ELECTRA) and Bao et al. 2021 (BEiT), layer-wise learning-rate decay.
    Differences: the M3AE release reads the number of layers of another size, gives patch embeddings and type vectors
        the full rate and the encoder's last norm the lowest one.
    """
    begin, out = 0, {}
    for at, stage in enumerate(model.stages):
        names = [name for name, _ in stage.named_parameters()]
        depth: dict[str, int] = {}
        for name in names:
            stack, number, _ = _block(name)
            depth[stack] = max(depth.get(stack, 0), number)
        most = max(depth.values(), default=0)
        for name in names:
            stack, number, inside = _block(name)
            behind = "norm" in name or name.startswith("readout")
            own = number + most - depth[stack] if inside else most if behind else 0
            out[f"stages.{at}.{name}"] = begin + own
        begin += most
    top = begin + 1
    for name, _ in model.named_parameters():
        if not name.startswith("stages."):
            out[name] = 0 if name.startswith(("modalities.", "input_norms.")) else top
    return out, top


def _block(name: str) -> tuple[str, int, bool]:
    """The stack that a parameter of a stage belongs to, the number of its block from 1 on, whether it is in one."""
    for kind in (".blocks.", ".layers."):
        stack, found, rest = f".{name}".partition(kind)
        if found and rest.partition(".")[0].isdigit():
            return stack, int(rest.partition(".")[0]) + 1, True
    return f".{name}".rpartition(".")[0], 0, False


@dataclass(frozen=True)
class Epoch:
    """After `number` epochs: the validation loss once the temperature is right, accuracy, mean recall over labels."""

    number: int
    loss: float
    accuracy: float
    balanced: float


@dataclass
class Finetune:
    """Trains a model and a head on a stream of labelled batches.

    ::

        L = mean CE(s(z) + tau log pi, y)          tau = 1 where all labels are to count alike, else 0

    The head begins as the probe: a random one would first pull the model towards itself. Epoch 0 is that probe, so that
    what is kept is never worse than it on the validation items. Epochs are compared by the validation loss at its best
    temperature: a model that only grows too sure is not worse.

    Args:
        model: it is changed. start: the probe of its vectors, without balancing.
        stream: training batches; every row has one of `start.labels`.
        held: validation batches.
        counts: label -> training items.
        folder: for checkpoints.

    Resuming is exact, as in `train.trainer`.

    Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features" (LP-FT); Menon et al. 2021, "Long-Tail
        Learning via Logit Adjustment", equation 10; Berta et al. 2025, "Rethinking Early Stopping" (the loss after
        calibration).
    """

    model: Model
    start: LinearFit
    stream: Stream
    held: Sequence[Batch]
    counts: Mapping[str, int]
    config: FinetuneConfig
    folder: Path
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    epochs: list[Epoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        config, names = self.config, self.start.labels
        share = np.asarray([self.counts[name] for name in names], np.float64) / sum(self.counts[n] for n in names)
        self.prior = torch.from_numpy(np.log(share) * config.balanced).float().to(self.device)
        head = Head(self.start)
        with torch.no_grad():
            head.linear.bias.sub_(self.prior.cpu())  # the probe's scores hold the frequencies already
        self.modules = nn.ModuleDict({"model": self.model, "head": head}).to(self.device)
        self.codes = torch.tensor([label_code(name) for name in names], device=self.device)
        self.scales, groups = self._groups()
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999))
        self.steps = config.epochs * self.stream.steps_per_epoch
        self.step, self.state = 0, dict(self.stream.start())
        self.best = self._weights()

    def _groups(self) -> tuple[list[float], list[dict[str, Any]]]:
        """One group of parameters for each level, with and without weight decay."""
        level, top = levels(self.model)
        linear = {id(m.weight) for m in self.modules.modules() if isinstance(m, nn.Linear)}
        found: dict[tuple[int, bool], list[Tensor]] = {}
        for name, p in self.modules.named_parameters():
            at = level[name.removeprefix("model.")] if name.startswith("model.") else top
            found.setdefault((at, id(p) in linear), []).append(p)
        ordered = sorted(found)
        scales = [self.config.layer_decay ** (top - at) for at, _ in ordered]
        decay = self.config.weight_decay
        return scales, [{"params": found[key], "weight_decay": decay * key[1]} for key in ordered]

    def fit(self, progress: Progress | None = None) -> LinearFit:
        """Train until the validation loss no longer falls; the model has the weights of the best epoch then.

        Returns:
            The head of the best epoch. Raises Interrupted after Ctrl-C, saved.
        """
        if any(self.folder.glob("step-*")):
            self._resume()
        if not self.epochs:
            self._judge()
        batches = self.stream.batches(self.state)
        with stop_flag() as pressed:
            while self.step < self.steps and not self._spent:
                state, views = next(batches)
                self._update(views[0].to(self.device))
                self.step, self.state = self.step + 1, dict(state)
                if self.step % self.stream.steps_per_epoch == 0:
                    self._judge()
                if progress is not None:
                    progress(self.step, self.steps)
                if pressed or self.step % self.config.checkpoint_every == 0:
                    self._save()
                if pressed:
                    raise Interrupted(f"Stopped after step {self.step}, saved. Go on with the same command.")
        self._load(self.best)
        return self.head.fit(self.start)

    @property
    def head(self) -> Head:
        """The head as it stands."""
        head = self.modules["head"]
        assert isinstance(head, Head)
        return head

    @property
    def best_epoch(self) -> Epoch:
        """The epoch whose weights are kept: the first of the least loss."""
        return min(self.epochs, key=lambda epoch: epoch.loss)

    @property
    def _spent(self) -> bool:
        return self.epochs[-1].number - self.best_epoch.number >= self.config.patience

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, C) and the codes (n,) of the rows that have a vector and a label that is learnt; -1 for another label."""
        with autocast(self.dtype, self.device):
            item = self.model.embeddings(self.model.encode(self.model.tokenize(batch)), [ITEM])[ITEM]
        same = batch.labels[:, None] == self.codes
        truth = torch.where(same.any(1), same.int().argmax(1), -1)
        return self.head(item.z[item.present]), truth[item.present]

    def _update(self, batch: Batch) -> None:
        config = self.config
        torch.manual_seed(seed_of(config.seed, self.step, "dropout"))
        self.modules.train()
        self.optimizer.zero_grad(set_to_none=True)
        scores, truth = self._scores(batch)
        if not bool((truth >= 0).any()):
            return
        F.cross_entropy(scores + self.prior, truth, ignore_index=-1).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.modules.parameters(), config.clip)
        if bool(norm.isfinite()):
            rate = learning_rate(config, self.step, self.steps)
            for group, scale in zip(self.optimizer.param_groups, self.scales, strict=True):
                group["lr"] = rate * scale
            self.optimizer.step()

    @torch.no_grad()
    def _judge(self) -> None:
        """Measure on the validation items; keep the weights where they are the best so far."""
        self.modules.eval()
        found = [self._scores(batch.to(self.device)) for batch in self.held]
        scores = torch.cat([s for s, _ in found]).double().cpu().numpy()
        truth = torch.cat([t for _, t in found]).cpu().numpy()
        right = (scores.argmax(1) == truth).astype(np.float64)
        known = truth >= 0
        recall = np.bincount(truth[known], right[known]) / np.maximum(np.bincount(truth[known]), 1)
        size = np.bincount(truth[known])
        weight = 1 / size[truth[known]] if self.config.balanced else None
        hot = temperature(scores[known], truth[known], weight)
        loss = negative_log_likelihood(scores[known] / hot, truth[known], weight)
        number = self.epochs[-1].number + 1 if self.epochs else 0
        self.epochs.append(Epoch(number, loss, float(right.mean()), float(recall[size > 0].mean())))
        if self.best_epoch.number == number:
            self.best = self._weights()

    # -- weights and checkpoints -------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        return copy.deepcopy({name: value.detach() for name, value in self.modules.state_dict().items()})

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        self.modules.load_state_dict(weights)
        self.modules.eval()

    def _save(self) -> None:
        tensors = {
            "modules": self.modules.state_dict(),
            "best": self.best,
            "optimizer": optimizer_state(self.optimizer),
        }
        epochs = [vars(epoch) for epoch in self.epochs]
        ckpt.save(self.folder, ckpt.Checkpoint(self.step, tensors, {"stream": self.state, "epochs": epochs}), keep=2)

    def _resume(self) -> None:
        found, _ = ckpt.latest(self.folder)
        self.modules.load_state_dict(found.tensors["modules"])
        restore_optimizer(self.optimizer, found.tensors["optimizer"])
        self.best = {name: value.to(self.device) for name, value in found.tensors["best"].items()}
        self.step, self.state = found.step, dict(found.state["stream"])
        self.epochs = [Epoch(**epoch) for epoch in found.state["epochs"]]
