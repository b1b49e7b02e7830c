"""InterBERT's golden values: small numbers of every part, and the released forward pass with all three losses.

The values were computed by `shared/specs/golden/interbert_m3ae.py` (numpy) and agree with black4321/InterBERT at
7ccabb1 run in float64; the important ones are repeated here, and all are compared with the file where it is at hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import polymodal.objectives.interbert as module
from polymodal import presence
from polymodal.draws import seed_of
from polymodal.evaluate.retrieval import Judged, measure
from polymodal.losses._lending import Swap
from polymodal.losses.groups import span
from polymodal.losses.matching import count_symbols, hard_pool, match, tfidf
from polymodal.modalities.features import FeaturesConfig
from polymodal.modalities.text import TextConfig
from polymodal.model import Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.nn.match import MatchHead
from polymodal.nn.pretrained import Bert, fill_bert, fill_stack
from polymodal.objectives.interbert import Grouping, Interbert, InterbertConfig, Replacement
from polymodal.recipe import TrainConfig, build_model
from polymodal.recipes.interbert import reference
from polymodal.tensors import Batch
from polymodal.train.optim import Average

PATH = Path(__file__).parents[3] / "shared/specs/golden/interbert_m3ae.json"
GOLDEN = json.loads(PATH.read_text()) if PATH.exists() else None

# pixel boxes in a picture of 100 x 100, both corners inside
PIXELS = [(0, 0, 49, 49), (10, 0, 59, 49), (25, 0, 74, 49), (0, 50, 99, 99), (0, 50, 99, 79), (80, 10, 89, 19)]
TITLES = [
    "red summer dress for women",
    "blue summer dress for women",
    "red dress long sleeve",
    "men leather shoes black",
    "women running shoes",
]
TINY = {"d": 8, "V": 11, "pos": 16, "F": 6, "T": 5, "pool": 12, "ff": 16}


def wave(number, shape, gain=False):
    """Parameter `number` of the specification: 0.3 sin(0.7 number + 0.37 k + 0.5), plus 1 for the gain of a norm."""
    k = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    w = 0.3 * torch.sin(0.7 * number + 0.37 * k + 0.5)
    return (1 + w if gain else w).reshape(shape)


def features(overlap=0.4, **fields):
    config = FeaturesConfig(channels=6, boxes=True, ordered=False, overlap=overlap, **fields)
    return config.build(8, {"channels": 6, "mean": [0.0] * 6, "spread": [1.0] * 6})


# -- regions ----------------------------------------------------------------------------------------------------------


def relative(boxes, inclusive):
    """Pixel corners as shares of the picture; `inclusive` counts the last pixel, as the release does for the IoU."""
    return [(x1 / 100, y1 / 100, (x2 + inclusive) / 100, (y2 + inclusive) / 100) for x1, y1, x2, y2 in boxes]


def test_location_is_corners_and_area():
    box = [[64 / 640, 48 / 480, 320 / 640, 240 / 480]]
    fields = features(whole=True).preprocess(np.concatenate([np.zeros((1, 6)), box], 1).astype(np.float32))
    assert fields["box"][1].tolist() == pytest.approx([0.1, 0.1, 0.5, 0.5, 0.16])
    assert fields["box"][0].tolist() == [0, 0, 1, 1, 1]


def regions():
    value = np.concatenate([np.zeros((6, 6)), relative(PIXELS, 1)], 1).astype(np.float32)
    return {name: field[None] for name, field in features().preprocess(value).items()}


def test_regions_that_overlap_hide_together():
    tied = features().overlap(regions())[0]
    wanted = [[0, 1], [0, 1, 2], [1, 2], [3, 4], [3, 4], [5]]
    assert [row.nonzero()[:, 0].tolist() for row in tied] == wanted
    if GOLDEN:
        assert list(GOLDEN["ib.joint_mask_set_tau0.4"].values()) == wanted
        # the threshold anywhere gives the sets of the published matrix
        for tau in (0.05, 0.3, 0.35, 0.5, 0.55, 0.65, 0.7):
            here = features(overlap=tau).overlap(regions())[0]
            assert torch.equal(here, torch.tensor(GOLDEN["ib.iou_matrix"]) > tau), tau


@pytest.mark.parametrize(("anchors", "hidden"), [([1, 4], [0, 1, 2, 3, 4]), ([0], [0, 1])])
def test_anchors_hide_their_neighbours_and_not_those_of_neighbours(anchors, hidden):
    draws = torch.ones(1, 6).index_fill(1, torch.tensor(anchors), 0.0)
    valid = torch.ones(1, 6, dtype=torch.bool)
    found = presence.hide(valid, 0.15, draws, features().overlap(regions()), each=True)
    assert found[0].nonzero()[:, 0].tolist() == hidden


# -- segments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "anchors", "extra", "hidden"),
    [(12, [2, 7], [2, 0], [2, 3, 4, 7]), (12, [2, 3, 10], [2, 1, 2], [2, 3, 4, 10, 11]), (5, [4], [2], [4])],
)
def test_segments(n, anchors, extra, hidden):
    at = torch.tensor(anchors)
    draws = torch.ones(1, n).index_fill(1, at, 0.0)
    reach = torch.zeros(1, n, dtype=torch.long).index_copy(1, at, torch.tensor([extra]))
    valid = torch.ones(1, n, dtype=torch.bool)
    found = presence.hide(valid, 0.1, draws, reach=(torch.arange(n)[None], reach))
    assert found[0].nonzero()[:, 0].tolist() == hidden


@pytest.mark.parametrize(
    ("n", "share", "none"), [(5, 0.1648, 0.59049), (12, 0.178333, 0.28243), (34, 0.184588, 0.027813)]
)
def test_coverage_of_segments(n, share, none):
    rows = 40_000
    generator = torch.Generator().manual_seed(0)
    valid = torch.ones(rows, n, dtype=torch.bool)
    draws = torch.rand(rows, n, generator=generator)
    reach = torch.randint(0, 3, (rows, n), generator=generator)
    place = torch.arange(n).expand(rows, n)
    hidden = presence.hide(valid, 0.1, draws, reach=(place, reach))
    assert float(hidden.double().mean()) == pytest.approx(share, abs=0.003)
    assert float((~hidden.any(1)).double().mean()) == pytest.approx(none, abs=0.008)
    once = presence.hide(valid, 0.1, draws, reach=(place, reach), at_least_one=torch.ones(rows, dtype=torch.bool))
    assert once.any(1).all()
    assert torch.equal(once[hidden.any(1)], hidden[hidden.any(1)])


@pytest.mark.parametrize(
    ("n", "share", "none", "everything"),
    [(3, 0.0, 1.0, 0.0), (4, 0.375, 0.2, 0.05), (10, 0.35, 0.090909, 0.009091), (34, 0.338235, 0.028571, 0.00084)],
)
def test_coverage_of_the_released_span(n, share, none, everything):
    """Every start and every length once: the expectation without chance."""
    starts, lengths = torch.meshgrid(torch.arange(n + 1), torch.arange(n), indexing="ij")
    draws = torch.stack([(starts.flatten() + 0.5) / (n + 1), (lengths.flatten() + 0.5) / n], 1)
    hidden = span(torch.ones(len(draws), n, dtype=torch.bool), draws).double()
    assert float(hidden.mean()) == pytest.approx(share, abs=1e-6)
    assert float((hidden.sum(1) == 0).double().mean()) == pytest.approx(none, abs=1e-6)
    assert float((hidden.sum(1) == n).double().mean()) == pytest.approx(everything, abs=1e-5)


# -- losses and negatives ---------------------------------------------------------------------------------------------


def test_matching():
    head = MatchHead(("t", "v"), 3, 3).double()
    with torch.no_grad():
        for pooler in head.poolers.values():
            pooler.weight.copy_(torch.eye(3))
            pooler.bias.zero_()
        head.classifier.weight.copy_(torch.tensor([[1, -1], [0.5, 0], [0, 2.0]]).T)
        head.classifier.bias.zero_()
    t = head.pool("t", torch.tensor([[1.0, -2.0, 0.5]]).double())
    v = head.pool("v", torch.tensor([[2.0, 3.0, -1.0]]).double())
    assert (t * v).tolist() == [[2, 0, 0]]
    logits = head(t, v)
    assert logits.tolist() == [[2, -2]]
    assert float(logits.softmax(1)[0, 0].detach()) == pytest.approx(0.982014, abs=1e-6)
    one = torch.ones(1, dtype=torch.bool)
    assert float(match(logits, ~one, one).value.detach()) == pytest.approx(0.01815, abs=1e-6)


def test_divergence_from_the_detector():
    posterior = torch.tensor(
        [[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [1, 0, 0]], [[0.2, 0.3, 0.5], [0.6, 0.4, 0], [0.3, 0.3, 0.4]]]
    )
    logits = torch.tensor([[[1.0, 0, 0], [0, 0, 1], [2, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]])
    label = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    distance = features(classes=3).distance(logits.flatten(0, 1), posterior.flatten(0, 1)).view(2, 3)
    for matched, wanted in (([True, True], 0.136778), ([True, False], 0.144585), ([False, False], 0.0)):
        term = presence.masked_mean(distance, label & torch.tensor(matched)[:, None])
        assert float(term.value) == pytest.approx(wanted, abs=1e-6)


def test_hard_captions():
    words = sorted({w for title in TITLES for w in title.split()})
    ids = torch.zeros(5, 5, dtype=torch.long)
    valid = torch.zeros(5, 5, dtype=torch.bool)
    for at, title in enumerate(TITLES):
        found = [words.index(w) for w in title.split()]
        ids[at, : len(found)] = torch.tensor(found)
        valid[at, : len(found)] = True
    others = ~torch.eye(5, dtype=torch.bool)
    similarity = tfidf(count_symbols(ids, valid), torch.ones(5, 5, dtype=torch.bool))
    assert float(similarity[0, 1]) == pytest.approx(0.728274, abs=1e-6)
    assert float(similarity[3, 4]) == pytest.approx(0.235111, abs=1e-6)
    assert hard_pool(similarity, others, (0.0, 0.5), 2).tolist() == [[2, 4], [4, 2], [0, 1], [4, 0], [3, 0]]
    if GOLDEN:
        assert torch.allclose(similarity, torch.tensor(GOLDEN["ib.tfidf_cosine(smooth idf, l2)"]), atol=1e-6)


def test_hard_pictures():
    means = torch.tensor([[0, 0.0], [1, 0], [0, 3], [5, 5], [1, 1]])
    everything = torch.ones(5, 5, dtype=torch.bool)
    pool = hard_pool(-torch.cdist(means, means), everything, (-torch.inf, torch.inf), 3)
    assert pool.tolist() == [[0, 1, 4], [1, 0, 4], [2, 4, 0], [3, 2, 4], [4, 1, 0]]


# -- the whole of it --------------------------------------------------------------------------------------------------


def parameters():
    """The specification's parameters in its order, under the names of a BERT file where it has them."""
    d, ff = TINY["d"], TINY["ff"]

    def pair(name, shape, norm=False):
        return [(f"{name}.weight", shape, norm), (f"{name}.bias", shape[:1], False)]

    def layer(prefix):
        linear = [(f"attention.self.{x}", (d, d)) for x in ("query", "key", "value")] + [
            ("attention.output.dense", (d, d))
        ]
        found = [entry for name, shape in linear for entry in pair(f"{prefix}.{name}", shape)]
        found += pair(f"{prefix}.attention.output.LayerNorm", (d,), True)
        found += pair(f"{prefix}.intermediate.dense", (ff, d)) + pair(f"{prefix}.output.dense", (d, ff))
        return found + pair(f"{prefix}.output.LayerNorm", (d,), True)

    names = [("embeddings.word_embeddings.weight", (TINY["V"], d), False)]
    names += [("embeddings.position_embeddings.weight", (TINY["pos"], d), False)]
    names += [("embeddings.token_type_embeddings.weight", (2, d), False)]
    names += pair("embeddings.LayerNorm", (d,), True)
    names += pair("vf", (d, TINY["F"])) + pair("vl", (d, 5)) + pair("vln", (d,), True)
    names += layer("encoder.layer.0") + layer("encoder.layer.1") + layer("picture.encoder.layer.0")
    names += pair("tp", (TINY["pool"], d)) + pair("vp", (TINY["pool"], d))
    names += [("lm.bias", (TINY["V"],), False), *pair("lm.t", (d, d)), *pair("lm.ln", (d,), True)]
    names += pair("itm", (2, TINY["pool"]))
    names += pair("im.t", (d, d)) + pair("im.ln", (d,), True) + pair("im", (TINY["T"], d))
    return {name: wave(at, shape, norm and name.endswith("weight")) for at, (name, shape, norm) in enumerate(names)}


def pour(module_, weights, name):
    with torch.no_grad():
        module_.weight.copy_(weights[f"{name}.weight"])
        module_.bias.copy_(weights[f"{name}.bias"])


class Given(Interbert):
    """What the specification's example hides and mismatches, instead of draws."""

    def swap(self, model, batch, names, seed):
        return Swap(
            {"image": torch.tensor([False, True]), "text": torch.zeros(2, dtype=torch.bool)},
            dict.fromkeys(names, torch.arange(2)),
        )

    def hide(self, model, batch, name, seed):
        hidden = torch.zeros_like(batch.cells[name].valid)
        for at in ((0, 2), (1, 3), (1, 4)) if name == "text" else ((0, 2), (1, 1)):
            hidden[at] = True
        return hidden


@pytest.fixture
def tiny(tmp_path):
    """Our model and objective with the specification's parameters, and its two rows."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(5, 11))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    stack = StackConfig(layers=1, heads=2, mlp_ratio=2.0, norm="post", eps=1e-12)
    words = TextConfig(bert=str(tmp_path), words_as_unit=False, max_tokens=6, positions=16)
    modalities = {"image": features(whole=True, classes=5, max_vectors=3), "text": words.build(8, words.fit([]))}
    shape = ModelConfig(
        width=8,
        embedding=2,
        stages=("trunk", "towers"),
        tower=stack,
        trunk=stack,
        tower_of={"image": stack.replace(heads=4)},
        summary="mean",
        types="none",
        input_norm=True,
        pool="first",
        match=12,
    )
    model = Model(modalities, shape)
    regions_ = Grouping(vector="blank", random=0.0, keep=0.5)
    config = InterbertConfig(
        groups={"image": regions_, "text": Grouping(random=0.0, keep=0.5)},
        ungated=("text",),
        tie=True,
        modality_dropout=0.0,
        contrast_weight=0.0,
        item_weight=0.0,
        replacement=Replacement(hard=0.0),
    )
    objective = Given(config, model)
    weights = parameters()
    trunk, towers = model.stages
    bert = Bert({"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}, weights)
    fill_bert(bert, model.modality("text").tables(), model.input_norms["text"], [trunk.stack, towers.towers["text"]])
    picture = {name.removeprefix("picture."): w for name, w in weights.items() if name.startswith("picture.")}
    fill_stack(towers.towers["image"], Bert({}, picture))
    image = model.modality("image")
    for target, name in ((image.content, "vf"), (image.location, "vl"), (model.input_norms["image"], "vln")):
        pour(target, weights, name)
    poolers = model.matching.poolers
    for target, name in ((poolers["text"], "tp"), (poolers["image"], "vp"), (model.matching.classifier, "itm")):
        pour(target, weights, name)
    lm, im = objective.heads["text"], objective.heads["image"]
    for target, name in (
        (lm.transform[0], "lm.t"),
        (lm.transform[2], "lm.ln"),
        (im[0], "im.t"),
        (im[2], "im.ln"),
        (im[3], "im"),
    ):
        pour(target, weights, name)
    with torch.no_grad():
        lm.bias.copy_(weights["lm.bias"])
    return model.double(), objective.double(), rows(model)


def rows(model):
    raw = np.sin(0.2 * np.arange(2 * 3 * 6)).reshape(2, 3, 6)
    posterior = np.exp(np.cos(0.5 * np.arange(2 * 3 * 5)).reshape(2, 3, 5))
    posterior /= posterior.sum(-1, keepdims=True)
    image = []
    for row, boxes in enumerate((PIXELS[:3], PIXELS[3:5])):
        n = len(boxes)
        value = np.concatenate([raw[row, :n], posterior[row, :n], relative(boxes, 0)], 1)
        image.append(model.modality("image").preprocess(value))
    text = [model.modality("text").preprocess(words) for words in ("w5 w6 w7", "w9 w8 w10 w6")]
    assert text[0]["id"].tolist() == [2, 5, 6, 7, 3]
    return Batch(("a", "b"), {"image": presence.fill(image), "text": presence.fill(text)})


def fate(seed, keys, count):
    """Of the five hidden tokens two stay as they are: the fifth word of the second row, and its first region."""
    draws = torch.ones(len(keys), count)
    if seed == seed_of(3, "fate", "text"):
        draws[1, 4] = 0.2
    if seed == seed_of(3, "fate", "image"):
        draws[1, 1] = 0.2
    return draws


def test_the_released_losses(tiny, monkeypatch):
    model, objective, batch = tiny
    monkeypatch.setattr(module, "uniform", fate)
    losses = objective(model, [batch], 3)
    values = {name: float(term.value.detach()) for name, term in losses.terms.items()}
    assert values["masked/text"] == pytest.approx(3.787915, abs=1e-5)
    assert values["masked/image"] == pytest.approx(0.061153, abs=1e-5)
    assert values["match/image~text"] == pytest.approx(0.654880, abs=1e-5)
    assert float(losses.total.detach()) == pytest.approx(4.503947, abs=1e-5)
    assert {name: int(term.count) for name, term in losses.terms.items()} == {
        "masked/text": 3,
        "masked/image": 1,
        "match/image~text": 2,
    }


def test_the_released_states(tiny, monkeypatch):
    model, objective, batch = tiny
    monkeypatch.setattr(module, "uniform", fate)
    hidden = {name: objective.hide(model, batch, name, 3) for name in model.names}
    parts = model.tokenize(
        batch, lambda n, content, cells: objective._corrupt(model, n, content, cells, hidden[n], batch, 3)
    )
    last = model.encode(parts).last
    wanted = [0.349962, 0.138258, 0.713717, -0.114763, 0.49544, -0.925631, -0.231088, -1.752634]
    assert last["text"].x[0, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    head = model.matching
    logits = head(head.pool("image", last["image"].x[:, 0]), head.pool("text", last["text"].x[:, 0]))
    assert logits.flatten().tolist() == pytest.approx([-0.250641, -0.363399, -0.311843, -0.267871], abs=1e-6)
    if GOLDEN:
        told = GOLDEN["ib.tiny"]
        assert last["image"].x[1, 0].tolist() == pytest.approx(told["v[1,0]"], abs=1e-6)
        lm = objective.heads["text"](last["text"].x[0, 2:3], model.modality("text").table())
        assert lm[0, :4].tolist() == pytest.approx(told["lm[0,2,:4]"], abs=1e-6)
        assert objective.heads["image"](last["image"].x[0, 2:3])[0].tolist() == pytest.approx(told["im[0,2]"], abs=1e-6)


def test_text_alone_is_a_plain_bert(tiny, monkeypatch):
    """T1: without a picture the text passes exactly the layers of one BERT."""
    model, objective, batch = tiny
    monkeypatch.setattr(module, "uniform", fate)
    hidden = objective.hide(model, batch, "text", 3)
    parts = model.tokenize(
        batch.only(["text"]), lambda n, c, cells: objective._corrupt(model, n, c, cells, hidden, batch, 3)
    )
    state = model.encode(parts).last["text"].x
    wanted = [0.348038, 0.136418, 0.713662, -0.116614, 0.498789, -0.927131, -0.224888, -1.753721]
    assert state[0, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert model.matching.pool("text", state[0, :1])[0, :4].tolist() == pytest.approx(
        [0.0, 0.109367, 0.0, 0.0], abs=1e-6
    )
    ids = torch.tensor([[2, 5, 4, 7, 3, 0], [2, 9, 8, 4, 6, 3]])
    plain = plain_bert(ids, torch.tensor([[1, 1, 1, 1, 1, 0], [1] * 6]).bool(), parameters())
    assert torch.allclose(state[0, :5], plain[0, :5], atol=1e-9)
    assert torch.allclose(state[1], plain[1], atol=1e-9)


def plain_bert(ids, valid, w):
    """BERT of two layers and two heads, by torch's own encoder layer."""
    d = TINY["d"]
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = F.layer_norm(x, (d,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12)
    for at in range(2):
        name = f"encoder.layer.{at}"
        layer = torch.nn.TransformerEncoderLayer(d, 2, TINY["ff"], 0.0, "gelu", 1e-12, batch_first=True).double()
        own = {"linear1": "intermediate.dense", "linear2": "output.dense", "norm1": "attention.output.LayerNorm"}
        own |= {"norm2": "output.LayerNorm", "self_attn.out_proj": "attention.output.dense"}
        state = {f"{a}.{kind}": w[f"{name}.{b}.{kind}"] for a, b in own.items() for kind in ("weight", "bias")}
        for kind in ("weight", "bias"):
            parts = [w[f"{name}.attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
            state[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
        layer.load_state_dict(state)
        x = layer(x, src_key_padding_mask=~valid)
    return x.detach()


# -- other numbers ----------------------------------------------------------------------------------------------------


def test_average_of_weights():
    """EMA 0.9 of 1, 2, 3 from 0; ours starts with the first weights and a smaller decay, so both are set."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    average, seen = Average(layer, 0.9), []
    for value in (1.0, 2.0, 3.0):
        torch.nn.init.constant_(layer.weight, value)
        average.update(1000)
        seen.append(float(average.values["weight"]))
    assert seen == pytest.approx([0.1, 0.29, 0.561], abs=1e-6)
    assert TrainConfig().ema == 0.0


def test_retrieval_metrics():
    scores = np.array([[0.9, 0.1, 0.3, 0.2], [0.4, 0.3, 0.8, 0.1], [0.2, 0.6, 0.5, 0.7], [0.1, 0.2, 0.3, 0.25]])
    order = np.argsort(-scores, axis=1, kind="stable")
    right = (order == np.array([0, 0, 2, 3])[:, None]).astype(float)
    assert right.argmax(1).tolist() == [0, 1, 2, 1]
    four, one = np.full(4, 4), np.ones(4, np.int64)
    judged = Judged(right, four, one, one, np.eye(4)[[0] * 4])
    assert measure(judged, "hit@1").mean() == 0.25
    assert measure(judged, "hit@2").mean() == 0.75
    two = np.full(1, 2)
    hits = Judged(np.array([[1.0, 0, 1, 0, 0]]), np.full(1, 5), two, two, np.array([[1.0, 1, 0, 0, 0]]))
    assert measure(hits, "ndcg@5")[0] == pytest.approx(0.919721, abs=1e-6)


def test_parameters_of_the_paper(tmp_path):
    """157,021,565 parameters for pre-training, from the recipe; our projections for search come on top."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*marks, *(f"w{n}" for n in range(30522 - len(marks)))]))
    recipe = reference({"image": "features", "title": "text"}, "base")
    words = recipe.modalities["title"].replace(bert=str(tmp_path), positions=512)
    fitted = {
        "image": {"channels": 2048, "mean": [0.0] * 2048, "spread": [1.0] * 2048},
        "title": words.fit([]),
    }
    with torch.device("meta"):
        model = build_model(recipe.replace(modalities={**recipe.modalities, "title": words}), fitted)
        objective = recipe.objective.build(model)

    def count(part):
        return sum(p.numel() for p in part.parameters())

    parts = {
        "text_emb": count(model.modality("title")) + count(model.input_norms["title"]),
        "image_emb": count(model.modality("image")) + count(model.input_norms["image"]),
        "interaction": count(model.stages[0]),
        "text_stream": count(model.stages[1].towers["title"]),
        "image_stream": count(model.stages[1].towers["image"]),
        "poolers": count(model.matching.poolers),
        "itm": count(model.matching.classifier),
        "lm_head(excl tied)": count(objective.heads["title"]),
        "image_head": count(objective.heads["image"]),
    }
    if GOLDEN:
        wanted = GOLDEN["ib.param_counts"]
        assert parts == {name: wanted[name] for name in parts}
        assert count(model.stages[0].stack.blocks[0]) == wanted["layer"]
    assert sum(parts.values()) == 157_021_565
    rest = count(model.projections) + objective.log_scale.numel() + objective.log_scale_item.numel()
    assert count(model) + count(objective) == 157_021_565 + rest
