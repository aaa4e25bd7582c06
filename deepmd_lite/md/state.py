"""What a rank knows of a simulation: its atoms, the cell, and sums over all ranks.

Lengths in Å, times in fs, velocities in Å/fs, masses in amu, energies in eV, virials in eV (positive when the
system wants to expand), pressures in bar.
"""

from dataclasses import dataclass

import numpy as np

from deepmd_lite.units import ACCELERATION, BAR, BOLTZMANN


@dataclass(eq=False)
class State:
    """Atoms of one rank, without ghosts, and what all ranks share.

    ``coord``, ``velocity`` and ``force`` may be new arrays, in another order and of another length, after every
    migration: keep nothing that is indexed by atom, or key it by ``id``.

    Attributes
    ----------
    id : (nloc,) int64
        Places in the structure that the simulation started from.
    atype : (nloc,) int32
    mass : (nloc, 1) float64, amu
    mobile : (nloc, 1) float64
        1.0, or 0.0 for atoms that are held fixed: their velocities stay zero.
    coord, velocity, force : (nloc, 3) float64
        Å, Å/fs, eV/Å.
    image : (nloc, 3) int32
        Cells crossed since the start: ``coord + image @ cell`` is unwrapped.
    cell : (3, 3) float64, Å
        Vectors in rows; unit normals in place of the vectors of axes that are not periodic.
    pbc : (3,) bool
    comm : mpi4py communicator
    natoms, nmobile : int
        Of all ranks.
    step : int
    dt : float, fs
    seed : int
        Of counter-based random numbers: keyed by (seed, step, id), so that noise does not depend on the ranks.
    drifts : bool
        Whether the total momentum changes, as by Langevin noise, and so counts among the degrees of freedom.
    energy : float, eV
        Potential energy of all ranks, of the last force evaluation.
    virial : (3, 3) float64, eV
        Likewise.
    """

    id: np.ndarray
    atype: np.ndarray
    mass: np.ndarray
    mobile: np.ndarray
    coord: np.ndarray
    velocity: np.ndarray
    force: np.ndarray
    image: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    comm: object
    natoms: int
    nmobile: int
    step: int = 0
    dt: float = 1.0
    seed: int = 0
    drifts: bool = False
    energy: float = 0.0
    virial: np.ndarray | None = None

    def sum(self, values):
        """The sum over ranks of an array (or number) of float64, as an array."""
        values = np.array(values, np.float64)
        total = np.empty_like(values)
        self.comm.Allreduce(values, total)
        return total

    def kinetic_tensor(self):
        """Σ m v v over all atoms, (3, 3), eV: its trace is twice the kinetic energy."""
        return self.sum((self.mass * self.velocity).T @ self.velocity) / ACCELERATION

    @property
    def degrees_of_freedom(self):
        """3 per mobile atom, less the total momentum's three where it stays zero."""
        resting = self.nmobile == self.natoms and not self.drifts
        return max(1, 3 * self.nmobile - 3 * resting)

    def temperature(self, kinetic_tensor):
        """K."""
        return float(np.trace(kinetic_tensor)) / (self.degrees_of_freedom * BOLTZMANN)

    @property
    def volume(self):
        """Å³; has a meaning where all three axes are periodic."""
        return abs(float(np.linalg.det(self.cell)))

    def pressure_tensor(self, kinetic_tensor):
        """(Σ m v v + virial) / V, (3, 3), bar."""
        return (kinetic_tensor + (self.virial + self.virial.T) / 2) / self.volume / BAR
