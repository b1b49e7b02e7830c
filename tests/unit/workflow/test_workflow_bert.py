"""A run that starts from a BERT folder: read once, kept with the model, not read again."""

from __future__ import annotations

import json
import shutil

import micro
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from polymodal.embed import Embedder
from polymodal.match import Matcher
from polymodal.model import Model
from polymodal.nn.blocks import StackConfig
from polymodal.objectives.interbert import InterbertConfig
from polymodal.train.checkpoint import latest
from polymodal.types import Record
from polymodal.workflow import training

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *micro.COLOURS, *micro.SHAPES, "number"]
STACK = StackConfig(layers=1, heads=2, mlp_ratio=2.0, norm="post", eps=1e-12)


class Rows(micro.Memory):
    @property
    def index(self) -> pa.Table:
        return pa.table({"id": super().index.column("id"), "split": [""] * len(self)})


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "config.json").write_text(
        json.dumps({"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2})
    )
    weights = {
        f"embeddings.{n}_embeddings.weight": torch.randn(rows, 16)
        for n, rows in (("word", len(WORDS)), ("position", 40), ("token_type", 2))
    }
    shapes = {"attention.self.query": (16, 16), "attention.self.key": (16, 16), "attention.self.value": (16, 16)}
    shapes |= {"attention.output.dense": (16, 16), "intermediate.dense": (32, 16), "output.dense": (16, 32)}
    shapes |= {"attention.output.LayerNorm": (16,), "output.LayerNorm": (16,)}
    names = {f"encoder.layer.{at}.{n}": shape for at in range(2) for n, shape in shapes.items()} | {
        "embeddings.LayerNorm": (16,)
    }
    for name, shape in names.items():
        weights |= {f"{name}.weight": 0.1 * torch.randn(shape), f"{name}.bias": 0.1 * torch.randn(shape[:1])}
    for name, shape in (("dense", (16, 16)), ("LayerNorm", (16,))):
        head = f"cls.predictions.transform.{name}"
        weights |= {f"{head}.weight": torch.randn(shape), f"{head}.bias": torch.randn(shape[:1])}
    weights["cls.predictions.bias"] = torch.randn(len(WORDS))
    save_file({n if n.startswith("cls.") else f"bert.{n}": w for n, w in weights.items()}, folder / "model.safetensors")
    return folder


def test_a_run_that_starts_from_bert(bert, tmp_path, monkeypatch):
    base = micro.recipe(("trunk", "towers"), steps=4, checkpoint_every=2)
    recipe = base.replace(
        data=str(tmp_path),
        modalities={**base.modalities, "title": base.modalities["title"].replace(bert=str(bert))},
        model=base.model.replace(
            tower=STACK,
            trunk=STACK,
            summary="mean",
            types="zero",
            input_norm=True,
            pool="first",
            match=8,
            bert={"title": str(bert)},
        ),
        objective=InterbertConfig(tie=True),
        train=base.train.replace(learning_rate=1e-9, warmup=0.0, weight_decay=0.0),
    )
    rows = Rows(micro.records())
    monkeypatch.setattr(training, "open_rows", lambda path: rows)
    monkeypatch.setattr(training, "check_shapes", lambda rows, decoders: None)
    training.train(recipe, tmp_path / "run")
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    source = load_file(bert / "model.safetensors")
    for ours, theirs in (
        ("modalities.title.content.weight", "embeddings.word_embeddings.weight"),
        ("stages.0.stack.blocks.0.mlp.0.weight", "encoder.layer.0.intermediate.dense.weight"),
        ("stages.1.towers.title.blocks.0.mlp.0.weight", "encoder.layer.1.intermediate.dense.weight"),
    ):
        assert torch.allclose(kept[ours], source[f"bert.{theirs}"], atol=1e-6), ours

    head = latest(tmp_path / "run" / "checkpoints")[0].tensors["objective"]
    assert torch.allclose(head["heads.title.bias"], source["cls.predictions.bias"], atol=1e-6)
    dense = source["cls.predictions.transform.dense.weight"]
    assert torch.allclose(head["heads.title.transform.0.weight"], dense, atol=1e-6)

    def refuse(self, heads=None):
        raise AssertionError("read again")

    monkeypatch.setattr(Model, "start_from_bert", refuse)
    shutil.rmtree(bert)
    training.resume(tmp_path / "run")
    embedder = Embedder.load(tmp_path / "run")
    red = Record("q", {"title": "red shoe"})
    assert np.isfinite(embedder.embed([red]).vectors).all()
    assert embedder.network.modality("title").preprocess("red shoe")["id"].tolist() == [2, 5, 9, 3]
    probability = Matcher.load(tmp_path / "run").match([red], [Record("c", {"facts": (("colour", "red"),)})])
    assert 0 < probability[0, 0] < 1
