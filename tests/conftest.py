"""One thread a test process: the models are tiny, and two processes with two threads each only fight for two cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
