"""P3: rotation (proper and improper), permutation, translation by 1,000 Å, image shift of an atom.

Energy 1e-11 relative, forces 1e-10 eV/Å: positions of 10³–10⁴ Å round at 2e-12 Å, and forces change by some
10 eV/Å per Å.
"""

import numpy as np
import pytest

ENERGY, FORCE = 1e-11, 1e-10  # relative; eV/Å

pytestmark = pytest.mark.filterwarnings("ignore:an atom has")


def assert_same(found, expected, force, virial=None):
    assert found.energy == pytest.approx(expected.energy, rel=ENERGY)
    np.testing.assert_allclose(found.force, force, rtol=0, atol=FORCE)
    virial = expected.virial if virial is None else virial
    np.testing.assert_allclose(found.virial, virial, rtol=0, atol=10 * FORCE)  # eV: 10 Å times the force


@pytest.mark.parametrize("handedness", [1, -1])
def test_rotation(case, handedness):
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(0, 1, (3, 3)))
    q *= handedness * np.sign(np.linalg.det(q))
    expected = case.evaluate()
    found = case.evaluate(coord=case.coord @ q.T, box=None if case.box is None else case.box @ q.T)
    assert_same(found, expected, expected.force @ q.T, q @ expected.virial @ q.T)


def test_permutation(case):
    order = np.random.default_rng(1).permutation(len(case.coord))
    expected = case.evaluate()
    found = case.evaluate(coord=case.coord[order], atype=case.atype[order])
    assert_same(found, expected, expected.force[order])
    np.testing.assert_allclose(found.atom_energy, expected.atom_energy[order], rtol=ENERGY)


def test_translation_by_a_thousand_angstrom(case):
    expected = case.evaluate()
    found = case.evaluate(coord=case.coord + np.array([600.0, -700.0, 400.0]))
    assert_same(found, expected, expected.force)


@pytest.mark.parametrize("name", ["trained bulk", "bulk", "slab", "wire", "cell below rcut", "beyond sel"])
def test_image_shift(make_case, name):
    """One atom by one cell, then every atom by up to 100 cells of its own."""
    case = make_case(name)
    expected = case.evaluate()
    one = np.zeros((len(case.coord), 3))
    one[3] = (1, -1, 1)
    for cells in (one, np.random.default_rng(2).integers(-100, 101, one.shape)):
        found = case.evaluate(coord=case.coord + cells * case.pbc @ case.box)
        assert_same(found, expected, expected.force)


def test_another_basis_of_the_same_lattice(make_case):
    """Faults 15: a cell tilted by several of its edges, left-handed too."""
    case = make_case("trained bulk")
    expected = case.evaluate()
    for basis in ([[1, 0, 0], [3, 1, 0], [-2, 1, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]):
        assert_same(case.evaluate(box=np.array(basis) @ case.box), expected, expected.force)
