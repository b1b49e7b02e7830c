"""SCALE as we hold it to be right (specs/scale.md, 6.4), and every switch of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Literal, get_args, get_origin

import pytest
import torch
from support import build_model, build_objective, gradients, make_batch, pad, select
from torch.nn import functional as F

from polymodal.draws import seed_of, uniform
from polymodal.losses.corruption import Corruption
from polymodal.objectives.scale import HarmoniseConfig, ScaleConfig
from polymodal.recipe import build_model as build_from_recipe
from polymodal.recipes.scale import reference
from polymodal.tensors import Batch, Cells
from polymodal.types import BadInput

KINDS = ("text", "table", "features")
ROWS = [KINDS, KINDS, ("text",), ("table", "features"), ("text", "features"), KINDS, ("features",), ("text", "table")]
SURE = {
    "text": Corruption(random=0, keep=0),
    "table": Corruption(random=0, keep=0),
    "features": Corruption(random=0, keep=0),
}


def world(stages=("towers", "trunk"), rows=ROWS, groups=None, **fields):
    model = build_model(KINDS, stages)
    return model, build_objective("scale", model, **fields), make_batch(model, rows, groups=groups)


def near(one, other) -> None:
    """The same gradients but for the order in which numbers are added up."""
    size = max(float(g.abs().max()) for g in one.values())
    far = {n: float((g - other[n]).abs().max()) / size for n, g in one.items()}
    assert max(far.values()) < 2e-6, max(far.items(), key=lambda item: item[1])


def gradient_norm(module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


# -- the corrected set -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads_input", "reached"), [("trunk", True), ("encoder", False)])
def test_the_trunk_learns_from_masked_text(heads_input, reached):
    """As released it does not: the heads read the towers, and the joint transformer gets nothing from them."""
    model, objective, batch = world(heads_input=heads_input, mask_ratio=0.5, modality_dropout=0.0)
    losses = objective(model, [batch], 0)
    assert int(losses.terms["masked/text"].count) > 3
    losses.terms["masked/text"].value.backward()
    assert (gradient_norm(model.stages[1]) > 0) == reached
    assert gradient_norm(model.stages[0].towers["text"]) > 0
    # the other modalities' towers learn to help, where they can be seen
    assert (gradient_norm(model.stages[0].towers["features"]) > 0) == reached


def masked_text(model, objective, batch) -> torch.Tensor:
    seen = []
    hook = objective.heads["text"].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    with torch.no_grad():
        objective(model, [batch], 0)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("heads_input", "moves"), [("trunk", True), ("encoder", False)])
def test_masked_text_is_predicted_from_the_picture_too(heads_input, moves):
    torch.manual_seed(0)
    model = build_model(("text", "image"))
    objective = build_objective("scale", model, heads_input=heads_input, mask_ratio=0.5, modality_dropout=0.0)
    batch = make_batch(model, [("text", "image")] * 3)
    other = make_batch(model, [("text", "image")] * 3, seed=1)
    # the same keys and texts, other pictures
    swapped = replace(batch, cells={**batch.cells, "image": other.cells["image"]})
    before, after = masked_text(model, objective, batch), masked_text(model, objective, swapped)
    assert before.shape == after.shape
    assert len(before) > 2
    assert torch.allclose(before, after, atol=1e-6) != moves


@pytest.mark.parametrize("stages", [("towers", "trunk"), ("trunk",), ("trunk", "towers"), ("towers",)], ids="+".join)
def test_the_order_of_rows_changes_nothing(stages):
    model, objective, batch = world(stages, groups=[0, 1, 0, 2, 3, 3, 4, 5])
    grads, terms = gradients(model, objective, batch)
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    shuffled, again = gradients(model, objective, select(batch, order))
    for name, (value, count) in terms.items():
        assert again[name][1] == count
        assert again[name][0] == pytest.approx(value, abs=2e-6), name
    near(grads, shuffled)


def test_padding_changes_nothing():
    model, objective, batch = world(harmonise=HarmoniseConfig(detach=False, source="split"))
    grads, terms = gradients(model, objective, batch)
    more, again = gradients(model, objective, pad(batch, 7))
    for name, (value, count) in terms.items():
        assert again[name] == (pytest.approx(value, abs=1e-6), count), name
    near(grads, more)


def test_the_same_seed_the_same_masks_and_another_others():
    model, objective, batch = world()
    one, other = (objective._hide(model, batch, "text", seed) for seed in (1, 2))
    assert torch.equal(one, objective._hide(model, batch, "text", 1))
    assert not torch.equal(one, other)
    assert not (one & ~batch.cells["text"].valid).any()
    assert not torch.equal(one[0], objective._hide(model, batch, "table", 1)[0][: one.shape[1]])


# -- corruption --------------------------------------------------------------------------------------------------------


def corrupted(objective, batch, name="features", seed=0, ratio=1.0):
    cells = batch.cells[name]
    content = torch.arange(float(cells.valid.sum()))[:, None].expand(-1, 16) + 1
    hidden = cells.valid & (uniform(seed_of("pick"), batch.keys, cells.valid.shape[1]) < ratio)
    return content, objective._corrupt(name, content, cells, hidden, batch, seed), hidden[cells.valid]


def test_a_hidden_token_loses_its_content():
    _, objective, batch = world(corruption=SURE)
    content, out, hidden = corrupted(objective, batch, ratio=0.5)
    assert 0 < hidden.sum() < len(hidden)
    assert torch.equal(out[~hidden], content[~hidden])
    assert torch.equal(out[hidden], objective.masks["features"].detach().expand(int(hidden.sum()), -1))
    zero = {"features": Corruption(random=0, keep=0, vector="zero")}
    _, objective, batch = world(corruption=zero)
    _, out, hidden = corrupted(objective, batch, ratio=0.5)
    assert out[hidden].eq(0).all()


def test_fates_have_their_shares_and_donors_are_of_the_row():
    _, objective, _ = world()
    rows, tokens = 400, 20
    valid = torch.ones(rows, tokens, dtype=torch.bool)
    batch = Batch(tuple(map(str, range(rows))), {"features": Cells({}, valid)})
    content, out, _ = corrupted(objective, batch)
    masked = (out == objective.masks["features"]).all(1)
    kept = (out == content).all(1)
    moved = ~masked & ~kept
    n = rows * tokens
    assert abs(float(masked.sum()) / n - 0.8) < 0.02
    # a donor is now and then the token itself
    assert abs(float(moved.sum()) / n - 0.1 * (1 - 1 / tokens)) < 0.015
    assert abs(float(kept.sum()) / n - 0.1 * (1 + 1 / tokens)) < 0.015
    row = torch.arange(n) // tokens
    assert torch.equal(((out[moved, 0] - 1) // tokens).long(), row[moved])


def test_fates_must_not_exceed_one():
    with pytest.raises(BadInput, match="at most 1"):
        Corruption.parse({"random": 0.7, "keep": 0.4})


def test_what_a_modality_does_not_lend_is_never_hidden(monkeypatch):
    """Marks of begin and end, say: `Modality.maskable`."""
    model, objective, batch = world(mask_ratio=1.0, modality_dropout=0.0)
    text = model.modality("text")
    everything = objective(model, [batch], 0).terms["masked/text"].count
    monkeypatch.setattr(text, "maskable", lambda fields: fields["position"] > 0)
    rows = int(batch.cells["text"].present.sum())
    assert objective(model, [batch], 0).terms["masked/text"].count == everything - rows


@pytest.mark.parametrize("kept", [True, False])
def test_recall_can_leave_the_shared_part_alone(kept):
    model, objective, batch = world(recall_shared=kept, modality_dropout=0.0)
    losses = objective(model, [batch], 0)
    sum(term.value for name, term in losses.terms.items() if name.startswith("recall/")).backward()
    assert (gradient_norm(model.projections["item"]) > 0) == kept
    assert gradient_norm(model.uniques["table"]) > 0


def test_masked_heads_run_on_hidden_tokens_only():
    model, objective, batch = world(mask_ratio=0.3, modality_dropout=0.0)
    out = masked_text(model, objective, batch)
    assert 0 < len(out) < int(batch.cells["text"].valid.sum())
    model, objective, batch = world(mask_ratio=0.0)
    losses = objective(model, [batch], 0)
    assert all(int(t.count) == 0 for n, t in losses.terms.items() if n.startswith("masked/"))


# -- weights -----------------------------------------------------------------------------------------------------------


CHOICES = {
    name: get_args(field.annotation) if get_origin(field.annotation) is Literal else (True, False)
    for name, field in HarmoniseConfig.model_fields.items()
    if name not in ("floor", "mean_one")
}


def test_every_choice_makes_a_step():
    """form x source x apply x detach x diagonal x presence, the rest by turns: finite losses, finite gradients."""
    assert set(CHOICES) == {"form", "source", "apply", "detach", "diagonal", "presence"}
    model = build_model(KINDS)
    batch = make_batch(model, [KINDS, ("text",), ("table", "features"), KINDS])
    turns = itertools.cycle(itertools.product(("trunk", "encoder"), (True, False), (None, 0.1)))
    for at, values in enumerate(itertools.product(*CHOICES.values())):
        how = dict(zip(CHOICES, values, strict=True))
        if (how["form"], how["apply"]) == ("free", "loss"):
            continue
        for _ in range(1 + at % 3):  # so that the turns do not march in step with the product
            heads_input, mean_one, floor = next(turns)
        harmony = HarmoniseConfig(**how, mean_one=mean_one, floor=floor)
        objective = build_objective("scale", model, harmonise=harmony, heads_input=heads_input)
        grads, terms = gradients(model, objective, batch, seed=at)
        assert all(math.isfinite(v) for v, _ in terms.values()), harmony
        assert all(g.isfinite().all() for g in grads.values()), harmony


def test_a_free_matrix_on_the_loss_is_refused():
    with pytest.raises(BadInput, match="unbounded below"):
        ScaleConfig.parse({"harmonise": {"form": "free", "apply": "loss"}})


def test_a_free_matrix_learns():
    model, objective, batch = world(harmonise=HarmoniseConfig(form="free", floor=None))
    with torch.no_grad():
        objective.free.copy_(torch.rand(3, 3))
    objective(model, [batch], 0).total.backward()
    assert objective.free.grad.abs().sum() > 0


def diagonals(**how):
    model, objective, batch = world(harmonise=HarmoniseConfig(**how), modality_dropout=0.0)
    seen = {}
    weigh = objective._harmonise

    def spy(*args):
        seen["w"], seen["d"] = weigh(*args)
        return seen["w"], seen["d"]

    objective._harmonise = spy
    losses = objective(model, [batch], 0)
    return seen["w"], seen["d"], losses, batch


def test_literal_and_agreement_diagonals():
    w, literal, _, batch = diagonals(diagonal="literal", detach=False)
    for at, name in enumerate(KINDS):
        assert torch.equal(literal[name], w[:, at, at])
    assert w.requires_grad
    w, level, _, batch = diagonals(diagonal="agreement", detach=False)
    present = torch.stack([batch.cells[n].present for n in KINDS], 1)
    stacked = torch.stack([level[n] for n in KINDS], 1)
    assert not stacked.requires_grad
    assert torch.allclose(stacked.sum(1), present.sum(1).float(), atol=1e-5)
    assert stacked[~present].eq(0).all()


def test_detached_weights_get_no_gradient_and_attached_ones_do():
    assert not diagonals(detach=True)[0].requires_grad
    assert diagonals(detach=False)[0].requires_grad
    # the trunk hears of the contrast through W alone
    for detach, heard in ((True, False), (False, True)):
        how = HarmoniseConfig(source="trunk", detach=detach)
        model, objective, batch = world(harmonise=how, masked_weight=0.0, fusion_weight=0.0, recall_weight=0.0)
        objective(model, [batch], 0).total.backward()
        assert (gradient_norm(model.stages[1]) > 0) == heard


def test_presence_keeps_absent_modalities_out_of_the_weights():
    plain = {"form": "paper", "floor": None, "mean_one": False}  # the row norm of "code" hides the denominator
    aware, _, _, _ = diagonals(presence=True, **plain)
    release, _, _, _ = diagonals(presence=False, **plain)
    lone = 2  # ("text",): with the absent counted, its softmax gives away two parts
    assert aware[lone, 0, 0] == pytest.approx(1.0)
    assert aware[lone, 1].abs().sum() == 0
    assert torch.allclose(aware[0], release[0], atol=1e-6)
    partial = 3  # ("table", "features")
    assert not torch.allclose(aware[partial, 1:, 1:], release[partial, 1:, 1:], atol=1e-4)


def test_equal_weights_are_the_unweighted_losses():
    model, objective, batch = world(harmonise=HarmoniseConfig(form="none"), fusion_weight=0.0, modality_dropout=0.0)
    losses = objective(model, [batch], 0)
    scale = float(objective.log_scale.detach().exp())
    z = {n: e.z for n, e in losses.embedded.items()}
    rows = [0, 1, 5, 7]  # have text and table
    a, b, at = z["text"][rows], z["table"][rows], torch.arange(4)
    off = ~torch.eye(4, dtype=torch.bool)
    total = 0.0
    for x, y in ((a, b), (b, a)):
        logits = torch.cat([x @ y.T, (x @ x.T).masked_fill(~off, -torch.inf)], 1) * scale
        total += F.cross_entropy(logits, at) / 2
    assert float(losses.terms["contrast/text~table"].value.detach()) == pytest.approx(float(total.detach()), abs=1e-5)
    assert int(losses.terms["contrast/text~table"].count) == 8


def test_terms_and_their_weights():
    model, objective, batch = world(masked_weight=2.0, contrast_weight=3.0, fusion_weight=5.0, recall_weight=7.0)
    losses = objective(model, [batch], 0)
    assert set(losses.terms) == {
        *(f"masked/{n}" for n in KINDS),
        *(f"fusion/{n}" for n in KINDS),
        *(f"recall/{n}" for n in KINDS),
        "contrast/text~table",
        "contrast/text~features",
        "contrast/table~features",
    }
    weight = dict(losses.weights)
    assert {weight[f"masked/{n}"] for n in KINDS} == {2.0}
    assert {v for n, v in weight.items() if n.startswith("contrast")} == {1.0}
    assert {v for n, v in weight.items() if n.startswith("fusion")} == {5.0 / 3}
    assert {weight[f"recall/{n}"] for n in KINDS} == {7.0}
    # a batch that lacks a modality does not make the others weigh more
    fewer = objective(model, [make_batch(model, [("text", "table")] * 3)], 0)
    assert fewer.weights["contrast/text~table"] == 1.0
    assert set(fewer.terms) == {
        "recall/text",
        "recall/table",
        "masked/text",
        "masked/table",
        "fusion/text",
        "fusion/table",
        "contrast/text~table",
    }
    for off, gone in (
        ("masked_weight", "masked"),
        ("contrast_weight", "contrast"),
        ("fusion_weight", "fusion"),
        ("recall_weight", "recall"),
    ):
        model, objective, batch = world(**{off: 0.0})
        assert not any(n.startswith(gone) for n in objective(model, [batch], 0).terms)


# -- false negatives and modality dropout ------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["group", "content"])
def test_siblings_are_not_pushed_apart(what):
    """Only the two siblings have a pair: with false negatives known, nothing is left to contrast."""
    rows = [("text", "table"), ("text", "table"), ("features",)]
    for known in (True, False):
        model, objective, batch = world(rows=rows, false_negatives=known, masked_weight=0.0, fusion_weight=0.0)
        if what == "group":
            batch = replace(batch, groups=torch.tensor([4, 4, 5]))
        else:
            batch = replace(batch, digests={**batch.digests, "table": torch.tensor([9, 9, 0])})
        losses = objective(model, [batch], 0)
        term = losses.terms["contrast/text~table"]
        assert int(term.count) == 4
        assert (float(term.value.detach()) < 1e-5) == known


def test_rows_that_both_lack_a_cell_stay_negatives():
    model, objective, batch = world(rows=[("text", "table"), ("text", "table")], masked_weight=0.0)
    digests = {**batch.digests, "features": torch.tensor([0, 0])}
    term = objective(model, [replace(batch, digests=digests)], 0).terms["contrast/text~table"]
    assert float(term.value.detach()) > 1e-3


def test_modality_dropout_hides_from_the_trunk_only():
    model, objective, batch = world(rows=[KINDS] * 64, modality_dropout=0.6)
    seen = []
    model.stages[1].register_forward_hook(
        lambda _, given, __: seen.append({n: t.valid.any(1) for n, t in given[0].items()})
    )
    losses = objective(model, [batch], 0)
    kept = torch.stack([seen[0][n] for n in KINDS], 1)
    assert kept.any(1).all()
    assert 0.3 < float(kept.float().mean()) < 0.75
    assert int(losses.terms["contrast/text~table"].count) == 128  # the towers still saw everything
    assert int(losses.terms["fusion/text"].count) == 128


def test_the_temperature_is_learned_or_not():
    for learn in (True, False):
        model, objective, batch = world(learn_temperature=learn)
        objective(model, [batch], 0).total.backward()
        assert (objective.log_scale.grad is not None) == learn
    with torch.no_grad():
        objective.log_scale.fill_(9.0)
    assert float(objective._scale(objective.log_scale).detach()) == pytest.approx(100.0)


# -- recall ------------------------------------------------------------------------------------------------------------


def test_recall_decodes_from_the_item_vector_and_from_nothing_else():
    """What only one modality knows must stay in the vector: its gradient reaches every tower through the vector."""
    off = {"masked_weight": 0.0, "contrast_weight": 0.0, "fusion_weight": 0.0, "modality_dropout": 0.0}
    model, objective, batch = world(recall_ratio=0.5, **off)
    losses = objective(model, [batch], 0)
    assert set(losses.terms) == {f"recall/{n}" for n in KINDS}
    for name in KINDS:
        drawn = uniform(seed_of(0, "recall", name), batch.keys, batch.cells[name].valid.shape[1]) < 0.5
        assert int(losses.terms[f"recall/{name}"].count) == int((drawn & batch.cells[name].valid).sum()) > 0
    losses.total.backward()
    assert all(gradient_norm(model.stages[0].towers[name]) > 0 for name in KINDS)
    seen = []
    objective.recall.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    item = objective(model, [batch], 0).embedded["item"].z
    rows = {tuple(row) for row in item.detach().tolist()}
    assert seen
    assert all(tuple(row) in rows for part in seen for row in part.detach().tolist())


# -- the release -------------------------------------------------------------------------------------------------------


def test_reference_recipe_takes_a_step():
    made = reference({kind: kind for kind in KINDS}, "tiny")
    fitted = {k: c.fit([c.decoder().example(s) for s in range(6)]) for k, c in made.modalities.items()}
    torch.manual_seed(0)
    model = build_from_recipe(made, fitted)
    objective = made.objective.build(model)
    rows = [KINDS, ("text", "table"), ("features", "text"), KINDS]
    losses = objective(model, [make_batch(model, rows)], 0)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert {n.partition("/")[0] for n in losses.terms} == {"masked", "contrast"}
    assert set(model.stages[0].towers) == {"text", "features"}
    assert all((e.z >= 0).all() for e in losses.embedded.values())
    assert objective.log_scale.grad is None
    # its trunk hears of the masked tasks through W alone (source "split", not detached)
    assert gradient_norm(model.stages[1]) > 0
