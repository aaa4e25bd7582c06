"""``dplite md`` as a person sees it: what is run, a live table, where the time went; errors that end all ranks."""

import os
import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from deepmd_lite.launch import end_all
from deepmd_lite.md.estimate import estimate
from deepmd_lite.md.settings import load_settings
from deepmd_lite.md.simulation import Simulation
from deepmd_lite.signals import Stopped

COLUMNS = {  # of the live table: width, decimals
    "step": (10, 0),
    "time ps": (10, 3),
    "T K": (9, 1),
    "Epot eV/atom": (14, 6),
    "drift meV/atom": (15, 4),
    "P bar": (11, 1),
    "ns/day": (9, 3),
}


def run_command(path, overrides=(), restart=False, dry_run=False, ranks=None):
    """Run ``md.json`` on all ranks; the exit code. An error on any rank ends all of them with one message."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    try:
        settings = load_settings(path, overrides)
        if dry_run:
            if comm.rank == 0:
                Console().print(estimate(settings, ranks or comm.size).table())
            return 0
        return _run(settings, comm, restart)
    except Exception as error:
        if comm.size == 1:
            raise
        end_all(error, comm.rank, comm.Abort)


def _run(settings, comm, restart):
    console = Console(quiet=comm.rank > 0)
    with Live(console, settings.steps) as live:
        simulation = Simulation.from_settings(settings, comm, restart, live.report)
        say = lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False)  # noqa: E731
        for line in _layout(settings, comm, simulation):
            say(line)
        live.start(simulation.state)
        try:
            timing = simulation.run()
        except Stopped as stop:
            live.stop()
            if comm.rank == 0:
                text = f"dplite: {stop}; continue with --restart"
                print(text, file=sys.stderr, flush=True)
            return stop.code
    say(f"{timing.steps} steps of {timing.natoms} atoms in {timing.wall:.2f} s, ranks: {timing.ranks}")
    console.print(timing_table(timing))
    say(
        f"{timing.ns_per_day:.4g} ns/day, {timing.atom_steps_per_second / 1000:.2f} katom-step/s, "
        f"parallel efficiency {timing.efficiency:.0%}"
    )
    files = [section.file for key, section in settings.outputs() if key != "safety"]
    say(f"wrote {', '.join(files)}")
    return 0


def _layout(settings, comm, simulation):
    """What is run and how it is shared out. Collective."""
    node = comm.Split_type(_mpi().COMM_TYPE_SHARED)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    crowded = comm.allreduce(int(node.size * settings.threads > cores))
    domain, state = simulation.dynamics.domain, simulation.state
    nloc = comm.allgather(len(state.id))
    nghost = comm.allreduce(len(domain.id) - len(state.id))
    grid = " × ".join(map(str, domain.grid))
    yield (
        f"{state.natoms} atoms, {settings.ensemble.type}, {settings.precision}, "
        f"steps {state.step} to {settings.steps} of {state.dt:g} fs"
    )
    yield (
        f"ranks {comm.size} ({grid}), threads {settings.threads} each, atoms a rank {min(nloc)} to {max(nloc)}, "
        f"ghosts/atoms {nghost / max(1, state.natoms):.2f}"
    )
    if crowded:
        yield f"warning: {node.size} ranks × {settings.threads} threads on a machine of {cores} cores: expect no gain"


class Live:
    """A context: rows as they come, and a progress bar where there is a terminal."""

    def __init__(self, console, steps):
        self.console = console
        self.bar = Progress(
            TextColumn("md"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=steps)
        self._rows, self._started = [], None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, state):
        """Print the titles, and the rows that came before."""
        self._state, self._started = state, (time.perf_counter(), state.step)
        titles = "  ".join(f"{name:>{width}}" for name, (width, _) in COLUMNS.items())
        self.console.print(titles, style="bold", soft_wrap=True)
        self.bar.update(self.task, completed=state.step)
        self.bar.start()
        rows, self._rows = self._rows, []
        for row in rows:
            self.report(row)

    def stop(self):
        self.bar.stop()

    def report(self, row):
        """Show a `simulation.Row`."""
        if self._started is None:
            self._rows.append(row)
            return
        if not hasattr(self, "_first"):
            self._first = row.conserved
        begin, step = self._started
        n, done = self._state.natoms, row.step - step
        speed = 0.0864 * self._state.dt * done / (time.perf_counter() - begin) if done else float("nan")
        values = (
            row.step,
            row.time / 1000,
            row.temperature,
            row.potential / n,
            1000 * (row.conserved - self._first) / n,
            row.pressure,
            speed,
        )
        text = "  ".join(f"{v:{w}.{d}f}" for v, (w, d) in zip(values, COLUMNS.values()))
        self.console.print(text, highlight=False, soft_wrap=True)
        self.bar.update(self.task, completed=row.step)


def timing_table(timing):
    """rich.table.Table: Time by phase, mean over ranks."""
    table = Table()
    for name in ("phase", "seconds", "share", "ms a step"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    other = timing.wall - sum(timing.phases.values())
    for name, seconds in {**timing.phases, "other": other}.items():
        share = f"{seconds / timing.wall:.1%}"
        table.add_row(name, f"{seconds:.2f}", share, f"{1000 * seconds / timing.steps:.3f}")
    return table


def _mpi():
    from mpi4py import MPI

    return MPI
