"""Fine-tuning: levels of the learning rate, exact resuming, the epoch that is kept, balancing."""

from __future__ import annotations

import micro
import numpy as np
import pytest
import support
import torch

from polymodal.catalogue.loader import Loader, collate
from polymodal.catalogue.sampler import BlockShuffle
from polymodal.embed import Embedder
from polymodal.model import ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.recipe import build_model
from polymodal.tasks.classify import fit_probe
from polymodal.tasks.finetune import Finetune, FinetuneConfig, Head, levels
from polymodal.train.trainer import Interrupted
from polymodal.types import Embeddings


@pytest.fixture(scope="module")
def world():
    """A model as initialised, rows with a label that its vectors tell badly, and the probe of them."""
    recipe, rows = micro.recipe(), micro.records(96)
    torch.manual_seed(0)
    model = build_model(recipe, micro.fit(recipe, rows))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = micro.fit(recipe, rows)
    labels = {r.id: r.labels["colour"] for r in rows}
    vectors = Embedder(model, recipe, "m").vectors(rows, ["item"])["item"]
    train, held = (Embeddings(ids, vectors.rows(ids), "m") for ids in (vectors.ids[:64], vectors.ids[64:]))
    return recipe, rows, fitted, state, fit_probe(train, held, labels).head, labels


def made(world, folder, **changes):
    recipe, rows, fitted, state, start, labels = world
    model = build_model(recipe, fitted)
    model.load_state_dict(state)
    config = FinetuneConfig(**{"epochs": 4, "batch_size": 16, "checkpoint_every": 3, "learning_rate": 3e-3, **changes})
    memory = micro.Memory(rows)
    modalities = {name: model.modality(name) for name in model.names}
    order = BlockShuffle(memory.blocks, np.arange(64), config.seed, drop_last=False)
    loader = Loader(memory, modalities, order, batch_size=16, seed=config.seed, label="colour")
    held = [collate(rows[64:], modalities, label="colour")]
    counts = {name: sum(labels[r.id] == name for r in rows[:64]) for name in start.labels}
    return Finetune(model, start, loader, held, counts, config, folder)


def test_it_begins_as_the_probe_and_ends_no_worse_on_the_validation_items(world, tmp_path):
    tune = made(world, tmp_path)
    head = tune.fit()
    assert [epoch.number for epoch in tune.epochs] == [0, 1, 2, 3, 4]
    best = tune.best_epoch
    assert best.loss == min(epoch.loss for epoch in tune.epochs)
    assert best.loss < tune.epochs[0].loss - 0.02  # there is something to learn
    assert head.labels == tune.start.labels
    # the model has the weights of that epoch, and the head is that of the probe's form
    tune.epochs.clear()
    tune._judge()
    assert tune.epochs[0].loss == pytest.approx(best.loss, abs=1e-9)
    recipe, rows, *_ = world
    z = Embedder(tune.model, recipe, "m").vectors(rows[64:], ["item"])["item"].vectors
    with torch.no_grad():
        assert head.scores(z) == pytest.approx(tune.head(torch.from_numpy(z)).numpy(), abs=1e-4)


def test_the_first_judgement_is_of_the_probe(world, tmp_path):
    recipe, rows, _, _, start, labels = world
    tune = made(world, tmp_path)
    tune._judge()
    z = Embedder(tune.model, recipe, "m").vectors(rows[64:], ["item"])["item"]
    right = [start.labels[c] == labels[i] for i, c in zip(z.ids, start.scores(z.vectors).argmax(1), strict=True)]
    assert tune.epochs[0].accuracy == pytest.approx(np.mean(right))


def test_interrupted_and_resumed_is_as_never_stopped(world, tmp_path):
    whole = made(world, tmp_path / "whole")
    wanted = whole.fit()
    part = made(world, tmp_path / "part")

    def press(step, _total):
        if step == 7:
            raise Interrupted("as Ctrl-C after a step")

    with pytest.raises(Interrupted):
        part.fit(press)
    again = made(world, tmp_path / "part")
    steps = []
    found = again.fit(lambda step, _: steps.append(step))
    assert steps[0] == 7  # after the checkpoint of step 6
    assert again.epochs == whole.epochs
    assert np.array_equal(found.weight, wanted.weight)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_it_stops_when_the_loss_no_longer_falls(world, tmp_path):
    tune = made(world, tmp_path, epochs=30, patience=2, learning_rate=0.2)
    tune.fit()
    assert tune.epochs[-1].number == tune.best_epoch.number + 2 < 30
    # what is kept is the best epoch's, not the last one's
    best, last = tune.best_epoch, tune.epochs[-1]
    assert last.loss > best.loss + 0.01
    tune.epochs.clear()
    tune._judge()
    assert tune.epochs[0].loss == pytest.approx(best.loss, abs=1e-9)


def test_seeds_decide_everything(world, tmp_path):
    first, same, other = (made(world, tmp_path / name, seed=s).fit() for name, s in (("a", 0), ("b", 0), ("c", 1)))
    assert np.array_equal(first.weight, same.weight)
    assert not np.array_equal(first.weight, other.weight)


def test_balancing_adds_the_log_frequencies_in_the_loss_alone(world, tmp_path):
    plain, even = made(world, tmp_path / "a"), made(world, tmp_path / "b", balanced=True)
    share = np.asarray([even.counts[name] for name in even.start.labels]) / 64
    assert even.prior.numpy() == pytest.approx(np.log(share), abs=1e-6)
    assert not plain.prior.any()
    # what the loss sees at first is the same
    assert (even.head.linear.bias + even.prior).tolist() == pytest.approx(plain.head.linear.bias.tolist(), abs=1e-6)


@pytest.mark.parametrize("order", support.STAGE_ORDERS, ids="-".join)
def test_levels_go_up_from_the_tokens_to_the_head(order):
    model = support.build_model(("text", "table"), order, layers=2)
    found, top = levels(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert top == 2 * len(order) + 1
    for name, level in found.items():
        assert level == (0 if name.startswith("modalities.") else top if not name.startswith("stages.") else level)
        stage = int(name.split(".")[1]) if name.startswith("stages.") else None
        for number in (0, 1):
            if stage is not None and (f".blocks.{number}." in name or f".layers.{number}." in name):
                assert level == 2 * stage + number + 1
        if stage is not None and (".types." in name or name.endswith("1.item")):
            assert level == 2 * stage


def test_towers_of_different_depth_end_at_one_level():
    torch.manual_seed(0)
    shallow, deep = StackConfig(layers=1, heads=2), StackConfig(layers=3, heads=2)
    config = ModelConfig(width=16, embedding=8, stages=("towers",), tower=deep, tower_of={"text": shallow})
    from polymodal.model import Model

    model = Model({kind: support.build_modality(kind) for kind in ("text", "table")}, config)
    found, top = levels(model)
    assert top == 4
    assert found["stages.0.towers.text.blocks.0.norm1.weight"] == 3
    assert found["stages.0.towers.table.blocks.0.norm1.weight"] == 1
    assert found["stages.0.towers.text.norm.weight"] == found["stages.0.towers.table.norm.weight"] == 3


def test_rates_fall_by_level(world, tmp_path):
    tune = made(world, tmp_path, layer_decay=0.5)
    tune._update(next(iter(tune.stream.batches(tune.state)))[1][0])
    by_parameter = {id(p): g["lr"] for g in tune.optimizer.param_groups for p in g["params"]}
    found, top = levels(tune.model)
    peak = by_parameter[id(tune.head.linear.weight)]
    for name, p in tune.model.named_parameters():
        assert by_parameter[id(p)] == pytest.approx(peak * 0.5 ** (top - found[name]))


def test_the_head_is_the_probe(world):
    start = world[4]
    z = np.random.default_rng(0).standard_normal((5, len(start.centre))).astype(np.float32)
    assert Head(start)(torch.from_numpy(z)).detach().numpy() == pytest.approx(start.scores(z), abs=1e-4)


def test_the_loss_is_that_of_the_formula(world, tmp_path):
    tune = made(world, tmp_path, balanced=True, clip=1e9)
    batch = next(iter(tune.stream.batches(tune.state)))[1][0]
    tune.modules.train()
    with torch.no_grad():
        scores, truth = tune._scores(batch)
        wanted = (torch.softmax(scores + tune.prior, 1) - torch.eye(scores.shape[1])[truth]).mean(0)
    tune._update(batch)
    assert tune.head.linear.bias.grad.tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
