"""FactorCL against loops over pairs, its fields one by one, and what an alternating step moves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support import build_model, build_objective, gradients, make_batch, select

from polymodal.losses.critics import CriticConfig
from polymodal.losses.information import codes
from polymodal.model import Model
from polymodal.objectives._factors import CLUBS, FAMILIES, GIVEN, Inputs
from polymodal.objectives.factorcl import FactorCL, FactorCLConfig, Weights
from polymodal.tensors import Embedded
from polymodal.types import BadInput

ROWS, WIDTH = 10, 6
SMALL = CriticConfig(hidden=8, layers=1, width=5)
CONCAT = CriticConfig(kind="concat", hidden=8, layers=2, rows=3)
THREE = ("text", "table", "features")


def vectors(names, views, seed=0, present=None):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(views):
        view = {}
        for name in names:
            there = torch.ones(ROWS, dtype=torch.bool) if present is None else present[name]
            z = torch.randn((ROWS, WIDTH), generator=generator) * there[:, None]
            view[name] = Embedded(z, there)
        made.append(view)
    return made


def inputs(names, views, labels=None, **how):
    seen = vectors(names, views, **how)
    y = torch.full((ROWS,), -1) if labels is None else labels
    return Inputs(seen, seen, torch.arange(ROWS), y)


def objective(names=("a", "b"), **fields):
    torch.manual_seed(0)
    fields = {"critic": SMALL, "clamp": False, **fields}
    return FactorCL(FactorCLConfig(**fields), names, WIDTH)


LABELS = torch.tensor([0, 1, 0, 1, 1, 2, 0, 2, -1, 3])


# -- the six terms, by loops -------------------------------------------------------------------------------------------


def one(critic, a, b):
    """f(a, b) of two single vectors."""
    return float(critic(a[None], b[None]))


def by_loops(critic, a, b, rows, same=None):
    """(NCE, CLUB) with a double loop over the rows that count."""
    low, high = [], []
    for i in rows:
        others = [j for j in rows if same is None or same[j] == same[i]]
        if len(others) < 2:
            continue
        scores = {j: one(critic, a[j], b[i]) for j in others}
        low.append(scores[i] - math.log(sum(math.exp(s) for s in scores.values()) / len(others)))
        high.append(scores[i] - sum(scores.values()) / len(others))
    return sum(low) / len(low), sum(high) / len(high)


def six_terms(made, seen, rows, config):
    """NCE(1;2) - CLUB(1;2|C) + NCE(1;C) + NCE(2;C) - CLUB(1;2) + NCE(1;2|C), and each part."""
    x1, x2 = (seen.shared[0][n].z for n in made.names)
    labelled = [i for i in rows if seen.labels[i] >= 0] if config.label else rows
    code = codes(seen.labels, config.label_width)
    parts = {}
    for family in FAMILIES:
        link = made._link(family, "a~b")
        a, b, counted, same = link.left(x1), link.right(x2), rows, None
        if family in GIVEN:
            counted = labelled
            again = seen.shared[0 if config.club_given_view == "clean" and family == "club_given" else -1]
            given = (code, code) if config.label else (link.left(again["a"].z), link.right(again["b"].z))
            a = torch.cat([a, given[0]], 1)
            b = torch.cat([b, given[1]], 1) if config.given_sides == "both" else b
            same = seen.labels.tolist() if config.conditional == "within_class" else None
        parts[family] = by_loops(link.critic, a, b, counted, same)[family in CLUBS]
    for name in made.names:
        head = made.task_heads[name]
        given = code if config.label else head(seen.unique[1][name].z)
        parts[f"task/{name}"] = by_loops(made.task_critics[name], head(seen.unique[0][name].z), given, labelled)[0]
    signs = {family: -1 if family in CLUBS else 1 for family in FAMILIES}
    return sum(signs.get(name, 1) * value for name, value in parts.items()), parts


@pytest.mark.parametrize("critic", [SMALL, CONCAT, CONCAT.replace(limit=0.1)], ids=["dot", "concat", "bounded"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"club_given_view": "clean"},
        {"label": "y", "given_sides": "left"},
        {"label": "y", "conditional": "within_class"},
    ],
    ids=["ssl", "ssl-clean", "sup-left", "sup-within"],
)
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_the_six_terms_are_those_of_a_double_loop(fields, critic, holes):
    made = objective(critic=critic, **fields)
    present = {"a": torch.tensor([True] * 8 + [False] * 2), "b": torch.tensor([False] + [True] * 9)} if holes else None
    seen = inputs(("a", "b"), made.views, LABELS if made.label else None, present=present)
    # a modality's own term counts the rows that have it: with holes compare the two-sided terms alone
    rows = [i for i in range(ROWS) if present is None or (present["a"][i] and present["b"][i])]
    with torch.no_grad():
        losses = made.terms(seen, 0)
        total, parts = six_terms(made, seen, rows, made.config)
    for family in FAMILIES:
        kind = "club" if family in CLUBS else "nce"
        assert float(losses.log[f"{kind}/{family}/a~b"]) == pytest.approx(parts[family], abs=1e-5), family
    if not holes:
        constants = sum(
            float(losses.log[f"nce/{n}"] + t.value) for n, t in losses.terms.items() if f"club/{n}" not in losses.log
        )
        assert float(losses.total) == pytest.approx(constants - total, abs=1e-5)
        assert {float(losses.weights[n]) for n in losses.terms} == {1.0}
        assert len(losses.terms) == 6


def test_rows_of_an_absent_side_are_as_deleted():
    present = {"a": torch.arange(ROWS) % 3 != 0, "b": torch.arange(ROWS) % 4 != 1}
    within, apart = {"label": "y", "conditional": "within_class"}, {"align": 1.0, "separate": 1.0}
    for fields in ({}, {"conditional": "kernel"}, within, apart):
        made = objective(**fields)
        y = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0, 0, -1])
        seen = inputs(("a", "b"), made.views, y if made.label else None, present=present)
        kept = (present["a"] & present["b"]).nonzero()[:, 0]
        small = [{n: Embedded(v.z[kept], v.present[kept]) for n, v in view.items()} for view in seen.shared]
        fewer = Inputs(small, small, seen.keys[kept], seen.labels[kept])
        whole, part = made.terms(seen, 0), made.terms(fewer, 0)
        for name, term in whole.terms.items():
            if "~" in name:
                assert int(term.count) == int(part.terms[name].count) > 0, name
                assert float(term.value.detach()) == pytest.approx(float(part.terms[name].value.detach()), abs=1e-5), (
                    name
                )


# -- fields ------------------------------------------------------------------------------------------------------------


def test_clamp_keeps_club_at_zero_and_lets_it_go_below():
    """A critic turned round says less of the true pairs than of others."""
    for clamp in (True, False):
        made = objective(clamp=clamp)
        seen = inputs(("a", "b"), 2)
        values = []
        for sign in (1, -1):
            link = made._link("club", "a~b")
            with torch.no_grad():
                link.critic.right[-1].weight.mul_(sign)
                link.critic.right[-1].bias.mul_(sign)
            values.append(float(made.terms(seen, 0).terms["club/a~b"].value.detach()))
            with torch.no_grad():
                link.critic.right[-1].weight.mul_(sign)
                link.critic.right[-1].bias.mul_(sign)
        low, high = sorted(values)
        assert high > 0
        assert low == 0.0 if clamp else low == pytest.approx(-high, abs=1e-6)


def test_nce_is_below_club_and_every_bound_is_logged():
    made = objective(clamp=True)
    losses = made.terms(inputs(("a", "b"), 2), 0)
    for name, term in losses.terms.items():
        assert float(losses.log[f"nce/{name}"]) <= math.log(int(term.count)) + 1e-6
    for family in CLUBS:
        assert float(losses.log[f"gap/{family}/a~b"]) >= -1e-6
        assert float(losses.log[f"club/{family}/a~b"]) >= float(losses.log[f"nce/{family}/a~b"]) - 1e-6
    assert len([n for n in losses.log if n.startswith("nce/")]) == 6


def test_club_diagonal():
    with_it, without = (objective(club_diagonal=d).terms(inputs(("a", "b"), 2), 0).terms for d in (True, False))
    for name in ("club/a~b", "club_given/a~b"):
        ratio = float(with_it[name].value) / float(without[name].value)
        assert ratio == pytest.approx(1 - 1 / ROWS, abs=1e-5)


def test_weights_and_terms_left_out():
    some = Weights(cross=2.0, club=0.0, club_given=0.0, task=0.5, fusion=0.0)
    losses = objective(weights=some).terms(inputs(("a", "b"), 2), 0)
    assert set(losses.terms) == {"cross/a~b", "cross_given/a~b", "task/a", "task/b"}
    assert losses.weights["cross/a~b"] == 2.0
    assert losses.weights["task/a"] == 0.5


def test_heads_and_penalties():
    seen = inputs(("a", "b"), 2)
    plain = objective(heads="published").factors(seen)
    core = objective(heads="core").factors(seen)
    assert {n: v.shape[1] for n, v in plain.items()} == {
        "shared/a~b/a": 2 * WIDTH,
        "unique/a~b/a": 3 * WIDTH,
        "shared/a~b/b": 2 * WIDTH,
        "unique/a~b/b": 3 * WIDTH,
    }
    assert {v.shape[1] for v in core.values()} == {WIDTH}
    for two_step in (True, False):
        made = objective(align=0.0, separate=1.0, heads="core", two_step=two_step)
        losses = made.terms(seen, 0)
        (losses.terms["apart/a~b"].value).backward()
        moved = made._link("cross", "a~b").left[0].weight.grad
        assert (moved is None) == two_step
        assert made.task_heads["a"][0].weight.grad.abs().sum() > 0
    kinds = {
        k: float(objective(separate=1.0, penalty=k).terms(seen, 0).terms["apart/a~b"].value)
        for k in ("correlation", "hsic")
    }
    assert kinds["correlation"] != kinds["hsic"]
    assert "align/a~b" not in losses.terms
    assert "align/a~b" in objective(align=1.0).terms(seen, 0).terms


@pytest.mark.parametrize("penalised", ["encoders", "heads"])
def test_whom_the_penalties_move(penalised):
    made = objective(align=1.0, separate=1.0, penalised=penalised)
    seen = inputs(("a", "b"), 2)
    source = [e.z.requires_grad_() for e in seen.shared[0].values()]
    terms = made.terms(seen, 0).terms
    (terms["align/a~b"].value + terms["apart/a~b"].value + terms["spread/a~b"].value).backward()
    assert all((z.grad is None) == (penalised == "heads") for z in source)
    assert made._link("cross", "a~b").left[0].weight.grad.abs().sum() > 0
    assert made.task_heads["a"][0].weight.grad.abs().sum() > 0


def test_canonical_heads_leave_training_alone():
    seen, moved = inputs(("a", "b"), 2), {}
    for heads in ("published", "canonical"):
        torch.manual_seed(0)
        made = objective(heads=heads)
        moved[heads] = made.terms(seen, 0).total
    assert torch.equal(*moved.values())
    split = made.canonical["a~b"]
    assert split.weight > 0
    before = split.square.clone()
    made.eval().terms(seen, 0)
    assert torch.equal(split.square, before)
    found = made.factors(seen)
    assert [sum(found[f"{kind}/a~b/{n}"].shape[1] for kind in ("shared", "unique")) for n in "ab"] == [
        seen.shared[0]["a"].z.shape[1]
    ] * 2


def test_what_cannot_be_is_refused():
    with pytest.raises(BadInput, match="needs a label"):
        FactorCLConfig.parse({"conditional": "within_class"})
    with pytest.raises(BadInput, match="trains nothing"):
        FactorCLConfig.parse({"heads": "canonical", "align": 1.0})
    model = build_model(THREE)
    bare = Model(dict(model.modalities), model.config.replace(unique=0))
    with pytest.raises(BadInput, match=r"model\.unique"):
        FactorCLConfig(readout="factors").build(bare)


# -- more than two -----------------------------------------------------------------------------------------------------


def test_two_modalities_are_the_pair_whatever_the_structure():
    seen = inputs(("a", "b"), 2)
    rest, pairs = (objective(structure=s).terms(seen, 0) for s in ("rest", "pairs"))
    assert {n: float(t.value) for n, t in rest.terms.items()} == {n: float(t.value) for n, t in pairs.terms.items()}


def test_terms_of_three():
    names = ("a", "b", "c")
    seen = inputs(names, 2)
    rest, pairs = (objective(names, structure=s).terms(seen, 0).terms for s in ("rest", "pairs"))
    assert set(rest) == {f"{f}/{n}" for f in (*FAMILIES, "task") for n in names}
    assert set(pairs) == {f"{f}/{p}" for f in FAMILIES for p in ("a~b", "a~c", "b~c")} | {f"task/{n}" for n in names}


def test_the_rest_of_a_row_is_what_the_row_has():
    names = ("a", "b", "c")
    present = {"a": torch.ones(ROWS, dtype=torch.bool), "b": torch.arange(ROWS) < 5, "c": torch.arange(ROWS) < 2}
    view = vectors(names, 1, present=present)[0]
    made = objective(names, context="all").rests["shared"]
    assert made("a", view, torch.arange(ROWS), 0).present.tolist() == [True] * 5 + [False] * 5
    # what stands in an absent modality's place is not read
    dirty = {**view, "b": Embedded(torch.where(present["b"][:, None], view["b"].z, 99.0), present["b"])}
    for n in ("a", "c"):
        one, other = (made(n, v, torch.arange(ROWS), 0) for v in (view, dirty))
        assert torch.equal(one.z[one.present], other.z[one.present])


def test_contexts():
    names = ("a", "b", "c", "d")
    keys = torch.arange(4000)
    there = {n: torch.ones(4000, dtype=torch.bool) for n in names}
    shown = {}
    for context in ("all", "sampled", "random_order"):
        made = objective(names, context=context).rests["shared"]
        shown[context] = {n: made._shown(n, {k: v for k, v in there.items() if k != n}, keys, 5) for n in names}
    counts = {c: torch.stack(list(s["a"].values())).sum(0) for c, s in shown.items()}
    assert set(counts["all"].tolist()) == {3}
    share = [float((counts["sampled"] == k).float().mean()) for k in range(4)]
    assert share[0] == 0
    assert share[3] == pytest.approx(0.5 + 0.5 / 4, abs=0.03)  # the one that is always kept, and two that are drawn
    # in a random order every place is as likely, and a is before b or b before a
    share = [float((counts["random_order"] == k).float().mean()) for k in range(4)]
    assert share == pytest.approx([0.25] * 4, abs=0.03)
    assert torch.equal(shown["random_order"]["a"]["b"], ~shown["random_order"]["b"]["a"])
    # a row's context is its own: other rows do not change it
    made = objective(names).rests["shared"]
    few = made._shown("a", {k: v[7:9] for k, v in there.items() if k != "a"}, keys[7:9], 5)
    assert all(torch.equal(few[n], shown["sampled"]["a"][n][7:9]) for n in few)


def test_permuted_modalities_have_permuted_terms():
    names, order = ("a", "b", "c"), ("c", "a", "b")
    made, other = objective(names), objective(order)
    other.load_state_dict(made.state_dict())
    seen = inputs(names, 2)
    turned = Inputs(
        [{n: v[n] for n in order} for v in seen.shared],
        [{n: v[n] for n in order} for v in seen.unique],
        seen.keys,
        seen.labels,
    )
    one, two = made.terms(seen, 3).terms, other.terms(turned, 3).terms
    assert set(one) == set(two)
    for name, term in one.items():
        assert float(term.value) == pytest.approx(float(two[name].value), abs=1e-5), name


# -- critics take turns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic", [SMALL, CONCAT], ids=["dot", "concat"])
def test_the_step_moves_no_club_critic_and_the_critics_step_nothing_else(critic):
    made = objective(critic=critic)
    mine = {id(p) for p in made.critic_parameters()}
    assert mine
    seen = inputs(("a", "b"), 2)
    source = [p for v in seen.shared for p in (e.z.requires_grad_() for e in v.values())]
    made.terms(seen, 0).total.backward()
    assert all(p.grad is None for p in made.critic_parameters())
    heads = made._link("club", "a~b").left[0].weight
    assert heads.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in source)
    made.zero_grad(set_to_none=True)
    for p in source:
        p.grad = None
    made.critic_terms(seen, 0).total.backward()
    assert all(p.grad is None for p in made.parameters() if id(p) not in mine)
    assert all(p.grad is not None for p in made.critic_parameters())
    assert all(p.grad is None for p in source)


def test_critics_learn_to_see_what_there_is():
    made = objective(critic_steps=1)
    seen = inputs(("a", "b"), 2)
    optimizer = torch.optim.Adam(made.critic_parameters(), lr=1e-2)
    values = []
    for _ in range(300):
        optimizer.zero_grad()
        total = made.critic_terms(seen, 0).total
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.5 * values[0]


# -- in a model --------------------------------------------------------------------------------------------------------

HOLES = [THREE, ("text",), ("table", "features"), ("features",), THREE, ("text", "table"), THREE, ("text", "table")]
Y = torch.tensor([5, 5, 7, 7, 5, 7, -1, 5])
VARIANTS = {
    "pairs": {"structure": "pairs"},
    "kernel": {"conditional": "kernel"},
    "random order": {"context": "random_order"},
    "factors": {"readout": "factors", "align": 1.0, "separate": 1.0},
    "hsic": {"align": 1.0, "separate": 1.0, "penalty": "hsic", "heads": "core", "two_step": False},
    "canonical": {"heads": "canonical"},
    "concat critic": {"critic": CONCAT},
    "supervised": {"label": "colour"},
    "within class": {"label": "colour", "conditional": "within_class"},
    "labelled kernel": {"label": "colour", "conditional": "kernel", "structure": "pairs"},
}


@pytest.mark.parametrize("stages", [("towers",), ("trunk", "towers")], ids="+".join)
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_keeps_absence(fields, stages):
    model = build_model(THREE, stages)
    made = build_objective("factorcl", model, **fields)
    batch = replace(make_batch(model, HOLES), labels=Y) if made.label else make_batch(model, HOLES)
    grads, terms = gradients(model, made, batch)
    assert all(g.isfinite().all() for g in grads.values())
    assert sum(count > 0 for _, count in terms.values()) > len(terms) / 2
    for name, (value, count) in terms.items():
        sides = name.partition("/")[2].split("~")
        keep = [row for row, has in enumerate(HOLES) if any(s in has for s in sides)]
        fewer = select(batch, keep)
        fewer = replace(fewer, labels=Y[keep]) if made.label else fewer
        with torch.no_grad():
            again = made(model, [fewer] * made.views, 3).terms[name]
        assert int(again.count) == count, name
        assert float(again.value) == pytest.approx(value, abs=1e-5), name
    if made.label:
        unknown = replace(batch, labels=torch.full_like(Y, -1))
        _, without = gradients(model, made, unknown)
        for name, (value, count) in without.items():
            needs = name.startswith(("task", "club_given", "cross_given"))
            assert (count == 0 and value == 0.0) if needs else (value, count) == terms[name]


def test_labels_never_reach_the_model():
    model = build_model(THREE)
    batch = make_batch(model, HOLES)
    vectors_of = [model.embeddings(model.encode(model.tokenize(b))) for b in (batch, replace(batch, labels=Y))]
    assert all(torch.equal(vectors_of[0][n].z, vectors_of[1][n].z) for n in vectors_of[0])


@pytest.mark.parametrize("readout", ["encoder", "factors"])
def test_readouts_train_what_they_say(readout):
    model = build_model(THREE, ("towers", "trunk"))
    made = build_objective("factorcl", model, readout=readout)
    assert made.trains_unique == (readout == "factors")
    grads, _ = gradients(model, made, make_batch(model, [THREE] * 5))
    blocks = [g for n, g in grads.items() if n.startswith("0.uniques.")]
    assert blocks
    assert all(g.abs().sum() > 0 for g in blocks) == (readout == "factors")


def test_a_trunk_first_reads_each_modality_alone():
    """A vector that has seen the others would share everything with them."""
    model = build_model(("text", "table"), ("trunk",)).eval()
    made = build_objective("factorcl", model)
    batch = make_batch(model, [("text", "table")] * 4)
    inner, embedded = made._read(model, [batch, batch])
    alone = model.embeddings(model.encode(model.tokenize(batch.only(["text"]))))["text"]
    assert torch.allclose(embedded["text"].z, alone.z, atol=1e-6)
    mixed = model.embeddings(model.encode(model.tokenize(batch)))
    assert not torch.allclose(embedded["text"].z, mixed["text"].z, atol=1e-3)
    assert torch.allclose(embedded["item"].z, mixed["item"].z, atol=1e-6)
    assert torch.allclose(inner.shared[0]["text"].z, alone.z * 12**0.5, atol=1e-5)
