"""The loop over steps: `Dynamics`.

A step is: half kick and drift (integrator) ─> list still valid? else exchange, borders, neighbors ─> forces ─> half
kick ─> what is due: log, trajectory, deviation, checkpoint. Two small reductions a step tell all ranks whether any of
them has used up the skin, was asked to stop, or saw something that cannot be.
"""

import copy

import numpy as np

from deepmd_lite.errors import SimulationError
from deepmd_lite.md.clock import Clock
from deepmd_lite.md.domain import Domain
from deepmd_lite.md.forces import Forces
from deepmd_lite.md.start import remove_drift
from deepmd_lite.signals import Stopped, collected


class Dynamics:
    """Molecular dynamics of the atoms of a `State` on the ranks of its communicator.

    Parameters
    ----------
    state : state.State
        From `start.distribute` or a checkpoint.
    potentials : list of CompiledPot
        The first drives, the others are asked for the model deviation.
    integrator : of integrators.py
    skin : float, Å
    grid : (3,) int, optional
        Ranks along each axis.
    max_force, min_distance, max_displacement : float, optional
        eV/Å, Å, Å per step: beyond them a run is stopped. Forces that are not finite stop it always.
    drift_interval : int, optional
        Steps between removals of the total momentum.

    Raises
    ------
    ConfigError, DomainError
        As `Domain` and `Forces`.

    Attributes
    ----------
    actions : list of (interval, function)
        Each function is called with the `Dynamics` on all ranks after every step that its interval divides.

    Notes
    -----
    `settle` makes everything follow from the state. A run that writes a checkpoint settles, and so does the run
    that continues it: the same atoms in the same order on each rank, the same lists, the same forces, bit by bit.
    """

    def __init__(
        self,
        state,
        potentials,
        integrator,
        *,
        skin=1.0,
        grid=None,
        max_force=None,
        min_distance=None,
        max_displacement=None,
        drift_interval=None,
    ):
        self.state, self.integrator = state, integrator
        self.clock = Clock()
        self.domain = Domain(state.comm, state, max(p.rcut for p in potentials), skin, grid)
        self.forces = Forces(self.domain, potentials)
        self.limits = {
            "force": (max_force, "force of {:.4g} eV/Å, limit {:g}".format),
            "displacement": (max_displacement, "displacement of {:.4g} Å in one step, limit {:g}".format),
            "closeness": (
                None if min_distance is None else 1 / min_distance,
                lambda inverse, limit: f"a pair {1 / inverse:.3g} Å apart, limit {1 / limit:g}",
            ),
        }  # by name: the largest value allowed, and what to say of a larger one
        self.drift_interval = drift_interval
        self.actions = []
        self.forces(state, self.clock)
        self._before = None
        self._guard({"force": self._largest_force()})

    def settle(self):
        """Distribute and list anew, and evaluate forces, as at a start."""
        with self.clock("neighbor"):
            self.domain.settle()
        self.forces(self.state, self.clock)

    def run(self, steps):
        """Take steps.

        Raises
        ------
        SimulationError
            Something beyond a limit: names the step and the atom; ``state`` is the one before that step.
        Stopped
            SIGTERM, SIGINT or SIGUSR1 on any rank, after the step is whole.
        """
        with collected() as received:
            for _ in range(steps):
                asked = self._step(max(received, default=0))
                for interval, action in self.actions:
                    if self.state.step % interval == 0:
                        with self.clock("output"):
                            action(self)
                if asked:
                    raise Stopped(asked, self.state.step)

    def _step(self, received):
        """One step; the signal that any rank has received, or 0."""
        s, clock = self.state, self.clock
        self._before = copy.copy(s)
        self._before.coord, self._before.velocity = s.coord.copy(), s.velocity.copy()
        self._remembered = self.integrator.get()
        s.step += 1
        with clock("integrate"):
            self.integrator.first_half(s)
        with clock("neighbor"):
            used = self.domain.moved()
        with clock("comm"):
            used, asked = self._largest((used, received))
        if not used < 1:
            self._guard({"displacement": self._largest_displacement()})
            with clock("neighbor"):
                self.domain.rebuild()
        self.forces(s, clock)
        self._guard({"force": self._largest_force(), "closeness": self._closeness()})
        with clock("integrate"):
            self.integrator.second_half(s)
            if self.drift_interval and s.step % self.drift_interval == 0:
                remove_drift(s)
        return int(asked)

    # ---- what must not happen -------------------------------------------------------------------------------

    def _largest(self, values):
        """The largest over ranks of each of some numbers; NaN counts as infinite."""
        mine = np.nan_to_num(np.array(values, float), nan=np.inf, posinf=np.inf)
        largest = np.empty_like(mine)
        self.state.comm.Allreduce(mine, largest, op=_mpi().MAX)
        return largest

    def _largest_force(self):
        return _longest(self.state.force), self.state.id

    def _largest_displacement(self):
        """Of a step in which atoms keep their places in the arrays; used before a migration."""
        return _longest(self.state.coord - self._before.coord), self.state.id

    def _closeness(self):
        """1 / distance of the closest pair of this rank."""
        rr, i, _ = self.forces.closest
        inverse = np.array([1 / np.sqrt(rr)])
        return (inverse, self.domain.id[[int(i)]]) if np.isfinite(rr) else (inverse[:0], self.state.id)

    def _guard(self, found):
        """Stop when a largest value is beyond its limit or not finite: (values, ids) by name."""
        limits = [self.limits[name][0] or np.inf for name in found]
        with self.clock("comm"):
            largest = self._largest([values.max(initial=0.0) for values, _ in found.values()])
        for name, (values, ids), value, limit in zip(found, found.values(), largest, limits):
            if value <= limit and value < np.inf:
                continue
            place = int(np.argmax(np.nan_to_num(values, nan=np.inf))) if len(values) else -1
            mine = (np.nan_to_num(values[place], nan=np.inf), int(ids[place])) if len(values) else (-1.0, -1)
            _, atom = max(self.state.comm.allgather(mine))
            step = self.state.step
            if self._before is not None:
                vars(self.state).update(vars(self._before))
                self.integrator.set(self._remembered)
            raise SimulationError(f"step {step}: {self.limits[name][1](value, limit)}, at atom {atom}")


def _longest(vectors):
    return np.sqrt(np.einsum("id,id->i", vectors, vectors))


def _mpi():
    from mpi4py import MPI

    return MPI
