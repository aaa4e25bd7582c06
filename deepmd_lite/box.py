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

import numpy as np

from deepmd_lite.errors import DomainError
from deepmd_lite.jit import jit

FLATTEST = 1e-6  # volume over product of the lengths, below which a cell counts as degenerate
INT32 = np.iinfo(np.int32).max
ROUNDING = 1e-9  # fractional; widens the region of ghosts so that no rounding loses one


class Ghosts(NamedTuple):
    """Atoms and their images, locals first: coord[k] = input[owner[k]] + shift[k] @ box up to rounding."""

    coord: np.ndarray  # (nall, 3) float64, Å; locals wrapped along periodic axes
    owner: np.ndarray  # (nall,) int32; owner[k] = k for locals
    shift: np.ndarray  # (nall, 3) int32, zero along axes that are not periodic


def check_coord(coord):
    """``coord`` as a contiguous (natoms, 3) float64 array; DomainError where a value is not finite."""
    coord = np.ascontiguousarray(coord, dtype=np.float64)
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
    cell = np.zeros((3, 3)) if box is None else np.array(box, dtype=np.float64)
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


def wrap(coord, cell, pbc):
    """Move atoms into the cell along its periodic axes.

    Parameters
    ----------
    coord : (natoms, 3) array, Å
    cell : (3, 3) array, Å
        A full cell (`complete_cell`).
    pbc : (3,) bool array

    Returns
    -------
    coord : (natoms, 3) array, Å
        The input + shift @ cell.
    shift : (natoms, 3) int32 array

    Raises
    ------
    DomainError
        An atom further outside than int32 counts cells.
    """
    shift = -np.floor(coord @ np.linalg.inv(cell)) * np.asarray(pbc, bool)
    shift += 0.0  # no negative zeros
    if np.abs(shift).max(initial=0) >= INT32:
        atom = int(np.abs(shift).max(axis=1).argmax())
        raise DomainError(f"atom {atom} at {coord[atom]} is more than {INT32} cells away: wrap it first")
    return coord + shift @ cell, shift.astype(np.int32)


@jit()
def _image_range(frac, lo, hi, pbc, i):
    """First and last image of atom i along each axis that lies in [lo, hi]."""
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for d in range(3):
        if pbc[d]:
            first[d] = np.ceil(lo[d] - frac[i, d])
            last[d] = np.floor(hi[d] - frac[i, d])
    return first, last


@jit()
def _add_images(frac, lo, hi, pbc, cell, coord, owner, shift):
    """Fill the ghosts (rows natoms, natoms + 1, ...), whose number the caller knows."""
    k = len(frac)
    for i in range(len(frac)):
        first, last = _image_range(frac, lo, hi, pbc, i)
        for a in range(first[0], last[0] + 1):
            for b in range(first[1], last[1] + 1):
                for c in range(first[2], last[2] + 1):
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
    pbc = np.asarray(pbc).astype(bool)
    natoms = len(coord)
    home, shift = wrap(coord, cell, pbc)
    if natoms == 0 or not pbc.any():
        return Ghosts(home, np.arange(natoms, dtype=np.int32), shift)
    frac = np.ascontiguousarray(home @ np.linalg.inv(cell))
    margin = rcut / face_distances(cell) + ROUNDING
    lo, hi = frac.min(axis=0) - margin, frac.max(axis=0) + margin
    images = np.where(pbc, np.floor(hi - frac) - np.ceil(lo - frac) + 1, 1)
    nall = images.prod(axis=1).sum()
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
