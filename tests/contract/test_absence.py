"""The four properties of absence, over every modality, objective and stage order, and all 31 subsets of five."""

import itertools
import re

import pytest
import torch
from support import (
    FIVE,
    KINDS,
    OBJECTIVE_CONFIGS,
    STAGE_ORDERS,
    SUBSETS,
    build_model,
    build_objective,
    garbage,
    gradients,
    make_batch,
    normalises_by_batch,
    pad,
    select,
)

from polymodal.losses.harmonise import harmonise

FURTHER = tuple(kind for kind in KINDS if kind not in FIVE)
ALONE = [row for kind in FURTHER for row in ((kind,), ("text", kind))]
ROWS = [*SUBSETS[::3], *ALONE, FIVE, ("image", "text"), ("image", "text", "audio", *FURTHER)]
CASES = list(itertools.product(OBJECTIVE_CONFIGS, STAGE_ORDERS))


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{'+'.join(c[1])}")
def world(request):
    kind, stages = request.param
    model = build_model(KINDS, stages)
    return model, build_objective(kind, model), make_batch(model, ROWS)


@pytest.fixture(scope="module", params=STAGE_ORDERS, ids="+".join)
def model(request):
    return build_model(KINDS, request.param).eval()


def _vectors(model, batch):
    with torch.no_grad():
        return model.embeddings(model.encode(model.tokenize(batch)))


def alike(first, second, objective):
    """Equal but for the order of summation, relative to the largest gradient there is."""
    largest = max(1.0, *(float(g.abs().max()) for g in first.values()))
    room = 1e-5 if normalises_by_batch(objective) else 1e-6
    return all(torch.allclose(first[n], second[n], rtol=1e-5, atol=room * largest) for n in first)


def test_never_read(world):
    model, objective, batch = world
    clean, terms = gradients(model, objective, batch)
    for seed in (1, 2):
        dirty, again = gradients(model, objective, garbage(batch, seed))
        assert again == terms
        assert all(torch.equal(clean[name], dirty[name]) for name in clean)


def test_not_in_schema(world):
    model, objective, _ = world
    for absent in model.names:
        rows = [[m for m in row if m != absent] for row in ROWS]
        rows = [row for row in rows if row]
        without = make_batch(model, rows)
        assert absent not in without.cells
        full = make_batch(model, [*rows, [absent]])
        inside = select(full, range(len(rows)))  # the schema has it, no row does
        assert absent in inside.cells
        assert not inside.cells[absent].valid.any()
        grads, terms = gradients(model, objective, without)
        grads_in, terms_in = gradients(model, objective, inside)
        for name, (value, count) in terms_in.items():
            if absent in re.split("[/~]", name)[1:]:
                assert (value, count) == (0.0, 0), name
                assert terms.get(name, (0.0, 0)) == (0.0, 0)
            else:
                assert terms[name][1] == count
                assert terms[name][0] == pytest.approx(value, abs=1e-6, rel=1e-6), name
        assert alike(grads, grads_in, objective)


def test_deletion(world):
    model, objective, batch = world
    present = {name: cells.present.tolist() for name, cells in batch.cells.items()}
    _, terms = gradients(model, objective, batch)
    for name, (value, count) in terms.items():
        sides = re.split("[/~]", name)[1:]
        keep = [row for row in range(len(batch)) if any(present[side][row] for side in sides)]
        assert len(keep) < len(batch)
        with torch.no_grad():
            fewer = objective(model, [select(batch, keep)] * objective.views, 3).terms[name]
        assert int(fewer.count) == count, name
        assert float(fewer.value) == pytest.approx(value, abs=2e-6, rel=1e-5), name


def test_every_row_counts_once_it_has_what_a_term_needs(world):
    """The counts themselves: a term that counts rows or pairs counts exactly those that have its sides."""
    model, objective, batch = world
    present = {name: cells.present for name, cells in batch.cells.items()}
    _, terms = gradients(model, objective, batch)
    for name, (_, count) in terms.items():
        family, _, sides = name.partition("/")
        if family in ("contrast", "fusion"):
            both = torch.stack([present[s] for s in sides.split("~")]).all(0)
            if model.config.stages[0] == "towers":
                assert count == 2 * int(both.sum()), name
            else:  # vectors of modalities are read after mixing, where modality dropout may have taken a side away
                assert count <= 2 * int(both.sum()), name
        if family == "masked":
            assert count <= int(batch.cells[sides].valid.sum()), name


def test_more_padding(world):
    model, objective, batch = world
    grads, terms = gradients(model, objective, batch)
    more, padded = gradients(model, objective, pad(batch))
    # what is hidden is drawn by row and place, so padding changes no draw either
    assert {n: c for n, (_, c) in terms.items()} == {n: c for n, (_, c) in padded.items()}
    for name, (value, _) in terms.items():
        assert padded[name][0] == pytest.approx(value, abs=1e-6, rel=1e-6), name
    assert alike(grads, more, objective)


def test_padding_leaves_vectors(model):
    batch = make_batch(model, ROWS)
    plain, padded = _vectors(model, batch), _vectors(model, pad(batch, 9))
    for name, embedded in plain.items():
        assert torch.equal(embedded.present, padded[name].present)
        assert torch.allclose(embedded.z, padded[name].z, atol=1e-6)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_a_subset_in_company_is_the_subset_alone(model, subset):
    """A row's vector depends on what the row has, and on no other row, modality or column."""
    mixed = make_batch(model, [FIVE, subset, ("text",), FIVE])
    row = select(mixed, [1])
    alone = row.only(subset)
    together, single = _vectors(model, mixed), _vectors(model, alone)
    assert set(single) == {*subset, "item"}
    for name, embedded in single.items():
        assert bool(together[name].present[1])
        assert torch.allclose(together[name].z[1], embedded.z[0], atol=1e-5), name
    for name in set(together) - set(single):
        assert not bool(together[name].present[1])
        assert float(together[name].z[1].abs().sum()) == 0
    as_query = _vectors(model, mixed.only(subset))
    assert torch.allclose(as_query["item"].z[1], single["item"].z[0], atol=1e-5)


def test_harmonised_weights_of_the_present_ignore_the_absent():
    s = torch.rand(4, 5, 5)
    present = torch.rand(4, 5) > 0.4
    for form in ("paper", "code", "none"):
        w = harmonise(s, present, form)
        noise = torch.where(present[:, :, None] & present[:, None, :], s, torch.rand_like(s))
        assert torch.equal(w, harmonise(noise, present, form))
        assert float(w.masked_fill(present[:, :, None] & present[:, None, :], 0).abs().sum()) == 0


def test_zero_imputation_is_the_control_it_says_it_is():
    """With blank cells attended the vectors must differ: otherwise the control compares a thing with itself."""
    from polymodal import presence

    model = build_model(("image", "text"))
    modality = model.modality("image")
    fields = [modality.preprocess(modality.example(0)), None]
    assert presence.fill(fields).present.tolist() == [True, False]
    assert presence.fill(fields, modality.blank()).present.tolist() == [True, True]
    assert presence.fill([None, None]) is None
