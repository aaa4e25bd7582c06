"""Distances in frames: the closest pair and the number of neighbors, periodic images included."""

from typing import NamedTuple

import numpy as np

from deepmd_lite.box import extend
from deepmd_lite.neighbors import cell_list

SEL_MARGIN = 1.1  # of the neighbors found, room for what the data do not show
SEL_STEP = 4


class ClosestPair(NamedTuple):
    """Two atoms (the second may be an image) and their distance; atoms −1 and inf where there is no pair."""

    distance: float  # Å
    i: int
    j: int


class Pairs(NamedTuple):
    """Every pair closer than a cutoff, seen from both sides."""

    i: np.ndarray  # (npairs,) int, atom
    j: np.ndarray  # (npairs,) int, atom of which the neighbor is an image
    distance: np.ndarray  # (npairs,), Å


def pairs(system, frame, rcut):
    """Pairs: All pairs of one frame of a System within ``rcut`` (Å)."""
    box = None if system.box is None else system.box[frame]
    ghosts = extend(system.coord[frame], box, system.pbc, rcut)
    table = cell_list(ghosts.coord, system.natoms, rcut)
    i = np.repeat(np.arange(system.natoms), np.diff(table.first))
    distance = np.linalg.norm(ghosts.coord[table.index] - ghosts.coord[i], axis=1)
    return Pairs(i, ghosts.owner[table.index], distance)


def closest_pair(system, frame):
    """ClosestPair: The two atoms nearest to one another in a frame, looked for within 8 Å."""
    for rcut in (1.0, 2.0, 4.0, 8.0):  # a small one first: Å taken for nm leave thousands of pairs within 8
        nearest = closest(pairs(system, frame, rcut))
        if nearest.i >= 0:
            break
    return nearest


def closest(found):
    """ClosestPair: The nearest of `Pairs`."""
    if len(found.distance) == 0:
        return ClosestPair(np.inf, -1, -1)
    k = int(np.argmin(found.distance))
    return ClosestPair(float(found.distance[k]), int(found.i[k]), int(found.j[k]))


def most_neighbors(system, found):
    """np.ndarray: (ntypes,) int, the most neighbors of each type that any atom of a frame has."""
    ntypes = len(system.type_map)
    slot = found.i * ntypes + system.atype[found.j]
    return np.bincount(slot, minlength=system.natoms * ntypes).reshape(-1, ntypes).max(axis=0)


def suggested_sel(neighbors):
    """list of int: ``sel`` for the most neighbors found: a tenth more, rounded up to a multiple of four."""
    return [max(SEL_STEP, int(np.ceil(n * SEL_MARGIN / SEL_STEP)) * SEL_STEP) for n in neighbors]
