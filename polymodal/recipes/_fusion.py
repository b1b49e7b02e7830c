"""What the recipes of fusion encoders share: SCALE's budget, so that methods compare and not budgets; BERT's layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polymodal.losses.corruption import Corruption
from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import Recipe
from polymodal.recipes import scale
from polymodal.recipes._sizes import Size, modalities

__all__ = ["WORDS", "one_stream", "published", "two_streams", "without"]

# kinds whose tokens are words
WORDS = ("text", "table")


def one_stream(name: str, kinds: Mapping[str, str], size: Size, objective: StreamsConfig) -> Recipe:
    """All tokens together from the first layer on, in as many layers as SCALE's towers and trunk have: 12 at "base"."""
    budget = scale.recipe(kinds, size)
    trunk = budget.model.trunk.replace(layers=budget.model.tower.layers + budget.model.trunk.layers)
    shape = budget.model.replace(stages=("trunk",), trunk=trunk, late=False)
    inputs = modalities(kinds, size, patches=True)
    return budget.replace(name=name, modalities=inputs, objective=objective, model=shape)


def two_streams(name: str, kinds: Mapping[str, str], size: Size, objective: StreamsConfig, **shape: Any) -> Recipe:
    """A tower for each modality, then as many layers with co-attention."""
    budget = scale.recipe(kinds, size)
    shaped = budget.model.replace(stages=("towers", "cotrunk"), late=False, **shape)
    inputs = modalities(kinds, size, patches=True)
    return budget.replace(name=name, modalities=inputs, objective=objective, model=shaped)


def published(made: Recipe, kinds: Mapping[str, str], keep: float = 0.0, **model: Any) -> Recipe:
    """As the papers have it: BERT's layer, zeros for hidden vectors (but `keep` of them), no vectors to export trained.

    Args:
        made: a recipe with a `StreamsConfig`.
        kinds: modality name -> kind.
        keep: share of hidden vectors that stay as they are.
        model: further fields of the model.
    """
    objective = made.objective
    assert isinstance(objective, StreamsConfig)
    zero = Corruption(random=0.0, keep=keep, vector="zero")
    objective = objective.replace(
        recall_weight=0.0, replacement={name: zero for name, kind in kinds.items() if kind not in WORDS}
    )
    layer = {"norm": "post", "eps": 1e-12, "dropout": 0.1}
    shape = made.model.replace(
        unique=0, tower=made.model.tower.replace(**layer), trunk=made.model.trunk.replace(**layer), **model
    )
    return made.replace(name=f"{made.name}/reference", objective=objective, model=shape)


def without(kinds: Mapping[str, str], *hidden: str) -> dict[str, float]:
    """Mask ratio 0 for every modality that is not of the kinds `hidden`."""
    return {name: 0.0 for name, kind in kinds.items() if kind not in hidden}
