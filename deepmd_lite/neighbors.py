"""Neighbor lists: a sweep along sorted rows of atoms, and a Verlet skin around it.

`cell_list` knows no periodicity: images are atoms (box.py). Atoms are binned by y and z into square rows
along x, one cutoff wide, and sorted by x within each row. The neighbors of an atom lie in its row and the
eight around it, in each within a window of x that only moves to the right as the atoms of a row take turns::

      z                 rcut     rcut
      │ ┄┄┄┄┄┄┄┄┄┄[ ∘   ∘ ┊ ∘  ∘    ]┄┄┄┄┄┄┄┄
      │ ┄┄┄┄┄┄┄┄┄┄[∘   ∘  •  ∘  ∘   ]┄┄┄┄┄┄┄┄  x →
      │ ┄┄┄┄┄┄┄┄┄┄[   ∘   ┊  ∘    ∘ ]┄┄┄┄┄┄┄┄

Only rows that hold atoms exist, so memory follows the number of atoms, not the volume: a molecule in a box of
10⁶ Å costs what the molecule costs. Time is linear in atoms, but for the sort.

A list with a skin (`NeighborList`; Verlet, Phys. Rev. 159, 98, 1967) stays valid while atoms move. With F the
deformation that takes the cell of the last build to the present one, and δ_i the displacement of atom i that
remains after F, a pair of images at v₀ when the list was built is now at v = v₀ F + δ_j - δ_i, so that

    |v₀| >= rcut + skin   =>   |v| >= σ_min(F) (rcut + skin) - 2 max|δ|,

and the list is built again as soon as this bound falls below rcut.
"""

from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.box import FARTHEST, INT32, Ghosts, check_coord, check_length, complete_cell, extend
from deepmd_lite.errors import DomainError
from deepmd_lite.jit import jit

SLACK = 1e-6  # relative; rows and windows are that much wider, so that no rounding loses a pair
PARALLEL = 20_000  # atoms from which on a sweep is worth threads


class NeighborTable(NamedTuple):
    """Neighbors of the locals, each pair from both sides: index[first[i] : first[i + 1]] are those of i."""

    first: np.ndarray  # (nloc + 1,) int64
    index: np.ndarray  # (npairs,) int32, into the nall atoms


class _Rows(NamedTuple):
    """Atoms sorted by row, and by x within a row."""

    order: np.ndarray  # (nall,) int32: the atom at each place
    xyz: np.ndarray  # (3, nall) their coordinates
    key: np.ndarray  # (nrows,) int64, ascending: iy * stride + iz
    begin: np.ndarray  # (nrows + 1,) int64: first place of each row
    stride: int


def _sorted_rows(coord, width):
    """The rows of ``coord`` (nall, 3), ``width`` wide; raises DomainError where their number overflows."""
    y, z = coord[:, 1] - coord[:, 1].min(), coord[:, 2] - coord[:, 2].min()
    extent = max(y.max(), z.max())
    if extent / width > INT32 / 2:
        raise DomainError(f"atoms are {extent:.1e} Å apart: too far for rows of {width:g} Å to be counted")
    stride = int(z.max() / width) + 4  # so that the rows around one never include those of another iy
    key = (y / width).astype(np.int64) * stride + (z / width).astype(np.int64)
    order = np.lexsort((coord[:, 0], key))
    key = key[order]
    begin = np.flatnonzero(np.diff(key, prepend=-1, append=-1))
    xyz = np.ascontiguousarray(coord[order].T)
    return _Rows(order.astype(np.int32), xyz, key[begin[:-1]], begin, stride)


@numba.njit
def _rows_around(row, key, begin, stride):
    """The places (begin, end) of the atoms of ``row`` and of those around it, (n <= 9, 2)."""
    places = np.empty((9, 2), np.int64)
    n = 0
    for dy in range(-1, 2):
        middle = key[row] + dy * stride
        other = np.searchsorted(key, middle - 1)
        while other < len(key) and key[other] <= middle + 1:
            places[n] = begin[other], begin[other + 1]
            n += 1
            other += 1
    return places[:n]


@numba.njit
def _sweep_row(row, rows, nloc, rcut, first, index):
    """Count the neighbors of each local of a row into first[i + 1]; or write them from index[first[i]] on.

    The second when ``index`` has places. Every candidate is written, and the next one over it when it turns
    out to be too far: no branch depends on a distance.
    """
    order, xyz, key, begin, stride = rows
    counting = len(index) == 0
    places = _rows_around(row, key, begin, stride)
    low, high, end = places[:, 0].copy(), places[:, 0].copy(), places[:, 1]
    ncandidates = np.sum(end - low)
    near, found = np.empty(ncandidates, np.bool_), np.empty(ncandidates, np.int32)
    reach = rcut * (1 + SLACK)
    for center in range(begin[row], begin[row + 1]):
        i = order[center]
        if i >= nloc:
            continue
        x, y, z = xyz[:, center]
        n = 0
        for w in range(len(places)):
            while low[w] < end[w] and xyz[0, low[w]] < x - reach:
                low[w] += 1
            while high[w] < end[w] and xyz[0, high[w]] <= x + reach:
                high[w] += 1
            window = slice(low[w], high[w])
            xs, ys, zs, atoms = xyz[0, window], xyz[1, window], xyz[2, window], order[window]
            for k in range(len(xs)):
                near[k] = (xs[k] - x) ** 2 + (ys[k] - y) ** 2 + (zs[k] - z) ** 2 < rcut**2
            if low[w] <= center < high[w]:
                near[center - low[w]] = False
            if counting:
                for k in range(len(atoms)):
                    n += near[k]
            else:
                for k in range(len(atoms)):
                    found[n] = atoms[k]
                    n += near[k]
        if counting:
            first[i + 1] = n
        else:
            index[first[i] : first[i] + n] = found[:n]


@jit(nogil=True)
def _sweep(rows, nloc, rcut, first, index):
    for row in range(len(rows.key)):
        _sweep_row(row, rows, nloc, rcut, first, index)


@jit(parallel=True)
def _sweep_threads(rows, nloc, rcut, first, index):
    for row in numba.prange(len(rows.key)):
        _sweep_row(row, rows, nloc, rcut, first, index)


def cell_list(coord, nloc, rcut, threads=True):
    """All neighbors closer than rcut of the first nloc atoms.

    Parameters
    ----------
    coord : (nall, 3) array, Å
        Locals first, then ghosts.
    nloc : int
    rcut : float, Å
    threads : bool, optional
        False where several calls run at the same time, which Numba's threads need not allow.

    Returns
    -------
    NeighborTable
        The order of neighbors is the same in every run and for any number of threads.

    Raises
    ------
    DomainError
        Non-finite coordinates (names the atom), rcut <= 0, more atoms than int32 counts.
    """
    coord = check_coord(coord)
    rcut = check_length("rcut", rcut)
    if len(coord) > INT32:
        raise DomainError(f"{len(coord)} atoms and images: expected at most {INT32}")
    first = np.zeros(nloc + 1, np.int64)
    if nloc == 0:
        return NeighborTable(first, np.empty(0, np.int32))
    rows = _sorted_rows(coord, rcut * (1 + SLACK))
    sweep = _sweep_threads if threads and len(coord) >= PARALLEL else _sweep
    sweep(rows, int(nloc), rcut, first, np.empty(0, np.int32))
    np.cumsum(first, out=first)
    index = np.empty(first[-1], np.int32)
    if len(index):
        sweep(rows, int(nloc), rcut, first, index)
    return NeighborTable(first, index)


@jit()
def _keep_near(coord, old, rcut, first, index):
    """Copy the neighbors closer than rcut; fills ``first`` and ``index``."""
    n = 0
    for i in range(len(first) - 1):
        x, y, z = coord[i]
        for k in range(old.first[i], old.first[i + 1]):
            j = old.index[k]
            index[n] = j
            n += (coord[j, 0] - x) ** 2 + (coord[j, 1] - y) ** 2 + (coord[j, 2] - z) ** 2 < rcut**2
        first[i + 1] = n


def trim(table, coord, rcut):
    """The neighbors of a `NeighborTable` that are closer than rcut (Å) at ``coord`` (nall, 3)."""
    first, index = np.zeros_like(table.first), np.empty_like(table.index)
    _keep_near(coord, table, float(rcut), first, index)
    return NeighborTable(first, index[: first[-1]])


@jit()
def _track(coord, coord0, deformation, cell, inverse, pbc, jump):
    """Largest |δ_i| (Å); fills ``jump`` with the whole cells that atoms were moved by, which δ leaves out."""
    largest = 0.0
    delta = np.empty(3)
    for i in range(len(coord)):
        x, y, z = coord0[i]
        for d in range(3):
            delta[d] = coord[i, d] - (x * deformation[0, d] + y * deformation[1, d] + z * deformation[2, d])
        x, y, z = delta
        for d in range(3):
            jump[i, d] = np.rint(x * inverse[0, d] + y * inverse[1, d] + z * inverse[2, d]) if pbc[d] else 0.0
            if abs(jump[i, d]) > FARTHEST:
                return np.inf
        for d in range(3):
            delta[d] -= jump[i, 0] * cell[0, d] + jump[i, 1] * cell[1, d] + jump[i, 2] * cell[2, d]
        largest = max(largest, np.sqrt(delta[0] ** 2 + delta[1] ** 2 + delta[2] ** 2))
    return largest


@jit()
def _place(coord, owner, shift, jump, cell):
    """The ghosts of atoms that jumped: their coordinates and shifts."""
    xyz, moved = np.empty((len(owner), 3)), np.empty_like(shift)
    for k in range(len(owner)):
        i = owner[k]
        for d in range(3):
            moved[k, d] = shift[k, d] - jump[i, d]
        for d in range(3):
            step = moved[k, 0] * cell[0, d] + moved[k, 1] * cell[1, d] + moved[k, 2] * cell[2, d]
            xyz[k, d] = coord[i, d] + step
    return xyz, moved


class NeighborList:
    """A neighbor list with a skin, built again only when an unlisted pair could have come within rcut.

    Parameters
    ----------
    rcut : float, Å
    skin : float, Å
        Pairs up to rcut + skin are listed. Zero: built at every `update`.
    """

    def __init__(self, rcut, skin=1.0):
        self.rcut = check_length("rcut", rcut)
        self.skin = 0.0 if skin == 0 else check_length("skin", skin)
        self.builds = 0
        self._built = None
        self._cell = None

    def update(self, coord, box, pbc):
        """The present ghosts, and the neighbors within rcut + skin when the list was last built.

        Parameters
        ----------
        coord : (natoms, 3) array, Å
        box : (3, 3) array, Å, or None
        pbc : (3,) bool array

        Returns
        -------
        Ghosts
            At the positions of this call. Between builds atoms may leave the cell, ghosts with them.
        NeighborTable
            At least all pairs closer than rcut.

        Raises
        ------
        DomainError
            As `box.extend`.
        """
        coord = check_coord(coord)
        cell, pbc = self._checked_cell(box, pbc)
        ghosts = self._moved(coord, cell, pbc)
        if ghosts is None:
            ghosts = extend(coord, cell, pbc, self.rcut + self.skin)
            self._table = cell_list(ghosts.coord, len(coord), self.rcut + self.skin)
            self._built = coord.copy(), cell, pbc, ghosts.owner, ghosts.shift
            self.builds += 1
        return ghosts, self._table

    def _checked_cell(self, box, pbc):
        """`box.complete_cell`, and pbc as booleans; those of the last call where nothing has changed."""
        given = np.array(pbc), None if box is None else np.array(box)
        if self._cell is None or not all(map(np.array_equal, given, self._cell[0])):
            self._cell = given, (complete_cell(box, pbc), np.array(pbc, dtype=bool))
        return self._cell[1]

    def _moved(self, coord, cell, pbc):
        """The ghosts of the last build at their present positions; None where the list must be built."""
        if self._built is None:
            return None
        coord0, cell0, pbc0, owner, shift = self._built
        if coord.shape != coord0.shape or (pbc != pbc0).any():
            return None
        deformation, compression = np.eye(3), 1.0
        if not np.array_equal(cell, cell0):
            deformation = np.linalg.inv(cell0) @ cell
            compression = np.linalg.svd(deformation, compute_uv=False)[-1]
        jump = np.empty(coord.shape)
        moved = _track(coord, coord0, deformation, cell, np.linalg.inv(cell), pbc, jump)
        if not compression * (self.rcut + self.skin) - 2 * moved > self.rcut * (1 + 1e-12):
            return None
        coord, shift = _place(coord, owner, shift, jump, cell)
        return Ghosts(coord, owner, shift)
