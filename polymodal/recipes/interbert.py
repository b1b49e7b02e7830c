"""InterBERT in three sizes, and as its release does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polymodal.modality import ModalityConfig
from polymodal.objectives.interbert import Grouping, InterbertConfig, Replacement
from polymodal.recipe import Recipe, TrainConfig
from polymodal.recipes._sizes import Size, modalities, model

__all__ = ["recipe", "reference"]

# InterBERT's way with regions: every one an anchor, boxes hide together from an overlap of 0.4
_OVERLAP = 0.4


def recipe(kinds: Mapping[str, str], size: Size = "tiny") -> Recipe:
    """InterBERT as we hold it to be right (see `objectives.interbert` for every difference): trunk, then towers, a
    matching head that is kept, and contrasts for vectors to search by.

    Args:
        kinds: modality name -> kind, e.g. {"image": "image", "title": "text"}.
        size: "tiny" for two cores and thousands of items, "small", or "base" (768 wide, 6 + 6 layers).
    """
    train = {
        "tiny": TrainConfig(epochs=30, batch_size=64, learning_rate=2e-3),
        "small": TrainConfig(epochs=20, batch_size=256, learning_rate=5e-4),
        "base": TrainConfig(epochs=10, batch_size=512, learning_rate=1e-4, betas=(0.9, 0.999)),
    }
    shape = model(size)
    return Recipe(
        name="interbert",
        modalities={name: _grouped(config) for name, config in modalities(kinds, size, patches=True).items()},
        model=shape.replace(stages=("trunk", "towers"), types="zero", unique=0, match=4 * shape.width // 3),
        objective=InterbertConfig(
            groups={name: Grouping(anchors="token") for name, kind in kinds.items() if kind == "features"}
        ),
        train=train[size],
    )


def _grouped(config: ModalityConfig) -> ModalityConfig:
    """What hides together: regions that overlap, attributes of one outer name; names of attributes are never hidden."""
    changes: dict[str, dict[str, Any]] = {
        "features": {"overlap": _OVERLAP},
        "table": {"hide_names": False, "groups": True},
    }
    return config.replace(**changes.get(config.kind, {}))


def reference(kinds: Mapping[str, str], size: Size = "base") -> Recipe:
    """InterBERT as released (black4321/InterBERT at 7ccabb1), where a typed field can say it.

    Layout of BERT (post-norm, epsilon 1e-12, LayerNorm on the input, first tokens, no type vectors, 8 heads for
    everything but text), one span of text, region anchors at 10 % zeroed with the boxes that overlap, words of
    mismatched pairs counted, symbols predicted by the word vectors, no contrast. Of the paper: hard negatives, a fifth
    of the wrong cells from the 30 items of the most similar texts, which the release leaves out.
    """
    ours = recipe(kinds, size)
    words = tuple(name for name, kind in kinds.items() if kind == "text")
    span = Grouping(form="span", always_one=None)
    region = Grouping(probability=0.1, extra=(0,), anchors="token", vector="blank", random=0, keep=0, always_one=None)
    objective = InterbertConfig(
        groups={name: span if name in words else region for name in kinds},
        ungated=words,
        replacement=Replacement(top=30, corpus=words[0]) if words else Replacement(hard=0.0),
        tie=True,
        modality_dropout=0.0,
        contrast_weight=0.0,
        item_weight=0.0,
    )
    stack = ours.model.trunk.replace(dropout=0.1, norm="post", eps=1e-12)
    other = stack.replace(heads=2 * stack.heads // 3, dropout=0.2)
    shape = ours.model.replace(
        tower=stack,
        trunk=stack,
        tower_of={name: other for name in kinds if name not in words},
        summary="mean",
        types="none",
        input_norm=True,
        pool="first",
    )
    inputs: dict[str, dict[str, Any]] = {
        "features": {"boxes": True, "whole": True, "ordered": False, "classes": 1601, "max_vectors": 36},
        "text": {"words_as_unit": False, "max_tokens": 36},
    }
    given = {name: config.replace(**inputs.get(config.kind, {})) for name, config in ours.modalities.items()}
    train = ours.train.replace(epochs=15, learning_rate=1e-4, final=0.0, weight_decay=0.01)
    return ours.replace(name="interbert/reference", modalities=given, objective=objective, model=shape, train=train)
