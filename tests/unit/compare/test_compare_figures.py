"""Figures against the definitions written out as loops; controls against their formulas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from polymodal.compare._budget import step_times, steps_within, trained_seconds
from polymodal.compare._controls import control_figures
from polymodal.compare._figures import Judge, ladder
from polymodal.compare._plan import Setting
from polymodal.compare._report import _off_budget
from polymodal.compare._view import Run
from polymodal.compare._world import World, having
from polymodal.types import Embeddings, Record


def world(records: Sequence[Record], labels: dict[str, str], groups: dict[str, str] | None = None) -> World:
    return World(Path(), cast(Any, None), tuple(records), tuple(records), "label", labels, groups or {}, "digest")


def unit(n: int, seed: int = 0) -> Embeddings:
    x = np.random.default_rng(seed).standard_normal((n, 6))
    return Embeddings(tuple(f"i{k:02d}" for k in range(n)), (x / np.linalg.norm(x, axis=1)[:, None]).astype("f4"), "m")


def ranked(space: Embeddings, row: int) -> list[str]:
    scores = space.vectors @ space.vectors[row]
    return [space.ids[at] for at in np.argsort(-scores, kind="stable")]


def standard(lists: list[list[str]], keys: dict[str, str], ids: Sequence[str], k: int) -> tuple[float, float]:
    """AP over min(k, right), precision over k; queries without another item of their key are left out."""
    aps, precisions = [], []
    for me, answers in zip(ids, lists, strict=True):
        right = [i for i in ids if i != me and keys.get(i) == keys.get(me, "?")]
        if right:
            answers = [i for i in answers if i != me][:k]
            hits = [i in right for i in answers]
            ap = sum(sum(hits[: at + 1]) / (at + 1) for at, hit in enumerate(hits) if hit) / min(k, len(right))
            aps.append(ap)
            precisions.append(sum(hits) / k)
    return float(np.mean(aps)), float(np.mean(precisions))


def released(lists: list[list[str]], keys: dict[str, str], ids: Sequence[str], k: int) -> tuple[float, float]:
    """SCALE's script: ten nearest, the query taken away after, k' = min(k, |P|, listed), P with the query itself."""
    aps, precisions = [], []
    for me, answers in zip(ids, lists, strict=True):
        if me not in keys:
            continue
        known = [i for i in ids if keys.get(i) == keys[me]]
        answers = [i for i in answers[:10] if i != me]
        cut = min(k, len(known), len(answers))
        hits = [i in known for i in answers[:cut]]
        found = sum(hits)
        ap = sum(sum(hits[: at + 1]) / (at + 1) for at, hit in enumerate(hits) if hit) / found if found else 0.0
        aps.append(ap)
        precisions.append(found / cut)
    return float(np.mean(aps)), float(np.mean(precisions))


@pytest.mark.parametrize("rule", ["standard", "released"])
def test_both_definitions_of_ap_and_precision(rule):
    space = unit(40)
    random = np.random.default_rng(1)
    labels = {i: f"c{random.integers(2)}" for i in space.ids[:35]} | {space.ids[3]: "alone"}
    groups = {i: f"g{at // 3}" for at, i in enumerate(space.ids) if at % 4}
    found = Judge(world([], labels, groups)).figures(space)
    lists = [ranked(space, row) for row in range(len(space))]
    for task, keys in (("coarse", labels), ("fine", groups)):
        for k in (1, 5, 10):
            ap, precision = (standard if rule == "standard" else released)(lists, keys, space.ids, k)
            assert found[f"{task}/{rule}/map@{k}"] == pytest.approx(ap)
            assert found[f"{task}/{rule}/precision@{k}"] == pytest.approx(precision)


def test_the_two_definitions_differ_as_the_specification_says():
    """Spec 5.2: mAP@1 is Prec@1 by the released one, and a class of one item is counted as 0 there alone."""
    space, labels = unit(30), {f"i{k:02d}": f"c{k % 4}" for k in range(30)} | {"i00": "alone"}
    found = Judge(world([], labels)).figures(space)
    assert found["coarse/released/map@1"] == found["coarse/released/precision@1"]
    assert found["coarse/released/map@1"] == pytest.approx(found["coarse/standard/map@1"] * 29 / 30)
    assert not any(name.startswith("fine") for name in found)


def test_perfect_vectors_are_perfect():
    labels = {f"i{k:02d}": f"c{k % 3}" for k in range(18)}
    space = Embeddings(tuple(labels), np.eye(3, dtype="f4")[[k % 3 for k in range(18)]], "m")
    found = Judge(world([], labels)).figures(space, space)
    for name in ("accuracy", "balanced accuracy", "nmi", "purity", "coarse/standard/map@10", "coarse/released/map@5"):
        assert found[name] == pytest.approx(1.0), name
    assert found["chance accuracy"] == pytest.approx(1 / 3)
    assert found["coarse/standard/precision@10"] == pytest.approx(0.5)  # five others of ten answers


def test_crossing_is_judged_over_the_items_that_have_both():
    ids = tuple("abcd")
    image = Embeddings(ids, np.eye(4, dtype="f4"), "m")
    text = Embeddings(ids[1:], np.eye(4, dtype="f4")[[1, 3, 2]], "m")  # c and d exchanged
    found = Judge(world([], {})).crossing({"image": image, "text": text})
    assert found["cross/image → text/hit@1"] == pytest.approx(1 / 3)
    assert found["cross chance/image → text/hit@1"] == pytest.approx(1 / 3)
    assert found["cross chance/text → image/hit@1"] == pytest.approx(1 / 4)
    assert found["cross/mean/hit@1"] == pytest.approx((1 / 3 + found["cross/text → image/hit@1"]) / 2)


def test_a_single_label_cannot_be_probed():
    space = unit(10)
    found = Judge(world([], dict.fromkeys(space.ids, "same"))).figures(space, space)
    assert "accuracy" not in found
    assert "nmi" not in found


def test_the_ladder_adds_one_at_a_time_or_takes_every_combination():
    assert ladder(("a", "b", "c"), False) == [("a",), ("a", "b"), ("a", "b", "c")]
    assert len(ladder(("a", "b", "c"), True)) == 7


def records() -> list[Record]:
    said = ["red shoe", "red lamp shoe", "blue lamp", "blue lamp lamp", "green vase", "green vase chair"]
    return [Record(f"i{k:02d}", {"words": text, "facts": (("size", k % 2),)}) for k, text in enumerate(said)]


def test_items_are_those_with_the_modalities_at_hand():
    assert [r.id for r in having([*records(), Record("none", {})], ("facts", "words"))] == [r.id for r in records()]


def test_words_find_their_like_and_chance_does_not():
    labels = {f"i{k:02d}": f"c{k // 2}" for k in range(6)}
    found = control_figures(world(records(), labels), ("words", "facts"), (0, 1))
    assert len(found["random vectors"]) == 2
    assert found["random vectors"][0] != found["random vectors"][1]
    assert len(found["TF-IDF"]) == len(found["BM25"]) == 1
    assert found["TF-IDF"][0]["coarse/standard/map@1"] == found["BM25"][0]["coarse/standard/map@1"] == 1.0
    assert "accuracy" in found["TF-IDF"][0]
    assert "accuracy" not in found["BM25"][0]
    # red shoe lamp blue green vase chair; sizes are numbers, and "size" is what all items say
    assert found["TF-IDF"][0]["words"] == found["BM25"][0]["words"] == 7
    nothing = control_figures(world([Record("a", {"v": np.ones(2)}), Record("b", {"v": np.ones(2)})], {}), ("v",), (0,))
    assert set(nothing) == {"random vectors"}


def test_seconds_of_a_step_come_from_the_running_rate(tmp_path):
    # four steps of 16 rows: 1 s, 1 s, 2 s, 4 s
    rates = [16 / 1, 32 / 2, 48 / 4, 64 / 8]
    lines = [f'{{"items_per_second": {rate}}}' for rate in rates]
    assert step_times(lines, 16) == pytest.approx([1.0, 1.0, 2.0, 4.0])
    assert steps_within(10, 0.24) == 42
    assert steps_within(0.1, 5.0) == 1
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert trained_seconds(tmp_path, 16, 4, False) == pytest.approx(8.0)
    assert trained_seconds(tmp_path, 16, 4, True) is None


def test_methods_that_missed_their_seconds_are_named():
    def ran(method: str, budget: str, seconds: float | None) -> Run:
        return Run(method, Setting(("text",), budget, 20), 0, 10, 1.0, seconds=seconds)

    runs = [ran("slow", "seconds", 31), ran("slow", "seconds", 20), ran("near", "seconds", 29), ran("x", "steps", 900)]
    (said,) = _off_budget(20, [*runs, ran("resumed", "seconds", None)])
    assert said == "Not within 1.5 times the 20 s budget: slow 31 s."
    assert _off_budget(20, runs[1:]) == []
    assert "quick 13 s" in _off_budget(20, [ran("quick", "seconds", 13)])[0]
