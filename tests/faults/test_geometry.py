"""Hard geometry: what can be answered is answered exactly, the rest is refused by name."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import niggli_reduce

from deepmd_lite.box import extend
from deepmd_lite.errors import DomainError
from deepmd_lite.neighbors import NeighborList, cell_list

EVERYWHERE = (True, True, True)


def sorted_distances(coord, box, pbc, rcut):
    """Of each atom to its neighbors, Å."""
    ghosts = extend(coord, box, pbc, rcut)
    table = cell_list(ghosts.coord, len(coord), rcut)
    return [
        np.sort(np.linalg.norm(ghosts.coord[table.index[a:b]] - ghosts.coord[i], axis=1))
        for i, (a, b) in enumerate(zip(table.first, table.first[1:]))
    ]


def assert_equal_distances(one, other):
    """Within 1e-10 Å: rounding of positions of up to 10⁴ Å."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_cell_edge_below_half_the_cutoff():
    box = np.diag([2.5, 2.6, 2.7])  # rcut 6 Å: 2.4 cells
    supercell = np.indices((3, 3, 3)).reshape(3, -1).T @ box
    (atom,) = sorted_distances(np.zeros((1, 3)), box, EVERYWHERE, 6.0)
    assert_equal_distances(sorted_distances(supercell, 3 * box, EVERYWHERE, 6.0), [atom] * 27)


@pytest.mark.parametrize("skew", [np.eye(3), [[1, 0, 0], [7, 1, 0], [-3, 5, 1]]])
def test_sharp_angles_and_large_tilts_equal_the_reduced_cell(skew):
    """α = 10°, and a cell tilted by several of its edges: the same lattice as after Niggli reduction."""
    sharp = np.array([[4.0, 0, 0], [0, 9, 0], [0, 9 * np.cos(np.pi / 18), 9 * np.sin(np.pi / 18)]])
    box = np.array(skew) @ sharp
    atoms = Atoms("Ar4", cell=box, pbc=True, scaled_positions=np.random.default_rng(0).random((4, 3)))
    reduced = atoms.copy()
    niggli_reduce(reduced)
    assert_equal_distances(
        sorted_distances(atoms.positions, box, EVERYWHERE, 5.0),
        sorted_distances(reduced.positions, reduced.cell[:], EVERYWHERE, 5.0),
    )


def test_atoms_a_thousand_cells_outside_each_in_another_image():
    box = np.array([[6.0, 0, 0], [2.5, 5, 0], [-1.1, 0.8, 7]])
    rng = np.random.default_rng(1)
    coord = rng.random((8, 3)) @ box
    images = coord + rng.integers(-1000, 1001, (8, 3)) @ box
    assert_equal_distances(
        sorted_distances(coord, box, EVERYWHERE, 6.3), sorted_distances(images, box, EVERYWHERE, 6.3)
    )


@pytest.mark.parametrize("axis", range(3))
def test_pair_at_exactly_the_cutoff_is_no_pair(axis):
    """Neighbors are closer than rcut; distances here are exact in binary."""
    for box, pbc in ((None, (False,) * 3), (np.eye(3) * 12.0, EVERYWHERE)):
        coord = np.zeros((2, 3))
        coord[1, axis] = 6.0
        for rcut, count in ((6.0, 0), (np.nextafter(6.0, 7.0), 1)):
            ghosts = extend(coord, box, pbc, rcut)
            images = 2 if box is not None else 1  # 6 Å to the left, and to the right
            assert np.diff(cell_list(ghosts.coord, 2, rcut).first).tolist() == [count * images] * 2


@pytest.mark.parametrize("pbc", [EVERYWHERE, (False,) * 3])
def test_no_atoms_and_one_atom(pbc):
    box = np.eye(3) * 20.0
    for natoms in (0, 1):
        ghosts = extend(np.zeros((natoms, 3)), box, pbc, 6.0)
        table = cell_list(ghosts.coord, natoms, 6.0)
        assert table.first.tolist() == [0] * (natoms + 1) and len(table.index) == 0


def test_coincident_atoms_are_neighbors():
    """At no distance from each other: the potential refuses them, the list must not hide them."""
    table = cell_list(np.ones((3, 3)), 3, 1.0)
    assert [sorted(table.index[a : a + 2]) for a in table.first[:-1]] == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_name_the_atom(value):
    coord = np.zeros((5, 3))
    coord[3, 1] = value
    skin = NeighborList(3.0, 1.0)
    skin.update(np.arange(15.0).reshape(5, 3), None, (False,) * 3)
    for call in (
        lambda: extend(coord, np.eye(3) * 9, EVERYWHERE, 3.0),
        lambda: cell_list(coord, 5, 3.0),
        lambda: skin.update(coord, None, (False,) * 3),
    ):
        with pytest.raises(DomainError, match="atom 3"):
            call()


@pytest.mark.parametrize("rcut", [0.0, -6.0, np.nan, np.inf])
def test_cutoffs_that_are_no_length(rcut):
    for call in (
        lambda: extend(np.zeros((1, 3)), np.eye(3), EVERYWHERE, rcut),
        lambda: cell_list(np.zeros((1, 3)), 1, rcut),
        lambda: NeighborList(rcut, 1.0),
    ):
        with pytest.raises(DomainError, match="rcut"):
            call()


def test_numbers_that_would_overflow_are_refused():
    with pytest.raises(DomainError, match="cells outside"):
        extend(np.full((1, 3), 1e12), np.eye(3), EVERYWHERE, 3.0)
    with pytest.raises(DomainError, match="too far"):
        cell_list(np.array([[0.0, 0, 0], [0, 1e200, 0]]), 2, 3.0)
    skin = NeighborList(3.0, 1.0)
    skin.update(np.zeros((1, 3)), np.eye(3) * 9, EVERYWHERE)
    with pytest.raises(DomainError, match="cells outside"):
        skin.update(np.full((1, 3), 1e12), np.eye(3) * 9, EVERYWHERE)


def test_arrays_of_the_wrong_shape():
    for coord in (np.zeros(3), np.zeros((3, 2)), np.zeros((2, 3, 3))):
        with pytest.raises(DomainError, match="shape"):
            extend(coord, np.eye(3), EVERYWHERE, 3.0)
