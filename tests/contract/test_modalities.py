"""What model and objectives rely on in every kind of modality, beyond shapes (see test_components.py)."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from support import KINDS, MODALITY_CONFIGS, build_modality

from polymodal import presence
from polymodal.modality import Modality
from polymodal.tensors import Fields
from polymodal.types import BadInput, MediaError

WIDTH = 16


@pytest.fixture(scope="module", params=KINDS)
def modality(request) -> Modality:
    return build_modality(request.param, WIDTH).eval()


def fields_of(modality: Modality, seeds: range = range(4)) -> Fields:
    parts = [modality.preprocess(modality.example(seed)) for seed in seeds]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def some(fields: Fields, at: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value[at] for name, value in fields.items()}


def test_a_token_is_embedded_by_itself(modality):
    """Packed tokens of many rows stand side by side: what one becomes must not depend on its neighbours."""
    fields = fields_of(modality)
    count = len(next(iter(fields.values())))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for method in (modality.embed, modality.positions, modality.target):
        whole = method(fields)
        assert torch.allclose(method(some(fields, order)).double(), whole[order].double(), atol=1e-5), method.__name__
        one = method(some(fields, torch.tensor([count // 2])))
        assert torch.allclose(one[0].double(), whole[count // 2].double(), atol=1e-5), method.__name__


def test_no_token_at_all_is_no_error(modality):
    fields = some(fields_of(modality), torch.zeros(0, dtype=torch.long))
    content = modality.embed(fields)
    assert content.shape == modality.positions(fields).shape == (0, WIDTH)
    distance = modality.distance(modality.head(WIDTH)(content), modality.target(fields))
    assert distance.shape == (0,)
    term = presence.masked_mean(distance, torch.ones(0, dtype=torch.bool))
    term.value.backward()
    assert float(term.value.detach()) == 0.0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in modality.parameters())
    modality.zero_grad()


def test_positions_say_nothing_of_content(modality):
    """A hidden token keeps its position: were content in it, the answer would be given away."""
    targets, positions = [], []
    for seed in range(12):
        fields = modality.preprocess(modality.example(seed))
        targets.append(modality.target(fields))
        positions.append(modality.positions(fields))
    first = [(t[0], p[0]) for t, p in zip(targets, positions, strict=True)]
    changed = [(t, p) for t, p in first[1:] if not torch.allclose(t.double(), first[0][0].double())]
    assert changed, "the examples do not differ"
    assert any(torch.allclose(p, first[0][1], atol=1e-6) for _, p in changed), "positions move with content"


def test_targets_are_the_scale_of_one(modality):
    """Standardised: an untrained head is about 1 from a continuous target, and log(vocabulary) at most from a word."""
    torch.manual_seed(0)
    fields = fields_of(modality, range(8))
    target = modality.target(fields)
    head = modality.head(WIDTH)
    distance = modality.distance(head(torch.randn(len(target), WIDTH)), target).detach()
    assert (distance >= 0).all()
    if target.is_floating_point() and modality.kind != "table":  # a table mixes words and numbers in one target
        assert 0.3 < float(distance.mean()) < 3.0
    else:
        assert 0.3 < float(distance.mean()) < 12.0


def test_a_head_can_learn_its_target(modality):
    torch.manual_seed(0)
    fields = some(fields_of(modality), torch.arange(min(6, len(modality.target(fields_of(modality))))))
    target, head = modality.target(fields), modality.head(WIDTH)
    x = torch.randn(len(target), WIDTH, requires_grad=True)
    optimizer = torch.optim.Adam([x, *head.parameters()], lr=0.03)
    first = None
    for _ in range(60):
        optimizer.zero_grad()
        loss = modality.distance(head(x), target).mean()
        first = float(loss.detach()) if first is None else first
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * first


def test_half_precision_runs_and_losses_stay_in_full(modality):
    fields = fields_of(modality)
    with torch.autocast("cpu", torch.bfloat16):
        content = modality.embed(fields)
        distance = modality.distance(
            modality.head(WIDTH)(content + modality.positions(fields)), modality.target(fields)
        )
    assert distance.dtype == torch.float32
    assert distance.isfinite().all()


def test_overlap_is_blind_to_padding(modality):
    rows = [modality.preprocess(modality.example(seed)) for seed in range(3)]
    cells = presence.fill(rows)
    overlap = modality.overlap(cells.fields)
    if overlap is None:
        return
    for at, row in enumerate(rows):
        n = len(next(iter(row.values())))
        alone = modality.overlap({name: value[None] for name, value in row.items()})
        assert torch.equal(overlap[at, :n, :n], alone[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [object(), 3.5, b"\x00\x01", {1, 2}], ids=["object", "number", "bytes", "set"])
def test_a_source_that_cannot_be_is_refused_in_words(kind, source):
    decoder = MODALITY_CONFIGS[kind]().decoder()
    # some kinds take bytes or a lone number; the others name a bad cell, or what no reader hands over
    with suppress(MediaError, BadInput):
        assert decoder.decode(decoder.decode(source)) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_configs_are_strict(kind):
    with pytest.raises(BadInput, match="nonsense"):
        MODALITY_CONFIGS[kind].parse({"nonsense": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_two_builds_with_one_seed_are_the_same(kind):
    one, two, other = build_modality(kind, seed=1), build_modality(kind, seed=1), build_modality(kind, seed=2)
    state = one.state_dict()
    assert all(torch.equal(v, two.state_dict()[n]) for n, v in state.items())
    assert any(not torch.equal(v, other.state_dict()[n]) for n, v in state.items())
