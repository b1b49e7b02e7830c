"""Masking one modality at a time, replacing, asking about pairs: every switch of the streams objective."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import micro
import numpy as np
import pytest
import torch
from support import STAGE_ORDERS, build_model, build_objective, garbage, gradients, make_batch, pad, select
from torch.nn import functional as F

from polymodal import presence
from polymodal.catalogue.loader import collate
from polymodal.losses.corruption import Corruption
from polymodal.objectives.streams import StreamsConfig
from polymodal.recipe import build_model as build_from_recipe
from polymodal.tensors import Tokens
from polymodal.types import BadInput, Record

KINDS = ("text", "table", "features")
ROWS = [KINDS, KINDS, ("text",), ("table", "features"), ("text", "features"), KINDS, ("features",), ("text", "table")]
VARIANTS = [
    {"one_at_a_time": True, "matching_reads": "item"},
    {"matching_reads": "item", "matching_masked": True, "mask_ratios": {"features": 0.0}},
    {"matching_masked": True, "mismatch": 1.0, "modality_dropout": 0.5},
    {"matching_weight": 0.0, "replacement": {"text": {"random": 0.0, "keep": 0.5, "vector": "zero"}}},
]


def world(stages=("towers", "cotrunk"), rows=ROWS, groups=None, **fields):
    model = build_model(KINDS, stages)
    return model, build_objective("streams", model, **fields), make_batch(model, rows, groups=groups)


# -- every variant keeps the four properties ---------------------------------------------------------------------------


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
@pytest.mark.parametrize("stages", [("trunk",), ("towers", "cotrunk"), ("towers",)], ids="+".join)
def test_variants_keep_the_properties_of_absence(fields, stages):
    model, objective, batch = world(stages, **fields)
    grads, terms = gradients(model, objective, batch)
    dirty, again = gradients(model, objective, garbage(batch, 1))
    assert again == terms
    assert all(torch.equal(grads[n], dirty[n]) for n in grads)
    for other in (pad(batch, 5), select(batch, [5, 2, 7, 0, 3, 6, 1, 4])):
        _, moved = gradients(model, objective, other)
        assert {n: c for n, (_, c) in moved.items()} == {n: c for n, (_, c) in terms.items()}
        assert all(moved[n][0] == pytest.approx(v, abs=2e-6, rel=1e-5) for n, (v, _) in terms.items())
    assert sum(count for _, count in terms.values()) > 10
    for name, (value, count) in terms.items():
        sides = re.split("[/~]", name)[1:]
        keep = [row for row, has in enumerate(ROWS) if set(sides) & set(has)]
        with torch.no_grad():
            fewer = objective(model, [select(batch, keep)], 3).terms[name]
        assert int(fewer.count) == count
        assert float(fewer.value) == pytest.approx(value, abs=2e-6, rel=1e-5)


# -- hiding ------------------------------------------------------------------------------------------------------------


def test_one_modality_a_row_is_hidden_each_in_its_turn():
    model, objective, batch = world(one_at_a_time=True, mask_ratio=1.0)
    seen = set()
    for seed in range(12):
        hidden = objective._hide(model, batch, KINDS, seed)
        touched = torch.stack([hidden[name].any(1) for name in KINDS])
        assert touched.sum(0).eq(1).all()
        for at, name in enumerate(KINDS):
            assert torch.equal(hidden[name][touched[at]], batch.cells[name].valid[touched[at]])
        seen |= {(row, KINDS[at]) for at, row in touched.nonzero().tolist()}
    assert seen == {(row, name) for row, has in enumerate(ROWS) for name in has}


def test_all_modalities_are_hidden_at_once_otherwise():
    model, objective, batch = world(mask_ratio=1.0)
    hidden = objective._hide(model, batch, KINDS, 0)
    assert all(torch.equal(hidden[name], batch.cells[name].valid) for name in KINDS)


def test_a_modality_with_ratio_0_is_only_looked_at_and_never_has_the_turn():
    model, objective, batch = world(one_at_a_time=True, mask_ratio=1.0, mask_ratios={"features": 0.0, "table": 0.0})
    for seed in range(5):
        hidden = objective._hide(model, batch, KINDS, seed)
        assert torch.equal(hidden["text"], batch.cells["text"].valid)
        assert not hidden["table"].any()
    terms = objective(model, [batch], 0).terms
    assert [int(terms[f"masked/{name}"].count) > 0 for name in KINDS] == [True, False, False]
    assert float(terms["masked/table"].value.detach()) == 0


def test_masked_text_is_predicted_from_the_other_streams():
    model, objective, batch = world(
        rows=[KINDS] * 3, mask_ratio=1.0, replacement={"text": Corruption(random=0, keep=0)}, one_at_a_time=False
    )
    seen = []
    objective.heads["text"].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    other = make_batch(model, [KINDS] * 3, seed=1).cells["features"]
    changed = replace(batch, cells={**batch.cells, "features": other})
    with torch.no_grad():
        for this in (batch, batch, changed):
            objective._masked(model, this, model.encode(model.tokenize(this)), {"text": this.cells["text"].valid})
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2], atol=1e-5)


def content_after(how, name="text", seed=0):
    model, objective, batch = world(replacement={name: how} if how else {})
    cells = batch.cells[name]
    content = torch.randn(int(cells.valid.sum()), 16)
    everything = cells.valid
    out = objective._replace(model, name, content, cells, everything, batch, seed)
    assert torch.equal(content, objective._replace(model, name, content, cells, everything & False, batch, seed))
    return content, out, cells.valid, objective.masks[name]


def test_what_stands_where_a_token_is_hidden():
    content, out, _, mask = content_after(Corruption(random=0, keep=0))
    assert torch.equal(out, mask.expand_as(out))
    assert content_after(Corruption(random=0, keep=0, vector="zero"))[1].eq(0).all()
    content, out, _, _ = content_after(Corruption(random=0, keep=1))
    assert torch.equal(out, content)
    content, out, valid, _ = content_after(Corruption(random=1, keep=0))
    row = valid.nonzero()[:, 0]
    donors = (out[:, None] == content[None]).all(-1)
    assert donors.sum(1).eq(1).all()  # a token of the row, whole
    assert torch.equal(row[donors.int().argmax(1)], row)
    assert not torch.equal(out, content)


def test_80_10_10_is_the_default():
    kept = masked = other = 0
    for seed in range(25):
        content, out, _, mask = content_after(None, seed=seed)
        kept += int((out == content).all(1).sum())
        masked += int((out == mask).all(1).sum())
        other += len(out) - int(((out == content) | (out == mask)).all(1).sum())
    total = kept + masked + other
    assert masked / total == pytest.approx(0.8, abs=0.03)
    assert kept / total == pytest.approx(0.12, abs=0.03)  # some random ones are the token itself
    with pytest.raises(BadInput, match="at most 1"):
        Corruption.parse({"random": 0.6, "keep": 0.6})


# -- asking ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mismatch", [0.0, 0.5, 1.0])
def test_rows_are_asked_about_two_modalities_they_have(mismatch):
    model, objective, batch = world(mismatch=mismatch, groups=[0, 0, 1, 2, 3, 4, 5, 6])
    able = [len(row) > 1 for row in ROWS]
    wrong = 0
    for seed in range(10):
        asked = objective._ask(model, batch, seed)
        assert asked.counted.tolist() == able
        for row in range(len(ROWS)):
            moved = [KINDS[at] for at in range(3) if int(asked.source[at, row]) != row]
            if not able[row]:
                assert moved == []
                continue
            sides = {KINDS[at] for at in asked.sides[row].tolist()}
            assert sides <= set(ROWS[row])
            assert asked.sides[row].tolist() == list(objective.pairs[int(asked.pair[row])])
            assert len(moved) == (not asked.same[row])
            wrong += len(moved)
            for name in moved:
                partner = int(asked.source[KINDS.index(name), row])
                assert name in sides
                assert name in ROWS[partner]
                assert batch.groups[partner] != batch.groups[row]
    share = wrong / (10 * sum(able))
    assert share == pytest.approx(mismatch, abs=0.15 if mismatch == 0.5 else 0)


def test_every_pair_and_either_side_has_its_turn():
    model, objective, batch = world(rows=[KINDS] * 6, mismatch=1.0)
    seen = set()
    for seed in range(12):
        asked = objective._ask(model, batch, seed)
        rows = torch.arange(6)
        seen |= {(int(p), int(m)) for p, m in zip(asked.pair, (asked.source != rows).int().argmax(0), strict=True)}
    assert seen == {(at, side) for at, pair in enumerate(objective.pairs) for side in pair}


def test_where_nobody_could_be_meant_nobody_is_asked():
    for rows, groups in (([KINDS] * 4, [1, 1, 1, 1]), ([KINDS], None), ([KINDS, ("text",)], None)):
        model, objective, batch = world(rows=rows, groups=groups)
        asked = [objective._ask(model, batch, seed) for seed in range(6)]
        counted = torch.stack([a.counted for a in asked])
        assert not counted[:, 1:].any()
        if len(rows) != 2:
            assert not counted.any()
        else:  # of the two rows one can only be given the other's text
            assert [bool(a.counted[0]) for a in asked].count(True) < 6
    same = replace(batch, digests={name: torch.ones_like(d) for name, d in batch.digests.items()})
    assert not objective._ask(model, select(same, [0, 0]), 0).counted.any()


@pytest.mark.parametrize("reads", ["product", "item"])
@pytest.mark.parametrize("stages", STAGE_ORDERS, ids="+".join)
def test_a_wrong_cell_is_the_partners_and_a_third_modality_is_not_seen(stages, reads):
    """The logits are those of rows that really are so: two modalities, one of them the partner's."""
    model, objective, batch = world(stages, rows=[KINDS] * 4 + [("text", "table")], mismatch=1.0, matching_reads=reads)
    model.eval()
    seen = []
    objective.matcher.register_forward_hook(lambda _, given, out: seen.append((given[2], out.detach())))
    with torch.no_grad():
        objective(model, [batch], 4)
        asked, logits = seen[0]
        parts = model.tokenize(batch)
        for row in range(len(batch)):
            made = {}
            for side in asked.sides[row].tolist():
                source = int(asked.source[side, row])
                tokens = parts[KINDS[side]]
                made[KINDS[side]] = Tokens(tokens.x[[source]], tokens.valid[[source]])
            one = type(asked)(*(x[..., [row]] if x is asked.source else x[[row]] for x in asked))
            alone = objective.matcher(model, model.encode(made), one)
            assert torch.allclose(alone[0], logits[row], atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_matching_sees_rows_whole_or_as_they_are_masked(masked):
    model, objective, batch = world(rows=[KINDS] * 4, matching_masked=masked, mask_ratio=1.0)
    seen = []
    encode = model.encode
    model.encode = lambda parts, thin=None: seen.append(parts) or encode(parts, thin)
    with torch.no_grad():
        objective(model, [batch], 0)
    whole = model.tokenize(batch)["text"].x
    asked = objective._ask(model, batch, 0)
    where = whole[asked.source[0]][seen[1]["text"].valid]
    assert len(where) > 0
    assert torch.equal(seen[1]["text"].x[seen[1]["text"].valid], where) != masked


def says_the_same(count: int, seed: int) -> list[Record]:
    """Rows whose title and vector name the same colour and shape."""
    random, rows = np.random.default_rng(seed), []
    for at in range(count):
        colour, shape = random.integers(4, size=2)
        vector = np.concatenate([np.eye(4)[colour], np.eye(4)[shape]]).astype(np.float32)
        words = f"{micro.COLOURS[colour]} {micro.SHAPES[shape]}"
        rows.append(Record(f"{seed}-{at}", {"title": words, "vector": vector[None]}))
    return rows


def test_it_learns_which_cells_belong_together():
    """A title and a vector that say the same are told from others, in rows never seen."""
    made = micro.recipe(("trunk",))
    made = made.replace(modalities={n: c for n, c in made.modalities.items() if n != "facts"})
    seen, unseen = says_the_same(64, 1), says_the_same(64, 2)
    torch.manual_seed(0)
    model = build_from_recipe(made, micro.fit(made, seen))
    objective = build_objective("streams", model, masked_weight=0.0, recall_weight=0.0)
    batch, other = (collate(rows, {n: model.modality(n) for n in model.names}) for rows in (seen, unseen))
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 1e-2)
    name = "matching/title~vector"

    def held_out() -> float:
        with torch.no_grad():
            return float(objective(model, [other], 1000).terms[name].value)

    before = held_out()
    for step in range(100):
        optimizer.zero_grad()
        objective(model, [batch], step).terms[name].value.backward()
        optimizer.step()
    assert before > 0.65
    assert held_out() < 0.35  # ln 2 = 0.69 for one who cannot tell


# -- terms and weights -------------------------------------------------------------------------------------------------


def test_terms_have_fixed_weights_and_can_be_left_out():
    model, objective, batch = world(masked_weight=2.0, matching_weight=6.0, recall_weight=0.25)
    losses = objective(model, [batch], 0)
    pairs = ["~".join(pair) for pair in itertools.combinations(KINDS, 2)]
    assert list(losses.terms) == [
        *(f"masked/{name}" for name in KINDS),
        *(f"matching/{pair}" for pair in pairs),
        *(f"recall/{name}" for name in KINDS),
    ]
    assert {losses.weights[f"matching/{pair}"] for pair in pairs} == {2.0}
    assert {losses.weights[f"{family}/text"] for family in ("masked", "recall")} == {2.0, 0.25}
    for family in ("masked", "matching", "recall"):
        model, objective, batch = world(**{f"{family}_weight": 0.0})
        assert {name.partition("/")[0] for name in objective(model, [batch], 0).terms} == {
            "masked",
            "matching",
            "recall",
        } - {family}


def test_recall_counts_each_token_from_both_vectors():
    model, objective, batch = world(recall_ratio=1.0)
    terms = objective(model, [batch], 0).terms
    for name in KINDS:
        assert int(terms[f"recall/{name}"].count) == 2 * int(batch.cells[name].valid.sum())


def test_one_modality_is_bert():
    model = build_model(("text",), ("trunk",))
    objective = build_objective("streams", model)
    assert not hasattr(objective, "matcher")
    batch = make_batch(model, [("text",)] * 8)
    losses = objective(model, [batch], 0)
    assert set(losses.terms) == {"masked/text", "recall/text"}
    hidden = objective._hide(model, batch, ["text"], 0)["text"]
    modality, cells = model.modality("text"), batch.cells["text"]
    parts = model.tokenize(batch, lambda n, c, cells: objective._replace(model, n, c, cells, hidden, batch, 0))
    predicted = objective.heads["text"](model.encode(parts).last["text"].x[hidden])
    wanted = F.cross_entropy(predicted, cells.fields["id"][hidden])
    assert float(losses.terms["masked/text"].value.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert modality.kind == "text"


def test_a_row_without_anything_is_no_error():
    model, objective, batch = world(rows=[KINDS, ()])
    full = presence.complete(batch, {name: model.modality(name).blank() for name in KINDS})
    assert objective(model, [full], 0).total.isfinite()
    assert StreamsConfig().build(model).world.rank == 0
