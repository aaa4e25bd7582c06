"""What `check` says about data that are wrong in one way each, and that it is silent about good data."""

import itertools

import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from rich.console import Console

from deepmd_lite.errors import ConfigError
from deepmd_lite.frames.check import check
from deepmd_lite.frames.geometry import closest_pair
from deepmd_lite.frames.sanity import work_along_trajectory
from deepmd_lite.frames.store import System, write_system
from deepmd_lite.units import BOHR, HARTREE


@pytest.fixture(scope="module")
def trajectory():
    """Thirty frames of NVE by EMT, 2 fs apart: forces are derivatives of the energies."""
    atoms = bulk("Cu", cubic=True).repeat(2)
    rng = np.random.default_rng(0)
    atoms.set_velocities(rng.normal(0, 0.02, (32, 3)))
    atoms.calc = EMT()
    rows = {"coord": [], "energy": [], "force": [], "virial": []}

    def keep():
        rows["coord"].append(atoms.get_positions(wrap=True))  # wrapping must not matter
        rows["energy"].append(atoms.get_potential_energy())
        rows["force"].append(atoms.get_forces())
        rows["virial"].append(-atoms.get_stress(voigt=False) * atoms.get_volume())

    md = VelocityVerlet(atoms, 2 * fs)
    md.attach(keep)
    md.run(30)
    arrays = {key: np.array(value) for key, value in rows.items()}
    return arrays, np.array(atoms.cell)


@pytest.fixture
def copper(trajectory):
    arrays, cell = trajectory
    labels = {key: arrays[key].copy() for key in ("energy", "force", "virial")}
    n = len(labels["energy"])
    return System(
        name="copper",
        type_map=("Cu",),
        atype=np.zeros(32, dtype=np.int32),
        coord=arrays["coord"].copy(),
        box=np.repeat(cell[None], n, axis=0),
        pbc=np.ones(3, dtype=bool),
        labels=labels,
        found={key: np.ones(n, dtype=bool) for key in labels},
    )


def complaints(system, **options):
    report = check([system], **options)
    return [f"{f.severity}: {f.message}" for f in report.findings if f.severity != "note"]


def test_good_data_pass(copper):
    assert complaints(copper, rcut=4.0) == []


def test_forces_follow_energies(copper):
    """The trapezoid rule errs by order step³: 2 fs steps leave far less than 1 % of the work."""
    work = work_along_trajectory(copper)
    assert work.steps == 30
    assert abs(work.slope - 1) < 0.01
    assert work.correlation > 0.999


@pytest.mark.parametrize(
    ("label", "factor", "message"),
    [
        ("force", -1.0, "wrong sign"),
        ("force", BOHR / HARTREE, "forces in Hartree/Bohr"),
        ("energy", 1 / HARTREE, "energies in Hartree"),
        ("energy", 2.0, "energy changes by 2"),
        ("force", 1 / BOHR, "energy changes by 0.529 times the work of the forces: coordinates in Bohr"),
    ],
)
def test_forces_against_energies(copper, label, factor, message):
    copper.labels[label] *= factor
    assert any(message in c for c in complaints(copper, rcut=4.0))


def test_forces_of_other_frames(copper):
    copper.labels["force"] = copper.labels["force"][np.random.default_rng(0).permutation(31)]
    assert any("do not follow the energies" in c for c in complaints(copper, rcut=4.0))


def test_float32_totals(copper):
    copper.labels["energy"] -= 30_000.0  # eV; float32 steps are 2 meV there, 0.06 meV per atom
    copper.source_dtype["energy"] = "float32"
    (complaint,) = complaints(copper, rcut=4.0)
    assert "float32: 0.061 meV per atom" in complaint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.labels["force"].__setitem__((3, 0, 0), 50.0), "forces add up to"),
        (lambda s: s.labels["virial"].__setitem__((3, 0, 1), 50.0), "virial is not symmetric"),
        (lambda s: s.labels["virial"].__imul__(1e-4), "a stress in eV/Å³ in their place"),
        (lambda s: s.coord.__setitem__(7, s.coord[2]), r"1 frames also occur in itself \(2 = 7\)"),
        (lambda s: s.coord.__setitem__((4, 1), s.coord[4, 0] + [0.3, 0, 0]), "0.3 Å apart"),
        (lambda s: s.labels.pop("force") is s.found.pop("force"), "no force"),
        (lambda s: s.labels["energy"].__setitem__(3, np.inf), "error: energy of frame 3 holds inf"),
    ],
)
def test_one_flaw_each(copper, change, message):
    import re

    change(copper)
    assert any(re.search(message, c) for c in complaints(copper, rcut=4.0))


@pytest.mark.parametrize(
    ("scale", "message"),
    [(1 / BOHR, "may be Bohr"), (BOHR, "converted a second time"), (0.1, "is the cell in nm?")],
)
def test_lengths(copper, scale, message):
    copper.coord *= scale
    copper.box *= scale
    assert any(message in c for c in complaints(copper, rcut=2.0))


def test_transposed_cell(make_water):
    water = make_water()
    water.box[:] = [[6.0, 0, 0], [3.0, 6.5, 0], [2.0, 2.0, 7.0]]
    fraction = np.random.default_rng(0).random((5, 6, 3))
    water.coord = fraction @ water.box
    assert not any("transposed" in c for c in complaints(water))
    water.box = water.box.transpose(0, 2, 1).copy()
    assert any("is it transposed?" in c for c in complaints(water))


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_neighbor_statistics_by_brute_force(make_water, pbc):
    """Cell 6 to 7 Å, cutoff 8 Å: images of the atom itself count."""
    water, rcut = make_water(nframes=3, pbc=pbc), 8.0
    images = np.array([n for n in itertools.product(range(-3, 4), repeat=3) if not np.any(n * ~water.pbc)])
    most, nearest = np.zeros(2, dtype=int), np.inf
    for frame in range(3):
        shift = images @ water.box[frame] if water.box is not None else images @ np.zeros((3, 3))
        step = water.coord[frame][None, None] + shift[:, None, None] - water.coord[frame][None, :, None]
        distance = np.linalg.norm(step, axis=-1)  # (image, i, j)
        near = (distance < rcut) & (distance > 0)
        nearest = min(nearest, distance[near].min())
        for t in range(2):
            most[t] = max(most[t], near[:, :, water.atype == t].sum(axis=(0, 2)).max())
    report = check([water], rcut=rcut)
    assert report.neighbors.tolist() == most.tolist()
    assert abs(report.statistics[0].closest.distance - nearest) < 1e-12  # Å, rounding
    assert report.sel == [max(4, -4 * (-int(np.ceil(n * 1.1)) // 4)) for n in most]


def test_lone_atom():
    system = System("h", ("H",), np.zeros(1, np.int32), np.zeros((1, 1, 3)), None, np.zeros(3, bool))
    report = check([system])
    assert report.neighbors.tolist() == [0]
    assert report.sel == [4]
    assert closest_pair(system, 0).distance == np.inf


def test_report_reads_well(copper):
    console = Console(width=120, record=True)
    console.print(check([copper], rcut=4.0).render())
    text = console.export_text()
    for word in ("copper", "Cu32", "xyz", "energy force virial", "sel [", "work of the forces"):
        assert word in text


def test_unreadable_data_are_an_error_of_the_report(tmp_path):
    report = check([str(tmp_path / "nothing.h5")])
    assert not report.ok
    assert report.findings[0].message == "no such file or directory"


def test_an_error_has_one_address(tmp_path, make_water):
    """The exact one, even where the frames were asked for by less."""
    write_system(f"{tmp_path}/a.h5#/water", make_water())
    write_system(f"{tmp_path}/b", make_water())
    (tmp_path / "b" / "set.000" / "force.npy").write_bytes(b"")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["water/set.000/energy.npy"][0] = np.nan
    first, second = check([f"{tmp_path}/a.h5", f"{tmp_path}/b/"]).findings
    assert (first.system, first.message[:6]) == (f"{tmp_path}/a.h5#/water", "energy")
    assert (second.system, second.message[:3]) == (f"{tmp_path}/b/set.000/force.npy", "not")


def test_long_names_are_folded(copper):
    copper.name = "folder/" * 12 + "copper"
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(check([copper], rcut=4.0).render())
    shown = console.export_text()
    assert "…" not in shown and "per" in shown


@pytest.mark.parametrize("rcut", [0.0, -1.0, 30.1, float("nan")])
def test_absurd_cutoffs_are_refused(copper, rcut):
    with pytest.raises(ConfigError, match="more than 0 and at most 30 Å"):
        check([copper], rcut=rcut)
