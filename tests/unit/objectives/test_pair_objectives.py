"""CLIP, SigLIP, SimCLR, SupCon and Cross+Self: equal to their published forms, and every field of theirs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from support import build_model, build_objective, make_batch, select
from torch.nn import functional as F

from polymodal.losses.contrastive import pairwise_contrast
from polymodal.objective import Alone
from polymodal.tensors import Embedded
from polymodal.types import BadInput

KINDS = ("text", "table", "features")
FULL = [KINDS] * 6
HOLES = [KINDS, KINDS, ("text",), ("table", "features"), ("text", "features"), KINDS, ("features",), ("text", "table")]


def world(kind, rows=FULL, kinds=KINDS, stages=("towers",), groups=None, **fields):
    model = build_model(kinds, stages)
    return model, build_objective(kind, model, **fields), make_batch(model, rows, groups=groups)


def vectors(model, batch):
    with torch.no_grad():
        return model.embeddings(model.encode(model.tokenize(batch)))


def values(objective, model, batches, seed=0):
    with torch.no_grad():
        losses = objective(model, batches if isinstance(batches, list) else [batches] * objective.views, seed)
    return {n: (float(t.value), int(t.count)) for n, t in losses.terms.items()}, losses


# -- CLIP --------------------------------------------------------------------------------------------------------------


def test_clip_is_clip_on_complete_rows():
    model, objective, batch = world("clip", kinds=("text", "features"), rows=[("text", "features")] * 6)
    z = vectors(model, batch)
    logits, at = z["text"].z @ z["features"].z.T / 0.07, torch.arange(6)
    published = (F.cross_entropy(logits, at) + F.cross_entropy(logits.T, at)) / 2
    terms, losses = values(objective, model, batch)
    assert set(terms) == {"contrast/text~features"}
    assert float(losses.total) == pytest.approx(float(published), abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "pairs"),
    [
        ({}, ["text~table", "text~features", "table~features"]),
        ({"graph": "anchor"}, ["text~table", "text~features"]),
        ({"graph": "anchor", "anchor": "table"}, ["text~table", "table~features"]),
        ({"graph": "chain"}, ["text~table", "table~features"]),
    ],
)
@pytest.mark.parametrize("kind", ["clip", "siglip", "supcon", "cross_self"])
def test_the_graph_says_which_pairs(kind, fields, pairs):
    model, objective, batch = world(kind, HOLES, **fields)
    family = "sigmoid" if kind == "siglip" else "contrast"
    terms, losses = values(objective, model, batch)
    found = [name for name in terms if name.startswith(family)]
    assert found == [f"{family}/{pair}" for pair in pairs]
    assert {losses.weights[name] for name in found} == {1 / len(pairs)}


def test_an_edge_is_the_same_in_every_graph():
    found = [values(*(w := world("clip", HOLES, graph=g))[1::-1], w[2])[0] for g in ("full", "anchor", "chain")]
    for graph in found[1:]:
        assert all(found[0][name] == pytest.approx(value, rel=1e-6) for name, value in graph.items())


@pytest.mark.parametrize("kind", ["clip", "siglip", "supcon", "cross_self", "symile", "confu", "gram"])
def test_what_cannot_be_built_is_refused(kind):
    with pytest.raises(BadInput, match="at least two"):
        build_objective(kind, build_model(("text",)))
    if kind not in ("symile", "confu"):
        with pytest.raises(BadInput, match="Did you mean 'text'"):
            build_objective(kind, build_model(KINDS), anchor="texts")


@pytest.mark.parametrize("kind", ["clip", "confu", "gram", "symile", "cross_self"])
def test_the_scale_is_learnt_and_capped(kind):
    model, objective, batch = world(kind)
    objective.log_scale.data.fill_(9.0)
    capped, _ = values(objective, model, batch, 3)
    objective.log_scale.data.fill_(math.log(100.0))
    assert values(objective, model, batch, 3)[0] == capped
    fixed = build_objective(kind, model, learn_temperature=False)
    assert not fixed.log_scale.requires_grad
    assert objective.log_scale.requires_grad


@pytest.mark.parametrize("kind", ["clip", "siglip", "simclr", "cross_self", "comm", "confu", "gram"])
def test_siblings_are_no_negatives(kind):
    """Two rows of one group: with the field they do not push one another, so the loss is smaller; without it is not."""
    model, on, batch = world(kind, groups=[0, 0, 1, 2, 3, 4])
    off = build_objective(kind, model, false_negatives=False)
    off.load_state_dict(on.state_dict())
    alone = replace(batch, groups=batch.keys)
    with_groups, without = values(on, model, batch)[0], values(on, model, alone)[0]
    assert values(off, model, batch)[0] == without
    first = next(iter(without))
    assert with_groups[first][0] < without[first][0]
    repeated = replace(alone, digests={n: d.clone().fill_(5) for n, d in alone.digests.items()})
    assert values(on, model, repeated)[0][first][0] < without[first][0]


@pytest.mark.parametrize("kind", ["clip", "siglip", "simclr", "supcon", "cross_self", "symile", "confu", "gram"])
@pytest.mark.parametrize("stages", [("towers",), ("towers", "trunk")], ids="+".join)
def test_the_item_vector_is_trained_where_it_is_more_than_a_mean(kind, stages):
    model, objective, batch = world(kind, HOLES, stages=stages)
    without = build_objective(kind, model, fusion_weight=0.0)
    item = {n for n in values(objective, model, batch)[0] if n.split("/")[0] in ("fusion", "joint", "fused")}
    assert (len(item) == 3) == ("trunk" in stages)
    assert not {n for n in values(without, model, batch)[0] if n.split("/")[0] in ("fusion", "joint", "fused")}


# -- SigLIP ------------------------------------------------------------------------------------------------------------


def test_siglip_is_siglip_on_complete_rows():
    model, objective, batch = world("siglip", kinds=("text", "features"), rows=[("text", "features")] * 6)
    z = vectors(model, batch)
    labels = 2 * torch.eye(6) - 1
    published = -F.logsigmoid(labels * (z["text"].z @ z["features"].z.T * 10 - 10)).sum() / 6
    assert float(values(objective, model, batch)[1].total) == pytest.approx(float(published), rel=1e-5)


def test_siglip_divides_by_rows_that_have_both_or_by_the_batch():
    model, present, batch = world("siglip", HOLES)
    published = build_objective("siglip", model, normalise="batch")
    chunked = build_objective("siglip", model, chunk=3)
    ours, theirs = values(present, model, batch)[0], values(published, model, batch)[0]
    assert {n: c for n, (_, c) in ours.items()} == {
        "sigmoid/text~table": 4,
        "sigmoid/text~features": 4,
        "sigmoid/table~features": 4,
    }
    for name, (value, count) in ours.items():
        assert theirs[name] == (pytest.approx(value * count / 8, rel=1e-6), 8)
    assert values(chunked, model, batch)[0] == {n: (pytest.approx(v, rel=1e-6), c) for n, (v, c) in ours.items()}


# -- views -------------------------------------------------------------------------------------------------------------


def two_views(model, rows):
    """The same rows with other content: what augmentation makes of them, only stronger."""
    first, second = make_batch(model, rows, seed=1), make_batch(model, rows, seed=2)
    return [first, replace(second, ids=first.ids, keys=first.keys, groups=first.groups, digests=first.digests)]


def test_simclr_is_simclr_per_modality():
    model, objective, _ = world("simclr", head=0)
    views = two_views(model, FULL)
    a, b = (vectors(model, view)["text"].z for view in views)
    both, losses = torch.cat([a, b]), []
    for k in range(12):
        logits = torch.stack([both[k] @ both[g] / 0.1 for g in range(12) if g != k])
        losses.append(logits.logsumexp(0) - both[k] @ both[(k + 6) % 12] / 0.1)
    terms, _ = values(objective, model, views)
    assert set(terms) == {"within/text", "within/table", "within/features"}
    assert terms["within/text"] == (pytest.approx(float(torch.stack(losses).mean()), abs=1e-5), 12)


def test_simclr_across_is_symmetric_in_the_views():
    model, objective, _ = world("simclr", across=True)
    views = two_views(model, HOLES)
    there, back = values(objective, model, views)[0], values(objective, model, views[::-1])[0]
    assert {n for n in there if n.startswith("across/")} == {
        f"across/{a}~{b}" for a, b in itertools.combinations(KINDS, 2)
    }
    for name, (value, count) in there.items():
        assert back[name] == (pytest.approx(value, rel=1e-5), count)
    a, b = (vectors(model, view) for view in views)
    both = a["text"].present & a["table"].present
    pair = []
    for x, y in ((a, b), (b, a)):
        z = [objective.heads[n](Embedded(v[n].z, both), Alone()).z for n, v in (("text", x), ("table", y))]
        pair.append(pairwise_contrast(torch.stack(z), torch.stack([both, both]), 10.0, negatives="both")[0, 1].value)
    assert there["across/text~table"][0] == pytest.approx(float(sum(pair).detach()) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["simclr", "cross_self"])
def test_a_term_is_that_of_the_rows_it_counts(kind):
    """Also through the batch normalisation of the heads: rows without a modality, or without one of two, change no
    statistics of a term that does not count them."""
    fields = {"across": True} if kind == "simclr" else {}
    model, objective, _ = world(kind, HOLES, stages=("towers", "trunk"), **fields)
    views = two_views(model, HOLES)
    terms, _ = values(objective, model, views)
    for name in [n for n in terms if n.split("/")[0] in ("within", "across", "fused")]:
        asked = name.partition("/")[2].split("~")
        rows = [at for at, row in enumerate(HOLES) if set(asked) <= set(row)]
        alone, _ = values(objective, model, [select(view, rows) for view in views])
        assert alone[name] == (pytest.approx(terms[name][0], rel=1e-4), terms[name][1])


@pytest.mark.parametrize("kind", ["simclr", "cross_self"])
def test_the_norm_of_the_head_is_a_field(kind):
    model, batch_norm, batch = world(kind)
    layer = build_objective(kind, model, head_norm="layer")
    assert dict(batch_norm.named_buffers())
    assert not dict(layer.named_buffers())
    assert values(layer, model, batch)[0]["within/text"] != values(batch_norm, model, batch)[0]["within/text"]


def test_heads_are_optional_and_belong_to_the_objective():
    for kind in ("simclr", "cross_self"):
        model, objective, batch = world(kind)
        without = build_objective(kind, model, head=0)
        assert len(list(objective.parameters())) > len(list(without.parameters()))
        assert values(objective, model, batch)[0]["within/text"] != values(without, model, batch)[0]["within/text"]


def test_cross_self_is_the_sum_of_its_parts():
    model, objective, _ = world("cross_self", HOLES, head=0, self_weight=0.5)
    views = two_views(model, HOLES)
    terms, losses = values(objective, model, views)
    clip, simclr = build_objective("clip", model), build_objective("simclr", model, head=0)
    each = [values(clip, model, view)[0] for view in views]
    for name in each[0]:
        assert terms[name][0] == pytest.approx((each[0][name][0] + each[1][name][0]) / 2, rel=1e-5)
    within = values(simclr, model, views)[0]
    assert {n: v for n, v in terms.items() if n.startswith("within")} == {
        n: (pytest.approx(v, rel=1e-6), c) for n, (v, c) in within.items()
    }
    mean = sum((each[0][n][0] + each[1][n][0]) / 2 for n in each[0]) / 3 + 0.5 * sum(v for v, _ in within.values()) / 3
    assert float(losses.total) == pytest.approx(mean, rel=1e-5)


# -- SupCon ------------------------------------------------------------------------------------------------------------


def test_supcon_pulls_a_group_together():
    model, objective, batch = world("supcon", kinds=("text", "features"), rows=[("text", "features")] * 6)
    grouped = replace(batch, groups=torch.tensor([1, 1, 2, 2, 3, 4]))
    z = vectors(model, batch)
    views, classes = torch.cat([z["text"].z, z["features"].z]), grouped.groups.repeat(2)
    losses = []
    for k in range(12):
        others = [g for g in range(12) if g != k]
        log = torch.stack([views[k] @ views[g] * 10 for g in others]).log_softmax(0)
        losses.append(-log[torch.tensor([at for at, g in enumerate(others) if classes[g] == classes[k]])].mean())
    terms, _ = values(objective, model, grouped)
    assert terms["contrast/text~features"] == (pytest.approx(float(torch.stack(losses).mean()), abs=1e-5), 12)


def test_supcon_without_groups_and_across_is_clip():
    model, objective, batch = world("supcon", HOLES, candidates="cross")
    clip = build_objective("clip", model, temperature=0.1, false_negatives=False)
    want = values(clip, model, batch)[0]
    assert values(objective, model, batch)[0] == {n: (pytest.approx(v, rel=1e-5), c) for n, (v, c) in want.items()}


def test_supcon_reads_the_label_it_was_told_of():
    model, objective, batch = world("supcon", label="category")
    assert objective.label == "category"
    labels = torch.tensor([0, 0, 1, -1, -1, 2])
    labelled = replace(batch) if hasattr(batch, "labels") else batch
    object.__setattr__(labelled, "labels", labels)  # as the loader fills it
    as_groups = replace(batch, groups=torch.where(labels >= 0, labels, batch.keys))
    want = values(build_objective("supcon", model), model, as_groups)[0]
    assert values(objective, model, labelled)[0] == want
    assert want != values(build_objective("supcon", model), model, batch)[0]


def test_rows_without_a_modality_are_no_part_of_its_terms():
    """Every pair's term is that of the rows that have both, alone."""
    for kind, family in (
        ("clip", "contrast"),
        ("siglip", "sigmoid"),
        ("supcon", "contrast"),
        ("cross_self", "contrast"),
    ):
        model, objective, batch = world(kind, HOLES)
        terms, _ = values(objective, model, batch)
        for a, b in itertools.combinations(KINDS, 2):
            rows = [at for at, row in enumerate(HOLES) if a in row and b in row]
            alone, _ = values(objective, model, select(batch, rows))
            name = f"{family}/{a}~{b}"
            assert terms[name] == (pytest.approx(alone[name][0], rel=1e-5), alone[name][1])
