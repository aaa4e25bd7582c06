"""N2 and faults 14, 17: the same matter in different cells has the same energy per atom, 1e-11 relative."""

import numpy as np
import pytest

RELATIVE = 1e-11
FORCE = 1e-11  # eV/Å

EVERYWHERE, NOWHERE = np.ones(3, bool), np.zeros(3, bool)

pytestmark = pytest.mark.filterwarnings("ignore:an atom has")


def test_primitive_cell_is_its_supercell(make_case):
    """One atom in a cell of about half the cutoff, and 4 × 4 × 4 of them."""
    case = make_case("trained bulk")
    box = np.array([[2.3, 0.1, 0.0], [0.9, 2.4, 0.2], [-0.3, 0.7, 2.6]])
    corners = np.indices((4, 4, 4)).reshape(3, -1).T
    one = case.evaluate(coord=np.zeros((1, 3)), atype=np.array([0]), box=box)
    many = case.evaluate(coord=corners @ box, atype=np.zeros(64, int), box=4 * box)
    np.testing.assert_allclose(many.atom_energy, one.energy, rtol=RELATIVE)
    np.testing.assert_allclose(many.virial / 64, one.virial, rtol=0, atol=RELATIVE * abs(one.virial).max())
    np.testing.assert_allclose(many.force, 0, rtol=0, atol=FORCE)


def test_cell_is_its_supercell(make_alloy):
    small, large = make_alloy((1, 1, 1), displacement=0.0), make_alloy((3, 2, 1), displacement=0.0)
    rattled = np.array([[0.0, 0, 0], [0.2, -0.1, 0.15]])
    one = small.evaluate(coord=small.coord + rattled)
    many = large.evaluate(coord=large.coord + np.tile(rattled, (6, 1)))
    assert many.energy / 6 == pytest.approx(one.energy, rel=RELATIVE)
    np.testing.assert_allclose(many.force, np.tile(one.force, (6, 1)), rtol=0, atol=FORCE)


def test_slab_is_the_slab_with_vacuum(make_case):
    """Open along one axis, or periodic with more vacuum there than the cutoff: images that do not touch."""
    case = make_case("slab")
    padded = case.box.copy()
    padded[1] = np.cross(case.box[2], case.box[0])
    normal = padded[1] / np.linalg.norm(padded[1])
    padded[1] = (np.ptp(case.coord @ normal) + case.potential.rcut) * normal
    open_axis, closed = case.evaluate(), case.evaluate(box=padded, pbc=EVERYWHERE)
    assert closed.energy == pytest.approx(open_axis.energy, rel=RELATIVE)
    np.testing.assert_allclose(closed.force, open_axis.force, rtol=0, atol=FORCE)
    np.testing.assert_allclose(closed.virial, open_axis.virial, rtol=0, atol=10 * FORCE)


@pytest.mark.parametrize("edge", [50.0, 1e6])
def test_molecule_is_the_molecule_in_a_huge_box(edge, make_case):
    case = make_case("molecule")
    boxed = case.evaluate(box=edge * np.eye(3), pbc=EVERYWHERE)
    assert boxed.energy == pytest.approx(case.evaluate().energy, rel=RELATIVE)
    np.testing.assert_allclose(boxed.force, case.evaluate().force, rtol=0, atol=FORCE)


def test_isolated_atoms_and_absent_types(make_case):
    """Empty neighbor lists; one of the model's three types nowhere in the system."""
    potential = make_case("cell below rcut").potential
    alone = [potential.evaluate(np.zeros((1, 3)), np.array([t]), None, NOWHERE) for t in (0, 1)]
    far = potential.evaluate(np.array([[0.0, 0, 0], [0, 0, 100]]), np.array([0, 1]), None, NOWHERE)
    np.testing.assert_allclose(far.atom_energy, [p.energy for p in alone], rtol=RELATIVE)
    assert not far.force.any() and not far.virial.any()
