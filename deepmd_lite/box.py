"""Periodic geometry: images become ghost atoms.

A cell holds its vectors in rows: a fractional position f stands for x = f @ cell, the image n of an atom for
x + n @ cell. Any cell will do: triclinic, left-handed, thinner than the cutoff; each axis is periodic or not.
A vector along an axis that is not periodic has no meaning: it is ignored and may be zero.

Whoever evaluates neighbors sees atoms only, `Ghosts`: the atoms of the cell first, wrapped into it, then
every image that can be within the cutoff of one of them::

          ┊  ∘   ∘      ∘       ┊         fractional coordinates of ghosts lie within
       ╌╌╌┼─────────────────────┼╌╌╌      [min f - m, max f + m],  m = rcut / face distance,
        ∘ │  •      •   •       │ ∘       where min and max are over the locals
          │   •     local    •  │
       ╌╌╌┼─────────────────────┼╌╌╌
"""

from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.errors import DomainError
from deepmd_lite.jit import jit

FLATTEST = 1e-6  # volume over product of the lengths, below which a cell counts as degenerate
FARTHEST = 2**29  # cells that an atom may be outside; leaves room in int32 for its images
INT32 = np.iinfo(np.int32).max
ROUNDING = 1e-9  # fractional; widens the region of ghosts so that no rounding loses one


class Ghosts(NamedTuple):
    """Atoms and their images, locals first: coord[k] = input[owner[k]] + shift[k] @ box up to rounding."""

    coord: np.ndarray  # (nall, 3) float64, Å; locals wrapped along periodic axes
    owner: np.ndarray  # (nall,) int32; owner[k] = k for locals
    shift: np.ndarray  # (nall, 3) int32, zero along axes that are not periodic


def check_coord(coord):
    """``coord`` as a (natoms, 3) float64 array that kernels take; DomainError where a value is not finite."""
    coord = np.require(coord, np.float64, ["C", "ALIGNED", "WRITEABLE"])
    if coord.ndim != 2 or coord.shape[1] != 3:
        raise DomainError(f"expected coordinates of shape (natoms, 3), found {coord.shape}")
    if not np.isfinite(coord).all():
        atom = int(np.flatnonzero(~np.isfinite(coord).all(axis=1))[0])
        raise DomainError(f"atom {atom} is at {coord[atom]}: expected finite coordinates in Å")
    return coord


def check_length(name, value, smallest=0.0):
    """``value`` as a float; DomainError unless it is finite and larger than ``smallest`` Å."""
    if not smallest < value < np.inf:
        raise DomainError(f"expected a finite {name} above {smallest:g} Å, found {value}")
    return float(value)


def complete_cell(box, pbc):
    """A full cell: the vectors of the periodic axes, and unit vectors normal to them in place of the others.

    Parameters
    ----------
    box : (3, 3) array, Å, or None
        Vectors in rows; None where no axis is periodic.
    pbc : (3,) bool array

    Returns
    -------
    (3, 3) float64 array, Å

    Raises
    ------
    DomainError
        A periodic axis without a vector; non-finite, or linearly dependent vectors.
    """
    pbc = np.asarray(pbc)
    if pbc.shape != (3,):
        raise DomainError(f"expected pbc of three booleans, one per axis, found {pbc!r}")
    pbc = pbc.astype(bool)
    if not pbc.any():
        return np.eye(3)
    cell = np.zeros((3, 3)) if box is None else np.array(box, dtype=np.float64, order="C")
    if cell.shape != (3, 3):
        raise DomainError(f"expected a cell of shape (3, 3), vectors in rows, found {cell.shape}")
    if not np.isfinite(cell).all():
        raise DomainError(f"expected a finite cell, found {cell.tolist()}")
    length = np.linalg.norm(cell, axis=1)
    for axis in np.flatnonzero(pbc):
        if length[axis] == 0:
            raise DomainError(
                f"axis {axis} is periodic, but the cell has no vector for it: give one, or set pbc"
            )
    normals = np.linalg.svd(cell[pbc] / length[pbc, None])[2][pbc.sum() :]
    cell[~pbc] = normals
    length[~pbc] = 1
    flatness = abs(np.linalg.det(cell / length[:, None]))
    if flatness < FLATTEST:
        raise DomainError(
            f"degenerate cell {cell[pbc].tolist()}: expected linearly independent vectors in rows, "
            f"found volume / product of lengths = {flatness:.1e}"
        )
    return cell


def face_distances(cell):
    """Distances between opposite faces of a cell (3, 3), Å: (3,)."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


@jit(nogil=True)
def _wrap(coord, cell, inverse, pbc, home, shift, frac):
    """Fill the arguments from ``home`` on; return the largest shift, and its atom."""
    largest, atom = 0.0, 0
    for i in range(len(coord)):
        x, y, z = coord[i]
        for d in range(3):
            move = -np.floor(x * inverse[0, d] + y * inverse[1, d] + z * inverse[2, d]) if pbc[d] else 0.0
            if abs(move) > largest:
                largest, atom = abs(move), i
            shift[i, d] = move
        a, b, c = shift[i]
        for d in range(3):
            home[i, d] = coord[i, d] + (a * cell[0, d] + b * cell[1, d] + c * cell[2, d])
        x, y, z = home[i]
        for d in range(3):
            frac[i, d] = x * inverse[0, d] + y * inverse[1, d] + z * inverse[2, d]
    return largest, atom


def wrap(coord, cell, pbc):
    """Move atoms into the cell along its periodic axes.

    Parameters
    ----------
    coord : (natoms, 3) float64 array, Å
    cell : (3, 3) float64 array, Å
        A full cell (`complete_cell`).
    pbc : (3,) bool array

    Returns
    -------
    home : (natoms, 3) array, Å
        The input + shift @ cell.
    shift : (natoms, 3) int32 array
    frac : (natoms, 3) array
        Fractional coordinates of ``home``.

    Raises
    ------
    DomainError
        An atom further outside than FARTHEST cells.
    """
    home, shift, frac = np.empty_like(coord), np.empty(coord.shape, np.int32), np.empty_like(coord)
    largest, atom = _wrap(coord, cell, np.linalg.inv(cell), pbc, home, shift, frac)
    if largest > FARTHEST:
        raise DomainError(f"atom {atom} at {coord[atom]} is {largest:.1e} cells outside: wrap it first")
    return home, shift, frac


@numba.njit
def _images(f, lo, hi, periodic):
    """First and last n for which lo <= f + n <= hi, as floats, which do not overflow."""
    if periodic:
        return np.ceil(lo - f), np.floor(hi - f)
    return 0.0, 0.0


@jit(nogil=True)
def _count_images(frac, lo, hi, pbc):
    """How many images, the atoms themselves included, lie in [lo, hi]."""
    total = 0.0
    for i in range(len(frac)):
        count = 1.0
        for d in range(3):
            first, last = _images(frac[i, d], lo[d], hi[d], pbc[d])
            count *= last - first + 1
        total += count
    return total


@jit(nogil=True)
def _add_images(frac, lo, hi, pbc, cell, coord, owner, shift):
    """Fill the ghosts: rows natoms, natoms + 1, ..., as many as `_count_images` found."""
    k = len(frac)
    for i in range(len(frac)):
        a0, a1 = _images(frac[i, 0], lo[0], hi[0], pbc[0])
        b0, b1 = _images(frac[i, 1], lo[1], hi[1], pbc[1])
        c0, c1 = _images(frac[i, 2], lo[2], hi[2], pbc[2])
        for a in range(int(a0), int(a1) + 1):
            for b in range(int(b0), int(b1) + 1):
                for c in range(int(c0), int(c1) + 1):
                    if a == 0 and b == 0 and c == 0:
                        continue
                    owner[k] = i
                    for d in range(3):
                        coord[k, d] = coord[i, d] + (a * cell[0, d] + b * cell[1, d] + c * cell[2, d])
                    shift[k, 0] = shift[i, 0] + a
                    shift[k, 1] = shift[i, 1] + b
                    shift[k, 2] = shift[i, 2] + c
                    k += 1


def extend(coord, box, pbc, rcut):
    """Atoms wrapped into the cell, followed by every image that may be within rcut of one of them.

    Parameters
    ----------
    coord : (natoms, 3) array, Å
        Anywhere: atoms need not be inside the cell.
    box : (3, 3) array, Å, or None
        Vectors in rows; those of axes that are not periodic are ignored.
    pbc : (3,) bool array
    rcut : float, Å

    Returns
    -------
    Ghosts

    Raises
    ------
    DomainError
        Non-finite coordinates (names the atom), a missing or degenerate cell, rcut <= 0, too many images.
    """
    coord = check_coord(coord)
    rcut = check_length("rcut", rcut)
    cell = complete_cell(box, pbc)
    pbc = np.array(pbc, dtype=bool)
    natoms = len(coord)
    home, shift, frac = wrap(coord, cell, pbc)
    if natoms == 0 or not pbc.any():
        return Ghosts(home, np.arange(natoms, dtype=np.int32), shift)
    margin = rcut / face_distances(cell) + ROUNDING
    lo, hi = frac.min(axis=0) - margin, frac.max(axis=0) + margin
    nall = _count_images(frac, lo, hi, pbc)
    if nall > INT32:
        raise DomainError(
            f"{natoms} atoms would need {nall:.1e} images within {rcut:g} Å: the cell with face distances "
            f"{face_distances(cell)} Å is too thin"
        )
    nall = int(nall)
    ghosts = Ghosts(np.empty((nall, 3)), np.empty(nall, np.int32), np.empty((nall, 3), np.int32))
    for array, local in zip(ghosts, (home, np.arange(natoms), shift)):
        array[:natoms] = local
    _add_images(frac, lo, hi, pbc, cell, *ghosts)
    return ghosts
