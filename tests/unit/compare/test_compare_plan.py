"""What a comparison runs is checked before anything is trained."""

from __future__ import annotations

import pytest

from polymodal.compare._plan import CompareSettings, Job, Method, Setting, equalised, modality_sets, parse_methods
from polymodal.types import BadInput
from polymodal.workflow.listing import list_recipes

KNOWN = {"sound": "audio", "photo": "image", "words": "text", "other": "features", "facts": "table"}


def test_a_method_is_a_recipe_and_settings_of_its_own():
    plain, variant = parse_methods(["scale", "scale/reference:objective.harmonise.form=none; train.clip=0.5"])
    assert plain == Method("scale", "scale")
    assert variant.recipe == "scale/reference"
    assert variant.settings == ("objective.harmonise.form=none", "train.clip=0.5")


def test_all_recipes_appear_by_themselves():
    named = {name for name in list_recipes() if "/" not in name}
    assert {m.name for m in parse_methods([])} == named
    assert parse_methods([])[0].name == "scale"
    assert len(parse_methods(["scale", "scale"])) == 1


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(BadInput, match=r"--methods.*Did you mean 'scale'"):
        parse_methods(["scal"])
    with pytest.raises(BadInput, match="'scale/reference'"):
        parse_methods(["scale/referense:a=1"])


def test_sets_of_modalities_stand_in_the_order_of_the_papers():
    assert modality_sets(["all"], KNOWN) == (("words", "photo", "facts", "sound", "other"),)
    assert modality_sets([], KNOWN) == modality_sets(["all"], KNOWN)
    assert modality_sets(["photo,words", "words, photo", "facts"], KNOWN) == (("words", "photo"), ("facts",))
    with pytest.raises(BadInput, match=r"--modalities.*Did you mean 'photo'"):
        modality_sets(["words,phto"], KNOWN)
    with pytest.raises(BadInput, match="separated by commas"):
        modality_sets([","], KNOWN)


def test_training_is_the_same_for_every_method():
    kinds, settings = {"title": "text", "facts": "table"}, CompareSettings(settings=("train.learning_rate=0.005",))
    one, other = (equalised(Method.parse(m), kinds, settings, 3) for m in ("scale", "scale/reference"))
    assert one.objective != other.objective
    assert one.train.model_dump(exclude={"epochs"}) == other.train.model_dump(exclude={"epochs"})
    assert (one.train.learning_rate, one.train.batch_size, one.train.seed) == (0.005, 64, 3)
    assert one.train.final == 0.01  # the recipe scale/reference has 0
    own = equalised(Method.parse("scale:train.learning_rate=0.002"), kinds, settings, 0)
    assert own.train.learning_rate == 0.002


def test_a_mistyped_setting_names_the_method():
    with pytest.raises(BadInput, match=r"--methods scale:objective.mask_rato=0.1.*mask_ratio"):
        equalised(Method.parse("scale:objective.mask_rato=0.1"), {"title": "text"}, CompareSettings(), 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": None}, "--budget-seconds"),
        ({"steps": 0}, "positive"),
        ({"seconds": 0.0}, "--budget-seconds"),
        ({"seeds": ()}, "--seeds"),
        ({"seeds": (1, 1)}, "1 1"),
        ({"max_items": 1}, "--max-items"),
    ],
)
def test_budgets_and_seeds_that_make_no_sense(changes, said):
    with pytest.raises(BadInput, match=said):
        CompareSettings(**changes).check()


def test_every_recipe_has_a_folder_of_its_own_whatever_data_it_is_given():
    kinds = {"title": "text"}
    recipe = equalised(Method.parse("scale"), kinds, CompareSettings(), 0)
    setting = Setting(("title",), "steps", 5)
    folder = Job("scale", setting, 0, recipe).folder
    assert folder == Job("scale", setting, 0, recipe.replace(data="/elsewhere")).folder
    assert folder != Job("scale", setting, 0, recipe.override(["train.steps=6"])).folder
    assert "/" not in Job("scale/reference:a=1;b=[2, 3]", setting, 0, recipe).folder
