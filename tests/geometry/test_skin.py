"""N3: a list with a skin is never stale, whatever atoms, cell and user do between two calls.

Every step, the pairs closer than rcut are compared with those of a list made afresh: the sets must be equal,
but for pairs within BAND of rcut (1e-10 Å; positions here stay below 10³ Å and round at 1e-13 Å).
"""

import numpy as np
import pytest

from deepmd_lite.box import extend
from deepmd_lite.errors import DomainError
from deepmd_lite.neighbors import NeighborList, cell_list

RCUT, SKIN, BAND = 3.0, 0.6, 1e-10  # Å
BOX = np.array([[6.0, 0.5, 0.0], [-1.5, 5.5, 0.3], [0.4, 1.0, 6.5]])


@pytest.fixture
def assert_current(table_pairs):
    def check(neighbors, coord, box, pbc):
        ghosts, table = neighbors.update(coord, box, pbc)
        images = coord[ghosts.owner] + ghosts.shift @ (np.zeros((3, 3)) if box is None else box)
        np.testing.assert_allclose(ghosts.coord, images, rtol=0, atol=BAND)
        fresh = extend(coord, box, pbc, RCUT)
        for rcut, missing in ((RCUT - BAND, False), (RCUT + BAND, True)):
            ours = table_pairs(ghosts, table, rcut)
            theirs = table_pairs(fresh, cell_list(fresh.coord, len(coord), RCUT))
            if missing:
                assert theirs <= ours
            else:
                assert ours <= theirs

    return check


def whole_cells(rng, natoms):
    """Lattice vectors to add to atoms: most stay."""
    return rng.integers(-3, 4, (natoms, 3)) * (rng.random((natoms, 1)) < 0.1)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, False)])
def test_random_walk_with_atoms_wrapped_at_will(pbc, assert_current):
    rng = np.random.default_rng(0)
    neighbors = NeighborList(RCUT, SKIN)
    coord = rng.random((20, 3)) @ BOX
    for _ in range(200):
        coord = coord + rng.normal(0, 0.03, coord.shape) + whole_cells(rng, 20) * pbc @ BOX
        assert_current(neighbors, coord, BOX, pbc)
    assert 5 < neighbors.builds < 100  # it was reused, and it was renewed


@pytest.mark.parametrize("affine", [True, False])
def test_shear_compression_and_rotation_of_the_cell(affine, assert_current):
    """Atoms follow the cell, or stay where they are while it changes around them."""
    rng = np.random.default_rng(1)
    neighbors = NeighborList(RCUT, SKIN)
    frac, box = rng.random((20, 3)), BOX
    coord = frac @ box
    for step in range(150):
        strain = np.eye(3) + rng.normal(0, 0.002, (3, 3))
        strain[0, 1] += 0.01  # shear, steadily, to more than 45°
        strain *= 0.998 if step < 75 else 1.002
        box = box @ strain
        coord = (coord @ strain if affine else coord) + rng.normal(0, 0.003, coord.shape)
        assert_current(neighbors, coord, box, (True, True, True))
    assert neighbors.builds < (100 if affine else 151)


def test_slab_and_wire_under_strain(assert_current):
    rng = np.random.default_rng(2)
    for pbc in ((True, True, False), (False, True, False)):
        neighbors, box = NeighborList(RCUT, SKIN), BOX * np.reshape(pbc, (3, 1))
        coord = rng.random((15, 3)) @ BOX
        for _ in range(80):
            strain = np.eye(3) + rng.normal(0, 0.004, (3, 3))
            coord, box = coord @ strain + rng.normal(0, 0.01, coord.shape), box @ strain
            assert_current(neighbors, coord, box, pbc)
        assert neighbors.builds < 70


def test_changes_that_are_not_motion(assert_current):
    """Other atoms, another periodicity, a permutation, a jump, another choice of the same lattice."""
    rng = np.random.default_rng(3)
    neighbors = NeighborList(RCUT, SKIN)
    coord = rng.random((12, 3)) @ BOX
    everywhere = (True, True, True)
    for present in (coord, coord[:7], coord[:0], coord, coord[::-1], coord[rng.permutation(12)], coord + 500):
        assert_current(neighbors, present, BOX, everywhere)
    for pbc in np.ndindex(2, 2, 2):
        assert_current(neighbors, coord, BOX, pbc)
    assert_current(neighbors, coord, None, (False, False, False))
    unimodular = np.array([[1, 1, 0], [0, 1, 0], [0, 2, 1]])
    for box in (BOX, unimodular @ BOX, -BOX, BOX[[1, 0, 2]]):
        assert_current(neighbors, coord, box, everywhere)


def test_arrays_changed_in_place(assert_current):
    neighbors, coord = NeighborList(RCUT, SKIN), np.random.default_rng(4).random((10, 3)) @ BOX
    box = BOX.copy()
    assert_current(neighbors, coord, box, (True,) * 3)
    coord[3] += 1.0
    assert_current(neighbors, coord, box, (True,) * 3)
    box[2] *= 0.7
    assert_current(neighbors, coord, box, (True,) * 3)
    assert neighbors.builds == 3


def test_a_pair_that_meets_at_the_bound():
    """Two atoms at rcut + skin + ε approach by a little less than skin/2 each, then by a little more."""
    neighbors = NeighborList(RCUT, SKIN)
    away = RCUT + SKIN + 1e-6
    for approach, builds in ((0.0, 1), (SKIN / 2 - 1e-6, 1), (SKIN / 2 + 1e-6, 2)):
        coord = np.array([[approach, 0, 0], [away - approach, 0, 0]])
        _, table = neighbors.update(coord, None, (False,) * 3)
        assert neighbors.builds == builds
    assert len(table.index) == 2


def test_without_skin_every_call_builds():
    neighbors = NeighborList(RCUT, 0.0)
    for _ in range(3):
        neighbors.update(np.zeros((1, 3)), None, (False,) * 3)
    assert neighbors.builds == 3


@pytest.mark.parametrize("skin", [-1.0, np.nan, np.inf])
def test_impossible_skins(skin):
    with pytest.raises(DomainError, match="skin"):
        NeighborList(RCUT, skin)


def test_trajectory_is_that_of_a_list_made_every_step():
    """500 steps of soft spheres in a sheared, compressed cell, wrapped every 20: positions within 1e-9 Å.

    u(r) = k (rcut² - r²)² / rcut⁴ for r < rcut; both runs sum the same pairs in another order, and rounding
    grows with the chaos of the system: 1e-9 Å leaves it a factor of 10⁵ above the first step's 1e-14 Å.
    """

    def force(ghosts, table):
        centers = np.repeat(np.arange(len(table.first) - 1), np.diff(table.first))
        vec = ghosts.coord[table.index] - ghosts.coord[centers]
        pull = -4 * np.maximum(RCUT**2 - (vec**2).sum(1), 0) / RCUT**4
        return np.stack([np.bincount(centers, pull * v, len(table.first) - 1) for v in vec.T], 1)

    def run(skin):
        rng = np.random.default_rng(5)
        neighbors, box = NeighborList(RCUT, skin), BOX * 1.2
        coord, velocity = rng.random((30, 3)) @ box, rng.normal(0, 1, (30, 3))
        path = np.zeros((30, 3))
        for step in range(500):
            strain = np.eye(3) * (1 - 2e-4)
            strain[1, 0] = 1e-3
            box, coord = box @ strain, coord @ strain
            if step % 20 == 0:
                cells = np.floor(coord @ np.linalg.inv(box))
                coord, path = coord - cells @ box, path + cells
            velocity += 0.01 * 5 * force(*neighbors.update(coord, box, (True,) * 3))
            coord = coord + 0.01 * velocity
        return coord + path @ box, neighbors.builds

    often, builds_often = run(0.0)
    seldom, builds_seldom = run(0.5)
    assert builds_often == 500 and builds_seldom < 150
    np.testing.assert_allclose(seldom, often, rtol=0, atol=1e-9)
