"""Restart files: exact, whole whatever happens, and refused by name when they are not."""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import tracemalloc
import zlib
from itertools import pairwise

import h5py
import numpy as np
import pytest

from deepmd_lite.errors import DataError, DomainError
from deepmd_lite.hdf5_guard import open_guarded
from deepmd_lite.md.checkpoint import ATOM_ARRAYS, CheckpointWriter, read_checkpoint, write_checkpoint

NATOMS = 40
META = {
    "cell": np.array([[9.0, 0.1, 0.0], [0.0, 1 / 3, 0.2], [1e-300, 0.0, np.pi]]),
    "pbc": [True, False, True],
    "step": np.int64(2**60),
    "seed": 2**63 - 1,
    "dt": 0.1,
    "integrator": {"taken": np.array(0.1 + 0.2), "chain_velocity": np.array([1e-320, -0.0, 3.0])},
    "positions": {"md.log": {"bytes": 2**40}, "é \n.h5": {"frames": 3}},
    "type_map": ["O", "H"],
}


def atoms(natoms=NATOMS, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "id": rng.permutation(natoms),
        "coord": rng.normal(0, 10, (natoms, 3)),
        "velocity": rng.normal(0, 0.01, (natoms, 3)),
        "image": rng.integers(-1000, 1000, (natoms, 3), np.int32),
        "atype": rng.integers(0, 2, natoms, np.int32),
        "mobile": rng.integers(0, 2, (natoms, 1)).astype(float),
        "mass": rng.uniform(1, 16, (natoms, 1)),  # an array of the caller's own
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "é a" / "md.restart.h5"


def refuse(path, match):
    with pytest.raises(DataError, match=match) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# ---- what is written is read ------------------------------------------------------------------------------


def test_round_trip_is_bitwise(path):
    given = atoms()
    write_checkpoint(path, given, META)
    assert os.listdir(path.parent) == [path.name]
    found = read_checkpoint(path)
    order = np.argsort(given["id"])
    for name, values in given.items():
        assert found.atoms[name].dtype == values.dtype
        assert found.atoms[name].tobytes() == values[order].tobytes(), name
    assert found.natoms == NATOMS and found.cell.tobytes() == META["cell"].tobytes()
    assert found.pbc.tolist() == META["pbc"] and found.pbc.dtype == bool
    assert (found.step, found.seed, found.dt) == (2**60, 2**63 - 1, 0.1)
    assert type(found.step) is int and found.positions == META["positions"]
    assert found.extra == {"type_map": ["O", "H"]}
    assert found.integrator.keys() == META["integrator"].keys()
    for name, values in META["integrator"].items():
        assert found.integrator[name].shape == values.shape
        assert found.integrator[name].tobytes() == values.tobytes()


def test_the_same_state_gives_the_same_file(path, tmp_path):
    write_checkpoint(path, atoms(), META)
    write_checkpoint(tmp_path / "other.h5", atoms(), META)
    assert path.read_bytes() == (tmp_path / "other.h5").read_bytes()


def test_shares(path):
    write_checkpoint(path, atoms(), META)
    whole = read_checkpoint(path)
    for rows in (slice(0, 13), slice(13, 40), slice(40, 40)):
        share = read_checkpoint(path, rows)
        assert share.natoms == NATOMS and share.atoms["id"].tolist() == list(range(40))[rows]
        for name in whole.atoms:
            assert np.array_equal(share.atoms[name], whole.atoms[name][rows])


@pytest.mark.parametrize("natoms", [0, 1, 40])
def test_slices_of_ranks(path, natoms):
    """Ranks without atoms, first or last, and names that come together or one by one."""
    given = atoms(natoms)
    cuts = np.array([0, 0, natoms // 3, natoms // 3, natoms, natoms, natoms])
    names = [name for name in given if name != "id"]
    for one_by_one in (True, False):
        calls = [(name, a, b) for name in names for a, b in pairwise(cuts)]
        if not one_by_one:
            calls.sort(key=lambda call: call[1:])
        with CheckpointWriter(path, natoms) as writer:
            for name, a, b in calls:
                writer.put(given["id"][a:b], name, given[name][a:b])
            writer.finish(META)
        found = read_checkpoint(path)
        for name in names:
            assert np.array_equal(found.atoms[name][given["id"]], given[name])


def test_memory_is_that_of_one_array(path):
    natoms, values = 200_000, np.zeros((1000, 3))
    tracemalloc.start()
    with CheckpointWriter(path, natoms) as writer:
        for name, (_, width) in ATOM_ARRAYS.items():
            for begin in range(0, natoms, 1000):
                shape = (1000, *width)
                writer.put(
                    np.arange(begin, begin + 1000), name, values.ravel()[: np.prod(shape)].reshape(shape)
                )
        writer.finish(META)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * natoms * 25  # 24 bytes and a flag


# ---- what must not be written -----------------------------------------------------------------------------


def test_atoms_lost_or_doubled(path):
    given = atoms()
    write_checkpoint(path, given, META)
    before = path.read_bytes()
    twice = given["id"].copy()
    twice[3] = twice[4]
    one_more = np.append(given["id"], 0)
    for ids, message in (
        (twice, f"expected each atom once, found none of id {given['id'][3]}"),
        (given["id"][:39], "expected 40 atoms of coord, found 39"),
        (one_more, "expected 40 atoms of coord, found 41"),
    ):
        with pytest.raises(DomainError, match=message):
            with CheckpointWriter(path, NATOMS) as writer:
                for name in ATOM_ARRAYS:
                    writer.put(ids, name, np.resize(given[name], (len(ids), *given[name].shape[1:])))
                writer.finish(META)
        assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
    with CheckpointWriter(path, NATOMS) as writer:
        writer.put(given["id"], "atype", given["atype"])
        with pytest.raises(DomainError, match="expected 40 atoms of atype, found 41"):
            writer.put([7], "atype", [0])


def test_an_array_is_missing(path):
    given = atoms()
    del given["image"]
    with pytest.raises(DomainError, match="expected 40 atoms of image, found 0"):
        write_checkpoint(path, given, META)
    assert os.listdir(path.parent) == []


# ---- faults -----------------------------------------------------------------------------------------------

KILLED = """
import os, random, time
import numpy as np
from deepmd_lite.md.checkpoint import ATOM_ARRAYS, read_checkpoint, write_checkpoint
random.seed(1)
n, path = 20000, {path!r}
def write(step):
    shapes = {{name: ((n, *width), kind) for name, (kind, width) in ATOM_ARRAYS.items()}}
    atoms = {{name: np.full(shape, step, kind) for name, (shape, kind) in shapes.items()}}
    atoms["id"], numbers = np.arange(n), dict(step=step, seed=step, dt=1.0)
    meta = dict(cell=np.full((3, 3), float(step)), pbc=[True] * 3, integrator={{}}, **numbers)
    write_checkpoint(path, atoms, meta)
write(0)
middle = last = 0
for kill in range(50):
    child = os.fork()
    if child == 0:
        for step in range(last + 1, 10**9):
            write(step)
    time.sleep(random.uniform(0, 0.06))
    os.kill(child, 9)
    os.waitpid(child, 0)
    middle += len(os.listdir(os.path.dirname(path))) > 1
    found = read_checkpoint(path)
    assert found.step >= last and all((a == found.step).all() for k, a in found.atoms.items() if k != "id")
    assert (found.cell == found.step).all() and found.seed == found.step
    last = found.step
print(middle, last)
"""


def test_50_kills(tmp_path):
    """R3: kill -9 at any moment leaves the old or the new checkpoint, whole."""
    script = KILLED.format(path=str(tmp_path / "md.restart.h5"))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    middle, last = map(int, run.stdout.split())
    assert middle >= 5 and last >= 5  # kills that came while one was being written; checkpoints written
    assert len(os.listdir(tmp_path)) <= 2  # no litter but the last half one


def test_damage(path):
    """Cut anywhere or with any bit flipped: refused by name, or as if nothing had happened."""
    write_checkpoint(path, atoms(), META)
    whole, good = path.read_bytes(), read_checkpoint(path)
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1, *rng.integers(0, len(whole), 20)):
        path.write_bytes(whole[:size])
        refuse(path, "expected|damaged|not a readable")
    refused = 0
    for place in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except DataError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert found.step == good.step and found.positions == good.positions
            assert all(np.array_equal(found.atoms[k], good.atoms[k]) for k in good.atoms)
            assert found.cell.tobytes() == good.cell.tobytes()
    assert refused > 100


def test_foreign_files(path, tmp_path):
    refuse(tmp_path / "none.h5", "no such file")
    refuse(tmp_path, "found a directory")
    path.parent.mkdir()
    path.write_text("dear diary\n")
    refuse(path, "not a readable HDF5 file")
    with h5py.File(path, "w") as file:
        file["coord"] = np.zeros(3)
    refuse(path, "expected a checkpoint of dplite md")
    with h5py.File(path, "w") as file:
        file["atoms/coord"] = np.zeros(3)
    refuse(path, "expected a string, found nothing")
    with h5py.File(path, "w") as file:
        file["atoms/coord"] = np.zeros(3)
        file.attrs["format"] = "something"
    refuse(path, "expected a deepmd_lite md checkpoint, found 'something'")


def lie(path, **changes):
    """Change the JSON of a checkpoint, with the right digest."""
    with h5py.File(path, "r+") as file:
        text = json.dumps(json.loads(file["meta"][()].tobytes()) | changes).encode()
        del file["meta"]
        file["meta"] = np.frombuffer(text, np.uint8)
        file.attrs["digest"] = np.bytes_(f"{zlib.crc32(text):08x}")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("version", 2, "expected version 1 of the format, found 2; continue it with"),
        ("natoms", 41, r"expected float64 \(41, 3\), found float64 \(40, 3\)"),
        ("natoms", -1, "expected natoms as int, found -1"),
        ("step", None, "expected step as int, found None"),
        ("step", True, "expected step as int, found True"),
        ("dt", "1", "expected dt as float, found '1'"),
        ("seed", -1, "expected seed as int, found -1"),
        ("positions", [], "expected positions as dict"),
        ("crc32", {}, "atoms/coord: expected an array, found none"),
        ("dt", float("nan"), "expected finite"),
    ],
)
def test_lies(path, key, value, message):
    write_checkpoint(path, atoms(), META)
    lie(path, **{key: value})
    refuse(path, message)


def test_links_are_not_followed(path, tmp_path):
    """S1"""
    write_checkpoint(path, atoms(), META)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["coord"] = np.zeros((NATOMS, 3))
    with h5py.File(path, "r+") as file:
        del file["atoms/coord"]
        file["atoms/coord"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/coord")
    refuse(path, "atoms/coord: an external link, refused")
    with h5py.File(path, "r+") as file:
        del file["atoms/coord"]
        file["atoms"].create_dataset("coord", (2**40, 3), "f8")
    refuse(path, "declares .* bytes")
    with h5py.File(path, "r+") as file:
        del file["atoms/coord"]
    refuse(path, "atoms/coord: not in the file")


def test_full_disk_keeps_the_old_one(path):
    """A limit on the size of files, wherever it strikes."""
    write_checkpoint(path, atoms(5000), META)
    before, size = path.read_bytes(), path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 10, 4000, size // 2, size - 1000):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
            with pytest.raises(OSError, match=re.escape(str(path))) as caught:
                write_checkpoint(path, atoms(5000, seed=1), META)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno in (27, 28)  # EFBIG, ENOSPC: exit code 1
        assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
    write_checkpoint(path, atoms(5000, seed=1), META)
    assert path.read_bytes() != before


READ_ONLY = """
import os, sys
sys.path.insert(0, {here!r})
from test_checkpoint import META, atoms, write_checkpoint
write_checkpoint({good!r}, atoms(), META)  # what is imported late is there
if os.getuid() == 0:
    os.setuid(65534)
try:
    write_checkpoint({bad!r}, atoms(), META)
except PermissionError as reason:
    print(reason.filename == {bad!r})
"""


def test_read_only_folder(path):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        here, bad = os.path.dirname(__file__), os.path.join(folder, "md.restart.h5")
        script = READ_ONLY.format(here=here, good=str(path), bad=bad)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert os.listdir(folder) == []
    assert done.stdout.split() == ["True"], done.stderr


def test_nothing_is_pickled(path):
    """S1: the guard reads all of it."""
    write_checkpoint(path, atoms(), META)
    with open_guarded(path) as root:
        for group in root.walk():
            for name in group.names():
                if not group.is_group(name):
                    assert group.array(name).dtype.kind in "biuf"
    with pytest.raises((TypeError, ValueError)):
        write_checkpoint(path, atoms(), META | {"integrator": {"x": np.array([{}], object)}})
    with pytest.raises(TypeError):
        write_checkpoint(path, atoms(), META | {"note": object()})
    assert read_checkpoint(path).extra == {"type_map": ["O", "H"]}
