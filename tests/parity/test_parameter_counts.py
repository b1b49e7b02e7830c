"""Parameter counts of the specifications, of our modules at the papers' sizes, built without memory (meta device)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymodal.modalities.features import Features, FeaturesConfig
from polymodal.model import CoTrunk, Projection, Towers, Trunk
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.nn.cross import CoLayer, Readout
from polymodal.recipes import bert, lxmert, uniter, vilbert
from polymodal.recipes.scale import reference

D = 768
BERT_LAYER = StackConfig(layers=1, heads=12, norm="post", eps=1e-12)
# specs/scale.md, section 2: SCALE_code at 227ae08, counted by instantiation
LIVE = 250_313_593 - 88_632_578


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(autouse=True)
def _meta():
    with torch.device("meta"):
        yield


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


NORM = 2 * D


def stack(layers: int, **fields) -> int:
    return count(Stack(D, BERT_LAYER.replace(layers=layers, **fields)))


def test_berts_layer_and_stacks():
    """specs/interbert.md, section 2."""
    assert stack(1) == 7_087_872
    assert stack(6) == 42_527_232
    # BERT-base: 12 layers on its embeddings (30,522 words, 512 places, 2 segments, LayerNorm), and with its pooler
    embeddings = (30_522 + 512 + 2) * D + NORM
    assert embeddings == 23_837_184
    assert stack(12) + embeddings == 108_891_648
    assert stack(12) + embeddings + linear(D, D) == 109_482_240


def test_the_stacks_of_scale():
    """specs/scale.md, section 2: text and table 42.5 M; image, video and audio 23.6 M; the joint transformer 43.5 M."""
    assert round(stack(6) / 1e6, 1) == 42.5
    assert round(stack(6, mlp_ratio=1024 / D, heads=8) / 1e6, 1) == 23.6
    joint = stack(6, norm="pre", heads=8) - NORM  # it has no last LayerNorm, and 512 places and a pooler of its own
    assert round((joint + 512 * D + linear(D, D)) / 1e6, 1) == 43.5


def test_the_live_parameters_of_scale_to_the_last_one():
    """The release's 161,681,015 are our stacks at its sizes, and around them the inputs and heads of its config."""
    text, other = stack(6), stack(6, mlp_ratio=1024 / D, heads=8)
    joint = stack(6, norm="pre", heads=8) - NORM + 512 * D
    words = (21_128 + 512 + 2) * D + NORM
    image = linear(2048, D) + linear(5, D) + NORM
    video, audio = linear(1024, D) + 50 * D + NORM, linear(751, D) + 100 * D + NORM
    poolers = 5 * linear(D, 1024)
    transform = linear(D, D) + NORM
    heads = (transform + 21_128) + sum(transform + linear(D, n) for n in (2048, 1024, 751))
    assert text + 2 * other + joint + words + image + video + audio + poolers + heads == LIVE == 161_681_015


def test_our_scale_at_the_papers_size():
    """`scale/reference` at "base", as the release shares its towers: what differs is named."""
    made = reference({kind: kind for kind in ("text", "table", "image", "video", "audio")})
    shape = made.model
    assert (shape.width, shape.tower.layers, shape.trunk.layers, shape.embedding) == (D, 6, 6, 1024)
    towers = Towers(list(made.modalities), D, shape.tower, shape.share)
    trunk = Trunk(list(made.modalities), D, shape.trunk)
    assert sorted(towers.towers) == ["audio", "image", "text"]
    wider = 2 * (stack(6) - stack(6, mlp_ratio=1024 / D))  # image (with video) and audio have the MLP of text here
    last = NORM  # towers are pre-norm here, with one LayerNorm more each
    assert count(towers) == stack(6) + 2 * stack(6, mlp_ratio=1024 / D) + wider + 3 * last
    assert count(trunk) == stack(6, norm="pre") + 5 * D + D  # types and the summary token, no places
    # projections have a LayerNorm, and the item vector one of its own
    assert count(*(Projection(D, 1024, True) for _ in range(6))) == 6 * (linear(D, 1024) + NORM)


def test_regions_go_in_as_in_the_originals():
    """2048 numbers and a box of 5 a region: the originals' two linear layers, and no places in a set."""
    config = FeaturesConfig(channels=2048, boxes=True, ordered=False, max_vectors=36)
    regions = Features(config, D, 2048, [0.0] * 2048, [1.0] * 2048)
    assert count(regions) == linear(2048, D) + linear(5, D) == 1_579_776 - NORM


def test_fusion_encoders_at_the_papers_size():
    """UNITER and BERT: 12 layers. ViLBERT and LXMERT: their layers at one width, from the formulas."""
    for made in (uniter.reference({"text": "text", "regions": "features"}), bert.reference({"title": "text"})):
        names = list(made.modalities)
        assert count(Trunk(names, D, made.model.trunk)) == 12 * 7_087_872 + D + len(names) * D
    attention = 4 * linear(D, D)
    mlp = linear(D, 4 * D) + linear(4 * D, D)
    assert attention + mlp + 2 * NORM == 7_087_872
    two = ("text", "regions")
    # a co-attention layer of ViLBERT is as large as a layer of BERT, for each stream, and a layer of BERT follows it
    assert count(CoLayer(two, D, BERT_LAYER, "vilbert", False)) == 4 * 7_087_872
    # LXMERT has one co-attention for both streams
    assert count(CoLayer(two, D, BERT_LAYER, "lxmert", True)) == attention + NORM + 2 * 7_087_872
    for made, layer in (
        (vilbert.reference({"text": "text", "regions": "features"}), 4 * 7_087_872),
        (lxmert.reference({"text": "text", "regions": "features"}), attention + NORM + 2 * 7_087_872),
    ):
        shape = made.model
        co = CoTrunk(list(made.modalities), D, shape.trunk, shape.co_order, shape.co_share)
        assert count(co.stack) == 6 * layer
        assert count(co) == 6 * layer + count(Readout(D, shape.trunk)) == 6 * layer + 7_087_872 + D
