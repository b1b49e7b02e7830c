"""What each kind of input says of hiding: which tokens may be hidden, which follow one another, what is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import KINDS, build_modality

from polymodal.modalities.features import FeaturesConfig
from polymodal.modalities.table import TableConfig
from polymodal.modalities.text import TextConfig
from polymodal.types import BadInput, MediaError


def fields_of(modality, value):
    return {name: field[None] for name, field in modality.preprocess(value).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_places_and_symbols_have_the_shape_of_tokens(kind):
    modality = build_modality(kind)
    fields = fields_of(modality, modality.example(0))
    shape = next(iter(fields.values())).shape[:2]
    for found in (modality.sequence(fields), modality.symbols(fields), modality.maskable(fields)):
        assert found is None or found.shape == shape
    assert (modality.sequence(fields) is not None) == (kind in ("text", "audio", "features"))
    assert (modality.symbols(fields) is not None) == (kind in ("text", "table"))
    assert modality.mask() is None
    assert modality.whole(modality.preprocess(modality.example(0))) is None


def test_words_follow_words():
    config = TextConfig(vocabulary=300)
    text = config.build(8, config.fit(["red"]))
    fields = fields_of(text, "red shoe")
    assert torch.equal(text.sequence(fields), fields["unit"])
    assert fields["unit"].unique().tolist() == [0, 1]
    pieces = TextConfig(vocabulary=300, words_as_unit=False).build(8, config.fit(["red"]))
    assert torch.equal(pieces.sequence(fields_of(pieces, "red shoe"))[0], torch.arange(fields["id"].shape[1]))
    packed = text.preprocess("red shoe")
    other = text.substitute(packed, torch.linspace(0, 0.999, len(packed["id"])))
    assert 2 <= int(other["id"].min()) <= int(other["id"].max()) < text.pieces.size
    assert torch.equal(other["position"], packed["position"])
    assert text.table().shape == (text.pieces.size, 8)


def table(**fields):
    config = TableConfig(vocabulary=300, **fields)
    rows = [(("colour", "red"), ("size.height", 3.0), ("size.width", 2.0))]
    return config.build(8, config.fit(rows)), rows[0]


def test_names_of_attributes_stay_where_it_is_said():
    modality, row = table(hide_names=False)
    fields = fields_of(modality, row)
    assert torch.equal(modality.maskable(fields), fields["side"] == 1)
    assert table()[0].maskable(fields) is None


def test_attributes_of_one_outer_name_hide_together():
    for groups in (False, True):
        modality, row = table(groups=groups)
        fields = fields_of(modality, row)
        values = fields["side"][0] == 1
        tied = modality.overlap(fields)[0][values][:, values]
        slot = fields["slot"][0][values]
        together = slot[:, None] == slot[None]
        if groups:
            together = together | ((slot[:, None] > 0) & (slot[None] > 0))
        assert torch.equal(tied, together)
        names = modality.overlap(fields)[0][values][:, ~values]
        assert not names.any(), "a value gives its name away to nobody"


BOX = {"boxes": True, "ordered": False}


def regions(**fields):
    config = FeaturesConfig(channels=3, **{**BOX, **fields})
    modality = config.build(8, {"channels": 3, "mean": [0.0] * 3, "spread": [1.0] * 3})
    return modality, modality.example(5)


def test_a_token_for_the_whole_picture():
    modality, value = regions(whole=True)
    fields = modality.preprocess(value)
    assert len(fields["vector"]) == len(value) + 1
    assert fields["whole"].tolist() == [True] + [False] * len(value)
    assert fields["box"][0].tolist() == [0, 0, 1, 1, 1]
    assert torch.equal(modality.maskable({"whole": fields["whole"][None]})[0], ~fields["whole"])
    assert torch.equal(modality.whole(fields), fields["whole"])
    assert {n: f.shape[1:] for n, f in modality.blank().items()} == {n: f.shape[1:] for n, f in fields.items()}
    with pytest.raises(BadInput, match="boxes"):
        FeaturesConfig.parse({"whole": True})


def test_a_set_has_no_places():
    modality, value = regions()
    assert modality.sequence(fields_of(modality, value)) is None
    assert modality.place is None
    plain = FeaturesConfig(channels=3, ordered=False).build(8, {"channels": 3, "mean": [0.0] * 3, "spread": [1.0] * 3})
    assert plain.positions(plain.preprocess(value[:, :3])).eq(0).all()


def test_a_detectors_classes_are_the_target():
    modality, value = regions(classes=4)
    assert value.shape[1] == 3 + 4 + 4
    assert np.allclose(value[:, 3:7].sum(1), 1, atol=1e-5)
    fields = modality.preprocess(value)
    assert torch.equal(modality.target(fields), torch.from_numpy(value[:, 3:7]))
    assert fields["box"].shape == (len(value), 5)
    assert torch.allclose(fields["box"][:, :4], torch.from_numpy(value[:, 7:]))
    logits = modality.head(8)(torch.randn(len(value), 8))
    assert logits.shape == (len(value), 4)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Categorical(probs=modality.target(fields)), torch.distributions.Categorical(logits=logits)
    )
    assert torch.allclose(modality.distance(logits, modality.target(fields)), wanted, atol=1e-5)
    sharp = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert float(modality.distance(torch.zeros(1, 4), sharp)) == pytest.approx(np.log(4), abs=1e-6)
    varied = modality.augment(value, torch.Generator().manual_seed(0))
    kept = [row[3:].tolist() in value[:, 3:].tolist() for row in varied]
    assert all(kept), "noise belongs on vectors alone"
    with pytest.raises(MediaError):
        modality.decode(value[:, :-4])
    fitted = FeaturesConfig(classes=4, **BOX).fit([value])
    assert fitted["channels"] == 3
