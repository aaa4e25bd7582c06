"""The ASE calculator: results, caching, periodicity, committees, and ASE's tools at work on it."""

import copy
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from ase.phonons import Phonons

from deepmd_lite import DP, CompiledPot, read_model
from deepmd_lite.errors import ConfigError, DomainError

ALLOY = Path(__file__).with_name("alloy.dp")
ROUNDING = 1e-12  # relative, and eV/Å


def nial(case):
    symbols = np.array(["Ni", "Al"])[case.atype]
    return Atoms(symbols, positions=case.coord, cell=case.box, pbc=case.pbc, calculator=DP(ALLOY))


@pytest.fixture
def implementation():
    return CompiledPot


@pytest.fixture
def atoms(make_alloy):
    return nial(make_alloy())


@pytest.fixture
def committee():
    """Three models: the trained one, and two that differ in energies, forces and cutoff."""
    trained = read_model(ALLOY)
    return [
        CompiledPot(
            replace(
                trained,
                out_bias=trained.out_bias + 0.1 * k,
                descriptor=replace(trained.descriptor, rcut=4.5 - 0.1 * k),
            )
        )
        for k in range(3)
    ]


def test_results_are_those_of_the_potential(atoms):
    p = CompiledPot.load(ALLOY).evaluate(atoms.positions, np.tile([0, 1], 8), atoms.cell[:], atoms.pbc)
    assert atoms.get_potential_energy() == pytest.approx(p.energy, rel=ROUNDING)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_potential_energies(), p.atom_energy, rtol=ROUNDING)
    np.testing.assert_allclose(atoms.get_forces(), p.force, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(
        atoms.get_stress(voigt=False), -p.virial / atoms.get_volume(), rtol=0, atol=ROUNDING
    )


def test_backends_and_precisions_agree(atoms):
    """Tables at 1e-8 eV/Å; float32 nets at 1e-5."""
    expected = atoms.get_forces()
    for options, bar in (
        ({"backend": "torch"}, 1e-8),
        ({"threads": 1}, 1e-12),
        ({"threads": 3}, 1e-12),
        ({"precision": "float32"}, 1e-5),
    ):
        atoms.calc = DP(ALLOY, **options)
        np.testing.assert_allclose(atoms.get_forces(), expected, rtol=0, atol=bar)
        assert "threads" in options or (atoms.get_forces() != expected).any()  # it is another code that ran


@pytest.mark.parametrize(
    "options, message",
    [
        ({"backend": "cuda"}, "expected one of numba, torch"),
        ({"precision": "float16"}, "expected float64 or float32"),
        ({"threads": 0}, "expected 1 or more"),
        ({"backend": "torch", "precision": "float32"}, "precision of the model's nets"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DP(ALLOY, **options)


def test_stress_has_the_sign_and_the_order_of_ase(atoms):
    """P2: against ASE's own central difference, whose error of order 1e-5² is below 1e-8 relative."""
    stress = atoms.get_stress()
    assert len(set(np.round(stress, 4))) == 6  # eV/Å³: no two components can be mistaken for each other
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(stress, numerical, rtol=0, atol=1e-6 * abs(stress).max())
    atoms.set_cell(0.95 * atoms.cell, scale_atoms=True)
    assert atoms.get_stress()[:3].sum() < 0  # compressed: it wants to expand


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False)])
def test_stress_needs_three_periodic_axes(atoms, pbc):
    atoms.get_stress()
    atoms.pbc = pbc
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert np.isfinite(atoms.get_potential_energy())


def test_a_molecule_needs_no_cell(atoms):
    free = Atoms(atoms.symbols, positions=atoms.positions, calculator=DP(ALLOY))
    atoms.pbc = False
    assert free.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=ROUNDING)


def test_changes_in_place_are_seen_and_nothing_else_costs(atoms):
    def fresh():
        other = atoms.copy()
        other.calc = DP(ALLOY)
        return other.get_potential_energy()

    changes = (
        lambda: atoms.positions.__setitem__((3, 1), atoms.positions[3, 1] + 0.2),
        lambda: atoms.cell.__setitem__((2, 2), atoms.cell[2, 2] * 1.02),
        lambda: atoms.numbers.__setitem__(0, 13),
        lambda: atoms.pbc.__setitem__(1, False),
        lambda: atoms.set_array("positions", atoms.positions[::-1].copy()),
        lambda: atoms.__delitem__(5),
    )
    energies = [atoms.get_potential_energy()]
    for change in changes:
        change()
        energies.append(atoms.get_potential_energy())
        assert energies[-1] == pytest.approx(fresh(), rel=ROUNDING)
    assert len(set(energies)) == len(energies)
    results = atoms.calc.results
    forces = atoms.get_forces()
    forces += 1.0  # belongs to the caller
    assert atoms.calc.results is results and not np.allclose(atoms.get_forces(), forces)


def test_several_calculators_side_by_side(atoms):
    """Taking turns on structures of their own, sharing a potential or not."""
    potential = CompiledPot.load(ALLOY)
    small = atoms[:10]
    expected = [(a.copy(), DP(ALLOY)) for a in (atoms, small)]
    expected = [calc.get_potential_energy(a) for a, calc in expected]
    calculators = [DP(potential), DP(potential)]
    for _ in range(3):
        for a, calc, energy in zip((atoms, small), calculators, expected):
            assert calc.get_potential_energy(a.copy()) == pytest.approx(energy, rel=ROUNDING)
    one = calculators[0]  # one calculator, two structures
    for a, energy in zip((small, atoms, small), (expected[1], *expected)):
        assert one.get_potential_energy(a) == pytest.approx(energy, rel=ROUNDING)


def test_copies_and_pickles_are_independent(atoms):
    energy = atoms.get_potential_energy()
    for twin in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        assert twin.get_potential_energy() == energy
        twin.positions[0] += 0.3
        assert twin.get_potential_energy() != energy
    assert atoms.get_potential_energy() == energy


def test_committee(atoms, committee):
    calc = DP(committee)
    each = [DP(model).get_potential_energy(atoms) for model in committee]
    forces = [DP(model).get_forces(atoms) for model in committee]
    assert calc.get_potential_energy(atoms) == pytest.approx(np.mean(each), rel=ROUNDING)
    assert calc.results["energy_std"] == pytest.approx(np.std(each), rel=1e-9)
    np.testing.assert_allclose(calc.get_forces(atoms), np.mean(forces, axis=0), rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(calc.results["forces_std"], np.std(forces, axis=0), rtol=0, atol=ROUNDING)
    numerical = calculate_numerical_stress(Atoms(atoms, calculator=calc), eps=1e-5)
    np.testing.assert_allclose(calc.get_stress(atoms), numerical, rtol=0, atol=1e-6 * abs(numerical).max())


def test_unknown_elements_are_named(atoms):
    atoms.symbols[2:5] = ["C", "X", "C"]
    with pytest.raises(ConfigError, match=r"Ni, Al; found C \(2\), X \(1\)"):
        atoms.get_potential_energy()


def test_a_bad_structure_is_refused_and_a_good_one_then_works(atoms):
    energy, good = atoms.get_potential_energy(), atoms.positions.copy()
    for bad, says in ((np.nan, "atom 4"), (np.inf, "atom 4")):
        atoms.positions[4, 0] = bad
        with pytest.raises(DomainError, match=says):
            atoms.get_potential_energy()
    atoms.positions[:] = good
    atoms.positions[4] = atoms.positions[7]
    with pytest.raises(DomainError, match=r"atoms (4 and 7|7 and 4)"):
        atoms.get_forces()
    atoms.positions[:] = good
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=ROUNDING)
    atoms.cell[2] = atoms.cell[1]
    with pytest.raises(DomainError, match="degenerate"):
        atoms.get_potential_energy()


@pytest.mark.filterwarnings("ignore:an atom has")
def test_no_atoms_and_one_type():
    empty = Atoms(cell=np.eye(3) * 9, pbc=True, calculator=DP(ALLOY))
    assert empty.get_potential_energy() == 0 and empty.get_forces().shape == (0, 3)
    assert not empty.get_stress().any()
    nickel = bulk("Ni", cubic=True)
    nickel.calc = DP(ALLOY)
    np.testing.assert_allclose(nickel.get_forces(), 0, atol=ROUNDING)


def test_optimizer_with_a_cell_filter(make_alloy):
    """A strained and displaced cell relaxes to a cube."""
    atoms = nial(make_alloy((1, 1, 1), displacement=0.1, seed=3))
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=60)
    assert abs(atoms.get_forces()).max() < 1e-3  # eV/Å
    assert abs(atoms.get_stress() * atoms.get_volume()).max() < 2e-3  # eV
    np.testing.assert_allclose(atoms.cell.angles(), 90, rtol=0, atol=0.1)  # what fmax leaves
    np.testing.assert_allclose(atoms.cell.lengths(), atoms.cell.lengths().mean(), rtol=2e-3)


def test_phonons(tmp_path):
    """Of a crystal that is a minimum: acoustic branches vanish at Γ, no imaginary frequency elsewhere."""
    unit = bulk("NiAl", "cesiumchloride", a=2.88)
    phonons = Phonons(unit, DP(ALLOY), supercell=(2, 2, 2), delta=0.01, name=tmp_path / "phonons")
    phonons.run()
    phonons.read(acoustic=True)
    gamma, edge = phonons.band_structure([[0, 0, 0], [0.5, 0, 0]])
    assert abs(gamma[:3]).max() < 1e-3 and edge.min() > 5e-3  # eV


def test_langevin_run_written_to_a_trajectory(atoms, tmp_path):
    file = str(tmp_path / "run.traj")
    with Langevin(
        atoms,
        2 * units.fs,
        temperature_K=300,
        friction=0.01,
        fixcm=False,
        rng=np.random.default_rng(0),
        trajectory=file,
    ) as md:
        md.run(5)
    last = read(file)
    assert last.get_potential_energy() == atoms.get_potential_energy()
    np.testing.assert_array_equal(last.get_forces(), atoms.get_forces())


def test_a_frame_parameter_set_anew_is_seen(atoms):
    """A model whose nets read one fparam, through a weight of 0.1."""
    model = read_model(ALLOY)
    nets = [
        [replace(net[0], w=np.vstack((net[0].w, np.full((1, net[0].w.shape[1]), 0.1)))), *net[1:]]
        for net in model.fitting.nets
    ]
    one = {"numb_fparam": 1, "fparam_avg": np.zeros(1), "fparam_inv_std": np.ones(1)}
    calc = DP(CompiledPot(replace(model, fitting=replace(model.fitting, nets=nets, **one))), fparam=[0.0])
    assert calc.get_potential_energy(atoms) == pytest.approx(atoms.get_potential_energy(), rel=ROUNDING)
    calc.set(fparam=[0.5])
    assert abs(calc.get_potential_energy(atoms) - atoms.get_potential_energy()) > 0.01  # eV
    calc.set(fparam=None)
    with pytest.raises(ConfigError, match="fparam"):
        calc.get_potential_energy(atoms)


def test_parameters_that_the_model_does_not_have_are_refused(atoms):
    for name in ("fparam", "aparam"):
        with pytest.raises(ConfigError, match=name):
            DP(ALLOY, **{name: [1.0]}).get_potential_energy(atoms)
    with pytest.raises(ConfigError, match="empty"):
        DP([])


@pytest.mark.slow
def test_memory_is_flat_over_a_long_run(make_alloy):
    """L1: 10⁵ calls of one calculator grow by less than 5 MiB after the first thousand."""
    process = Path("/proc/self/statm")
    if not process.exists():
        pytest.skip("looks into /proc")

    def resident():
        return int(process.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    atoms = nial(make_alloy((1, 1, 1)))
    atoms.calc = DP(ALLOY, threads=2)
    rng, home = np.random.default_rng(0), atoms.positions.copy()
    for call in range(100_000):
        atoms.positions = home + rng.uniform(-0.3, 0.3, home.shape)
        atoms.get_forces()
        if call == 1000:
            before = resident()
    print(f"grown by {resident() - before:.2f} MiB")
    assert resident() - before < 5
