"""What a run would take on some number of ranks, before it is run: ``dplite md --dry-run``.

A rank owns N/P atoms in a box of their share of the volume; its ghosts fill a layer of rcut + skin around it. The
kernel's time per atom is measured on a few hundred atoms of the structure itself; ghosts cost the copying, sending
and adding of their positions and forces; a message costs the latency of the network and its bytes::

    t_step = t_atom N/P + t_ghost N_ghost + 2 (26 latency + 24 bytes N_ghost / bandwidth) + 3 log₂P latency
"""

import math
import time
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from rich.table import Table

from deepmd_lite.box import face_distances
from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.md.domain import choose_grid
from deepmd_lite.md.dynamics import Dynamics
from deepmd_lite.md.integrators import VelocityVerlet
from deepmd_lite.md.simulation import read_structure
from deepmd_lite.md.start import distribute

SAMPLE = 1000  # atoms that the cost is measured on
PER_GHOST = 30e-9  # s: packed, copied, its force added; measured on one core
LATENCY, BANDWIDTH = 2e-6, 10e9  # s, bytes/s: a cluster's network
BYTES = {"atom": 330.0, "ghost": 100.0, "pair": 4.3}  # measured: resident memory per atom, ghost, listed pair


@dataclass(frozen=True)
class Estimate:
    """Predictions for one rank of many.

    Attributes
    ----------
    natoms, ranks : int
    grid : (3,) tuple of int
    atoms, ghosts : float
        Of a rank.
    memory : float, bytes
        Of a rank, beside the 0.3 GB of Python and its libraries.
    microseconds : float
        Kernel and integration per atom, as measured here.
    seconds : float
        A step.
    communication : float
        Seconds of a step that are communication.
    """

    natoms: int
    ranks: int
    grid: tuple
    atoms: float
    ghosts: float
    memory: float
    microseconds: float
    seconds: float
    communication: float
    ns_per_day: float

    def table(self):
        """rich.table.Table: The estimate in words."""
        table = Table(title=f"{self.natoms:,} atoms on {self.ranks:,} ranks", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        rows = {
            "grid": " × ".join(map(str, self.grid)),
            "atoms a rank": f"{self.atoms:,.0f}",
            "ghosts a rank": f"{self.ghosts:,.0f} ({self.ghosts / self.atoms:.2f} per atom)",
            "memory a rank": f"{self.memory / 2**20:,.0f} MiB + 300 MiB",
            "kernel, measured here": f"{self.microseconds:.1f} µs/atom",
            "predicted step": f"{1000 * self.seconds:,.2f} ms",
            "of it communication": f"{self.communication / self.seconds:.1%}",
            "predicted speed": f"{self.ns_per_day:.3g} ns/day",
        }
        for name, value in rows.items():
            table.add_row(name, value)
        table.caption = (
            f"network: latency {1e6 * LATENCY:g} µs, bandwidth {BANDWIDTH / 1e9:g} GB/s, as assumed"
        )
        return table


def estimate(settings, ranks):
    """Predict memory and time of a run.

    Parameters
    ----------
    settings : settings.Settings
    ranks : int

    Returns
    -------
    Estimate
    """
    atoms = read_structure(settings)
    natoms = len(atoms) * int(np.prod(settings.replicate))
    potential = CompiledPot.load(settings.model[0], precision=settings.precision, threads=settings.threads)
    copies = max(1, round((SAMPLE / len(atoms)) ** (1 / 3)))
    state = distribute(
        atoms,
        potential.type_map,
        MPI.COMM_SELF,
        replicate=[copies if p else 1 for p in atoms.pbc],
        dt=settings.dt,
    )
    dynamics = Dynamics(state, [potential], VelocityVerlet(), skin=settings.skin)
    dynamics.run(2)
    begin, seconds = time.perf_counter(), []
    for _ in range(5):
        begin = time.perf_counter()
        dynamics.run(1)
        seconds.append(time.perf_counter() - begin)
    local = dynamics.domain.coord.shape[0] - state.natoms
    per_atom = (float(np.median(seconds)) - PER_GHOST * local) / state.natoms
    pairs = len(dynamics.domain.table.index) / state.natoms

    reach = potential.rcut + settings.skin
    lengths = face_distances(state.cell) * settings.replicate / np.where(atoms.pbc, copies, 1)
    if not atoms.pbc.all():
        frac = atoms.positions @ np.linalg.inv(state.cell)
        lengths = np.where(atoms.pbc, lengths, np.ptp(frac, axis=0) + 2.0)
    grid = tuple(settings.grid) if settings.grid else choose_grid(ranks, lengths)
    box = lengths / grid
    owned = natoms / ranks
    layer = np.where(np.logical_or(atoms.pbc, np.array(grid) > 1), 2 * reach, 0.0)
    ghosts = owned * (np.prod((box + layer) / box) - 1)
    memory = owned * (BYTES["atom"] + BYTES["pair"] * pairs) + ghosts * BYTES["ghost"]
    communication = PER_GHOST * ghosts
    if ranks > 1:
        communication += 2 * (26 * LATENCY + 24 * ghosts / BANDWIDTH) + 3 * math.log2(ranks) * LATENCY
    seconds = per_atom * owned + communication
    return Estimate(
        natoms,
        ranks,
        grid,
        owned,
        ghosts,
        memory,
        1e6 * per_atom,
        seconds,
        communication,
        0.0864 * settings.dt / seconds,
    )
