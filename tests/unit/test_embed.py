from __future__ import annotations

import json
import os

import micro
import numpy as np
import pytest
import torch

from polymodal.embed import Embedder, export, model_folder
from polymodal.recipe import build_model
from polymodal.types import BadInput, CorruptCheckpoint, Embeds, MediaError, Record

ROWS = micro.records(10)


def build(seed: int = 0, **train):
    made = micro.recipe(**train)
    fitted = micro.fit(made, micro.records())
    torch.manual_seed(seed)
    return made, fitted, build_model(made, fitted)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made, fitted, model = build()
    return export(tmp_path_factory.mktemp("run") / "model", made, fitted, model.state_dict())


@pytest.fixture
def embedder(folder):
    return Embedder.load(folder)


def test_export_and_load_make_the_same_vectors(folder, embedder):
    made, _, model = build()
    assert isinstance(embedder, Embeds)
    assert embedder.recipe == made
    assert (embedder.width, embedder.modalities) == (8, {"title": "text", "facts": "table", "vector": "features"})
    fresh = Embedder(model, made, embedder.model)
    one, other = embedder.embed(ROWS), fresh.embed(ROWS)
    assert np.array_equal(one.vectors, other.vectors)
    assert one.ids == tuple(r.id for r in ROWS)
    assert np.allclose(np.linalg.norm(one.vectors, axis=1), 1, atol=1e-5)
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "recipe.json", "fitted.json", "manifest.json"}


def test_a_run_directory_is_as_good_as_its_model_folder(folder):
    assert model_folder(folder.parent) == model_folder(folder) == folder
    assert Embedder.load(folder.parent).model == Embedder.load(folder).model
    with pytest.raises(BadInput, match="polymodal train"):
        model_folder(folder.parent / "nothing")


def test_the_digest_is_of_weights_recipe_and_fitted(folder, tmp_path):
    made, fitted, model = build()
    same = Embedder.load(export(tmp_path / "same", made, fitted, model.state_dict())).model
    assert same == Embedder.load(folder).model
    assert len(same) == 16
    changed = {n: v.clone() for n, v in model.state_dict().items()}
    next(iter(changed.values())).view(-1)[0] += 1e-3
    others = [
        export(tmp_path / "weights", made, fitted, changed),
        export(tmp_path / "recipe", made.replace(name="other"), fitted, model.state_dict()),
        export(
            tmp_path / "fitted", made, {**fitted, "vector": {**fitted["vector"], "mean": [9.0] * 8}}, model.state_dict()
        ),
    ]
    assert len({same, *(Embedder.load(o).model for o in others)}) == 4


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json", "fitted.json", "manifest.json"])
def test_a_damaged_folder_is_refused(tmp_path, name):
    made, fitted, model = build()
    folder = export(tmp_path / "model", made, fitted, model.state_dict())
    file = folder / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CorruptCheckpoint, match=name):
        Embedder.load(folder)


def test_the_order_and_company_of_records_change_nothing(embedder):
    whole = embedder.embed(ROWS)
    embedder.batch_size = 3
    parts = embedder.embed(ROWS)
    assert np.allclose(whole.vectors, parts.vectors, atol=1e-5)
    back = embedder.embed(ROWS[::-1])
    assert np.allclose(back.rows(whole.ids), whole.vectors, atol=1e-5)
    assert len(embedder.embed([])) == 0


def test_a_query_that_cannot_be_read_is_an_error_and_not_a_guess(embedder, tmp_path):
    bad = tmp_path / "cut.npy"
    bad.write_bytes(b"\x93NUMPY")
    with pytest.raises(MediaError, match="vector"):
        embedder.embed([Record("q", {"title": "red shoe", "vector": bad})])
    with pytest.raises(MediaError, match="missing"):
        embedder.embed([Record("q", {"vector": tmp_path / "none.npy"})])
    assert embedder.quarantine == []


@pytest.mark.parametrize("values", [{}, {"sound": "x.wav"}])
def test_a_query_with_nothing_usable_is_refused(embedder, values):
    with pytest.raises(BadInput, match="at least one of title, facts, vector") as caught:
        embedder.embed([ROWS[0], Record("q7", values)])
    assert "q7" in caught.value.field


def test_an_unknown_modality_beside_a_known_one_is_not_read(embedder):
    plain = embedder.embed([Record("q", {"title": "red shoe"})])
    more = embedder.embed([Record("q", {"title": "red shoe", "sound": object()})])
    assert np.array_equal(plain.vectors, more.vectors)


def test_vectors_by_name_leave_out_rows_without(embedder, tmp_path):
    rows = [
        *ROWS,
        Record("bad", {"vector": tmp_path / "none.npy"}),
        Record("half", {"title": "red", "vector": tmp_path / "x.npy"}),
    ]
    told = []
    embedder.batch_size = 5
    found = embedder.vectors(iter(rows), progress=told.append)
    assert sum(told) == len(rows)
    assert set(found) == {*micro.NAMES, "item"}
    for name in micro.NAMES:
        assert found[name].ids == tuple(
            r.id
            for r in rows
            if (name in r.values and r.id not in ("bad", "half")) or (r.id, name) == ("half", "title")
        )
    assert found["item"].ids == tuple(r.id for r in rows if r.id != "bad")
    assert [(q.id, q.modality, q.reason) for q in embedder.quarantine] == [
        ("bad", "vector", "missing"),
        ("half", "vector", "missing"),
    ]
    assert np.allclose(found["item"].rows([ROWS[0].id]), embedder.embed(ROWS[:1]).vectors, atol=1e-5)


def test_only_embeds_as_if_the_others_were_not_there(embedder):
    with_title = [r for r in ROWS if "title" in r.values]
    only = embedder.vectors(ROWS, ["item"], only=["title"])["item"]
    assert only.ids == tuple(r.id for r in with_title)
    asked = embedder.embed([Record(r.id, {"title": r.values["title"]}) for r in with_title])
    assert np.allclose(only.vectors, asked.vectors, atol=1e-5)
    assert len(embedder.vectors(ROWS, ["item"], only=[])["item"]) == 0


def test_zero_imputation_is_a_control_and_differs(embedder):
    honest = embedder.vectors(ROWS, ["item"])["item"]
    control = embedder.vectors(ROWS, ["item"], zero_imputation=True)["item"]
    lacking = [r.id for r in ROWS if len(r.values) < 3]
    whole = [r.id for r in ROWS if len(r.values) == 3]
    assert lacking
    assert whole
    assert np.allclose(honest.rows(whole), control.rows(whole), atol=1e-5)
    assert not np.allclose(honest.rows(lacking), control.rows(lacking), atol=1e-3)


def test_a_model_trained_with_imputation_is_used_with_it(tmp_path):
    made, fitted, model = build(zero_imputation=True)
    trained = Embedder.load(export(tmp_path / "model", made, fitted, model.state_dict()))
    plain, fitted, model = build()
    honest = Embedder.load(export(tmp_path / "plain", plain, fitted, model.state_dict()))
    wanted = honest.vectors(ROWS, ["item"], zero_imputation=True)["item"]
    assert np.allclose(trained.embed(ROWS).vectors, wanted.vectors, atol=1e-6)


def test_the_model_folder_holds_no_code(folder):
    """JSON and safetensors only, and a kind can name nothing outside the package."""
    for name in ("recipe.json", "fitted.json", "manifest.json"):
        json.loads((folder / name).read_text())
    assert (folder / "model.safetensors").read_bytes()[8:9] == b"{"
    assert not [n for n in os.listdir(folder) if n.endswith((".pt", ".pkl", ".py"))]
