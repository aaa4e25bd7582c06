"""Frames and their neighbor lists as the model reads them.

Every frame contributes its local atoms, then its ghosts, as rows of one coordinate table; a batch of frames
is a longer table. The neighbors of atom i are the rows ``index[first[i] : first[i + 1]]``.

The torch model wants them by (type of center ti, type of neighbor tj) in padded slots, which are made when asked
for::

    centers[ti]    (n,)     rows of the table that are local atoms of type ti
    slots[ti][tj]  (n, k)   rows that are their neighbors of type tj; -1 = empty slot

k is the largest number of such neighbors in the batch, not ``sel``: the model adds the slots that are missing
up to ``sel`` in closed form (descriptor.py).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from deepmd_lite.box import extend
from deepmd_lite.contract import MIN_DISTANCE, refuse_overlap
from deepmd_lite.jit import jit
from deepmd_lite.neighbors import cell_list


@dataclass
class Batch:
    """Atoms of one or more frames, with ghosts and neighbors."""

    coord: torch.Tensor  # (nall, 3) Å, locals and ghosts of frame 0, then of frame 1, ...
    owner: torch.Tensor  # (nall,) the atom, 0..natoms-1 over all frames, that a row is (an image of)
    frame: torch.Tensor  # (natoms,) the frame of each atom
    row: np.ndarray  # (natoms,) int32, the row of each atom
    atype: np.ndarray  # (nall,) int32
    first: np.ndarray  # (natoms + 1,) int64
    index: np.ndarray  # (npairs,) int32, by rows
    ntypes: int
    nframes: int = 1
    fparam: torch.Tensor | None = None  # (nframes, numb_fparam)
    aparam: torch.Tensor | None = None  # (natoms, numb_aparam)

    @property
    def natoms(self):
        return len(self.row)

    @cached_property
    def centers(self):
        return [torch.from_numpy(self.row[a]).to(self.coord.device) for a in self._atoms]

    @cached_property
    def slots(self):
        return [
            [self._padded(atoms, tj).to(self.coord.device) for tj in range(self.ntypes)]
            for atoms in self._atoms
        ]

    @property
    def _atoms(self):
        """The atoms of each type."""
        local = self.atype[self.row]
        return [np.flatnonzero(local == t) for t in range(self.ntypes)]

    def _padded(self, atoms, tj):
        """Neighbors of type tj of some atoms, (n, k) int32 with -1 in empty slots."""
        width = _fill_slots(self.first, self.index, self.atype, atoms, tj, np.empty((0, 0), np.int32))
        slots = np.full((len(atoms), width), -1, np.int32)
        if width:
            _fill_slots(self.first, self.index, self.atype, atoms, tj, slots)
        return torch.from_numpy(slots)

    def pair_counts(self):
        """Neighbors of each type that each atom has, (natoms, ntypes)."""
        center = np.repeat(np.arange(self.natoms), np.diff(self.first))
        flat = center * self.ntypes + self.atype[self.index]
        return np.bincount(flat, minlength=self.natoms * self.ntypes).reshape(-1, self.ntypes)

    def max_neighbors(self):
        """Largest number of neighbors of each type that any atom has, (ntypes,)."""
        return self.pair_counts().max(axis=0, initial=0).tolist()

    def to(self, device):
        """The same with its tensors, padded slots included, on a device."""
        move = lambda t: None if t is None else t.to(device, non_blocking=True)  # noqa: E731
        return replace(
            self,
            coord=move(self.coord),
            owner=move(self.owner),
            frame=move(self.frame),
            fparam=move(self.fparam),
            aparam=move(self.aparam),
        )


@jit(nogil=True)
def _closest(coord, first, index):
    """The closest pair of the table: (i, j, squared distance); (-1, -1, inf) without pairs."""
    best = (-1, -1, np.inf)
    for i in range(len(first) - 1):
        for k in range(first[i], first[i + 1]):
            j = index[k]
            r2 = (
                (coord[i, 0] - coord[j, 0]) ** 2
                + (coord[i, 1] - coord[j, 1]) ** 2
                + (coord[i, 2] - coord[j, 2]) ** 2
            )
            if r2 < best[2]:
                best = (i, j, r2)
    return best


@jit()
def _fill_slots(first, index, atype, centers, tj, table):
    """Write the neighbors of type tj of each center into its row of ``table``; return the largest number."""
    largest = 0
    for row in range(len(centers)):
        n = 0
        for k in range(first[centers[row]], first[centers[row] + 1]):
            if atype[index[k]] == tj:
                if table.shape[1] > 0:
                    table[row, n] = index[k]
                n += 1
        largest = max(largest, n)
    return largest


def from_neighbors(ghosts, table, atype, ntypes, fparam=None, aparam=None):
    """One frame as a batch, from its ghosts and neighbor table (`box.Ghosts`, `neighbors.NeighborTable`).

    Raises DomainError where two atoms are closer than MIN_DISTANCE.
    """
    i, j, r2 = _closest(ghosts.coord, table.first, table.index)
    if r2 < MIN_DISTANCE**2:
        refuse_overlap(ghosts.coord, i, j, ghosts.owner)
    natoms = len(atype)
    return Batch(
        coord=torch.from_numpy(np.ascontiguousarray(ghosts.coord)),
        owner=torch.from_numpy(ghosts.owner),
        frame=torch.zeros(natoms, dtype=torch.int32),
        row=np.arange(natoms, dtype=np.int32),
        atype=np.asarray(atype, np.int32)[ghosts.owner],
        first=table.first,
        index=table.index,
        ntypes=ntypes,
        fparam=None if fparam is None else torch.as_tensor(fparam, dtype=torch.float64).reshape(1, -1),
        aparam=None if aparam is None else torch.as_tensor(aparam, dtype=torch.float64).reshape(natoms, -1),
    )


def from_frame(coord, atype, box, pbc, rcut, ntypes, fparam=None, aparam=None):
    """One frame as a batch: find its ghosts and neighbors within rcut.

    Parameters
    ----------
    coord : (natoms, 3) array, Å
    atype : (natoms,) int array
    box : (3, 3) array, Å, or None
    pbc : (3,) bool array
    rcut : float, Å
    ntypes : int
    fparam, aparam : (numb_fparam,) and (natoms, numb_aparam) arrays, optional

    Raises
    ------
    DomainError
        A degenerate cell, non-finite coordinates, two atoms closer than MIN_DISTANCE.
    """
    ghosts = extend(coord, box, pbc, rcut)
    table = cell_list(ghosts.coord, len(atype), rcut)
    return from_neighbors(ghosts, table, atype, ntypes, fparam, aparam)


def collate(batches):
    """Several batches as one."""
    if len(batches) == 1:
        return batches[0]
    rows = np.cumsum([0] + [len(b.coord) for b in batches])
    atoms = np.cumsum([0] + [b.natoms for b in batches])
    frames = np.cumsum([0] + [b.nframes for b in batches])
    pairs = np.cumsum([0] + [len(b.index) for b in batches])

    def joined(tensors):
        return None if tensors[0] is None else torch.cat(tensors)

    return Batch(
        coord=torch.cat([b.coord for b in batches]),
        owner=torch.cat([b.owner + int(n) for b, n in zip(batches, atoms)]),
        frame=torch.cat([b.frame + int(n) for b, n in zip(batches, frames)]),
        row=np.concatenate([b.row + np.int32(n) for b, n in zip(batches, rows)]),
        atype=np.concatenate([b.atype for b in batches]),
        first=np.concatenate([[0], *(b.first[1:] + n for b, n in zip(batches, pairs))]),
        index=np.concatenate([b.index + np.int32(n) for b, n in zip(batches, rows)]),
        ntypes=batches[0].ntypes,
        nframes=int(frames[-1]),
        fparam=joined([b.fparam for b in batches]),
        aparam=joined([b.aparam for b in batches]),
    )
