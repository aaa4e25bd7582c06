"""Optimizers and averages: they learn, they restart, they are what they are called."""

import numpy as np
import pytest
import torch

from deepmd_lite import DeepPot
from deepmd_lite.config import load_config, parse_config
from deepmd_lite.errors import ConfigError, ModelFileError
from deepmd_lite.train.lcurve import read_lcurve
from deepmd_lite.train.optimizer import Average, make_optimizer
from deepmd_lite.train.trainer import Trainer

SECTIONS = {
    "Adam": {"type": "Adam"},
    "other moments": {"type": "Adam", "adam_beta1": 0.5, "adam_beta2": 0.9},
    "AdamW": {"type": "AdamW", "weight_decay": 0.1},
    "Muon": {"type": "Muon"},
    "SOAP": {"type": "SOAP"},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def weights(path):
    return [p.detach().numpy() for p in DeepPot.load(path).parameters()]


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_restart_is_bitwise(section, task, write_input, tmp_path):
    """R2, averages included: 10 + 10 steps are 20; 20 steps more than halve the error of the training batches."""
    task["optimizer"] = section
    task["training"] |= {"enable_ema": True, "ema_decay": 0.9}
    config = load_config(write_input(task))
    Trainer(config, tmp_path / "whole").run()
    first = Trainer(config, tmp_path / "parts")
    first.config.training.numb_steps = 10  # the schedule keeps its 20 steps
    first.run()
    Trainer(
        load_config(write_input(task)), tmp_path / "parts", restart=tmp_path / "parts/model.ckpt.dp"
    ).run()
    for name in ("model.dp", "model.ckpt.dp", "model-best.dp"):
        for a, b in zip(weights(tmp_path / "whole" / name), weights(tmp_path / "parts" / name)):
            assert np.array_equal(a, b)
    curve = read_lcurve(tmp_path / "whole/lcurve.out")
    assert curve["rmse_val"][-1] < 0.5 * curve["rmse_val"][0]


def test_muon_makes_orthogonal_steps(random_model):
    """Of matrices only, as large as Adam's: a step of 0.2 lr √max(n, m) times a matrix of singular values near 1."""
    potential = DeepPot(random_model())
    muon, adam = make_optimizer(parse_config(minimal({"type": "Muon"})).optimizer, potential)
    matrices = [p for g in muon.param_groups for p in g["params"]]
    assert all(p.ndim == 2 and min(p.shape) > 1 for p in matrices)
    assert len(matrices) + sum(len(g["params"]) for g in adam.param_groups) == len(
        list(potential.parameters())
    )
    w = max(matrices, key=torch.numel)
    before, generator = w.detach().clone(), torch.Generator().manual_seed(0)
    w.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype) * 1e-3
    for group in muon.param_groups:
        group["lr"] = 0.01
    muon.step()
    values = torch.linalg.svdvals((before - w.detach()) / (0.01 * 0.2 * max(w.shape) ** 0.5))
    assert 0.5 < values.min() and values.max() < 1.5


def minimal(optimizer):
    return {
        "model": {"type_map": ["O"]},
        "optimizer": optimizer,
        "training": {"training_data": {"systems": "x"}, "numb_steps": 10},
    }


def test_momentum_is_of_muon():
    with pytest.raises(ConfigError, match="momentum with type Muon only"):
        parse_config(minimal({"type": "Adam", "momentum": 0.9}))


def test_another_optimizer_cannot_go_on(task, write_input, tmp_path):
    Trainer(load_config(write_input(task)), tmp_path).run()
    task["optimizer"] = {"type": "Muon"}
    with pytest.raises(ModelFileError, match="expected the state of Muon, found none"):
        Trainer(load_config(write_input(task)), tmp_path, restart=tmp_path / "model.ckpt.dp")


def test_average_by_hand(random_model):
    """β = min(0.5, k/(k + 9)) at step k: 0.1, 2/11, ..."""
    potential = DeepPot(random_model())
    (w, *_), average = list(potential.parameters()), Average(potential, 0.5)
    start = w.detach().clone()
    expected = start
    for step in (1, 2, 20):
        with torch.no_grad():
            w += 1
        average.update(step)
        beta = min(0.5, step / (step + 9))
        expected = beta * expected + (1 - beta) * w.detach()
    torch.testing.assert_close(average.values[0], expected, rtol=1e-14, atol=1e-14)
    with average.in_place():
        assert torch.equal(w, average.values[0])
    torch.testing.assert_close(w.detach(), start + 3, rtol=0, atol=1e-14)
