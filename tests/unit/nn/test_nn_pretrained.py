from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from polymodal.losses.corruption import Corruption
from polymodal.modalities.features import FeaturesConfig
from polymodal.modalities.text import TextConfig
from polymodal.model import Model, ModelConfig
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.nn.heads import predict
from polymodal.nn.match import MatchHead
from polymodal.nn.pretrained import fill_head, read_bert
from polymodal.objectives.interbert import InterbertConfig
from polymodal.objectives.scale import ScaleConfig
from polymodal.objectives.streams import StreamsConfig
from polymodal.presence import fill
from polymodal.tensors import Batch, Cells
from polymodal.types import BadInput

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "shoe", "##s", "vase", ",", "neu"]
D, LAYERS, HEADS, INNER, POSITIONS = 16, 4, 4, 32, 20
STACK = StackConfig(layers=2, heads=HEADS, mlp_ratio=2.0, norm="post", eps=1e-12)
SHAPE = ModelConfig(
    width=D,
    embedding=4,
    stages=("trunk", "towers"),
    tower=STACK,
    trunk=STACK,
    summary="mean",
    types="none",
    input_norm=True,
    pool="first",
)


def weights(seed=0):
    """A BERT with its masked language model, by the names of the Hugging Face files."""
    generator = torch.Generator().manual_seed(seed)

    def pair(name, *shape):
        return {
            f"{name}.{k}": 0.3 * torch.randn(s, generator=generator)
            for k, s in (("weight", shape), ("bias", shape[:1]))
        }

    found = {}
    for name, rows in (("word", len(WORDS)), ("position", POSITIONS), ("token_type", 2)):
        found[f"embeddings.{name}_embeddings.weight"] = 0.3 * torch.randn(rows, D, generator=generator)
    found |= pair("embeddings.LayerNorm", D)
    for at in range(LAYERS):
        layer = f"encoder.layer.{at}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found |= pair(f"{layer}.{name}", D, D)
        found |= pair(f"{layer}.intermediate.dense", INNER, D) | pair(f"{layer}.output.dense", D, INNER)
        found |= pair(f"{layer}.attention.output.LayerNorm", D) | pair(f"{layer}.output.LayerNorm", D)
    found |= pair("cls.predictions.transform.dense", D, D) | pair("cls.predictions.transform.LayerNorm", D)
    found["cls.predictions.bias"] = torch.randn(len(WORDS), generator=generator)
    return found | pair("pooler.dense", D, D)


def write(folder, prefix="", old=False, tokenizer=False, head=True, **config):
    told = {"hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "hidden_act": "gelu", **config}
    (folder / "config.json").write_text(json.dumps(told))
    own = {n: w for n, w in weights().items() if head or not n.startswith("cls.")}
    named = {(name if name.startswith("cls.") else prefix + name): value for name, value in own.items()}
    if old:
        named = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for n, value in named.items()
        }
    save_file(named, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    if tokenizer:
        from polymodal.modalities._pieces import WordPieces

        (folder / "tokenizer.json").write_text(WordPieces.read(folder, True).dump())
        (folder / "vocab.txt").unlink()
    return folder


def model(folder, shape=SHAPE, **fields):
    words = TextConfig(bert=str(folder), **{"max_tokens": 12, **fields})
    vectors = FeaturesConfig(channels=3)
    parts = {
        "title": words.build(D, words.fit([])),
        "vector": vectors.build(D, {"channels": 3, "mean": [0.0] * 3, "spread": [1.0] * 3}),
    }
    made = Model(parts, shape.replace(bert={"title": str(folder)}))
    made.start_from_bert()
    return made.eval()


def batch(made, *texts):
    cells = fill([made.modality("title").preprocess(text) for text in texts])
    return Batch(tuple(map(str, range(len(texts)))), {"title": cells})


def plain(ids, valid, w):
    """The same BERT by torch's own encoder layers."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = nn.functional.layer_norm(x, (D,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12)
    for at in range(LAYERS):
        name = f"encoder.layer.{at}"
        layer = nn.TransformerEncoderLayer(D, HEADS, INNER, 0.0, "gelu", 1e-12, batch_first=True)
        own = {"linear1": "intermediate.dense", "linear2": "output.dense", "norm1": "attention.output.LayerNorm"}
        own |= {"norm2": "output.LayerNorm", "self_attn.out_proj": "attention.output.dense"}
        state = {f"{a}.{kind}": w[f"{name}.{b}.{kind}"] for a, b in own.items() for kind in ("weight", "bias")}
        for kind in ("weight", "bias"):
            parts = [w[f"{name}.attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
            state[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
        layer.load_state_dict(state)
        x = layer.eval()(x, src_key_padding_mask=~valid)
    return x


def plain_words(ids, valid, w):
    """The logits of that BERT's masked language model, its decoder tied to the words."""
    x = plain(ids, valid, w)
    name = "cls.predictions.transform"
    x = nn.functional.gelu(nn.functional.linear(x, w[f"{name}.dense.weight"], w[f"{name}.dense.bias"]))
    x = nn.functional.layer_norm(x, (D,), w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"], 1e-12)
    return nn.functional.linear(x, w["embeddings.word_embeddings.weight"], w["cls.predictions.bias"])


@pytest.mark.parametrize(
    "config", [InterbertConfig(tie=True), StreamsConfig(), StreamsConfig(tie=True), ScaleConfig()], ids=str
)
@pytest.mark.parametrize("form", [{}, {"prefix": "bert.", "old": True}], ids=str)
def test_hidden_words_are_predicted_as_the_bert_of_the_folder_does(tmp_path, form, config):
    made = model(write(tmp_path, **form))
    objective = config.build(made)
    with torch.no_grad():
        made.modality("title").content.weight.add_(1.0)
        made.start_from_bert(objective.decoders())
    rows = batch(made, "Red shoes, blue", "vase")
    cells = rows.cells["title"]
    hidden = torch.zeros_like(cells.valid)
    hidden[0, 2] = hidden[1, 1] = True
    ids = cells.fields["id"].masked_fill(hidden, WORDS.index("[MASK]"))
    with torch.no_grad():
        state = made.encode(
            made.tokenize(replace(rows, cells={"title": Cells({**cells.fields, "id": ids}, cells.valid)}))
        )
        found = predict(
            objective.decoders()["title"], state.last["title"].x[cells.valid], made.modality("title").table()
        )
        wanted = plain_words(ids, cells.valid, weights())[cells.valid]
    assert found.abs().max() > 1
    assert torch.allclose(found, wanted, atol=1e-5)


def test_hidden_tokens_are_bert_s_own_mask(tmp_path):
    made = model(write(tmp_path))
    objective = StreamsConfig(mask_ratio=1.0, replacement={"title": Corruption(random=0, keep=0)}).build(made)
    rows = batch(made, "red shoe blue")
    cells = rows.cells["title"]
    content = made.modality("title").embed(cells.packed())
    hidden = objective._hide(made, rows, ["title"], 0)["title"]
    out = objective._replace(made, "title", content, cells, hidden, rows, 0)
    assert torch.equal(out[1:-1], weights()["embeddings.word_embeddings.weight"][4].expand(3, -1))
    assert torch.equal(out[[0, -1]], content[[0, -1]])


def test_a_head_of_another_form_and_a_folder_without_one_change_nothing(tmp_path):
    bert = read_bert(write(tmp_path))
    words = InterbertConfig(tie=True).build(model(tmp_path)).heads["title"]
    assert fill_head(bert, words)
    for head in (
        nn.Linear(D, len(WORDS)),
        nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.LayerNorm(D), nn.Linear(D, 12)),
    ):
        before = {name: p.detach().clone() for name, p in head.named_parameters()}
        assert not fill_head(bert, head)
        assert all(torch.equal(p, before[name]) for name, p in head.named_parameters())
    assert not fill_head(read_bert(write(tmp_path, head=False)), words)
    other = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.LayerNorm(D), nn.Linear(D, 3))
    with pytest.raises(BadInput, match=r"cls\.predictions"):
        fill_head(bert, other)


@pytest.mark.parametrize(
    "form", [{}, {"prefix": "bert."}, {"old": True, "prefix": "bert."}, {"tokenizer": True}], ids=str
)
def test_text_alone_is_the_bert_of_the_folder(tmp_path, form):
    """Layers 0 and 1 in the trunk, 2 and 3 in the text's tower: together one BERT."""
    made = model(write(tmp_path, **form))
    rows = batch(made, "Red shoes, blue", "vase")
    cells = rows.cells["title"]
    assert cells.fields["id"][0].tolist() == [2, 5, 7, 8, 10, 6, 3]
    assert cells.fields["id"][1, :3].tolist() == [2, 9, 3]
    assert cells.fields["unit"][0].tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert cells.fields["start"].eq(0).all()
    with torch.no_grad():
        state = made.encode(made.tokenize(rows)).last["title"].x
        wanted = plain(cells.fields["id"], cells.valid, weights())
    assert torch.allclose(state[0], wanted[0], atol=1e-5)
    assert torch.allclose(state[1, :3], wanted[1, :3], atol=1e-5)


def test_what_is_not_words_is_left_as_it_was(tmp_path):
    parts = {name: model(write(tmp_path)).modality(name) for name in ("title", "vector")}
    made = Model(parts, SHAPE.replace(bert={"title": str(tmp_path)}))
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    made.start_from_bert()
    changed = {name for name, p in made.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {
        name
        for name in before
        if name.startswith(("stages.0.", "stages.1.towers.title.", "input_norms.title.", "modalities.title."))
    }
    filled = made.stages[1].towers["title"].blocks[0].mlp[0].weight
    assert torch.equal(filled, weights()["encoder.layer.2.intermediate.dense.weight"])


def test_the_model_needs_the_folder_no_more(tmp_path):
    """Tokenizer and weights travel with the model."""
    folder = write(tmp_path)
    words = TextConfig(bert=str(folder))
    fitted = json.loads(json.dumps(words.fit([])))
    for file in folder.iterdir():
        file.unlink()
    text = words.build(D, fitted)
    assert text.preprocess("red shoes")["id"].tolist() == [2, 5, 7, 8, 3]
    assert text.preprocess("red " * 50)["id"].tolist() == [2, *[5] * 30, 3], "cut before the end mark"
    assert text.preprocess("quux")["id"].tolist() == [2, 1, 3]
    assert TextConfig(bert="x", lower=True).decoder().decode("Red") == "Red"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"shape": SHAPE.replace(trunk=STACK.replace(norm="pre"))}, "norm post"),
        ({"shape": SHAPE.replace(tower=STACK.replace(heads=2))}, "heads 4"),
        ({"shape": SHAPE.replace(tower=STACK.replace(layers=3))}, "4 layers"),
        ({"shape": SHAPE.replace(trunk=STACK.replace(mlp_ratio=4.0))}, r"shape \(64, 16\)"),
        ({"max_tokens": 30}, r"position_embeddings"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(tmp_path, fields, said):
    with pytest.raises(BadInput, match=said):
        model(write(tmp_path), **fields)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json"):
        read_bert(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadInput, match="pickles are not read"):
        read_bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="readable"):
        read_bert(tmp_path)
    with pytest.raises(BadInput, match=r"tokenizer\.json or vocab\.txt"):
        TextConfig(bert=str(tmp_path)).fit([])
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nred")
    with pytest.raises(BadInput, match=r"\[SEP\]"):
        TextConfig(bert=str(tmp_path)).fit([])
    save_file({"encoder.layer.0.output.dense.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    write_words = tmp_path / "vocab.txt"
    write_words.write_text("\n".join(WORDS))
    with pytest.raises(BadInput, match=r"embeddings\.word_embeddings\.weight"):
        model(tmp_path)


def test_a_modality_without_words_cannot_start_from_bert(tmp_path):
    made = model(write(tmp_path))
    for name, said in (("vector", "takes words"), ("titel", "Did you mean 'title'")):
        wrong = Model({n: made.modality(n) for n in made.names}, SHAPE.replace(bert={name: str(tmp_path)}))
        with pytest.raises(BadInput, match=said):
            wrong.start_from_bert()


def test_an_empty_stack_takes_nothing():
    assert not list(Stack(D, StackConfig(layers=0, norm="post")).parameters())


def test_the_head_is_symmetric_and_pools_are_not_negative():
    head = MatchHead(("a", "b"), 6, 5)
    one, other = head.pool("a", torch.randn(4, 6)), head.pool("b", torch.randn(4, 6))
    assert (one >= 0).all()
    assert torch.equal(head(one, other), head(other, one))
    assert head(one, other).shape == (4, 2)
    assert not torch.equal(head.pool("a", torch.ones(1, 6)), head.pool("b", torch.ones(1, 6)))
