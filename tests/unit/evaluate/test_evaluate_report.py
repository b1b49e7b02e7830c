from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from polymodal.evaluate import (
    AS_IS,
    Breakdown,
    Facts,
    Headline,
    Report,
    by_id,
    by_key,
    by_pattern,
    cluster,
    compare_controls,
    geometry,
    knn_probe,
    make_examples,
    mean_fusion,
    mean_weights,
    random_like,
    read_curves,
    retrieve,
    ridge_probe,
    spearman,
    subset_matrix,
    subset_scores,
    write_report,
)
from polymodal.types import BadInput, Embeddings, MissingExtra

NAMES = ("image", "text")
NASTY = "<script>alert('x')</script> & \"quoted\" 茶壶"


def vectors(n: int, seed: int, item: np.ndarray, noise: float) -> np.ndarray:
    x = item + noise * np.random.default_rng(seed).standard_normal(item.shape)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def full_report(n: int = 60) -> Report:
    rng = np.random.default_rng(0)
    ids = tuple(f"i{k:02d}" for k in range(n))
    code = rng.integers(0, 12, n)  # more labels than colours
    item = 2 * rng.standard_normal((12, 8))[code] + rng.standard_normal((n, 8))
    labels = {i: f"{NASTY} {c}" for i, c in zip(ids, code, strict=True)}
    per = {m: Embeddings(ids[k:], vectors(n, k, item, 0.8)[k:], "m") for k, m in enumerate(NAMES)}
    both = mean_fusion({m: Embeddings(ids[1:], e.rows(ids[1:]), "m") for m, e in per.items()})
    subsets = {frozenset({"image"}): per["image"], frozenset({"text"}): per["text"], frozenset(NAMES): both}
    fused = mean_fusion(per)
    controls = {"fused": {**subsets, AS_IS: fused}, "random": {s: random_like(e) for s, e in subsets.items()}}
    controls["random"][AS_IS] = random_like(fused)
    comparison = compare_controls(controls, labels, label=NASTY, resamples=50)
    picture = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(picture, "PNG")
    present = np.ones((n, 2), bool)
    present[0, 1] = False
    presence = {i: frozenset(NAMES) if k else frozenset({"image"}) for k, i in enumerate(ids)}
    image, text = subsets[frozenset({"image"})], subsets[frozenset({"text"})]
    return Report(
        title=NASTY,
        command="polymodal evaluate run --split test",
        made="today",
        headlines=(Headline("12.3 %", "text to image R@1", "chance 1 %"),),
        facts=Facts(n, {"test": n}, {"image": 1.0, "text": 0.98}, ((frozenset(NAMES), n - 1),), {"category": 12}, 3),
        retrievals={
            "image → text": retrieve(
                image, text, by_id(image.ids, text.ids), metrics=("hit@1", "hit@5", "hit@10", "mrr"), resamples=50
            ),
            NASTY: retrieve(fused, fused, by_key(ids, ids, labels), resamples=50),
        },
        matrix=subset_matrix(subsets, resamples=50),
        subset_scores=subset_scores(subsets, labels, resamples=50),
        comparisons=(comparison,),
        probes=(knn_probe(fused, None, labels, resamples=50),),
        regressions=(ridge_probe(fused, fused, dict.fromkeys(ids, 0.0) | {ids[0]: 1.0}, resamples=50),),
        clusterings=(cluster(fused, labels, starts=2, seeds=(0,)),),
        weights={"harmonised": mean_weights(rng.random((n, 2, 2)), present, NAMES)},
        correlations={"weight and usefulness": spearman([1, 2, 3], [1, 3, 2])},
        geometry={"fused": geometry(fused.vectors)},
        breakdowns=(
            Breakdown("By pattern", "mAP", by_pattern(comparison.values["fused", AS_IS, "label_map"], presence)),
        ),
        examples=make_examples("text -> image", text, image, by_id(text.ids, image.ids), count=2, query_picture=False),
        curves={"total": [(s, 2.0 - s / 100) for s in range(50)], "terms.text": [(0, 1.0), (1, float("nan"))]},
        space=fused,
        space_labels=labels,
        space_label="kind",
        space_presence=presence,
        thumbnails={i: picture.getvalue() for i in ids[1:]} | {ids[0]: b"not a picture"},
        titles=dict.fromkeys(ids, NASTY),
        commands={"curves": "polymodal train scale --size tiny"},
        notes=(NASTY,),
    )


class Page(HTMLParser):
    """Collects what a page asks for, and checks that its tags close."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.asks, self.tags, self.anchors = [], [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                (self.anchors if value.startswith("#") else self.asks).append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report") / "new", full_report())


def test_the_page_stands_alone_and_escapes(written):
    text = written[1].read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert text.count("<script") == 2  # the map's data and what moves it; what a catalogue says is in neither as markup
    assert not re.search(r"<script[^>]* src|fetch\(|XMLHttpRequest|import\(|sendBeacon", text)
    assert "link" not in page.tags
    assert all(value.startswith("data:image/") for value in page.asks)
    assert not re.search(r"url\((?!#)", text)
    assert "茶壶" in text
    assert len(text) < 10_000_000
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.anchors} <= set(page.ids)


def test_the_page_has_every_section_and_its_command(written):
    text = written[1].read_text("utf-8")
    page = Page(text)
    sections = {"summary", "facts", "retrieval", "matrix", "controls", "probes", "breakdowns", "weights", "curves"}
    assert sections | {"space", "examples"} <= set(page.ids)
    assert text.count("polymodal train scale --size tiny") == 1
    assert text.count("polymodal evaluate run --split test") == 11  # ten sections and the head
    assert text.count('class="card query"') == 2
    assert "asked without a picture" in text
    assert "fused wins" in text


def test_retrieval_is_one_line_a_question_and_everything_else_is_folded(written):
    text = written[1].read_text("utf-8")
    section = text[text.index('<section id="retrieval">') :]
    section = section[: section.index("</section>")]
    shown, folded = section.split("<details>")
    assert shown.count("<table") == 1
    assert shown.count("<tr>") == 1 + 2
    heads = re.findall(r'scope="col">([^<]*)<', shown)
    assert heads == ["what looks for what", "queries", "among", "R@1", "R@5", "R@10", "mAP"]
    first = re.findall(r"<td[^>]*>(.*?)</td>", shown.split("<tr>")[2])
    assert first[0] == "image\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}text"
    numbers = json.loads(written[0].read_text("utf-8"))["retrievals"]
    single = numbers["image → text"]["metrics"]
    assert "map" not in single
    assert first[6].startswith(f"{single['mrr']['mean']:.3f}<br>")  # one item is right: its mAP is its MRR
    hit, chance = numbers["image → text"]["metrics"]["hit@5"], numbers["image → text"]["chance"]["hit@5"]
    assert first[4] == (
        f"{hit['mean']:.3f}<br><span class='ci'>{hit['low']:.3f}–{hit['high']:.3f} · {chance:.3f}</span>"
    )
    # every figure of the JSON is still on the page, with its interval
    for found in numbers.values():
        for one in found["metrics"].values():
            assert f'{one["mean"]:.3f} <span class="ci">{one["low"]:.3f}–{one["high"]:.3f}</span>' in folded
    assert folded.count("<table") == 2
    assert "chance" in folded


def test_queries_without_a_right_answer_are_not_counted_in_the_table(tmp_path):
    ids = ("a", "b", "c")
    space = Embeddings(ids, np.eye(3, dtype=np.float32), "m")
    found = retrieve(space, space, by_key(ids, ids, {"a": "x", "b": "x", "c": "y"}), resamples=10)
    text = write_report(tmp_path, Report("t", "c", retrievals={"same": found}))[1].read_text("utf-8")
    assert re.findall(r'<td class="n">(\d+)</td>', text)[:2] == ["2", "3"]
    assert "3 queries, 3 items to find among, 1 queries without a right answer left out." in text


def test_the_numbers_are_strict_json(written):
    def refuse(value: str) -> None:
        raise AssertionError(value)

    numbers = json.loads(written[0].read_text("utf-8"), parse_constant=refuse)
    assert numbers["statements"][0]["verdict"] in ("first", "second", "unclear")
    assert "thumbnails" not in numbers
    assert numbers["matrix"]["cells"][0]["metrics"]["hit@1"]["n"] > 0
    assert numbers["curves"]["terms.text"][1] == [1, None]
    assert not list(written[0].parent.glob("*.part"))


def test_an_empty_report_is_a_page_too(tmp_path):
    _, html = write_report(tmp_path, Report("nothing", "none"))
    assert "<section" not in html.read_text("utf-8")


def test_the_same_report_twice_is_the_same_page(tmp_path, written):
    again = write_report(tmp_path, full_report())
    assert again[1].read_bytes() == written[1].read_bytes()
    assert again[0].read_bytes() == written[0].read_bytes()


def test_without_matplotlib_the_numbers_are_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"polymodal\[report\]"):
        write_report(tmp_path, full_report())
    assert (tmp_path / "report.json").exists()
    assert not (tmp_path / "report.html").exists()


def test_examples_show_what_was_found():
    ids = ("a", "b", "c")
    space = Embeddings(ids, np.asarray([[1, 0], [0.8, 0.6], [0, 1]], np.float32), "m")
    (found,) = make_examples("t", space, space, by_key(ids, ids, {"a": "x", "c": "x", "b": "y"}), ids=["a"], k=5)
    assert [(a.id, a.right) for a in found.answers] == [("b", False), ("c", True)]
    with pytest.raises(BadInput, match="zzz"):
        make_examples("t", space, space, by_id(ids, ids), ids=["zzz"])


def test_curves_are_read_from_any_nesting(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "lr": 0.1, "terms": {"a": {"value": 2}}, "total": 3, "ok": true}\n\n{"x": 1}\n{"step": 2, "to'
    )
    assert read_curves(path) == {"total": [(1.0, 3.0)], "lr": [(1.0, 0.1)], "terms.a.value": [(1.0, 2.0)]}
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(BadInput, match="line 1"):
        read_curves(path)


def test_nothing_here_imports_torch_or_the_optional_packages():
    code = "import polymodal.evaluate, sys; print([m for m in ('torch', 'sklearn', 'matplotlib') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
