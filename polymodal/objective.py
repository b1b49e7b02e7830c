"""What every objective is: a module that turns a model and views of a batch into named, counted loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from polymodal.config import Config
from polymodal.model import Model
from polymodal.tensors import Batch, Losses, World

__all__ = ["Alone", "HardNegatives", "Objective", "ObjectiveConfig"]


class Alone:
    """One process."""

    rank = 0

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


@dataclass(frozen=True)
class HardNegatives:
    """Which rows an objective wants beside one another: a `share` of the rows, each with one of the `top` rows of the
    training set that are most like them in `modality`, by TF-IDF within `band`. `Batch.hard` names it."""

    modality: str
    share: float
    band: tuple[float, float]
    top: int


class ObjectiveConfig(Config):
    """Base of every objective's config. It travels with the model and says what that was trained for."""

    kind: str

    @property
    def aligned(self) -> bool:
        """Whether vectors of single modalities become comparable with one another."""
        return True

    @property
    def trains_match(self) -> bool:
        """Whether the model's matching head (`model.match`) learns."""
        return False

    def build(self, model: Model) -> Objective:
        """The objective with the heads and mask tokens that `model` needs."""
        raise NotImplementedError


class Objective(nn.Module, ABC):
    """Parameters here are thrown away after training; what is exported belongs to the model.

    Needs: subclasses say, for all or in `__init__`, how many augmented `views` of a batch they take, whether they train
    the unique part of the item vector (`trains_unique`; where not, a recipe leaves `model.unique` at 0), the name of
    the `label` that their batches carry ("" for none: no label is read), the `hard` negatives that the batches should
    hold (None: whatever comes), and how often their critics move after each step (`critic_steps`).
    """

    views: int = 1
    trains_unique: bool = False
    label: str = ""
    hard: HardNegatives | None = None
    critic_steps: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.world: World = Alone()

    @abstractmethod
    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """The loss terms of a batch. The same (parameters, views, seed) gives the same losses, on any rank."""

    def decoders(self) -> Mapping[str, nn.Module]:
        """Modality name -> the head that says what its hidden tokens are, from the model's last tokens; none by
        default. A model that starts from a BERT fills them too."""
        return {}

    def critic_parameters(self) -> list[nn.Parameter]:
        """The parameters that only `critic_losses` moves; `forward` gives them no gradient."""
        return []

    def critic_losses(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """What the critics minimise while everything else stands still; asked for where `critic_steps` is not 0."""
        raise NotImplementedError
