from __future__ import annotations

import numpy as np
import pytest
import torch
from support import (
    FIVE,
    MODALITY_CONFIGS,
    STAGE_ORDERS,
    build_model,
    example_values,
    garbage,
    gradients,
    make_batch,
    pad,
    select,
)

from polymodal import presence
from polymodal.catalogue.loader import collate
from polymodal.modalities.features import FeaturesConfig
from polymodal.modalities.table import TableConfig
from polymodal.modalities.text import TextConfig
from polymodal.model import Model, ModelConfig
from polymodal.nn.blocks import StackConfig, metered
from polymodal.nn.positions import sincos
from polymodal.objectives.m3ae import M3AEConfig
from polymodal.tensors import Batch, Cells
from polymodal.types import BadInput, Record

ROWS = [
    FIVE,
    ("image", "text"),
    ("text",),
    ("image",),
    ("table", "audio"),
    ("video", "text"),
    ("image", "text", "table"),
]


@pytest.fixture(scope="module")
def model():
    return build_model(FIVE, ("trunk",))


@pytest.fixture(scope="module")
def batch(model):
    return make_batch(model, ROWS)


def build(model, seed=0, **fields):
    torch.manual_seed(seed)
    return M3AEConfig(**fields).build(model)


def losses(objective, model, batch, seed=0):
    with torch.no_grad():
        return objective(model, [batch], seed)


# -- what is visible ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.75, 0.9])
def test_every_row_keeps_an_exact_number(model, batch, ratio):
    visible = build(model, ratio=ratio).choose(model, batch, 0)
    nothing = ~torch.stack([v.any(1) for v in visible.values()]).any(0)
    assert not nothing.any()
    for name, shown in visible.items():
        length = batch.cells[name].valid.sum(1)
        wanted = torch.tensor([int(n * (1 - ratio) + 1e-6) for n in length.tolist()])
        assert not (shown & ~batch.cells[name].valid).any()
        if ratio <= 0.75:
            assert ((shown.sum(1) == wanted) | ((shown.sum(1) == 1) & (wanted == 0))).all()


def test_a_row_is_never_left_with_nothing(model, batch):
    visible = build(model, ratio=1.0).choose(model, batch, 0)
    count = sum(v.sum(1) for v in visible.values())
    assert count.tolist() == [1] * len(ROWS)


def test_a_lone_token_stays_and_is_no_target():
    model = build_model(("features",), ("trunk",))
    batch = Batch(
        ("a",), {"features": presence.fill([{"vector": torch.ones(1, 4), "position": torch.zeros(1).long()}])}
    )
    term = losses(build(model), model, batch).terms["masked/features"]
    assert (float(term.value), int(term.count)) == (0.0, 0)


def marked(tmp_path):
    """A text whose marks, a table whose names and regions whose whole may not be hidden, in 40 rows."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(20))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    text = TextConfig(bert=str(tmp_path), max_tokens=12)
    table = TableConfig(vocabulary=300, hide_names=False)
    regions = FeaturesConfig(channels=4, boxes=True, whole=True, ordered=False)
    cells = [(("colour", "red"), ("size", 3.0), ("weight", 2.5))]
    parts = {
        "text": text.build(16, text.fit([])),
        "table": table.build(16, table.fit(cells)),
        "regions": regions.build(16, {"channels": 4, "mean": [0.0] * 4, "spread": [1.0] * 4}),
    }
    stack = StackConfig(layers=1, heads=2)
    model = Model(parts, ModelConfig(width=16, stages=("trunk",), tower=stack, trunk=stack))
    numbers = np.random.default_rng(0)
    records = []
    for at in range(40):
        boxes = np.tile([0.1, 0.1, 0.5, 0.5], (3, 1))
        values = {
            "text": " ".join(f"w{n}" for n in numbers.integers(0, 20, 1 + at % 8)),
            "table": cells[0],
            "regions": np.concatenate([numbers.standard_normal((3, 4)), boxes], 1).astype(np.float32),
        }
        records.append(Record(f"r{at}", values if at % 2 else {"text": values["text"]}))
    return model, collate(records, parts)


@pytest.mark.parametrize(
    "fields",
    [
        {"ratio": 1.0},
        {"ratio": 0.75},
        {"ratio": 0.5, "units": ("table",)},
        {"ratio": 0.75, "slots": {"text": 20}, "slack": 0.0},
        {"ratio": 0.75, "shares": "dirichlet", "shared_mask": True},
        {"ratio": 0.5, "all_tokens": ("text", "table")},
    ],
    ids=str,
)
def test_what_may_not_be_hidden_is_seen_and_is_no_target(tmp_path, fields):
    model, batch = marked(tmp_path)
    objective = build(model, **fields)
    may = {name: model.modality(name).may_hide(batch.cells[name]) for name in model.names}
    for seed in range(8):
        visible = objective.choose(model, batch, seed)
        for name, shown in visible.items():
            valid = batch.cells[name].valid
            assert (valid & ~may[name]).any()
            assert not (valid & ~may[name] & ~shown).any(), "hidden all the same"
            if fields["ratio"] < 1 and not {"slots", "units", "shares"} & set(fields):
                wanted = ((may[name].sum(1) * (1 - fields["ratio"])) + 1e-6).floor()
                assert torch.equal((shown & may[name]).sum(1), wanted.long())
    seen = []
    for name in model.names:
        take = model.modality(name).target
        model.modality(name).target = lambda values, take=take, name=name: seen.append((name, values)) or take(values)
    losses(objective, model, batch)
    ids = torch.cat([values["id"] for name, values in seen if name == "text"])
    assert len(ids) > 10
    assert not set(ids.tolist()) & {2, 3}, "[CLS] and [SEP] are predicted"
    assert not any(values["whole"].any() for name, values in seen if name == "regions")


def test_masks_belong_to_rows(model, batch):
    objective = build(model)
    whole = objective.choose(model, batch, 0)
    some = objective.choose(model, select(batch, [5, 0]), 0)
    padded = objective.choose(model, pad(batch), 0)
    for name, shown in whole.items():
        assert torch.equal(shown[[5, 0]], some[name])
        assert torch.equal(padded[name][:, : shown.shape[1]], shown)
    assert any(not torch.equal(shown, objective.choose(model, batch, 1)[name]) for name, shown in whole.items())


def test_one_order_for_the_whole_batch_is_a_field():
    model = build_model(("image",), ("trunk",))
    batch = make_batch(model, [("image",)] * 12)
    full = batch.cells["image"].valid.all(1)
    for shared, kinds in ((True, 1), (False, int(full.sum()))):
        shown = build(model, shared_mask=shared).choose(model, batch, 0)["image"][full]
        assert len(torch.unique(shown.int(), dim=0)) == kinds


def test_tied_tokens_hide_together_in_exact_numbers(model, batch):
    objective = build(model, units=("table", "video"), ratio=0.5)
    visible = objective.choose(model, batch, 0)
    for name in ("table", "video"):
        unit, valid = batch.cells[name].fields["unit"], batch.cells[name].valid
        for row in range(len(batch)):
            units = unit[row][valid[row]]
            seen = unit[row][visible[name][row]]
            assert len(seen) == int(torch.isin(units, seen).sum())
            if len(units):
                assert len(torch.unique(seen)) == int(len(torch.unique(units)) * 0.5 + 1e-6)


def test_dirichlet_shares_keep_the_sum_and_hide_whole_modalities():
    model = build_model(("image", "table"), ("trunk",))
    batch = make_batch(model, [("image", "table")] * 60)
    fixed = build(model, ratio=0.5).choose(model, batch, 0)
    sums, spread = {}, {}
    for concentration in (1, 50):
        dealt = build(model, ratio=0.5, shares="dirichlet", concentration=concentration).choose(model, batch, 0)
        total = sum(v.sum(1) for v in dealt.values())
        # a modality has no more tokens than it has, so a large share may not be used up
        assert (total <= sum(v.sum(1) for v in fixed.values()) + 1).all()
        share = dealt["table"].sum(1) / total
        sums[concentration], spread[concentration] = float(share.mean()), float(share.std())
    assert spread[1] > 3 * spread[50]
    assert spread[50] > 0
    one = build(model, ratio=0.5, shares="dirichlet").choose(model, batch, 0)
    assert (~one["table"].any(1)).any() or (~one["image"].any(1)).any()


def test_dirichlet_is_blind_to_what_a_row_lacks():
    both, alone = build_model(("image", "table"), ("trunk",)), build_model(("image",), ("trunk",))
    batch = make_batch(both, [("image",), ("image", "table"), ("image",)])
    config = M3AEConfig(shares="dirichlet")
    first = config.build(both).choose(both, batch, 0)["image"]
    second = config.build(alone).choose(alone, batch.only(("image",)), 0)["image"]
    assert torch.equal(first[[0, 2]], second[[0, 2]])


# -- what it costs and what it reads ----------------------------------------------------------------------------------


def test_hidden_tokens_cost_nothing(model, batch):
    """Neither embedded nor encoded: counted in the calls, not masked afterwards."""
    seen = {}
    hooks = []
    for name in model.names:
        part = model.modality(name)
        real = part.embed
        part.embed = lambda fields, name=name, real=real: seen.setdefault(name, real(fields))
        hooks.append((part, real))
    try:
        objective = build(model)
        visible = objective.choose(model, batch, 0)
        with torch.no_grad(), metered() as meter:
            objective.look(model, batch, visible)
    finally:
        for part, _ in hooks:
            del part.embed
    assert {n: len(x) for n, x in seen.items()} == {n: int(v.sum()) for n, v in visible.items()}
    with torch.no_grad(), metered() as whole:
        objective.look(model, batch, {name: cells.valid for name, cells in batch.cells.items()})
    tokens = sum(map(len, seen.values())) + len(ROWS)
    assert meter.valid < 1.1 * whole.valid * tokens / (
        sum(int(c.valid.sum()) for c in batch.cells.values()) + len(ROWS)
    )


def test_the_encoder_is_blind_to_hidden_content(model, batch):
    objective = build(model)
    visible = objective.choose(model, batch, 0)
    cells = {}
    for name, cell in batch.cells.items():
        fields = dict(cell.fields)
        key = {"image": "patches", "video": "tubes", "audio": "frames", "text": "id", "table": "id"}[name]
        hidden = (cell.valid & ~visible[name]).view(*cell.valid.shape, *[1] * (fields[key].ndim - 2))
        fields[key] = torch.where(hidden, torch.ones_like(fields[key]), fields[key])
        cells[name] = Cells(fields, cell.valid)
    other = Batch(batch.ids, cells)
    with torch.no_grad():
        one, two = (objective.predict(model, b, visible) for b in (batch, other))
    for name, prediction in one.items():
        assert torch.equal(prediction, two[name]), name


def test_heads_run_on_hidden_tokens_only_unless_told(model, batch):
    seen = {}
    for fields in ({}, {"all_tokens": ("image",)}):
        objective = build(model, bottleneck=0.0, **fields)
        visible = objective.choose(model, batch, 0)
        hidden = {name: cells.valid & ~visible[name] for name, cells in batch.cells.items()}
        for name, head in objective.heads.items():
            head.register_forward_hook(lambda _, args, __, name=name: seen.__setitem__(name, len(args[0])))
        losses(objective, model, batch)
        whole = batch.cells["image"].valid if fields else hidden["image"]
        assert seen["image"] == int(whole.sum())
        assert seen["text"] == int(hidden["text"].sum())


def test_a_blind_row_reads_its_item_vector_alone(model, batch):
    """With every row in the bottleneck, the decoder's answer changes with the item vector and with nothing else."""
    objective = build(model, bottleneck=1.0)
    seen = objective.look(model, batch, objective.choose(model, batch, 0), 0)
    assert seen.blind.all()
    decoded = objective.decoder(model, batch, seen)
    noisy = {n: t.map(lambda x: x + torch.randn_like(x)) for n, t in seen.encoded.last.items()}
    same = objective.decoder(
        model, batch, type(seen)(type(seen.encoded)((noisy,), noisy), seen.visible, seen.embedded, seen.blind)
    )
    moved = {
        **seen.embedded,
        "item": type(seen.embedded["item"])(seen.embedded["item"].z.flip(0), seen.embedded["item"].present),
    }
    other = objective.decoder(model, batch, type(seen)(seen.encoded, seen.visible, moved, seen.blind))
    for name in decoded:
        assert torch.allclose(decoded[name].x, same[name].x, atol=1e-6)
        assert not (decoded[name].valid & seen.visible[name]).any()
    assert not torch.allclose(decoded["image"].x, other["image"].x, atol=1e-4)


def test_without_vectors_nothing_trains_the_projections(model, batch):
    grads, _ = gradients(model, build(model, vectors=False), batch)
    assert not any(g.any() for n, g in grads.items() if n.startswith(("0.projections", "0.uniques")))
    grads, _ = gradients(model, build(model), batch)
    assert any(g.any() for n, g in grads.items() if n.startswith("0.projections.item"))
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    "fields", [{"places": "sincos"}, {"heads": "linear"}, {"units": ("table",)}, {"shares": "dirichlet"}]
)
def test_padding_changes_no_variant(model, batch, fields):
    objective = build(model, **fields)
    one, two = losses(objective, model, batch), losses(objective, model, pad(batch))
    for name, term in one.terms.items():
        assert int(term.count) == int(two.terms[name].count)
        assert float(term.value) == pytest.approx(float(two.terms[name].value), abs=1e-6, rel=1e-6)


def test_fixed_places_need_no_linear_map():
    model = build_model(("image", "text"), ("trunk",))
    assert not hasattr(build(model, places="sincos").decoder, "place")
    assert hasattr(build(model).decoder, "place")
    assert hasattr(build(build_model(("image", "table"), ("trunk",)), places="sincos").decoder, "place")


def test_weights_and_ratios_are_by_name(model, batch):
    objective = build(model, ratios={"image": 0.0, "text": 1.0}, weights={"text": 0.5})
    found = losses(objective, model, batch)
    assert int(found.terms["masked/image"].count) == 0
    assert found.weights["masked/text"] == 0.5
    assert found.weights["masked/image"] == 1.0


@pytest.mark.parametrize("stages", STAGE_ORDERS, ids="+".join)
def test_variants_keep_the_properties_of_absence(stages):
    """Dirichlet shares, units, fixed places and linear heads: never read, and deletion (the contract tests run over the
    defaults)."""
    model = build_model(FIVE, stages)
    batch = make_batch(model, ROWS)
    variant = {"shares": "dirichlet", "units": ("table", "video", "text"), "places": "sincos", "heads": "linear"}
    objective = build(model, **variant)
    clean, terms = gradients(model, objective, batch)
    dirty, again = gradients(model, objective, garbage(batch, 1))
    assert again == terms
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)
    for name, (value, count) in terms.items():
        rows = [at for at, row in enumerate(ROWS) if name.partition("/")[2] in row]
        fewer = losses(objective, model, select(batch, rows), 3).terms[name]
        assert int(fewer.count) == count
        assert float(fewer.value) == pytest.approx(value, abs=2e-6, rel=1e-5)


@pytest.mark.parametrize("kind", ["image", "text", "video", "audio"])
def test_fixed_places_are_functions_of_the_coordinates(kind):
    config = MODALITY_CONFIGS[kind](places="sincos")
    torch.manual_seed(0)
    modality = config.build(48, config.fit(example_values(kind)))
    fields = modality.preprocess(modality.example(1))
    given = {"image": ("picture",), "text": ("start",)}.get(kind, ())
    for name in given:  # what is not a coordinate stays learned
        fields = {**fields, name: torch.zeros_like(fields[name])}
    axes = [fields[n] for n in ("time", "row", "column", "position") if n in fields]
    places = modality.positions(fields) - (modality.positions({**fields, **{n: f * 0 for n, f in fields.items()}}))[0]
    code = sincos(torch.stack(axes, 1), 48)
    assert torch.allclose(places, code - sincos(torch.zeros(1, len(axes)), 48), atol=1e-5)


def test_padding_in_the_draw_has_no_variants():
    for fields in ({"shares": "dirichlet"}, {"units": ("text",)}):
        with pytest.raises(BadInput, match="slots"):
            M3AEConfig.parse({"slots": {"text": 8}, **fields})


@pytest.mark.parametrize("field", ["ratios", "weights", "slots"])
def test_a_name_that_is_no_modality_is_refused(model, field):
    with pytest.raises(BadInput, match="Did you mean 'image'"):
        build(model, **{field: {"imag": 1}})
    with pytest.raises(BadInput, match="units"):
        build(model, units=("imag",))


@pytest.mark.parametrize("divide", ["rows", "batch"])
def test_halves_of_a_batch_are_the_batch(model, batch, divide):
    """Two processes with half the rows each: their means, weighted by what they count, are that of one process."""
    objective = build(model, divide=divide)
    whole = losses(objective, model, batch).terms
    parts = [losses(objective, model, select(batch, rows)).terms for rows in (range(3), range(3, len(ROWS)))]
    for name, term in whole.items():
        count = sum(int(part[name].count) for part in parts)
        assert count == int(term.count)
        total = sum(float(part[name].value) * int(part[name].count) for part in parts)
        assert total / max(count, 1) == pytest.approx(float(term.value), abs=1e-6, rel=1e-5), name
