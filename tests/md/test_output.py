"""Logs and trajectories: exact round trips, and no row or frame doubled or missing after a crash."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import warnings

import h5py
import numpy as np
import pytest
from ase import units
from ase.io import iread

from deepmd_lite.errors import DataError
from deepmd_lite.md.forces import Deviation
from deepmd_lite.md.output import (
    Composition,
    DeviationLog,
    ExtxyzTrajectory,
    Frame,
    Hdf5Trajectory,
    ThermoLog,
    open_trajectory,
    read_log,
)

NATOMS = 5
WATER = Composition(np.array(["O", "H", "H", "O", "H"]), np.array([True, True, False]), np.arange(1.0, 6.0))
SUFFIXES = (".extxyz", ".traj", ".h5")
TABLES = {"md.log": ThermoLog, "model_devi.out": DeviationLog}


def frame(step, velocity=True, force=True):
    rng = np.random.default_rng(step)
    return Frame(
        step,
        0.5 * step,
        rng.normal(),
        np.diag(rng.uniform(8, 9, 3)),
        rng.uniform(-20, 20, (NATOMS, 3)),
        rng.normal(0, 0.01, (NATOMS, 3)) if velocity else None,
        rng.normal(0, 1, (NATOMS, 3)) if force else None,
    )


def write_row(table, step):
    rng = np.random.default_rng(step)
    if isinstance(table, ThermoLog):
        table.write(step, 0.5 * step, 300.0, *rng.normal(0, 100, 3), np.nan, 1e4)
    else:
        table.write(step, Deviation(tuple(rng.random(3)), tuple(rng.random(3)), rng.random(), 0))


def steps_in(path):
    if path.suffix == ".h5":
        with h5py.File(path, locking=False) as file:
            return file["step"][()].tolist()
    if path.suffix in (".log", ".out"):
        return np.loadtxt(path, ndmin=2, encoding="utf-8")[:, 0].astype(int).tolist()
    return [atoms.info["step"] for atoms in iread(path)]


def opened(path, **options):
    """A writer for the path, and a function that writes a step to it."""
    if path.suffix in SUFFIXES:
        writer = open_trajectory(path, WATER, **options)
        return writer, lambda step: writer.write(frame(step))
    writer = TABLES[path.name](path, **options)
    return writer, lambda step: write_row(writer, step)


@pytest.fixture(params=["md.log", "model_devi.out", "a.extxyz", "a.traj", "a.h5"])
def path(request, tmp_path):
    return tmp_path / "sub é" / request.param


# ---- what is written is read ------------------------------------------------------------------------------


def test_log(tmp_path):
    log = ThermoLog(tmp_path / "md.log")
    log.write(0, 0.0, 300.0, -1.5, 0.25, np.nan, np.nan, np.nan)
    log.write(100, 50.0, 301.5, -123456.123456789, 0.5, -1.0, -2.5, 1000.0)
    found = read_log(tmp_path / "md.log")  # before it is closed
    log.close()
    assert list(found) == list(ThermoLog.FORMATS)
    assert found["step"].tolist() == [0, 100] and found["temperature/K"][1] == 301.5
    assert found["potential/eV"][1] == -123456.123456789 and found["total/eV"][0] == -1.25
    assert np.isnan(found["pressure/bar"][0]) and found["volume/Å³"][1] == 1000.0
    titles, *rows = (tmp_path / "md.log").read_text(encoding="utf-8").splitlines()
    assert titles.startswith("# ") and {len(row) for row in rows} == {len(titles)}
    ThermoLog(tmp_path / "md.log").close()
    assert len(read_log(tmp_path / "md.log")["step"]) == 0


def test_deviation_has_deepmd_kits_columns(tmp_path):
    log = DeviationLog(tmp_path / "m.out")
    log.write(200, Deviation((0.3, 0.1, 0.2), (0.6, 0.4, 0.5), 0.7, 3))
    log.close()
    titles, row = (tmp_path / "m.out").read_text().splitlines()
    expected = "# step max_devi_v min_devi_v avg_devi_v max_devi_f min_devi_f avg_devi_f devi_e"
    assert titles.split() == expected.split()
    assert [float(x) for x in row.split()] == [200, 0.3, 0.1, 0.2, 0.6, 0.4, 0.5, 0.7]


def test_hdf5_is_exact_and_readable_while_it_grows(tmp_path):
    trajectory = Hdf5Trajectory(tmp_path / "a.h5", WATER)
    for step in range(0, 3000, 10):
        trajectory.write(frame(step))
    with h5py.File(tmp_path / "a.h5", locking=False) as file:
        assert [s.decode() for s in file["symbols"][()]] == WATER.symbols.tolist()
        assert file["pbc"][()].tolist() == [True, True, False]
        assert file["step"][()].tolist() == list(range(0, 3000, 10))
        for number in (0, 7, 299):
            for name, value in frame(10 * number)._asdict().items():
                assert np.array_equal(file[name][number], value), name
    trajectory.close()


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
@pytest.mark.parametrize("whole", [True, False])
def test_ase_reads_it(tmp_path, suffix, whole):
    trajectory = open_trajectory(tmp_path / f"a{suffix}", WATER)
    for step in (0, 5):
        trajectory.write(frame(step, velocity=whole, force=whole))
    frames = list(iread(tmp_path / f"a{suffix}"))  # before it is closed
    trajectory.close()
    assert len(frames) == 2
    atol = 1e-15 if suffix == ".traj" else 5.1e-9  # of 8 decimals
    for step, atoms in zip((0, 5), frames):
        f = frame(step)
        assert atoms.get_chemical_symbols() == WATER.symbols.tolist() and atoms.pbc.tolist() == [1, 1, 0]
        assert atoms.info["step"] == step and atoms.info["time"] == 0.5 * step
        assert atoms.get_potential_energy() == f.energy
        np.testing.assert_allclose(atoms.positions, f.coord, rtol=0, atol=atol)
        np.testing.assert_allclose(atoms.cell[:2], f.cell[:2], rtol=1e-15)
        assert not atoms.cell[2].any()
        assert atoms.has("momenta") == whole and ("forces" in atoms.calc.results) == whole
        if whole:
            np.testing.assert_allclose(atoms.get_masses(), WATER.mass, rtol=0, atol=atol)
            # ASE's units are of CODATA 2014: 1e-8 relative
            velocity = atoms.get_velocities() * units.fs
            np.testing.assert_allclose(velocity, f.velocity, rtol=3e-8, atol=atol)
            np.testing.assert_allclose(atoms.get_forces(), f.force, rtol=0, atol=atol)


def test_a_fresh_start_replaces(path):
    for _ in range(2):
        writer, write = opened(path)
        write(1)
        write(2)
        writer.close()
        assert steps_in(path) == [1, 2]


# ---- restarts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_position", [True, False])
def test_cut_back(path, with_position):
    """Checkpoint at step 20, crash after 40: the continued file is that of an uninterrupted run."""
    writer, write = opened(path)
    for step in range(0, 50, 10):
        write(step)
        if step == 20:
            position = json.loads(json.dumps(writer.position()))
    writer.close()
    uninterrupted = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer, write = opened(path, keep=20, position=position if with_position else None)
    assert steps_in(path) == [0, 10, 20]
    assert writer.position() == position
    write(30)
    write(40)
    writer.close()
    assert steps_in(path) == list(range(0, 50, 10))
    if path.suffix not in (".h5", ".traj"):
        assert path.read_bytes() == uninterrupted


@pytest.mark.parametrize("name", ["md.log", "model_devi.out", "a.extxyz"])
def test_half_a_record(tmp_path, name):
    """A file cut anywhere: whole records up to there stay."""
    path = tmp_path / name
    writer, write = opened(path)
    ends = [path.stat().st_size]
    for step in (10, 20, 30):
        write(step)
        ends.append(path.stat().st_size)
    writer.close()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in {*rng.integers(0, len(whole), 60).tolist(), *ends, *(e - 1 for e in ends[1:])}:
        path.write_bytes(whole[:cut])
        writer, write = opened(path, keep=30)
        done = sum(end <= cut for end in ends[1:])
        for step in (10, 20, 30)[done:]:
            write(step)
        writer.close()
        assert path.read_bytes() == whole, cut


def test_half_a_frame_of_traj(tmp_path):
    path = tmp_path / "a.traj"
    writer, write = opened(path)
    write(10)
    write(20)
    writer.close()
    with open(path, "ab") as file:
        file.write(b"half a frame")
    writer, write = opened(path, keep=20)
    write(30)
    writer.close()
    assert steps_in(path) == [10, 20, 30]
    list(iread(path))


KILLED = """
import os, random, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from test_output import opened
random.seed(0)
for number in range(15):
    path = Path({folder!r}) / f"{{number}}{suffix}"
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        writer, write = opened(path)
        for step in range(10**9):
            write(step)
            if step == 5:
                writer.position()
                os.write(tell, b".")
    os.read(ready, 1)
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, 9)
    os.waitpid(child, 0)
    writer, write = opened(path, keep=5)
    write(6)
    writer.close()
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_kill(tmp_path, suffix):
    here = os.path.dirname(__file__)
    script = KILLED.format(here=here, folder=str(tmp_path), suffix=suffix)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    for number in range(15):
        assert steps_in(tmp_path / f"{number}{suffix}") == list(range(7))


def test_a_file_that_is_gone(path):
    writer, write = opened(path)
    write(10)
    position = writer.position()
    writer.close()
    path.unlink()
    with pytest.warns(UserWarning, match=f"{re.escape(str(path))}: expected .* up to step 10, found"):
        writer, write = opened(path, keep=10, position=position)
    write(20)
    writer.close()
    assert steps_in(path) == [20]


def test_a_file_that_was_edited(path):
    """Rows removed by hand: a warning, and the rest goes on by its steps."""
    writer, write = opened(path)
    for step in (0, 10, 20, 30):
        write(step)
        if step == 20:
            position = writer.position()
    writer.close()
    short, write = opened(path)
    for step in (10, 30):
        write(step)
    short.close()
    with pytest.warns(UserWarning, match="changed since the checkpoint"):
        writer, write = opened(path, keep=20, position=position)
    write(30)
    writer.close()
    assert steps_in(path) == [10, 30]


@pytest.mark.parametrize("content", [b"dear diary\n", b"dear diary", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_file_that_is_not_ours(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        opened(path, keep=10)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["md.log", "model_devi.out", "a.extxyz"])
def test_a_row_that_is_not_ours(tmp_path, name):
    path = tmp_path / name
    writer, write = opened(path)
    write(10)
    writer.close()
    with open(path, "ab") as file:
        file.write(b"so far so good\nand on\n")
    with pytest.raises(DataError, match=re.escape(str(path))):
        opened(path, keep=10)


@pytest.mark.parametrize("damage", ["link", "external", "other atoms", "short", "truncated"])
def test_hdf5_of_a_stranger(tmp_path, damage):
    path, victim = tmp_path / "a.h5", tmp_path / "victim.h5"
    writer, write = opened(path)
    write(10)
    writer.close()
    with h5py.File(path, "r+") as file:
        if damage == "link":
            file.move("coord", "/x")
            file["coord"] = h5py.ExternalLink(str(victim), "/x")
            del file["x"]
        elif damage == "external":
            del file["coord"]
            file.create_dataset("coord", (1, NATOMS, 3), "f8", external=[(str(victim), 0, NATOMS * 24)])
        elif damage == "other atoms":
            file["symbols"][0] = b"N"
        elif damage == "short":
            file["coord"].resize(0, axis=0)
    if damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    before = path.read_bytes()
    with pytest.raises(DataError, match=re.escape(str(path))):
        opened(path, keep=10)
    assert not victim.exists() and path.read_bytes() == before


def test_other_columns_on_restart(tmp_path):
    trajectory = Hdf5Trajectory(tmp_path / "a.h5", WATER)
    trajectory.write(frame(0, velocity=False))
    trajectory.close()
    trajectory = Hdf5Trajectory(tmp_path / "a.h5", WATER, keep=0)
    with pytest.raises(DataError, match=r"expected frames of .*coord, force, found .*velocity"):
        trajectory.write(frame(10))
    trajectory.write(frame(10, velocity=False))
    trajectory.close()
    assert steps_in(tmp_path / "a.h5") == [0, 10]


# ---- disks ------------------------------------------------------------------------------------------------


def test_dev_full():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        ThermoLog("/dev/full")


def test_dev_null():
    log = ThermoLog("/dev/null")
    write_row(log, 0)
    assert log.position() == {}
    log.close()
    ThermoLog("/dev/null", keep=3, position={}).close()


def test_full_disk(path):
    """A limit on the size of files: an error with the name of the file, and what was there stays good."""
    writer, write = opened(path)
    write(0)
    position = writer.position()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # Python's default
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 700, limits[1]))
        with pytest.raises(OSError, match=re.escape(str(path))) as caught:
            for step in range(1, 100):
                write(step)
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno in (27, 5) and caught.value.filename == str(path)  # EFBIG, EIO: exit code 1
    writer, write = opened(path, keep=0, position=position)
    write(1)
    writer.close()
    assert steps_in(path) == [0, 1]


READ_ONLY = """
import os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_output import SUFFIXES, TABLES, opened
names = (*TABLES, *map("a{{}}".format, SUFFIXES))
for name in names:
    opened(Path({home!r}) / name)  # what is imported late is there
if os.getuid() == 0:
    os.setuid(65534)
for name in names:
    try:
        opened(Path({folder!r}) / name)
    except PermissionError as reason:
        print(reason.filename == str(Path({folder!r}) / name))
"""


def test_read_only_folder(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        script = READ_ONLY.format(here=os.path.dirname(__file__), home=str(tmp_path), folder=folder)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert os.listdir(folder) == []
    assert done.stdout.split() == ["True"] * 5, done.stdout + done.stderr


GROWTH = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_output import opened
writer, write = opened(Path({path!r}))
kept = []
for step in range(1501):
    write(step)
    if step % 500 == 0:
        kept.append(int(open("/proc/self/statm").read().split()[1]) * 4)
print(kept[3] - kept[1])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_is_flat(path):
    """L1: what a writer keeps does not grow with what it wrote."""
    script = GROWTH.format(here=os.path.dirname(__file__), path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) < 300, done.stdout  # kB in 1000 writes; found 0 to 70


def test_steps_of_extxyz_are_not_mistaken(tmp_path):
    """The fast way by byte position and the slow way by steps agree, and survive a wrong position."""
    path = tmp_path / "a.extxyz"
    trajectory = ExtxyzTrajectory(path, WATER)
    ends = []
    for step in range(4):
        trajectory.write(frame(step))
        ends.append(trajectory.position()["bytes"])
    trajectory.close()
    whole = path.read_bytes()
    for wrong in (ends[1], ends[0], ends[1] + 30, 10**9, 1):
        path.write_bytes(whole)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ExtxyzTrajectory(path, WATER, keep=1, position={"bytes": wrong}).close()
        assert path.read_bytes() == whole[: ends[1]], wrong
