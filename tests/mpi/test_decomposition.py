"""M1-M5, P7: any number of ranks and any box give one physics.

Each rank count runs all structures of worker.py in one go; more ranks than cores only take longer.
"""

import numpy as np
import pytest
from worker import ALLOY, CASES

from deepmd_lite import CompiledPot

ENERGY, FORCE, POSITION = 1e-12, 1e-10, 1e-10  # relative, eV/Å and eV, Å after 100 steps


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """results(ranks): what worker.py finds, run once."""
    return {}


@pytest.fixture
def on_ranks(results, mpirun, tmp_path):
    def get(ranks, again=False):
        if again or ranks not in results:
            out = tmp_path / f"{ranks}.npz"
            run = mpirun(ranks, __file__.replace("test_decomposition", "worker"), out)
            assert run.returncode == 0, run.stderr
            found = dict(np.load(out))
            if again:
                return found
            results[ranks] = found
        return results[ranks]

    return get


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("steps", [100, pytest.param(100_000, marks=pytest.mark.slow)])
def test_forces_and_momenta_add_up_to_nothing(ranks, steps, mpirun):
    """P7: at every step, of the sums of their lengths."""
    run = mpirun(ranks, __file__.replace("test_decomposition", "momentum"), steps, timeout=7200)
    assert run.returncode == 0, run.stderr
    print(ranks, "ranks:", run.stdout)
    assert max(map(float, run.stdout.split())) < 1e-10


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, pytest.param(6, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_ranks_gives_the_same(name, ranks, on_ranks):
    """The first step against the engine in one process, the trajectory against one rank."""
    found, one = on_ranks(ranks), on_ranks(1)
    atoms = CASES[name]
    atype = (atoms.numbers == 13).astype(int)
    expected = CompiledPot.load(ALLOY, threads=1).evaluate(atoms.positions, atype, atoms.cell[:], atoms.pbc)
    assert found[f"{name}/energy"] == pytest.approx(expected.energy, rel=ENERGY)
    np.testing.assert_allclose(found[f"{name}/force"], expected.force, rtol=0, atol=FORCE)
    np.testing.assert_allclose(found[f"{name}/virial"], expected.virial, rtol=0, atol=10 * FORCE)
    np.testing.assert_allclose(found[f"{name}/coord"], one[f"{name}/coord"], rtol=0, atol=POSITION)
    if len(atoms) > 2:  # atoms have moved, and between ranks
        moved = abs(found[f"{name}/coord"] - atoms.positions).max()
        assert moved > 0.3 and found[f"{name}/builds"] > 3


def test_the_same_number_of_ranks_twice_is_bitwise_the_same(on_ranks):
    first, second = on_ranks(3), on_ranks(3, again=True)
    for key, value in first.items():
        assert np.array_equal(value, second[key]), key


def test_atoms_are_shared_out_equally_whatever_the_box(on_ranks):
    """M5: quantiles of lattice planes cannot be exact; 128 atoms on 4 ranks, 15 % of 32 being 5."""
    for name in ("bulk", "half empty"):
        assert on_ranks(4)[f"{name}/imbalance"] <= 1.15


def test_more_ranks_than_atoms(on_ranks):
    assert on_ranks(8)["cell below rcut/empty"] >= 6
