"""Models and structures of every kind that the physics tests go through, in both implementations.

Weights: alloy.dp is trained (train_alloy.py); the models of tests/golden have real statistics (davg ≠ 0) and
random weights. Systems are small: one thread is faster than several.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from deepmd_lite import CompiledPot, DeepPot, read_model

IMPLEMENTATIONS = {"torch": DeepPot, "numba": CompiledPot}
TESTS = Path(__file__).parents[1]


class Case(NamedTuple):
    potential: DeepPot | CompiledPot
    coord: np.ndarray
    atype: np.ndarray
    box: np.ndarray | None
    pbc: np.ndarray

    def evaluate(self, **changes):
        """The prediction for this structure with ``changes``."""
        potential, *structure = self._replace(**changes)
        return potential.evaluate(*structure, atom_virial=True)


def golden(name, pbc, sel=None):
    frames = np.load(TESTS / f"golden/{name}.npz")
    model = read_model(TESTS / f"golden/{name}.dp")
    if sel:
        model = replace(model, descriptor=replace(model.descriptor, sel=sel))
    box = frames["box"][0] if any(pbc) else None
    return Case(model, frames["coord"][0], frames["atype"].astype(np.int32), box, np.array(pbc))


def alloy(repeat=(2, 2, 2), displacement=0.1, seed=0):
    """B2 NiAl, strained and displaced at random (Å): a trained model near what it was trained on."""
    rng = np.random.default_rng(seed)
    box = 2.88 * (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    corners = np.indices(repeat).reshape(3, -1).T
    frac = (corners[:, None] + np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])).reshape(-1, 3)
    coord = frac @ box + rng.uniform(-displacement, displacement, frac.shape)
    atype = np.tile(np.array([0, 1], np.int32), len(corners))
    model = read_model(TESTS / "physics/alloy.dp")
    return Case(model, coord, atype, np.reshape(repeat, (3, 1)) * box, np.ones(3, bool))


CASES = {  # of records; the fixtures make a potential of them
    "trained bulk": alloy,
    "bulk": lambda: golden("one_sided_triclinic", (True, True, True)),
    "slab": lambda: golden("one_sided_triclinic", (True, False, True)),
    "wire": lambda: golden("one_sided_triclinic", (False, False, True)),
    "cell below rcut": lambda: golden("two_sided_small_cell", (True, True, True)),
    "molecule": lambda: golden("cluster_nopbc", (False, False, False)),
    "beyond sel": lambda: golden("one_sided_triclinic", (True, True, True), sel=(5, 9)),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    """DeepPot and CompiledPot in turn."""
    return IMPLEMENTATIONS[request.param]


@pytest.fixture(params=CASES)
def case(request, make_case):
    """Each kind of structure in turn."""
    return make_case(request.param)


@pytest.fixture
def make_case(implementation):
    """make_case("slab"): one of CASES; with ``sel`` (one number) where given."""

    def make(name, sel=None):
        record = CASES[name]()
        model = record.potential
        if sel:
            sel = (sel,) * len(model.type_map)
            model = replace(model, descriptor=replace(model.descriptor, sel=sel))
        return record._replace(potential=implementation(model))

    return make


@pytest.fixture
def make_alloy(implementation):
    def make(*args, **options):
        record = alloy(*args, **options)
        return record._replace(potential=implementation(record.potential))

    return make


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
