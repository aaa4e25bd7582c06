"""One structure, evaluated by several ranks that all hold it: ASE scripts under ``mpirun``.

Every rank calls with the same atoms, evaluates its share of them and gets the whole result. For systems so large
that a rank should hold its own part alone there is md/domain.py.
"""

import zlib

import numpy as np

from deepmd_lite.contract import Prediction
from deepmd_lite.errors import ConfigError, DomainError


class SharedPot:
    """A `CompiledPot` whose `evaluate_neighbors` the ranks of a communicator share.

    Parameters
    ----------
    potential : CompiledPot
    comm : mpi4py communicator

    Notes
    -----
    `evaluate_neighbors` is collective; everything else is the potential's own. The sums over ranks are the same
    numbers on all of them, so that scripts stay in step.
    """

    def __init__(self, potential, comm):
        self.potential, self.comm = potential, comm

    def __getattr__(self, name):
        if name.startswith("_") or "potential" not in vars(self):
            raise AttributeError(name)
        return getattr(self.potential, name)  # model, type_map, ntypes, rcut, sel

    def evaluate_neighbors(self, ghosts, table, atype, fparam=None, aparam=None, atom_virial=False):
        """As `CompiledPot.evaluate_neighbors`.

        Raises
        ------
        ConfigError
            On all ranks, when they were not given the same positions.
        DomainError
            On all ranks, when one of them met it.
        """
        comm, natoms = self.comm, len(atype)
        frame = self.potential.frame(ghosts, table, atype, fparam, aparam)
        error, shares = None, None
        total = np.zeros(11 + 4 * natoms)
        try:
            sums = self.potential.sums(frame, natoms, natoms, atom_virial, share=(comm.rank, comm.size))
            total[1] = zlib.crc32(ghosts.coord)  # an integer that float64 holds exactly
            total[2:11] = sums.virial.sum(axis=0)
            total[11 : 11 + natoms] = sums.energy
            total[11 + natoms :] = sums.force.sum(axis=0).ravel()
            shares = sums.atom_virial.sum(axis=0)
        except DomainError as reason:
            error, total[0] = reason, 1
        mine = total[1]
        everywhere = np.empty_like(total)
        comm.Allreduce(total, everywhere)
        if everywhere[0]:
            raise next(e for e in comm.allgather(error) if e)
        if comm.allreduce(mine * comm.size != everywhere[1]):
            raise ConfigError(
                "the ranks were given different positions: expected the same script with the same random numbers "
                "on each (pass rng=numpy.random.default_rng(seed) to ASE)"
            )
        if atom_virial:
            all_shares = np.empty_like(shares)
            comm.Allreduce(shares, all_shares)
            shares = all_shares.reshape(-1, 3, 3)
        energy = everywhere[11 : 11 + natoms]
        return Prediction(
            float(energy.sum()),
            energy,
            everywhere[11 + natoms :].reshape(-1, 3),
            everywhere[2:11].reshape(3, 3),
            shares if atom_virial else None,
        )
