"""From a structure to the atoms of each rank, and the velocities they start with."""

import itertools

import numpy as np
from ase.constraints import FixAtoms

from deepmd_lite.box import complete_cell
from deepmd_lite.calculator import atom_types
from deepmd_lite.md.random import normal
from deepmd_lite.md.state import State
from deepmd_lite.units import ACCELERATION, BOLTZMANN

VELOCITIES = 2**62  # the step under which initial velocities are drawn: no simulation gets there


def distribute(atoms, type_map, comm, *, replicate=(1, 1, 1), fixed=(), dt=1.0, seed=0):
    """A share of the atoms for each rank, in order of their ids; `domain.Domain` moves them where they belong.

    Parameters
    ----------
    atoms : ase.Atoms
        The same on every rank. Velocities, masses and `FixAtoms` count.
    type_map : sequence of str
    comm : mpi4py communicator
    replicate : (3,) int
        Copies along each axis, in the order of ``atoms.repeat``; each rank makes only its own.
    fixed : sequence of int
        Further atoms to hold fixed, by their place in ``atoms``.
    dt : float, fs
    seed : int

    Returns
    -------
    State

    Raises
    ------
    ConfigError
        Elements that are not in type_map.
    DomainError
        A degenerate cell.
    """
    n, copies = len(atoms), int(np.prod(replicate))
    begin, end = (n * copies * r // comm.size for r in (comm.rank, comm.rank + 1))
    id = np.arange(begin, end)
    unit, copy = id % max(n, 1), id // max(n, 1)
    turns = np.array(list(itertools.product(*map(range, replicate))))
    mobile = np.ones(n)
    mobile[list(fixed)] = 0
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mobile[constraint.index] = 0
    cell = complete_cell(atoms.cell[:], atoms.pbc)
    return State(
        id=id,
        atype=atom_types(atoms, type_map)[unit],
        mass=atoms.get_masses()[unit, None],
        mobile=mobile[unit, None],
        coord=atoms.positions[unit] + turns[copy] @ atoms.cell[:],
        velocity=(mobile[:, None] * atoms.get_velocities() * np.sqrt(ACCELERATION))[unit],  # ASE: Å √(eV/amu)
        force=np.zeros((len(id), 3)),
        image=np.zeros((len(id), 3), np.int32),
        cell=np.where(atoms.pbc, replicate, 1)[:, None] * cell,
        pbc=np.array(atoms.pbc, bool),
        comm=comm,
        natoms=n * copies,
        nmobile=copies * int(mobile.sum()),
        dt=dt,
        seed=seed,
        virial=np.zeros((3, 3)),
    )


def thermalize(state, temperature):
    """Maxwell-Boltzmann velocities of exactly this temperature (K), at rest as a whole, the same on any ranks."""
    thermal = np.sqrt(BOLTZMANN * temperature * ACCELERATION / state.mass)
    state.velocity = state.mobile * thermal * normal(state.seed, VELOCITIES, state.id)
    remove_drift(state)
    found = state.temperature(state.kinetic_tensor())
    if found > 0:
        state.velocity *= np.sqrt(temperature / found)


def remove_drift(state):
    """Set the total momentum to zero, unless atoms are held fixed."""
    if state.nmobile == state.natoms:
        total = state.sum(np.append((state.mass * state.velocity).sum(axis=0), state.mass.sum()))
        state.velocity -= total[:3] / total[3]
