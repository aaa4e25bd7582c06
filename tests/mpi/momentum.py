"""Run under mpirun by test_decomposition.py: NVE of NiAl; prints |ΣF|/Σ|F| and |ΣP|/Σ|P|, the largest on the way.

usage: mpirun -n N python momentum.py STEPS
"""

import sys

import numpy as np
from mpi4py import MPI
from worker import ALLOY, DT, nial

from deepmd_lite import CompiledPot, read_model
from deepmd_lite.md.dynamics import Dynamics
from deepmd_lite.md.integrators import VelocityVerlet
from deepmd_lite.md.start import distribute, thermalize

potential = CompiledPot(read_model(ALLOY), threads=1)
state = distribute(nial((2, 2, 2)), potential.type_map, MPI.COMM_WORLD, dt=DT, seed=5)
thermalize(state, 300.0)
dynamics = Dynamics(state, [potential], VelocityVerlet(), skin=0.3)
largest = np.zeros(2)
for _ in range(int(sys.argv[1])):
    dynamics.run(1)
    for k, vectors in enumerate((state.force, state.mass * state.velocity)):
        total = state.sum(np.append(vectors.sum(axis=0), np.linalg.norm(vectors, axis=1).sum()))
        largest[k] = max(largest[k], np.linalg.norm(total[:3]) / total[3])
if state.comm.rank == 0:
    print(*largest)
