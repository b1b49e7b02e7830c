from __future__ import annotations

import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polymodal.config import parse_kind
from polymodal.modalities.text import Text, TextConfig
from polymodal.modality import ModalityConfig
from polymodal.types import BadInput, MediaError

CORPUS = [
    "Red canvas shoes, size 42",
    "red CANVAS sneakers",
    "红色帆布鞋 女款",
    "蓝色帆布鞋",
    "รองเท้าผ้าใบสีแดง",
    "حذاء قماش أحمر",
] * 3


@pytest.fixture(scope="module")
def text() -> Text:
    config = TextConfig(vocabulary=600, max_tokens=16)
    return config.build(8, config.fit(iter(CORPUS)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equal_corpora_give_equal_tokenizers_in_every_process() -> None:
    code = (
        "from polymodal.modalities.text import TextConfig;import hashlib;"
        f"print(hashlib.md5(TextConfig(vocabulary=600).fit(iter({CORPUS!r}))['tokenizer'].encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": salt, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt, threads in (("1", "1"), ("2", "2"))
    }
    assert len(seen) == 1


@pytest.mark.parametrize("corpus", [[], ["x"], ["a title"]])
def test_tiny_corpora_fit(corpus: list[str]) -> None:
    config = TextConfig()
    text = config.build(4, config.fit(iter(corpus)))
    assert text.pieces.size >= 258
    assert len(text.preprocess("anything 鞋")["id"]) > 0


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_every_text_is_read_or_refused_and_decoding_twice_changes_nothing(text: Text, source: str) -> None:
    try:
        value = text.decode(source)
    except MediaError:
        return
    assert text.decode(value) == value
    assert value.encode("utf-8")
    fields = text.preprocess(value)
    count = len(fields["id"])
    assert count <= 16
    assert all(len(field) == count for field in fields.values())
    assert ((fields["id"] >= 2) & (fields["id"] < text.pieces.size)).all()
    assert (fields["start"] == 1).sum() == fields["unit"].unique().numel()
    augmented = text.augment(value, generator())
    assert augmented
    assert text.decode(augmented) == augmented


def test_nothing_is_unknown_and_ours_cannot_be_written(text: Text) -> None:
    different = {tuple(text.preprocess(s)["id"].tolist()) for s in ("ﷺ", "𓀀", "鿏", "[PAD]", "<unk>", "\U0001f9e6")}
    assert len(different) == 6


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("red cushion", True),
        ("пляж red", True),
        ("红", True),
        ("x", True),  # a letter that is a word is a size or a grade
        ("пляжная вечеринка", False),
        ("ビーチ", False),
        ("한국", False),
        ("太陽", False),  # of a script that the catalogue has, other characters
        ("?!", False),
        ("zqx", False),
    ],
)
def test_what_the_catalogue_never_had_is_not_known(asked: str, known: bool) -> None:
    config = TextConfig()
    it = config.build(8, config.fit(["red cushion", "red cushion, large", "红 色 抱 枕", "红 色"] * 3))
    assert it.knows(asked) is known


def test_words_outside_the_vocabulary_of_bert_are_not_known(tmp_path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\nshoe\n!\n")
    config = TextConfig(bert=str(tmp_path))
    it = config.build(8, config.fit([]))
    assert it.knows("пляж shoe")
    assert not it.knows("пляж вечеринка")
    assert not it.knows("!")


def test_han_characters_are_words_of_their_own(text: Text) -> None:
    fields = text.preprocess("红色shoes42")
    assert fields["unit"].unique().tolist() == [0, 1, 2, 3]
    assert len(text.preprocess("帆布鞋")["id"]) == 3  # seen in the corpus: one piece each


def test_case_and_width_do_not_matter_unless_asked(text: Text) -> None:
    assert torch.equal(text.preprocess("ＲＥＤ shoes")["id"], text.preprocess("red Shoes")["id"])
    config = TextConfig(vocabulary=600, lower=False, compatible=False)
    strict = config.build(8, config.fit(iter(CORPUS)))
    assert not torch.equal(strict.preprocess("RED")["id"], strict.preprocess("red")["id"])


@pytest.mark.parametrize("source", [3, None, b"bytes", ["a"]])
def test_not_a_text(text: Text, source: object) -> None:
    with pytest.raises(MediaError) as caught:
        text.decode(source)
    assert caught.value.reason == "wrong type"


@pytest.mark.parametrize("source", ["   ", "\n\t", "\x00\x01", "\ud800", "\u200b\ufeff"])
def test_nothing_visible_is_an_empty_cell(text: Text, source: str) -> None:
    with pytest.raises(MediaError) as caught:
        text.decode(source)
    assert caught.value.reason == "empty"
    assert len(text.preprocess("")["id"]) == 0


def test_decode_cleans_and_cuts(text: Text) -> None:
    assert text.decode(" a\x00b\u202e \n\t c\ud800d ") == "ab cd"
    huge = text.decode("shoe " * 2_000_000)
    assert len(huge) <= 20_000
    assert len(text.preprocess(huge)["id"]) == 16


def test_a_cut_text_has_the_tokens_of_the_whole_one(text: Text) -> None:
    long = "red canvas 红 " * 500
    assert torch.equal(text.preprocess(long)["id"], text.preprocess(long + "x" * 10_000)["id"])


def test_augment_drops_words_by_its_generator(text: Text) -> None:
    value = " ".join(f"w{i}" for i in range(200))
    once, again, other = (text.augment(value, generator(seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert 150 < len(once.split()) < 200
    assert set(once.split()) < set(value.split())
    assert len(text.augment("红色帆布鞋女款" * 30, generator())) < 210


def test_units_follow_the_config() -> None:
    config = TextConfig(vocabulary=600, words_as_unit=False)
    text = config.build(8, config.fit(iter(CORPUS)))
    assert text.preprocess("zzzz")["unit"].tolist() == [0, 1, 2, 3]


def test_model_side(text: Text) -> None:
    fields = text.preprocess("red canvas zzz")
    assert text.embed(fields).shape == text.positions(fields).shape == (len(fields["id"]), 8)
    target = text.target(fields)
    head = text.head(12)
    loss = text.distance(head(torch.randn(len(target), 12)).bfloat16(), target)
    assert loss.shape == (len(target),)
    assert loss.dtype == torch.float32
    certain = torch.nn.functional.one_hot(target[:, 0], text.pieces.size).float() * 50
    assert text.distance(certain, target).max() < 1e-6
    flat = text.distance(torch.zeros(len(target), text.pieces.size), target)
    assert torch.allclose(flat, torch.tensor(math.log(text.pieces.size)))
    assert text.blank()["id"].tolist() == [0]
    assert set(text.blank()) == set(fields)


def test_copies_and_configs_survive(text: Text) -> None:
    assert torch.equal(copy.deepcopy(text).preprocess("red 鞋")["id"], text.preprocess("red 鞋")["id"])
    assert parse_kind("polymodal.modalities", {"kind": "text"}, "m", ModalityConfig) == TextConfig()
    assert TextConfig().decoder().decode(" a ") == "a"
    with pytest.raises(BadInput, match="tokenizer"):
        TextConfig().build(8, {})
