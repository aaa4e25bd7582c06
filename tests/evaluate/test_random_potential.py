"""A potential of random features: an ordinary model that is right on frames it was not fitted to."""

import json

import numpy as np
import pytest

from deepmd_lite import CompiledPot, read_model, read_systems, write_system
from deepmd_lite.config import load_config
from deepmd_lite.evaluate.predict import predict
from deepmd_lite.evaluate.random_potential import GAMMA, _descriptors, _start, random_potential, randomized
from deepmd_lite.frames.system import System
from deepmd_lite.train.trainer import Trainer


def repulsion(coord):
    """Energy and force of atoms in open space: Σ exp(-2 (r - 1.8)) over pairs."""
    vec = coord[None] - coord[:, None]
    r = np.linalg.norm(vec, axis=-1) + np.eye(len(coord))
    pair = np.exp(-2 * (r - 1.8)) * (1 - np.eye(len(coord)))
    return 0.5 * pair.sum(), ((-2 * pair / r)[..., None] * vec).sum(1)


@pytest.fixture
def task(tmp_path):
    """Path of an input, and frames that it does not train on."""
    rng = np.random.default_rng(0)
    base = 1.8 * np.stack(np.meshgrid(*[range(3)] * 2, [0, 1]), -1).reshape(-1, 3)[:9]
    coord = base + rng.uniform(-0.3, 0.3, (60, 9, 3))
    energy, force = (np.array(x) for x in zip(*map(repulsion, coord)))
    system = System(
        name="repulsion",
        type_map=("O", "H"),
        atype=np.array([0, 1, 1] * 3, np.int32),
        coord=coord,
        box=None,
        pbc=np.zeros(3, bool),
        labels={"energy": energy, "force": force},
        found={k: np.ones(60, bool) for k in ("energy", "force")},
    )
    write_system(f"{tmp_path}/frames.h5#/train", system.select(slice(0, 40)))
    write_system(f"{tmp_path}/frames.h5#/test", system.select(slice(40, 60)))
    source = {
        "model": {
            "type_map": ["O", "H"],
            "descriptor": {
                "type": "se_e2_a",
                "sel": [4, 8],
                "rcut": 5.0,
                "neuron": [8, 16],
                "axis_neuron": 4,
            },
            "fitting_net": {"neuron": [40, 40], "seed": 1},
        },
        "learning_rate": {"start_lr": 1e-3, "stop_lr": 1e-5},
        "training": {
            "training_data": {"systems": f"{tmp_path}/frames.h5#/train", "batch_size": 4},
            "numb_steps": 2,
        },
    }
    path = tmp_path / "input.json"
    path.write_text(json.dumps(source))
    return path, f"{tmp_path}/frames.h5#/test"


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def test_frames_left_out_tell_the_error_on_others(task, tmp_path):
    """Forces of 540 components: the RMS of either scatters by some percent, more as frames differ."""
    path, test = task
    fitted = random_potential(path, tmp_path / "rf.dp")
    [system] = read_systems(test, ("O", "H"))
    p = predict(CompiledPot(read_model(tmp_path / "rf.dp")), system)
    error = rms(p.force - system.labels["force"])
    assert error < 0.1 * rms(system.labels["force"])
    assert fitted.force == pytest.approx(error, rel=0.3)
    assert fitted.energy == pytest.approx(rms(p.energy - system.labels["energy"]) / 9, rel=0.5)
    assert (fitted.size, fitted.nframes) == (82, 40) and fitted.table().row_count == 5


def test_same_seed_same_model(task):
    path, _ = task
    one, same, other = (random_potential(path, nframes=10, seed=seed).model for seed in (3, 3, 4))
    w = [m.fitting.nets[0][-1].w for m in (one, same, other)]
    assert np.array_equal(w[0], w[1]) and not np.allclose(w[0], w[2])


def test_projections_have_the_spread_that_is_said(task):
    """Of the first layer, over the atoms that D was measured on: all those of these few frames."""
    model, stored = _start(load_config(task[0]))
    systems = [s.read().select(slice(0, 8)) for s in stored]
    model = randomized(model, systems, np.random.default_rng(0))
    for d, net in zip(_descriptors(model, systems), model.fitting.nets):
        np.testing.assert_allclose((d @ net[0].w).std(axis=0), GAMMA, rtol=1e-9)
        assert not net[-1].w.any()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_training_takes_it_on(task, tmp_path, precision):
    path, _ = task
    source = json.loads(path.read_text())
    for part in ("descriptor", "fitting_net"):
        source["model"][part]["precision"] = precision
    path.write_text(json.dumps(source))
    random_potential(path, tmp_path / "rf.dp")
    trainer = Trainer(load_config(path), tmp_path / "run", init_model=tmp_path / "rf.dp")
    assert read_model(trainer.run()).fitting.precision == precision
