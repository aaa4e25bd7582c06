"""Event files for TensorBoard, read back."""

import sys

import numpy as np
import pytest

from deepmd_lite.config import load_config
from deepmd_lite.errors import ConfigError
from deepmd_lite.train.lcurve import read_lcurve
from deepmd_lite.train.trainer import Trainer

SIDES = [
    f"{name}/{side}"
    for name in ("loss", "rmse_energy", "rmse_force", "rmse_virial")
    for side in ("training", "validation")
]


def scalars(folder):
    """Entries by name: dict of (steps, values)."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder)).Reload()
    rows = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
    return {name: ([e.step for e in r], np.array([e.value for e in r])) for name, r in rows.items()}


def test_events_are_the_learning_curve(task, write_input, tmp_path):
    pytest.importorskip("tensorboard")
    task["training"].update(tensorboard=True, tensorboard_log_dir="events", tensorboard_freq=2)
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    trainer.run()
    found, curve = scalars(tmp_path / "events"), read_lcurve(tmp_path / "lcurve.out")
    assert sorted(found) == sorted(["learning_rate", *SIDES])
    assert found["rmse_energy/training"][0] == [1, *range(2, 21, 2)]
    assert found["rmse_force/validation"][0] == curve["step"].tolist() == [1, 5, 10, 15, 20]
    shared = [
        0,
        5,
        10,
    ]  # places of steps 1, 10 and 20 among the training entries, and of the same in lcurve.out:
    rows = [0, 2, 4]
    for name, column in (("energy", "rmse_e"), ("force", "rmse_f"), ("virial", "rmse_v")):
        # lcurve.out has three digits: half a unit of the last is at most 0.5 %
        np.testing.assert_allclose(found[f"rmse_{name}/validation"][1], curve[f"{column}_val"], rtol=0.005)
        training = found[f"rmse_{name}/training"][1][shared]
        np.testing.assert_allclose(training, curve[f"{column}_trn"][rows], rtol=0.005)
    np.testing.assert_allclose(found["loss/validation"][1] ** 0.5, curve["rmse_val"], rtol=0.005)
    rates = [trainer.schedule(step - 1) for step in found["learning_rate"][0]]
    np.testing.assert_allclose(found["learning_rate"][1], rates, rtol=1e-6)  # float32


def test_a_restart_shows_one_run(task, write_input, tmp_path):
    """Entries beyond the checkpoint are of a run that is not continued: each step appears once."""
    pytest.importorskip("tensorboard")
    task["training"].update(tensorboard=True)
    config = load_config(write_input(task))
    config.training.numb_steps, config.training.save_freq = 14, 10
    first = Trainer(config, tmp_path)
    first._checkpoint = lambda: None if first.step > 10 else Trainer._checkpoint(first)
    first.run()
    Trainer(load_config(write_input(task)), tmp_path, restart=tmp_path / "model.ckpt.dp").run()
    assert scalars(tmp_path / "log")["rmse_force/training"][0] == list(range(1, 21))


def test_without_the_package(task, write_input, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import then fails
    task["training"].update(tensorboard=True)
    with pytest.raises(
        ConfigError, match=r"training.tensorboard: expected the package .* pip install tensorboard"
    ):
        Trainer(load_config(write_input(task)), tmp_path)


def test_no_events_unless_asked_for(task, write_input, tmp_path):
    Trainer(load_config(write_input(task)), tmp_path).run()
    assert not (tmp_path / "log").exists()
