"""A simulation with its files: `Simulation`, from Python or from md.json."""

import os
from dataclasses import dataclass

import numba
import numpy as np
from ase import Atoms
from ase.io import read, write

from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.errors import ConfigError, DataError, SimulationError
from deepmd_lite.frames.store import read_systems
from deepmd_lite.launch import check_launcher
from deepmd_lite.md.checkpoint import ATOM_ARRAYS, CheckpointWriter, read_checkpoint
from deepmd_lite.md.dynamics import Dynamics
from deepmd_lite.md.gather import gathered, slices
from deepmd_lite.md.integrators import make_integrator
from deepmd_lite.md.output import Composition, DeviationLog, Frame, ThermoLog, open_trajectory
from deepmd_lite.md.settings import parse_settings
from deepmd_lite.md.start import distribute, thermalize
from deepmd_lite.md.state import State
from deepmd_lite.signals import Stopped
from deepmd_lite.units import ACCELERATION


@dataclass(frozen=True)
class Row:
    """What is known of a step: K, eV, bar, Å³."""

    step: int
    time: float  # fs
    temperature: float
    potential: float
    kinetic: float
    conserved: float
    pressure: float
    volume: float


@dataclass(frozen=True)
class Timing:
    """Where the time of a run went, in seconds, the mean over ranks by phase; and what it amounts to."""

    steps: int
    natoms: int
    ranks: int
    wall: float
    phases: dict
    ns_per_day: float

    @property
    def atom_steps_per_second(self):
        return self.natoms * self.steps / self.wall

    @property
    def efficiency(self):
        """Share of the ranks' time that went into forces and integration rather than waiting and overhead."""
        return (self.phases["force"] + self.phases["integrate"]) / self.wall


def read_structure(settings):
    """The structure to start from, as ase.Atoms; for one rank, not collective. Raises DataError."""
    path, _, _ = settings.structure.partition("#")
    if path.endswith((".h5", ".hdf5")):
        systems = read_systems(settings.structure)
        if len(systems) != 1:
            names = ", ".join(s.name for s in systems)
            raise DataError(f"{settings.structure}: expected one system, found {names}; name it after a #")
        (system,) = systems
        frame = _pick(range(system.nframes), settings)
        cell = None if system.box is None else system.box[frame]
        return Atoms(system.symbols, positions=system.coord[frame], cell=cell, pbc=system.pbc)
    if not os.path.exists(path):
        raise DataError(f"{settings.structure}: no such file")
    try:
        return _pick(read(settings.structure, index=":", parallel=False), settings)
    except DataError:
        raise
    except Exception as reason:  # whatever ASE's many readers trip over
        raise DataError(f"{settings.structure}: ASE cannot read it ({reason})") from reason


def _pick(frames, settings):
    try:
        return frames[settings.frame]
    except IndexError:
        raise DataError(
            f"{settings.structure}: expected frame {settings.frame}, found {len(frames)} frames"
        ) from None


class Simulation:
    """Molecular dynamics of a structure, with log, trajectories and checkpoints.

    ::

        simulation = Simulation(atoms, "model.dp", ensemble={"type": "bussi", "temperature": 300}, steps=10000)
        simulation.run()

    Under ``mpirun`` the same script runs on all ranks.

    Parameters
    ----------
    atoms : ase.Atoms
        The same on every rank.
    model : str, Path, or a list of them
        ``.dp`` files: a committee, of which the first drives.
    comm : mpi4py communicator, optional
        All ranks that were started, when left out.
    resume : bool
        Continue from the checkpoint, ``restart["file"]``.
    report : function, optional
        Called on rank 0 with the `Row` of every step that is logged.
    **keys
        Those of md.json (settings.py; ``dplite md --help-config``).

    Attributes
    ----------
    state : state.State
    dynamics : dynamics.Dynamics

    Raises
    ------
    ConfigError, DataError, ModelFileError, DomainError
        What cannot be simulated, before anything is overwritten.
    """

    def __init__(self, atoms, model, *, comm=None, resume=False, report=None, **keys):
        model = [str(m) for m in model] if isinstance(model, (list, tuple)) else str(model)
        settings = parse_settings({"structure": "atoms", "model": model, **keys})
        self._set_up(settings, comm, resume, report, atoms)

    @classmethod
    def from_settings(cls, settings, comm=None, resume=False, report=None):
        """The simulation that a `settings.Settings` describes; other parameters as above."""
        simulation = cls.__new__(cls)
        simulation._set_up(settings, comm, resume, report)
        return simulation

    def _set_up(self, settings, comm, resume, report, atoms=None):
        if comm is None:
            from mpi4py import MPI

            comm = MPI.COMM_WORLD
        check_launcher(comm)
        self.settings, self.comm, self.report = settings, comm, report
        numba.set_num_threads(min(settings.threads, numba.config.NUMBA_NUM_THREADS))
        self.potentials = [
            CompiledPot.load(path, precision=settings.precision, threads=settings.threads)
            for path in settings.model
        ]
        checkpoint = self._checkpoint() if resume else None
        self.state = self._restored(checkpoint) if resume else self._started(atoms)
        self.integrator = make_integrator(settings.ensemble, settings.steps)
        self.state.drifts = settings.ensemble.type == "langevin"
        if settings.ensemble.type == "npt" and not self.state.pbc.all():
            raise ConfigError("ensemble npt: expected a structure that is periodic along all three axes")
        if resume:
            self.integrator.set(checkpoint.integrator)
        safety = settings.safety
        self.dynamics = Dynamics(
            self.state,
            self.potentials,
            self.integrator,
            skin=settings.skin,
            grid=settings.grid,
            max_force=safety.max_force,
            min_distance=safety.min_distance,
            max_displacement=safety.max_displacement,
            drift_interval=settings.remove_drift,
        )
        self._open(checkpoint)

    def run(self):
        """Run to the last step: a `Timing` on every rank.

        Raises
        ------
        Stopped
            By SIGTERM or SIGINT; the checkpoint is written.
        SimulationError
            The last good frame is written.
        """
        s, dynamics = self.state, self.dynamics
        begin, clock = s.step, dynamics.clock
        clock.restart()
        try:
            dynamics.run(self.settings.steps - s.step)
            if s.step % self.settings.restart.interval:
                self.checkpoint()
        except Stopped:
            self.checkpoint()
            raise
        except SimulationError:
            self._write_last_good()
            raise
        finally:
            self._close()
        wall, steps = clock.wall(), max(1, s.step - begin)
        phases = s.sum(list(clock.seconds.values())) / s.comm.size
        phases = dict(zip(clock.seconds, phases.tolist()))
        return Timing(steps, s.natoms, s.comm.size, wall, phases, 0.0864 * s.dt * steps / wall)

    # ---- start ----------------------------------------------------------------------------------------------

    def _started(self, atoms):
        settings = self.settings
        if atoms is None:
            atoms = self.comm.bcast(read_structure(settings) if self.comm.rank == 0 else None)
        outside = [i for i in settings.fixed if i >= len(atoms)]
        if outside:
            raise ConfigError(f"fixed: expected atoms 0 to {len(atoms) - 1}, found {outside}")
        state = distribute(
            atoms,
            self.potentials[0].type_map,
            self.comm,
            replicate=settings.replicate,
            fixed=settings.fixed,
            dt=settings.dt,
            seed=settings.seed,
        )
        if settings.velocities is not None:
            thermalize(state, settings.velocities.temperature)
        return state

    def _checkpoint(self):
        """The checkpoint, with this rank's share of the atoms in order of id."""
        path = self.settings.restart.file
        whole = read_checkpoint(path, slice(0, 0))
        share = (whole.natoms * r // self.comm.size for r in (self.comm.rank, self.comm.rank + 1))
        found = read_checkpoint(path, slice(*share))
        for name in ("seed", "dt"):
            asked, there = getattr(self.settings, name), getattr(found, name)
            if asked != there:
                raise ConfigError(
                    f"{name}: expected {there} as in {path}, found {asked}; a run keeps its {name}"
                )
        if found.extra.get("type_map") != list(self.potentials[0].type_map):
            raise ConfigError(
                f"{path}: expected the type_map {list(self.potentials[0].type_map)} of {self.settings.model[0]}, "
                f"found {found.extra.get('type_map')}"
            )
        return found

    def _restored(self, checkpoint):
        atoms = checkpoint.atoms
        mobile = self.comm.allreduce(int(atoms["mobile"].sum()))
        return State(
            **{name: atoms[name] for name in ("id", "atype", "mass", "mobile", "coord", "velocity", "image")},
            force=np.zeros_like(atoms["coord"]),
            cell=checkpoint.cell,
            pbc=checkpoint.pbc,
            comm=self.comm,
            natoms=checkpoint.natoms,
            nmobile=mobile,
            step=checkpoint.step,
            dt=checkpoint.dt,
            seed=checkpoint.seed,
            virial=np.zeros((3, 3)),
        )

    # ---- what is written ------------------------------------------------------------------------------------

    def _open(self, checkpoint):
        """Open the files on rank 0, and tell the simulation what to do when."""
        settings, s = self.settings, self.state
        self._files = {}
        keep = None if checkpoint is None else checkpoint.step
        atype = gathered(s.comm, s.natoms, s.id, s.atype)
        mass = gathered(s.comm, s.natoms, s.id, s.mass)
        if self.comm.rank == 0:
            symbols = np.array(self.potentials[0].type_map)[atype]
            self._composition = Composition(symbols, s.pbc, mass[:, 0])
            place = {} if checkpoint is None else checkpoint.positions
            self._files["log"] = ThermoLog(settings.log.file, keep, place.get("log"))
            if settings.model_deviation:
                name = settings.model_deviation.file
                self._files["deviation"] = DeviationLog(name, keep, place.get("deviation"))
            for t in settings.trajectory:
                self._files[t.file] = open_trajectory(t.file, self._composition, keep, place.get(t.file))
        actions = [(settings.log.interval, self.log)]
        if settings.model_deviation:
            actions.append((settings.model_deviation.interval, self.deviation))
        for t in settings.trajectory:
            actions.append((t.interval, lambda _, t=t: self.frame(t)))
        if checkpoint is None:
            for _, action in actions:
                action(self.dynamics)
        actions.append((settings.restart.interval, lambda _: self.checkpoint()))
        self.dynamics.actions = actions

    def log(self, _):
        """Write a row of the log."""
        s, kinetic = self.state, self.state.kinetic_tensor()
        periodic = s.pbc.all()
        row = Row(
            s.step,
            s.step * s.dt,
            s.temperature(kinetic),
            s.energy,
            float(np.trace(kinetic)) / 2,
            self.integrator.conserved(s, kinetic),
            float(np.trace(s.pressure_tensor(kinetic))) / 3 if periodic else np.nan,
            s.volume if periodic else np.nan,
        )
        if self.comm.rank == 0:
            self._files["log"].write(**vars(row))
            if self.report:
                self.report(row)
        hottest = self.settings.safety.max_temperature
        if hottest is not None and row.temperature > hottest:
            raise SimulationError(
                f"step {s.step}: temperature of {row.temperature:.4g} K, limit {hottest:g} K"
            )

    def deviation(self, simulation):
        """Write a row of the model deviation."""
        found = simulation.forces.deviation(self.state, simulation.clock)
        if self.comm.rank == 0:
            self._files["deviation"].write(self.state.step, found)
        limit = self.settings.safety.max_deviation
        if limit is not None and found.force[0] > limit:
            raise SimulationError(
                f"step {self.state.step}: model deviation of {found.force[0]:.4g} eV/Å at atom {found.atom}, "
                f"limit {limit:g} eV/Å"
            )

    def frame(self, trajectory):
        """Write a frame."""
        s = self.state
        coord = gathered(s.comm, s.natoms, s.id, s.coord + s.image @ s.cell)
        velocity = gathered(s.comm, s.natoms, s.id, s.velocity) if trajectory.velocities else None
        force = gathered(s.comm, s.natoms, s.id, s.force) if trajectory.forces else None
        if self.comm.rank == 0:
            frame = Frame(s.step, s.step * s.dt, s.energy, self._box(), coord, velocity, force)
            self._files[trajectory.file].write(frame)

    def _box(self):
        """The cell, with zeros for axes that are not periodic, as ASE has it."""
        return self.state.cell * self.state.pbc[:, None]

    def checkpoint(self):
        """Settle, and write a checkpoint."""
        s = self.state
        self.dynamics.settle()
        names = (*ATOM_ARRAYS, "mass")
        if self.comm.rank > 0:
            for name in names:
                list(slices(s.comm, s.id, getattr(s, name)))
            self.comm.Barrier()
            return
        with CheckpointWriter(self.settings.restart.file, s.natoms) as writer:
            for name in names:
                for ids, values in slices(s.comm, s.id, getattr(s, name)):
                    writer.put(ids, name, values)
            writer.finish(
                {
                    **{name: getattr(s, name) for name in ("cell", "pbc", "step", "seed", "dt")},
                    "integrator": self.integrator.get(),
                    "positions": {name: file.position() for name, file in self._files.items()},
                    "type_map": list(self.potentials[0].type_map),
                }
            )
        self.comm.Barrier()

    def _write_last_good(self):
        s = self.state
        coord = gathered(s.comm, s.natoms, s.id, s.coord)
        velocity = gathered(s.comm, s.natoms, s.id, s.velocity)
        if self.comm.rank == 0:
            atoms = Atoms(self._composition.symbols, positions=coord, cell=self._box(), pbc=s.pbc)
            atoms.set_masses(self._composition.mass)
            atoms.set_velocities(velocity / np.sqrt(ACCELERATION))
            write(self.settings.safety.file, atoms, parallel=False)

    def _close(self):
        for file in self._files.values():
            file.close()
