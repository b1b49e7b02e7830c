"""CoMM with InfMasking, Symile, ConFu and GRAM: by brute force on small batches, and every field of theirs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from support import build_model, build_objective, make_batch, select
from torch.nn import functional as F

from polymodal import presence
from polymodal.losses.contrastive import contrast
from polymodal.losses.ntxent import nt_xent
from polymodal.model import ITEM
from polymodal.objective import Alone

KINDS = ("text", "table", "features")
FULL = [KINDS] * 6
HOLES = [KINDS, KINDS, ("text",), ("table", "features"), ("text", "features"), KINDS, ("features",), ("text", "table")]
ORDERS = [("towers",), ("trunk",), ("towers", "trunk"), ("trunk", "towers")]


def world(kind, rows=FULL, stages=("towers",), **fields):
    model = build_model(KINDS, stages)
    return model, build_objective(kind, model, **fields), make_batch(model, rows)


def vectors(model, batch):
    with torch.no_grad():
        return model.embeddings(model.encode(model.tokenize(batch)))


def values(objective, model, views, seed=0):
    with torch.no_grad():
        losses = objective(model, views if isinstance(views, list) else [views] * objective.views, seed)
    return {n: (float(t.value), int(t.count)) for n, t in losses.terms.items()}, losses


def two_views(model, rows):
    first, second = make_batch(model, rows, seed=1), make_batch(model, rows, seed=2)
    return [first, replace(second, ids=first.ids, keys=first.keys, groups=first.groups, digests=first.digests)]


# -- what the model makes of a subset ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", ORDERS, ids="+".join)
def test_seen_by_is_the_model_on_the_subset(stages):
    model, _, batch = world("clip", HOLES, stages)
    encoded = model.encode(model.tokenize(batch))
    for subset in (("text",), ("table", "features")):
        seen = model.embeddings(model.seen_by(encoded, partial(presence.keep_only, names=subset)), [ITEM])[ITEM]
        alone = vectors(model, batch.only(subset))[ITEM]
        assert torch.equal(seen.present, alone.present)
        assert torch.allclose(seen.z, alone.z, atol=1e-6)


# -- CoMM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", ORDERS, ids="+".join)
def test_comm_is_the_published_mean_on_complete_rows(stages):
    model, objective, _ = world("comm", stages=stages, false_negatives=False)
    views, modalities = two_views(model, FULL), len(KINDS)
    with torch.no_grad():
        star = [objective.head(model.shared(vectors(model, view)[ITEM]), Alone()) for view in views]
        total = nt_xent(star[0], star[1], 10.0, Alone()).value
        for m in KINDS:
            alone = [objective.head(model.shared(vectors(model, view.only([m]))[ITEM]), Alone()) for view in views]
            total += nt_xent(alone[0], star[1], 10.0, Alone()).value / 2
            total += nt_xent(alone[1], star[0], 10.0, Alone()).value / 2
    terms, losses = values(objective, model, views)
    comm = sum(t[0] * losses.weights[n] for n, t in terms.items() if n.split("/")[0] in ("alone", "fused"))
    assert comm == pytest.approx(float(total) / (modalities + 1), rel=1e-5)
    assert len({v for n, v in terms.items() if n.startswith("fused/")}) == 1
    summed = build_objective("comm", model, reduce="sum", false_negatives=False)
    summed.load_state_dict(objective.state_dict())
    terms, losses = values(summed, model, views)
    assert sum(
        t[0] * losses.weights[n] for n, t in terms.items() if n.split("/")[0] in ("alone", "fused")
    ) == pytest.approx(float(total), rel=1e-5)


def test_comm_counts_the_rows_that_have_the_modality():
    model, objective, batch = world("comm", HOLES, ("towers", "trunk"), masks=2)
    terms, _ = values(objective, model, batch)
    for m in KINDS:
        rows = [at for at, row in enumerate(HOLES) if m in row]
        alone, _ = values(objective, model, select(batch, rows))
        for family, each in (("alone", 2), ("fused", 2), ("infmask", 1)):
            name = f"{family}/{m}"
            assert terms[name][1] == each * len(rows)
            assert terms[name] == (pytest.approx(alone[name][0], rel=1e-4), alone[name][1])


def test_comm_reads_out_without_touching_what_it_reads():
    model, objective, batch = world("comm", HOLES, ("towers", "trunk"))
    losses = objective(model, [batch, batch], 0)
    sum(t.value for n, t in losses.terms.items() if n.startswith("fusion/")).backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved
    assert all(n.startswith(tuple(f"projections.{m}." for m in KINDS)) for n in moved)
    assert not {n for n in values(build_objective("comm", model, readout_weight=0.0), model, batch)[0] if "fusion" in n}


def test_infmasking_hides_tokens_and_leaves_one_of_each():
    model, objective, batch = world("comm", HOLES, ("towers", "trunk"), masks=3, mask_ratio=0.99)
    parts = model.tokenize(batch)
    left = objective._thin(parts, batch, 7)
    for name, tokens in parts.items():
        assert torch.equal(left[name].valid.any(1), tokens.valid.any(1))
        assert not (left[name].valid & ~tokens.valid).any()
    assert sum(int(t.valid.sum()) for t in left.values()) < sum(int(t.valid.sum()) for t in parts.values())
    again, other = objective._thin(parts, batch, 7), objective._thin(parts, batch, 8)
    assert all(torch.equal(left[n].valid, again[n].valid) for n in parts)
    assert any(not torch.equal(left[n].valid, other[n].valid) for n in parts)
    whole = build_objective("comm", model, masks=0)
    assert not {n for n in values(whole, model, batch)[0] if n.startswith("infmask")}


# -- Symile ------------------------------------------------------------------------------------------------------------


def mip(*z: torch.Tensor) -> float:
    out = torch.ones_like(z[0].double())
    for part in z:
        out = out * part.double()
    return float(out.sum())


@pytest.mark.parametrize("shuffles", [1, 3])
def test_symile_by_brute_force(shuffles):
    from polymodal.draws import seed_of
    from polymodal.losses.multilinear import shuffled_rows

    model, objective, batch = world("symile", HOLES, shuffles=shuffles)
    found, missing = vectors(model, batch), {n: F.normalize(p.detach(), dim=0) for n, p in objective.missing.items()}

    def vector(m, row):
        return found[m].z[row] if found[m].present[row] else missing[m]

    terms, _ = values(objective, model, batch, seed=5)
    scale = float(objective.log_scale.detach().exp()) * 12**0.5
    for m in KINDS:
        rest = [n for n in KINDS if n != m]
        rows = [at for at, row in enumerate(HOLES) if m in row and len(row) > 1]
        eligible = torch.tensor([at in rows for at in range(len(HOLES))])
        losses = []
        for b in rows:
            positive = scale * mip(vector(m, b), *(vector(n, b) for n in rest))
            logits = [positive]
            for s in range(shuffles):
                partners = shuffled_rows(batch.keys, eligible, rest, seed_of(5, "symile", m, s)).tolist()
                for g in rows:
                    held = [(n, partners[at][g]) for at, n in enumerate(rest)]
                    own = all(r == b or not (found[n].present[r] or found[n].present[b]) for n, r in held)
                    if g != b and not own:
                        logits.append(scale * mip(vector(m, b), *(vector(n, r) for n, r in held)))
            losses.append(math.log(sum(math.exp(x - positive) for x in logits)))
        assert terms[f"symile/{m}"] == (pytest.approx(sum(losses) / len(losses), abs=1e-4), len(rows))


def test_symile_reaches_one_whatever_the_width():
    """Equal vectors of equal entries: the rescaled product of any number of them is 1, as a cosine is."""
    for modalities, width in itertools.product((2, 3, 5), (4, 16)):
        z = torch.full((width,), width**-0.5)
        assert mip(*[z] * modalities) * width ** ((modalities - 2) / 2) == pytest.approx(1.0, rel=1e-6)
    model, objective, _ = world("symile")
    assert objective.unit == pytest.approx(12**0.5)
    assert build_objective("symile", model, rescale=False).unit == 1.0


def test_symile_learns_what_stands_for_a_missing_modality():
    model, objective, batch = world("symile", HOLES)
    objective(model, [batch], 0).total.backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.missing.values())
    complete = make_batch(model, FULL)
    objective.zero_grad()
    objective(model, [complete], 0).total.backward()
    assert all(p.grad.abs().sum() == 0 for p in objective.missing.values())


# -- ConFu -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", ["mlp", "model"])
@pytest.mark.parametrize("stages", ORDERS, ids="+".join)
def test_confu_is_pairs_and_subsets_against_what_is_held_out(fuse, stages):
    model, objective, batch = world("confu", HOLES, stages, fuse=fuse, balance=0.25, fusion_weight=0.0)
    terms, losses = values(objective, model, batch)
    found = vectors(model, batch)
    for m in KINDS:
        rest = [n for n in KINDS if n != m]
        if fuse == "model":
            fused = model.shared(vectors(model, batch.only(rest))[ITEM])
        else:
            z, present = (torch.stack([getattr(found[n], what) for n in KINDS]) for what in ("z", "present"))
            present[KINDS.index(m)] = False
            with torch.no_grad():
                fused = objective.fuse(torch.where(present[..., None], z, torch.nan), present)
        want = contrast(fused.z, fused.present & found[m].present, found[m].z, found[m].present, 1 / 0.07)
        rows = sum(m in row and len(row) > 1 for row in HOLES)
        assert int(want.count) == 2 * rows
        # the way back has the rows with both sides as candidates
        both = fused.present & found[m].present
        want = contrast(fused.z, both, found[m].z, found[m].present, 1 / 0.07, all_anchors=fused.z, all_present=both)
        assert terms[f"heldout/{m}"] == (pytest.approx(float(want.value), abs=1e-4), 2 * rows)
    clip = values(build_objective("clip", model, fusion_weight=0.0), model, batch)[0]
    assert {n: v for n, v in terms.items() if n.startswith("contrast")} == clip
    mean = 0.75 * sum(v for v, _ in clip.values()) / 3
    mean += 0.25 * sum(v for n, (v, _) in terms.items() if n.startswith("heldout")) / 3
    assert float(losses.total) == pytest.approx(mean, rel=1e-5)


def test_confu_knows_which_subset_it_fused():
    """A missing modality and one whose vector is zero are two things."""
    _, objective, _ = world("confu")
    z = torch.randn(3, 1, 12)
    z[2] = 0
    present = torch.ones(3, 1).bool()
    full = objective.fuse(z, present).z
    present[2] = False
    assert not torch.allclose(full, objective.fuse(z, present).z)
    assert float(objective.fuse(z, torch.zeros(3, 1).bool()).z.abs().sum()) == 0


# -- GRAM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["log", "volume"])
def test_gram_by_determinants(form):
    model, objective, batch = world("gram", HOLES, form=form)
    found = {n: e.z.double() for n, e in vectors(model, batch).items()}
    terms, _ = values(objective, model, batch)
    for m in KINDS:
        rest = {at: [n for n in row if n != m] for at, row in enumerate(HOLES) if m in row and len(row) > 1}

        def score(a, t, m=m, rest=rest):
            v = torch.stack([found[m][a], *(found[n][t] for n in KINDS if n in rest[t])])
            log = float(torch.logdet(v @ v.T + 1e-3 * torch.eye(len(v)))) / 2
            return -(log if form == "log" else math.exp(log)) / 0.07

        losses = []
        for b in rest:
            alike = [g for g in rest if set(rest[g]) == set(rest[b])]
            losses.append(torch.tensor([score(b, g) for g in alike]).logsumexp(0) - score(b, b))
            losses.append(torch.tensor([score(g, b) for g in rest]).logsumexp(0) - score(b, b))
        assert terms[f"volume/{m}"] == (pytest.approx(float(sum(losses)) / len(losses), abs=2e-3), 2 * len(rest))


def test_gram_with_one_anchor():
    model, objective, batch = world("gram", HOLES, anchor="table")
    every = values(build_objective("gram", model), model, batch)[0]
    terms, losses = values(objective, model, batch)
    assert terms == {"volume/table": every["volume/table"]}
    assert float(losses.total) == pytest.approx(terms["volume/table"][0], rel=1e-6)
