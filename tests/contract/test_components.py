"""What every kind of modality and every objective promises, over all that exist."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support import KINDS, MODALITY_CONFIGS, OBJECTIVE_CONFIGS, build_modality, build_model, build_objective, make_batch

from polymodal.catalogue.codec import pack, unpack
from polymodal.catalogue.loader import collate, content_hash
from polymodal.config import discover, parse_kind
from polymodal.modality import Modality, ModalityConfig
from polymodal.recipe import Recipe
from polymodal.types import Record

WIDTH = 16


@pytest.fixture(scope="module", params=KINDS)
def modality(request) -> Modality:
    return build_modality(request.param, WIDTH)


def same(a: object, b: object) -> bool:
    return content_hash(a) == content_hash(b)


def fields_of(modality: Modality, seed: int):
    return modality.preprocess(modality.example(seed))


def test_every_module_is_one_component():
    assert set(MODALITY_CONFIGS) == set(discover("polymodal.modalities"))
    assert set(OBJECTIVE_CONFIGS) == set(discover("polymodal.objectives"))
    for kind, config in {**MODALITY_CONFIGS, **OBJECTIVE_CONFIGS}.items():
        assert config().kind == kind


def test_an_example_is_reproducible_and_decoded(modality):
    value = modality.example(1)
    assert same(value, modality.example(1))
    assert not same(value, modality.example(2))
    assert same(value, modality.decode(value)), "a decoded value passes decode unchanged"
    assert same(value, unpack(pack(value))), "shards store it as it is"
    media_type, content = modality.show(value)
    assert "/" in media_type
    assert isinstance(content, bytes)


def test_augmentation_is_a_function_of_its_generator(modality):
    value = modality.example(3)
    before = content_hash(value)
    one, two = (modality.augment(value, torch.Generator().manual_seed(5)) for _ in range(2))
    assert same(one, two)
    assert content_hash(value) == before, "augment changed the value in place"
    assert all(len(field) for field in modality.preprocess(one).values()), "augmentation took every token"


def test_fields_have_the_token_axis_first(modality):
    fields, other = fields_of(modality, 1), fields_of(modality, 2)
    assert len({len(field) for field in fields.values()}) == 1
    blank = modality.blank()
    for known in (other, blank):
        assert {n: (f.shape[1:], f.dtype) for n, f in fields.items()} == {
            n: (f.shape[1:], f.dtype) for n, f in known.items()
        }
    assert len(next(iter(blank.values()))) >= 1


def test_packed_tokens_in_and_out(modality):
    parts = [fields_of(modality, seed) for seed in range(3)]
    fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    count = len(next(iter(fields.values())))
    content, positions = modality.embed(fields), modality.positions(fields)
    assert content.shape == positions.shape == (count, WIDTH)
    target = modality.target(fields)
    assert target.ndim == 2
    assert len(target) == count
    distance = modality.distance(modality.head(WIDTH)(content), target)
    assert distance.shape == (count,)
    assert distance.dtype == torch.float32
    assert distance.isfinite().all()
    distance.mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in modality.parameters()), "nothing learns"


def test_what_hides_together_hides_both_ways(modality):
    fields = {name: field[None] for name, field in fields_of(modality, 4).items()}
    overlap = modality.overlap(fields)
    if overlap is not None:
        count = len(fields_of(modality, 4)[next(iter(fields))])
        assert overlap.shape == (1, count, count)
        assert overlap.dtype == torch.bool
        assert overlap.diagonal(dim1=1, dim2=2).all()
        assert torch.equal(overlap, overlap.transpose(1, 2))


def test_a_record_without_it_has_no_token(modality):
    kind = modality.kind
    records = [Record("with", {kind: modality.example(0)}), Record("without", {"other": "x"})]
    batch = collate(records, {kind: modality})
    assert batch.cells[kind].present.tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_learnt_is_json(kind):
    config = MODALITY_CONFIGS[kind]()
    values = [config.decoder().example(seed) for seed in range(6)]
    fitted = config.fit(iter(values))
    again = parse_kind("polymodal.modalities", json.loads(config.model_dump_json()), "modality", ModalityConfig)
    assert again == config
    torch.manual_seed(0)
    one = config.build(WIDTH, fitted)
    torch.manual_seed(0)
    two = again.build(WIDTH, json.loads(json.dumps(fitted)))
    fields = one.preprocess(values[0])
    assert torch.equal(one.embed(fields), two.embed(two.preprocess(values[0])))


@pytest.mark.parametrize("kind", OBJECTIVE_CONFIGS)
def test_an_objective_is_a_function_of_its_seed(kind):
    model = build_model(("image", "text"))
    objective = build_objective(kind, model)
    batch = make_batch(model, [("image", "text")] * 4 + [("text",)])
    one, two = (objective(model, [batch] * objective.views, 7) for _ in range(2))
    assert float(one.total.detach()) == float(two.total.detach())
    assert one.total.requires_grad
    assert np.isfinite(float(one.total.detach()))
    assert set(one.weights) <= set(one.terms)
    assert all(int(term.count) > 0 for term in one.terms.values())


@pytest.mark.parametrize("kind", OBJECTIVE_CONFIGS)
def test_a_recipe_of_it_survives_json(kind):
    recipe = Recipe(name="any", modalities={"title": MODALITY_CONFIGS["text"]()}, objective=OBJECTIVE_CONFIGS[kind]())
    assert Recipe.parse(json.loads(recipe.model_dump_json())) == recipe
