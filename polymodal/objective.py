"""What every objective is: a module that turns a model and views of a batch into named, counted loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from polymodal.config import Config
from polymodal.model import Model
from polymodal.tensors import Batch, Losses

__all__ = ["Alone", "Objective", "ObjectiveConfig", "World"]


class World(Protocol):
    """The processes of a run, as a loss needs to know them."""

    @property
    def rank(self) -> int: ...

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of this process -> (G, ...) of all, rank by rank, with gradient to every rank's part."""


class Alone:
    """One process."""

    rank = 0

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


class ObjectiveConfig(Config):
    """Base of every objective's config."""

    kind: str

    def build(self, model: Model) -> Objective:
        """The objective with the heads and mask tokens that `model` needs."""
        raise NotImplementedError


class Objective(nn.Module, ABC):
    """Parameters here are thrown away after training; what is exported belongs to the model.

    Needs: subclasses say how many augmented `views` of a batch they take, whether the single-modality vectors they
    train are comparable (`aligned`), and whether they train the unique part of the item vector (`trains_unique`; where
    not, a recipe leaves `model.unique` at 0).
    """

    views: ClassVar[int] = 1
    aligned: ClassVar[bool] = True
    trains_unique: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.world: World = Alone()

    @abstractmethod
    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """The loss terms of a batch. The same (parameters, views, seed) gives the same losses, on any rank."""
