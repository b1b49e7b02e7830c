"""Engine and cards: everything the service decides, without HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from polymodal.index import UnknownId, create_index
from polymodal.service import Cards, Engine, write_cards
from polymodal.tasks.recommend import Wanted
from polymodal.types import BadInput, Embeddings, MediaError, ModelMismatch, Record

WIDTH = 64
PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


def bag(text: str) -> np.ndarray:
    vector = np.zeros(WIDTH, np.float32)
    for word in text.lower().split():
        number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        vector[number % WIDTH] += 1 if number & (1 << 40) else -1
    vector[0] += float(not vector.any())
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Words:
    """An embedder of hashed words."""

    model = "words-1"
    width = WIDTH
    modalities: ClassVar = {"text": "text", "table": "table", "image": "image"}

    def embed(self, records: Sequence[Record]) -> Embeddings:
        vectors = [bag(" ".join(str(value) for value in record.values.values())) for record in records]
        return Embeddings(tuple(f"q{i}" for i in range(len(records))), np.stack(vectors), self.model)


TITLES = {"a": "red shoes", "b": "red shirt", "c": "blue shirt", "d": "green tent"}


def engine(media: Any = None, model: str = "words-1") -> Engine:
    index = create_index("exact", model, WIDTH)
    vectors = np.stack([bag(title) for title in TITLES.values()])
    index.add(Embeddings(tuple(TITLES), vectors, model), [{"colour": t.split()[0]} for t in TITLES.values()])
    return Engine(Words(), index, media)


def names(hits: list) -> list[str]:
    return [hit.id for hit in hits]


def test_a_query_is_a_record() -> None:
    it = engine()
    assert names(it.search(Record("q", {"text": "red shoes"}), 2)) == ["a", "b"]
    assert names(it.search(Record("q", {"text": "red shoes"}), 2, {"colour": ["blue", "red"]})) == ["a", "b"]
    with pytest.raises(BadInput, match="at least one of"):
        it.search(Record("q", {}), 2)
    with pytest.raises(BadInput, match="Did you mean 'image'"):
        it.search(Record("q", {"imagee": b"x"}), 2)


def test_similar_leaves_the_items_out_and_takes_their_middle() -> None:
    it = engine()
    assert names(it.similar("b", 3)) == names(it.search(Record("q", {"text": "red shirt"}), 4))[1:]
    assert set(names(it.similar(["a", "c"], 9))) == {"b", "d"}
    assert names(it.similar(["a", "c"], 1)) == ["b"]
    assert len(it.similar("a", 2)) == 2
    assert names(it.similar("a", 5, {"colour": "red"})) == ["b"]
    vectors = it.index.get(["a", "c"]).vectors
    middle = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    expected = float(middle @ it.index.get(["b"]).vectors[0])
    assert it.similar(["a", "c"], 1)[0].score == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UnknownId, match="nobody"):
        it.similar("nobody", 3)


def test_recommend_weighs_what_was_seen_twice() -> None:
    it = engine()
    once, twice = it.recommend(["a", "d"], Wanted(9)), it.recommend(["a", "a", "a", "d"], Wanted(9))
    score = {hit.id: hit.score for hit in once}
    assert next(hit.score for hit in twice if hit.id == "b") > score["b"]
    with pytest.raises(BadInput, match="at least one id"):
        it.recommend([], Wanted(3))


def test_items_that_cancel_out_are_refused() -> None:
    index = create_index("exact", "words-1", WIDTH)
    one = bag("x")
    index.add(Embeddings(("p", "n"), np.stack([one, -one]), "words-1"))
    with pytest.raises(BadInput, match="cancel"):
        Engine(Words(), index).similar(["p", "n"], 1)


def test_an_index_of_another_model_is_refused() -> None:
    with pytest.raises(ModelMismatch, match=r"words-2.*words-1"):
        engine(model="words-2")


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    root = tmp_path / "catalogue"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.png").write_bytes(PNG)
    (root / "page.png").write_bytes(b"<html><script>alert(1)</script>")
    (root / "empty.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "catalogue-other").mkdir()
    (tmp_path / "catalogue-other" / "x.png").write_bytes(PNG)
    outside = [
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "in/../../secret.png",
        "../catalogue-other/x.png",
    ]
    bad = [*outside, "gone.png", "page.png", "empty.png", "in", "x\x00.png"]
    rows = [
        {
            "id": "a",
            "title": "Red shoes",
            "attributes": {"colour": "red", "price": 3},
            "media": [
                {"modality": "image", "kind": "image", "source": "in/a.png"},
                {"modality": "image", "kind": "image", "source": root / "in" / "a.png"},
                {"modality": "voice", "kind": "audio", "source": b"OggS" + b"\x00" * 20},
            ],
        },
        {"id": "b", "media": [{"modality": "image", "kind": "image", "source": source} for source in bad]},
    ]
    assert write_cards(tmp_path / "index", iter(rows), root) == 2
    return Cards.open(tmp_path / "index")


def test_cards_come_back_with_their_media(cards: Cards) -> None:
    card = cards.card("a")
    assert card is not None
    assert (card.title, card.attributes, len(cards)) == ("Red shoes", {"colour": "red", "price": 3}, 2)
    assert [one.path for one in card.media[:2]] == ["in/a.png", "in/a.png"]
    assert cards.media("a", 0).path.read_bytes() == PNG
    assert [cards.media("a", n).content_type for n in range(3)] == ["image/png", "image/png", "audio/ogg"]
    assert cards.card("c") is None


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        *((n, "outside the media root") for n in range(5)),
        (5, "missing"),
        (6, "wrong type"),
        (7, "empty"),
        (8, "missing"),
        (9, "missing"),
        (10, "missing"),
        (-1, "missing"),
    ],
)
def test_nothing_but_media_inside_the_root_is_served(cards: Cards, number: int, reason: str) -> None:
    with pytest.raises(MediaError) as raised:
        cards.media("b", number)
    assert raised.value.reason == reason


def test_cards_that_are_not_there_or_not_cards(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        Cards.open(tmp_path)
    (tmp_path / "cards.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BadInput, match="as it was written"):
        Cards.open(tmp_path)
    with pytest.raises(BadInput, match=r"cards\.id"):
        write_cards(tmp_path, [{"id": ""}], tmp_path)


def test_an_item_without_a_card_shows_its_attributes(cards: Cards) -> None:
    it = engine(cards)
    assert it.card("a").title == "Red shoes"
    assert (it.card("d").id, it.card("d").attributes) == ("d", {"colour": "green"})
    assert it.media("a", 0).content_type == "image/png"
    with pytest.raises(UnknownId):
        it.card("nobody")
    with pytest.raises(MediaError, match="missing"):
        engine().media("a", 0)


def test_a_topic_is_a_record_and_a_list_has_one_of_each_group(cards: Cards) -> None:
    class Grouped(Cards):
        def groups(self, ids):
            return ["shirts" if name in "bc" else None for name in ids]

    it = engine(cards)
    assert [one.id for one in it.recommend(Record("t", {"text": "red shirt"}), Wanted(4))][:2] == ["b", "a"]
    cards.__class__ = Grouped
    it = engine(cards)
    found = it.recommend(Record("t", {"text": "red shirt"}), Wanted(4))
    assert [one.id for one in found if one.id in "bc"] == ["b"]
    assert found[0].group == "shirts"
    assert {one.id for one in it.recommend(["c"], Wanted(4))} == {"a", "d"}
    with pytest.raises(BadInput, match="Did you mean 'image'"):
        it.recommend(Record("t", {"imagee": b"x"}), Wanted(2))
    with pytest.raises(BadInput, match="topic: expected at least one of"):
        it.recommend(Record("t", {}), Wanted(2))
    with pytest.raises(UnknownId, match="nobody"):
        it.recommend(["a", "nobody"], Wanted(2))
