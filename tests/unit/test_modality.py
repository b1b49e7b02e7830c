from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import build_modality

from polymodal.modality import ModalityConfig, standardise


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 2**31))
def test_standardise_streams_what_numpy_says_at_once(sizes, seed):
    random = np.random.default_rng(seed)
    blocks = [random.normal(3, 2, (n, 4)) for n in sizes]
    mean, spread = standardise(iter(blocks))
    together = np.concatenate(blocks)
    assert mean == pytest.approx(together.mean(0).tolist())
    assert spread == pytest.approx(np.maximum(together.std(0), 1e-3).tolist(), abs=1e-6)


def test_standardise_of_nothing_and_of_a_constant():
    assert standardise([]) == ([0.0], [0.001])
    mean, spread = standardise([np.full((5, 2), 7.0, np.float16)])
    assert mean == [7.0, 7.0]
    assert spread == [1e-3, 1e-3]


def test_units_hide_together_by_default():
    modality = build_modality("text")
    unit = torch.tensor([[0, 0, 1], [2, 3, 2]])
    tied = super(type(modality), modality).overlap({"unit": unit})
    assert tied.tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[1, 0, 1], [0, 1, 0], [1, 0, 1]]]
    assert super(type(modality), modality).overlap({}) is None


def test_a_config_must_build():
    config = ModalityConfig(kind="none")
    assert config.fit([]) == {}
    for call in (lambda: config.build(8, {}), config.decoder):
        with pytest.raises(NotImplementedError):
            call()
