"""Frames and neighbor lists as the index tensors the model reads.

Every frame contributes its local atoms, then its ghosts, as rows of one coordinate table; a batch of frames
is a longer table. Neighbors are kept by (type of center ti, type of neighbor tj) in padded slots::

    centers[ti]    (n,)     rows of the table that are local atoms of type ti
    slots[ti][tj]  (n, k)   rows that are their neighbors of type tj; -1 = empty slot

k is the largest number of such neighbors in the batch, not ``sel``: the model adds the slots that are missing
up to ``sel`` in closed form (descriptor.py).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from deepmd_lite.box import extend
from deepmd_lite.contract import MIN_DISTANCE, refuse_overlap
from deepmd_lite.jit import jit
from deepmd_lite.neighbors import cell_list


@dataclass
class Batch:
    """Atoms of one or more frames, with ghosts and neighbors (all tensors on one device)."""

    coord: torch.Tensor  # (nall, 3) Å, locals and ghosts of frame 0, then of frame 1, ...
    owner: torch.Tensor  # (nall,) the atom, 0..natoms-1 over all frames, that a row is (an image of)
    frame: torch.Tensor  # (natoms,) the frame of each atom
    centers: list[torch.Tensor]
    slots: list[list[torch.Tensor]]
    nframes: int = 1
    fparam: torch.Tensor | None = None  # (nframes, numb_fparam)
    aparam: torch.Tensor | None = None  # (natoms, numb_aparam)

    @property
    def natoms(self):
        return len(self.frame)

    def max_neighbors(self):
        """Largest number of neighbors of each type that any atom has, (ntypes,)."""
        return [max((row[tj].shape[1] for row in self.slots), default=0) for tj in range(len(self.slots))]

    def to(self, device):
        move = lambda t: None if t is None else t.to(device, non_blocking=True)  # noqa: E731
        return replace(
            self,
            coord=move(self.coord),
            owner=move(self.owner),
            frame=move(self.frame),
            centers=[move(c) for c in self.centers],
            slots=[[move(s) for s in row] for row in self.slots],
            fparam=move(self.fparam),
            aparam=move(self.aparam),
        )


@jit()
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


def slots_from_table(table, atype, centers, tj):
    """Padded neighbors of type tj, (ncenters, k) int32 with -1 in empty slots, from a `NeighborTable`."""
    width = _fill_slots(table.first, table.index, atype, centers, tj, np.empty((0, 0), np.int32))
    slots = np.full((len(centers), width), -1, np.int32)
    if width:
        _fill_slots(table.first, table.index, atype, centers, tj, slots)
    return slots


def from_neighbors(ghosts, table, atype, ntypes, fparam=None, aparam=None):
    """One frame as a batch, from its ghosts and neighbor table (`box.Ghosts`, `neighbors.NeighborTable`).

    Raises DomainError where two atoms are closer than MIN_DISTANCE.
    """
    i, j, r2 = _closest(ghosts.coord, table.first, table.index)
    if r2 < MIN_DISTANCE**2:
        refuse_overlap(ghosts.coord, i, j, ghosts.owner)
    atype = np.asarray(atype, np.int32)
    everyone = atype[ghosts.owner]
    centers = [np.flatnonzero(atype == ti).astype(np.int32) for ti in range(ntypes)]
    return Batch(
        coord=torch.from_numpy(np.ascontiguousarray(ghosts.coord)),
        owner=torch.from_numpy(ghosts.owner),
        frame=torch.zeros(len(atype), dtype=torch.int32),
        centers=[torch.from_numpy(c) for c in centers],
        slots=[
            [torch.from_numpy(slots_from_table(table, everyone, c, tj)) for tj in range(ntypes)]
            for c in centers
        ],
        fparam=None if fparam is None else torch.as_tensor(fparam, dtype=torch.float64).reshape(1, -1),
        aparam=None
        if aparam is None
        else torch.as_tensor(aparam, dtype=torch.float64).reshape(len(atype), -1),
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
    """Several batches as one; slots are padded to the widest."""
    if len(batches) == 1:
        return batches[0]
    ntypes = len(batches[0].centers)
    rows = np.cumsum([0] + [len(b.coord) for b in batches])
    atoms = np.cumsum([0] + [b.natoms for b in batches])
    frames = np.cumsum([0] + [b.nframes for b in batches])

    def joined(tensors):
        return None if tensors[0] is None else torch.cat(tensors)

    def padded(ti, tj):
        blocks = [b.slots[ti][tj] for b in batches]
        out = torch.full(
            (sum(len(s) for s in blocks), max(s.shape[1] for s in blocks)), -1, dtype=torch.int32
        )
        start = 0
        for s, shift in zip(blocks, rows):
            out[start : start + len(s), : s.shape[1]] = torch.where(s < 0, s, s + int(shift))
            start += len(s)
        return out

    return Batch(
        coord=torch.cat([b.coord for b in batches]),
        owner=torch.cat([b.owner + int(n) for b, n in zip(batches, atoms)]),
        frame=torch.cat([b.frame + int(n) for b, n in zip(batches, frames)]),
        centers=[torch.cat([b.centers[t] + int(n) for b, n in zip(batches, rows)]) for t in range(ntypes)],
        slots=[[padded(ti, tj) for tj in range(ntypes)] for ti in range(ntypes)],
        nframes=int(frames[-1]),
        fparam=joined([b.fparam for b in batches]),
        aparam=joined([b.aparam for b in batches]),
    )
