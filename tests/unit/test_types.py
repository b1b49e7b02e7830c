from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.types import (
    BadInput,
    Embeddings,
    Embeds,
    Hit,
    MediaError,
    MissingExtra,
    ModelMismatch,
    PolymodalError,
    Record,
)


@pytest.mark.parametrize("empty", [None, "", b"", [], (), {}])
def test_a_value_that_says_absent_by_being_empty_is_refused(empty):
    with pytest.raises(BadInput, match="Leave the key out") as caught:
        Record("a", {"image": empty})
    assert caught.value.field == "Record.values['image']"


@pytest.mark.parametrize("value", [0, 0.0, False, np.zeros(0)])
def test_zero_is_a_value(value):
    assert Record("a", {"x": value}).values["x"] is value


def test_an_id_is_needed():
    with pytest.raises(BadInput, match="non-empty"):
        Record("", {})
    assert Record("a", {}).group is None


def test_bad_input_says_all_four_things():
    error = BadInput("--attr", "NAME=VALUE", "x" * 500, "Like colour=red.")
    assert isinstance(error, ValueError)
    assert isinstance(error, PolymodalError)
    assert str(error).startswith("--attr: expected NAME=VALUE, got xxx")
    assert str(error).endswith("Like colour=red.")
    assert len(str(error)) < 200
    assert len(error.got) == 500


def test_other_errors():
    assert str(MediaError("missing")) == "missing"
    assert str(MediaError("truncated", "a.jpg")) == "truncated: a.jpg"
    assert issubclass(ModelMismatch, BadInput)
    assert "pip install 'polymodal[lance]'" in str(MissingExtra("lancedb", "lance"))
    assert issubclass(MissingExtra, ImportError)


def vectors(n: int, width: int = 3) -> np.ndarray:
    return np.arange(n * width, dtype=np.float32).reshape(n, width)


@pytest.mark.parametrize(
    ("ids", "array", "said"),
    [
        (("a", "a"), vectors(2), "'a' twice"),
        (("a",), vectors(2), "shape"),
        (("a", "b"), vectors(2).astype(np.float64), "float32"),
        (("a", "b"), vectors(2).reshape(-1), "float32 of shape"),
        (("a", "b"), np.array([[0, 0], [np.nan, 0]], np.float32), "'b'"),
        (("a", "b"), np.array([[np.inf, 0], [0, 0]], np.float32), "'a'"),
    ],
)
def test_embeddings_refuse(ids, array, said):
    with pytest.raises(BadInput, match=said):
        Embeddings(ids, array, "m")


@given(st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=8), st.randoms())
def test_rows_come_in_the_order_asked_for(ids, random):
    e = Embeddings(tuple(ids), vectors(len(ids)), "m")
    asked = list(ids)
    random.shuffle(asked)
    assert (len(e), e.width) == (len(ids), 3)
    assert [float(v[0]) for v in e.rows(asked)] == [3.0 * ids.index(i) for i in asked]
    with pytest.raises(BadInput, match="among the embeddings"):
        e.rows([*asked, "longer than four"])


def test_protocols_are_checked_at_run_time():
    assert not isinstance(object(), Embeds)
    assert Hit("a", 0.5).attributes == {}


def test_types_and_config_do_not_import_torch():
    code = "import sys, polymodal.types, polymodal.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
