"""deepmd/hdf5 and deepmd/npy: what is written comes back bitwise, and the layout is DeePMD-kit's."""

import h5py
import numpy as np
import pytest

from deepmd_lite.errors import DataError
from deepmd_lite.frames.store import append_frame, read_systems, write_system

PERIODICITIES = [(True, True, True), (True, True, False), (False, False, True), (False, False, False)]


def append(address, system, frame, **labels):
    append_frame(
        address,
        symbols=system.symbols,
        coord=system.coord[frame],
        box=None if system.box is None else system.box[frame],
        pbc=system.pbc,
        **labels,
    )


@pytest.mark.parametrize("pbc", PERIODICITIES)
@pytest.mark.parametrize("place", ["data.h5#/liquid/cold", "liquid/cold", "sp ace/né\nw/x.h5#/é"])
def test_round_trip(tmp_path, make_water, same_frames, pbc, place):
    (tmp_path / "sp ace" / "né\nw").mkdir(parents=True)
    system = make_water(pbc=pbc)
    address = f"{tmp_path}/{place}"
    write_system(address, system)
    write_system(address, system)  # replaces
    (back,) = read_systems(address)
    same_frames(back, system)
    assert back.type_map == ("O", "H")
    assert back.source_dtype["energy"] == "float64"


def test_every_address_of_a_file(tmp_path, make_water):
    file = tmp_path / "data.h5"
    write_system(f"{file}#/a", make_water(nframes=1))
    write_system(f"{file}#/nested/b", make_water(nframes=2))
    write_system(f"{tmp_path}/folder/c", make_water(nframes=3))

    def frames(address):
        return [s.nframes for s in read_systems(address)]

    assert frames(file) == [1, 2]
    assert frames(f"{file}#") == [1, 2]
    assert frames(f"{file}#/nested") == [2]
    assert frames(f"{file}#nested/b") == frames(f"{file}#/nested/b") == [2]
    assert frames(tmp_path / "folder") == frames(f"{tmp_path}/fold*/c") == [3]
    assert frames(f"{tmp_path}/*.h5#/a") == [1]
    assert frames([f"{file}#/a", str(tmp_path / "folder")]) == [1, 3]


def test_layout_is_that_of_deepmd_kit(tmp_path, water):
    write_system(f"{tmp_path}/w.h5#/w", water)
    with h5py.File(tmp_path / "w.h5") as file:
        group = file["w"]
        assert group["type.raw"].dtype.kind == "i"
        assert group["type_map.raw"].dtype.kind == "S"
        assert group["type_map.raw"][()].tolist() == [b"O", b"H"]
        shapes = {name: data.shape for name, data in group["set.000"].items()}
        assert np.array_equal(group["set.000/virial.npy"][2].reshape(3, 3), water.labels["virial"][2])
    assert shapes == {
        "coord.npy": (5, 18),
        "box.npy": (5, 9),
        "energy.npy": (5,),
        "force.npy": (5, 18),
        "virial.npy": (5, 9),
    }


@pytest.mark.parametrize("place", ["w.h5#/w", "w"])
def test_labels_missing_per_frame(tmp_path, water, place):
    water.found["energy"][[1, 3]] = False
    water.labels["energy"][[1, 3]] = 0.0
    water.found["virial"][:] = False
    write_system(f"{tmp_path}/{place}", water)
    (back,) = read_systems(f"{tmp_path}/{place}")
    order = [0, 2, 4, 1, 3]  # frames with the same labels share a set
    assert np.array_equal(back.coord, water.coord[order])
    assert back.found["energy"].tolist() == [True, True, True, False, False]
    assert back.labels["energy"].tolist() == water.labels["energy"][order].tolist()
    assert back.found["force"].all()
    assert "virial" not in back.labels


@pytest.mark.parametrize("pbc", PERIODICITIES)
def test_append_frame_by_frame(tmp_path, make_water, same_frames, pbc):
    system = make_water(pbc=pbc)
    address = f"{tmp_path}/a.h5#/x/y"
    for frame in range(5):
        append(address, system, frame, **{key: value[frame] for key, value in system.labels.items()})
        assert read_systems(address)[0].nframes == frame + 1
    same_frames(read_systems(address)[0], system)


def test_append_without_some_labels(tmp_path, water):
    address = f"{tmp_path}/a.h5#x"
    append(address, water, 0, energy=-1.0)
    append(address, water, 1, energy=-2.0, force=water.labels["force"][1])
    append(address, water, 2, energy=-3.0)
    (back,) = read_systems(address)
    assert back.labels["energy"].tolist() == [-1.0, -3.0, -2.0]
    assert back.found["force"].tolist() == [False, False, True]


def test_append_repairs_an_interrupted_one(tmp_path, water):
    address = f"{tmp_path}/a.h5#x"
    append(address, water, 0, energy=-1.0)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["x/set.000/coord.npy"].resize(2, axis=0)
    with pytest.raises(DataError, match=r"box.npy: expected shape \(2, 9\), found \(1, 9\)"):
        read_systems(address)
    append(address, water, 1, energy=-2.0)
    (back,) = read_systems(address)
    assert np.array_equal(back.coord, water.coord[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ["O", "H", "H", "H", "O", "H"]}, "same atoms in the same order"),
        ({"pbc": [True, True, False]}, "pbc"),
        ({"coord": np.zeros((5, 3))}, r"coord expected shape \(1, 6, 3\)"),
        ({"energy": np.nan}, "energy of frame 0 holds nan"),
        ({"force": np.zeros((3, 6))}, r"force expected shape \(1, 6, 3\), found \(1, 3, 6\)"),
    ],
)
def test_append_refuses_what_does_not_fit(tmp_path, water, change, message):
    address = f"{tmp_path}/a.h5#x"
    frame = {"symbols": water.symbols, "coord": water.coord[0], "box": water.box[0], "pbc": water.pbc}
    append_frame(address, **frame)
    with pytest.raises(DataError, match=message):
        append_frame(address, **frame | change)
    assert read_systems(address)[0].nframes == 1


def test_type_map_is_by_name(tmp_path, water):
    write_system(f"{tmp_path}/w", water)
    (back,) = read_systems(f"{tmp_path}/w", type_map=["H", "C", "O"])
    assert back.type_map == ("H", "C", "O")
    assert back.atype.tolist() == [2, 0, 0, 2, 0, 0]
    assert back.symbols == water.symbols


def npy_system(path, nframes=2, sets=1, **arrays):
    """A deepmd/npy directory of two hydrogen atoms in a box."""
    path.mkdir(parents=True)
    (path / "type.raw").write_text("0 0\n")
    (path / "type_map.raw").write_text("\ufeffH\n", encoding="utf-8")  # with a byte-order mark
    for k in range(sets):
        home = path / f"set.{k:03d}"
        home.mkdir()
        default = {
            "coord": np.tile([0, 0, 0, 0, 0, 0.74], (nframes, 1)),
            "box": np.tile(8 * np.eye(3).ravel(), (nframes, 1)),
            "energy": np.full(nframes, -31.0),
        }
        for name, array in (default | arrays).items():
            np.save(home / f"{name}.npy", array)
    return path


def test_energy_as_column_and_float32(tmp_path):
    path = npy_system(tmp_path / "s", energy=np.array([[1.5], [2.5]], dtype=np.float32))
    (system,) = read_systems(path)
    assert system.labels["energy"].tolist() == [1.5, 2.5]
    assert system.source_dtype["energy"] == "float32"


def test_one_frame_as_vectors(tmp_path):
    one = {
        "coord": np.array([0, 0, 0, 0, 0, 0.74]),
        "box": 8 * np.eye(3).ravel(),
        "energy": np.array([-31.0]),
    }
    path = npy_system(tmp_path / "s", **one, force=np.arange(6.0), virial=np.arange(9.0))
    (system,) = read_systems(path)
    assert system.nframes == 1
    assert system.labels["force"].shape == (1, 2, 3)
    assert system.labels["virial"][0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("name", ["atom_ener", "atomic_ener"])
def test_atom_and_atomic_are_one_name(tmp_path, name):
    path = npy_system(tmp_path / "s", **{name: np.arange(4.0).reshape(2, 2)})
    assert read_systems(path)[0].labels["atom_energy"].tolist() == [[0, 1], [2, 3]]


def test_parameters_of_frames_and_atoms(tmp_path):
    path = npy_system(tmp_path / "s", fparam=np.array([300.0, 400.0]), aparam=np.arange(12.0).reshape(2, 6))
    (system,) = read_systems(path)
    assert system.labels["fparam"].tolist() == [[300], [400]]
    assert system.labels["aparam"].shape == (2, 2, 3)


def test_label_in_one_set_of_two(tmp_path):
    path = npy_system(tmp_path / "s", sets=2)
    np.save(path / "set.001" / "force.npy", np.ones((2, 6)))
    (system,) = read_systems(path)
    assert system.found["force"].tolist() == [False, False, True, True]
    assert system.labels["force"][:2].tolist() == np.zeros((2, 2, 3)).tolist()


def test_types_without_names_need_a_type_map(tmp_path):
    path = npy_system(tmp_path / "s")
    (path / "type_map.raw").unlink()
    with pytest.raises(DataError, match=r"type_map\.raw is missing"):
        read_systems(path)
    assert read_systems(path, type_map=["H", "O"])[0].symbols == ["H", "H"]


def test_mixed_type_by_composition(tmp_path):
    """Padding (−1) is dropped; atoms are ordered by type and labels with them."""
    path = npy_system(tmp_path / "s", nframes=3)
    (path / "type_map.raw").write_text("H O\n")
    np.save(path / "set.000" / "real_atom_types.npy", np.array([[1, 0], [0, -1], [0, 1]]))
    np.save(path / "set.000" / "force.npy", np.arange(18.0).reshape(3, 6))
    hydrogen, hydroxyl = sorted(read_systems(path), key=lambda s: s.natoms)
    assert (hydrogen.symbols, hydrogen.nframes) == (["H"], 1)
    assert (hydroxyl.symbols, hydroxyl.nframes) == (["H", "O"], 2)
    assert hydroxyl.labels["force"][:, 0].tolist() == [[3, 4, 5], [12, 13, 14]]
    assert hydroxyl.coord[0, 0].tolist() == [0, 0, 0.74]
