"""Hard negatives of the training set: asked for by a recipe, found before training, the same when a run goes on."""

from __future__ import annotations

import micro
import pyarrow as pa
import pytest
import torch

from polymodal.objectives.interbert import InterbertConfig, Replacement
from polymodal.recipes.interbert import recipe, reference
from polymodal.types import BadInput
from polymodal.workflow import training


class Rows(micro.Memory):
    @property
    def index(self) -> pa.Table:
        return pa.table({"id": super().index.column("id"), "split": [""] * len(self)})


@pytest.fixture
def made(monkeypatch, tmp_path):
    rows = Rows(micro.records(32))
    monkeypatch.setattr(training, "open_rows", lambda path: rows)
    monkeypatch.setattr(training, "check_shapes", lambda rows, decoders: None)

    def of(corpus, **train):
        base = micro.recipe(("trunk", "towers"), **train)
        how = InterbertConfig(replacement=Replacement(corpus=corpus, hard=0.4))
        return base.replace(data=str(tmp_path), objective=how)

    return of


def test_a_run_with_hard_negatives_goes_on_as_if_it_had_not_stopped(made, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []
    take = training.Trainer._take

    def noting(self, batches):
        views = take(self, batches)
        seen.append(views[0].hard != views[0].keys)
        return views

    monkeypatch.setattr(training.Trainer, "_take", noting)
    training.train(made("title", steps=6), tmp_path / "whole")
    assert 0.1 < float(torch.cat(seen).double().mean()) < 0.5
    training.train(made("title", steps=3), tmp_path / "part")
    text = (tmp_path / "part" / "recipe.json").read_text()
    (tmp_path / "part" / "recipe.json").write_text(text.replace('"steps": 3', '"steps": 6'))
    training.resume(tmp_path / "part")
    for one, other in zip(seen[:6], seen[6:], strict=True):
        assert torch.equal(one, other)
    whole, part = ((tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in ("whole", "part"))
    assert len(whole) == len(part) == 6


@pytest.mark.parametrize(("corpus", "said"), [("titel", "title"), ("vector", "counted")])
def test_what_cannot_be_compared_is_refused_before_anything_is_written(made, tmp_path, corpus, said):
    with pytest.raises(BadInput, match=said):
        training.train(made(corpus), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_the_reference_asks_for_them():
    kinds = {"photo": "image", "title": "text", "more": "text"}
    assert reference(kinds).objective.replacement == Replacement(hard=0.2, top=30, band=(0.0, 0.5), corpus="title")
    assert reference({"photo": "image"}).objective.replacement.hard == 0.0
    assert recipe(kinds).objective.replacement.corpus == ""
