"""dplite md under mpirun: restarts, signals, killed ranks, errors (R1, R3, R4, M6, M7; faults 20-25)."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.io import read
from worker import ALLOY, nial

from deepmd_lite import Simulation
from deepmd_lite.md.checkpoint import read_checkpoint
from deepmd_lite.md.output import read_log

MD = ("-m", "deepmd_lite", "md")
ENSEMBLES = {
    "nve": {"type": "nve"},
    "langevin": {"type": "langevin", "temperature": 600, "tau": 50},
    "bussi": {"type": "bussi", "temperature": 600, "tau": 50},
    "nose_hoover": {"type": "nose_hoover", "temperature": 600},
    "npt": {"type": "npt", "temperature": 600, "pressure": 1000, "coupling": "anisotropic"},
}


def prepare(folder, ensemble="nve", **keys):
    """md.json of 128 atoms of NiAl in a new folder: its path."""
    folder.mkdir()
    nial((4, 4, 4)).write(folder / "start.extxyz")
    settings = {
        "structure": "start.extxyz",
        "model": str(ALLOY),
        "ensemble": ENSEMBLES[ensemble],
        "velocities": {"temperature": 600},
        "dt": 2.0,
        "steps": 40,
        "seed": 7,
        "skin": 0.4,
        "log": {"interval": 3},
        "trajectory": [{"file": "md.h5", "interval": 4}, {"file": "md.extxyz", "interval": 8}],
        "restart": {"interval": 20},
        **keys,
    }
    (folder / "md.json").write_text(json.dumps(settings))
    return folder / "md.json"


def succeed(run):
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def contents(folder):
    """Everything that a run has written, and its last checkpoint."""
    checkpoint = read_checkpoint(folder / "md.restart.h5")
    arrays = {**checkpoint.atoms, **checkpoint.integrator, "cell": checkpoint.cell, "step": checkpoint.step}
    return arrays, (folder / "md.log").read_text(), (folder / "md.extxyz").read_text()


SLOW = pytest.mark.slow
WAYS = [(1, "langevin"), (4, "npt"), *(pytest.param(n, e, marks=SLOW) for n in (1, 4) for e in ENSEMBLES)]


@pytest.mark.parametrize("ranks, ensemble", WAYS)
def test_a_restart_continues_bit_by_bit(ranks, ensemble, mpirun, tmp_path):
    """R1: 20 + 20 steps are 40 steps: positions, velocities, cell, thermostat, log, trajectories."""
    whole, parts = (prepare(tmp_path / name, ensemble) for name in ("whole", "parts"))
    succeed(mpirun(ranks, *MD, whole))
    # a run that dies after its checkpoint: rows and frames beyond it are there and must go
    succeed(mpirun(ranks, *MD, parts, "--set", "steps=27", "--set", "restart.interval=20"))
    stopped = prepare(tmp_path / "stopped", ensemble)
    succeed(mpirun(ranks, *MD, stopped, "--set", "steps=20"))
    (parts.parent / "md.restart.h5").write_bytes((stopped.parent / "md.restart.h5").read_bytes())
    succeed(mpirun(ranks, *MD, parts, "--restart"))
    (found, log, frames), (expected, whole_log, whole_frames) = map(contents, (parts.parent, whole.parent))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.array_equal(found[key], value), key
    assert log == whole_log and frames == whole_frames
    assert len(read(parts.parent / "md.extxyz", ":")) == 6


def test_another_number_of_ranks_continues_the_run(mpirun, tmp_path):
    whole, parts = (prepare(tmp_path / name, "langevin") for name in ("whole", "parts"))
    succeed(mpirun(1, *MD, whole))
    succeed(mpirun(3, *MD, parts, "--set", "steps=20"))
    succeed(mpirun(2, *MD, parts, "--restart"))
    found, expected = (read_checkpoint(p.parent / "md.restart.h5").atoms["coord"] for p in (parts, whole))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_a_signal_leaves_a_checkpoint(number, code, mpirun, tmp_path):
    """R4, one rank without a launcher; mpirun itself is tested below."""
    path = prepare(tmp_path / "run", steps=10**6)
    run = subprocess.Popen(
        [sys.executable, *MD, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_rows(run, path.parent / "md.log")
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code and f"stopped by {number.name}" in errors
    assert read_checkpoint(path.parent / "md.restart.h5").step == int(errors.split("step ")[1].split(";")[0])


def wait_for_rows(run, log, rows=3, seconds=120):
    """Until a run has written rows of its log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and run.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) > rows:
            return
        time.sleep(0.2)
    raise AssertionError(f"{log}: no rows within {seconds} s; exit code {run.poll()}")


def children(run, count):
    """Processes that dplite runs in below an mpirun."""
    found = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    path = run.args[-1]
    pids = [int(line.split()[0]) for line in found if path in line and "mpirun" not in line]
    assert len(pids) == count
    return pids


def gone(pids):
    def alive(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(") ")[1][0] != "Z"

    return not any(map(alive, pids))


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks into /proc")
def test_sigterm_to_mpirun(mpirun, tmp_path):
    path = prepare(tmp_path / "run", steps=10**6)
    run = mpirun(2, *MD, path, start=True)
    wait_for_rows(run, path.parent / "md.log")
    run.terminate()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143 and "stopped by SIGTERM" in errors
    succeed(
        mpirun(
            3,
            *MD,
            path,
            "--restart",
            "--set",
            f"steps={read_checkpoint(path.parent / 'md.restart.h5').step + 5}",
        )
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks into /proc")
def test_a_killed_rank_ends_all(mpirun, tmp_path):
    """M6: within 30 s, non-zero, no process is left; the checkpoint of before is whole."""
    path = prepare(tmp_path / "run", steps=10**6, restart={"interval": 50})
    run = mpirun(2, *MD, path, start=True)
    wait_for_rows(run, path.parent / "md.log", rows=40)
    pids = children(run, 2)
    os.kill(pids[1], signal.SIGKILL)
    begin = time.monotonic()
    run.communicate(timeout=30)
    assert run.returncode != 0 and time.monotonic() - begin < 30
    assert gone(pids)
    assert read_checkpoint(path.parent / "md.restart.h5").step % 50 == 0


def test_an_error_on_one_rank_ends_all_with_one_message(mpirun, tmp_path):
    """M6: an exception raised on rank 1 alone, in the middle of a run."""
    path = prepare(tmp_path / "run", steps=10**6)
    code = f"""
import sys
from mpi4py import MPI
from deepmd_lite.md import dynamics
from deepmd_lite.md.command import run_command
from deepmd_lite.errors import DomainError
step = dynamics.Dynamics._step
def fail(self, received):
    if self.state.step == 30 and self.state.comm.rank == 1:
        raise DomainError("made up")
    return step(self, received)
dynamics.Dynamics._step = fail
sys.exit(run_command({str(path)!r}))
"""
    begin = time.monotonic()
    run = mpirun(3, "-c", code)
    assert run.returncode != 0 and time.monotonic() - begin < 120
    assert run.stderr.count("dplite:") == 1 and "dplite: made up (rank 1)" in run.stderr


@pytest.mark.parametrize(
    "change, code, message",
    [
        ("model=nothing.dp", 2, "nothing.dp"),
        ("steps=-1", 2, "steps"),
        ("grid=[5,1,1]", 2, "expected factors of 2"),
        ("dt=60", 1, "displacement of .* in one step, limit 0.5, at atom"),
        ("safety.max_force=0.5", 1, "force of .* eV/Å, limit 0.5, at atom"),
        ("safety.min_distance=2.3", 1, "a pair .* Å apart, limit 2.3, at atom"),
    ],
)
def test_what_cannot_be_run_is_one_message(change, code, message, mpirun, tmp_path):
    path = prepare(tmp_path / "run", steps=1000)
    run = mpirun(2, *MD, path, "--set", change)
    lines = [line for line in run.stderr.splitlines() if line.startswith("dplite:")]
    assert run.returncode == code and len(lines) == 1, run.stderr
    assert re.search(message, lines[0])


def test_the_last_good_frame(mpirun, tmp_path):
    """Faults 22: a fast atom is named; the frame before it went wrong can be read and has all atoms."""
    path = prepare(tmp_path / "run", steps=1000, velocities=None)
    atoms = read(path.parent / "start.extxyz")
    velocities = np.zeros((128, 3))
    velocities[17] = 2.0  # in ASE's unit: 0.2 Å/fs along each axis, 0.7 Å in a step of 2 fs
    atoms.set_velocities(velocities)
    atoms.write(path.parent / "start.extxyz")
    run = mpirun(2, *MD, path)
    assert run.returncode == 1 and "at atom 17" in run.stderr, run.stderr
    assert len(read(path.parent / "last_good.extxyz")) == 128


def test_ranks_that_do_not_know_of_each_other_are_refused(tmp_path):
    """M7: mpirun of another MPI starts N single processes."""
    path = prepare(tmp_path / "run")
    environment = {**os.environ, "OMPI_COMM_WORLD_SIZE": "4"}
    run = subprocess.run(
        [sys.executable, *MD, path], env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2 and "4 ranks were started, but each of them is alone" in run.stderr


def test_the_same_script_on_several_ranks(mpirun):
    """DP(comm=...): each rank gets the whole result, equal to that of one; ranks that differ are told."""
    code = f"""
import numpy as np
from mpi4py import MPI
from deepmd_lite import DP
from deepmd_lite.errors import ConfigError
from worker import nial
comm, atoms = MPI.COMM_WORLD, nial((3, 3, 3))
alone, shared = DP({str(ALLOY)!r}, threads=1), DP({str(ALLOY)!r}, threads=1, comm=comm)
for name in ("energy", "forces", "stress", "energies"):
    a, b = (calc.get_property(name, atoms) for calc in (alone, shared))
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
atoms.rattle(1e-9, seed=comm.rank)
try:
    shared.get_forces(atoms)
except ConfigError as error:
    assert "different positions" in str(error)
else:
    raise AssertionError("not noticed")
"""
    run = mpirun(3, "-c", code, cwd=os.path.dirname(__file__))
    assert run.returncode == 0, run.stderr


def test_from_python(tmp_path, monkeypatch):
    """Simulation(atoms, model, ...) writes what dplite md writes, stops, and goes on."""
    monkeypatch.chdir(tmp_path)
    keys = {"ensemble": ENSEMBLES["bussi"], "velocities": {"temperature": 600}, "dt": 2.0, "skin": 0.4}
    keys |= {"log": {"interval": 5}, "restart": {"interval": 10}}
    rows = []
    timing = Simulation(nial((2, 2, 2)), ALLOY, steps=10, report=rows.append, **keys).run()
    assert timing.steps == 10 and [row.step for row in rows] == [0, 5, 10]
    resumed = Simulation(nial((2, 2, 2)), ALLOY, steps=15, resume=True, **keys)
    assert resumed.state.step == 10
    resumed.run()
    assert read_log("md.log")["step"].tolist() == [0, 5, 10, 15]


def test_log_of_a_conserved_energy(mpirun, tmp_path):
    """The table is complete and its conserved energy constant within the wiggle of the time step."""
    path = prepare(tmp_path / "run", "nose_hoover")
    succeed(mpirun(2, *MD, path))
    log = read_log(path.parent / "md.log")
    assert log["step"].tolist() == list(range(0, 41, 3))
    assert np.ptp(log["conserved/eV"]) / 128 < 1e-3
    assert np.ptp(log["total/eV"]) > 3 * np.ptp(log["conserved/eV"])
