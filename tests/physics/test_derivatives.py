"""P1, P2: forces and virials are the derivatives of the energy.

Derivatives are those of the 4th-order stencil (f₋₂ - 8 f₋₁ + 8 f₁ - f₂) / 12h. Its error is h⁴ f⁽⁵⁾/30 by
truncation and about 1.5 ε E/h by rounding: for h = 1e-3 Å, f⁽⁵⁾ < 10³ eV/Å⁵ and E < 100 eV it is below
1e-10 eV/Å, far below the 1e-7 eV/Å that is promised.
"""

import numpy as np
import pytest

H = 1e-3  # Å, or strain
FORCE = 1e-7  # eV/Å
VIRIAL = 1e-6  # relative to the largest component

pytestmark = pytest.mark.filterwarnings("ignore:an atom has")


def derivative(energy, h=H):
    """dE/dt at t = 0."""
    return (energy(-2 * h) - 8 * energy(-h) + 8 * energy(h) - energy(2 * h)) / (12 * h)


def test_force_is_minus_the_gradient(case):
    rng = np.random.default_rng(0)
    natoms = len(case.coord)
    directions = [np.eye(3 * natoms)[k].reshape(natoms, 3) for k in rng.choice(3 * natoms, 5, replace=False)]
    everything = rng.normal(0, 1, (natoms, 3))
    force = case.evaluate().force
    assert abs(force).max() > 0.01  # eV/Å: there is something to compare
    for d in [*directions, everything / np.linalg.norm(everything)]:
        found = -derivative(lambda t, d=d: case.evaluate(coord=case.coord + t * d).energy)
        assert found == pytest.approx((force * d).sum(), abs=FORCE, rel=0)


def test_virial_is_minus_the_strain_derivative(case):
    """Nine components; along open axes positions are strained, and the cell there has no say."""
    prediction = case.evaluate()
    box = np.zeros((3, 3)) if case.box is None else case.box
    scale = abs(prediction.virial).max()
    for a, b in np.ndindex(3, 3):
        unit = np.zeros((3, 3))
        unit[a, b] = 1.0

        def energy(t, unit=unit):
            strain = np.eye(3) + t * unit  # x_a grows by t x_b
            return case.evaluate(coord=case.coord @ strain.T, box=box @ strain.T).energy

        assert -derivative(energy) == pytest.approx(prediction.virial[a, b], abs=VIRIAL * scale, rel=0)


def test_parts_add_up(case):
    """Atomic energies and virials sum to the totals, forces to zero; the virial is symmetric: no torque."""
    p = case.evaluate()
    rounding = 1e-13 * len(case.coord)
    assert p.atom_energy.sum() == pytest.approx(p.energy, rel=1e-13)
    np.testing.assert_allclose(
        p.atom_virial.sum(axis=0), p.virial, rtol=0, atol=rounding * abs(p.virial).max()
    )
    np.testing.assert_allclose(p.force.sum(axis=0), 0, rtol=0, atol=rounding)
    np.testing.assert_allclose(p.virial, p.virial.T, rtol=0, atol=1e-10 * abs(p.virial).max())
