"""One thread a test process: the models are tiny, and two processes with two threads each only fight for two cores."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import micro_catalogue
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro_shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a few steps and the catalogue of two modalities it was trained on. Do not write into either."""
    from polymodal.workflow.listing import train_or_resume

    data = micro_catalogue.write(tmp_path_factory.mktemp("shop") / "catalogue")
    run = data.parent / "run"
    train_or_resume("scale", data, run, None, "tiny", ["train.steps=30", *micro_catalogue.MICRO], ())
    return run, data
