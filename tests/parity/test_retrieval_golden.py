"""Retrieval metrics against the golden values of the SCALE specification.

Provenance: specs/scale.md section 7, "Retrieval metrics", made by specs/golden/scale.py. `scale` is the
definition of the released code (Xiaodongsuper/SCALE_code, commit 227ae08), `standard` divides by
min(k, |P| without the query).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from polymodal.evaluate.retrieval import Judged, judge_lists, measure

LABELS = {"q1": "X", "a": "X", "b": "X", "c": "X", "d": "Y", "e": "Y", "q2": "Y"}
LISTS = {"q1": list("adbec"), "q2": list("adbce")}
# k -> for q1 and q2: (AP, precision)
SCALE = {
    1: [(1.0, 1.0), (0.0, 0.0)],
    5: [(0.8333333333, 0.5), (0.5, 0.3333333333)],
    10: [(0.8333333333, 0.5), (0.5, 0.3333333333)],
}
STANDARD = {
    1: [(1.0, 1.0), (0.0, 0.0)],
    5: [(0.7555555556, 0.6), (0.45, 0.4)],
    10: [(0.7555555556, 0.3), (0.45, 0.2)],
}
SHARED = Path(__file__).parents[3] / "shared" / "specs" / "golden" / "scale.py"


def judged() -> Judged:
    right = [{i: 1.0 for i in LABELS if LABELS[i] == LABELS[q] and i != q} for q in LISTS]
    annotated = [sum(label == LABELS[q] for label in LABELS.values()) for q in LISTS]
    return judge_lists(list(LISTS.values()), right, annotated)


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize(("ap", "golden"), [("scale", SCALE), ("standard", STANDARD)])
def test_golden_metrics(k, ap, golden):
    lists = judged()
    found = np.stack([measure(lists, f"map@{k}", ap), measure(lists, f"precision@{k}", ap)], 1)
    np.testing.assert_allclose(found, golden[k], atol=1e-9)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared specification is not here")
@pytest.mark.parametrize("k", [1, 5, 10])
def test_golden_script(k):
    spec = importlib.util.spec_from_file_location("golden_scale", SHARED)
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    lists = judged()
    for ap, name, width in (("scale", "code", 2), ("standard", "standard", 2)):
        found = np.stack([measure(lists, f"map@{k}", ap), measure(lists, f"precision@{k}", ap)], 1)
        np.testing.assert_allclose(found, [row[:width] for row in golden.metrics[k][name]], atol=1e-12)
