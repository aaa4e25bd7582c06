"""Whole training runs on a tiny task."""

import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from deepmd_lite import DeepPot, read_model, read_systems, write_system
from deepmd_lite.config import load_config
from deepmd_lite.errors import ConfigError, ModelFileError, NeighborOverflowError, TrainingError
from deepmd_lite.train.init import write_input as init_input
from deepmd_lite.train.lcurve import read_lcurve
from deepmd_lite.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(path):
    return [p.detach().numpy() for p in DeepPot.load(path).parameters()]


def test_training_learns(task, write_input, tmp_path, frames):
    task["training"]["numb_steps"] = 200
    Trainer(load_config(write_input(task)), tmp_path).run()
    potential = DeepPot.load(tmp_path / "model.dp")
    (system,) = read_systems(f"{frames}#/train", ("O", "H"))
    found = [potential.evaluate(c, system.atype, None, system.pbc).force for c in system.coord]
    error = np.array(found) - system.labels["force"]
    assert error.std() < 0.4 * system.labels["force"].std()  # no forces at all score 1, this run about 0.2


def test_a_run_that_got_worse_says_so(task, write_input, tmp_path, frames):
    """Forces of the wrong sign to validate on: the longer the training, the larger their error."""
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    trainer.run()
    assert trainer.warning() is None
    (system,) = read_systems(f"{frames}#/validation", ("O", "H"))
    system.labels["force"] *= -1
    write_system(f"{tmp_path / 'reversed.h5'}#/frames", system)
    task["training"] |= {"validation_data": {"systems": str(tmp_path / "reversed.h5")}}
    task["training"] |= {"numb_steps": 200, "save_freq": 5}
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    trainer.run()
    curve = read_lcurve(tmp_path / "lcurve.out")["rmse_f_val"][1:]
    percent = int(re.search(r"is (\d+) % above", trainer.warning())[1])
    assert 5 < percent == pytest.approx(100 * (curve[-1] / curve.min() - 1), abs=2)


def test_learning_curve_has_deepmd_kit_columns(task, write_input, tmp_path):
    Trainer(load_config(write_input(task)), tmp_path).run()
    lines = (tmp_path / "lcurve.out").read_text().splitlines()
    names = "rmse_val rmse_trn rmse_e_val rmse_e_trn rmse_f_val rmse_f_trn rmse_v_val rmse_v_trn".split()
    assert lines[0].split() == ["#", "step", *names, "lr"]
    assert lines[1].startswith("# If there is no available reference data")
    curve = read_lcurve(tmp_path / "lcurve.out")
    assert curve["step"].tolist() == [1, 5, 10, 15, 20]
    assert np.isfinite(curve["rmse_v_val"]).all()


def test_restart_is_bitwise(task, write_input, tmp_path):
    """R2: 10 + 10 steps are 20 steps, weights and learning curve, on one thread."""
    whole = load_config(write_input(task))
    Trainer(whole, tmp_path / "whole").run()

    first = Trainer(whole, tmp_path / "parts")
    first.config.training.numb_steps = 10  # the schedule keeps its 20 steps
    first.run()
    second = Trainer(
        load_config(write_input(task)), tmp_path / "parts", restart=tmp_path / "parts/model.ckpt.dp"
    )
    second.run()
    for a, b in zip(weights(tmp_path / "whole/model.dp"), weights(tmp_path / "parts/model.dp")):
        assert np.array_equal(a, b)
    curves = [(tmp_path / run / "lcurve.out").read_text() for run in ("whole", "parts")]
    assert curves[0] == curves[1]


def test_restart_removes_rows_after_the_checkpoint(task, write_input, tmp_path):
    config = load_config(write_input(task))
    Trainer(config, tmp_path).run()
    with h5py.File(tmp_path / "model.ckpt.dp", "r+") as f:
        f["training/done"][()] = 10
    Trainer(load_config(write_input(task)), tmp_path, restart=tmp_path / "model.ckpt.dp").run()
    assert read_lcurve(tmp_path / "lcurve.out")["step"].tolist() == [1, 5, 10, 15, 20]


def test_start_from_a_model(task, write_input, tmp_path):
    Trainer(load_config(write_input(task)), tmp_path).run()
    again = Trainer(load_config(write_input(task)), tmp_path / "again", init_model=tmp_path / "model.dp")
    assert again.step == 0
    for a, b in zip(weights(tmp_path / "model.dp"), again.potential.parameters()):
        assert np.array_equal(a, b.detach().numpy())
    with pytest.raises(ModelFileError, match="expected a checkpoint"):
        Trainer(load_config(write_input(task)), tmp_path / "again", restart=tmp_path / "model.dp")


@pytest.mark.parametrize(
    "part, key, value",
    [
        ("fitting_net", "neuron", [5]),
        ("descriptor", "sel", [8, 8]),
        ("descriptor", "activation_function", "gelu"),
        ("descriptor", "resnet_dt", True),
    ],
)
def test_continuing_another_model_is_refused(task, write_input, tmp_path, part, key, value):
    Trainer(load_config(write_input(task)), tmp_path).run()
    task["model"][part][key] = value
    for how in ("init_model", "restart"):
        with pytest.raises(ConfigError, match=rf"model.{part}.{key}: the input says .*, the model file"):
            Trainer(load_config(write_input(task)), tmp_path / "again", **{how: tmp_path / "model.ckpt.dp"})


def test_probabilities_for_every_system(task, write_input, tmp_path):
    task["training"]["training_data"]["sys_probs"] = [0.5, 0.5]
    with pytest.raises(ConfigError, match="sys_probs: expected 1 numbers, one for each system, found 2"):
        Trainer(load_config(write_input(task)), tmp_path)


def test_folders_in_the_way(task, write_input, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make this folder"):
        Trainer(load_config(write_input(task)), tmp_path / "file")
    task["training"]["disp_file"] = "nowhere/lcurve.out"
    with pytest.raises(ConfigError, match="there is no folder"):
        Trainer(load_config(write_input(task)), tmp_path)


def test_float32_nets(task, write_input, tmp_path):
    task["model"]["descriptor"]["precision"] = task["model"]["fitting_net"]["precision"] = "float32"
    whole = load_config(write_input(task))
    Trainer(whole, tmp_path).run()
    assert read_model(tmp_path / "model.dp").fitting.nets[0][0].w.dtype == np.float32


def test_gradient_clipping_limits_a_step(task, write_input, tmp_path):
    """Adam's first step has length lr whatever the gradient; with its moments tiny next to eps it shrinks."""
    task["training"]["gradient_max_norm"] = 1e-12
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    before = [p.detach().clone() for p in trainer.potential.parameters()]
    trainer._train_step(trainer.sampler(0), 0.01)
    moved = max(float((a - b.detach()).abs().max()) for a, b in zip(before, trainer.potential.parameters()))
    assert 0 < moved < 0.01 * 1e-3  # lr · |g| / eps = 0.01 · 1e-12 / 1e-8


@pytest.mark.parametrize("activation", ["tanh", "relu"])  # fused kernels, the torch model
def test_frozen_layers_stay_as_they_are(task, write_input, tmp_path, activation):
    task["model"]["fitting_net"]["trainable"] = [False, True, False]
    task["model"]["descriptor"].update(trainable=False, activation_function=activation)
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.potential.named_parameters()}
    trainer._train_step(trainer.sampler(0), 0.01)
    moved = {n for n, p in trainer.potential.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if n.startswith("fitting") and ".layers.1." in n}


def test_too_small_sel_is_refused(task, write_input, tmp_path):
    task["model"]["descriptor"]["sel"] = [1, 2]
    with pytest.raises(NeighborOverflowError, match=r"sel = \[1, 2\] is too small: .* needs \["):
        Trainer(load_config(write_input(task)), tmp_path)


def test_non_finite_loss_names_the_frames(task, write_input, tmp_path):
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    frame = trainer.sampler(0)[0]
    frame.labels.energy.fill_(float("nan"))
    with pytest.raises(TrainingError, match=rf"step 1: the loss is nan on .*frame {frame.index}"):
        trainer.run()
    assert not (tmp_path / "model.dp").exists()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_leaves_a_checkpoint(task, write_input, tmp_path, number, code):
    task["training"].update(numb_steps=1_000_000, disp_freq=1)
    task["learning_rate"]["decay_steps"] = 5000
    path = write_input(task)
    run = subprocess.Popen(
        [sys.executable, "-m", "deepmd_lite", "train", str(path), "-o", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    curve = tmp_path / "run" / "lcurve.out"
    for _ in range(6000):
        if curve.exists() and len(curve.read_text().splitlines()) > 4:
            break
        time.sleep(0.1)
    run.send_signal(number)
    message = run.communicate(timeout=600)[1]
    assert run.returncode == code, message
    assert "continue with --restart" in message
    config = load_config(path)
    config.training.numb_steps = 1_000_000
    assert Trainer(config, tmp_path / "run", restart=tmp_path / "run/model.ckpt.dp").step >= 3


def test_init_writes_an_input_that_trains(frames, tmp_path):
    made = init_input(
        tmp_path / "input.json",
        data=[f"{frames}#/train"],
        validation=[f"{frames}#/validation"],
        size="small",
        steps=3,
    )
    assert made["loss"]["start_pref_v"] > 0
    Trainer(load_config(tmp_path / "input.json"), tmp_path).run()
    assert (tmp_path / "model.dp").exists()
    with pytest.raises(ConfigError, match="exists; choose another name or pass --force"):
        init_input(tmp_path / "input.json", data=[f"{frames}#/train"])
