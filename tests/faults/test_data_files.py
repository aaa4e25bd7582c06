"""FAULTS 1-8, 11, 13 and S1 for frames: bad data are refused by name, before anything is computed."""

import pickle
import zipfile

import h5py
import numpy as np
import pytest

from deepmd_lite.errors import DataError, ModelFileError
from deepmd_lite.frames.store import System, append_frame, read_systems, write_system
from deepmd_lite.hdf5_guard import open_guarded


def hydrogen(nframes=3, natoms=2):
    """Hydrogen atoms on a line in a box, all labels zero."""
    coord = np.zeros((nframes, natoms, 3))
    coord[:, :, 0] = 0.74 * np.arange(natoms)
    shapes = {"energy": (), "force": (natoms, 3), "virial": (3, 3)}
    return System(
        name="hydrogen",
        type_map=("H",),
        atype=np.zeros(natoms, dtype=np.int32),
        coord=coord,
        box=np.tile(8.0 * np.eye(3), (nframes, 1, 1)),
        pbc=np.ones(3, dtype=bool),
        labels={key: np.zeros((nframes, *shape)) for key, shape in shapes.items()},
        found={key: np.ones(nframes, dtype=bool) for key in shapes},
    )


@pytest.fixture
def file(tmp_path):
    write_system(f"{tmp_path}/data.h5#/h", hydrogen())
    return tmp_path / "data.h5"


@pytest.fixture
def folder(tmp_path):
    write_system(tmp_path / "h", hydrogen())
    return tmp_path / "h"


def replace(file, name, data, group="h/set.000"):
    with h5py.File(file, "a") as handle:
        if name in handle[group]:
            del handle[group][name]
        handle[group][name] = data


# ------------------------------------------------------------ not there


def test_files_that_are_not_there(tmp_path):
    for name in ("none.h5", "two\nlines"):
        with pytest.raises(DataError, match="no such file") as caught:
            read_systems(tmp_path / name)
        assert "\n" not in str(caught.value)
    for path, message in ((tmp_path / "none.h5", "none.h5: no such file"), (tmp_path, "found a directory")):
        with pytest.raises(DataError, match=message), open_guarded(path):
            pass


# ------------------------------------------------------------ 1: truncated


@pytest.mark.parametrize("keep", ["nothing", "half", "all but one byte"])
def test_truncated_hdf5(file, keep):
    whole = file.read_bytes()
    file.write_bytes(whole[: {"nothing": 0, "half": len(whole) // 2, "all but one byte": -1}[keep]])
    with pytest.raises(DataError, match=r"data.h5: not a readable HDF5 file.*truncated"):
        read_systems(file)


@pytest.mark.filterwarnings("ignore:overflow")  # a cell of 1e200 Å
def test_random_damage(file):
    """A few wrong bytes anywhere: DataError that names the file, or frames; never another exception."""
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 9)):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            read_systems(file)
        except DataError as reason:
            refused += 1
            assert "data.h5" in str(reason)
    assert refused > 10


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_npy(folder, keep):
    path = folder / "set.000" / "force.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"force.npy: not a readable array"):
        read_systems(folder)


# ------------------------------------------------------------ 2: shapes

SHAPES = {
    "(natoms, nframes, 3)": (2, 3, 3),
    "(nframes, natoms, 3)": (3, 2, 3),
    "one atom more": (3, 9),
    "one atom less": (3, 3),
    "one frame more": (4, 6),
    "one frame less": (2, 6),
    "flat": (18,),
    "one number": (),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["hdf5", "npy"])
def test_wrong_force_shape(tmp_path, file, folder, kind, shape):
    if kind == "hdf5":
        replace(file, "force.npy", np.zeros(shape))
    else:
        np.save(folder / "set.000" / "force.npy", np.zeros(shape))
    with pytest.raises(DataError) as caught:
        read_systems(file if kind == "hdf5" else folder)
    message = str(caught.value)
    assert "set.000/force.npy: expected shape (3, 6), found " + str(shape) in message


@pytest.mark.parametrize("dtype", ["complex128", "S4", "object"])
def test_not_numbers(folder, dtype):
    np.save(folder / "set.000" / "energy.npy", np.array([0, 1, 2]).astype(dtype))
    with pytest.raises(DataError, match=r"energy.npy"):
        read_systems(folder)


@pytest.mark.parametrize("text", ["0 x", "0 0.5", "0 1", "0 -1", "", "0 99999999999999999999", "\x00\xff"])
def test_bad_types(folder, text):
    (folder / "type.raw").write_text(text, encoding="latin-1")
    with pytest.raises(DataError):
        read_systems(folder)


# ------------------------------------------------------------ 3: not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["coord", "box", "energy", "force", "virial"])
def test_one_bad_number_among_many_frames(tmp_path, value, name):
    nframes = 10_000
    write_system(f"{tmp_path}/big.h5#/h", hydrogen(nframes))
    with h5py.File(tmp_path / "big.h5", "a") as handle:
        data = handle[f"h/set.000/{name}.npy"]
        data[(7331,) if data.ndim == 1 else (7331, 4)] = value
    with pytest.raises(DataError, match=f"h: {name} of frame 7331 holds {value}; expected finite"):
        read_systems(f"{tmp_path}/big.h5")


def test_bad_numbers_are_not_written(tmp_path):
    system = hydrogen()
    system.labels["force"][1, 0, 2] = np.nan
    with pytest.raises(DataError, match="force of frame 1"):
        write_system(f"{tmp_path}/data.h5#/h", system)
    assert not (tmp_path / "data.h5").exists()


# ------------------------------------------------------------ 5: elements


@pytest.mark.parametrize("type_map", [["O"], ["X"], ["h"]])
def test_unknown_element(file, type_map):
    with pytest.raises(DataError, match=rf"element H not in the type_map \[{type_map[0]}\]"):
        read_systems(file, type_map)


def test_element_named_twice(folder):
    (folder / "type_map.raw").write_text("H H")
    with pytest.raises(DataError, match="names an element twice"):
        read_systems(folder)


# ------------------------------------------------------------ 6: little or nothing


def test_zero_frames(file):
    for name, width in {"coord": 6, "box": 9, "force": 6, "virial": 9, "energy": 1}.items():
        replace(file, f"{name}.npy", np.zeros((0, width)))
    with pytest.raises(DataError, match="expected frames, found none"):
        read_systems(file)


def test_no_force_is_no_error(file):
    with h5py.File(file, "a") as handle:
        del handle["h/set.000/force.npy"]
    (system,) = read_systems(file)
    assert "force" not in system.labels
    assert system.found["energy"].all()


def test_one_atom_and_no_atom(tmp_path):
    write_system(tmp_path / "one", hydrogen(natoms=1))
    assert read_systems(tmp_path / "one")[0].natoms == 1
    (tmp_path / "one" / "type.raw").write_text("")
    with pytest.raises(DataError):
        read_systems(tmp_path / "one")


@pytest.mark.parametrize("address", ["nothing.h5", "nothing.h5#/h", "data.h5#/absent", "*.none", "empty"])
def test_nothing_there(tmp_path, file, address):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        read_systems(f"{tmp_path}/{address}")
    with pytest.raises(DataError, match="found none"):
        read_systems([])


def test_no_set(file):
    with h5py.File(file, "a") as handle:
        del handle["h/set.000"]
    with pytest.raises(DataError, match=r"expected set.000"):
        read_systems(file)


# ------------------------------------------------------------ 7: coincident atoms


@pytest.mark.parametrize("distance", [0.0, 1e-8, 9e-3])
@pytest.mark.parametrize("image", [0, 1, -3])
def test_coincident_atoms(tmp_path, distance, image):
    system = hydrogen(nframes=20, natoms=4)
    system.box[:] = [[8, 0, 0], [2, 7, 0], [1, 1, 6]]
    system.coord[13, 3] = system.coord[13, 1] + [0, distance, 0] + image * system.box[13, 1]
    with pytest.raises(DataError, match=r"atoms 1 \(H\) and 3 \(H\) of frame 13 are .* Å apart"):
        write_system(tmp_path / "h", system)
    system.pbc[:] = False
    if image:
        write_system(tmp_path / "h", system)


def test_coincident_across_a_face(tmp_path):
    system = hydrogen()
    system.coord[2] = [[4, 4, 0.001], [4, 4, 7.998]]
    with pytest.raises(DataError, match=r"of frame 2 are 0.003 Å apart"):
        write_system(tmp_path / "h", system)


def test_close_atoms_are_not_coincident(tmp_path):
    system = hydrogen()
    system.coord[1, 1] = system.coord[1, 0] + [0, 0.011, 0]
    write_system(tmp_path / "h", system)


# ------------------------------------------------------------ 8: cells


@pytest.mark.parametrize(
    "cell",
    [
        np.zeros((3, 3)),
        [[8, 0, 0], [0, 8, 0], [0, 0, 0]],
        [[8, 0, 0], [0, 8, 0], [8, 8, 0]],
        [[8, 0, 0], [0, 8, 0], [8, 8, 1e-9]],
    ],
)
def test_flat_cell(file, cell):
    boxes = np.tile(8 * np.eye(3).ravel(), (3, 1))
    boxes[2] = np.ravel(cell)
    replace(file, "box.npy", boxes)
    with pytest.raises(DataError, match=r"data.h5#/h: cell of frame 2"):
        read_systems(file)


def test_cell_of_six_numbers(file):
    replace(file, "box.npy", np.tile([8.0, 8, 8, 90, 90, 90], (3, 1)))
    with pytest.raises(DataError, match=r"box.npy: expected shape \(3, 9\), found \(3, 6\); six numbers"):
        read_systems(file)


def test_missing_cell(file):
    with h5py.File(file, "a") as handle:
        del handle["h/set.000/box.npy"]
    with pytest.raises(DataError, match=r"expected box.npy, found none"):
        read_systems(file)
    with h5py.File(file, "a") as handle:
        handle["h/nopbc"] = True
    assert read_systems(file)[0].box is None


def test_slab_without_a_third_vector(tmp_path):
    cell = [[8, 0, 0], [0, 8, 0], [0, 0, 0]]
    flags = [True, True, False]
    append_frame(f"{tmp_path}/s.h5#/s", symbols=["H"], coord=np.zeros((1, 3)), box=cell, pbc=flags)
    (system,) = read_systems(f"{tmp_path}/s.h5")
    assert system.pbc.tolist() == flags
    assert system.box[0].tolist() == cell


@pytest.mark.parametrize("flags", [[1, 1], [1, 2, 0], [[1, 1, 0]] * 2, [0.5, 1, 1]])
def test_bad_flags(file, flags):
    replace(file, "pbc", np.array(flags), group="h")
    with pytest.raises(DataError, match="pbc"):
        read_systems(file)


# ------------------------------------------------------------ 11: files that would run code


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_not_opened(folder):
    canary = folder / "canary"
    target = folder / "set.000" / "energy.npy"
    array = np.array([Canary(canary)] * 3, dtype=object)
    np.save(target, array, allow_pickle=True)
    with pytest.raises(DataError, match=r"energy.npy"):
        read_systems(folder)
    target.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(DataError, match=r"energy.npy"):
        read_systems(folder)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("energy.npy", pickle.dumps(Canary(canary)))
    with pytest.raises(DataError, match=r"energy.npy"):
        read_systems(folder)
    assert not canary.exists()


def test_npy_that_declares_too_much(folder):
    """A header of 8 TB over an empty file: refused without allocating."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    text = header.ljust(117) + "\n"
    (folder / "set.000" / "energy.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    )
    with pytest.raises(DataError, match=r"energy.npy: not a readable array"):
        read_systems(folder)


# ------------------------------------------------------------ S1: HDF5 that reaches outside, or lies


def virtual(group):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    group.create_virtual_dataset("energy.npy", layout)


def linked(link):
    return lambda group: group.__setitem__("energy.npy", link)


def declared(shape, **storage):
    return lambda group: group.create_dataset("energy.npy", shape, dtype="f8", **storage)


UNSAFE = {
    "external link": (linked(h5py.ExternalLink("other.h5", "/x")), "an external link, refused"),
    "soft link": (linked(h5py.SoftLink("/h/set.000/virial.npy")), "a soft link, refused"),
    "virtual dataset": (virtual, "virtual or external storage, refused"),
    "external storage": (declared((3,), external=[("/etc/passwd", 0, 24)]), "virtual or external storage"),
    "never written": (declared((10**12,)), "declares 8000000000000 bytes"),
    "empty chunks": (declared((10**12,), chunks=(1000,)), "declares 8000000000000 bytes"),
    "bomb": (declared((10**12,), chunks=(1000,), compression="gzip"), "declares 8000000000000 bytes"),
    "a group": (lambda group: group.create_group("energy.npy"), "expected a dataset, found Group"),
    "no space": (linked(h5py.Empty("f8")), "found an empty dataspace"),
    "compound": (linked(np.zeros(3, dtype=[("a", "f8")])), "expected numbers"),
    "reference": (lambda group: group.__setitem__("energy.npy", group.ref), "expected numbers"),
    "string": (linked("low"), "expected numbers"),
}


@pytest.mark.parametrize(("make", "message"), UNSAFE.values(), ids=UNSAFE)
def test_unsafe_dataset(file, make, message):
    with h5py.File(file, "a") as handle:
        del handle["h/set.000/energy.npy"]
        make(handle["h/set.000"])
    with pytest.raises(DataError, match=message):
        read_systems(file)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/h")])
def test_linked_group(file, link):
    with h5py.File(file, "a") as handle:
        handle["x"] = link
    with pytest.raises(DataError, match="link, refused"):
        read_systems(file)
    with pytest.raises(DataError, match="link, refused"):
        append_frame(f"{file}#/x", symbols=["H"], coord=[[0, 0, 0]], box=None, pbc=[False] * 3)


def test_group_within_itself(file):
    with h5py.File(file, "a") as handle:
        handle["h/again"] = handle["h"]
    with pytest.raises(DataError, match="a group inside itself"):
        read_systems(file)


def test_compressed_data_are_welcome(file):
    with h5py.File(file, "a") as handle:
        del handle["h/set.000/force.npy"]
        zeros = np.zeros((3, 6))
        handle["h/set.000"].create_dataset("force.npy", data=zeros, compression="gzip", shuffle=True)
    assert read_systems(file)[0].labels["force"].shape == (3, 2, 3)


def test_class_of_the_error_is_the_readers(tmp_path):
    (tmp_path / "m.dp").write_text("no HDF5")
    with (
        pytest.raises(ModelFileError, match=r"m.dp: not a readable HDF5 file"),
        open_guarded(tmp_path / "m.dp", ModelFileError),
    ):
        pass


def test_not_a_place_to_write(tmp_path, file):
    with pytest.raises(DataError, match="expected an address like"):
        write_system(file, hydrogen())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "keep.txt").write_text("keep")
    with pytest.raises(DataError, match="exists and is no system"):
        write_system(tmp_path / "notes", hydrogen())
    assert (tmp_path / "notes" / "keep.txt").read_text() == "keep"
    (tmp_path / "text.h5").write_text("keep")
    with pytest.raises(DataError, match=r"text.h5"):
        write_system(f"{tmp_path}/text.h5#/h", hydrogen())
    assert (tmp_path / "text.h5").read_text() == "keep"
