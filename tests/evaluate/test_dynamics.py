"""Drift of a known line under correlated noise; radial distributions of crystals and of an ideal gas."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from deepmd_lite.errors import DataError
from deepmd_lite.evaluate.dynamics import drift, radial_distribution


def test_drift_and_its_error():
    """Over 200 runs the slope scatters as its error says: mean square of (slope - true)/error is 1.

    With 18 degrees of freedom that ratio squared has mean 18/16 and, over 200 runs, a standard error of
    sqrt(2 * 18**2 * 17 / (16**2 * 14) / 200) = 0.12: five of them are allowed.
    """
    rng = np.random.default_rng(1)
    time = np.arange(2000) * 0.01
    ratios = []
    for _ in range(200):
        noise = np.convolve(rng.normal(size=2020), np.ones(20) / 20, "valid")[
            :2000
        ]  # correlated over 20 frames
        slope, error = drift(time, 3.0 + 0.5 * time + noise)
        ratios.append((slope - 0.5) / error)
    assert np.mean(np.square(ratios)) == pytest.approx(18 / 16, abs=0.6)
    assert abs(np.mean(ratios)) < 5 * np.sqrt(18 / 16 / 200)


def test_drift_of_a_line_is_exact():
    slope, error = drift(np.arange(100.0), 1e3 - 2e-3 * np.arange(100.0))
    assert slope == pytest.approx(-2e-3, rel=1e-9) and error < 1e-12
    with pytest.raises(DataError, match="three frames"):
        drift([0.0, 1.0], [1.0, 1.0])


@pytest.mark.parametrize("repeat", [1, 3])
def test_shells_of_fcc(repeat):
    """12 neighbors at a/sqrt(2), 6 at a, also in a primitive cell far thinner than rmax."""
    a = 4.0
    atoms = bulk("Cu", a=a).repeat(repeat)
    atoms.positions += 50.0
    r, g = radial_distribution([atoms, atoms], ("Cu", "Cu"), rmax=5.0, nbins=250)
    width = 5.0 / 250
    density = max(len(atoms) - 1, 1) / atoms.get_volume()
    shell = density * 4 / 3 * np.pi * ((r + width / 2) ** 3 - (r - width / 2) ** 3)
    neighbors = g * shell
    near = np.abs(r - a / np.sqrt(2)) < 0.02
    assert neighbors[near].sum() == pytest.approx(12, rel=1e-12)
    assert neighbors[np.abs(r - a) < 0.03].sum() == pytest.approx(6, rel=1e-12)


def test_ideal_gas_is_one():
    """1,000 points in 20 frames: 6.4e4 pairs in the outer shell, 0.4 % of noise; 5 sigma allowed."""
    rng = np.random.default_rng(0)
    frames = [
        Atoms("H600He400", rng.uniform(0, 12, (1000, 3)), cell=[12, 12, 12], pbc=True) for _ in range(5)
    ]
    for pair in (("H", "H"), ("H", "He")):
        _, g = radial_distribution(frames, pair, rmax=6.0, nbins=6)
        assert np.abs(g[2:] - 1).max() < 0.03


def test_molecule_gives_a_distribution():
    r, g = radial_distribution([molecule("H2O")], ("O", "H"), rmax=3.0, nbins=300)
    assert g.sum() * 0.01 == pytest.approx(1) and abs(r[np.argmax(g)] - 0.969) < 0.01
    with pytest.raises(DataError, match="no pair O-C"):
        radial_distribution([molecule("H2O")], ("O", "C"))
