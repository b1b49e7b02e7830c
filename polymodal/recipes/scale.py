"""SCALE in three sizes, and as its release does it."""

from __future__ import annotations

from collections.abc import Mapping

from polymodal.losses.corruption import Corruption
from polymodal.objectives.scale import HarmoniseConfig, ScaleConfig
from polymodal.recipe import Recipe, TrainConfig
from polymodal.recipes._sizes import Size, modalities, model

__all__ = ["recipe", "reference"]


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """SCALE as we hold it to be right (see `objectives.scale` for every difference).

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny" for two cores and thousands of items, "small", or "base" (768 wide, 6 + 6 layers).
    """
    train = {
        "tiny": TrainConfig(epochs=40, batch_size=64, learning_rate=2e-3),
        "small": TrainConfig(epochs=20, batch_size=256, learning_rate=5e-4),
        "base": TrainConfig(epochs=5, batch_size=256, learning_rate=1e-4, betas=(0.9, 0.999)),
    }
    return Recipe(
        name="scale",
        modalities=modalities(kinds, size),
        model=model(size).replace(late=True),
        objective=ScaleConfig(recall_shared=False),
        train=train[size],
    )


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """SCALE as released (SCALE_code at 227ae08), quirks and all, where a typed field can say it.

    Heads on the towers, literal diagonal and row-normalised weights on every prediction without detaching or presence,
    temperature 0.07 fixed, no fusion or recall term, no dropout of modalities, zero vectors for masked continuous
    tokens, shared towers (text with table, image with video), ReLU projections of 1024.
    """
    ours = recipe(kinds, size)
    by_kind = {kind: tuple(name for name, k in kinds.items() if k == kind) for kind in kinds.values()}
    share = tuple(
        group
        for a, b in (("text", "table"), ("image", "video"))
        if len(group := by_kind.get(a, ()) + by_kind.get(b, ())) > 1
    )
    corruption = {
        "text": Corruption(random=0.1, keep=0.1),
        "table": Corruption(random=0.0, keep=0.0),
        "image": Corruption(random=0.0, keep=0.1, vector="zero"),
    }
    zero = Corruption(random=0.0, keep=0.0, vector="zero")
    objective = ScaleConfig(
        heads_input="encoder",
        harmonise=HarmoniseConfig(
            form="code",
            source="split",
            apply="logit",
            detach=False,
            diagonal="literal",
            presence=False,
            floor=None,
            mean_one=False,
        ),
        learn_temperature=False,
        false_negatives=False,
        modality_dropout=0.0,
        fusion_weight=0.0,
        recall_weight=0.0,
        contrast_weight=1.0,
        masked_weight=1.0,
        corruption={name: corruption.get(kind, zero) for name, kind in kinds.items()},
    )
    shape = ours.model.replace(share=share, projection_relu=True, embedding=1024, unique=0, late=False)
    train = ours.train.replace(epochs=20, batch_size=64, learning_rate=1e-4, final=0.0)
    inputs = modalities(kinds, size, patches=True)
    return ours.replace(name="scale/reference", modalities=inputs, objective=objective, model=shape, train=train)
