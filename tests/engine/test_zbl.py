"""The pair table in the engine: against the reference in torch, and against finite differences."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmd_lite import CompiledPot, DeepPot, read_model
from deepmd_lite.box import extend
from deepmd_lite.errors import DomainError
from deepmd_lite.neighbors import cell_list

GOLDEN = Path(__file__).parents[1] / "model/golden_zbl"
TABLES = 1e-9  # eV, eV/Å: the embedding nets' tables; forces of the nets are below 1 eV/Å here
ORDER = 1e-12  # relative: another order of summation
H, FORCE, VIRIAL = 1e-4, 1e-7, 1e-6  # Å; eV/Å; relative: the promises of tests/physics/test_derivatives.py


@pytest.fixture
def model():
    return read_model(GOLDEN / "zbl.dp")


@pytest.fixture(params=[0, 1, 2])
def frame(request):
    with np.load(GOLDEN / "predictions.npz") as golden:
        return golden["coord"][request.param], golden["atype"], golden["box"][request.param], [True] * 3


@pytest.fixture
def first():
    with np.load(GOLDEN / "predictions.npz") as golden:
        return golden["coord"][0], golden["atype"], golden["box"][0], [True] * 3


SHAPES = {
    "plain": {},
    "pairs excluded": {"pair_exclude_types": [(0, 1)]},
    "atoms excluded": {"atom_exclude_types": [1]},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_reference(model, frame, shape):
    model = replace(model, **shape)
    expected = DeepPot(model).evaluate(*frame, atom_virial=True)
    found = CompiledPot(model, threads=2, block=7).evaluate(*frame, atom_virial=True)
    assert abs(expected.force).max() > 1
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=0, atol=TABLES)


def test_exclusions_count(model, first):
    energies = [CompiledPot(replace(model, **shape)).evaluate(*first).energy for shape in SHAPES.values()]
    assert min(abs(np.diff([*energies, energies[0]]))) > 1


def test_float32(model, frame):
    """Nets in float32, table and switch in float64: 1e-6 of energies of some eV, times slopes of the switch."""
    expected = DeepPot(model).evaluate(*frame)
    found = CompiledPot(model, "float32").evaluate(*frame)
    np.testing.assert_allclose(found.atom_energy, expected.atom_energy, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.force, expected.force, rtol=0, atol=1e-4)


@pytest.mark.parametrize("implementation", [DeepPot, CompiledPot])
def test_derivatives(model, frame, implementation):
    """4th-order stencil: h⁴/30 f⁽⁵⁾ is 1e-9 eV/Å for f⁽⁵⁾ of 3e8 eV/Å⁵ (200 eV/Å that vary over 0.02 Å)."""
    potential = implementation(model)
    coord, atype, box, pbc = frame
    found = potential.evaluate(*frame)
    rng = np.random.default_rng(1)

    def derivative(energy):
        return (energy(-2 * H) - 8 * energy(-H) + 8 * energy(H) - energy(2 * H)) / (12 * H)

    for _ in range(4):
        d = rng.normal(0, 1, coord.shape)
        d /= np.linalg.norm(d)
        slope = derivative(lambda t, d=d: potential.evaluate(coord + t * d, atype, box, pbc).energy)
        assert -slope == pytest.approx((found.force * d).sum(), abs=FORCE, rel=0)
    scale = abs(found.virial).max()
    for a, b in ((0, 0), (1, 2), (2, 1)):

        def strained(t, a=a, b=b):
            strain = np.eye(3)
            strain[a, b] += t
            return potential.evaluate(coord @ strain.T, atype, box @ strain.T, pbc).energy

        assert -derivative(strained) == pytest.approx(found.virial[a, b], abs=VIRIAL * scale, rel=0)
    np.testing.assert_allclose(found.force.sum(axis=0), 0, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.virial, found.virial.T, rtol=0, atol=1e-10 * scale)


def test_far_atoms_are_left_to_the_nets_bit_by_bit(model, first):
    coord, atype, box, pbc = first
    nets = replace(model, shortrange=None)
    wide = 2.0 * coord, atype, 2.0 * box, pbc
    spread = replace(model, shortrange=replace(model.shortrange, sw_rmin=0.1, sw_rmax=0.5))
    assert np.array_equal(CompiledPot(spread).evaluate(*wide).force, CompiledPot(nets).evaluate(*wide).force)


def test_shares_of_ranks_add_up(model, first):
    """Atoms shared among ranks, and ghosts that keep their forces until they are sent back (md/forces.py)."""
    potential = CompiledPot(model, threads=1)
    coord, atype, box, pbc = first
    expected = potential.evaluate(*first)
    ghosts = extend(coord, box, pbc, potential.rcut)
    frame = potential.frame(ghosts, cell_list(ghosts.coord, len(atype), potential.rcut), atype)
    own = frame._replace(owner=np.arange(len(ghosts.coord), dtype=np.int32))
    sums = [potential.sums(own, len(atype), len(ghosts.coord), share=(k, 3)) for k in range(3)]
    force = np.zeros_like(coord)
    np.add.at(force, ghosts.owner, sum(s.force.sum(axis=0) for s in sums))
    bar = ORDER * abs(expected.force).max()
    np.testing.assert_allclose(force, expected.force, rtol=0, atol=bar)
    np.testing.assert_allclose(sum(s.energy for s in sums), expected.atom_energy, rtol=0, atol=bar)


def test_closer_than_the_table_is_refused(model, first):
    coord, *rest = first
    coord[5] = coord[2] + [0, 0.015, 0]
    with pytest.raises(
        DomainError, match=r"atoms (2 and 5|5 and 2) are 0.015 Å apart; expected at least 0.02 Å"
    ):
        CompiledPot(model).evaluate(coord, *rest)
    coord[5] = coord[2]
    with pytest.raises(DomainError, match=r"are 0 Å apart; expected at least 0.01 Å"):
        CompiledPot(model).evaluate(coord, *rest)


def test_lone_atoms(model):
    for t in (0, 1):
        atom = np.zeros((1, 3)), [t], None, [False] * 3
        assert CompiledPot(model).evaluate(*atom).energy == pytest.approx(
            DeepPot(model).evaluate(*atom).energy
        )
