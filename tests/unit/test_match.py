from __future__ import annotations

import micro
import numpy as np
import pytest
import torch

from polymodal.embed import Embedder, export
from polymodal.match import Matcher
from polymodal.nn.blocks import FlopMeter, metered
from polymodal.objectives.interbert import Grouping, InterbertConfig
from polymodal.recipe import build_model
from polymodal.types import BadInput, MediaError, Record

ORDERS = [("trunk", "towers"), ("towers", "trunk"), ("towers",), ("trunk",)]
RED = Record("red", {"title": "red shoe"})
FACTS = Record("facts", {"facts": (("colour", "red"), ("shape", "shoe"))})
BOTH = Record("both", {"title": "blue vase with a much longer name", "facts": (("colour", "red"),)})
VECTOR = Record("vector", {"vector": np.ones((2, 8), np.float32)})
FULL = Record("full", {"title": "green lamp", **FACTS.values, **VECTOR.values})


def made(stages=("trunk", "towers"), match=12, **objective):
    recipe = micro.recipe(stages, steps=400, batch_size=16, checkpoint_every=1000, learning_rate=5e-3, log_every=100)
    shape = recipe.model.replace(match=match)
    return recipe.replace(model=shape, objective=InterbertConfig(**objective))


def matcher(stages=("trunk", "towers"), **kwargs):
    recipe = made(stages, **kwargs)
    torch.manual_seed(0)
    model = build_model(recipe, micro.fit(recipe, micro.records()))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return Matcher(Embedder(model, recipe, "digest"), batch_size=3)


@pytest.mark.parametrize("stages", ORDERS, ids="+".join)
def test_a_pair_is_scored_as_if_it_were_alone(stages):
    """Neither the other pairs, nor the length of their cells, nor what other queries have may matter."""
    one = matcher(stages)
    queries, candidates = [RED, FACTS, BOTH], [VECTOR, FULL, FACTS, BOTH]
    together = one.match(queries, candidates)
    assert together.shape == (3, 4)
    for q, query in enumerate(queries):
        for c, candidate in enumerate(candidates):
            alone = one.match([query], [candidate])[0, 0]
            assert together[q, c] == pytest.approx(alone, abs=1e-6, nan_ok=True), (query.id, candidate.id)
    some = one.pairs(queries, candidates, np.array([2, 0]), np.array([1, 1]))
    assert some == pytest.approx([together[2, 1], together[0, 1]], abs=1e-6)


def test_two_different_modalities_are_the_pass_of_training():
    """A text with a vector is what a row of both would be."""
    one = matcher()
    network = one.embedder.network
    batch = next(one.embedder.batches([Record("row", {**RED.values, **VECTOR.values})]))
    with torch.no_grad():
        last = network.encode(network.tokenize(batch)).last
        head = network.matching
        pooled = [head.pool(name, network.pooled(last[name]).z) for name in ("title", "vector")]
        wanted = head(*pooled).softmax(1)[0, 0]
    assert one.match([RED], [VECTOR])[0, 0] == pytest.approx(float(wanted), abs=1e-6)
    assert one.match([VECTOR], [RED])[0, 0] == pytest.approx(float(wanted), abs=1e-6)


def test_the_candidates_own_cell_of_the_querys_modality_is_not_looked_at():
    one = matcher()
    facts_alone = Record("full", {"facts": BOTH.values["facts"]})
    assert one.match([RED], [BOTH])[0, 0] == pytest.approx(one.match([RED], [facts_alone])[0, 0], abs=1e-6)
    assert np.isnan(one.match([RED], [Record("other", {"title": "red shoe"})])[0, 0])


def test_only_pairs_between_the_two_sides_count():
    """The mean of title with facts and title with vector; facts with vector says nothing about the query."""
    one = matcher()
    network = one.embedder.network
    row = Record("row", {**RED.values, **FACTS.values, **VECTOR.values})
    batch = next(one.embedder.batches([row]))
    with torch.no_grad():
        last = network.encode(network.tokenize(batch)).last
        title, facts, vector = (network.matching.pool(n, network.pooled(last[n]).z) for n in micro.NAMES)
        mean = (network.matching(title, facts) + network.matching(title, vector)) / 2
    wanted = float(mean.softmax(1)[0, 0])
    assert one.match([RED], [FULL])[0, 0] == pytest.approx(wanted, abs=1e-6)
    assert float(network.matching(facts, vector).detach().softmax(1)[0, 0]) != pytest.approx(wanted, abs=1e-3)


def test_ranking_again():
    one = matcher()
    candidates = [VECTOR, Record("nothing", {"title": "x"}), FULL, FACTS]
    ranked = one.rerank(RED, candidates)
    scores = one.match([RED], candidates)[0]
    assert ranked[-1][0] == "nothing"
    assert [s for _, s in ranked[:3]] == sorted(np.delete(scores, 1).tolist(), reverse=True)
    assert dict(ranked[:3]) == pytest.approx({"vector": scores[0], "full": scores[2], "facts": scores[3]})
    assert one.rerank(RED, []) == []


def test_towers_run_once_for_each_side():
    one = matcher(("towers", "trunk"))
    one.batch_size = 100

    def spent(queries, candidates) -> FlopMeter:
        with metered() as meter:
            one.match(queries, candidates)
        return meter

    few, many = spent([RED], [VECTOR, FACTS]), spent([RED, RED], [VECTOR, FACTS])
    towers = spent([RED], []).valid
    # the second query costs its own tower and two trunks, and no tower of a candidate
    trunks = few.valid - towers - spent([], [VECTOR, FACTS]).valid
    assert many.valid == few.valid + towers + trunks


def test_refusals(tmp_path):
    recipe = made(match=0)
    fitted = micro.fit(recipe, micro.records())
    export(tmp_path / "model", recipe, fitted, build_model(recipe, fitted).state_dict())
    with pytest.raises(BadInput, match="matching head"):
        Matcher.load(tmp_path)
    untrained = micro.recipe(("trunk", "towers"))
    untrained = untrained.replace(model=untrained.model.replace(match=8))
    for recipe, kind in ((untrained, "scale"), (made(match_weight=0.0), "interbert")):
        export(tmp_path / kind / "model", recipe, fitted, build_model(recipe, fitted).state_dict())
        with pytest.raises(BadInput, match=rf"trained by {kind}.*Recipes that train one: interbert\."):
            Matcher.load(tmp_path / kind)
    with pytest.raises(MediaError):
        matcher().match([Record("bad", {"vector": np.full((1, 8), np.nan, np.float32)})], [RED])


def test_a_trained_head_is_exported_and_knows_what_belongs_together(tmp_path):
    """Colour and shape stand in title and vector: what was never seen together must be told from what differs."""
    recipe = made(
        group=Grouping(probability=0.0), masked_weight=0.0, contrast_weight=0.0, item_weight=0.0, modality_dropout=0.0
    )
    rows = [r for r in micro.records(300) if {"title", "vector"} <= set(r.values)]
    rows = [Record(r.id, {"title": r.values["title"].split(" number")[0], "vector": r.values["vector"]}) for r in rows]
    trainer = micro.trainer(tmp_path, recipe.replace(train=recipe.train.replace(steps=150)), rows)
    trainer.fit()
    export(tmp_path / "model", recipe, micro.fit(recipe, rows), trainer.exported())
    loaded = Matcher.load(tmp_path)
    kinds = [(c, s) for c in range(4) for s in range(4)]
    titles = [Record(f"t{c}{s}", {"title": f"{micro.COLOURS[c]} {micro.SHAPES[s]}"}) for c, s in kinds]
    eye = np.eye(4, dtype=np.float32)
    vectors = [Record(f"v{c}{s}", {"vector": np.concatenate([eye[c], eye[s]])[None]}) for c, s in kinds]
    scores = loaded.match(titles, vectors)
    own = scores.diagonal()
    others = scores[~np.eye(16, dtype=bool)].reshape(16, 15)
    assert (own[:, None] > others).mean() > 0.75  # 0.86 here; 0.5 is chance
