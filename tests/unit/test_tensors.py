from __future__ import annotations

import pytest
import torch

from polymodal.tensors import Batch, Cells, Losses, Term, Tokens, stable_hash
from polymodal.types import BadInput


def cells(rows: int = 3, tokens: int = 4) -> Cells:
    valid = torch.zeros(rows, tokens, dtype=torch.bool)
    valid[0] = True
    valid[2, 1] = True
    return Cells({"x": torch.arange(rows * tokens * 2.0).view(rows, tokens, 2)}, valid)


def test_a_row_without_a_valid_token_is_not_present():
    assert cells().present.tolist() == [True, False, True]
    assert cells().packed()["x"][:, 0].tolist() == [0, 2, 4, 6, 18]


def test_a_batch_knows_its_keys_and_groups():
    batch = Batch(("a", "b", "c"), {"m": cells()})
    assert batch.keys.tolist() == [stable_hash(i) for i in "abc"]
    assert torch.equal(batch.groups, batch.keys)
    assert len(batch) == 3
    assert batch.present["m"].tolist() == [True, False, True]
    assert batch.only(["m"]).cells == batch.cells
    assert batch.only([]).cells == {}
    assert batch.only([]).ids == batch.ids
    moved = batch.to("cpu")
    assert torch.equal(moved.keys, batch.keys)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Batch(("a",), {"m": cells()}), "valid"),
        (lambda: Batch(("a", "b", "c"), {"m": Cells({}, cells().valid.float())}), "valid"),
        (lambda: Batch(("a", "b", "c"), {"m": Cells({}, torch.ones(3, dtype=torch.bool))}), "valid"),
        (lambda: Batch(("a", "b", "c"), {"m": Cells({"x": torch.zeros(3, 5)}, cells().valid)}), "x"),
        (lambda: Batch(("a", "b"), {}, groups=torch.zeros(3, dtype=torch.long)), "groups"),
        (lambda: Batch(("a", "b"), {}, keys=torch.zeros(3, dtype=torch.long)), "keys"),
        (lambda: Batch(("a", "b"), {}, digests={"m": torch.zeros(3, dtype=torch.long)}), "digests"),
    ],
)
def test_shapes_that_disagree_are_refused(make, field):
    with pytest.raises(BadInput, match=field):
        make()


def test_tokens_map_keeps_what_is_valid():
    tokens = Tokens(torch.ones(1, 2, 3), torch.tensor([[True, False]]))
    doubled = tokens.map(lambda x: x * 2)
    assert doubled.valid is tokens.valid
    assert float(doubled.x.sum()) == 12


def test_total_weighs_terms():
    one = Term(torch.tensor(2.0), torch.tensor(3))
    losses = Losses({"a": one, "b": one, "c": one}, {"a": 0.5, "b": torch.tensor(0.0)})
    assert float(losses.total) == 3.0


def test_stable_hash_is_pinned():
    """Draws, splits and digests of stored runs depend on it."""
    assert stable_hash("") == -1970711489451281740
    assert stable_hash("row-1") == 6660314193839645915
    assert -(2**63) <= stable_hash("红色") < 2**63
    assert stable_hash("a") != stable_hash("b")
