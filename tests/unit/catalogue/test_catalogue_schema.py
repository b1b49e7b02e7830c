"""catalogue.toml: what is accepted, what is refused and how, and what is guessed without it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.catalogue.guess import guess
from polymodal.catalogue.schema import CatalogueConfig, ModalitySource, label_name, to_toml
from polymodal.types import BadInput

GOOD = """
table = "items.parquet"
media_root = "."
id = "id"
group = "group_id"
split = "split"
labels = ["category", "label_sound"]
[modalities.image]
kind = "image"
columns = ["front", "back"]
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalogue.toml"
    path.write_text(text, "utf-8")
    return path


def test_reads_every_field_and_knows_its_folder(tmp_path: Path) -> None:
    config = CatalogueConfig.read(_write(tmp_path, GOOD))
    assert config.path == str(tmp_path.resolve())
    assert config.labels == ("category", "label_sound")
    assert config.modalities["image"].columns == ("front", "back")
    assert config.modalities["image"].cell_form("image") == "files"
    assert label_name("label_sound") == "sound"
    assert label_name("label_") == "label_"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("media_root", "media_rot"), ["media_rot", "media_root"]),
        (GOOD.replace("columns", "colums"), ["modalities.image.colums", "columns"]),
        (GOOD.replace('kind = "image"', ""), ["modalities.image.kind"]),
        (GOOD.replace('["front", "back"]', "[]"), ["modalities.image.columns"]),
        (GOOD.replace('["front", "back"]', "3"), ["modalities.image.columns"]),
        (GOOD.replace('id = "id"', "id = 7"), ["catalogue.toml.id"]),
        ("table = ", ["valid TOML"]),
        ("modalities = 3", ["modalities"]),
        ("[modalities]\nimage = 3", ["modalities.image"]),
    ],
)
def test_refuses_with_the_field_and_the_nearest_name(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        CatalogueConfig.read(_write(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_missing_file_is_a_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        CatalogueConfig.read(tmp_path / "none.toml")


def test_check_refuses_what_types_cannot_say() -> None:
    image = ModalitySource(kind="image", columns=("a",))
    for config, word in [
        (CatalogueConfig(), "modalities"),
        (CatalogueConfig(modalities={"item": image}), "item"),
        (CatalogueConfig(modalities={"my image": image}), "my image"),
        (CatalogueConfig(modalities={"geo": ModalitySource(kind="geo", columns=("a",))}), "form"),
        (CatalogueConfig(modalities={"image": image}, labels=("x", "label_x")), "labels"),
    ]:
        with pytest.raises(BadInput, match=word):
            config.check()
    CatalogueConfig(modalities={"geo": ModalitySource(kind="geo", columns=("a",), form="numbers")}).check()


_names = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(
    _names,
    st.lists(_names, max_size=3),
    st.dictionaries(_names, st.tuples(_names, st.lists(_names, min_size=1, max_size=3), _names), max_size=3),
)
def test_toml_round_trip(table: str, labels: list[str], sources: dict[str, tuple[str, list[str], str]]) -> None:
    import tomllib

    config = CatalogueConfig(
        table=table,
        labels=tuple(labels),
        max_text=17,
        modalities={n: ModalitySource(kind=k, columns=tuple(c), separator=s) for n, (k, c, s) in sources.items()},
    )
    assert CatalogueConfig.parse(tomllib.loads(to_toml(config))) == config


def test_written_config_is_read_back_equal(tmp_path: Path) -> None:
    config = CatalogueConfig.read(_write(tmp_path, GOOD))
    config.write(tmp_path / "again.toml")
    assert CatalogueConfig.read(tmp_path / "again.toml") == config


def _shop(folder: Path) -> None:
    rows = range(60)
    (folder / "media").mkdir()
    for r in rows:
        (folder / "media" / f"{r}.jpg").write_bytes(b"x")
    table = pa.table(
        {
            "note": [None for _ in rows],
            "record_id": [f"r{r}" for r in rows],
            "product_id": [f"p{r // 3}" for r in rows],
            "title": [f"thing number {r}" for r in rows],
            "story": [f"a long tale of thing {r} that goes on for more than forty characters" for r in rows],
            "attributes": [json.dumps({"colour": "red", "sizes": ["S", "M"]}) for _ in rows],
            "brand": ["Acme" if r % 2 else "Öko" for r in rows],
            "price": [r / 4 for r in rows],
            "image_1": [f"{r}.jpg" for r in rows],
            "image_2": [f"{(r + 1) % 60}.jpg" if r % 2 else None for r in rows],
            "pictures": [json.dumps([f"{r}.jpg", f"{(r + 1) % 60}.jpg"][: 1 + r % 2]) for r in rows],
            "clip": [f"v/{r}.mp4" for r in rows],
            "clip_seconds": [3.0 for _ in rows],
            "sound": [b"OggS" + bytes(20) for _ in rows],
            "vector": [[0.5, 1.5, 2.5, float(r)] for r in rows],
            "page_url": ["https://shop.example/picture.jpg" for _ in rows],
            "split": ["train" if r < 40 else "test" for r in rows],
            "category": ["a" if r < 50 else "b" for r in rows],
            "label_fine": ["a" if r < 50 else "b" for r in rows],
            "label_fine_id": [0 if r < 50 else 1 for r in rows],
        }
    )
    pq.write_table(table, folder / "records.parquet")
    pq.write_table(pa.table({"query_id": ["q"], "query": ["x"]}), folder / "reviews.parquet")


def test_guess_of_a_shop(tmp_path: Path) -> None:
    _shop(tmp_path)
    found = guess(tmp_path)
    config = found.config
    assert (config.table, config.id, config.group, config.split) == (
        "records.parquet",
        "record_id",
        "product_id",
        "split",
    )
    assert config.media_root == "media"
    assert config.labels == ("category", "label_fine")
    kinds = {name: (source.kind, source.columns) for name, source in config.modalities.items()}
    assert kinds == {
        "image": ("image", ("image_1", "image_2")),
        "video": ("video", ("clip",)),
        "audio": ("audio", ("sound",)),
        "features": ("features", ("vector",)),
        "text": ("text", ("title", "story")),
        "table": ("table", ("attributes", "brand", "price")),
    }
    assert set(found.reasons) == set(pq.read_schema(tmp_path / "records.parquet").names)
    assert found.reasons["pictures"][0] == found.reasons["note"][0] == found.reasons["page_url"][0] == "left out"
    assert found.reasons["clip_seconds"][0] == found.reasons["label_fine_id"][0] == "left out"
    # what is printed can be saved and read
    assert CatalogueConfig.read(_write(tmp_path, found.to_text())) == config


def test_guess_of_tables_with_the_same_columns_takes_all(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f"part{part}.csv").write_text(f"sku,name\n{part},a thing\n")
    assert guess(tmp_path).config.table == "*.csv"


def test_guess_refuses_a_table_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n" + "\n".join(map(str, range(50))))
    with pytest.raises(BadInput, match="pictures, texts or attributes"):
        guess(tmp_path / "a.csv")
    with pytest.raises(BadInput, match="nothing at"):
        guess(tmp_path / "none")
