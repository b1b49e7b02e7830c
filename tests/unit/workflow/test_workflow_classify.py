"""Classifying a catalogue: splits, files, the classifier that is kept, and the warning about labels in the input."""

from __future__ import annotations

import json
import shutil

import micro_catalogue
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from polymodal import cli
from polymodal.embed import Embedder
from polymodal.tasks.finetune import FinetuneConfig
from polymodal.types import BadInput, CorruptCheckpoint, ModelMismatch
from polymodal.workflow.classify import ClassifySettings, apply_classifier, classify
from polymodal.workflow.item_vectors import embed_rows, untrained
from polymodal.workflow.parts import ids_of, part_rows
from polymodal.workflow.training import open_rows

FAST = {"resamples": 50, "controls": False}


@pytest.fixture(scope="module")
def half(micro_shop, tmp_path_factory):
    """The catalogue of the shop with every seventh colour unknown."""
    data = tmp_path_factory.mktemp("half") / "catalogue"
    shutil.copytree(micro_shop[1], data)
    rows = pq.read_table(data / "items.parquet").to_pylist()
    for at, row in enumerate(rows):
        row["colour"] = None if at % 7 == 0 else row["colour"]
    pq.write_table(pa.Table.from_pylist(rows), data / "items.parquet")
    return micro_shop[0], data


@pytest.mark.parametrize("method", ["probe", "knn", "finetune"])
def test_learnt_tested_kept_and_applied_again(half, tmp_path, method):
    run, data = half
    before = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    settings = ClassifySettings("colour", method, tuning=FinetuneConfig(epochs=2, batch_size=8), **FAST)
    made = classify(run, data, tmp_path / "p.parquet", settings, save=tmp_path / "kept")
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    rows = {row["id"]: row for row in pq.read_table(data / "items.parquet").to_pylist()}
    wanted = {i for i, row in rows.items() if (row["split"] == "test" or row["colour"] is None)}
    wanted -= {i for i in wanted if rows[i]["title"] is None and rows[i]["facts"] is None}
    assert {row["id"] for row in table} == wanted
    assert all(row["colour"] == rows[row["id"]]["colour"] for row in table)
    assert made.unknown == sum(row["colour"] is None for row in table) > 0
    known = [row for row in table if row["colour"] is not None]
    assert made.scored.tested == len(known)
    assert made.scored.accuracy.mean == pytest.approx(np.mean([row["prediction"] == row["colour"] for row in known]))
    report = json.loads((tmp_path / "p.json").read_text())
    assert report["scored"]["accuracy"]["mean"] == pytest.approx(made.scored.accuracy.mean)
    assert report == json.loads(json.dumps(made.to_json()))
    # applied to the same items the classifier says the same, and is scored on what it has not seen
    model = tmp_path / "kept" if method == "finetune" else run
    again = apply_classifier(model, data, tmp_path / "q.csv", tmp_path / "kept", resamples=50)
    second = {row["id"]: row for row in pacsv.read_csv(tmp_path / "q.csv").to_pylist()}
    for row in table:
        assert second[row["id"]]["prediction"] == row["prediction"]
        assert second[row["id"]]["confidence"] == pytest.approx(row["confidence"], abs=1e-6)
    assert again.scored.tested == made.scored.tested
    assert again.scored.accuracy.mean == made.scored.accuracy.mean
    assert {path.name: path.read_bytes() for path in (run / "model").iterdir()} == before
    assert not list(tmp_path.glob("*.training"))
    assert not [
        path for path in tmp_path.rglob("*") if path.suffix not in (".json", ".safetensors", ".csv", ".parquet", "")
    ]


def test_a_tuned_model_is_a_model(half, tmp_path):
    run, data = half
    settings = ClassifySettings("colour", "finetune", tuning=FinetuneConfig(epochs=1, batch_size=8), **FAST)
    made = classify(run, data, tmp_path / "p.csv", settings, save=tmp_path / "kept")
    tuned, plain = Embedder.load(tmp_path / "kept"), Embedder.load(run)
    assert tuned.model != plain.model
    assert tuned.modalities == plain.modalities
    assert [epoch.number for epoch in made.epochs] == [0, 1]
    weight = next(iter((tmp_path / "kept").glob("*.safetensors")))
    weight.write_bytes(weight.read_bytes()[:-1])
    with pytest.raises(CorruptCheckpoint):
        apply_classifier(run, data, tmp_path / "q.csv", tmp_path / "kept")


def test_fine_tuning_goes_on_where_it_was_stopped(half, tmp_path, monkeypatch):
    from polymodal.tasks import finetune
    from polymodal.train.trainer import Interrupted

    run, data = half
    settings = ClassifySettings(
        "colour", "finetune", tuning=FinetuneConfig(epochs=2, batch_size=8, checkpoint_every=2), **FAST
    )
    whole = classify(run, data, tmp_path / "a.csv", settings, save=tmp_path / "a")
    update = finetune.Finetune._update

    def stop(self, batch):
        if self.step == 3:
            raise Interrupted("stopped")
        update(self, batch)

    monkeypatch.setattr(finetune.Finetune, "_update", stop)
    with pytest.raises(Interrupted):
        classify(run, data, tmp_path / "b.csv", settings, save=tmp_path / "b")
    assert not (tmp_path / "b.csv").exists()
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(finetune.Finetune, "_update", update)
    other = ClassifySettings("shape", "finetune", tuning=settings.tuning, **FAST)
    with pytest.raises(BadInput, match="no other fine-tuning"):
        classify(run, data, tmp_path / "b.csv", other, save=tmp_path / "b")
    classify(run, data, tmp_path / "b.csv", settings, save=tmp_path / "b")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert whole.epochs


def test_controls_are_asked_the_same_items(half, tmp_path):
    run, data = half
    settings = ClassifySettings("colour", "knn", resamples=50)
    made = classify(run, data, tmp_path / "p.csv", settings, save=tmp_path / "kept")
    found = {control.name: control for control in made.scored.controls}
    assert list(found) == [
        "most frequent value",
        "probe of the same model",
        "title alone, probe",
        "facts alone, probe",
        "untrained model, probe",
    ]
    most = found["most frequent value"]
    assert most.items == made.scored.tested
    assert most.difference.mean == pytest.approx(made.scored.accuracy.mean - most.accuracy.mean)
    assert found["title alone, probe"].items < made.scored.tested


def test_labels_in_the_input_are_warned_of(half, tmp_path, capsys):
    run, data = half
    folder = tmp_path / "quiet"
    shutil.copytree(data, folder)
    rows = pq.read_table(folder / "items.parquet").to_pylist()
    for row in rows:
        row["title"] = row["title"] and "a thing"
        row["facts"] = row["facts"] and json.dumps({"price": 3})
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    for where, warned in ((data, True), (folder, False)):
        arguments = ["classify", str(run), str(where), "--label", "colour", "--out", str(tmp_path / "p.csv")]
        assert cli.main([*arguments, "--no-controls", "--resamples", "20", "--json"]) == 0
        out, err = capsys.readouterr()
        assert ("names their label" in " ".join(err.split())) is warned
        assert bool(json.loads(out)["warning"]) is warned
        assert (json.loads(out)["leak"]["share"] > 0.5) is warned


def test_what_is_refused_leaves_nothing(half, tmp_path):
    run, data = half
    out, save = tmp_path / "p.csv", tmp_path / "kept"
    for changes, said in (
        ({"label": "color"}, "Did you mean 'colour'"),
        ({"split": "tst"}, "Did you mean 'test'"),
        ({"least": 99}, "99 or more items"),
        ({"train_split": "test"}, "another split"),
    ):
        with pytest.raises(BadInput, match=said):
            classify(run, data, out, ClassifySettings(**{"label": "colour", **FAST, **changes}), save=save)
    with pytest.raises(BadInput, match=r"\.csv or \.parquet"):
        classify(run, data, tmp_path / "p.txt", save=save)
    with pytest.raises(BadInput, match="--save"):
        classify(run, data, out, save=data)
    with pytest.raises(BadInput, match="the folder of a classifier"):
        apply_classifier(run, data, out, data)
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused(half, micro_shop, tmp_path):
    from polymodal.workflow.listing import train_or_resume

    run, data = half
    other = tmp_path / "other"
    train_or_resume("scale", data, other, None, "tiny", ["train.steps=1", *micro_catalogue.MICRO], ())
    classify(run, data, tmp_path / "p.csv", ClassifySettings("colour", **FAST), save=tmp_path / "kept")
    with pytest.raises(ModelMismatch, match="was made with"):
        apply_classifier(other, data, tmp_path / "q.csv", tmp_path / "kept")


def test_a_catalogue_without_splits_is_split_by_whole_groups(micro_shop, tmp_path):
    data = micro_catalogue.write(tmp_path / "catalogue", 80)
    toml = (data / "catalogue.toml").read_text()
    (data / "catalogue.toml").write_text(toml.replace('split = "split"\n', ""))
    rows = open_rows(data)
    ids = rows.index["id"].to_pylist()
    values = dict.fromkeys(ids[:-6], "x")
    parts = part_rows(rows, values)
    groups = rows.index["group"].to_pylist()
    of = [{groups[row] for row in some} for some in (parts.train, parts.held, parts.test)]
    assert sum(map(len, of)) == len(set.union(*of))
    assert set(ids_of(rows, parts.asked)) == set(ids[-6:])
    every = np.concatenate([parts.train, parts.held, parts.test, parts.asked])
    assert sorted(every.tolist()) == list(range(80))
    assert 0.15 < len(parts.test) / 74 < 0.3
    assert len(parts.notes) == 2
    made = classify(micro_shop[0], data, tmp_path / "p.csv", ClassifySettings("colour", **FAST), save=tmp_path / "kept")
    assert made.scored.tested > 0


def test_vectors_of_the_whole_and_of_each_modality_alone(micro_shop):
    run, data = micro_shop
    rows, embedder = open_rows(data), Embedder.load(run)
    found = embed_rows(embedder, rows, np.arange(len(rows)), alone=True, towers=True)
    records = [record for block in range(len(rows.blocks)) for record in rows.block(block)]
    wanted = embedder.vectors(records, ["item"])["item"]
    assert found.fused.ids == wanted.ids
    assert found.fused.vectors == pytest.approx(wanted.vectors, abs=1e-5)
    alone = embedder.vectors(records, ["item"], only=["title"])["item"]
    assert found.alone["title"].ids == alone.ids
    assert found.alone["title"].vectors == pytest.approx(alone.vectors, abs=1e-5)
    assert set(found.empty) == {record.id for record in records if not record.values}
    before = untrained(run, 0)
    other = embed_rows(before, rows, np.arange(len(rows)))
    assert np.abs(other.fused.vectors - found.fused.vectors).max() > 0.1
    assert np.array_equal(embed_rows(untrained(run, 0), rows, np.arange(len(rows))).fused.vectors, other.fused.vectors)
