from __future__ import annotations

from types import SimpleNamespace

import pytest

from polymodal.objectives.m3ae import M3AEConfig
from polymodal.objectives.scale import ScaleConfig
from polymodal.workflow.evaluation import EvaluateSettings, _notes


@pytest.mark.parametrize(("objective", "warned"), [(M3AEConfig(), True), (ScaleConfig(), False)])
def test_the_report_says_where_single_modalities_are_not_comparable(objective, warned):
    embedder = SimpleNamespace(model="digest", modalities={}, recipe=SimpleNamespace(objective=objective))
    world = SimpleNamespace(
        settings=EvaluateSettings(), learnt=SimpleNamespace(presence={}), embedder=embedder, records=[], notes=["last"]
    )
    notes = _notes(world)
    assert notes[-1] == "last"
    assert any("expect chance" in note and "m3ae" in note for note in notes) == warned
