"""P4, N4: energy, force and dF/dx are continuous as a neighbor crosses rcut or rcut_smth, beyond ``sel`` too.

An atom is STEP = 1e-14 Å on either side of the distance from its neighbor. dF/dx is exact, by automatic
differentiation, where torch evaluates. What is smooth changes by 2 STEP times its own derivative (below
10³ eV/Å³: 2e-11) and by rounding (1e-14 of a few eV, and of 50 eV/Å²); the bar for a jump is 1e-10.

In the engine dF/dx is a one-sided difference over h = 2e-5 Å, whose truncation error h²/3 times the third
derivative of the force is below 1e-6 eV/Å²; a force with a kink differs by its own slope, of order 1 eV/Å².
"""

import warnings

import numpy as np
import pytest
import torch

from deepmd_lite import DeepPot
from deepmd_lite.model.batch import from_frame

STEP = 1e-14  # Å
JUMP = 1e-10  # eV, eV/Å, eV/Å²
NOWHERE = np.zeros(3, bool)


def crossing(distance):
    """Atom 0 before a cluster of five, atom 1 behind it at ``distance`` from atom 0: (7, 3), Å."""
    cluster = [[-1, 0.3, 0.2], [-0.4, 1, -0.5], [0.1, -0.9, 0.8], [-0.7, -0.8, -0.9], [0.2, 0.6, 1.1]]
    direction = np.array([1, 0.2, -0.1]) / np.linalg.norm([1, 0.2, -0.1])
    return np.concatenate((np.zeros((1, 3)), distance * direction[None], cluster))


def one_sided(potential, distance, atype, side, h=2e-5):
    """Derivative (natoms * 3,) of the forces by the distance, eV/Å², from below (-1) or above (1): O(h²)."""
    f0, f1, f2 = (
        potential.evaluate(crossing(distance + side * k * h), atype, None, NOWHERE).force.ravel()
        for k in range(3)
    )
    return side * (-3 * f0 + 4 * f1 - f2) / (2 * h)


def derivatives(potential, coord, atype):
    """Energy (), forces (natoms * 3,) and their derivatives (natoms * 3, natoms * 3)."""
    batch = from_frame(coord, atype, None, NOWHERE, potential.rcut, potential.ntypes)
    batch.coord.requires_grad_()
    out = potential(batch)
    rows = [torch.autograd.grad(f, batch.coord, retain_graph=True)[0] for f in out.force.flatten()]
    return out.energy.item(), out.force.detach().flatten().numpy(), torch.stack(rows).flatten(1).numpy()


@pytest.mark.filterwarnings("ignore:an atom has")
@pytest.mark.parametrize("sel", [20, 3], ids=["below sel", "beyond sel"])
@pytest.mark.parametrize("at", ["rcut", "rcut_smth"])
@pytest.mark.parametrize("name", ["trained bulk", "molecule", "cell below rcut"])
def test_no_jump_as_a_neighbor_crosses(name, at, sel, make_case):
    potential = make_case(name, sel).potential
    assert abs(potential.model.descriptor.davg[:, 0]).min() > 0.01  # empty slots do count
    distance = getattr(potential.model.descriptor, at)
    atype = np.array([0, 1, 0, 1, 1, 0, potential.ntypes - 1], np.int32)
    places = [distance + t for t in (-STEP, STEP, 0.2)]
    if isinstance(potential, DeepPot):
        inside, outside, far = (derivatives(potential, crossing(r), atype) for r in places)
    else:
        inside, outside, far = (potential.evaluate(crossing(r), atype, None, NOWHERE)[:3] for r in places)
        below, above = (one_sided(potential, distance, atype, side) for side in (-1, 1))
        assert np.abs(below - above).max() < 1e-5  # eV/Å²
    for a, b, c in zip(inside, outside, far):
        assert np.abs(a - b).max() < JUMP
        assert np.abs(a - c).max() > 100 * JUMP  # the crossing is felt


def test_a_pair_at_exactly_the_cutoffs(make_case):
    """Faults 19: r = rcut and r = rcut_smth in binary, against the values a rounding away."""
    case = make_case("molecule")
    for distance in (case.potential.rcut, case.potential.model.descriptor.rcut_smth):
        around = [np.nextafter(distance, 0), distance, np.nextafter(distance, 9)]
        pairs = [np.array([[0.0, 0, 0], [0, r, 0]]) for r in around]
        below, at, above = (case.evaluate(coord=c, atype=np.array([0, 1])) for c in pairs)
        assert below.energy == pytest.approx(at.energy, rel=1e-13)
        assert above.energy == pytest.approx(at.energy, rel=1e-13)
        np.testing.assert_allclose([below.force, above.force], [at.force] * 2, rtol=0, atol=1e-12)


def test_more_neighbors_than_sel_are_told_once_and_all_count(make_case):
    """Faults 18: at three times the density. That the continuation is exact is tested in tests/model."""
    case = make_case("bulk", sel=40)
    dense = {"coord": case.coord * 3 ** (-1 / 3), "box": case.box * 3 ** (-1 / 3)}
    with pytest.warns(UserWarning, match=r"sel = \[40, 40\].*nothing is truncated"):
        first = case.evaluate(**dense)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = case.evaluate(**dense)
    assert np.isfinite(first.force).all() and first.energy == again.energy
