"""Trajectories with known answers: ballistic, diffusive and harmonic motion, crystals, an ideal gas."""

import h5py
import numpy as np
import pytest
from ase import Atoms, io
from ase.build import bulk, molecule
from rich.console import Console

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.evaluate import analyze_plots
from deepmd_lite.evaluate import trajectory as reading
from deepmd_lite.evaluate.analyze import analyze
from deepmd_lite.evaluate.correlations import (
    CM,
    correlate,
    mean_square_displacement,
    power_spectrum,
    velocity_autocorrelation,
)
from deepmd_lite.evaluate.dynamics import radial_distribution
from deepmd_lite.evaluate.structure import RadialCounter
from deepmd_lite.evaluate.trajectory import SuspiciousJump, Trajectory, collect, open_trajectory
from deepmd_lite.units import ACCELERATION, BOLTZMANN


@pytest.fixture
def write(tmp_path):
    """Write an HDF5 trajectory of random walks, with datasets replaced or (None) left out; returns its path."""

    def make(name="run.h5", nframes=40, elements="OHH", **replaced):
        rng = np.random.default_rng(4)
        shape = (nframes, len(elements), 3)
        data = {
            "symbols": np.array(list(elements), "S2"),
            "pbc": np.ones(3, bool),
            "step": 5 * np.arange(nframes),
            "time": 2.5 * np.arange(nframes),
            "energy": rng.normal(size=nframes),
            "cell": np.broadcast_to(10 * np.eye(3), (nframes, 3, 3)),
            "coord": rng.uniform(0, 8, shape[1:]) + np.cumsum(rng.normal(size=shape), axis=0),
            "velocity": rng.normal(size=shape).astype(np.float32),
            "force": np.zeros(shape),
        }
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in (data | replaced).items():
                if value is not None:
                    file[key] = value
        return tmp_path / name

    return make


@pytest.fixture
def distributions(tmp_path):
    """g(r) of frames that never see a file."""

    def make(frames, pairs="all", rmax=6.0, nbins=120):
        symbols = np.array(frames[0].get_chemical_symbols())
        shown = Trajectory(tmp_path, symbols, frames[0].get_masses(), frames[0].pbc, False, False)
        counter = RadialCounter(shown, pairs, rmax, nbins)
        for _ in counter.watch(
            reading.Frame(None, None, None, atoms.cell.array, atoms.positions, None) for atoms in frames
        ):
            pass
        return counter.result()

    return make


@pytest.fixture
def no_pictures(monkeypatch):
    """Names instead of pictures: these take a second each."""
    for name in ("rdf", "msd", "vacf"):
        monkeypatch.setattr(analyze_plots, f"draw_{name}", lambda result, path: path)


def shown(table):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(table)
    return console.export_text()


# diffusion


def test_msd_is_its_definition():
    """Loops over origins; sums of 30 numbers of size 100, so 1e-12 is rounding."""
    rng = np.random.default_rng(0)
    coord = np.cumsum(rng.normal(size=(30, 4, 3)), axis=0)
    mass = np.array([1.0, 2.0, 3.0, 4.0])
    result = mean_square_displacement(np.arange(30.0), coord, list("HHOO"), mass)
    path = coord - (np.einsum("kia,i->ka", coord, mass) / 10)[:, None]
    for element, atoms in (("H", [0, 1]), ("O", [2, 3])):
        for t in range(16):
            square = ((path[t:, atoms] - path[: 30 - t, atoms]) ** 2).sum(axis=2)
            assert result.msd[element][t] == pytest.approx(square.mean(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(result.lag, 1e-3 * np.arange(16), rtol=1e-12)


def test_ballistic_motion():
    """MSD = v² t²; x² reaches 1e6 Å², where rounding is 1e-10 Å², and the smallest MSD is 1e-2 Å²."""
    rng = np.random.default_rng(1)
    velocity = rng.normal(size=(20, 3))
    mass = rng.uniform(1, 50, 20)
    time = 0.1 * np.arange(1000)
    coord = rng.uniform(0, 10, (20, 3)) + time[:, None, None] * velocity
    result = mean_square_displacement(time, coord, ["H"] * 10 + ["O"] * 10, mass)
    relative = velocity - mass @ velocity / mass.sum()
    for element, atoms in (("H", slice(10)), ("O", slice(10, 20))):
        expected = (relative[atoms] ** 2).sum(axis=1).mean() * (1e3 * result.lag) ** 2
        np.testing.assert_allclose(result.msd[element], expected, rtol=1e-7)
        assert not result.diffusion[element].linear


def random_walk(rng, nframes, natoms, variance):
    """Steps of the given variance per component; without its center of mass, which a free walk would keep."""
    steps = rng.normal(scale=np.sqrt(variance), size=(nframes, natoms, 3))
    return np.cumsum(steps, axis=0)


def test_random_walk():
    """MSD = 6 D t with D = variance / 2 dt: 0.02 Å² / 2 / 5 fs, less 1/200 that the center of mass takes."""
    coord = random_walk(np.random.default_rng(2), 4000, 200, 0.02)
    result = mean_square_displacement(5.0 * np.arange(4000), coord, ["Li"] * 200, np.full(200, 6.94))
    d = result.diffusion["Li"]
    expected = 1e3 * 0.02 / 2 / 5 * (1 - 1 / 200)  # Å²/ps
    assert abs(d.coefficient - expected) < 4 * d.error and d.error < 0.02 * expected
    assert d.linear and d.end == pytest.approx(1.0)  # half of a tenth of 20 ps
    assert abs(d.offset) < 0.01 * 12  # 1 % of the MSD there
    row = shown(result.table())
    assert "20.0" in row or "19." in row  # 2 Å²/ps = 20e-5 cm²/s


def test_error_of_the_diffusion_coefficient():
    """Over 100 runs (D - true)/error has at most the mean square of Student's t with 9 degrees of freedom, 9/7.

    At most, since D uses pairs of frames across blocks, too, as the mean of the blocks does not. The standard
    error of that mean square is sqrt((243/35 - (9/7)²) / 100) = 0.23: five of them are allowed.
    """
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(100):
        coord = random_walk(rng, 1000, 20, 0.02)
        result = mean_square_displacement(np.arange(1000.0), coord, ["Li"] * 20, np.ones(20))
        d = result.diffusion["Li"]
        ratios.append((d.coefficient - 10 * (1 - 1 / 20)) / d.error)
    assert 0.5 < np.mean(np.square(ratios)) < 9 / 7 + 1.15
    assert abs(np.mean(ratios)) < 5 * np.sqrt(9 / 7 / 100)


def test_atoms_at_rest_do_not_diffuse():
    coord = np.ones((50, 3, 3)) * np.arange(3)[:, None]
    d = mean_square_displacement(np.arange(50.0), coord, ["C"] * 3, np.ones(3)).diffusion["C"]
    assert abs(d.coefficient) < 1e-10


def test_a_vibration_on_top_leaves_the_coefficient():
    """Uncorrelated noise of variance w adds 6 w to the MSD at all lags: a straight line still, with an offset."""
    rng = np.random.default_rng(8)
    coord = random_walk(rng, 4000, 200, 0.002) + rng.normal(scale=0.2, size=(4000, 200, 3))
    d = mean_square_displacement(5.0 * np.arange(4000), coord, ["Li"] * 200, np.ones(200)).diffusion["Li"]
    assert abs(d.coefficient - 0.2 * (1 - 1 / 200)) < 4 * d.error and d.linear
    assert d.offset == pytest.approx(6 * 0.04, rel=0.02)


def test_a_bound_atom_does_not_diffuse():
    """Ornstein-Uhlenbeck motion with a relaxation time of 4.5 frames: the slope is noise around zero."""
    rng = np.random.default_rng(9)
    coord = np.zeros((3000, 100, 3))
    for k in range(1, 3000):
        coord[k] = 0.8 * coord[k - 1] + 0.1 * rng.normal(size=(100, 3))
    d = mean_square_displacement(np.arange(3000.0), coord, ["Na"] * 100, np.ones(100)).diffusion["Na"]
    assert abs(d.coefficient) < 4 * d.error and d.linear and d.start > 0.01


@pytest.mark.parametrize(
    "time, message",
    [
        (np.arange(19.0), "20 frames or more, found 19"),
        (np.zeros(30), "increasing times"),
        (np.r_[np.arange(20.0), 30 + np.arange(20.0)], "every 1 fs, found frames 19 and 20 at 19 and 30 fs"),
    ],
)
def test_times_that_cannot_be_used(time, message):
    coord = np.zeros((len(time), 2, 3))
    with pytest.raises(DataError, match=message):
        mean_square_displacement(time, coord, ["H", "H"], np.ones(2))
    with pytest.raises(DataError, match=message):
        velocity_autocorrelation(time, coord, ["H", "H"], np.ones(2))


# vibrations


def oscillators(wavenumber, mass, count, time, kT=1.0):
    """Velocities (n, 2 count, 3) of pairs that swing against each other, ⟨m v²⟩ = 3 kT."""
    rng = np.random.default_rng(int(wavenumber))
    phase = rng.uniform(0, 2 * np.pi, (count, 3))
    angle = 2 * np.pi * wavenumber / CM * 1e-3 * time[:, None, None] + phase
    v = np.sqrt(2 * kT / mass) * np.cos(angle)
    return np.concatenate([v, -v], axis=1)


def test_harmonic_oscillators():
    """Lines at 500 and 3,000 cm⁻¹: found within the resolution, with areas as the atoms are many."""
    time = 2.0 * np.arange(4000)
    kT = 300 * BOLTZMANN * ACCELERATION
    velocity = np.concatenate(
        [oscillators(500, 16.0, 20, time, kT), oscillators(3000, 1.0, 30, time, kT)], axis=1
    )
    symbols, mass = ["O"] * 40 + ["H"] * 60, np.repeat([16.0, 1.0], [40, 60])
    result = velocity_autocorrelation(time, velocity, symbols, mass, resolution=12.0)
    assert result.resolution == pytest.approx(12.0, rel=1e-2)
    spacing = result.frequency[1]
    for element, line, share in (("O", 500, 0.4), ("H", 3000, 0.6)):
        spectrum = result.spectrum[element]
        assert abs(result.frequency[np.argmax(spectrum)] - line) <= spacing
        above = result.frequency[spectrum > spectrum.max() / 2]
        assert above[-1] - above[0] == pytest.approx(12.0, abs=2 * spacing)
        # ⟨v²⟩ over whole periods but for one at the end: 1/(2 · 500 cm⁻¹ · 8 ps) is 4e-3
        assert np.trapezoid(spectrum, result.frequency) == pytest.approx(share, rel=1e-2)
        np.testing.assert_allclose(result.peaks(element), [line], atol=spacing)
        wave = np.cos(2 * np.pi * line / CM * result.lag)
        expected = 3 * kT / mass[symbols.index(element)]
        np.testing.assert_allclose(result.correlation[element] / expected, wave, atol=0.02)
    assert np.trapezoid(sum(result.spectrum.values()), result.frequency) == pytest.approx(1, rel=1e-9)
    assert result.weighted[0] == 1


def test_spectrum_in_both_units():
    """A damped cosine of 30 THz (1,000.7 cm⁻¹); the area is C(0) in either unit."""
    dt, lag = 0.002, 0.002 * np.arange(1000)
    c = 2.5 * np.exp(-lag / 0.3) * np.cos(2 * np.pi * 30 * lag)
    thz, s_thz = power_spectrum(dt, c, "THz")
    cm, s_cm = power_spectrum(dt, c)
    assert thz[np.argmax(s_thz)] == pytest.approx(30, abs=0.3)
    np.testing.assert_allclose(cm, thz * 33.3564095198152, rtol=1e-14)
    assert np.trapezoid(s_thz, thz) == pytest.approx(2.5, rel=1e-12)
    assert np.trapezoid(s_cm, cm) == pytest.approx(2.5, rel=1e-12)


def test_correlation_is_its_definition():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 7))
    expected = [(x[t:] * x[: 50 - t]).sum(axis=1).mean() for t in range(26)]
    np.testing.assert_allclose(correlate(x, 26), expected, atol=1e-12)


def test_temperature():
    """300 K whatever the center of mass does; 100 × 9 numbers: 4.7 % standard error of the lighter two."""
    rng = np.random.default_rng(6)
    mass = np.array([100.0, 1.0, 1.0])
    v = rng.normal(size=(2000, 3, 3)) * np.sqrt(300 * BOLTZMANN * ACCELERATION / mass)[:, None] + 0.5
    result = velocity_autocorrelation(np.arange(2000.0), v, ["Ru", "H", "H"], mass)
    for element, ncomponents in (("Ru", 3), ("H", 6)):
        assert abs(result.temperature[element] / 300 - 1) < 5 * np.sqrt(2 / (2000 * ncomponents))
    with pytest.raises(DataError, match="velocities of zero"):
        velocity_autocorrelation(np.arange(50.0), np.zeros((50, 3, 3)), ["Ru", "H", "H"], mass)


# structure


@pytest.mark.parametrize("repeat", [1, 3])
def test_fcc_has_twelve_neighbors(distributions, repeat):
    atoms = bulk("Cu", a=4.0).repeat(repeat)
    (pair,) = distributions([atoms, atoms]).pairs
    peak, height, minimum, n = pair.shell()
    assert n == pytest.approx(12, rel=1e-12) and peak == pytest.approx(4 / np.sqrt(2), abs=0.03)
    assert 2.83 < minimum < 4.0 and height == pair.g.max()
    assert pair.neighbors[pair.r < 4.1][-1] == pytest.approx(18, rel=1e-12)


def test_rocksalt_counts_both_ways(distributions):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    result = distributions([atoms], "Na-Cl,Cl-Cl", rmax=5.0)
    assert [p.pair for p in result.pairs] == [("Na", "Cl"), ("Cl", "Cl")]
    assert [p.shell()[3] for p in result.pairs] == pytest.approx([6, 12])
    assert "Na-Cl" in shown(result.table())


def test_ideal_gas_is_one(distributions):
    """As in test_dynamics, and the very numbers of radial_distribution."""
    rng = np.random.default_rng(0)
    frames = [Atoms("H600He400", rng.uniform(0, 12, (1000, 3)), cell=3 * [12], pbc=True) for _ in range(5)]
    result = distributions(frames, rmax=6.0, nbins=6)
    assert [p.pair for p in result.pairs] == [("H", "H"), ("H", "He"), ("He", "He")] and result.nframes == 5
    for p in result.pairs:
        assert np.abs(p.g[2:] - 1).max() < 0.03 and p.shell() is None
        np.testing.assert_allclose(p.g, radial_distribution(frames, p.pair, 6.0, 6)[1], rtol=1e-12)
    density = 400 / 12**3
    volume = 4 / 3 * np.pi * 6.0**3
    assert result.pairs[1].neighbors[-1] == pytest.approx(density * volume, rel=0.01)
    assert result.pairs[1].ratio == 1.5


def test_molecule(distributions):
    water = molecule("H2O")
    result = distributions([water], rmax=3.0, nbins=300)
    oh, hh = result.pairs
    assert not oh.crystal_like and (oh.shell()[3], oh.ratio) == (2, 0.5) and hh.shell()[3] == 1
    np.testing.assert_allclose(oh.g, radial_distribution([water], ("O", "H"), 3.0, 300)[1], rtol=1e-12)


def test_pairs_that_are_not_there(distributions):
    for pairs in ("O-C", "O", "O-H-H", "", [("O", "C")]):
        with pytest.raises(ConfigError, match="expected pairs such as O-H of the elements O, H"):
            distributions([molecule("H2O")], pairs)
    with pytest.raises(DataError, match="no pair H-H within 1 Å"):
        distributions([molecule("H2O")], "H-H", rmax=1.0)


# files


@pytest.mark.parametrize("suffix, digits", [("traj", 1e-10), ("extxyz", 3e-8)])  # extxyz holds 8 decimals
def test_wrapped_is_unwrapped(tmp_path, suffix, digits):
    """Steps of 0.3 Å in a triclinic cell 4 Å thick, over many cells; open along z."""
    rng = np.random.default_rng(7)
    cell = np.array([[5.0, 0, 0], [1.5, 4.5, 0], [-1, 1, 6]])
    coord = np.cumsum(rng.normal(scale=0.3, size=(400, 5, 3)), axis=0) + rng.uniform(0, 4, (5, 3))
    coord += np.arange(400)[:, None, None] * 0.2
    frames = [Atoms("OHHOH", x, cell=cell, pbc=(True, True, False)) for x in coord]
    for k, atoms in enumerate(frames):
        atoms.set_momenta(np.full((5, 3), float(k)))
        atoms.wrap()
    scaled = np.array([np.linalg.solve(cell.T, x.T).T for x in coord])
    assert np.ptp(scaled[:, :, :2], axis=0).max() > 5
    assert all(
        np.abs(atoms.get_scaled_positions(wrap=False)[:, :2] - 0.5).max() <= 0.5 + 1e-6 for atoms in frames
    )
    io.write(tmp_path / f"run.{suffix}", frames)
    trajectory = open_trajectory(tmp_path / f"run.{suffix}", every=7, skip=2, dt=4.0)
    assert trajectory.has_velocity and trajectory.natoms == 5
    series = collect(trajectory, velocity=True)
    expected = coord[2::7] - coord[0] + frames[0].positions  # images count from where the file begins
    np.testing.assert_allclose(series.coord, expected, atol=10 * digits)
    np.testing.assert_allclose(series.time, 4.0 * np.arange(2, 400, 7))
    speed = np.arange(2, 400, 7)[:, None] / frames[0].get_masses() * np.sqrt(ACCELERATION)  # amu Å/fs to eV
    np.testing.assert_allclose(series.velocity[:, :, 0], speed, rtol=1e-4)


def test_jumps_of_half_a_cell_are_noticed(tmp_path):
    frames = [Atoms("He", [[x, 0, 0]], cell=[4, 4, 4], pbc=True) for x in (0.0, 1.0, 2.7, 1.0)]
    io.write(tmp_path / "run.traj", frames)
    with pytest.warns(SuspiciousJump, match=r"run.traj@2: atom 0 moved by 0.43 of the cell") as seen:
        assert len(list(open_trajectory(tmp_path / "run.traj"))) == 4
    assert len(seen) == 1


def test_hdf5(write, monkeypatch):
    path = write()
    with h5py.File(path) as file:
        raw = {key: file[key][()] for key in ("coord", "velocity", "time", "step", "energy")}
    for block in (1, reading.BLOCK):
        monkeypatch.setattr(reading, "BLOCK", block)
        frames = list(open_trajectory(path, every=3, skip=4))
        assert [f.step for f in frames] == raw["step"][4::3].tolist()
        for key in raw:
            np.testing.assert_array_equal([getattr(f, key) for f in frames], raw[key][4::3])
    trajectory = open_trajectory(path, dt=7.0)
    assert [f.time for f in trajectory] == [7.0 * k for k in range(40)]
    np.testing.assert_allclose(trajectory.mass, [15.999, 1.008, 1.008])
    assert open_trajectory(write(mass=[16.0, 2.0, 2.0])).mass.tolist() == [16, 2, 2]


def test_only_what_is_needed_is_read(write):
    trajectory = open_trajectory(
        write(energy=None, velocity=None, step=None, force=None, pbc=3 * [False], cell=np.zeros((40, 3, 3)))
    )
    frame = next(iter(trajectory))
    assert (frame.energy, frame.velocity, frame.step) == (None, None, None) and not trajectory.has_velocity


def test_a_breathing_cell_moves_no_atom(write):
    """At rest in the home cell, three cells away as the file counts: at constant pressure paths stay as they are."""
    length = 10 + np.sin(np.arange(40.0))
    cell = length[:, None, None] * np.eye(3)
    rest = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 0.5]])
    coord = rest + np.array([[3.0, -2, 0]]) * length[:, None, None]
    still = collect(open_trajectory(write("still.h5", coord=coord))).coord
    np.testing.assert_array_equal(still, coord)
    path = collect(open_trajectory(write(coord=coord, cell=cell))).coord
    assert np.ptp(path, axis=0).max() < 1e-12 < 1 < np.ptp(coord, axis=0).max()


BAD = {
    "coord": [np.zeros((40, 3, 2)), np.zeros((39, 3, 3)), np.zeros((40, 4, 3)), np.zeros(()), None],
    "cell": [np.zeros((40, 3, 3)), np.ones((3, 3)), None],
    "time": [np.zeros(41), np.zeros((40, 1))],
    "velocity": [np.zeros((40, 2, 3)), np.array(["x"] * 40, "S1")],
    "pbc": [[True], None],
    "symbols": [np.array(["O", "H"], "S1"), np.array(["O", "Qq", "H"], "S2"), np.zeros(3), None],
    "mass": [[1.0, 1.0], [1.0, -1.0, 1.0]],
}


@pytest.mark.parametrize("key, k", [(key, k) for key, values in BAD.items() for k in range(len(values))])
def test_bad_hdf5(write, key, k):
    with pytest.raises(DataError, match=r"run\.h5"):
        list(open_trajectory(write(**{key: BAD[key][k]})))


def test_bad_files(write, tmp_path):
    coord = np.zeros((40, 3, 3))
    coord[17, 1, 2] = np.nan
    for key in ("coord", "velocity"):
        with pytest.raises(DataError, match=f"run.h5: frame 17: expected finite {key}"):
            list(open_trajectory(write(**{key: coord})))
    with h5py.File(write("link.h5", coord=None), "r+") as file:
        file["coord"] = h5py.ExternalLink("run.h5", "/coord")
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "text.extxyz").write_text("2\n\nH 0 0 0\n")
    for name in ("link.h5", "text.h5", "text.extxyz", "missing.h5", "missing.traj", "."):
        with pytest.raises(DataError, match=name if name != "." else "a folder"):
            list(open_trajectory(tmp_path / name))
    io.write(tmp_path / "two.extxyz", [molecule("H2O"), molecule("CO2")])
    with pytest.raises(DataError, match=r"two.extxyz@1: expected the atoms .* of the first frame, found CO2"):
        list(open_trajectory(tmp_path / "two.extxyz"))
    io.write(tmp_path / "flat.traj", [Atoms("H2", cell=[1, 1, 0], pbc=(True, True, True))])
    with pytest.raises(DataError, match=r"flat.traj@0: axis 2 is periodic"):
        list(open_trajectory(tmp_path / "flat.traj"))


def test_bad_options(write):
    for options in ({"every": 0}, {"skip": -1}, {"dt": 0.0}, {"dt": float("nan")}):
        with pytest.raises(ConfigError, match="expected"):
            open_trajectory(write(), **options)
    with pytest.raises(DataError, match="none after the first 40"):
        collect(open_trajectory(write(), skip=40))


# the command


def test_everything(write, tmp_path):
    result = analyze(write(nframes=60), tmp_path / "new" / "out")
    assert result.notes == [] and len(result.tables()) == 3
    names = {f.name for f in result.files}
    assert names == {"rdf.txt", "rdf.png", "msd.txt", "msd.png", "vacf.txt", "vacf_spectrum.txt", "vacf.png"}
    for file in result.files:
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG")
    assert np.loadtxt(tmp_path / "new" / "out" / "rdf.txt").shape == (200, 5)  # there is no O-O
    msd = np.loadtxt(tmp_path / "new" / "out" / "msd.txt")
    np.testing.assert_allclose(msd[:, 1:].T, list(result.displacement.msd.values()), rtol=1e-6)
    assert np.loadtxt(tmp_path / "new" / "out" / "vacf.txt").shape[1] == 4
    assert np.loadtxt(tmp_path / "new" / "out" / "vacf_spectrum.txt").shape[1] == 5
    assert result.rdf.nframes == 8  # 20 fs apart of 150
    text = " ".join("".join(map(shown, result.tables())).split())  # whatever the width
    for word in ("First shells", "O-H", "Diffusion", "Vibrations", "frames resolve up to 6671 cm⁻¹"):
        assert word in text


def test_all_that_the_trajectory_allows(write, tmp_path, no_pictures):
    result = analyze(write(velocity=None), tmp_path)
    assert result.vibrations is None and result.displacement and "no velocities" in result.notes[0]
    result = analyze(write(time=None), tmp_path)
    assert result.displacement is None and result.rdf.nframes == 40 and "no time" in result.notes[0]
    result = analyze(write(nframes=3), tmp_path)
    assert (
        result.displacement is None and "20 frames or more" in result.notes[0] and len(result.tables()) == 1
    )
    assert analyze(write(time=None), tmp_path, dt=2.5).displacement


def test_what_is_asked_for_must_be_there(write, tmp_path, no_pictures):
    for options, data, message in (
        ({"msd": True}, {"time": None}, "run.h5: has no time; give dt"),
        ({"vacf": True}, {"velocity": None}, "run.h5: has no velocities"),
        ({"msd": True}, {"nframes": 3}, "run.h5: .*20 frames or more, found 3"),
        ({"rdf": "all", "skip": 40}, {}, "run.h5: expected frames"),
        ({"rdf": "O-O"}, {}, "run.h5: .*no pair O-O"),
    ):
        with pytest.raises(DataError, match=message):
            analyze(write(**data), tmp_path, **options)
    assert [f.name for f in analyze(write(), tmp_path, rdf="O-H").files] == ["rdf.txt", "rdf.png"]
