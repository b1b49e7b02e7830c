"""Recipe: the complete, typed description of one run, stored with the model and all that is needed to build it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from polymodal.config import Config, parse_kind
from polymodal.modality import Fitted, Modality, ModalityConfig
from polymodal.model import Model, ModelConfig
from polymodal.objective import ObjectiveConfig

__all__ = ["Recipe", "TrainConfig", "build_model"]


class TrainConfig(Config):
    """The optimiser, its schedule, and how often things are written.

    Args:
        epochs: passes over the training rows; `steps`, when given, wins.
        batch_size: rows of a step, of all processes together.
        accumulate: micro-batches a step is cut into; negatives come from one micro-batch.
        learning_rate: peak, after a linear warm-up of `warmup` (share of all steps), then a cosine to `final` x peak.
        weight_decay: AdamW's, on matrices only.
        clip: largest norm of the whole gradient.
        ema: decay of an exponential moving average of the weights, which is then what is exported; 0 for none.
        precision: "auto" is bf16 where the hardware has it and it pays (CUDA; from a width of 512 on CPUs with AMX or
            AVX512-BF16), else fp32.
        augment: vary cells at random.
        zero_imputation: attend blank cells where a modality is absent, the control that SCALE and M5Product use.
        workers: loader processes.
        log_every, checkpoint_every: in steps. keep: checkpoints kept.
    """

    seed: int = 0
    epochs: int = Field(20, ge=1)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(128, ge=2)
    accumulate: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: float = Field(0.1, ge=0, le=1)
    final: float = Field(0.01, ge=0, le=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augment: bool = True
    zero_imputation: bool = False
    workers: int = Field(0, ge=0)
    log_every: int = Field(10, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    keep: int = Field(2, ge=1)


def _modality(data: Any) -> Any:
    return parse_kind("polymodal.modalities", data, "recipe.modalities", ModalityConfig)


def _objective(data: Any) -> Any:
    return parse_kind("polymodal.objectives", data, "recipe.objective", ObjectiveConfig)


class Recipe(Config):
    """One run.

    Args:
        name: of the recipe function it came from.
        data: the catalogue or the prepared shards it trains on.
        split: rows it trains on; rows of a catalogue without a split column all count.
        modalities: name -> config of the modality; the order is the order of tokens.
        model, objective, train: the rest.
    """

    name: str
    data: str = ""
    split: str = "train"
    modalities: dict[str, Annotated[SerializeAsAny[ModalityConfig], BeforeValidator(_modality)]]
    model: ModelConfig = ModelConfig()
    objective: Annotated[SerializeAsAny[ObjectiveConfig], BeforeValidator(_objective)]
    train: TrainConfig = TrainConfig()


def build_model(recipe: Recipe, fitted: dict[str, Fitted]) -> Model:
    """The model of a recipe. `fitted` is what each modality learnt from the catalogue before training."""
    width = recipe.model.width
    built: dict[str, Modality] = {name: c.build(width, fitted.get(name, {})) for name, c in recipe.modalities.items()}
    return Model(built, recipe.model)
