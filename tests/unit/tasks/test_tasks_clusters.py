"""Clusters, what tells them apart, and how they agree with labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from polymodal.evaluate import ari, nmi, purity
from polymodal.tasks.cluster_page import cluster_page
from polymodal.tasks.clusters import agreement, best_k, cluster_items, make_cards, silhouette
from polymodal.tasks.telling import telling_terms
from polymodal.types import BadInput, Embeddings, Record


def blobs(n=120, classes=4, noise=0.2, seed=0):
    random = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    z = np.eye(8)[codes] + noise * random.standard_normal((n, 8))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    ids = tuple(f"i{at:03d}" for at in range(n))
    return Embeddings(ids, z.astype(np.float32), "m"), {i: "abcdefgh"[c] for i, c in zip(ids, codes, strict=True)}


def test_clear_clusters_are_found_whole_and_stable():
    vectors, labels = blobs(noise=0.001)
    found = cluster_items(vectors, 4)
    assert found.stability == 1.0
    assert found.each.tolist() == [1.0] * 4
    one = agreement(found, labels, "kind")
    assert (one.nmi.mean, one.ari.mean, one.purity.mean) == (1.0, 1.0, 1.0)
    assert (one.items, one.values) == (120, 4)
    assert abs(one.by_chance["ari"]) < 0.1 < 0.2 < one.by_chance["purity"] < 0.5
    data = vectors.vectors.astype(np.float64)
    centre = data[found.assigned == 2].mean(0)
    cosine = data @ centre / np.linalg.norm(centre)
    assert found.cosine[found.assigned == 2] == pytest.approx(cosine[found.assigned == 2], abs=1e-6)
    assert (found.second != found.assigned).all()


def test_numbers_go_by_size_and_unstable_clusters_say_so():
    vectors, _ = blobs(noise=1.0)
    found = cluster_items(vectors, 7, starts=6)
    sizes = np.bincount(found.assigned, minlength=7)
    assert (np.diff(sizes) <= 0).all()
    assert (sizes > 0).all()
    assert found.stability < 0.9
    assert ((found.each > 0) & (found.each <= 1)).all()
    assert np.array_equal(found.assigned, cluster_items(vectors, 7, starts=6).assigned)


def test_one_cluster_one_start_and_what_is_refused():
    vectors, _ = blobs(8)
    one = cluster_items(vectors, 1, starts=1)
    assert one.assigned.tolist() == [0] * 8
    assert one.second.tolist() == [-1] * 8
    assert np.isnan(one.stability)
    assert cluster_items(vectors, 8).k == 8
    for k, starts in ((9, 1), (0, 1), (2, 0)):
        with pytest.raises(BadInput):
            cluster_items(vectors, k, starts=starts)
    with pytest.raises(BadInput, match="two items"):
        agreement(one, {"i000": "a"}, "kind")


def test_the_jackknife_is_that_of_leaving_each_item_out():
    vectors, labels = blobs(60, noise=0.8)
    found = cluster_items(vectors, 4)
    one = agreement(found, labels, "kind")
    truth, assigned = [labels[i] for i in found.ids], found.assigned.tolist()
    for name, measure in (("nmi", nmi), ("ari", ari), ("purity", purity)):
        left = np.asarray(
            [measure(truth[:at] + truth[at + 1 :], assigned[:at] + assigned[at + 1 :]) for at in range(60)]
        )
        error = np.sqrt(59 / 60 * ((left - left.mean()) ** 2).sum())
        interval = getattr(one, name)
        assert interval.mean == pytest.approx(measure(truth, assigned))
        assert interval.low == pytest.approx(interval.mean - 1.96 * error)
        assert interval.high == pytest.approx(min(interval.mean + 1.96 * error, 1.0))


def test_the_jackknife_leaves_whole_groups_out():
    vectors, labels = blobs(60, noise=0.8)
    found = cluster_items(vectors, 4)
    groups = {i: f"g{at // 3}" for at, i in enumerate(found.ids[:45])}  # 15 groups of three, and 15 items alone
    one = agreement(found, labels, "kind", together=groups)
    truth, assigned = [labels[i] for i in found.ids], found.assigned.tolist()
    units = [*(range(at, at + 3) for at in range(0, 45, 3)), *([at] for at in range(45, 60))]
    for name, measure in (("nmi", nmi), ("ari", ari), ("purity", purity)):
        kept = [[at for at in range(60) if at not in unit] for unit in units]
        left = np.asarray([measure([truth[at] for at in rows], [assigned[at] for at in rows]) for rows in kept])
        error = np.sqrt(29 / 30 * ((left - left.mean()) ** 2).sum())
        interval = getattr(one, name)
        assert interval.low == pytest.approx(interval.mean - 1.96 * error)
    # one group of all leaves nothing: items are left out
    assert agreement(found, labels, "kind", together=dict.fromkeys(found.ids, "g")) == agreement(found, labels, "kind")


def test_the_silhouette_is_that_of_scikit_learn():
    vectors, _ = blobs(50, noise=0.7)
    assigned = cluster_items(vectors, 5).assigned
    assert silhouette(vectors.vectors, assigned) == pytest.approx(
        silhouette_score(vectors.vectors, assigned, metric="cosine"), abs=1e-5
    )
    alone = np.asarray([0] * 49 + [1])
    assert silhouette(vectors.vectors, alone) == pytest.approx(
        silhouette_score(vectors.vectors, alone, metric="cosine"), abs=1e-5
    )
    assert silhouette(vectors.vectors, np.zeros(50, np.int64)) == 0


def test_the_number_of_clusters_is_found():
    vectors, _ = blobs(200, classes=6)
    assert best_k(vectors)[0] == 6
    with pytest.raises(BadInput, match="four items"):
        best_k(blobs(3)[0])


def shop():
    """Ten red lamps and thirty blue or green chairs; prices of lamps are high."""
    made = []
    for at in range(40):
        lamp = at < 10
        title = "red lamp 7" if lamp else f"{('blue', 'green')[at % 2]} chair, red label" if at == 11 else "blue chair"
        facts = (("kind", "lamp" if lamp else "chair"), ("price", 90.0 + at if lamp else float(at)))
        made.append(Record(f"i{at:03d}", {"title": title, "facts": facts} if at != 3 else {"facts": facts}))
    return made, np.asarray([0 if at < 10 else 1 for at in range(40)])


def test_telling_terms_are_counted_by_hand():
    records, groups = shop()
    first, second = telling_terms(records, groups, 2)
    told = {one.term: one for one in first}
    assert {"red", "lamp", "kind = lamp"} <= set(told)
    assert any(term.startswith("price in the highest quarter") for term in told)
    assert "7" not in told  # a number in a text says little
    red = told["red"]
    assert (red.source, red.inside, red.size, red.outside, red.rest) == ("title", 9, 9, 1, 30)
    assert red.lift == pytest.approx(1 / (10 / 39))
    prior = 10 * 10 / 39

    def odds(said, items):
        return np.log((said + prior) / (items + 10 - said - prior))

    wanted = (odds(9, 9) - odds(1, 30)) / np.sqrt(1 / (9 + prior) + 1 / (1 + prior))
    assert red.z == pytest.approx(wanted)
    assert {one.term for one in second} >= {"chair", "blue"}
    assert [one.z for one in first] == sorted((one.z for one in first), reverse=True)


def test_terms_of_scripts_without_spaces_are_pairs_of_letters():
    records = [Record(f"i{at}", {"t": "红色鞋" if at < 8 else "蓝色灯"}) for at in range(30)]
    first, _ = telling_terms(records, np.asarray([0] * 8 + [1] * 22), 2)
    assert {one.term for one in first} == {"红色", "色鞋"}


def test_nothing_tells_groups_that_are_alike():
    records = [Record(f"i{at}", {"t": "same words", "f": (("price", 3.0),)}) for at in range(20)]
    assert telling_terms(records, np.arange(20) % 2, 2) == [(), ()]


def test_cards_and_the_page_escape_what_a_catalogue_says():
    vectors, labels = blobs(40, classes=2)
    records = [Record(i, {"t": f"<b>{labels[i] * 3}</b> & thing"}) for i in vectors.ids]
    found = cluster_items(vectors, 2)
    cards = make_cards(found, records, {r.id: r.values["t"] for r in records}, {"kind": labels}, typical=3)
    assert [card.size for card in cards] == [20, 20]
    assert sum(card.share for card in cards) == 1
    for card in cards:
        rows = [row for row, at in enumerate(found.assigned) if at == card.number]
        best = max(rows, key=lambda row: found.cosine[row])
        assert card.typical[0][0] == found.ids[best]
        assert card.labels["kind"] == ((labels[found.ids[best]], 20),)
        assert card.telling[0].term == labels[found.ids[best]] * 3
    html = cluster_page("t <i>", "polymodal cluster", cards, [agreement(found, labels, "kind")], ["one < two"], {})
    assert "<b>aaa" not in html
    assert "&lt;b&gt;aaa" in html
    assert "one &lt; two" in html
    assert "http" not in html
    assert "<script" not in html
