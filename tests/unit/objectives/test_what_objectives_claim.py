"""What an objective says a model is good for, against what its terms contrast."""

from __future__ import annotations

import pytest
import torch
from support import OBJECTIVE_CONFIGS, build_model, make_batch

from polymodal.model import Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objectives.interbert import InterbertConfig
from polymodal.objectives.simclr import SimclrConfig

KINDS = ("text", "table")
SETTINGS = [config() for config in OBJECTIVE_CONFIGS.values()]
SETTINGS += [SimclrConfig(across=True), InterbertConfig(contrast_weight=0.0, item_weight=0.0)]
SETTINGS += [InterbertConfig(match_weight=0.0)]


def losses_of(config):
    torch.manual_seed(0)
    parts, stack = build_model(KINDS), StackConfig(layers=1, heads=2)
    shape = ModelConfig(width=16, embedding=12, unique=4, tower=stack, trunk=stack, match=8)
    model = Model({name: parts.modality(name) for name in KINDS}, shape)
    objective = config.build(model)
    return model, objective(model, [make_batch(model, [KINDS] * 8)] * objective.views, 3)


@pytest.mark.parametrize("config", SETTINGS, ids=lambda c: f"{c.kind} {sorted(c.model_fields_set)}")
def test_a_matching_head_learns_where_it_is_said_and_nowhere_else(config):
    model, losses = losses_of(config)
    losses.total.backward()
    learns = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.matching.parameters())
    assert learns == config.trains_match


def test_which_do_not_align():
    plain = {config.kind for config in SETTINGS if not config.aligned and not config.model_fields_set}
    assert plain == {"m3ae", "streams", "simclr"} - ({"simclr"} if SimclrConfig().across else set())
    assert SimclrConfig(across=True).aligned
    assert not InterbertConfig(contrast_weight=0.0, item_weight=0.0).aligned
