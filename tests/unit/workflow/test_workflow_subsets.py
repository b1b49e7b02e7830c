"""Vectors of subsets, computed once and shared, are those that the embedder makes one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import support

from polymodal.embed import Embedder
from polymodal.evaluate import AS_IS, Subset
from polymodal.model import Model
from polymodal.recipes import scale
from polymodal.types import Record
from polymodal.workflow.harmony import mean_harmony
from polymodal.workflow.records import attributes_of, draw_rows, title_of
from polymodal.workflow.subsets import embed_subsets, subsets_of

KINDS = ("image", "text", "table")


def embedder(model: Model, **train: object) -> Embedder:
    recipe = scale.recipe({kind: kind for kind in KINDS}, "tiny")
    recipe = recipe.replace(model=model.config, train=recipe.train.replace(**train))
    return Embedder(model, recipe, "digest", batch_size=4)


def records(model: Model, rows: int = 10) -> list[Record]:
    present = np.random.default_rng(0).random((rows, len(KINDS))) < 0.6
    present[~present.any(1), 0] = True
    return [
        Record(
            f"r{row}",
            {kind: model.modality(kind).example(row) for kind, there in zip(KINDS, line, strict=True) if there},
        )
        for row, line in enumerate(present)
    ]


@pytest.mark.parametrize("stages", [("towers", "trunk"), ("trunk", "towers"), ("towers",), ("trunk",)])
def test_every_subset_is_what_the_embedder_gives(stages: tuple[str, ...]) -> None:
    model = support.build_model(KINDS, stages)
    made, rows = embedder(model), records(model)
    found = embed_subsets(made, rows, subsets_of(KINDS))
    plain = made.vectors(rows)
    assert found.fused[AS_IS].ids == tuple(record.id for record in rows)
    assert np.allclose(found.fused[AS_IS].vectors, plain["item"].vectors, atol=1e-5)
    for kind in KINDS:
        assert found.towers[kind].ids == plain[kind].ids
        assert np.allclose(found.towers[kind].vectors, plain[kind].vectors, atol=1e-5)
    for subset in subsets_of(KINDS):
        own = [record for record in rows if subset <= set(record.values)]
        wanted = made.vectors(own, ["item"], only=subset)["item"]
        assert found.fused[subset].ids == wanted.ids
        assert np.allclose(found.fused[subset].vectors, wanted.vectors, atol=1e-5)
        cut = [Record(r.id, {name: r.values[name] for name in subset}) for r in own]
        blank = made.vectors(cut, ["item"], zero_imputation=True)["item"]
        assert np.allclose(found.imputed[subset].vectors, blank.vectors, atol=1e-5)
    assert found.presence == {record.id: frozenset(record.values) for record in rows}


def test_a_model_of_zero_imputation_is_run_with_it_and_is_no_control_of_itself() -> None:
    model = support.build_model(KINDS)
    made, rows = embedder(model, zero_imputation=True), records(model)
    found = embed_subsets(made, rows, [frozenset({"text"})])
    assert not found.imputed
    assert np.allclose(found.fused[AS_IS].vectors, made.vectors(rows)["item"].vectors, atol=1e-5)


def test_subsets_of_many_modalities_are_singles_pairs_and_all() -> None:
    assert len(subsets_of("abcde")) == 31
    six = subsets_of("abcdef")
    assert len(six) == 6 + 15 + 1
    assert frozenset("abcdef") in six


def test_weights_are_shown_for_objectives_that_have_them() -> None:
    model = support.build_model(KINDS)
    made = embedder(model)
    found = embed_subsets(made, records(model), [])
    weights, note = mean_harmony(made.recipe, found)
    assert note == ""
    assert weights["scale"].names == KINDS
    assert np.isfinite(weights["scale"].mean).all()
    objective = made.recipe.objective
    equal = made.recipe.replace(objective=objective.replace(harmonise=objective.harmonise.replace(form="none")))
    assert mean_harmony(equal, found)[0] == {}
    assert "equal" in mean_harmony(equal, found)[1]


def test_records_in_words() -> None:
    record = Record(
        "a", {"x": (("size", 3.0), ("tag", "a"), ("tag", "b")), "y": "\n Red shoe \nmore", "z": Path("a.jpg")}
    )
    assert attributes_of(record) == {"size": 3.0, "tag": ["a", "b"]}
    assert title_of(record) == "Red shoe"
    assert title_of(Record("b", {"z": b"1"})) == ""


def test_rows_are_drawn_once_and_in_order() -> None:
    rows = np.arange(100)
    drawn = draw_rows(rows, 10, 3)
    assert len(set(drawn.tolist())) == 10
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, draw_rows(rows, 10, 3))
    assert np.array_equal(draw_rows(rows, 100, 0), rows)


def test_a_row_outside_every_subset_counts_only_where_it_has_all() -> None:
    model = support.build_model(KINDS)
    made = embedder(model)
    rows = [Record("t", {"text": model.modality("text").example(0)})]
    pair: Subset = frozenset({"image", "text"})
    found = embed_subsets(made, rows, [pair])
    assert pair not in found.fused
    assert found.fused[AS_IS].ids == ("t",)
