"""Data-parallel training: the same as one process with the same batches."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from deepmd_lite import DeepPot, read_systems, write_system
from deepmd_lite.train.lcurve import read_lcurve

ETHANOL = Path(__file__).parents[2] / "data/ethanol_pbe.h5"
DPLITE = ["-m", "deepmd_lite", "train", "input.json"]
INPUT = {
    "model": {
        "descriptor": {"type": "se_e2_a", "sel": "auto", "rcut": 4.0, "neuron": [4, 8], "axis_neuron": 4},
        "fitting_net": {"neuron": [12, 12]},
    },
    "learning_rate": {"start_lr": 0.003, "stop_lr": 1e-5, "type": "cosine"},
    "loss": {},
    "training": {
        "training_data": {"systems": "../frames.h5", "batch_size": 5},
        "validation_data": {"systems": "../frames.h5", "numb_btch": 2, "batch_size": 3},
        "numb_steps": 50,
        "disp_freq": 10,
        "save_freq": 50,
        "enable_ema": True,
    },
}


@pytest.fixture
def folder(tmp_path):
    """folder(name): a new one with the input, beside twelve frames."""
    system = read_systems(str(ETHANOL))[0]
    write_system(f"{tmp_path / 'frames.h5'}#/ethanol", system.select(range(12)))

    def make(name):
        path = tmp_path / name
        path.mkdir()
        (path / "input.json").write_text(json.dumps(INPUT))
        return path

    return make


@pytest.fixture
def one(folder):
    path = folder("one")
    subprocess.run([sys.executable, *DPLITE], cwd=path, check=True, capture_output=True)
    return path


def assert_same(one, other):
    """Weights, and the learning curve to the digits it is written with. Five frames are odd for two ranks."""
    for a, b in zip(*(DeepPot.load(p / "model.dp").parameters() for p in (one, other))):
        a, b = a.detach().numpy(), b.detach().numpy()
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * np.abs(a).max())
    curves = [read_lcurve(p / "lcurve.out") for p in (one, other)]
    assert len(curves[0]["step"]) == 6
    for key, values in curves[0].items():
        np.testing.assert_allclose(curves[1][key], values, rtol=0.011)


def test_ranks_of_mpirun_equal_one_process(one, folder, mpirun):
    path = folder("two")
    run = mpirun(2, *DPLITE, cwd=path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("frames to train on") == 1 and "ranks 2" in run.stdout
    assert_same(one, path)


@pytest.mark.slow
def test_more_ranks_than_frames_in_a_batch(one, folder, mpirun):
    path = folder("six")
    run = mpirun(6, *DPLITE, cwd=path)
    assert run.returncode == 0, run.stderr
    assert_same(one, path)


def test_ranks_of_torchrun_equal_one_process(one, folder):
    path = folder("torchrun")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run([*command, *DPLITE], cwd=path, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert_same(one, path)


def test_an_error_ends_all_ranks_with_one_message(folder, mpirun):
    path = folder("bad")
    (path / "input.json").write_text(json.dumps({**INPUT, "loss": {"start_pref_v": 1}, "modle": {}}))
    run = mpirun(2, *DPLITE, cwd=path)
    assert run.returncode != 0
    assert run.stderr.count("modle") == 1 and "Traceback" not in run.stderr


def test_a_signal_leaves_a_checkpoint_that_goes_on(folder, mpirun):
    """Sent to mpirun, which passes it on to all ranks; they agree on the step."""
    path, long, short = folder("stopped"), dict(INPUT["training"]), dict(INPUT["training"])
    long["numb_steps"] = 1_000_000
    (path / "input.json").write_text(json.dumps({**INPUT, "training": long}))
    run = mpirun(2, *DPLITE, cwd=path, start=True)
    deadline = time.time() + 120
    while not (path / "lcurve.out").exists() or len((path / "lcurve.out").read_text().splitlines()) < 4:
        assert time.time() < deadline and run.poll() is None
        time.sleep(0.2)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    with h5py.File(path / "model.ckpt.dp") as file:
        short["numb_steps"] = int(file["training/done"][()]) + 3
    (path / "input.json").write_text(json.dumps({**INPUT, "training": short}))
    go_on = mpirun(2, *DPLITE, "--restart", "model.ckpt.dp", cwd=path)
    assert go_on.returncode == 0 and (path / "model.dp").exists(), go_on.stderr
