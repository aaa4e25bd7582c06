"""A tiny training task: eight frames of three water molecules, labelled by a repulsion between all atoms."""

import json

import numpy as np
import pytest
import torch

from deepmd_lite import write_system
from deepmd_lite.frames.store import System


def repulsion(coord):
    """Energy, force and virial of a molecule in open space: Σ exp(-2 (r - 1.8)) over pairs."""
    vec = coord[None] - coord[:, None]  # (n, n, 3), i to j
    r = np.linalg.norm(vec, axis=-1) + np.eye(len(coord))
    pair = np.exp(-2 * (r - 1.8)) * (1 - np.eye(len(coord)))
    gradient = (-2 * pair / r)[..., None] * vec  # dE/dx_ij; every pair stands twice
    return 0.5 * pair.sum(), gradient.sum(1), -0.5 * np.einsum("ija,ijb->ab", gradient, vec)


@pytest.fixture
def frames(tmp_path):
    """Path of an HDF5 file with the frames in the system /train and the same in /validation."""
    rng = np.random.default_rng(0)
    base = 1.8 * np.stack(np.meshgrid(*[range(3)] * 2, [0, 1]), -1).reshape(-1, 3)[:9]
    coord = base + rng.uniform(-0.3, 0.3, (8, 9, 3))
    energy, force, virial = (np.array(x) for x in zip(*map(repulsion, coord)))
    labels = {"energy": energy, "force": force, "virial": virial}
    system = System(
        name="repulsion",
        type_map=("O", "H"),
        atype=np.array([0, 1, 1] * 3, np.int32),
        coord=coord,
        box=None,
        pbc=np.zeros(3, bool),
        labels=labels,
        found={k: np.ones(8, bool) for k in labels},
        source_dtype={},
    )
    path = tmp_path / "frames.h5"
    write_system(f"{path}#/train", system)
    write_system(f"{path}#/validation", system.select([1, 5]))
    return path


@pytest.fixture
def task(frames):
    """The same as an input dict: small nets, 20 steps."""
    return {
        "model": {
            "type_map": ["O", "H"],
            "descriptor": {
                "type": "se_e2_a",
                "sel": [4, 8],
                "rcut": 4.0,
                "rcut_smth": 0.5,
                "neuron": [4, 8],
                "axis_neuron": 4,
                "type_one_side": True,
                "seed": 1,
            },
            "fitting_net": {"neuron": [12, 12], "seed": 1},
        },
        "learning_rate": {"start_lr": 0.01, "stop_lr": 1e-5, "decay_steps": 5},
        "loss": {"start_pref_v": 0.1, "limit_pref_v": 1},
        "training": {
            "training_data": {"systems": f"{frames}#/train", "batch_size": 2},
            "validation_data": {"systems": f"{frames}#/validation", "numb_btch": 1},
            "numb_steps": 20,
            "disp_freq": 5,
            "save_freq": 10,
            "seed": 7,
        },
    }


@pytest.fixture
def write_input(tmp_path):
    """A function: write an input dict to a file and return its path."""

    def write(source, name="input.json"):
        path = tmp_path / name
        path.write_text(json.dumps(source))
        return path

    return write


@pytest.fixture
def one_thread():
    """Sums in one order: what is bitwise the same is so on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
