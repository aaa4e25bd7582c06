"""Small systems with made-up labels: what is stored is compared, not physics."""

import numpy as np
import pytest

from deepmd_lite.frames.store import System


def water_system(nframes=5, pbc=(True, True, True), seed=0):
    """Two water molecules in a triclinic cell, labels drawn at random."""
    rng = np.random.default_rng(seed)
    molecule = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    coord = np.concatenate([molecule, molecule + [3.0, 3.0, 3.0]]) + rng.normal(0, 0.05, (nframes, 6, 3))
    box = np.array([[6.0, 0, 0], [1.0, 6.5, 0], [0.5, 0.3, 7.0]]) + rng.normal(0, 0.01, (nframes, 3, 3))
    labels = {
        "energy": rng.normal(-900, 1, nframes),
        "force": rng.normal(0, 1, (nframes, 6, 3)),
        "virial": rng.normal(0, 1, (nframes, 3, 3)),
    }
    return System(
        name="water",
        type_map=("O", "H"),
        atype=np.array([0, 1, 1, 0, 1, 1], dtype=np.int32),
        coord=coord,
        box=box if any(pbc) else None,
        pbc=np.array(pbc),
        labels=labels,
        found={key: np.ones(nframes, dtype=bool) for key in labels},
    )


@pytest.fixture
def water():
    return water_system()


@pytest.fixture
def make_water():
    return water_system


def assert_same_frames(one, other):
    """Bitwise: what was written is float64 and comes back as it was."""
    assert one.symbols == other.symbols
    assert one.pbc.tolist() == other.pbc.tolist()
    assert np.array_equal(one.coord, other.coord)
    assert (one.box is None) == (other.box is None)
    assert one.box is None or np.array_equal(one.box, other.box)
    assert set(one.labels) == set(other.labels)
    for key in one.labels:
        assert np.array_equal(one.found[key], other.found[key]), key
        assert np.array_equal(one.labels[key], other.labels[key]), key


@pytest.fixture
def same_frames():
    return assert_same_frames
