from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from polymodal.train.monitor import Alarm, Diverged, Metrics, Ticker, effective_rank


@given(st.integers(1, 6), st.floats(0.01, 100), st.floats(-5, 5))
def test_effective_rank_counts_directions(rank, scale, shift):
    points = torch.eye(8, dtype=torch.float64)[:rank].repeat(2, 1)
    points[rank:] *= -1
    assert effective_rank(points * scale + shift) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_of_a_collapsed_set_is_one():
    assert effective_rank(torch.full((10, 4), 0.5)) == 1.0
    assert effective_rank(torch.rand(1, 4)) == 1.0
    assert effective_rank(torch.arange(10.0)[:, None] * torch.ones(4)) == pytest.approx(1.0, abs=1e-6)
    assert effective_rank(torch.randn(500, 8)) > 7.5


def test_divergence_is_said_once_after_warm_up():
    alarm = Alarm(width=64)
    assert alarm.look(1.0, 30, False) == []
    assert alarm.look(50.0, 30, False) == []
    (said,) = alarm.look(50.0, 30, True)
    assert said.startswith("divergence")
    assert "1" in said
    assert alarm.look(60.0, 30, True) == []


def test_collapse_needs_three_looks_in_a_row():
    alarm = Alarm(width=64)
    said = [alarm.look(1.0, rank, True) for rank in (1, 1, 40, 1, 1, 1, 1)]
    assert [bool(s) for s in said] == [False] * 5 + [True, False]
    assert said[5][0].startswith("collapse")
    early = Alarm(width=64)
    assert [early.look(1.0, 1, False) for _ in range(5)] == [[]] * 5
    assert [early.look(1.0, None, True) for _ in range(5)] == [[]] * 5


def test_steps_that_are_not_finite_end_the_run():
    alarm = Alarm(width=8, patience=3)
    for ok in (False, False, True, False, False):
        alarm.finite(1, ok)
    with pytest.raises(Diverged, match="3 steps in a row"):
        alarm.finite(7, False)


def test_alarms_remember_over_a_resume():
    alarm = Alarm(width=64)
    assert Alarm(64).state()["best"] is None
    alarm.look(2.0, 1, True)
    alarm.look(1.5, 1, True)
    alarm.finite(3, False)
    again = Alarm(width=64)
    again.restore(json.loads(json.dumps(alarm.state(), allow_nan=False)))
    assert again.look(9.0, 1, True) == alarm.look(9.0, 1, True) != []
    assert again.state() == alarm.state()
    fresh = Alarm(8)
    fresh.restore(Alarm(8).state())
    assert math.isinf(fresh.best)


def test_metrics_after_the_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    for step in (1, 2, 3):
        metrics.write({"step": step, "loss": 0.5})
    with path.open("a") as out:
        out.write('{"step": 4, "lo')  # cut by a crash
    Metrics(path, 2).write({"step": 3, "loss": 0.25})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_plain_lines_where_there_is_no_terminal():
    console = Console(record=True, force_terminal=False, width=100)
    with Ticker(100, 0, console, every=50) as ticker:
        for step in (10, 50, 100):
            ticker.step(step, 1.23456, 12.3)
        ticker.say("look here")
    text = console.export_text()
    assert "step 50/100  loss 1.235  12 items/s" in text
    assert "step 100/100" in text
    assert "step 10/100" not in text
    assert "look here" in text
    with Ticker(3, 0, None) as quiet:
        quiet.step(3, 1.0, 1.0)
        quiet.say("nobody")
