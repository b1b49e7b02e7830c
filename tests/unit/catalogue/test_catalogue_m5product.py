"""A release in M5Product's format becomes a catalogue; what is malformed in it is set aside, and nothing else is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from m5_release import CHANNELS, LABELS, Release, documented, entry, picture, region

from polymodal.catalogue import _m5_layout, m5product
from polymodal.catalogue.m5product import Imported, find_layout, import_m5product, write_region
from polymodal.catalogue.reader import Catalogue
from polymodal.modalities.features import FeaturesConfig
from polymodal.types import BadInput, Record


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "release")


def _import(release: Release, name: str = "out") -> tuple[Imported, Catalogue]:
    out = release.root.parent / name
    return import_m5product(release.root, out), Catalogue.open(out)


def _quarantine(made: Imported) -> list[tuple[str, str, str]]:
    lines = (made.folder / "quarantine.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == made.quarantined
    return [(one["id"], one["modality"], one["reason"]) for one in map(json.loads, lines)]


def _records(catalogue: Catalogue) -> dict[str, Record]:
    return {record.id: record for record in catalogue}


# -- what is sound -------------------------------------------------------------------------------------------------


def test_a_sound_release_is_read_whole(release: Release) -> None:
    made, catalogue = _import(release)
    assert (made.rows, made.quarantined, made.reasons, made.unmatched_regions) == (52, 0, {}, 0)
    assert dict(catalogue.modalities) == {
        "text": "text",
        "table": "table",
        "image": "image",
        "regions": "features",
        "video_features": "features",
    }
    numbers = [*release.test, *release.train]
    assert catalogue.index["id"].to_pylist() == [str(n) for n in numbers]
    assert Counter(catalogue.index["split"].to_pylist()) == {"train": 40, "test": 12}
    assert catalogue.config.labels == ("category", "lists")
    assert made.present == {
        "text": 52,
        "table": sum(n % 4 > 0 or n >= 200 for n in numbers),
        "image": sum(n % 3 == 0 for n in numbers),
        "regions": sum(n % 5 > 0 for n in numbers),
        "video_features": sum(n % 2 == 0 for n in numbers),
    }
    for name, count in made.present.items():
        assert sum(catalogue.index[f"has_{name}"].to_pylist()) == count
    assert made.lists == {"coarse_gallery": (9, 9), "coarse_query": (3, 3), "fine_query": (2, 2)}
    assert catalogue.quarantine == []
    assert json.loads((made.folder / "import.json").read_text("utf-8"))["rows"] == 52


def test_records_are_those_of_the_release(release: Release) -> None:
    _, catalogue = _import(release)
    records = _records(catalogue)
    one = records["102"]
    assert one.values["text"] == entry(102)["title"]
    assert one.values["table"] == (("颜色", "红2"), ("材质", "皮"), ("价格", "112"))
    assert one.values["image"] == release.root / "images" / "102.jpg"
    assert one.values["video_features"] == release.root / "features" / "video" / "102.npy"
    assert one.labels == {"category": LABELS[0]}
    seen = region("102")
    cell = one.values["regions"]
    assert cell.shape == (3, CHANNELS + 4)
    np.testing.assert_allclose(cell[:, :CHANNELS], seen.features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(cell[:, CHANNELS:], seen.boxes / [80, 60, 80, 60], atol=1e-3)
    # the modality takes the cell as it is, boxes too
    assert FeaturesConfig(boxes=True).decoder().decode(cell).shape == cell.shape
    documented = records["201"]
    assert documented.values["table"] == (("颜色", "红1"), ("材质", "皮"), ("材质", "布"))
    assert documented.labels == {"category": LABELS[0], "lists": "coarse_query+fine_query"}
    assert records["203"].labels["lists"] == "coarse_gallery"
    # "0" is no table, and no id divisible by five has regions
    assert "table" not in records["104"].values
    assert "regions" not in records["105"].values


def test_the_layout_is_told_by_names_and_beginnings(release: Release) -> None:
    release.json("b_all_id_label.json", {"1": entry(1)})
    release.json("a_val.json", [documented(1)])
    release.raw("notes.txt", "hello")
    release.raw("regions.lmdb", b"\0")
    release.raw("more/audio_feature/1.npy", b"")
    release.raw("features/audio/1.npy", b"")
    release.raw("features/title/1.npy", b"")
    layout = find_layout(release.root)
    assert layout.annotations == (
        "annotations/test_id_label.json",
        "a_val.json",
        "annotations/train_id_label.json",
        "b_all_id_label.json",
    )
    assert layout.label_list == "annotations/label_list.json"
    assert layout.regions == ("regions/part0.tsv", "regions/part1.tsv")
    assert layout.media == {"image": "images", "video": "videos", "audio": "audios"}
    assert layout.features == {
        "audio_features": "features/audio",
        "title_features": "features/title",
        "video_features": "features/video",
        "audio_feature": "more/audio_feature",
    }
    assert layout.ignored == ("notes.txt", "regions.lmdb")
    assert m5product.Layout.parse(layout.model_dump(mode="json")) == layout


def test_what_is_tested_on_is_not_trained_on(release: Release) -> None:
    # 100 is in the training file and in a gallery; 300 in no file but the one of everything
    release.json("fine_gallery.json", ["100", "300"])
    release.json("cls_train_ids.json", ["101", "300", "301"])
    release.json("all_id_label.json", {str(n): entry(n) for n in (*release.train, 300, 301, 302)})
    made, catalogue = _import(release)
    splits = dict(zip(*(catalogue.index[name].to_pylist() for name in ("id", "split")), strict=True))
    assert {name: splits[name] for name in ("100", "101", "200", "300", "301", "302")} == {
        "100": "test",
        "101": "train",
        "200": "test",
        "300": "test",
        "301": "train",
        "302": "train",
    }
    assert (made.rows, made.repeated, made.quarantined) == (55, 40, 0)
    assert made.lists["cls_train"] == (3, 3)


def test_labels_written_as_numbers_are_places_in_the_list(release: Release) -> None:
    release.json("annotations/train_id_label.json", {str(n): {**entry(n), "label": n - 100} for n in range(100, 104)})
    made, catalogue = _import(release)
    records = _records(catalogue)
    assert [records[str(n)].labels.get("category") for n in range(100, 104)] == [*LABELS, None]
    assert _quarantine(made) == [("103", "", "malformed")]


def test_paths_in_the_annotations_come_before_the_folders(release: Release) -> None:
    release.raw("other/x.jpg", picture(1))
    release.raw("audios/100.mp3", b"ID3")
    release.raw("videos/100.avi", b"RIFF")
    changes: dict[str, dict[str, Any]] = {
        "100": {"image": ["other/x.jpg", "images/102.jpg"]},
        "101": {"image": "https://example.invalid/a.jpg", "video": ["//cdn.invalid/b.mp4"]},
        "102": {"image": "https://example.invalid/a.jpg"},
    }
    content = {name: {**entry(int(name)), **change} for name, change in changes.items()}
    release.json("annotations/train_id_label.json", content)
    made, catalogue = _import(release)
    records = _records(catalogue)
    root = release.root
    assert records["100"].values["image"] == [root / "other" / "x.jpg", root / "images" / "102.jpg"]
    assert records["100"].values["audio"] == root / "audios" / "100.mp3"
    assert records["100"].values["video"] == root / "videos" / "100.avi"
    assert "image" not in records["101"].values
    # a link is no file, but there is one by the id
    assert records["102"].values["image"] == root / "images" / "102.jpg"
    assert made.links == {"image": 2, "video": 1}
    assert made.quarantined == 0


# -- what is not ---------------------------------------------------------------------------------------------------


def test_malformed_entries_are_set_aside_one_by_one(release: Release) -> None:
    good = {str(n): entry(n) for n in range(100, 106)}
    text = json.dumps(good)
    text = text[:-1] + ', "106": {"title": oops}, "107": ' + json.dumps(entry(107))
    text += ', "108": "text", "109": {}, "110": {"colour": "red"}, " #x": {"title": "a"}, "100": {"title": "again"}'
    text += (
        ', "111": {"title": ["a", 1], "pv": 5, "label": {"a": 1}}, "112": {"title": 7, "pv": "a#:#b#;#c", "label": " "}'
    )
    text += ', "113#2": {"title": "a", "image": {"path": "x"}, "tabular": [["a", 1], {"key": "b", "value": null}, [3]]}'
    release.raw("annotations/train_id_label.json", text + "}")
    made, catalogue = _import(release)
    records = _records(catalogue)
    assert [name for name in records if name < "200"] == [*good, "107", "111", "112", "113"]
    assert records["100"].values["text"] == entry(100)["title"]
    assert records["111"].values == {
        "regions": records["111"].values["regions"],
        "image": records["111"].values["image"],
    }
    assert records["112"].values["text"] == "7"
    assert records["112"].values["table"] == (("a", "b"),)
    assert records["112"].labels == {}
    assert records["113"].values["table"] == (("a", "1"),)
    assert Counter(_quarantine(made)) == {
        ("", "", "malformed"): 1,
        ("108", "", "malformed"): 1,
        ("109", "", "malformed"): 1,
        ("110", "", "malformed"): 1,
        ("", "", "no id"): 1,
        ("100", "", "duplicate id"): 1,
        ("111", "text", "malformed"): 1,
        ("111", "table", "malformed"): 1,
        ("111", "", "malformed"): 1,
        ("112", "table", "malformed"): 1,
        ("113", "image", "malformed"): 1,
        ("113", "table", "malformed"): 1,
    }
    assert made.reasons[""] == {"malformed": 5, "no id": 1, "duplicate id": 1}


def test_malformed_region_lines_are_set_aside_one_by_one(release: Release) -> None:
    good = write_region(region("101"))
    columns = good.rstrip(b"\n").split(b"\t")
    lines = [
        good,
        write_region(region("101", n=2)),
        b"102\tno columns\n",
        b"\n",
        b"no tab at all\n",
        b"\t1\t1\n",
        b"103\t" + b"\t".join([*columns[1:4], columns[4][:-4], *columns[5:]]) + b"\n",
        b"104\t" + b"\t".join([*columns[1:4], b"!" * 64, *columns[5:]]) + b"\n",
        write_region(region("106", channels=CHANNELS + 1)),
        write_region(region("999")),
        b"107\t" + b"A" * (1 << 24) + b"\n",
        b"108#1\t" + b"\t".join(columns[1:]),
    ]
    release.raw("regions/part0.tsv", b"".join(lines))
    (release.root / "regions" / "part1.tsv").unlink()
    made, catalogue = _import(release)
    have = {name for name, record in _records(catalogue).items() if "regions" in record.values}
    assert have == {"101", "108"}
    assert len(_records(catalogue)["101"].values["regions"]) == 3
    assert made.unmatched_regions == 1
    assert Counter(_quarantine(made)) == {
        ("", "regions", "malformed"): 2,
        ("", "regions", "over the limits"): 1,
        ("", "regions", "duplicate id"): 1,
        ("102", "regions", "malformed"): 1,
        ("103", "regions", "malformed"): 1,
        ("104", "regions", "malformed"): 1,
        ("106", "regions", "malformed"): 1,
    }


def test_malformed_feature_files_are_set_aside_and_no_pickle_is_opened(release: Release, tmp_path: Path) -> None:
    folder = release.root / "features" / "video"
    touched = tmp_path / "touched"

    class Harmful:
        def __reduce__(self) -> tuple[Any, Any]:
            return os.mkdir, (str(touched),)

    np.save(folder / "100.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    (folder / "102.npy").write_bytes(b"")
    (folder / "104.npy").write_bytes((folder / "106.npy").read_bytes()[:-3])
    (folder / "108.npy").write_text("hello")
    with (folder / "110.npy").open("wb") as stream:
        np.savez(stream, a=np.ones(2))
    np.save(folder / "112.npy", np.array(["a"]))
    np.save(folder / "114.npy", np.ones((2, 2, 2), np.float32))
    np.save(folder / "116.npy", np.ones((0, 8), np.float32))
    header = b"{'descr': '<f4', 'shape': (("
    (folder / "118.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    made, catalogue = _import(release)
    bad = {str(n) for n in (100, 102, 104, 108, 110, 112, 114, 116, 118)}
    assert {name for name, modality, _ in _quarantine(made) if modality == "video_features"} == bad
    assert Counter(reason for _, _, reason in _quarantine(made)) == {"unreadable": 4, "empty": 2, "wrong type": 3}
    assert made.present["video_features"] == 26 - len(bad)
    assert not bad & {name for name, record in _records(catalogue).items() if "video_features" in record.values}
    assert not touched.exists()


def test_no_path_leaves_the_release(release: Release, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(0))
    os.symlink(tmp_path / "secret.jpg", release.root / "images" / "100.jpg")
    os.mkfifo(release.root / "images" / "101.jpg")
    content = {
        "100": entry(100),
        "101": entry(101),
        "1": {**entry(1), "image": "../secret.jpg"},
        "2": {**entry(2), "image": str(tmp_path / "secret.jpg")},
        "3": {**entry(3), "image": "images/../../secret.jpg"},
        "../secret": entry(4),
        "..": entry(5),
        "a\nb": entry(6),
        "x" * 201: entry(7),
    }
    release.json("annotations/train_id_label.json", content)
    made, catalogue = _import(release)
    records = _records(catalogue)
    assert {"100", "101", "1", "2", "3", "../secret", ".."} <= set(records)
    for name in ("100", "101", "1", "2", "3", "../secret", ".."):
        assert "image" not in records[name].values
    assert Counter(_quarantine(made)) == {
        ("100", "image", "outside the media root"): 1,
        ("101", "image", "wrong type"): 1,
        ("1", "image", "outside the media root"): 1,
        ("2", "image", "outside the media root"): 1,
        ("3", "image", "outside the media root"): 1,
        ("", "", "no id"): 2,
    }
    # nor does a linked folder or file count as a part of it
    os.symlink(tmp_path, release.root / "linked_features")
    assert "linked_features" not in find_layout(release.root).features


def test_a_cut_file_and_a_strange_list_do_not_stop_anything(release: Release) -> None:
    text = json.dumps({str(n): entry(n) for n in range(100, 104)}, ensure_ascii=False)
    release.raw("annotations/train_id_label.json", text[: text.index('"103"') + 30])
    release.raw("coarse_gallery_ids.json", '["203", 204, null, {"a": 1}, "unknown"')
    made, catalogue = _import(release)
    assert {"100", "101", "102"} <= set(catalogue.index["id"].to_pylist())
    assert made.lists["coarse_gallery"] == (3, 2)
    assert Counter(_quarantine(made)) == {("", "", "truncated"): 2, ("", "", "malformed"): 2}


def test_a_file_that_cannot_be_opened_is_told_of(release: Release, tmp_path: Path) -> None:
    layout = find_layout(release.root)
    gone = layout.replace(
        annotations=(*layout.annotations, "gone.json"),
        lists={**layout.lists, "gone": "gone.txt"},
        regions=(*layout.regions, "gone.tsv"),
    )
    made = import_m5product(release.root, tmp_path / "out", gone)
    assert made.rows == 52
    assert made.reasons == {"": {"unreadable": 2}, "regions": {"unreadable": 1}}
    os.symlink(tmp_path, release.root / "out_of_it")
    for part in ("../other.json", str(tmp_path / "other.json"), "out_of_it/other.json"):
        with pytest.raises(BadInput, match="layout"):
            import_m5product(release.root, tmp_path / "b", layout.replace(annotations=(part,)))
    with pytest.raises(BadInput, match="no other part"):
        import_m5product(release.root, tmp_path / "b", layout.replace(features={"title": "features/video"}))


def test_a_folder_without_records_is_refused_and_nothing_is_left(release: Release, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(BadInput, match="SOURCE"):
            import_m5product(source, tmp_path / "out")
    for name in ("train", "test"):
        release.raw(f"annotations/{name}_id_label.json", '{"1": {"colour": 1}, "2": {}}')
    with pytest.raises(BadInput, match="malformed 4"):
        import_m5product(release.root, tmp_path / "out")
    release.json("annotations/train_id_label.json", {"7": {"label": "a"}})
    with pytest.raises(BadInput, match="title, attributes or files"):
        import_m5product(release.root, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "release"]


def test_an_interrupted_import_leaves_nothing_and_a_folder_in_use_is_refused(release: Release, tmp_path: Path) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_m5product(release.root, tmp_path / "out", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("x")
    with pytest.raises(BadInput, match="new or empty"):
        import_m5product(release.root, tmp_path / "out")
    assert (tmp_path / "out" / "kept").read_text() == "x"


def test_the_same_release_gives_the_same_bytes(release: Release, tmp_path: Path) -> None:
    for name in ("a", "b"):
        import_m5product(release.root, tmp_path / name)
    files = [sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("a", "b")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    for one, other in zip(*files, strict=True):
        if one.name != "import.json":
            assert one.read_bytes() == other.read_bytes()


def test_more_rows_than_a_block(release: Release, tmp_path: Path) -> None:
    def lines() -> Iterator[str]:
        for n in range(1000, 1700):
            yield json.dumps({"item_id": n, "caption": f"t{n}", "label": n % 3})

    release.raw("annotations/val.jsonl", "\n".join(lines()))
    seen: list[int] = []
    made = import_m5product(release.root, tmp_path / "out", progress=seen.append)
    catalogue = Catalogue.open(tmp_path / "out")
    assert (made.rows, len(catalogue)) == (752, 752)
    assert max(catalogue.blocks) == 256
    assert seen == sorted(seen)
    assert seen[-1] == 752
    assert _records(catalogue)["1699"].labels == {"category": LABELS[1699 % 3]}


def test_split_words() -> None:
    told = {"pretrain": "train", "subset_v2_test": "test", "coarse_gallery": "test", "fine_val": "val", "all": ""}
    assert {name: _m5_layout.split_of(name) for name in told} == told
