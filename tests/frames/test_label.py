"""Labels from an ASE calculator: numbers and signs, resuming, failures and refusals."""

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import SCFError
from ase.calculators.emt import EMT
from ase.io import write

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.label import FrameSkipped, label, make_calculator
from deepmd_lite.frames.store import read_systems


def copper(count=4, scale=1.0):
    """Rattled four-atom cells of copper."""
    frames = []
    for seed in range(count):
        atoms = bulk("Cu", "fcc", a=3.6 * scale, cubic=True)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return frames


class Fragile(EMT):
    """EMT that fails on the frames whose number is listed."""

    calls, failing = 0, ()

    def calculate(self, *args, **kwargs):
        """Fail, or as EMT does."""
        Fragile.calls += 1
        if Fragile.calls - 1 in Fragile.failing:
            raise SCFError("no convergence")
        super().calculate(*args, **kwargs)


@pytest.fixture
def fragile():
    """The class, with its counters as new."""
    Fragile.calls, Fragile.failing = 0, ()
    return Fragile


def test_labels_are_the_calculators_numbers(tmp_path):
    out = f"{tmp_path}/cu.h5#/cu"
    frames = copper()
    assert label(frames, "emt", out) == (4, 0, 0)
    (system,) = read_systems(out)
    for k, atoms in enumerate(frames):
        atoms.calc = EMT()
        np.testing.assert_array_equal(system.coord[k], atoms.positions)
        np.testing.assert_array_equal(system.box[k], atoms.cell[:])
        assert system.labels["energy"][k] == atoms.get_potential_energy()
        np.testing.assert_array_equal(system.labels["force"][k], atoms.get_forces())


def test_virial_is_minus_the_strain_derivative(tmp_path):
    """Central difference, h = 1e-4: an error of h² times a third derivative of some 100 eV, so 1e-5 eV."""
    out = f"{tmp_path}/cu.h5#/cu"
    (atoms,) = copper(1, scale=0.97)
    label([atoms], "emt", out)
    virial = read_systems(out)[0].labels["virial"][0]
    assert np.trace(virial) > 0  # compressed
    for a, b in ((0, 0), (1, 2)):
        energy = []
        for h in (-1e-4, 1e-4):
            strain = np.eye(3)
            strain[a, b] += h / 2
            strain[b, a] += h / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
            moved.calc = EMT()
            energy.append(moved.get_potential_energy())
        assert virial[a, b] == pytest.approx(-(energy[1] - energy[0]) / 2e-4, abs=1e-5)


def test_no_virial_without_three_periodic_axes(tmp_path):
    out = f"{tmp_path}/w.h5#/w"
    slab = copper(1)[0]
    slab.pbc = (True, True, False)
    label([slab], "emt", out)
    assert "virial" not in read_systems(out)[0].labels


def test_no_virial_from_a_calculator_without_stress(tmp_path):
    source = tmp_path / "calculators.py"
    source.write_text(
        "import numpy as np\n"
        "from ase.calculators.calculator import Calculator\n"
        "class Flat(Calculator):\n"
        "    implemented_properties = ['energy', 'forces']\n"
        "    default_parameters = {'level': 0.0}\n"
        "    def calculate(self, atoms=None, properties=None, system_changes=None):\n"
        "        self.results = {'energy': self.parameters.level, 'forces': np.zeros((len(atoms), 3))}\n"
    )
    out = f"{tmp_path}/cu.h5#/cu"
    label(copper(1), f"{source}:Flat", out, options='{"level": 2.5}')
    (system,) = read_systems(out)
    assert system.labels["energy"][0] == 2.5
    assert "virial" not in system.labels


def test_resume_labels_only_what_is_missing(tmp_path, fragile):
    path, out = tmp_path / "cu.xyz", f"{tmp_path}/cu.h5#/cu"
    write(path, copper(5))
    assert label(path, fragile, out, limit=2) == (2, 0, 0)
    fragile.calls = 0
    seen = []
    assert label(path, fragile, out, progress=lambda *counts: seen.append(counts)) == (3, 2, 0)
    assert fragile.calls == 3
    assert seen[-1] == (5, 5, 0)
    assert label(path, fragile, out) == (0, 5, 0)
    assert len(read_systems(out)[0].coord) == 5


def test_failed_frame_is_named_left_out_and_tried_again(tmp_path, fragile):
    out = f"{tmp_path}/cu.h5#/cu"
    fragile.failing = (1,)
    with pytest.warns(FrameSkipped, match=r"frame 1 skipped: SCFError: no convergence"):
        assert label(copper(3), fragile, out) == (2, 0, 1)
    assert label(copper(3), fragile, out) == (1, 2, 0)
    assert len(read_systems(out)[0].coord) == 3


def test_frames_are_on_disk_one_by_one(tmp_path):
    out = f"{tmp_path}/cu.h5"
    lengths = []

    def look(*counts):
        with h5py.File(out) as file:
            lengths.append(len(file["cu/set.000/energy.npy"]))

    label(copper(3), "emt", f"{out}#/cu", progress=look)
    assert lengths == [1, 2, 3]


def test_other_structures_for_the_same_system_are_refused(tmp_path):
    out = f"{tmp_path}/cu.h5#/cu"
    label(copper(2), "emt", out)
    with pytest.raises(DataError, match="found 2 of 2 that are not among them"):
        label(copper(2, scale=1.01), "emt", out)
    with pytest.raises(DataError, match="expected no frames, found 2"):
        label(copper(2), "emt", out, resume=False)


def test_groups_of_one_file_are_apart(tmp_path):
    label(copper(2), "emt", f"{tmp_path}/cu.h5#/a")
    assert label(copper(2, scale=1.01), "emt", f"{tmp_path}/cu.h5#/b") == (2, 0, 0)


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ([], "at least one frame, found none"),
        ([bulk("Cu", cubic=True), bulk("Cu")], "in frame 1"),
        ([Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]), Atoms("OC", [[0, 0, 0], [0, 0, 1.1]])], "order of atoms"),
    ],
)
def test_structures_not_of_one_kind_are_refused(tmp_path, structures, message):
    with pytest.raises(DataError, match=message):
        label(structures, "emt", f"{tmp_path}/cu.h5#/cu")


def test_unreadable_structures_are_refused(tmp_path):
    (tmp_path / "broken.xyz").write_text("3\nhello\nnothing\n")
    with pytest.raises(DataError, match=r"broken\.xyz: not readable by ASE"):
        label(tmp_path / "broken.xyz", "emt", f"{tmp_path}/x.h5#/x")
    with pytest.raises(DataError, match=r"absent\.xyz"):
        label(tmp_path / "absent.xyz", "emt", f"{tmp_path}/x.h5#/x")


def test_a_calculator_that_gives_no_forces_is_refused(tmp_path):
    class Mute(EMT):
        implemented_properties = ["energy"]

    with pytest.raises(DataError, match="no energy or forces"):
        label([molecule("H2")], Mute, f"{tmp_path}/x.h5#/x")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_calculator", None, "not found"),
        ("ase.calculators.emt:NoSuch", None, "not found"),
        ("absent.py:Calc", None, "not found"),
        ("emt", "{broken", "expected a JSON object"),
        ("emt", "[1]", "expected a JSON object"),
        (lambda: None, {"unknown": 1}, "does not take the options"),
    ],
)
def test_bad_calculators_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_calculator(name, options)
