"""The engine against the reference in torch: every model shape, thread count, block size, precision."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmd_lite import CompiledPot, DeepPot, model_file
from deepmd_lite.errors import ConfigError, DomainError

GOLDEN = Path(__file__).parents[1] / "golden"
ENERGY, FORCE = 1e-8, 1e-7  # eV/atom, eV/Å where forces are of 1 eV/Å: the promise of the default tolerance
ORDER = 1e-12  # relative: another order of summation
BOX = np.array([[5.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.7, 0.4, 6.0]])  # cutoff 4 Å: atoms see their own images
SHAPES = {
    "one-sided": {},
    "two-sided": {"one_side": False},
    "resnet_dt": {"resnet_dt": True},
    "davg zero": {"davg": False},
    "many empty slots": {"sel": 60},
    "beyond sel": {"sel": 4},
    "atom_ener": {"atom_ener": [None, 1.0]},
    "atom_ener, fparam": {"atom_ener": [None, 1.0], "fparam": 1},
    "fparam, aparam": {"fparam": 2, "aparam": 1},
    "pair_exclude_types": {"pair_exclude_types": [(0, 1)]},
    "atom_exclude_types": {"atom_exclude_types": [1]},
    "exclude_types": {"exclude_types": [(0, 1)], "davg": False, "one_side": False},
    **{act: {"act": act} for act in ("relu", "relu6", "gelu", "softplus", "sigmoid", "silu", "silut:1.0", "linear")},
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:an atom has")


@pytest.fixture
def frame():
    rng = np.random.default_rng(3)
    sites = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3, indexing="ij"), -1).reshape(-1, 3)
    coord = (sites + rng.uniform(-0.05, 0.05, sites.shape)) @ BOX
    return coord, np.array([0, 1, 1, 0, 1, 1, 0, 1], np.int32), BOX, [True] * 3


@pytest.fixture
def large():
    """200 atoms of two types in a box of 13 Å."""
    rng = np.random.default_rng(0)
    sites = np.indices((6, 6, 6)).reshape(3, -1).T[:200] * 2.2
    return sites + rng.uniform(-0.3, 0.3, sites.shape), rng.integers(0, 2, 200), 13.2 * np.eye(3), [True] * 3


def assert_close(found, expected, energy=ENERGY, force=FORCE):
    """The bars are for models of forces near 1 eV/Å; those of random weights are far smaller."""
    scale = abs(expected.force).max()
    assert scale > 1e-4
    energy, force = energy * min(1, scale), force * min(1, scale)
    np.testing.assert_allclose(found.atom_energy, expected.atom_energy, rtol=0, atol=energy)
    assert found.energy == pytest.approx(expected.energy, abs=energy * len(expected.force))
    np.testing.assert_allclose(found.force, expected.force, rtol=0, atol=force)
    for key in ("virial", "atom_virial"):
        np.testing.assert_allclose(getattr(found, key), getattr(expected, key), rtol=0, atol=10 * force)


@pytest.mark.parametrize("precision, energy, force", [("float64", ENERGY, FORCE), ("float32", 1e-3, 1e-4)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_reference(random_model, frame, shape, precision, energy, force):
    """float32: energies of some eV to 1e-6, a thousandth of the smallest forces here."""
    model = random_model(**{"sel": 50, **shape})
    rng = np.random.default_rng(1)
    parameters = {
        "fparam": rng.normal(size=model.fitting.numb_fparam) if model.fitting.numb_fparam else None,
        "aparam": rng.normal(size=(8, 1)) if model.fitting.numb_aparam else None,
        "atom_virial": True,
    }
    expected = DeepPot(model).evaluate(*frame, **parameters)
    assert_close(CompiledPot(model, precision).evaluate(*frame, **parameters), expected, energy, force)


@pytest.mark.parametrize("act", ["relu", "silut:1.0"])
def test_kinks_are_left_to_the_net(random_model, frame, act):
    potential = CompiledPot(random_model(act=act, sel=50))
    exact = potential._potential.tables.exact
    assert 0 < exact.sum() < 0.1 * len(exact)


@pytest.mark.parametrize("width", [36, 18, 9])
def test_a_fitting_net_that_passes_the_descriptor_on(random_model, frame, width):
    """Descriptors of 18 numbers: the first layer doubles, keeps or changes the width."""
    model = random_model(sel=50)
    rng = np.random.default_rng(2)
    first = model_file.Layer(rng.normal(0, 0.2, (18, width)), rng.normal(size=width), None, "tanh", True)
    last = model_file.Layer(rng.normal(0, 0.2, (width, 1)), np.zeros(1), None, "none", False)
    model = replace(model, fitting=replace(model.fitting, neuron=(width,), nets=[[first, last]] * 2))
    model_file.check_model(model)
    expected = DeepPot(model).evaluate(*frame, atom_virial=True)
    assert_close(CompiledPot(model).evaluate(*frame, atom_virial=True), expected)


@pytest.mark.parametrize("name", ["one_sided_triclinic", "two_sided_small_cell", "cluster_nopbc"])
def test_equals_deepmd_kit(name):
    potential = CompiledPot.load(GOLDEN / f"{name}.dp")
    with np.load(GOLDEN / f"{name}.npz") as golden:
        periodic = golden["box"].size > 0
        for k, coord in enumerate(golden["coord"]):
            box = golden["box"][k] if periodic else None
            found = potential.evaluate(coord, golden["atype"], box, [periodic] * 3)
            for key, bar in (("atom_energy", ENERGY), ("force", FORCE), ("virial", 10 * FORCE)):
                np.testing.assert_allclose(getattr(found, key), golden[key][k], rtol=0, atol=bar, err_msg=key)


@pytest.mark.parametrize("distance", [0.3, 0.1, 0.02])
def test_pairs_closer_than_the_table_are_exact(random_model, distance):
    """A dimer with s beyond the table: the net itself, so rounding is all that differs."""
    model = random_model(sel=50)
    potential = CompiledPot(model)
    first, last = potential._potential.tables.first[:2]
    end = potential._potential.tables.start[0] + (last - first) / potential._potential.tables.inverse[0]
    d = model.descriptor
    assert (1 / distance - d.davg[0, 0]) / d.dstd[0, 0] > end
    pair = np.array([[0.0, 0, 0], [0, 0.6 * distance, 0.8 * distance]]), [0, 0], None, [False] * 3
    expected = DeepPot(model).evaluate(*pair)
    found = potential.evaluate(*pair)
    assert found.energy == pytest.approx(expected.energy, rel=1e-12)
    np.testing.assert_allclose(found.force, expected.force, rtol=1e-12, atol=1e-12)


def test_the_tolerance_is_met_and_stated(random_model, frame):
    model = random_model(sel=50)
    exact = DeepPot(model).evaluate(*frame)
    errors = []
    for value in (1e-5, 1e-8):
        potential = CompiledPot(model, tolerance=(value, 100 * value))
        assert potential.table_error[0] <= value and potential.table_error[1] <= 100 * value
        errors.append(abs(potential.evaluate(*frame).force - exact.force).max())
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_threads_and_blocks_change_nothing(random_model, large, precision):
    """P10. In float32 too: atoms do not depend on their block, and sums are float64."""
    model = random_model(sel=120)
    expected = CompiledPot(model, precision, threads=1).evaluate(*large, atom_virial=True)
    bar = ORDER if precision == "float64" else 1e-6  # matrix products may sum in another order
    for threads, block in ((1, 1), (1, 7), (2, 128), (3, 16), (5, 1000)):
        potential = CompiledPot(model, precision, threads, block)
        found = potential.evaluate(*large, atom_virial=True)
        for a, b in zip(found, expected):
            np.testing.assert_allclose(a, b, rtol=0, atol=bar * np.abs(b).max())
        again = potential.evaluate(*large, atom_virial=True)
        assert all(np.array_equal(a, b) for a, b in zip(found, again))


def test_calls_from_several_threads_at_once(random_model, large):
    potential = CompiledPot(random_model(sel=120), threads=2)
    expected = potential.evaluate(*large)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: potential.evaluate(*large), range(16)):
            assert np.array_equal(found.force, expected.force)


def test_works_in_a_forked_process(random_model, large):
    potential = CompiledPot(random_model(sel=120), threads=2)
    expected = potential.evaluate(*large).energy
    child = os.fork()
    if child == 0:
        os._exit(0 if potential.evaluate(*large).energy == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_threads_of_blas_are_given_back(random_model, large):
    from threadpoolctl import threadpool_info

    CompiledPot(random_model(sel=120)).evaluate(*large)
    before = [pool["num_threads"] for pool in threadpool_info()]
    CompiledPot(random_model(sel=120)).evaluate(*large)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_copies(random_model, frame):
    potential = CompiledPot(random_model(sel=50))
    assert copy.deepcopy(potential).evaluate(*frame).energy == potential.evaluate(*frame).energy


def test_overlapping_atoms_are_named(random_model, frame):
    coord, *rest = frame
    coord[5] = coord[2] + [0, 0.004, 0]
    with pytest.raises(DomainError, match=r"atoms (2 and 5|5 and 2) are 0.004 Å apart"):
        CompiledPot(random_model(sel=50)).evaluate(coord, *rest)


def test_coincident_atoms_are_named(random_model, frame):
    coord, *rest = frame
    coord[5] = coord[2]
    with pytest.raises(DomainError, match=r"are 0 Å apart"):
        CompiledPot(random_model(sel=50)).evaluate(coord, *rest)


def test_no_atoms_and_lone_atoms(random_model):
    model = random_model(sel=50)
    nothing = CompiledPot(model).evaluate(np.zeros((0, 3)), np.zeros(0, int), None, [False] * 3)
    assert nothing.energy == 0 and nothing.force.shape == (0, 3)
    for t in (0, 1):
        atom = np.zeros((1, 3)), [t], None, [False] * 3
        expected = DeepPot(model).evaluate(*atom).energy
        assert CompiledPot(model).evaluate(*atom).energy == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("parameters", [{}, {"fparam": [1.0]}, {"fparam": [1.0, 2.0], "aparam": [1.0]}])
def test_missing_or_superfluous_parameters(random_model, frame, parameters):
    with pytest.raises(ConfigError, match=r"fparam|aparam"):
        CompiledPot(random_model(fparam=2)).evaluate(*frame, **parameters)


def test_neither_torch_nor_threads_at_import():
    """An MD run needs no torch: importing and evaluating stays light."""
    code = f"""
import sys, numpy as np
from deepmd_lite import CompiledPot
CompiledPot.load({str(GOLDEN / "cluster_nopbc.dp")!r}).evaluate(np.eye(3), [0, 0, 0], None, [False] * 3)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
