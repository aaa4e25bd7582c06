"""What is measured on the frames before training, in one pass over all of them that keeps sums alone.

Mean and spread of the environment matrix, energy per element, the most neighbors, the closest pair. All frames
count (DeePMD-kit samples ``data_stat_nbatch`` batches).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import NeighborOverflowError
from deepmd_lite.jit import jit


class Moments(NamedTuple):
    """Number, mean (width,) and Σ(x - mean)² (width,) of rows x."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    def joined(self, other):
        """Moments: Of both (Chan, Golub and LeVeque, Am. Stat. 37, 242 (1983))."""
        n = self.count + other.count
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * (self.count * other.count / n)
        return Moments(n, self.mean + step * (other.count / n), squares)


@dataclass
class Survey:
    """What the frames of a data section have in common, and their extremes."""

    ntypes: int
    closest: float = np.inf  # Å, the smallest distance of two atoms
    crowded: str = ""  # the frame that has more neighbors of a type than those before it
    neighbors: np.ndarray = field(init=False)  # (ntypes,) the most neighbors of each type around any atom
    sums: np.ndarray = field(init=False)  # (ntypes, 4) over pairs: Σs, Σs², Σ(x+y+z)/3, Σ(x²+y²+z²)/3
    atoms: np.ndarray = field(init=False)  # (ntypes,)
    energies: dict[tuple, Moments] = field(default_factory=dict)  # by the number of atoms of each type; eV
    parameters: dict[str, Moments] = field(default_factory=dict)  # of fparam, aparam

    def __post_init__(self):
        self.neighbors, self.atoms = np.zeros((2, self.ntypes), np.int64)
        self.sums = np.zeros((self.ntypes, 4))

    def add(self, part):
        """Take in the `Survey` of further frames."""
        if (part.neighbors > self.neighbors).any() or not self.crowded:
            self.crowded = part.crowded
        self.neighbors = np.maximum(self.neighbors, part.neighbors)
        self.closest = min(self.closest, part.closest)
        self.sums += part.sums
        self.atoms += part.atoms
        for own, others in ((self.energies, part.energies), (self.parameters, part.parameters)):
            for key, moments in others.items():
                own[key] = own[key].joined(moments) if key in own else moments


def survey(frames, rcut_smth, protection=0.0):
    """Look at all frames (`dataset.Frames`).

    Parameters
    ----------
    frames : dataset.Frames
    rcut_smth, protection : float, Å
        Of the environment matrix; protection is ``env_protection``.

    Returns
    -------
    Survey
    """
    found, cutoff = Survey(frames.ntypes), np.array([frames.rcut, rcut_smth, protection])
    for part in frames.map(lambda frame: _survey(frame, cutoff)):
        found.add(part)
    return found


def _survey(frame, cutoff):
    """Survey: Of one frame."""
    batch, found = frame.batch, Survey(frame.batch.ntypes)
    pairs = batch.coord.numpy(), batch.atype, batch.first, batch.index
    found.closest = float(_sum_pairs(*pairs, cutoff, found.neighbors, found.sums))
    found.crowded = f"{frame.system}, frame {frame.index}"
    found.atoms += np.bincount(batch.atype[: batch.natoms], minlength=batch.ntypes)
    if bool(frame.labels.found["energy"]):
        energy = frame.labels.energy.numpy()
        found.energies[tuple(found.atoms.tolist())] = Moments(1, energy, np.zeros(1))
    for name in ("fparam", "aparam"):
        values = getattr(batch, name)
        if values is not None:
            mean = values.numpy().mean(0)
            found.parameters[name] = Moments(len(values), mean, ((values.numpy() - mean) ** 2).sum(0))
    return found


@jit(nogil=True)
def _sum_pairs(coord, atype, first, index, cutoff, most, sums):
    """Fill the largest numbers of neighbors and the sums of `Survey`; return the closest distance, Å."""
    rcut, smooth, protection = cutoff
    closest, count = np.inf, np.zeros(len(most), np.int64)
    for i in range(len(first) - 1):
        count[:] = 0
        for k in range(first[i], first[i + 1]):
            j = index[k]
            count[atype[j]] += 1
            x, y, z = coord[j, 0] - coord[i, 0], coord[j, 1] - coord[i, 1], coord[j, 2] - coord[i, 2]
            r = np.sqrt(x * x + y * y + z * z)
            closest = min(closest, r)
            u = min(max((r - smooth) / (rcut - smooth), 0.0), 1.0)
            q = 1 / (r + protection)
            s = (1 + u**3 * (-10 + u * (15 - 6 * u))) * q  # model/descriptor.py, radial
            t = s * q
            of_center = sums[atype[i]]
            of_center[0] += s
            of_center[1] += s * s
            of_center[2] += t * (x + y + z) / 3
            of_center[3] += t * t * r * r / 3
        for n in range(len(most)):
            most[n] = max(most[n], count[n])
    return closest


def check_sel(found, sel):
    """Raise NeighborOverflowError where an atom has more neighbors than ``sel``; ``found`` is a `Survey`."""
    if (found.neighbors > np.array(sel)).any():
        needed = np.maximum(found.neighbors, sel).tolist()
        raise NeighborOverflowError(
            f"sel = {list(sel)} is too small: {found.crowded} needs {needed}; set model.descriptor.sel"
        )


def env_mat_statistics(found, sel):
    """Mean ``davg`` and standard deviation ``dstd`` of the environment matrix by center type, (ntypes, 4) each.

    Parameters
    ----------
    found : Survey
    sel : (ntypes,) list of int

    Notes
    -----
    Over all slots, the empty ones (zero rows) included. The three directions share one spread, their mean is 0.
    A spread below 0.01 is raised to 0.01; a type without data gets 0.1.
    """
    davg, dstd = np.zeros((found.ntypes, 4)), np.full((found.ntypes, 4), 0.1)
    for ti in np.flatnonzero(found.atoms):
        s, s2, a, a2 = found.sums[ti] / (found.atoms[ti] * sum(sel))
        davg[ti, 0] = s
        dstd[ti] = np.maximum(np.sqrt(np.maximum([s2 - s * s] + [a2 - a * a] * 3, 0)), 1e-2)
    return davg, dstd


def energy_bias(found, fixed=None):
    """Energy per element, (ntypes,) eV: least squares of the frames' energies on their composition.

    Parameters
    ----------
    found : Survey
    fixed : list of float or None, optional
        Energies that are given (``atom_ener``); the others are fitted to the rest.

    Notes
    -----
    The solution of least norm where compositions do not tell the elements apart (water: twice as much for H as
    for O, since every frame has two H for one O). n frames of one composition count as √n rows of their mean.
    """
    bias, free = np.zeros(found.ntypes), np.ones(found.ntypes, bool)
    for t, e in enumerate(fixed or []):
        if e is not None:
            bias[t], free[t] = e, False
    if found.energies and free.any():
        counts, n, mean, _ = _energies(found)
        rest = mean - counts @ bias
        bias[free] = np.linalg.lstsq(np.sqrt(n)[:, None] * counts[:, free], np.sqrt(n) * rest, rcond=1e-10)[0]
    return bias


def energy_spread(found):
    """Root mean square of energy - `energy_bias` of the frames, each divided by the root of its atoms; eV.

    Thermal motion about one structure makes it k_B T √(3/2), whatever the number of atoms; nan without energies.
    """
    if not found.energies:
        return np.nan
    counts, n, mean, squares = _energies(found)
    rest = mean - counts @ energy_bias(found)
    return np.sqrt(((squares + n * rest**2) / counts.sum(1)).sum() / n.sum())


def _energies(found):
    """Of the frames of each composition: atoms (k, ntypes), number, mean energy and sum of squares about it (k,)."""
    moments = [(m.count, *m.mean, *m.squares) for m in found.energies.values()]
    return np.array(list(found.energies), float), *np.array(moments).T


def parameter_statistics(found, name):
    """Mean and inverse spread of fparam or aparam over the frames of a `Survey`, (width,) each; None without them."""
    if name not in found.parameters:
        return None, None
    count, mean, squares = found.parameters[name]
    return mean, 1 / np.maximum(np.sqrt(squares / count), 1e-2)
