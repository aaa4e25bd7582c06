"""Training on a GPU, where there is one."""

import numpy as np
import pytest
import torch

from deepmd_lite.config import load_config
from deepmd_lite.train.lcurve import read_lcurve
from deepmd_lite.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_a_gpu_learns_what_a_cpu_learns(task, write_input, tmp_path, monkeypatch):
    """The same learning curve to its three digits; float64, 20 steps, sums in another order."""
    config = load_config(write_input(task))
    on_gpu = Trainer(config, tmp_path / "gpu")
    assert on_gpu.device.type == "cuda" and on_gpu.evaluate is on_gpu.potential
    on_gpu.run()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Trainer(config, tmp_path / "cpu").run()
    gpu, cpu = (read_lcurve(tmp_path / name / "lcurve.out") for name in ("gpu", "cpu"))
    for key, values in cpu.items():
        np.testing.assert_allclose(gpu[key], values, rtol=0.011)
