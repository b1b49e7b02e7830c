from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from support import STAGE_ORDERS, build_model, build_objective, gradients, make_batch, select

from polymodal.losses._lending import Swap
from polymodal.losses.matching import count_symbols, tfidf
from polymodal.model import ITEM, Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.objective import Alone, HardNegatives
from polymodal.objectives.interbert import Grouping, InterbertConfig, Replacement
from polymodal.presence import fill
from polymodal.recipe import Recipe
from polymodal.recipes.interbert import recipe, reference
from polymodal.tensors import Batch
from polymodal.types import BadInput

KINDS = ("text", "table", "features")
ROWS = [KINDS, KINDS, ("text", "table"), ("text",), ("text", "features"), KINDS, ("text", "table"), ("features",)]
MANY = ROWS * 12
ONLY_MATCH = {"masked_weight": 0.0, "contrast_weight": 0.0, "item_weight": 0.0}


@pytest.fixture(scope="module")
def model():
    return build_model(KINDS, ("trunk", "towers"))


@pytest.fixture(scope="module")
def batch(model):
    return make_batch(model, MANY, groups=[at // 2 for at in range(len(MANY))])


def swapped(objective, model, batch, seed=0) -> Swap:
    return objective.swap(model, batch, [n for n in model.names if n in batch.cells], seed)


# -- mismatched rows ---------------------------------------------------------------------------------------------------


def test_one_cell_of_a_row_is_exchanged_for_one_of_a_row_that_has_as_much(model, batch):
    swap = swapped(build_objective("interbert", model), model, batch)
    taken = torch.stack([swap.rows[name] for name in KINDS])
    has = torch.stack([batch.cells[name].present for name in KINDS], 1)
    assert taken.sum(0).max() == 1
    assert not taken[:, has.sum(1) < 2].any()
    share = taken.any(0)[has.sum(1) > 1].double().mean()
    assert 0.35 < share < 0.65
    assert all(taken[at].any() for at in range(3)), "every modality is exchanged now and then"
    for at, name in enumerate(KINDS):
        for row in taken[at].nonzero()[:, 0].tolist():
            donor = int(swap.donors[name][row])
            assert not (has[row] & ~has[donor]).any(), "the donor lacks what the row has"
            assert batch.groups[row] != batch.groups[donor]
            assert batch.digests[name][row] != batch.digests[name][donor]


def test_the_exchanged_cell_is_the_donors_and_nothing_else_changes(model, batch):
    swap = swapped(build_objective("interbert", model), model, batch)
    other = swap.apply(batch, Alone())
    for name in KINDS:
        cells, before = other.cells[name], batch.cells[name]
        taken = swap.rows[name]
        donors = torch.where(taken, swap.donors[name], torch.arange(len(batch)))
        assert torch.equal(cells.valid, before.valid[donors])
        assert all(torch.equal(value, before.fields[key][donors]) for key, value in cells.fields.items())
    assert other.ids == batch.ids
    assert torch.equal(other.keys, batch.keys)


def test_equal_content_is_no_mismatch(model):
    """Of two rows with the same text none gets the other's: the pair would be right and be called wrong."""
    batch = make_batch(model, [("text", "table")] * 2)
    objective = build_objective("interbert", model, replacement=Replacement(share=1.0))
    same = replace(batch, digests={**batch.digests, "text": torch.tensor([5, 5])})
    for seed in range(8):
        assert not swapped(objective, model, same, seed).rows["text"].any()
    assert any(swapped(objective, model, batch, seed).rows["text"].any() for seed in range(8))
    everything_same = replace(batch, groups=torch.tensor([1, 1]))
    assert not any(rows.any() for rows in swapped(objective, model, everything_same).rows.values())


def test_a_partner_does_not_depend_on_rows_that_could_not_be_one(model, batch):
    objective = build_objective("interbert", model)
    swap = swapped(objective, model, batch)
    full = [at for at, row in enumerate(MANY) if "features" in row and "text" in row]
    few = select(batch, full)
    again = swapped(objective, model, few)
    three = [at for at, row in enumerate(full) if len(MANY[row]) == 3]  # their donors have all three, so all stayed
    for name in KINDS:
        for at in three:
            assert bool(again.rows[name][at]) == bool(swap.rows[name][full[at]])
            if again.rows[name][at]:
                assert few.ids[int(again.donors[name][at])] == batch.ids[int(swap.donors[name][full[at]])]


@pytest.mark.parametrize(("hard", "wanted"), [(0.0, 0.0), (1.0, 1.0)])
def test_hard_donors_are_the_most_similar_within_the_band(hard, wanted):
    model = build_model(("text", "table"), ("trunk", "towers"))
    batch = make_batch(model, [("text", "table")] * 60)
    how = Replacement(share=1.0, hard=hard, band=(0.0, 0.4), top=2)
    swap = swapped(build_objective("interbert", model, replacement=how), model, batch)
    cells = batch.cells["text"]
    similarity = tfidf(count_symbols(cells.fields["id"], cells.valid), torch.ones(60, 60, dtype=torch.bool))
    similarity = similarity.fill_diagonal_(1.0)
    inside = similarity.masked_fill(similarity >= 0.4 - 1e-5, -1.0)
    best = inside.topk(2, 1).indices
    taken = swap.rows["text"].nonzero()[:, 0]
    assert len(taken) > 10
    hits = torch.stack([(best[row] == swap.donors["text"][row]).any() for row in taken]).double().mean()
    assert hits >= 0.9 if wanted else hits < 0.3  # ties of rounding aside


def test_hard_donors_of_the_whole_set_are_those_beside_the_rows(model):
    """A row that the loader gave a hard negative gets its cell, of any modality; all others draw from everybody."""
    batch = make_batch(model, [KINDS] * 60)
    none = batch.keys.clone()
    beside = torch.where(torch.arange(60) % 5 == 0, batch.keys.roll(-1), none)
    how = Replacement(share=1.0, corpus="text")
    objective = build_objective("interbert", model, replacement=how)
    assert objective.hard == HardNegatives("text", 0.2, (0.0, 0.5), 4)
    swap = swapped(objective, model, replace(batch, hard=beside))
    plain = swapped(objective, model, batch)
    for name in KINDS:
        taken = swap.rows[name].nonzero()[:, 0]
        assert len(taken) > 10
        assert torch.equal(swap.rows[name], plain.rows[name])
        hard = taken % 5 == 0
        assert hard.any()
        assert torch.equal(swap.donors[name][taken[hard]], taken[hard] + 1)
        assert torch.equal(swap.donors[name][taken[~hard]], plain.donors[name][taken[~hard]])
    sibling = replace(batch, hard=beside, groups=torch.arange(60) // 5)
    taken = swapped(objective, model, sibling)
    for name in KINDS:
        rows = taken.rows[name].nonzero()[:, 0]
        assert not (taken.donors[name][rows] // 5 == rows // 5).any(), "a negative of the row's group is none"
    assert build_objective("interbert", model).hard is None
    with pytest.raises(BadInput, match=r"corpus.*text"):
        build_objective("interbert", model, replacement=Replacement(corpus="title"))
    with pytest.raises(BadInput, match="at most"):
        Replacement.parse({"corpus": "text", "hard": 0.6})


def test_labels_are_of_the_pairs_with_the_exchanged_cell(model, batch):
    """With a head that says only 'match' the loss of a pair is high in exactly the share that is mismatched."""
    objective = build_objective("interbert", model, modality_dropout=0.0, **ONLY_MATCH)
    with torch.no_grad():
        objective.matching.classifier.weight.zero_()
        objective.matching.classifier.bias.copy_(torch.tensor([10.0, 0.0]))
    swap = swapped(objective, model, batch, 3)
    terms = objective(model, [batch], 3).terms
    for i, j in (("text", "table"), ("text", "features"), ("table", "features")):
        both = batch.cells[i].present & batch.cells[j].present
        wrong = (swap.rows[i] | swap.rows[j]) & both
        assert int(terms[f"match/{i}~{j}"].count) == int(both.sum())
        assert float(terms[f"match/{i}~{j}"].value.detach()) == pytest.approx(
            10 * float(wrong.sum() / both.sum()), abs=1e-3
        )
    none = build_objective("interbert", model, replacement=Replacement(share=0.0))
    assert not any(rows.any() for rows in swapped(none, model, batch).rows.values())


# -- masked groups -----------------------------------------------------------------------------------------------------


def test_gates(model):
    """Columns: intact; text exchanged of two, of three; alone; text exchanged and dropped, two and one left."""
    yes, no = True, False
    visible = {
        "text": torch.tensor([yes, yes, yes, yes, no, no]),
        "table": torch.tensor([yes, yes, yes, no, yes, yes]),
        "features": torch.tensor([yes, no, yes, no, yes, no]),
    }
    never = torch.zeros(6, dtype=torch.bool)
    swap = Swap({"text": torch.tensor([no, yes, yes, no, yes, yes]), "table": never, "features": never}, {})
    gates = build_objective("interbert", model)._gates(visible, swap)
    assert (gates["text"] & visible["text"]).tolist() == [yes, no, no, yes, no, no]
    assert (gates["table"] & visible["table"]).tolist() == [yes, no, yes, no, yes, yes]
    assert (gates["features"] & visible["features"]).tolist() == [yes, no, yes, no, yes, no]


def counts(model, batch, **fields):
    objective = build_objective("interbert", model, modality_dropout=0.0, **fields)
    return {name: int(term.count) for name, term in objective(model, [batch], 3).terms.items()}


def test_mismatched_rows_train_masked_tokens_only_where_it_is_said(model, batch):
    gated, all_, words = (counts(model, batch, **f) for f in ({}, {"gate": False}, {"ungated": ("text",)}))
    for name in KINDS:
        assert gated[f"masked/{name}"] < all_[f"masked/{name}"], name
        assert words[f"masked/{name}"] == (all_ if name == "text" else gated)[f"masked/{name}"]


def test_a_sequence_has_its_own_chance_and_segments(model):
    batch = make_batch(model, [("text", "table")] * 300)

    def share(name, **fields):
        objective = build_objective("interbert", model, group=Grouping(always_one=None, **fields))
        hidden = objective.hide(model, batch, name, 0)
        assert not (hidden & ~batch.cells[name].valid).any()
        return float(hidden.sum() / batch.cells[name].valid.sum())

    assert share("table") == pytest.approx(0.15, abs=0.03)
    assert share("table", probability=0.4) == pytest.approx(0.4, abs=0.04)
    assert share("text", extra=(0,)) == pytest.approx(0.10, abs=0.02)
    assert share("text") == pytest.approx(0.17, abs=0.025)
    assert share("text", extra=(1, 2, 3)) > share("text") + 0.03
    assert share("text", form="span") == pytest.approx(0.35, abs=0.05)
    assert share("text", probability=0.0) == 0.0
    other = build_objective("interbert", model, groups={"text": Grouping(probability=1.0)})
    assert other.hide(model, batch, "text", 0).equal(batch.cells["text"].valid)
    assert not other.hide(model, batch, "table", 0).equal(batch.cells["table"].valid)


def test_longer_cells_always_have_a_target_and_short_ones_keep_what_they_have(model):
    batch = make_batch(model, [("text", "features")] * 200)
    objective = build_objective("interbert", model)
    for name in ("text", "features"):
        hidden = objective.hide(model, batch, name, 1)
        long = batch.cells[name].valid.sum(1) >= 6
        assert hidden.any(1)[long].all()
        assert not hidden.any(1)[~long].all()


def test_what_becomes_of_hidden_tokens(model):
    batch = make_batch(model, [("text",)] * 400)
    cells, modality = batch.cells["text"], model.modality("text")
    clean = modality.embed(cells.packed())
    everything = cells.valid.clone()

    def fates(**fields):
        objective = build_objective("interbert", model, group=Grouping(**fields))
        content = objective._corrupt(model, "text", clean, cells, everything, batch, 0)
        masked = (content == objective._mask(model, "text")).all(1).double().mean()
        kept = (content == clean).all(1).double().mean()
        return float(masked), float(kept), content

    masked, kept, _ = fates()
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.03)
    assert fates(random=0.0, keep=0.0)[0] == 1.0
    masked, kept, content = fates(random=1.0, keep=0.0)
    assert masked == 0.0
    table = modality.content.weight
    found = torch.cdist(content.double(), table.double()).min(1)
    assert found.values.max() < 1e-6
    assert len(found.indices.unique()) > 100, "any symbol of the vocabulary, not only of the row"
    blank = fates(vector="blank", random=0.0, keep=0.0)[2]
    assert torch.equal(blank[0], modality.embed(modality.blank())[0])


def test_where_nothing_else_is_possible_a_random_token_is_of_the_same_row(model):
    batch = make_batch(model, [("features",)] * 30)
    cells = batch.cells["features"]
    row = cells.valid.nonzero()[:, 0]
    content = row[:, None].double() + torch.zeros(1, 16)
    objective = build_objective("interbert", model, group=Grouping(random=1.0, keep=0.0))
    # substitute of features is None, so only the content that stands in the row can appear
    assert torch.equal(objective._corrupt(model, "features", content, cells, cells.valid, batch, 0), content)


def test_tied_heads_share_the_models_table(model):
    batch = make_batch(model, [KINDS] * 8)
    objective = build_objective("interbert", model, tie=True)
    assert len(objective.heads["text"].bias) == len(model.modality("text").content.weight)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in objective.parameters()}
    shapes = [tuple(p.shape) for p in objective.heads["text"].parameters()]
    assert tuple(model.modality("text").content.weight.shape) not in shapes
    grads, _ = gradients(model, objective, batch)
    # every symbol is a candidate of the prediction, so every row of the table learns, seen in the batch or not
    assert (grads["0.modalities.text.content.weight"].abs().sum(1) > 0).all()
    plain = build_objective("interbert", model)
    grads, _ = gradients(model, plain, batch)
    assert not (grads["0.modalities.text.content.weight"].abs().sum(1) > 0).all()


# -- heads, vectors, weights -------------------------------------------------------------------------------------------


def test_a_models_own_matching_head_is_the_one_that_learns():
    stack = StackConfig(layers=1, heads=2)
    parts = build_model(("text", "table"))
    shape = ModelConfig(width=16, embedding=8, stages=("trunk", "towers"), tower=stack, trunk=stack, match=6)
    model = Model({n: parts.modality(n) for n in parts.names}, shape)
    objective = build_objective("interbert", model)
    assert objective.matching is None
    grads, _ = gradients(model, objective, make_batch(model, [("text", "table")] * 6))
    assert all(grads[f"0.matching.{n}"].abs().sum() > 0 for n, _ in model.matching.named_parameters())


@pytest.mark.parametrize("stages", STAGE_ORDERS, ids="+".join)
def test_a_modalitys_vector_is_that_of_a_row_of_it_alone(stages):
    model = build_model(KINDS, stages).eval()
    batch = make_batch(model, ROWS)
    with torch.no_grad():
        alone = model.alone(model.tokenize(batch))
        for name in KINDS:
            wanted = model.embeddings(model.encode(model.tokenize(batch.only([name]))), [name])[name]
            assert torch.equal(alone[name].present, wanted.present)
            assert torch.allclose(alone[name].z, wanted.z, atol=1e-6)


def test_item_vectors_are_of_rows_in_which_everything_is_their_own(model, batch):
    objective = build_objective("interbert", model, modality_dropout=0.0)
    losses = objective(model, [batch], 3)
    wrong = torch.stack(list(swapped(objective, model, batch, 3).rows.values())).any(0)
    item = losses.embedded[ITEM]
    assert torch.equal(item.present, ~wrong)
    assert item.z[wrong].eq(0).all()
    for name in KINDS:
        assert int(losses.terms[f"item/{name}"].count) == 2 * int((batch.cells[name].present & ~wrong).sum())


def test_weights_do_not_depend_on_what_a_batch_lacks(model):
    objective = build_objective("interbert", model)
    full = objective(model, [make_batch(model, [KINDS] * 4)], 0).weights
    some = objective(model, [make_batch(model, [("text", "table")] * 4)], 0).weights
    assert full["match/text~table"] == some["match/text~table"] == pytest.approx(1 / 3)
    assert full["item/text"] == some["item/text"] == pytest.approx(1 / 3)
    assert set(some) < set(full)
    only = build_objective("interbert", model, **ONLY_MATCH)(model, [make_batch(model, [KINDS] * 4)], 0)
    assert {name.partition("/")[0] for name in only.terms} == {"match"}


def test_two_modalities_weigh_as_published():
    model = build_model(("text", "features"), ("trunk", "towers"))
    weights = build_objective("interbert", model)(model, [make_batch(model, [("text", "features")] * 4)], 0).weights
    assert {weights[name] for name in ("masked/text", "masked/features", "match/text~features")} == {1.0}


def test_marks_of_begin_and_end_are_never_hidden(tmp_path):
    from polymodal.modalities.text import TextConfig

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "shoe"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = TextConfig(bert=str(tmp_path), max_tokens=8)
    stack = StackConfig(layers=1, heads=2)
    model = Model({"text": config.build(16, config.fit([]))}, ModelConfig(width=16, tower=stack, trunk=stack))
    cells = fill([model.modality("text").preprocess(t) for t in ("red shoe", "shoe", "red shoe red shoe red")])
    batch = Batch(("a", "b", "c"), {"text": cells})
    for how in (Grouping(probability=1.0), Grouping(form="span"), Grouping(probability=1.0, anchors="token")):
        objective = build_objective("interbert", model, group=how)
        hidden = torch.stack([objective.hide(model, batch, "text", seed) for seed in range(20)]).any(0)
        assert set(cells.fields["id"][hidden].tolist()) <= {5, 6}
        assert hidden.any()
    assert "text" not in objective.masks, "[MASK] is the model's"
    assert torch.equal(objective._mask(model, "text"), model.modality("text").content.weight[4])


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_recipes_are_complete_and_survive_json(size):
    kinds = {"photo": "image", "title": "text", "facts": "table", "regions": "features", "clip": "video"}
    for made in (recipe(kinds, size), reference(kinds, size)):
        assert Recipe.parse(json.loads(made.model_dump_json())) == made
        assert made.model.stages == ("trunk", "towers")
        assert made.model.match > 0
        assert made.model.unique == 0, "nothing here trains it"
    told = reference(kinds, size)
    assert told.model.tower_of["photo"].heads * 3 == told.model.tower.heads * 2 or size == "tiny"
    assert told.objective.ungated == ("title",)
    assert told.objective.groups["title"].form == "span"


def test_refusals():
    with pytest.raises(BadInput, match="at most 1"):
        Grouping.parse({"random": 0.6, "keep": 0.6})
    with pytest.raises(BadInput):
        Grouping.parse({"extra": ()})
    with pytest.raises(BadInput):
        InterbertConfig.parse({"replacement": {"top": 0}})
