"""P8 judged by others: the package physical_validation on samples of all thermostats and of the barostat.

It finds out by itself how correlated samples are and drops what is too many, so it gets them as they come.
Deviations are in standard errors, by bootstrap: they must stay below 4, and p above 0.01. Seeds are fixed.
What samples no ensemble, and samples of one state under the name of another, must be rejected by the same calls.

References
----------
P. T. Merz, M. R. Shirts, PLoS ONE 13, e0202764 (2018); M. R. Shirts, J. Chem. Theory Comput. 9, 909 (2013).
"""

from functools import cache

import numpy as np
import pytest
from test_integrators import (
    TEMPERATURE,
    Berendsen,
    BerendsenBarostat,
    fluid,
    kinetic,
    lattice,
    make,
    run,
    steps,
)

from deepmd_lite.md.integrators import Ramp
from deepmd_lite.units import BOLTZMANN, KJ_PER_MOL

pytestmark = pytest.mark.slow

THERMOSTATS = ["langevin", "bussi", "nose_hoover"]
TEMPERATURES = TEMPERATURE, 360.0
CLOSE_TEMPERATURES = TEMPERATURE, 310.0  # energies of the negative control overlap in these only
PRESSURES = 20_000.0, 22_000.0  # bar


@pytest.fixture
def validation():
    """The package; only slow tests need it."""
    return pytest.importorskip("physical_validation")


def integrator(type, temperature, pressure):
    """Negative controls have the settings of the right ones."""
    if type == "berendsen":
        return Berendsen(temperature)
    if type == "berendsen_barostat":
        ramps = [Ramp(value, value, 1) for value in (temperature, pressure)]
        return BerendsenBarostat(ramps[0], 20.0, ramps[1], 50.0, 2e-5, "isotropic")
    return make(type, temperature=temperature, pressure=pressure, pressure_tau=50.0)


@cache
def sample(type, temperature, pressure=None):
    """Kinetic and total energies (eV) and volumes (Å³), 750 of each: every 80th step.

    Of a lattice at constant volume or, where there is a pressure, of a fluid. Each state has noise of its own:
    who compares two takes them for independent.
    """
    state, forces = lattice(seed=round(temperature)) if pressure is None else fluid(seed=round(pressure))
    one = integrator(type, temperature, pressure)
    run(one, state, forces, 1000)
    rows = [
        (kinetic(s), kinetic(s) + s.energy, s.volume)
        for s in steps(one, state, forces, 60_000)
        if s.step % 80 == 0
    ]
    return dict(zip(("kinetic_energy", "total_energy", "volume"), np.transpose(rows)))


def simulation(validation, samples, temperature, pressure=None):
    """Samples, and all that the package is told about their origin."""
    units = validation.data.UnitData(
        kb=BOLTZMANN,
        energy_conversion=1 / KJ_PER_MOL,
        length_conversion=0.1,  # nm
        volume_conversion=1e-3,
        temperature_conversion=1.0,
        pressure_conversion=1.0,
        time_conversion=1e-3,  # ps
    )
    if pressure is None:  # a lattice: of ten atoms, one is held fixed
        system = validation.data.SystemData(10, nconstraints=3, ndof_reduction_tra=0, ndof_reduction_rot=0)
        ensemble = validation.data.EnsembleData("NVT", natoms=10, volume=1.0, temperature=temperature)
    else:  # a fluid, of no total momentum
        system = validation.data.SystemData(27, nconstraints=0, ndof_reduction_tra=3, ndof_reduction_rot=0)
        ensemble = validation.data.EnsembleData("NPT", natoms=27, pressure=pressure, temperature=temperature)
    observables = validation.data.ObservableData(**samples)
    return validation.data.SimulationData(
        units=units, dt=2.0, system=system, ensemble=ensemble, observables=observables
    )


def kinetic_energies(validation, type, *state):
    """Deviations of mean and width, and p of a Kolmogorov-Smirnov test, against the gamma distribution."""
    data = simulation(validation, sample(type, *state), *state)
    deviations = validation.kinetic_energy.distribution(data, bootstrap_seed=1)
    return deviations, validation.kinetic_energy.distribution(data, strict=True)


def two_states(validation, type, states, names):
    """The deviation of the slope of ln p₂/p₁, as a function of E or V, from that of the states in ``names``."""
    data = [simulation(validation, sample(type, *state), *name) for state, name in zip(states, names)]
    (deviation,) = validation.ensemble.check(*data, total_energy=True, bootstrap_error=True, bootstrap_seed=1)
    return deviation


@pytest.mark.parametrize("type", [*THERMOSTATS, "npt"])
def test_kinetic_energies(type, validation):
    """At the end of steps they are off by (ωΔt)²/4 = 0.25 %, a quarter of a standard error."""
    state = (TEMPERATURE, PRESSURES[0]) if type == "npt" else (TEMPERATURE,)
    deviations, p = kinetic_energies(validation, type, *state)
    assert max(deviations) < 4
    assert p > 0.01


def test_kinetic_energies_of_the_negative_control_are_rejected(validation):
    (_, width), p = kinetic_energies(validation, "berendsen", TEMPERATURE)
    assert width > 4
    assert p < 0.01


@pytest.mark.parametrize("type", THERMOSTATS)
def test_total_energies_at_two_temperatures(type, validation):
    """The slope is 1/kT₁ - 1/kT₂; under the name of a temperature that would double it, it is rejected."""
    states = [(T,) for T in TEMPERATURES]
    doubled = [states[0], (1 / (2 / states[1][0] - 1 / states[0][0]),)]
    assert two_states(validation, type, states, states) < 4
    assert two_states(validation, type, states, doubled) > 4


def test_total_energies_of_the_negative_control_are_rejected(validation):
    states = [(T,) for T in CLOSE_TEMPERATURES]
    assert two_states(validation, "berendsen", states, states) > 4


def test_volumes_at_two_pressures(validation):
    """The slope is (P₁ - P₂)/kT; under the name of a pressure that would double it, it is rejected."""
    states = [(TEMPERATURE, P) for P in PRESSURES]
    doubled = [states[0], (TEMPERATURE, 2 * PRESSURES[1] - PRESSURES[0])]
    assert two_states(validation, "npt", states, states) < 4
    assert two_states(validation, "npt", states, doubled) > 4


def test_volumes_of_the_negative_control_are_rejected(validation):
    states = [(TEMPERATURE, P) for P in PRESSURES]
    assert two_states(validation, "berendsen_barostat", states, states) > 4
