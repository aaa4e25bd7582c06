"""N1: the neighbors (i, j, shift) are exactly those of brute force, of ASE and of vesin, for any cell.

Codes add a pair vector up in different orders, so pairs within BAND of rcut may fall on either side. BAND is
what positions of 10⁴ Å (atoms 1,000 cells away) round at, 2e-12 Å, with room; every other pair must agree.
"""

import numpy as np
import pytest
from ase.geometry import cellpar_to_cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vesin import NeighborList as Vesin

from deepmd_lite.box import extend
from deepmd_lite.neighbors import PARALLEL, cell_list

BAND = 1e-10  # Å


any_mask = st.tuples(*[st.booleans()] * 3)
everywhere_or_nowhere = st.sampled_from([(True, True, True), (False, False, False)])

BUSY = [HealthCheck.too_slow]  # a busy machine is no fault of the test


@st.composite
def structures(draw, masks=any_mask, farthest=1000):
    """(coord, box, pbc, rcut): angles of 10–170°, left-handed, thin; atoms ``farthest`` cells away."""
    lengths = draw(st.tuples(*[st.floats(1.0, 12.0)] * 3))
    alpha, beta = draw(st.tuples(*[st.floats(10.0, 170.0)] * 2))
    least, most = (
        max(10, abs(alpha - beta) + 1),
        min(170, alpha + beta - 1, 359 - alpha - beta),
    )  # such vectors exist
    box = cellpar_to_cell([*lengths, alpha, beta, least + draw(st.floats(0, 1)) * (most - least)])
    box *= max(1, 15 / abs(np.linalg.det(box))) ** (1 / 3)  # bounds the number of images, and so the time
    if draw(st.booleans()):
        box[2] *= -1  # left-handed
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pbc = np.array(draw(masks))
    frac = rng.random((draw(st.integers(1, 10)), 3))
    frac += rng.integers(-farthest, farthest + 1, frac.shape) * pbc
    return frac @ box, box, pbc, draw(st.floats(0.5, 6.5))


def brute_force(coord, box, pbc, rcut):
    """All pairs closer than rcut: every shift that can bring j near i is tried."""
    inverse = np.linalg.inv(box)
    reach = rcut * np.linalg.norm(inverse, axis=0)  # rcut in fractional coordinates
    frac = coord @ inverse
    pairs = set()
    for i, j in np.ndindex(len(coord), len(coord)):
        d = frac[i] - frac[j]
        axes = [
            np.arange(np.floor(d[k] - reach[k]), d[k] + reach[k] + 1) if pbc[k] else [0.0] for k in range(3)
        ]
        shift = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        near = np.linalg.norm(coord[j] - coord[i] + shift @ box, axis=1) < rcut
        near &= (i != j) | shift.any(axis=1)
        pairs |= {(i, j, *s) for s in shift[near].astype(int).tolist()}
    return pairs


def assert_same(found, expected, coord, box, rcut):
    rows = np.array(sorted(found ^ expected), dtype=int).reshape(-1, 5)
    distance = np.linalg.norm(coord[rows[:, 1]] - coord[rows[:, 0]] + rows[:, 2:] @ box, axis=1)
    assert (abs(distance - rcut) < BAND).all(), (rows, distance - rcut)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=BUSY)
@given(structure=structures())
def test_brute_force_and_ase(structure, as_set, table_pairs):
    coord, box, pbc, rcut = structure
    ghosts = extend(coord, box, pbc, rcut)
    ours = table_pairs(ghosts, cell_list(ghosts.coord, len(coord), rcut))
    assert_same(ours, brute_force(coord, box, pbc, rcut), coord, box, rcut)
    assert_same(ours, as_set(*primitive_neighbor_list("ijS", pbc, box, coord, rcut)), coord, box, rcut)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=BUSY)
@given(structure=structures(masks=everywhere_or_nowhere, farthest=0))
def test_vesin(structure, as_set, table_pairs):
    coord, box, pbc, rcut = structure
    ghosts = extend(coord, box, pbc, rcut)
    ours = table_pairs(ghosts, cell_list(ghosts.coord, len(coord), rcut))
    vesin = Vesin(cutoff=rcut, full_list=True).compute(
        points=coord, box=box, periodic=bool(pbc[0]), quantities="ijS"
    )
    assert_same(ours, as_set(*vesin), coord, box, rcut)


@pytest.mark.parametrize("pbc", list(np.ndindex(2, 2, 2)))
def test_every_mask_in_a_tilted_left_handed_cell_thinner_than_the_cutoff(pbc, table_pairs):
    box = np.array([[1.9, 0.3, 0.0], [4.0, 3.1, -0.4], [0.7, 0.2, -5.3]])
    coord = np.random.default_rng(1).random((7, 3)) @ box + np.array([40, -7, 3]) * pbc @ box
    ghosts = extend(coord, box, pbc, 6.0)
    ours = table_pairs(ghosts, cell_list(ghosts.coord, len(coord), 6.0))
    assert_same(ours, brute_force(coord, box, np.array(pbc, bool), 6.0), coord, box, 6.0)


def test_a_list_made_by_threads(table_pairs):
    """From PARALLEL atoms on; the order is that of a single thread, and the same twice."""
    rng = np.random.default_rng(2)
    box = np.array([[40.0, 0, 0], [5, 38, 0], [-8, 3, 36]])
    coord = rng.random((PARALLEL, 3)) @ box
    ghosts = extend(coord, box, (True, True, False), 2.5)
    table = cell_list(ghosts.coord, len(coord), 2.5)
    expected = Vesin(cutoff=2.5, full_list=True).compute(
        points=ghosts.coord, box=np.zeros((3, 3)), periodic=False, quantities="ij"
    )
    mine = expected[0] < len(coord)
    centers = np.repeat(np.arange(len(coord)), np.diff(table.first))
    found = np.column_stack((centers, table.index))
    expected = np.column_stack(expected)[mine]
    np.testing.assert_array_equal(
        found[np.lexsort(found.T)], expected.astype(np.int64)[np.lexsort(expected.T)]
    )
    again = cell_list(ghosts.coord, len(coord), 2.5)
    np.testing.assert_array_equal(again.index, table.index)
    few = cell_list(ghosts.coord[: PARALLEL - 1], 100, 2.5)
    for i in range(100):
        mine = table.index[table.first[i] : table.first[i + 1]]
        np.testing.assert_array_equal(few.index[few.first[i] : few.first[i + 1]], mine[mine < PARALLEL - 1])


def test_ghosts_are_no_centers():
    coord = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    table = cell_list(coord, 1, 1.5)
    assert table.first.tolist() == [0, 1] and table.index.tolist() == [1]
    assert table.first.dtype == np.int64 and table.index.dtype == np.int32


def test_table_of_a_line_by_hand():
    """Atoms at 0, 1, 3 Å in a row of period 4 Å, cutoff 2.5 Å: distances 1, 2 both ways, and 1 across."""
    coord = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
    ghosts = extend(coord, np.diag([4.0, 0, 0]), (True, False, False), 2.5)
    table = cell_list(ghosts.coord, 3, 2.5)
    found = [sorted(ghosts.coord[table.index[a:b], 0]) for a, b in zip(table.first, table.first[1:])]
    assert found == [[-1, 1], [-1, 0, 3], [1, 4, 5]]
