"""The last layer: features against the engine, refits against least squares, left out against refits without."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms

from deepmd_lite import DP, CompiledPot, model_file, read_model, read_systems, write_model
from deepmd_lite.engine.last_layer import Features, coefficients, with_coefficients
from deepmd_lite.errors import ConfigError, DataError, ModelFileError
from deepmd_lite.evaluate.last_layer import WIDTH, LastLayer
from deepmd_lite.evaluate.model_devi import model_deviation
from deepmd_lite.evaluate.refit import refit_model
from deepmd_lite.frames.system import System

LINEAR = 1e-10  # relative: rounding of sums over neighbors and features, in another order
BOX = np.array([[5.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.7, 0.4, 6.0]])  # cutoff 4 Å: atoms see their own images
SHAPES = {
    "one-sided": {},
    "two-sided": {"one_side": False},
    "resnet_dt": {"resnet_dt": True},
    "beyond sel": {"sel": 4},
    "atom_ener": {"atom_ener": [None, 1.0]},
    "atom_ener, fparam": {"atom_ener": [None, 1.0], "fparam": 1},
    "fparam, aparam": {"fparam": 2, "aparam": 1},
    "pair_exclude_types": {"pair_exclude_types": [(0, 1)]},
    "atom_exclude_types": {"atom_exclude_types": [1]},
    "exclude_types": {"exclude_types": [(0, 1)], "davg": False, "one_side": False},
    "relu, which tables leave to the net": {"act": "relu"},
}

pytestmark = pytest.mark.filterwarnings("ignore:an atom has")


def structure(seed=3):
    """Eight atoms in BOX."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3, indexing="ij"), -1).reshape(-1, 3)
    return (sites + rng.uniform(-0.05, 0.05, sites.shape)) @ BOX, np.array([0, 1, 1, 0, 1, 1, 0, 1], np.int32)


@pytest.fixture
def make_system():
    """A factory: frames labelled by another random model plus noise, which a refit cannot reach."""

    def make(teacher, nframes=12, labels=("energy", "force", "virial")):
        rng = np.random.default_rng(5)
        frames = [structure(seed) for seed in range(nframes)]
        atype = frames[0][1]
        potential = CompiledPot(teacher)
        found = [potential.evaluate(coord, atype, BOX, [True] * 3) for coord, _ in frames]
        values = {k: np.array([getattr(p, k) for p in found]) for k in labels}
        values = {k: v + rng.normal(0, 0.01, v.shape) for k, v in values.items()}
        return System(
            name="frames",
            type_map=tuple(teacher.type_map),
            atype=atype,
            coord=np.array([coord for coord, _ in frames]),
            box=np.broadcast_to(BOX, (nframes, 3, 3)).copy(),
            pbc=np.ones(3, bool),
            labels=values,
            found={k: np.ones(nframes, bool) for k in values},
        )

    return make


@pytest.fixture
def student(random_model):
    return random_model(sel=50, seed=1)


@pytest.fixture
def system(random_model, make_system):
    return make_system(random_model(sel=50, seed=2))


def loss(model, system, w_energy=1.0, w_force=1.0, w_virial=0.0):
    """The loss per frame, by the engine."""
    total, potential = 0.0, CompiledPot(model)
    for k in range(system.nframes):
        p = potential.evaluate(system.coord[k], system.atype, system.box[k], system.pbc)
        for key, weight in (("energy", w_energy), ("force", w_force), ("virial", w_virial)):
            error = getattr(p, key) - system.labels[key][k]
            total += weight / system.natoms * np.mean(error**2) * (system.natoms if key == "force" else 1)
    return total / system.nframes


def assert_linear(model, frame, **parameters):
    rows, c = Features(model)(*frame, **parameters), coefficients(model)
    expected = CompiledPot(model).evaluate(*frame, **parameters)
    assert abs(expected.force).max() > 1e-4
    assert rows.energy @ c + rows.constant == pytest.approx(expected.energy, rel=LINEAR)
    for key in ("force", "virial"):
        found, right = getattr(rows, key) @ c, getattr(expected, key)
        np.testing.assert_allclose(found, right, rtol=0, atol=LINEAR * abs(right).max(), err_msg=key)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_features_give_the_model(random_model, shape):
    model = random_model(**{"sel": 50, **shape})
    rng = np.random.default_rng(1)
    parameters = {}
    if model.fitting.numb_fparam:
        parameters["fparam"] = rng.normal(size=model.fitting.numb_fparam)
    if model.fitting.numb_aparam:
        parameters["aparam"] = rng.normal(size=(8, 1))
    assert_linear(model, (*structure(), BOX, [True] * 3), **parameters)


@pytest.mark.parametrize("width", [36, 18, 9])
def test_features_of_a_net_that_passes_the_descriptor_on(random_model, width):
    """Descriptors of 18 numbers: the first layer doubles, keeps or changes the width."""
    model = random_model(sel=50)
    rng = np.random.default_rng(2)
    first = model_file.Layer(rng.normal(0, 0.2, (18, width)), rng.normal(size=width), None, "tanh", True)
    last = model_file.Layer(rng.normal(0, 0.2, (width, 1)), np.zeros(1), None, "none", False)
    model = replace(model, fitting=replace(model.fitting, neuron=(width,), nets=[[first, last]] * 2))
    assert_linear(model, (*structure(), BOX, [True] * 3))


@pytest.mark.parametrize("name", ["one_sided_triclinic", "two_sided_small_cell", "cluster_nopbc"])
def test_features_of_golden_models(golden, name):
    with np.load(golden / f"{name}.npz") as z:
        periodic = z["box"].size > 0
        frame = z["coord"][0], z["atype"], z["box"][0] if periodic else None, [periodic] * 3
        assert_linear(read_model(golden / f"{name}.dp"), frame)


def test_threads_share_the_atoms(student):
    one, three = (Features(student, threads=n)(*structure(), BOX, [True] * 3) for n in (1, 3))
    np.testing.assert_allclose(three.force, one.force, rtol=0, atol=1e-13 * abs(one.force).max())


def test_a_table_of_pairs_is_refused():
    model = read_model(Path(__file__).parents[1] / "model/golden_zbl/zbl.dp")
    with pytest.raises(ConfigError, match="pair table"):
        LastLayer(model)


@pytest.mark.parametrize("weights", [{}, {"w_energy": 0.0}, {"w_energy": 2.0, "w_virial": 0.5}])
def test_refit_is_the_minimum(student, system, weights):
    """The stated losses are the engine's, and no step from the minimum lowers it. A quadratic form is rounded
    relative to its largest terms, which are those of the loss before."""
    found = LastLayer(student, **weights).fit([system], ridge=0).refit()
    assert found.before == pytest.approx(loss(student, system, **weights), rel=1e-8)
    assert found.after == pytest.approx(loss(found.model, system, **weights), rel=0, abs=1e-9 * found.before)
    assert found.after < 0.9 * found.before
    assert found.minimum == pytest.approx(found.after, rel=0, abs=1e-9 * found.before)
    c, rng = coefficients(found.model), np.random.default_rng(0)
    for _ in range(3):
        d = rng.normal(0, 1e-3, c.shape)
        slope = [loss(with_coefficients(found.model, c + t * d), system, **weights) for t in (-1, 0, 1)]
        assert slope[1] < min(slope[0], slope[2])
        assert abs(slope[2] - slope[0]) < 1e-3 * (
            slope[0] + slope[2] - 2 * slope[1]
        )  # symmetric: a stationary point


def test_refit_equals_least_squares(student, system):
    """All rows at once, without the directions that normal equations cannot see: those below sqrt(K eps)."""
    features, c, phi, y = Features(student), coefficients(student), [], []
    for k in range(system.nframes):
        rows = features(system.coord[k], system.atype, system.box[k], system.pbc)
        phi += [rows.energy[None] / np.sqrt(8), rows.force.reshape(24, -1) / np.sqrt(24)]
        energy = system.labels["energy"][k] - rows.constant
        y += [np.array([energy]) / np.sqrt(8), system.labels["force"][k].ravel() / np.sqrt(24)]
    phi, y = np.concatenate(phi), np.concatenate(y)
    seen = np.sqrt(len(c) * np.finfo(float).eps)
    best = np.sum((y - phi @ np.linalg.lstsq(phi, y, rcond=seen)[0]) ** 2) / system.nframes
    found = LastLayer(student).fit([system], ridge=0).refit()
    assert found.before == pytest.approx(np.sum((y - phi @ c) ** 2) / system.nframes, rel=1e-10)
    assert found.after == pytest.approx(best, rel=0, abs=1e-9 * found.before)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_second_refit_changes_nothing(student, system, precision):
    """Never a larger loss, whatever the rounding of weights."""
    if precision == "float32":
        nets = [
            [replace(l, w=l.w.astype("f4"), b=l.b.astype("f4")) for l in net] for net in student.fitting.nets
        ]
        student = replace(student, fitting=replace(student.fitting, nets=nets, precision="float32"))
    first = LastLayer(student).fit([system], ridge=0).refit()
    second = LastLayer(first.model).fit([system], ridge=0).refit()
    assert second.after <= second.before * (1 + 1e-10)
    assert second.after == pytest.approx(first.after, rel=0, abs=1e-9 * first.before)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2])
def test_leave_one_out_equals_refits(student, system, ridge):
    found = LastLayer(student, w_virial=0.3).fit([system], ridge).leave_one_out([system])[0]
    for k in (0, 7):
        rest = system.select([j for j in range(system.nframes) if j != k])
        model = LastLayer(student, w_virial=0.3).fit([rest], ridge).refit().model
        p = CompiledPot(model).evaluate(system.coord[k], system.atype, system.box[k], system.pbc)
        for key in ("energy", "force", "virial"):
            np.testing.assert_allclose(
                getattr(found, key)[k], system.labels[key][k] - getattr(p, key), rtol=0, atol=1e-6
            )


def test_the_ridge_is_that_of_the_smallest_loss_left_out(student, system):
    layer = LastLayer(student).fit([system])
    chosen = layer.ridge

    def left_out(ridge):
        values = layer.fit([system], ridge).leave_one_out([system])[0]
        return np.sum(values.energy**2 / 8) + np.sum(values.force**2 / 24)

    assert left_out(chosen) < min(left_out(100 * chosen), left_out(chosen / 100))


def test_twice_the_frames_half_the_variance(student, system):
    """With twice the ridge, which is what the mean eigenvalue makes of it."""
    one = LastLayer(student).fit([system], 1e-4)
    two = LastLayer(student).fit([system, system], 2e-4)
    np.testing.assert_allclose(
        2 * two.std([system])[0].force ** 2, one.std([system])[0].force ** 2, rtol=1e-6
    )
    assert one.effective_dimension == pytest.approx(two.effective_dimension)
    assert 0 < one.effective_dimension < one.features.size


def test_calibration(student, system):
    layer = LastLayer(student).fit([system], 1e-4)
    shares = layer.calibrate([system])
    assert layer.coverage([system])["force"] == pytest.approx(0.9, abs=0.01)  # a quantile of 288 numbers
    assert set(shares) == {"energy", "force", "virial"} and 0.8 < shares["force"] < 1
    error, sigma = layer.leave_one_out([system])[0].force, layer.std([system])[0].force
    layer.calibrate([system], left_out=True)
    sigma = layer.std([system])[0].force
    assert np.mean(abs(error) <= WIDTH * sigma) == pytest.approx(0.9, abs=0.01)


def test_labels_that_are_missing(student, random_model, make_system):
    system = make_system(random_model(sel=50, seed=2), labels=("force",))
    layer = LastLayer(student).fit([system])
    assert set(layer.calibrate([system])) == {"force"}
    assert np.isnan(layer.leave_one_out([system])[0].energy).all()
    assert (layer.posterior.scale == layer.posterior.scale[1]).all()
    with pytest.raises(DataError, match="expected labels that have a weight"):
        LastLayer(student, w_force=0).fit([system])


@pytest.mark.parametrize(
    "weights", [{"w_force": -1.0}, {"w_energy": 0, "w_force": 0}, {"w_energy": float("nan")}]
)
def test_weights_that_cannot_be(student, weights):
    with pytest.raises(ConfigError, match="weights"):
        LastLayer(student, **weights)


@pytest.mark.parametrize("ridge", [-1.0, "least", float("inf")])
def test_ridges_that_cannot_be(student, system, ridge):
    with pytest.raises(ConfigError, match="ridge"):
        LastLayer(student).fit([system], ridge)


def test_before_a_fit(student, system):
    with pytest.raises(ConfigError, match=r"fit\(frames\)"):
        LastLayer(student).refit()
    with pytest.raises(ConfigError, match="dplite refit"):
        LastLayer(student).std([system])


@pytest.fixture
def refitted(golden, frames, tmp_path):
    """A golden model with a posterior in its file, and the address of its frames."""
    address = frames()
    refit_model(golden / "one_sided_triclinic.dp", address, tmp_path / "refit.dp")
    return tmp_path / "refit.dp", address


def test_the_file_holds_it(refitted, golden, frames, tmp_path):
    path, address = refitted
    model = read_model(path)
    again = tmp_path / "again.dp"
    write_model(again, model)
    for key in ("factor", "scale"):
        assert np.array_equal(getattr(read_model(again).posterior, key), getattr(model.posterior, key))
    kept = tmp_path / "kept.dp"
    refit_model(golden / "one_sided_triclinic.dp", address, kept, validation=address, keep_weights=True)
    before, after = (
        coefficients(read_model(golden / "one_sided_triclinic.dp")),
        coefficients(read_model(kept)),
    )
    assert np.array_equal(before, after) and read_model(kept).posterior is not None


@pytest.mark.parametrize(
    "name, change, match",
    [
        ("scale", lambda g: g.__setitem__("scale", np.ones(2)), r"last_layer/scale: expected shape \(3,\)"),
        ("scale", lambda g: g.__setitem__("scale", -np.ones(3)), "positive"),
        ("scale", lambda g: g.__setitem__("scale", np.ones(3, "f4")), "expected float64"),
        ("factor", lambda g: g.__setitem__("factor", np.eye(3)), "last_layer/factor: expected shape"),
        ("factor", lambda g: g.__setitem__("factor", np.full((82, 82), np.nan)), "last_layer/factor"),
        ("factor", lambda g: None, "factor.*not in the file"),
    ],
)
def test_damaged_covariances_are_refused(refitted, name, change, match):
    path, _ = refitted
    with h5py.File(path, "r+") as file:
        group, name = (
            file["last_layer"],
            "scale" if "scale" in match or "posit" in match or "64" in match else "factor",
        )
        del group[name]
        change(group)
    with pytest.raises(ModelFileError, match=match):
        read_model(path)


def test_calculator(refitted):
    """Spreads of n samples scatter by 1/sqrt(2n), 2 % of n = 1000; of 72 components the worst by 3.5 times that."""
    path, address = refitted
    [system] = read_systems(address, read_model(path).type_map)
    exact = LastLayer(read_model(path)).std([system])[0]
    atoms = Atoms(system.symbols, system.coord[0], cell=system.box[0], pbc=True)
    atoms.calc = DP(path, uncertainty=1000)
    assert atoms.get_potential_energy() == pytest.approx(DP(path).get_potential_energy(atoms), rel=1e-12)
    np.testing.assert_allclose(atoms.calc.results["forces_std"], exact.force[0], rtol=0.1)
    assert atoms.calc.results["energy_std"] == pytest.approx(exact.energy[0], rel=0.1)
    assert DP(path, uncertainty=True).get_potential_energy(atoms) and "forces_std" not in DP(path).results


def test_calculator_without_a_covariance(golden, refitted):
    with pytest.raises(ConfigError, match="dplite refit"):
        DP(golden / "one_sided_triclinic.dp", uncertainty=True)
    with pytest.raises(ConfigError, match="expected one model"):
        DP([refitted[0]] * 2, uncertainty=True)
    with pytest.raises(ConfigError, match="number of samples"):
        DP(refitted[0], uncertainty=-1)


def test_deviation_of_one_model(refitted, golden):
    path, address = refitted
    [found] = model_deviation(path, address).systems
    [system] = read_systems(address, read_model(path).type_map)
    std = LastLayer(read_model(path)).std([system])[0]
    f, v = np.sqrt(np.sum(std.force**2, axis=-1)), std.virial.reshape(-1, 9) / system.natoms
    rms = np.sqrt(np.mean(v**2, axis=1))
    columns = [v.max(1), v.min(1), rms, f.max(1), f.min(1), f.mean(1), std.energy / system.natoms]
    np.testing.assert_allclose(found.columns, np.column_stack(columns), rtol=1e-12)
    with pytest.raises(ConfigError, match="dplite refit"):
        model_deviation(golden / "one_sided_triclinic.dp", address)
