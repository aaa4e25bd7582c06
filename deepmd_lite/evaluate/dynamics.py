"""Figures of a trajectory: drift of the energy, radial distribution."""

import numpy as np

from deepmd_lite.box import extend
from deepmd_lite.errors import DataError
from deepmd_lite.neighbors import cell_list


def drift(time, energy, nblocks=20):
    """Slope of the energy against time, and its standard error.

    Parameters
    ----------
    time : (n,) ps
    energy : (n,)
        Total energy in any unit, per atom or not.
    nblocks : int
        The line is fitted to means over this many blocks of equal length: the scatter of block means around
        the line holds the correlation of the fluctuations as long as a block is longer than it.

    Returns
    -------
    slope, error : float
        Units of `energy` per ps.

    Raises
    ------
    DataError
        If there are fewer than three frames.
    """
    time, energy = np.asarray(time, float), np.asarray(energy, float)
    nblocks = min(nblocks, len(time))
    if nblocks < 3:
        raise DataError(f"drift: expected three frames or more, found {len(time)}")
    size = len(time) // nblocks
    keep = slice(len(time) - nblocks * size, None)
    t, e = (x[keep].reshape(nblocks, size).mean(axis=1) for x in (time, energy))
    t, e = t - t.mean(), e - e.mean()
    slope = (t @ e) / (t @ t)
    variance = ((e - slope * t) ** 2).sum() / (nblocks - 2)
    return float(slope), float(np.sqrt(variance / (t @ t)))


def radial_distribution(frames, pair, rmax=6.0, nbins=120):
    """Radial distribution g(r) of two elements over the frames of a trajectory.

    Parameters
    ----------
    frames : iterable of ase.Atoms
    pair : (str, str)
        The elements, like ("O", "H").
    rmax : float
        Å; may exceed half the cell.
    nbins : int

    Returns
    -------
    r : (nbins,) Å
        Centers of the bins.
    g : (nbins,)
        Density of pairs over that of an ideal gas in the same cells. Where no cell fills space (a molecule),
        the distribution of the distances below `rmax` instead, with area 1, in 1/Å.

    Raises
    ------
    DataError
        If there are no frames, or an element is in none of them.
    """
    edges = np.linspace(0.0, rmax, nbins + 1)
    counts, ideal = np.zeros(nbins), 0.0  # ideal: pairs per Å³ of shell, summed over frames
    for atoms in frames:
        symbols = np.array(atoms.get_chemical_symbols())
        first, second = (np.flatnonzero(symbols == element) for element in pair)
        counts += np.histogram(_distances(atoms, first, second, rmax), edges)[0]
        if atoms.pbc.all():
            itself = pair[0] == pair[1] and len(second) > 1  # no partner of its own
            partners = len(second) - itself
            ideal += len(first) * partners / atoms.get_volume()
    if not counts.any():
        raise DataError(f"radial distribution: found no pair {pair[0]}-{pair[1]} within {rmax:g} Å")
    r = (edges[1:] + edges[:-1]) / 2
    if ideal == 0.0:
        return r, counts / (counts.sum() * (edges[1] - edges[0]))
    return r, counts / (ideal * 4 / 3 * np.pi * np.diff(edges**3))


def _distances(atoms, first, second, rmax):
    """Distances below rmax from atoms `first` to atoms `second` and their images."""
    box = atoms.cell.array if atoms.pbc.any() else None
    ghosts = extend(atoms.positions, box, atoms.pbc, rmax)
    table = cell_list(ghosts.coord, len(atoms), rmax)
    center = np.repeat(np.arange(len(atoms)), np.diff(table.first))
    chosen = np.isin(center, first) & np.isin(ghosts.owner[table.index], second)
    vectors = ghosts.coord[table.index[chosen]] - ghosts.coord[center[chosen]]
    return np.linalg.norm(vectors, axis=1)
