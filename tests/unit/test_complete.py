"""What a trained run says of what a record lacks: the micro catalogue, where every cell tells the same two factors."""

from __future__ import annotations

import json
import shutil

import micro
import numpy as np
import pytest
import torch
from support import KINDS, MODALITY_CONFIGS, build_model, build_objective, example_values

from polymodal.complete import Completer
from polymodal.modality import Question
from polymodal.objectives.m3ae import M3AEConfig
from polymodal.types import BadInput, CorruptCheckpoint, MediaError, Record


def run_of(folder, objective, steps, stages=("trunk",), **train):
    """What `workflow.training.train` leaves of a run, but for the exported model."""
    made = micro.recipe(stages, steps=steps, checkpoint_every=steps, augment=False, **train)
    made = made.replace(objective=objective, model=made.model.replace(width=32))
    rows = micro.records(300)
    micro.trainer(folder, made, rows).fit()
    (folder / "recipe.json").write_text(made.model_dump_json())
    (folder / "fitted.json").write_text(json.dumps(micro.fit(made, rows)))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = M3AEConfig(ratio=0.5, units=("facts",))
    return run_of(tmp_path_factory.mktemp("complete") / "run", config, 180, learning_rate=5e-3, batch_size=24)


@pytest.fixture(scope="module")
def completer(run):
    return Completer.load(run)


@pytest.fixture(scope="module")
def answers(completer):
    """Each of the 16 kinds of item known by its title or by its vector alone."""
    out = []
    for c, colour in enumerate(micro.COLOURS):
        for s, shape in enumerate(micro.SHAPES):
            title = {"title": f"{colour} {shape} number 3"}
            vector = {"vector": np.concatenate([np.eye(4)[c], np.eye(4)[s]]).astype(np.float32)[None]}
            for have in (title, vector):
                out.append((have, (colour, shape, c, s), completer.complete(Record("q", have))))
    return out


def test_everything_that_lacks_is_filled_in(answers):
    for have, _, guessed in answers:
        facts = {"facts.colour", "facts.shape", "facts.price"}
        assert set(guessed) == facts | ({"vector"} if "title" in have else {"title"})


def test_attributes_are_concluded_from_title_and_vector(answers):
    for given in ("title", "vector"):
        mine = [(truth, guessed) for have, truth, guessed in answers if given in have]
        right = [guessed["facts.colour"].value == truth[0] for truth, guessed in mine]
        right += [guessed["facts.shape"].value == truth[1] for truth, guessed in mine]
        assert np.mean(right) > 0.6, given  # one in four by chance


def test_confidence_is_that_of_the_choice(answers):
    for _, _, guessed in answers:
        guess = guessed["facts.colour"]
        assert guess.confidence == tuple(row[0][1] for row in guess.choices)
        assert all(0 < p <= 1 for p in guess.confidence)
        for row in guess.choices:
            shares = [p for _, p in row]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) <= 1 + 1e-5
        assert guessed["facts.price"].confidence is None
        assert isinstance(guessed["facts.price"].value, float)


def test_the_sure_are_right_more_often(answers):
    pairs = [(np.exp(g["facts.colour"].score), g["facts.colour"].value == truth[0]) for _, truth, g in answers]
    right, wrong = ([p for p, ok in pairs if ok is wanted] for wanted in (True, False))
    assert not wrong or np.mean(right) > np.mean(wrong)


def test_vectors_and_words_come_back(answers):
    close, named = [], []
    for have, (colour, _, c, s), guessed in answers:
        if "title" in have:
            value = guessed["vector"].value
            assert value.shape == (1, 8)
            close.append(value[0, :4].argmax() == c and value[0, 4:].argmax() == s)
        else:
            first = [{piece for piece, _ in row} for row in guessed["title"].choices[:2]]
            named.append(colour in first[0])
            assert isinstance(guessed["title"].value, str)
    assert np.mean(close) > 0.5  # one in sixteen by chance
    assert np.mean(named) > 0.6


def test_a_part_takes_the_rest_of_its_cell_into_account(completer):
    record = Record("q", {"facts": (("shape", "lamp"), ("colour", "green"))})
    same = completer.complete(record, ["facts.colour"])["facts.colour"]
    without = completer.complete(Record("q", {"facts": (("shape", "lamp"),)}), ["facts.colour"])["facts.colour"]
    assert same.score == pytest.approx(without.score, abs=1e-5), "the answer was read from the question"
    assert same.value == without.value


def test_hidden_tokens_are_filled_in_and_the_others_kept(completer):
    fields = completer.network.modality("title").preprocess("blue vase number 9")
    count = len(fields["id"])
    mask = np.zeros(count, bool)
    mask[0] = True
    record = Record("q", {"title": "blue vase number 9", "facts": (("colour", "blue"), ("shape", "vase"))})
    guess = completer.complete(record, hidden={"title": mask})["title"]
    assert len(guess.choices) == 1
    assert guess.value.split()[1:] == ["vase", "number", "9"]
    assert guess.value.split()[0] == "blue"


def test_the_order_of_questions_changes_nothing(completer):
    record = Record("q", {"title": "red chair number 1"})
    one = completer.complete(record, ["facts.colour", "vector", "facts.price"])
    two = completer.complete(record, ["vector"])
    assert np.allclose(one["vector"].value, two["vector"].value, atol=1e-5)
    price = completer.complete(record, ["facts.price"])["facts.price"].value
    assert one["facts.price"].value == pytest.approx(price, rel=1e-5)


def test_nothing_lacks_nothing_is_said(completer):
    whole = next(r for r in micro.records() if len(r.values) == 3)
    assert completer.complete(whole) == {}


@pytest.mark.parametrize(
    ("values", "names", "hidden", "said"),
    [
        ({"title": "red"}, ["facs.colour"], None, "facts.colour"),
        ({"title": "red"}, ["facts"], None, "attribute"),
        ({"title": "red"}, ["title"], None, "something to conclude from"),
        ({"title": "red"}, None, {"vector": [True]}, "hidden"),
        ({"title": "red"}, None, {"title": [True] * 9}, "bool"),
        ({"facts": (("colour", "red"),)}, None, {"facts": [True]}, "without parts"),
        ({"other": "red"}, None, None, "something to conclude from"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_said(completer, values, names, hidden, said):
    with pytest.raises(BadInput, match=said):
        completer.complete(Record("q", values), names, hidden)


def test_a_bad_cell_is_said(completer):
    with pytest.raises(MediaError, match="vector"):
        completer.complete(Record("q", {"title": "red", "vector": np.zeros((1, 3), np.float32)}))


def test_runs_that_cannot_complete_are_refused(run, tmp_path):
    with pytest.raises(BadInput, match="checkpoints"):
        Completer.load(tmp_path)
    shutil.copytree(run, tmp_path / "broken")
    next((tmp_path / "broken" / "checkpoints").glob("*/objective.safetensors")).write_bytes(b"")
    with pytest.raises(CorruptCheckpoint):
        Completer.load(tmp_path / "broken")
    loaded = Completer.load(run)
    with pytest.raises(BadInput, match="train m3ae"):
        Completer(loaded.network, torch.nn.Identity(), loaded.recipe)


def test_a_run_of_scale_can_be_asked_too(tmp_path):
    """How well is another matter; but the answer leans on what is visible and never on what is to be answered."""
    folder = run_of(tmp_path / "scale", micro.recipe().objective, 3, ("towers", "trunk"))
    completer = Completer.load(folder)
    title, facts = {"title": "red shoe number 3"}, {"facts": (("colour", "blue"), ("shape", "lamp"))}
    other = {"facts": (("colour", "red"), ("shape", "lamp"))}
    assert set(completer.complete(Record("q", title))) == {"facts.colour", "facts.shape", "facts.price", "vector"}
    ask = ["facts.colour"]
    one, two, without = (completer.complete(Record("q", v), ask)[ask[0]] for v in (title | facts, title | other, facts))
    assert one.score == pytest.approx(two.score, abs=1e-5)
    assert one.score != pytest.approx(without.score, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_a_prediction_means(kind):
    """A perfect prediction gives the cell back; known tokens are kept whatever is predicted."""
    model = build_model((kind,), ("trunk",))
    modality = model.modality(kind)
    head = build_objective("m3ae", model).heads[kind]
    for part in modality.parts()[:1] or [None]:
        for question in modality.ask(None, part):
            count = int(question.hidden.sum())
            assert count
            guess = modality.answer(question, head(torch.randn(count, 32)).detach())
            assert guess.value is not None
    if modality.parts() or kind == "text":
        return
    value = modality.example(2)
    fields = modality.preprocess(value)
    hidden = torch.arange(len(modality.target(fields))) % 2 == 0
    wanted = modality.target({k: v[hidden] for k, v in fields.items()})
    blind = {k: torch.where(hidden.view(-1, *[1] * (v.ndim - 1)), torch.zeros_like(v), v) for k, v in fields.items()}
    back = modality.answer(Question(blind, hidden), wanted).value
    again = modality.preprocess(MODALITY_CONFIGS[kind]().decoder().decode(back) if kind != "image" else back)
    content = next(iter(fields))
    assert torch.allclose(again[content].float(), fields[content].float(), atol=0.02)


def test_examples_of_words_come_back_as_text():
    modality = build_model(("text",), ("trunk",)).modality("text")
    for value in example_values("text"):
        fields = modality.preprocess(value)
        hidden = torch.ones(len(fields["id"]), dtype=torch.bool)
        logits = 9.0 * torch.nn.functional.one_hot(fields["id"], modality.pieces.size)
        assert modality.answer(Question(fields, hidden), logits).value.replace(" ", "") == value.lower().replace(
            " ", ""
        )


def test_how_long_a_value_is_comes_from_the_catalogue():
    """Two questions for words of one or two pieces, each with the share of values of that length as its prior."""
    config = MODALITY_CONFIGS["table"](vocabulary=300)
    rows = [(("tone", "q"),)] * 3 + [(("tone", "qz"),)] + [(("price", 4.0),)]
    modality = config.build(16, config.fit(rows))
    assert [len(modality.pieces.encode(word, 6)[0]) for word in ("q", "qz")] == [1, 2]
    forms = modality.ask(None, "tone")
    shares = {int(form.hidden.sum()): np.exp(form.prior) for form in forms}
    assert shares == {1: pytest.approx(0.75), 2: pytest.approx(0.25)}
    logits = torch.zeros(int(forms[0].hidden.sum()), modality.pieces.size + 1)
    guess = modality.answer(forms[0], logits)
    assert guess.score == pytest.approx(forms[0].prior + sum(np.log(guess.confidence)), abs=1e-5)
    assert [int(form.hidden.sum()) for form in modality.ask(None, "price")] == [1]
    assert [int(form.hidden.sum()) for form in modality.ask(None, "never seen")] == [1]
