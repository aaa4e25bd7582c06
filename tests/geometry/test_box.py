"""Cells, wrapping and images. Positions of 10⁴ Å round at 2e-12 Å, so that 1e-10 Å is rounding alone."""

import numpy as np
import pytest
from ase.geometry import cellpar_to_cell

from deepmd_lite.box import complete_cell, extend, face_distances
from deepmd_lite.errors import DomainError
from deepmd_lite.neighbors import cell_list

ROUNDING = 1e-10  # Å
TILTED = np.array([[6.0, 0, 0], [2.5, 5, 0], [-1.1, 0.8, 7]])


@pytest.mark.parametrize("pbc", list(np.ndindex(2, 2, 2)))
def test_ghosts_are_images_of_the_input(pbc):
    rng = np.random.default_rng(0)
    coord = rng.random((9, 3)) @ TILTED + rng.integers(-1000, 1000, (9, 3)) * pbc @ TILTED
    ghosts = extend(coord, TILTED, pbc, 9.0)
    shift = ghosts.shift.astype(float)
    np.testing.assert_array_equal(ghosts.owner[:9], np.arange(9))
    np.testing.assert_allclose(coord[ghosts.owner] + shift @ TILTED, ghosts.coord, rtol=0, atol=ROUNDING)
    assert not shift[:, ~np.array(pbc, bool)].any()
    frac = ghosts.coord[:9] @ np.linalg.inv(complete_cell(TILTED, pbc))
    inside = frac[:, np.array(pbc, bool)]
    assert (inside > -ROUNDING).all() and (inside < 1 + ROUNDING).all()
    assert len(np.unique(np.column_stack((ghosts.owner, ghosts.shift)), axis=0)) == len(ghosts.owner)
    assert [a.dtype for a in ghosts] == [np.float64, np.int32, np.int32]


def test_vectors_of_open_axes_are_ignored():
    """Zero, NaN-free garbage and none at all: the same atoms."""
    coord = np.random.default_rng(1).random((5, 3)) * 6
    slab = [np.array([[6.0, 0, 0], [2, 5, 0], c]) for c in ([0, 0, 0], [6, 0, 0], [0, 0, 9.0])]
    expected = extend(coord, slab[0], (True, True, False), 5.0)
    for box in slab[1:]:
        for a, b in zip(extend(coord, box, (True, True, False), 5.0), expected):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(extend(coord, None, (False,) * 3, 5.0).coord, coord)


def test_complete_cell_adds_unit_normals():
    cell = complete_cell(np.array([[3.0, 1, 0], [0, 0, 0], [1, 0, 4]]), (True, False, True))
    np.testing.assert_allclose(cell[[0, 2]] @ cell[1], 0, atol=1e-14)
    assert np.linalg.norm(cell[1]) == pytest.approx(1, abs=1e-14)


def test_face_distances_are_volume_over_area():
    a, b, c = TILTED
    area = [np.linalg.norm(np.cross(*pair)) for pair in ((b, c), (c, a), (a, b))]
    np.testing.assert_allclose(face_distances(TILTED), np.linalg.det(TILTED) / area, rtol=1e-14)


def test_number_of_ghosts_does_not_follow_the_volume():
    """A molecule in a huge periodic box has no images in reach; between far atoms there are no cells."""
    molecule = np.random.default_rng(2).random((50, 3)) * 5 + 10
    assert len(extend(molecule, 1e6 * np.eye(3), (True,) * 3, 6.0).coord) == 50
    far = np.array([[0.0, 0, 0], [1e5, 1e5, 1e5], [1e5, 1e5, 1e5 + 1]])
    assert cell_list(far, 3, 6.0).index.tolist() == [2, 1]


@pytest.mark.parametrize(("angles", "counts"), [((60, 60, 60), (12, 6, 24)), ((90, 90, 90), (6, 12, 8))])
def test_shells_of_lattices_by_hand(angles, counts):
    """fcc and simple cubic from one-atom cells: 12, 6, 24 and 6, 12, 8 atoms at √1, √2, √3 edges."""
    box = cellpar_to_cell([2.0, 2.0, 2.0, *angles])
    ghosts = extend(np.zeros((1, 3)), box, (True,) * 3, 2 * 1.8)
    table = cell_list(ghosts.coord, 1, 2 * 1.8)
    shell = np.rint((np.linalg.norm(ghosts.coord[table.index], axis=1) / 2) ** 2).astype(int)
    assert np.bincount(shell).tolist() == [0, *counts]


def test_supercell_has_the_neighbors_of_its_primitive_cell():
    """N2, the geometric side: distances from the atom of a cell, and from each of its 4 × 4 × 4 supercell."""

    def sorted_distances(coord, box):
        ghosts = extend(coord, box, (True,) * 3, 6.0)
        table = cell_list(ghosts.coord, len(coord), 6.0)
        r = np.linalg.norm(ghosts.coord[table.index] - np.repeat(coord, np.diff(table.first), axis=0), axis=1)
        return [np.sort(r[a:b]) for a, b in zip(table.first, table.first[1:])]

    box = np.array([[2.1, 0.1, 0.0], [0.9, 2.3, 0.2], [-0.3, 0.7, 2.6]])
    (primitive,) = sorted_distances(np.zeros((1, 3)), box)
    corners = np.indices((4, 4, 4)).reshape(3, -1).T @ box
    for atom in sorted_distances(corners, 4 * box):
        np.testing.assert_allclose(atom, primitive, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("box", "pbc", "says"),
    [
        (None, (True, False, False), "axis 0 is periodic"),
        (np.diag([5.0, 5, 0]), (True,) * 3, "axis 2 is periodic"),
        (np.array([[1.0, 2, 3], [2, 4, 6], [0, 0, 1]]), (True,) * 3, "degenerate"),
        (np.array([[1.0, 0, 0], [1, 1e-9, 0], [0, 0, 1]]), (True, True, False), "degenerate"),
        (np.diag([5.0, np.nan, 5]), (True,) * 3, "finite cell"),
        (np.full(9, 5.0), (True,) * 3, "shape"),
        (np.eye(3), (True, True), "three booleans"),
        (np.eye(3) * 1e-5, (True,) * 3, "too thin"),
    ],
)
def test_cells_that_cannot_be_used(box, pbc, says):
    with pytest.raises(DomainError, match=says):
        extend(np.zeros((1, 3)), box, pbc, 6.0)
