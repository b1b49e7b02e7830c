"""Vectors stacked for losses over several modalities: absent ones, false negatives, graphs."""

from __future__ import annotations

import pytest
import torch

from polymodal.losses._gathered import edges, fusion, gathered, ignored
from polymodal.losses.contrastive import contrast
from polymodal.objective import Alone
from polymodal.tensors import Batch, Cells, Embedded
from polymodal.types import BadInput


def cells(*present: int) -> Cells:
    return Cells({"x": torch.zeros(len(present), 1, 1)}, torch.tensor(present).bool()[:, None])


def test_a_modality_that_the_batch_lacks_is_absent_in_every_row():
    z = Embedded(torch.randn(3, 4), torch.tensor([True, False, True]))
    rows = gathered({"a": z}, ("b", "a"), Alone())
    assert rows.names == ("b", "a")
    assert rows.present.tolist() == [[False] * 3, [True, False, True]]
    assert torch.equal(rows.z[1], z.z)
    assert rows.z[0].eq(0).all()
    assert torch.equal(rows.every, rows.z)
    assert rows.offset == 0


def test_content_of_absent_cells_is_not_compared():
    digests = {"a": torch.tensor([5, 5, 5]), "b": torch.tensor([1, 2, 1])}
    batch = Batch(("x", "y", "z"), {"a": cells(1, 0, 1), "b": cells(1, 1, 0)}, digests)
    found = ignored(batch, ("a", "b", "c"), Alone())
    assert found.shape == (3, 3, 3, 3)
    assert found[0, 0].tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert found[1, 1].tolist() == torch.eye(3).bool().tolist()  # 1 and 1, but the third row has no b
    assert found[2, 2].tolist() == torch.eye(3).bool().tolist()  # every row is of its own group alone


def test_fusion_is_a_contrast_per_modality():
    z = torch.nn.functional.normalize(torch.randn(3, 5, 4), dim=-1)
    there = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 1, 0]]).bool()
    rows = gathered({"a": Embedded(z[0], there[0]), "b": Embedded(z[1], there[1])}, ("a", "b"), Alone())
    terms = fusion(Embedded(z[2], there[2]), rows, 5.0, Alone())
    for at, name in enumerate(("a", "b")):
        both = there[at] & there[2]
        want = contrast(z[2], both, z[at], there[at], 5.0)
        assert int(terms[f"fusion/{name}"].count) == 2 * int(both.sum())
        assert float(terms[f"fusion/{name}"].value) == pytest.approx(float(want.value), abs=1e-6)


def test_graphs():
    names = ("a", "b", "c", "d")
    assert len(edges(names, "full")) == 6
    assert edges(names, "chain") == ((0, 1), (1, 2), (2, 3))
    assert edges(names, "anchor") == ((0, 1), (0, 2), (0, 3))
    assert edges(names, "anchor", "c") == ((0, 2), (1, 2), (2, 3))
    with pytest.raises(BadInput, match="one of a, b, c, d"):
        edges(names, "full", "e")
    with pytest.raises(BadInput, match="at least two"):
        edges(("a",), "chain")
