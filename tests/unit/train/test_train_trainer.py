"""The loop: exact resuming, Ctrl-C, alarms, precision, accumulation. All on models of a few thousand parameters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import micro
import pytest
import torch
from rich.console import Console

from polymodal.tensors import Losses, Term
from polymodal.train.checkpoint import latest
from polymodal.train.monitor import Diverged
from polymodal.train.trainer import Interrupted
from polymodal.types import CorruptCheckpoint


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "items_per_second"} for line in read]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def stop_after(trainer, step: int, number: int = signal.SIGINT) -> None:
    """As if Ctrl-C came during `step`."""
    update = trainer._update

    def pressing(batches):
        if trainer.step == step - 1:
            signal.raise_signal(number)
        return update(batches)

    trainer._update = pressing


# -- exactness ---------------------------------------------------------------------------------------------------------

PLAIN = micro.recipe()
RICH = micro.recipe(ema=0.9, accumulate=2, workers=2)


@pytest.mark.parametrize("made", [PLAIN, RICH], ids=["plain", "ema+accumulation+workers"])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, made):
    """24 rows make 3 steps an epoch: stopped at 4, in the middle of the second, with a checkpoint at 3 besides."""
    whole = micro.trainer(tmp_path / "whole", made)
    whole.fit()
    first = micro.trainer(tmp_path / "cut", made)
    stop_after(first, 4)
    with pytest.raises(Interrupted, match=r"after step 4 of 6, saved.*--resume"):
        first.fit()
    torch.manual_seed(12345)  # nothing may depend on what the new process happens to have drawn
    again = micro.trainer(tmp_path / "cut", made)
    assert again.resume() == []
    assert again.step == 4
    same(micro.weights(again), micro.weights(first))
    again.fit()
    same(micro.weights(again), micro.weights(whole))
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    one, other = (latest(tmp_path / at / "checkpoints")[0] for at in ("cut", "whole"))
    assert one.state == other.state


def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    made = micro.recipe()
    run = micro.trainer(tmp_path, made)
    run.fit()
    wanted = lines(tmp_path)
    for folder in sorted((tmp_path / "checkpoints").iterdir())[1:]:
        (folder / "state.json").unlink()
    again = micro.trainer(tmp_path, made)
    (said,) = again.resume()
    assert "step-000000006" in said
    assert "step-000000003" in said
    assert again.step == 3
    again.fit()
    assert lines(tmp_path) == wanted
    same(micro.weights(again), micro.weights(run))


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CorruptCheckpoint, match="No checkpoint"):
        micro.trainer(tmp_path).resume()


def test_two_runs_are_one(tmp_path):
    one, other = (micro.trainer(tmp_path / name) for name in ("a", "b"))
    one.fit()
    torch.rand(7)
    other.fit()
    same(micro.weights(one), micro.weights(other))
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    third = micro.trainer(tmp_path / "c", micro.recipe(seed=1))
    third.fit()
    assert not torch.equal(next(third.model.parameters()), next(one.model.parameters()))


def test_dropout_resumes_exactly_too(tmp_path):
    made = micro.recipe()
    stack = made.model.trunk.replace(dropout=0.3)
    made = made.replace(model=made.model.replace(trunk=stack, tower=stack))
    whole = micro.trainer(tmp_path / "whole", made)
    whole.fit()
    first = micro.trainer(tmp_path / "cut", made)
    stop_after(first, 2, signal.SIGTERM)
    with pytest.raises(Interrupted):
        first.fit()
    again = micro.trainer(tmp_path / "cut", made)
    again.resume()
    again.fit()
    same(micro.weights(again), micro.weights(whole))


@pytest.mark.parametrize("absent", micro.NAMES)
def test_training_goes_on_where_no_row_has_a_modality(tmp_path, absent):
    rows = [replace(r, values={n: v for n, v in r.values.items() if n != absent}) for r in micro.records(40)]
    rows = [r for r in rows if r.values]
    # the modality is in the schema and was fitted on rows that have it
    run = micro.trainer(tmp_path, micro.recipe(steps=2), rows=[*rows[:20], *micro.records(4)])
    run.fit()
    only = micro.trainer(tmp_path / "none", micro.recipe(steps=2), rows=micro.records())
    only.stream._maker.blocks._rows = micro.Memory(rows[:24])
    only.fit()
    (_, last) = lines(tmp_path / "none")
    counts = {name: count for name, (_, count) in last["terms"].items() if absent in name}
    assert set(counts.values()) == {0}
    assert len(counts) >= 4  # masked, fusion and two contrasts: named and counted, not left out


# -- what a step does --------------------------------------------------------------------------------------------------


def test_metrics_say_every_term_with_its_count(tmp_path):
    micro.trainer(tmp_path).fit()
    for at, line in enumerate(lines(tmp_path)):
        assert line["step"] == at + 1
        assert {"masked/title", "contrast/title~facts", "fusion/vector"} <= set(line["terms"])
        assert len(line["terms"]) >= 9
        assert all(count >= 0 for _, count in line["terms"].values())
        assert line["flops_valid"] <= line["flops_spent"]
        assert line["alarms"] == []
        assert 1 <= line["effective_rank"] <= 8
        assert line["gradient_norm"] > 0
    assert [line["epoch"] for line in lines(tmp_path)] == [0, 0, 1, 1, 1, 2]  # the state after a step


def test_the_loss_goes_down(tmp_path):
    run = micro.trainer(tmp_path, micro.recipe(steps=40, learning_rate=1e-2, checkpoint_every=100, augment=False))
    run.fit()
    losses = [line["loss"] for line in lines(tmp_path)]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_gradients_are_clipped(tmp_path):
    run = micro.trainer(tmp_path, micro.recipe(steps=1, clip=1e-3))
    run.fit()
    norm = torch.stack([p.grad.norm() for p in run.modules.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    assert lines(tmp_path)[0]["gradient_norm"] > 1e-2


def test_accumulation_averages_micro_batches(tmp_path):
    run = micro.trainer(tmp_path, micro.recipe(accumulate=2, clip=1e9))
    stream = run.stream.batches(run.state)
    halves = [run._take(stream) for _ in range(2)]
    assert [len(views[0]) for views in halves] == [4, 4]
    by_hand = []
    from polymodal.draws import seed_of

    for at, views in enumerate(halves):
        run.modules.zero_grad()
        run.objective(run.model, views, seed_of(0, 0, at)).total.backward()
        by_hand.append(
            {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in run.modules.named_parameters()}
        )
    run._update(halves)
    for name, p in run.modules.named_parameters():
        assert torch.allclose(
            torch.zeros_like(p) if p.grad is None else p.grad, (by_hand[0][name] + by_hand[1][name]) / 2, atol=1e-6
        ), name


def test_the_average_is_what_is_exported(tmp_path):
    run = micro.trainer(tmp_path, micro.recipe(ema=0.5))
    run.fit()
    exported = run.exported()
    assert set(exported) == set(run.model.state_dict())
    assert all(torch.equal(exported[n], run.average.values[n]) for n in run.average.values)
    assert any(not torch.equal(exported[n], p) for n, p in run.model.named_parameters())
    plain = micro.trainer(tmp_path / "plain")
    assert all(torch.equal(v, plain.model.state_dict()[n]) for n, v in plain.exported().items())


def test_bf16_on_cpu_is_near_fp32(tmp_path):
    runs = {}
    for precision in ("fp32", "bf16"):
        run = micro.trainer(tmp_path / precision, micro.recipe(steps=4, precision=precision))
        run.fit()
        runs[precision] = lines(tmp_path / precision)
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert runs["fp32"] != runs["bf16"]
    for exact, near in zip(runs["fp32"], runs["bf16"], strict=True):
        assert near["loss"] == pytest.approx(exact["loss"], rel=0.03)
        assert {n: c for n, (_, c) in near["terms"].items()} == {n: c for n, (_, c) in exact["terms"].items()}


# -- alarms ------------------------------------------------------------------------------------------------------------


def test_one_step_that_is_no_number_is_skipped_and_five_end_the_run(tmp_path):
    run = micro.trainer(tmp_path, micro.recipe(steps=20))
    real, calls = run.objective.forward, []
    before = {}

    def sometimes(model, views, seed):
        calls.append(seed)
        losses = real(model, views, seed)
        if len(calls) == 2:
            before.update(micro.weights(run))
        if len(calls) == 3:
            assert all(torch.equal(v, before[n]) for n, v in micro.weights(run).items()), (
                "a step with NaN changed weights"
            )
        bad = len(calls) == 2 or len(calls) >= 5
        terms = {n: Term(t.value * (float("nan") if bad else 1.0), t.count) for n, t in losses.terms.items()}
        return Losses(terms, losses.weights, losses.log, losses.embedded)

    run.objective.forward = sometimes
    with pytest.raises(Diverged, match=r"5 steps in a row.*learning_rate"):
        run.fit()
    assert len(calls) == 9
    assert all(p.isfinite().all() for p in run.model.parameters())
    found, _ = latest(tmp_path / "checkpoints")
    assert found.step <= 9
    assert all(v.isfinite().all() for v in found.tensors["model"].values())


def test_constant_embeddings_raise_the_collapse_alarm(tmp_path):
    console = Console(record=True, force_terminal=False, width=200)
    run = micro.trainer(tmp_path, micro.recipe(steps=8, warmup=0.2), console=console)
    real = run.model._project

    def constant(name, pooled):
        return replace(real(name, pooled), z=torch.ones(len(pooled.z), 8) / 8**0.5)

    run.model._project = constant
    run.fit()
    said = [line["alarms"] for line in lines(tmp_path)]
    assert sum(map(len, said)) == 1
    assert said[0] == said[1] == []
    assert "collapse" in console.export_text()


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------

CHILD = """
import sys, pathlib
sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
import micro
from rich.console import Console
from polymodal.types import PolymodalError
made = micro.recipe(steps=100000, checkpoint_every=100000, workers=1)
run = micro.trainer(pathlib.Path({run!r}), made, console=Console())
said = run._update
def update(batches):
    out = said(batches)
    print("step", run.step, flush=True)
    return out
run._update = update
try:
    run.fit()
except PolymodalError as error:
    print("said:", error, flush=True)
    sys.exit(130)
"""


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    code = CHILD.format(tests=str(Path(__file__).parents[2]), run=str(tmp_path))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=env,
    )
    try:
        for line in process.stdout:
            if line.startswith("step 2"):
                break
        # a terminal sends Ctrl-C to every process of the group, the loader's workers too
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        said = out[out.index("said:") :]
        assert "saved" in said
        assert f"polymodal train --resume {tmp_path}" in said
        found, warnings = latest(tmp_path / "checkpoints")
        assert warnings == []
        assert f"after step {found.step} of" in said
        assert found.step >= 3
        for _ in range(100):
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("a worker was left behind")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    run = micro.trainer(tmp_path, micro.recipe(steps=50))
    update = run._update

    def impatient(batches):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return update(batches)

    run._update = impatient
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_last_step_is_saved_is_not_lost(tmp_path, monkeypatch):
    trainer = micro.trainer(tmp_path, micro.recipe(steps=2))
    save = trainer.save

    def slow() -> None:
        save()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "save", slow)
    with pytest.raises(Interrupted, match="after step 2 of 2, saved"):
        trainer.fit()
