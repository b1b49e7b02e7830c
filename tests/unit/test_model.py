from __future__ import annotations

import pytest
import torch
from support import (
    FIVE,
    STAGE_ORDERS,
    build_modality,
    build_model,
    build_objective,
    garbage,
    gradients,
    make_batch,
    pad,
)

from polymodal import presence
from polymodal.model import ITEM, Model, ModelConfig, Towers
from polymodal.nn.blocks import StackConfig, metered
from polymodal.recipe import build_model as build_from_recipe
from polymodal.recipes._sizes import model as size_of
from polymodal.recipes.scale import recipe
from polymodal.types import BadInput

KINDS = ("text", "table", "features")
ROWS = [KINDS, ("text",), ("table", "features"), ("features",), KINDS]


def vectors(model, batch, names=None):
    with torch.no_grad():
        return model.embeddings(model.encode(model.tokenize(batch)), names)


@pytest.fixture(
    scope="module", params=[*STAGE_ORDERS, ("towers", "towers", "trunk"), ("trunk", "towers", "trunk")], ids="+".join
)
def model(request):
    model = build_model(KINDS, request.param).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():  # biases are 0 at first, and a bias is what an absent row would show
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return model


def test_a_vector_for_each_modality_and_one_for_the_item(model):
    batch = make_batch(model, ROWS)
    out = vectors(model, batch)
    assert list(out) == [*KINDS, ITEM]
    for name, embedded in out.items():
        want = torch.ones(5, dtype=torch.bool) if name == ITEM else batch.cells[name].present
        assert torch.equal(embedded.present, want)
        assert embedded.z.shape == (5, model.config.item_width(len(KINDS)) if name == ITEM else 12)
        assert embedded.z.dtype == torch.float32
        assert torch.allclose(embedded.z.norm(dim=1), want.float(), atol=1e-5)


def test_only_what_is_asked_for_and_the_same(model):
    batch = make_batch(model, ROWS)
    everything = vectors(model, batch)
    for names in (["text"], [ITEM], [ITEM, "table"]):
        some = vectors(model, batch, names)
        assert set(some) == set(names)
        for name in names:
            assert torch.equal(some[name].z, everything[name].z)


def test_a_row_with_nothing_has_no_vector(model):
    batch = make_batch(model, [("text",), ()])
    out = vectors(model, batch)
    assert out[ITEM].present.tolist() == [True, False]
    assert out[ITEM].z[1].eq(0).all()
    assert out[ITEM].z.isfinite().all()


def test_the_item_vector_depends_on_every_modality_of_the_row(model):
    batch = make_batch(model, [KINDS])
    full = vectors(model, batch)[ITEM].z
    for left_out in KINDS:
        less = vectors(model, batch.only([n for n in KINDS if n != left_out]))[ITEM].z
        assert not torch.allclose(full, less, atol=1e-4)


def test_a_modality_vector_sees_others_only_after_a_trunk(model):
    batch = make_batch(model, [KINDS])
    together, alone = vectors(model, batch)["text"].z, vectors(model, batch.only(["text"]))["text"].z
    mixed_first = model.config.stages[0] != "towers"
    assert torch.allclose(together, alone, atol=1e-6) == (not mixed_first)


def test_unimodal_parts_are_the_last_before_the_first_trunk():
    for stages, at in (
        (("towers", "towers", "trunk"), 1),
        (("towers", "trunk", "towers"), 0),
        (("trunk", "towers"), 1),
        (("towers", "towers"), 1),
    ):
        model = build_model(KINDS, stages)
        encoded = model.encode(model.tokenize(make_batch(model, ROWS)))
        assert model.unimodal(encoded) is encoded.stages[at]


def test_what_thin_takes_away_no_mixing_stage_sees():
    for stages in (
        ("towers", "trunk"),
        ("trunk", "towers"),
        ("trunk", "trunk"),
        ("towers",),
        ("towers", "towers", "trunk"),
    ):
        model = build_model(KINDS, stages)
        parts = model.tokenize(make_batch(model, ROWS))
        encoded = model.encode(parts, lambda p: presence.keep_only(p, ["text"]))
        assert set(encoded.source) == {"text"}
        mixed = False
        for stage, out in zip(model.stages, encoded.stages, strict=True):
            mixed = mixed or stage.mixes
            assert set(out) == ({"text", ITEM} if mixed else set(KINDS))


def test_a_corrupted_token_keeps_its_place():
    model = build_model(KINDS)
    batch = make_batch(model, [("text",)])
    fields = batch.cells["text"].packed()
    tokens = model.tokenize(batch, lambda name, content, cells: torch.zeros_like(content))["text"]
    assert torch.equal(tokens.x[tokens.valid], model.modality("text").positions(fields))
    assert not torch.allclose(tokens.x[0, 0], tokens.x[0, 1])


def test_modalities_share_a_tower():
    stack = StackConfig(layers=1, heads=2)
    config = ModelConfig(width=16, embedding=8, tower=stack, trunk=stack, share=(("text", "table"),))
    model = Model({kind: build_modality(kind) for kind in KINDS}, config)
    towers = model.stages[0]
    assert isinstance(towers, Towers)
    assert set(towers.towers) == {"text", "features"}
    batch = make_batch(model, ROWS)
    for name in ("text", "table"):
        model.zero_grad()
        model.encode(model.tokenize(batch.only([name]))).stages[0][name].x.square().sum().backward()
        assert towers.towers["text"].blocks[0].mlp[0].weight.grad.abs().sum() > 0
    assert vectors(model, batch)["table"].present.tolist() == batch.cells["table"].present.tolist()
    assert set(build_model(KINDS).stages[0].towers) == set(KINDS)


def test_shapes_that_make_no_model_are_refused():
    with pytest.raises(BadInput, match="stages"):
        ModelConfig.parse({"stages": ["towers", "cotrunks"]})
    with pytest.raises(BadInput, match="stages"):
        ModelConfig.parse({"stages": []})
    with pytest.raises(BadInput, match="share"):
        Model({kind: build_modality(kind) for kind in KINDS}, ModelConfig(width=16, share=(("text", "tabel"),)))
    with pytest.raises(BadInput, match="share"):
        Model(
            {kind: build_modality(kind) for kind in KINDS},
            ModelConfig(width=16, share=(("text", "table"), ("table", "features"))),
        )


@pytest.mark.parametrize("summary", ["token", "parts"])
def test_both_summaries_and_relu(summary):
    stack = StackConfig(layers=1, heads=2)
    torch.manual_seed(0)
    config = ModelConfig(width=16, embedding=8, tower=stack, trunk=stack, summary=summary, projection_relu=True)
    model = Model({kind: build_modality(kind) for kind in KINDS}, config).eval()
    out = vectors(model, make_batch(model, ROWS))
    assert all((e.z >= 0).all() for e in out.values())
    parts = model.encode(model.tokenize(make_batch(model, ROWS)))
    seen = []
    model.projections[ITEM].register_forward_hook(lambda _, given, __: seen.append(given[0].z))
    model.embeddings(parts, [ITEM])
    token = presence.pool(parts.last[ITEM]).z
    assert torch.allclose(seen[0], token) == (summary == "token")


def test_absent_modalities_cost_nothing():
    model = build_model(FIVE)
    batch = make_batch(model, [("text",), ("text", "table")])
    with metered() as little:
        model.encode(model.tokenize(batch))
    full = presence.complete(batch, {name: model.modality(name).blank() for name in FIVE})
    assert len(full.cells) == 5
    with metered() as same:
        model.encode(model.tokenize(full))
    assert same.spent == little.spent


@pytest.mark.parametrize(("size", "least", "most"), [("tiny", 1.5e6, 8e6), ("small", 3e7, 8e7), ("base", 2e8, 4.5e8)])
def test_sizes(size, least, most):
    """Parameters of the three sizes over five modalities, built without memory."""
    made = recipe({kind: kind for kind in ("text", "image", "table", "video", "audio")}, size)
    words = ("text", "table")
    fitted = {k: c.fit([c.decoder().example(s) for s in range(4) if k in words]) for k, c in made.modalities.items()}
    with torch.device("meta"):
        shapes = made.model
        from polymodal.model import Projection, Trunk

        stages = [
            Towers(list(made.modalities), shapes.width, shapes.tower, ()),
            Trunk(list(made.modalities), shapes.width, shapes.trunk),
        ]
        heads = [Projection(shapes.width, shapes.embedding, False) for _ in range(6)]
        heads += [Projection(shapes.width, shapes.unique, False) for _ in range(5)] if shapes.unique else []
    count = sum(p.numel() for module in (*stages, *heads) for p in module.parameters())
    print(f"{size}: {count:,} parameters in towers, trunk and projections")
    assert least <= count <= most
    assert shapes == size_of(size).replace(late=True)
    if size == "tiny":
        built = build_from_recipe(made, fitted)
        whole = sum(p.numel() for p in built.parameters())
        of_modalities = sum(p.numel() for p in built.modalities.parameters())
        print(f"{size}: {whole:,} with the input layers of a vocabulary of {len(fitted)}")
        assert whole - of_modalities == count


# -- late fusion, corrected ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("towers", "trunk"), ("trunk",), ("towers", "cotrunk")], ids="+".join)
def late(request):
    torch.manual_seed(0)
    stack = StackConfig(layers=1, heads=2)
    shape = ModelConfig(width=16, embedding=12, unique=4, late=True, stages=request.param, tower=stack, trunk=stack)
    return Model({kind: build_modality(kind, 16) for kind in KINDS}, shape).eval()


def test_one_modality_alone_is_its_own_vector_and_several_are_corrected(late):
    out = vectors(late, make_batch(late, ROWS))
    shared = late.shared(out[ITEM]).z
    assert torch.allclose(shared[1], out["text"].z[1], atol=1e-6)
    assert torch.allclose(shared[3], out["features"].z[3], atol=1e-6)
    mean = torch.stack([out[name].z[0] for name in KINDS]).mean(0)
    assert not torch.allclose(shared[0], mean / mean.norm(), atol=1e-3)


def test_late_fusion_keeps_the_properties_of_absence(late):
    objective = build_objective("scale", late)
    batch = make_batch(late, ROWS)
    clean, terms = gradients(late, objective, batch)
    dirty, again = gradients(late, objective, garbage(batch, 1))
    assert terms == again
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)
    _, padded = gradients(late, objective, pad(batch))
    for name, (value, count) in terms.items():
        assert padded[name] == (pytest.approx(value, abs=1e-5), count), name
    alone = vectors(late, make_batch(late, [KINDS]))
    assert torch.allclose(vectors(late, make_batch(late, ROWS))[ITEM].z[0], alone[ITEM].z[0], atol=1e-5)
