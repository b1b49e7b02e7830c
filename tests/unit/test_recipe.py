from __future__ import annotations

import json

import micro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import FIVE

from polymodal.config import discover
from polymodal.modalities.text import TextConfig
from polymodal.objectives.scale import ScaleConfig
from polymodal.recipe import Recipe, TrainConfig, build_model
from polymodal.types import BadInput

KINDS = {kind: kind for kind in FIVE}
MADE = [
    (f"{name}.{function}", getattr(module, function))
    for name, module in discover("polymodal.recipes").items()
    for function in module.__all__
    if callable(getattr(module, function)) and function != "Size"
]


@pytest.mark.parametrize("make", [m for _, m in MADE], ids=[n for n, _ in MADE])
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_every_recipe_comes_back_from_json(make, size):
    made = make(KINDS, size)
    back = Recipe.parse(json.loads(made.model_dump_json()))
    assert back == made
    assert [type(c) for c in back.modalities.values()] == [type(c) for c in made.modalities.values()]
    assert type(back.objective) is type(made.objective)
    # the names of the data, in the order of the data; a recipe may read some of them only (BERT: text)
    assert list(back.modalities) == [name for name in KINDS if name in made.modalities]


def test_names_are_free_and_kinds_are_not():
    make = dict(MADE)["scale.recipe"]
    made = make({"front": "image", "title": "text", "description": "text"})
    assert [c.kind for c in made.modalities.values()] == ["image", "text", "text"]
    with pytest.raises(BadInput, match="Did you mean 'image'"):
        make({"front": "imge"})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("modalities", "title", "kind"), "txt", "Did you mean 'text'"),
        (("objective", "kind"), "scael", "Did you mean 'scale'"),
        (("modalities", "title", "max_token"), 3, "Did you mean 'max_tokens'"),
        (("train", "epoch"), 3, "Did you mean 'epochs'"),
        (("model", "stages"), ["tower"], "stages"),
        (("unknown",), 1, "unknown"),
        (("train", "learning_rate"), -1, "learning_rate"),
    ],
)
def test_what_is_unknown_is_refused(path, value, said):
    data = json.loads(micro.recipe().model_dump_json())
    node = data
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    with pytest.raises(BadInput, match=said):
        Recipe.parse(data)


def test_overrides_reach_every_part():
    made = micro.recipe().override(
        ["objective.mask_ratio=0.3", "train.steps=7", "modalities.title.max_tokens=9", "objective.harmonise.form=none"]
    )
    assert isinstance(made.objective, ScaleConfig)
    assert isinstance(made.modalities["title"], TextConfig)
    assert (made.objective.mask_ratio, made.train.steps, made.modalities["title"].max_tokens) == (0.3, 7, 9)
    assert made.objective.harmonise.form == "none"
    for setting, said in [
        ("objective.mask_ration=0.3", "Did you mean 'mask_ratio'"),
        ("objectiv.mask_ratio=0.3", "Did you mean 'objective'"),
        ("modalities.titel.max_tokens=3", "Did you mean 'title'"),
        ("objective.mask_ratio=2", "mask_ratio"),
    ]:
        with pytest.raises(BadInput, match=said):
            made.override([setting])


@given(
    st.builds(
        TrainConfig,
        epochs=st.integers(1, 9),
        learning_rate=st.floats(1e-9, 1),
        warmup=st.floats(0, 1),
        precision=st.sampled_from(["auto", "fp32", "bf16"]),
    )
)
def test_train_config_json_both_ways(config):
    assert TrainConfig.parse(json.loads(config.model_dump_json())) == config


def test_build_model_is_what_the_recipe_says():
    made, rows = micro.recipe(), micro.records()
    model = build_model(made, micro.fit(made, rows))
    assert model.names == micro.NAMES
    assert model.config == made.model
    again = build_model(Recipe.parse(json.loads(made.model_dump_json())), json.loads(json.dumps(micro.fit(made, rows))))
    again.load_state_dict(model.state_dict())
