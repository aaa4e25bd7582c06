"""Neighbor lists: a sweep along sorted rows of atoms, and a Verlet skin around it.

`cell_list` knows no periodicity: images are atoms (box.py). Atoms are binned by y and z into square rows
along x, rcut / ROWS wide, and sorted by x within each row. Neighbors of an atom lie in (2 ROWS + 1)² rows,
in each within a window of x that only moves to the right while the atoms of a row are taken in order::

      z                                                    the window of a row at least d away
      │ ┄┄┄┄┄┄┄┄┄┄┄[ ∘  ∘ ∘   ∘ ]┄┄┄┄┄┄┄┄┄               from the center in y and z is
      │ ┄┄┄┄┄┄┄[∘   ∘  ∘•  ∘  ∘   ∘ ]┄┄┄┄┄  x →           |Δx| < √(rcut² - d²)
      │ ┄┄┄┄┄┄┄┄┄┄┄[ ∘   ∘  ∘  ∘ ]┄┄┄┄┄┄┄┄┄

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

from deepmd_lite.box import INT32, Ghosts, check_coord, check_length, complete_cell, extend
from deepmd_lite.errors import DomainError
from deepmd_lite.jit import jit

ROWS = 2  # rows of atoms per cutoff, along y and along z
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
    key: np.ndarray  # (nrows,) int64: iy * stride + iz, ascending
    begin: np.ndarray  # (nrows + 1,) int64
    stride: int


def _sorted_rows(coord, rcut):
    """The rows of ``coord`` (nall, 3); raises DomainError where their number overflows."""
    width = rcut / ROWS * (1 + SLACK)
    yz = coord[:, 1:]
    place = (yz - yz.min(axis=0)) / width
    extent = place.max(axis=0)
    if (extent > INT32 / 2).any():
        raise DomainError(f"atoms are {extent.max() * width:.1e} Å apart: too far for a cutoff of {rcut:g} Å")
    stride = int(extent[1]) + 2 * ROWS + 2  # rows of iy and of iy + 1 never get near each other
    place = place.astype(np.int64)
    key = place[:, 0] * stride + place[:, 1]
    order = np.lexsort((coord[:, 0], key))
    key = key[order]
    begin = np.flatnonzero(np.diff(key, prepend=-1, append=-1))
    xyz = np.ascontiguousarray(coord[order].T)
    return _Rows(order.astype(np.int32), xyz, key[begin[:-1]], begin, stride)


@jit(inline="always")
def _windows(row, key, begin, stride, rcut, low, high, end, reach):
    """Rows near ``row``: their first place and end, and the reach |Δx| of their windows; returns how many."""
    n = 0
    for dy in range(-ROWS, ROWS + 1):
        start = key[row] + dy * stride
        b = np.searchsorted(key, start - ROWS)
        while b < len(key) and key[b] <= start + ROWS:
            ny, nz = max(abs(dy) - 1, 0), max(abs(key[b] - start) - 1, 0)
            square = rcut**2 * (1 + SLACK - (ny**2 + nz**2) / ROWS**2)
            if square > 0:
                low[n] = high[n] = begin[b]
                end[n] = begin[b + 1]
                reach[n] = np.sqrt(square)
                n += 1
            b += 1
    return n


@jit()
def _sweep_row(row, rows, nloc, rcut, first, index):
    """Count the neighbors of each local of a row into first[i + 1]; or write them from index[first[i]] on.

    The second when ``index`` has places. Every candidate is written, and the next one over it when it turns
    out to be too far: no branch depends on a distance.
    """
    order, xyz, key, begin, stride = rows
    x, y, z = xyz[0], xyz[1], xyz[2]
    size = (2 * ROWS + 1) ** 2
    low, high, end = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    reach = np.empty(size)
    nwindows = _windows(row, key, begin, stride, rcut, low, high, end, reach)
    found = np.empty(np.sum(end[:nwindows] - low[:nwindows]) if len(index) else 0, np.int32)
    for center in range(begin[row], begin[row + 1]):
        i = order[center]
        if i >= nloc:
            continue
        n = 0
        for w in range(nwindows):
            left, right = x[center] - reach[w], x[center] + reach[w]
            while low[w] < end[w] and x[low[w]] < left:
                low[w] += 1
            while high[w] < end[w] and x[high[w]] <= right:
                high[w] += 1
            if len(index):
                for k in range(low[w], high[w]):
                    r2 = (x[k] - x[center]) ** 2 + (y[k] - y[center]) ** 2 + (z[k] - z[center]) ** 2
                    found[n] = order[k]
                    n += (r2 < rcut**2) & (k != center)
            else:
                for k in range(low[w], high[w]):
                    r2 = (x[k] - x[center]) ** 2 + (y[k] - y[center]) ** 2 + (z[k] - z[center]) ** 2
                    n += (r2 < rcut**2) & (k != center)
        if len(index):
            index[first[i] : first[i] + n] = found[:n]
        else:
            first[i + 1] = n


@jit()
def _sweep(rows, nloc, rcut, first, index):
    for row in range(len(rows.key)):
        _sweep_row(row, rows, nloc, rcut, first, index)


@jit(parallel=True)
def _sweep_threads(rows, nloc, rcut, first, index):
    for row in numba.prange(len(rows.key)):
        _sweep_row(row, rows, nloc, rcut, first, index)


def cell_list(coord, nloc, rcut):
    """All neighbors closer than rcut of the first nloc atoms.

    Parameters
    ----------
    coord : (nall, 3) array, Å
        Locals first, then ghosts.
    nloc : int
    rcut : float, Å

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
    rows = _sorted_rows(coord, rcut)
    sweep = _sweep if len(coord) < PARALLEL else _sweep_threads
    sweep(rows, nloc, rcut, first, np.empty(0, np.int32))
    np.cumsum(first, out=first)
    index = np.empty(first[-1], np.int32)
    if len(index):
        sweep(rows, nloc, rcut, first, index)
    return NeighborTable(first, index)


@jit()
def _largest_move(coord, base, cell, jump):
    """max |coord - jump @ cell - base|, Å."""
    largest = 0.0
    for i in range(len(coord)):
        r2 = 0.0
        for d in range(3):
            back = jump[i, 0] * cell[0, d] + jump[i, 1] * cell[1, d] + jump[i, 2] * cell[2, d]
            r2 += (coord[i, d] - back - base[i, d]) ** 2
        largest = max(largest, r2)
    return np.sqrt(largest)


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
        cell = complete_cell(box, pbc)
        pbc = np.asarray(pbc).astype(bool)
        ghosts = self._moved(coord, cell, pbc)
        if ghosts is None:
            ghosts = extend(coord, cell, pbc, self.rcut + self.skin)
            self._table = cell_list(ghosts.coord, len(coord), self.rcut + self.skin)
            self._built = coord.copy(), cell, pbc, ghosts.owner, ghosts.shift
            self.builds += 1
        return ghosts, self._table

    def _moved(self, coord, cell, pbc):
        """The ghosts of the last build at their present positions; None where the list must be built."""
        if self._built is None:
            return None
        coord0, cell0, pbc0, owner, shift = self._built
        if coord.shape != coord0.shape or (pbc != pbc0).any():
            return None
        if np.array_equal(cell, cell0):
            base, compression = coord0, 1.0
        else:
            deformation = np.linalg.inv(cell0) @ cell
            base, compression = coord0 @ deformation, np.linalg.svd(deformation, compute_uv=False)[-1]
        # an atom that was moved by whole cells since then (wrapped, say) is the same atom: n counts them
        n = np.rint((coord - base) @ np.linalg.inv(cell)) * pbc
        closest = compression * (self.rcut + self.skin) - 2 * _largest_move(coord, base, cell, n)
        if not closest > self.rcut * (1 + 1e-12):
            return None
        if n.any():
            shift = shift - n.astype(np.int32)[owner]
        return Ghosts(coord[owner] + shift @ cell, owner, shift)
