"""Files that ASE reads: keys, units, signs. Expected numbers are written out, not read back from the code."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from deepmd_lite.errors import DataError
from deepmd_lite.frames.convert import convert
from deepmd_lite.frames.store import read_systems
from deepmd_lite.units import BOHR, HARTREE

STRESS = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])  # Voigt: xx yy zz yz xz xy
MATRIX = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])


def emt_copper(seed=0):
    """Four copper atoms, squeezed, with labels by EMT."""
    atoms = bulk("Cu", cubic=True, a=3.5)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    atoms.get_stress()
    return atoms


def extxyz(path, keys, n=2):
    """Copper frames whose labels sit in info and arrays under the given names."""
    frames = []
    for k in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.01, seed=k)
        values = {"energy": -14.0 - k, "force": np.full((4, 3), 0.1 * k), "stress": STRESS, "virial": MATRIX}
        for label, key in keys.items():
            (atoms.arrays if label == "force" else atoms.info)[key] = values[label]
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


def single(path, out, **options):
    convert(path, out, **options)
    (system,) = read_systems(out)
    return system


@pytest.mark.parametrize(
    "energy", ["energy", "REF_energy", "dft_energy", "free_energy", "TotEnergy", "energy_dft"]
)
@pytest.mark.parametrize("force", ["forces", "force", "REF_forces"])
def test_usual_key_names(tmp_path, energy, force):
    path = extxyz(tmp_path / "f.xyz", {"energy": energy, "force": force})
    result = convert(path, tmp_path / "out.h5")
    assert result.keys == {"energy": energy, "force": force}
    assert result.addresses == [f"{tmp_path}/out.h5#/Cu4"]
    (system,) = read_systems(tmp_path / "out.h5")
    assert system.labels["energy"].tolist() == [-14.0, -15.0]
    assert np.allclose(system.labels["force"][1], 0.1, atol=1e-8)  # eV/Å, 8 decimals in the file


def test_own_key(tmp_path):
    path = extxyz(tmp_path / "f.xyz", {"energy": "ccsd", "force": "g"})
    with pytest.raises(DataError, match=r"/f.xyz: no energy, force or virial found; give --energy-key"):
        convert([path], tmp_path / "out.h5")
    system = single(path, tmp_path / "out.h5", energy_key="ccsd", force_key="g")
    assert system.found["energy"].all() and system.found["force"].all()
    with pytest.raises(DataError, match="'mp2': no frame has it"):
        convert(path, tmp_path / "other.h5", energy_key="mp2")


def test_two_energies_need_a_key(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(REF_energy=-14.0, energy=-13.0)
    write(tmp_path / "f.xyz", atoms)
    with pytest.raises(DataError, match="energy under several names, REF_energy, energy; give --energy-key"):
        convert(tmp_path / "f.xyz", tmp_path / "out")
    assert single(tmp_path / "f.xyz", tmp_path / "out", energy_key="REF_energy").labels["energy"] == [-14.0]


def test_free_energy_goes_with_the_forces(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-13.0, free_energy=-14.0, forces=np.zeros((4, 3)))
    write(tmp_path / "f.traj", atoms)
    assert single(tmp_path / "f.traj", tmp_path / "out").labels["energy"] == [-14.0]


@pytest.mark.parametrize(
    ("convention", "key", "sign_and_volume"),
    [("virial", "virial", "+"), ("virial_negative", "virials", "-"), ("ase", "stress", "-V"),
     ("stress_positive", "dft_stress", "+V")],
)  # fmt: skip
def test_stress_conventions(tmp_path, convention, key, sign_and_volume):
    """W = ±(file) or ±V·(file); Voigt yz xz xy as in ASE."""
    label = "virial" if "virial" in key else "stress"
    path = extxyz(tmp_path / "f.xyz", {"energy": "energy", label: key})
    with pytest.raises(DataError, match="can mean several things; state stress"):
        convert(path, tmp_path / "out")
    system = single(path, tmp_path / "out", stress=convention)
    factor = {"+": 1, "-": -1}[sign_and_volume[0]] * (3.61**3 if "V" in sign_and_volume else 1)
    assert np.allclose(system.labels["virial"], factor * MATRIX, rtol=1e-12)


def test_pressures_in_kbar(tmp_path):
    """As VASP prints them, here under the wrong name of a virial; 1 eV/Å³ = 1602.176634 kbar."""
    path = extxyz(tmp_path / "f.xyz", {"energy": "energy", "virial": "virial"})
    system = single(path, tmp_path / "out", stress="kbar", virial_key="virial")
    assert np.allclose(system.labels["virial"], 3.61**3 * MATRIX / 1602.176634, rtol=1e-9)
    with pytest.raises(DataError, match=r"kbar.*eV"):
        convert(path, tmp_path / "other", stress="kbar", virial_key="virial", units="hartree/bohr")


def test_stated_meaning_must_fit_the_key(tmp_path):
    path = extxyz(tmp_path / "f.xyz", {"energy": "energy", "virial": "virial"})
    with pytest.raises(DataError, match="stated as 'ase', but the file has virial"):
        convert(path, tmp_path / "out", stress="ase")
    with pytest.raises(DataError, match="stress 'pascal': expected"):
        convert(path, tmp_path / "out", stress="pascal")
    assert "virial" not in single(path, tmp_path / "out", stress="none").labels


def test_ase_trajectory_has_ases_sign(tmp_path):
    """W from EMT's stress: squeezed copper pushes outwards, and W = −dE/dstrain by a central difference."""
    atoms = emt_copper()
    write(tmp_path / "f.traj", atoms)
    virial = single(tmp_path / "f.traj", tmp_path / "out").labels["virial"][0]
    assert np.trace(virial) > 0

    def energy(strain):
        bent = atoms.copy()
        bent.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        bent.calc = EMT()
        return bent.get_potential_energy()

    step = np.zeros((3, 3))
    step[0, 0] = 1e-5
    derivative = (energy(step) - energy(-step)) / 2e-5
    assert abs(virial[0, 0] + derivative) < 1e-5 * abs(derivative)  # the error is of order 1e-10 E'''


def test_constraints_do_not_touch_forces(tmp_path):
    from ase.constraints import FixAtoms

    atoms = emt_copper()
    force = atoms.get_forces()
    atoms.set_constraint(FixAtoms([0, 1]))
    write(tmp_path / "f.traj", atoms)
    assert np.array_equal(single(tmp_path / "f.traj", tmp_path / "out").labels["force"][0], force)


def hartree_water(path, coordinates="bohr"):
    atoms = molecule("H2O")
    atoms.positions /= BOHR if coordinates == "bohr" else 1.0
    atoms.info["energy"] = -76.4
    atoms.arrays["forces"] = np.full((3, 3), 0.01)
    write(path, atoms)
    return path


@pytest.mark.parametrize("length", ["bohr", "Å"])
def test_hartree_and_bohr(tmp_path, length):
    """FAULTS 4: asked for by the distances (Bohr) or by the energy of the free atoms (Hartree)."""
    path = hartree_water(tmp_path / "f.xyz", length)
    with pytest.raises(
        DataError, match="Bohr.*State the units" if length == "bohr" else "hartree.*State the units"
    ):
        convert(path, tmp_path / "out")
    system = single(path, tmp_path / "out", units="hartree/bohr", length=length)
    assert np.isclose(system.labels["energy"][0], -76.4 * HARTREE, rtol=1e-14)
    assert np.allclose(system.labels["force"], 0.01 * HARTREE / BOHR, rtol=1e-8)
    assert np.allclose(system.coord[0], molecule("H2O").positions, atol=1e-8)  # Å, 8 decimals in the file


@pytest.mark.parametrize(
    ("units", "energy"), [("kcal/mol", 23.06054783), ("kJ/mol/Å", 96.48533212), ("eV/Å", 1.0)]
)
def test_other_units(tmp_path, units, energy):
    path = extxyz(tmp_path / "f.xyz", {"energy": "energy", "force": "forces"})
    system = single(path, tmp_path / "out", units=units)
    assert np.allclose(system.labels["energy"] * energy, [-14, -15], rtol=1e-9)  # ten digits of CODATA 2018


def test_units_where_they_have_no_place(tmp_path):
    path = extxyz(tmp_path / "f.xyz", {"energy": "energy"})
    for units in ("furlong", "eV/furlong", "eV/"):
        with pytest.raises(DataError, match="expected an energy of ev"):
            convert(path, tmp_path / "out", units=units)
    write(tmp_path / "POSCAR", bulk("Cu"), format="vasp")
    with pytest.raises(DataError, match="ASE has converted vasp"):
        convert(tmp_path / "POSCAR", tmp_path / "out", units="hartree/bohr")


def test_groups_by_atoms_and_periodicity(tmp_path):
    """FAULTS 8: frames of several compositions, orders and periodicities become several systems."""
    frames = [molecule("H2O"), bulk("Cu", cubic=True), molecule("H2O")[[1, 0, 2]], molecule("H2O")]
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    for k, atoms in enumerate([*frames, slab]):
        atoms.info["dft_energy"] = -10.0 - k
    write(tmp_path / "f.xyz", [*frames, slab])
    convert(tmp_path / "f.xyz", tmp_path / "out")
    systems = {s.name.rsplit("/")[-1]: s for s in read_systems(tmp_path / "out")}
    assert {k: (s.nframes, s.pbc.sum()) for k, s in systems.items()} == {
        "H2O": (2, 0), "H2O_2": (1, 0), "Cu4": (1, 3), "Cu4_2": (1, 2),
    }  # fmt: skip
    assert systems["H2O"].labels["energy"].tolist() == [-10.0, -13.0]
    assert {s.type_map for s in systems.values()} == {("Cu", "H", "O")}


def test_virial_needs_three_periodic_directions(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0, stress=STRESS)
    write(tmp_path / "f.traj", atoms)
    result = convert(tmp_path / "f.traj", tmp_path / "out")
    assert result.notes == ["stress left out of frames that are not periodic in three directions (1 frames)"]


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("HX", [[0, 0, 0], [0, 0, 1]], info={"energy": -1.0}), r"f.xyz@0: atoms 1 are dummies X"),
        (Atoms("H", [[0, 0, 0]], pbc=True, info={"energy": -1.0}), "f.xyz@0: cell of frame 0"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 1e-8]], info={"energy": -1.0}), "f.xyz@0: atoms 0 .* 1e-08 Å apart"),
        (Atoms("H", [[0, 0, 0]], info={"energy": np.nan}), "f.xyz@0: energy of frame 0 holds nan"),
        (Atoms("H", [[0, 0, 0]], info={"energy": "low"}), "f.xyz@0: energy expected numbers, found"),
    ],
)
def test_frames_unfit_for_training(tmp_path, atoms, message):
    write(tmp_path / "f.xyz", atoms, format="extxyz")
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "f.xyz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "cut.xyz").write_text("3\ncomment\nH 0 0 0\n")
    for name in ("empty.xyz", "cut.xyz", "absent.xyz", ".", "*.none"):
        with pytest.raises(DataError):
            convert(tmp_path / name, tmp_path / "out")
    with pytest.raises(DataError, match="element O not in the type_map"):
        convert(hartree_water(tmp_path / "f.xyz"), tmp_path / "out", units="hartree/bohr", type_map=["H"])
    (tmp_path / "frames.h5").write_bytes(b"")
    with pytest.raises(DataError, match="found HDF5, which holds frames already"):
        convert(tmp_path / "frames.h5", tmp_path / "out")


def test_nothing_is_overwritten(tmp_path):
    path = extxyz(tmp_path / "f.xyz", {"energy": "energy"})
    before = path.read_bytes()
    with pytest.raises(DataError, match="exists"):
        convert(path, path)
    assert path.read_bytes() == before
