"""Run under mpirun by test_decomposition.py: NVE of several structures; what each gives goes into an .npz file.

usage: mpirun -n N python worker.py OUT.npz
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from mpi4py import MPI

from deepmd_lite import CompiledPot, read_model
from deepmd_lite.md.dynamics import Dynamics
from deepmd_lite.md.gather import gathered
from deepmd_lite.md.integrators import VelocityVerlet
from deepmd_lite.md.start import distribute, thermalize

ALLOY = Path(__file__).parents[1] / "physics/alloy.dp"  # rcut 4.5 Å
STEPS, DT = 100, 2.0  # fs


def nial(repeat, pbc=True, vacuum=0.0, skew=0.0):
    """B2 NiAl, displaced by up to 0.1 Å; ``vacuum`` Å more along the first axis."""
    rng = np.random.default_rng(0)
    unit = Atoms("NiAl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=2.88 * np.eye(3), pbc=pbc)
    atoms = unit.repeat(repeat)
    atoms.positions += rng.uniform(-0.1, 0.1, atoms.positions.shape)
    cell = atoms.cell.array.copy()
    cell[0, 0] += vacuum
    cell[1, 0] += skew
    atoms.set_cell(cell)
    return atoms


CASES = {
    "bulk": nial((4, 4, 4)),
    "triclinic": nial((4, 3, 3), skew=3.0),
    "slab": nial((4, 4, 2), pbc=(True, True, False)),
    "molecule": nial((2, 2, 2), pbc=False),
    "cell below rcut": nial((1, 1, 1)),
    "half empty": nial((4, 4, 4), vacuum=12.0),
}


def run(name, atoms):
    comm, potential = MPI.COMM_WORLD, CompiledPot(read_model(ALLOY), threads=1)
    state = distribute(atoms, potential.type_map, comm, dt=DT, seed=5)
    thermalize(state, 900.0)
    dynamics = Dynamics(state, [potential], VelocityVerlet(), skin=0.3)

    def whole(values):
        return gathered(comm, state.natoms, state.id, values)

    found = {"energy": state.energy, "force": whole(state.force), "virial": state.virial}
    found["imbalance"] = comm.allreduce(len(state.id), op=MPI.MAX) * comm.size / state.natoms
    found["empty"] = comm.allreduce(int(len(state.id) == 0))
    dynamics.run(STEPS)
    found["coord"] = whole(state.coord + state.image @ state.cell)
    found["builds"] = dynamics.domain.builds
    return {f"{name}/{key}": value for key, value in found.items()}


if __name__ == "__main__":
    everything = {}
    for case in CASES.items():
        everything |= run(*case)
    if MPI.COMM_WORLD.rank == 0:
        np.savez(sys.argv[1], **everything)
