"""P5, P6, P7: energy and momentum along NVE runs of a trained crystal, 16 atoms of NiAl."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from deepmd_lite import DP


def crystal(case, skin=1.0, temperature=300.0):
    symbols = np.array(["Ni", "Al"])[case.atype]
    atoms = Atoms(symbols, positions=case.coord, cell=case.box, pbc=True)
    atoms.calc = DP(case.potential, skin=skin)
    mass = atoms.get_masses()[:, None]
    momenta = np.random.default_rng(0).normal(0, np.sqrt(mass * units.kB * temperature), (len(atoms), 3))
    atoms.set_momenta(momenta - momenta.sum(axis=0) * mass / mass.sum())
    return atoms


def run(atoms, dt, steps, every=1):
    """Energy per atom (eV) every so many steps, and the largest |ΣF| / Σ|F| and |ΣP| / Σ|P| on the way."""
    energy, residual = [], [0.0, 0.0]

    def look():
        energy.append(atoms.get_total_energy() / len(atoms))
        for k, vectors in enumerate((atoms.get_forces(), atoms.get_momenta())):
            total = np.linalg.norm(vectors.sum(axis=0)) / np.linalg.norm(vectors, axis=1).sum()
            residual[k] = max(residual[k], total)

    dynamics = VelocityVerlet(atoms, dt * units.fs)
    dynamics.attach(look, interval=every)
    dynamics.run(steps)
    return np.array(energy), residual


def slope(energy, dt, blocks=10):
    """Drift of the energy (eV/fs) and its standard error, from means over blocks, whose noise is independent."""
    means = energy[: len(energy) // blocks * blocks].reshape(blocks, -1).mean(axis=1)
    time = (np.arange(blocks) + 0.5) * (len(energy) // blocks) * dt
    fit, covariance = np.polyfit(time, means, 1, cov="unscaled")
    scatter = means - np.polyval(fit, time)
    return fit[0], np.sqrt(covariance[0, 0] * scatter @ scatter / (blocks - 2))


def assert_no_drift(energy, dt, bar):
    """No slope beyond ``bar`` (eV/fs per atom) that four standard errors do not explain."""
    drift, error = slope(energy, dt)
    assert abs(drift) < bar + 4 * error, f"{drift * 1e9:.3g} ± {error * 1e9:.2g} meV/atom/ns"


def test_energy_is_conserved_and_sums_vanish(make_alloy):
    """P5 and P7, short: 0.6 ps, which bound the drift as well as its error bar says."""
    energy, (force, momentum) = run(crystal(make_alloy(displacement=0.05)), 2.0, 300)
    assert force < 1e-10 and momentum < 1e-10
    assert np.ptp(energy) < 1e-3  # eV/atom: of 26 meV/atom that kinetic and potential energy exchange
    assert_no_drift(energy, 2.0, bar=0.05e-9)


def test_energy_does_not_depend_on_the_skin(make_alloy):
    """P5: lists that are renewed at every step, sometimes, never. 1e-12 eV/atom: rounding of 4 eV/atom, grown."""
    curves, builds = [], []
    for skin in (0.0, 0.15, 2.0):
        atoms = crystal(make_alloy(displacement=0.05), skin, temperature=900.0)
        curves.append(run(atoms, 2.0, 60)[0])
        builds.append(atoms.calc.neighbors.builds)
    assert builds[0] == 61 and 1 < builds[1] < 61 and builds[2] == 1
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=0, atol=1e-12)


def test_energy_error_is_of_second_order_in_the_time_step(make_alloy):
    """P6: σ(E) ∝ dt² within 5 % over dt, dt/2, dt/4, at the same moments of the same 160 fs."""
    errors = [
        np.std(run(crystal(make_alloy(displacement=0.05)), 4.0 / n, 40 * n, every=n)[0]) for n in (1, 2, 4)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


@pytest.mark.slow
def test_long_run_drifts_less_than_the_promise(make_alloy):
    """P5 and P7: 200 ps, 10⁵ steps of 2 fs; the slope and its error bar against 0.05 meV/atom/ns."""
    energy, (force, momentum) = run(crystal(make_alloy(displacement=0.05)), 2.0, 100_000, every=10)
    assert force < 1e-10 and momentum < 1e-10
    drift, error = slope(energy, 20.0)
    print(f"drift {drift * 1e9:.4f} ± {error * 1e9:.4f} meV/atom/ns")
    assert_no_drift(energy, 20.0, bar=0.05e-9)
