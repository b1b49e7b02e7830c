"""The rows of each arm, one training of a few steps, and what is said of given figures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from polymodal.bench import m3ae
from polymodal.bench._base import Options
from polymodal.recipes.m3ae import recipe
from polymodal.types import BadInput, Record

KINDS = {"image": "image", "text": "text"}


@pytest.fixture
def shop():
    rows = [Record(f"i{at}", {"image": np.zeros((1, 72, 72, 3), np.uint8), "text": "red shoe"}) for at in range(50)]
    return m3ae._Shop(rows, rows, {}, recipe(KINDS), {})


def texts(rows):
    return {record.id.removesuffix(" text") for record in rows if "text" in record.values}


def test_items_with_a_text_are_nested_and_as_many_as_said(shop):
    few, more, all_ = (texts(m3ae._records(shop, m3ae.Arm("", "", captions=c), 0)) for c in (0.1, 0.3, 1.0))
    assert (len(few), len(more), len(all_)) == (5, 15, 50)
    assert few < more < all_
    assert not texts(m3ae._records(shop, m3ae.Arm("", "", captions=0.0), 0))
    assert few != texts(m3ae._records(shop, m3ae.Arm("", "", captions=0.1), 1))


def test_unpaired_rows_hold_the_same_cells_one_each(shop):
    paired = m3ae._records(shop, m3ae.Arm("", "", captions=0.3), 0)
    apart = m3ae._records(shop, m3ae.Arm("", "", captions=0.3, paired=False), 0)
    assert (len(paired), len(apart)) == (50, 65)
    assert all(len(record.values) == 1 for record in apart)
    assert texts(paired) == texts(apart)
    assert len({record.id for record in apart}) == 65


def test_one_arm_from_catalogue_to_score(tmp_path, monkeypatch):
    """Kept figures are not measured again; the controls stand beside every table."""
    monkeypatch.setattr(m3ae, "ARMS", m3ae.ARMS[:1])
    said = []
    options = Options(seeds=(0,), quick=True, out=tmp_path, say=said.append, settings={"items": "60", "steps": "2"})
    size = m3ae._sized(options)
    found = m3ae._repetition(0, size, options)
    assert set(found) == {m3ae.ARMS[0].name, *m3ae._CONTROLS}
    assert all(0 <= value <= 1 for scores in found.values() for value in scores.values())
    assert len(said) == 1
    assert m3ae._repetition(0, size, options) == found
    assert said[1:] == ["seed 0: kept from before"] * 2
    # another label is another question
    other = m3ae._repetition(0, replace(size, label="shape"), options)
    assert other["most frequent value"] != found["most frequent value"]


def test_findings_follow_from_the_figures(monkeypatch):
    names = [arm.name for arm in m3ae.ARMS] + list(m3ae._CONTROLS)
    scores = {name: {"linear": 0.4, "k-NN": 0.3} for name in names}
    scores["50% of the text hidden"] = {"linear": 0.7, "k-NN": 0.3}
    scores["75% of the text hidden"] = {"linear": 0.6, "k-NN": 0.3}
    scores["10% of the items have a text"] = {"linear": 0.45, "k-NN": 0.3}
    monkeypatch.setattr(m3ae, "_repetition", lambda *_: scores)
    result = m3ae.run(Options(seeds=(0, 1)))
    text = result.to_markdown()
    assert "Best text ratio by linear probe: 50%" in text
    assert "all items against none: +0.200 [+0.200, +0.200]" in text
    assert "+0.050 [+0.050, +0.050], 25% of what all titles bring" in text
    assert "| 100% of the items have a text | 0.600" in text
    assert text.count("raw pixels (16 x 16) |") == 3
    json.dumps(result.to_json())


def test_one_question_needs_its_own_arms_only(monkeypatch):
    size = m3ae._sized(Options(settings={"tables": "captions"}))
    names = {arm.name for arm in size.arms}
    assert names == {"75% of the text hidden", *(f"{c}% of the items have a text" for c in (0, 10, 30))}
    scores = {name: {"linear": 0.4, "k-NN": 0.3} for name in names | set(m3ae._CONTROLS)}
    monkeypatch.setattr(m3ae, "_repetition", lambda *_: scores)
    result = m3ae.run(Options(seeds=(0,), settings={"tables": "captions"}))
    assert len(result.tables) == 1
    assert result.findings
    assert not [text for text in result.findings if "ratio" in text or "rows of their own" in text or "of what" in text]


@pytest.mark.parametrize("settings", [{"epochs": "3"}, {"tables": "ratio,paring"}])
def test_an_unknown_setting_is_refused(settings):
    with pytest.raises(BadInput, match="items, steps, batch, label"):
        m3ae.run(Options(settings=settings))
