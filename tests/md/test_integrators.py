"""Time integration, on systems whose forces and distributions are known in closed form.

`Lattice` is a chain of atoms in quartic wells, of which one is held fixed: chaotic, cheap, without total
momentum. `Fluid` is soft spheres in a periodic box at a total momentum of zero. `Elastic` is an ideal gas in
a cell that has an energy of its own. Seeds are fixed, so each test gives the same verdict every time; what a
correct integrator must pass, `Berendsen` and `BerendsenBarostat`, which sample no ensemble, must fail.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI
from scipy import stats

from deepmd_lite.errors import ConfigError, DataError, SimulationError
from deepmd_lite.md import integrators, random
from deepmd_lite.md.integrators import make_integrator
from deepmd_lite.md.state import State
from deepmd_lite.units import ACCELERATION, BAR, BOLTZMANN

TEMPERATURE = 300.0  # K
KT = BOLTZMANN * TEMPERATURE  # eV
MASS = 12.0  # amu


# ---- systems ---------------------------------------------------------------------------------------------


class IdealGas:
    """No forces."""

    def __call__(self, state):
        state.force, state.energy, state.virial = np.zeros_like(state.coord), 0.0, np.zeros((3, 3))


class Wells:
    """U = Σ k x²/2 over all coordinates: k is (n, 3), eV/Å², so that ω = √(k/m)."""

    def __init__(self, k):
        self.k = k

    def __call__(self, state):
        state.force = -self.k * state.coord
        state.energy, state.virial = float(np.vdot(self.k, state.coord**2)) / 2, np.zeros((3, 3))


class Lattice:
    """U = Σ_i [k x_i²/2 + q x_i⁴/4 + c |x_i - x_{i+1}|²/2] around a ring: (eV/Å², eV/Å⁴, eV/Å²)."""

    k, q, c = 0.5, 4.0, 0.5

    def __call__(self, state):
        x = np.empty_like(state.coord)
        x[state.id] = state.coord
        stretch = x - np.roll(x, -1, axis=0)
        force = -self.k * x - self.q * x**3 - self.c * (stretch - np.roll(stretch, 1, axis=0))
        state.force = force[state.id]
        state.energy = float(np.sum(self.k / 2 * x**2 + self.q / 4 * x**4 + self.c / 2 * stretch**2))
        state.virial = np.zeros((3, 3))


class Fluid:
    """U = Σ_pairs A (1 - r²/r_c²)⁴ within r_c, nearest images."""

    A, rcut = 1.0, 3.5  # eV, Å

    def __init__(self, natoms):
        i, j = np.triu_indices(natoms, 1)
        self.pairs = np.eye(natoms)[i] - np.eye(natoms)[j]  # (npairs, natoms): differences

    def __call__(self, state):
        pairs = self.pairs[:, state.id]
        frac = pairs @ (state.coord @ np.linalg.inv(state.cell))
        r = (frac - np.rint(frac)) @ state.cell
        s = np.maximum(1 - np.einsum("pd,pd->p", r, r) / self.rcut**2, 0)
        force = (8 * self.A / self.rcut**2 * s**3)[:, None] * r  # on the first of each pair
        state.force = pairs.T @ force
        state.energy, state.virial = self.A * float(np.sum(s**4)), r.T @ force


class Elastic:
    """U = k/2 Σ_ab h_ab² of the cell h, and nothing else; velocities are drawn anew after each step.

    Drawing them leaves Maxwell's distribution as it is, and without forces nothing else mixes the three axes.
    """

    def __init__(self, k):
        self.k = k  # eV/Å²

    def __call__(self, state):
        state.force = np.zeros_like(state.coord)
        state.energy = self.k / 2 * float(np.sum(state.cell**2))
        state.virial = -self.k * state.cell.T @ state.cell
        noise = random.normal(state.seed, state.step, state.id, stream=9)
        state.velocity = state.mobile * np.sqrt(KT * ACCELERATION / state.mass) * noise


def make_state(coord, *, fixed=(), mass=MASS, cell=None, dt=2.0, seed=1):
    """A `State` at TEMPERATURE; periodic where there is a cell; no total momentum unless atoms are fixed."""
    n = len(coord)
    mobile = np.ones((n, 1))
    mobile[list(fixed)] = 0
    mass = np.broadcast_to(np.reshape(mass, (-1, 1)), (n, 1)).astype(float)
    velocity = mobile * np.sqrt(KT * ACCELERATION / mass) * random.normal(seed, 0, np.arange(n))
    if not len(fixed):
        velocity -= np.sum(mass * velocity, axis=0) / mass.sum()
    return State(
        id=np.arange(n),
        atype=np.zeros(n, np.int32),
        mass=mass,
        mobile=mobile,
        coord=np.array(coord, float),
        velocity=velocity,
        force=np.zeros((n, 3)),
        image=np.zeros((n, 3), np.int32),
        cell=np.eye(3) if cell is None else np.array(cell, float),
        pbc=np.full(3, cell is not None),
        comm=MPI.COMM_SELF,
        natoms=n,
        nmobile=int(mobile.sum()),
        dt=dt,
        seed=seed,
    )


def lattice(n=10, **options):
    """A `Lattice` of n atoms, of which the first is held fixed: f = 3 (n - 1)."""
    coord = 0.2 * random.normal(3, 0, np.arange(n))
    coord[0] = 0
    return make_state(coord, fixed=[0], **options), Lattice()


def fluid(n=3, **options):
    """A `Fluid` of n³ atoms at about 23,000 bar, in a tilted cell: f = 3 n³ - 3."""
    side = 2.7 * n
    grid = np.array(list(np.ndindex(n, n, n))) * 2.7
    cell = side * np.array([[1.0, 0, 0], [0.1, 1, 0], [-0.05, 0.08, 1]])
    coord = grid @ cell / side + 0.1 * random.normal(4, 0, np.arange(n**3))
    return make_state(coord, cell=cell, **options), Fluid(n**3)


def make(type, nsteps=1, **settings):
    """`make_integrator` with relaxation times of 10 and 50 steps of 2 fs, unless told otherwise."""
    defaults = dict(temperature=TEMPERATURE, tau=20.0, chain=3, pressure=0.0, pressure_tau=100.0)
    defaults |= dict(compressibility=2e-5, coupling="isotropic")
    return make_integrator(SimpleNamespace(type=type, **defaults | settings), nsteps)


def steps(integrator, state, forces, n):
    """Take n steps; yields the state after each."""
    if state.step == 0:
        forces(state)
    for _ in range(n):
        state.step += 1
        integrator.first_half(state)
        forces(state)
        integrator.second_half(state)
        yield state


def run(integrator, state, forces, n):
    for _ in steps(integrator, state, forces, n):
        pass
    return state


def kinetic(state):
    return float(np.trace(state.kinetic_tensor())) / 2


# ---- statistics ------------------------------------------------------------------------------------------


def assert_mean(values, expected, name):
    """The mean of a correlated series is ``expected`` within 4 standard errors, from 25 blocks."""
    blocks = np.mean(np.reshape(values[: len(values) // 25 * 25], (25, -1)), axis=1)
    error = np.std(blocks, ddof=1) / 5
    assert abs(blocks.mean() - expected) < 4 * error, (
        f"{name}: {blocks.mean()} ± {error}, expected {expected}"
    )


def canonical_pvalue(energies, f):
    """Of the Kolmogorov-Smirnov test of kinetic energies (eV) against f degrees of freedom at TEMPERATURE."""
    samples = np.asarray(energies) - np.mean(energies)
    correlation = np.mean(samples[1:] * samples[:-1]) / np.mean(samples**2)
    assert abs(correlation) < 4 / np.sqrt(len(samples)), "the samples are correlated"
    return stats.kstest(energies, stats.gamma(f / 2, scale=KT).cdf).pvalue


class Berendsen(integrators.VelocityVerlet):
    """Negative control: weak coupling, α² = 1 + (Δt/τ)(K̄/K - 1), keeps K too close to its mean."""

    def __init__(self, temperature=TEMPERATURE):
        super().__init__()
        self.temperature = temperature

    def second_half(self, state):
        super().second_half(state)
        mean = state.degrees_of_freedom * BOLTZMANN * self.temperature / 2
        state.velocity *= np.sqrt(1 + state.dt / 20 * (mean / kinetic(state) - 1))


class BerendsenBarostat(integrators.CellRescaling):
    """Negative control: the volume relaxes, but nothing shakes it."""

    def _draw(self, state, pressure):
        rate = self.compressibility * state.dt / (3 * self.pressure_tau)
        return rate * (np.trace(pressure) / 3 - self.pressure.start) * np.eye(3)


# ---- Newton ----------------------------------------------------------------------------------------------

FREQUENCIES = np.linspace(0.02, 0.3, 30).reshape(10, 3)  # rad/fs
STIFFNESS = FREQUENCIES**2 * MASS / ACCELERATION  # eV/Å²


def wells(**options):
    """Ten atoms in harmonic wells, at TEMPERATURE."""
    coord = np.sqrt(KT / STIFFNESS) * random.normal(5, 0, np.arange(10))
    return make_state(coord, **options), Wells(STIFFNESS)


def test_verlet_conserves_the_shadow_hamiltonian_of_oscillators():
    """m v²/2 + (1 - ω²Δt²/4) k x²/2; 1,000 steps of about 4 roundings each are 1,000 · 4 · 1.1e-16."""
    state, forces = wells()
    shadow = []
    for s in steps(make("nve"), state, forces, 1000):
        potential = (1 - (FREQUENCIES * s.dt / 2) ** 2) * STIFFNESS * s.coord**2 / 2
        shadow.append(MASS * s.velocity**2 / 2 / ACCELERATION + potential)
    np.testing.assert_allclose(shadow, np.broadcast_to(shadow[0], np.shape(shadow)), rtol=5e-13)


def test_energy_error_is_quadratic_in_the_time_step():
    """P6. The next order of σ(E), (ωΔt)² relative, is 1 % at the lattice's ω = 0.05 rad/fs and Δt = 2 fs."""
    sigma = []
    for divide in (1, 2, 4):
        state, forces = lattice(dt=2.0 / divide)
        energy = [kinetic(s) + s.energy for s in steps(make("nve"), state, forces, 400 * divide)]
        sigma.append(np.std(energy[divide - 1 :: divide]))  # at the same 400 times
    assert sigma[0] / sigma[1] == pytest.approx(4, rel=0.05)
    assert sigma[1] / sigma[2] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("type", ["nve", "nose_hoover"])
def test_back_to_the_start_when_time_runs_backward(type):
    """Without chaos roundings add up, to 2,000 steps · 1.1e-16 · 1 Å. Of the chain, velocities turn too."""
    state, forces = wells()
    start, integrator = state.coord.copy(), make(type, tau=100.0)
    run(integrator, state, forces, 1000)
    assert np.abs(state.coord - start).max() > 0.1
    state.velocity *= -1
    if type == "nose_hoover":
        values = integrator.get()
        integrator.set(values | {"chain_velocity": -values["chain_velocity"]})
    run(integrator, state, forces, 1000)
    np.testing.assert_allclose(state.coord, start, rtol=0, atol=2.2e-13)


@pytest.mark.parametrize("type", ["nve", "bussi", "nose_hoover", "npt"])
def test_total_momentum_stays_zero(type):
    """P7: within 1e-10 of the sum of its absolute values, though forces sum to zero by rounding only."""
    state, forces = fluid(mass=np.linspace(5, 20, 27))
    run(make(type, pressure=20000.0), state, forces, 500)
    momenta = state.mass * state.velocity
    assert np.abs(momenta.sum(axis=0)).max() < 1e-10 * np.abs(momenta).sum()


# ---- thermostats -----------------------------------------------------------------------------------------


def sample(integrator, state, forces, nsteps, every):
    """Kinetic energies of every n-th step, and -Σ x F of each; the first 1,000 steps are left out."""
    energies, clausius = [], []
    run(integrator, state, forces, 1000)
    for s in steps(integrator, state, forces, nsteps):
        clausius.append(-np.vdot(s.coord, s.force))
        if s.step % every == 0:
            energies.append(kinetic(s))
    return energies, clausius


@pytest.mark.parametrize("type", ["langevin", "bussi", "nose_hoover"])
def test_thermostat_samples_the_canonical_ensemble(type):
    """P8. Kinetic energies are gamma-distributed; of positions, <x ∂U/∂x> = kT for each coordinate.

    Both hold up to (ωΔt)²/4 = 0.25 % at ω = 0.05 rad/fs, half a standard error of either.
    """
    state, forces = lattice()
    energies, clausius = sample(make(type), state, forces, 16_000, 40)
    assert canonical_pvalue(energies, 27) > 0.01
    assert_mean(clausius, 27 * KT, "Σ x ∂U/∂x")


def test_negative_control_is_rejected():
    state, forces = lattice()
    energies, _ = sample(Berendsen(), state, forces, 12_000, 80)
    assert canonical_pvalue(energies, 27) < 1e-6


def test_langevin_counts_the_center_of_mass():
    """Of free atoms, 3 N degrees of freedom; at c = exp(-16) each step is a new sample."""
    state = make_state(np.zeros((4, 3)))
    energies, _ = sample(make("langevin", tau=state.dt / 16), state, IdealGas(), 2000, 1)
    assert canonical_pvalue(energies, 12) > 0.01
    assert canonical_pvalue(energies, 9) < 1e-6


def test_langevin_positions_of_oscillators_are_exact_for_any_time_step():
    """BAOAB at ωΔt = 1: <k x²> = kT, <m v²> = (1 - 1/4) kT. Each coordinate is an independent sample."""
    k = MASS / ACCELERATION / 2.0**2
    state = make_state(np.zeros((2000, 3)))
    forces, integrator = Wells(np.full((2000, 3), k)), make("langevin", tau=4.0)
    run(integrator, state, forces, 50)
    averages = np.zeros((2, 2000, 3))
    for s in steps(integrator, state, forces, 150):
        averages += np.array([k * s.coord**2, MASS * s.velocity**2 / ACCELERATION]) / 150
    for average, expected in zip(averages, (KT, 0.75 * KT)):
        assert abs(average.mean() - expected) < 4 * average.std() / np.sqrt(average.size)


def test_langevin_relaxes_velocities_within_tau():
    """Of free atoms, <v(t) v(0)> = exp(-t/τ) <v²>; of n pairs, with a standard error below 1/√n."""
    state = make_state(np.zeros((20_000, 3)), fixed=[0])
    start = state.velocity.copy()
    run(make("langevin", tau=20.0), state, IdealGas(), 10)
    correlation = np.vdot(start, state.velocity) / np.vdot(start, start)
    assert abs(correlation - np.exp(-1)) < 4 / np.sqrt(start.size)


def test_bussi_relaxes_the_kinetic_energy_within_tau():
    """Of free atoms, the correlation of kinetic energies is exp(-t/τ): here exp(-1/2) from step to step.

    Its standard error is below √(2 τ/Δt / n): n steps are n Δt / (2 τ) independent ones, each of variance
    below 1.
    """
    state = make_state(np.zeros((5, 3)))
    n, energies = 8000, []
    for s in steps(make("bussi", tau=2 * state.dt), state, IdealGas(), n):
        energies.append(kinetic(s))
    assert canonical_pvalue(energies[::16], 12) > 0.01
    deviation = np.array(energies) - 6 * KT
    for lag in (1, 2, 3):
        correlation = np.mean(deviation[lag:] * deviation[:-lag]) / np.mean(deviation**2)
        assert abs(correlation - np.exp(-lag / 2)) < 4 * np.sqrt(4 / n)


def log_ratio_slope(first, second):
    """The likeliest b where p₂(x)/p₁(x) is proportional to exp(b x), and its standard error.

    The error is that of independent samples (normal approximation of the likelihood), times √g, where g is
    the variance of 25 blocks' means over that of independent samples' means. Shirts, J. Chem. Theory Comput.
    9, 909 (2013), what physical_validation calls an ensemble check.
    """
    x = np.concatenate((first, second))
    scale, of_second = np.std(x), np.arange(len(x)) >= len(first)
    basis = np.stack((np.ones_like(x), (x - np.mean(x)) / scale))
    beta = np.zeros(2)
    for _ in range(20):  # Newton's method
        chance = 1 / (1 + np.exp(-beta @ basis))
        hessian = chance * (1 - chance) * basis @ basis.T
        beta += np.linalg.solve(hessian, basis @ (of_second - chance))
    g = [
        len(y) / 25 * np.var(np.reshape(y, (25, -1)).mean(axis=1), ddof=1) / np.var(y)
        for y in (first, second)
    ]
    return beta[1] / scale, np.sqrt(max(1, *g) * np.linalg.inv(hessian)[1, 1]) / scale


def total_energies(make_one, temperatures):
    samples = []
    for temperature in temperatures:
        state, forces = lattice()
        integrator = make_one(temperature)
        run(integrator, state, forces, 1000)
        energies = [kinetic(s) + s.energy for s in steps(integrator, state, forces, 60_000)]
        samples.append(np.array(energies[::80]))
    return log_ratio_slope(*samples), (1 / temperatures[0] - 1 / temperatures[1]) / BOLTZMANN


@pytest.mark.slow
@pytest.mark.parametrize("type", ["langevin", "bussi", "nose_hoover"])
def test_total_energies_at_two_temperatures(type):
    """P8. p₂(E)/p₁(E) is proportional to exp((1/kT₁ - 1/kT₂) E), whatever the density of states."""
    (slope, error), expected = total_energies(lambda T: make(type, temperature=T), (TEMPERATURE, 340.0))
    assert error < abs(expected) / 5
    assert abs(slope - expected) < 4 * error


@pytest.mark.slow
def test_total_energies_of_the_negative_control_are_rejected():
    (slope, error), expected = total_energies(Berendsen, (TEMPERATURE, 310.0))
    assert abs(slope - expected) > 4 * error


def volumes_of_a_fluid(barostat, pressures):
    samples = []
    for pressure in pressures:
        state, forces = fluid()
        ramps = [integrators.Ramp(value, value, 1) for value in (TEMPERATURE, pressure)]
        integrator = barostat(ramps[0], 20.0, ramps[1], 50.0, 2e-5, "isotropic")
        run(integrator, state, forces, 1000)
        volumes = [s.volume for s in steps(integrator, state, forces, 50_000)]
        samples.append(np.array(volumes[::100]))
    return log_ratio_slope(*samples), (pressures[0] - pressures[1]) * BAR / KT


@pytest.mark.slow
def test_volumes_of_a_fluid_at_two_pressures():
    """P8. p₂(V)/p₁(V) is proportional to exp((P₁ - P₂) V/kT)."""
    (slope, error), expected = volumes_of_a_fluid(integrators.CellRescaling, (20_000.0, 22_000.0))
    assert error < abs(expected) / 5
    assert abs(slope - expected) < 4 * error


@pytest.mark.slow
def test_volumes_of_the_negative_control_are_rejected():
    (slope, error), expected = volumes_of_a_fluid(BerendsenBarostat, (20_000.0, 20_500.0))
    assert abs(slope - expected) > 4 * error


@pytest.mark.parametrize("type", ["langevin", "bussi", "nose_hoover"])
@pytest.mark.parametrize("temperature", [TEMPERATURE, (300.0, 500.0)])
def test_conserved_quantity(type, temperature):
    """It wanders by the error of the Verlet steps alone.

    Between thermostat steps the energy deviates by some σ, as at constant energy; a thermostat that renews
    the state every τ makes these deviations a random walk of 2t/τ steps. What it wanders for wrong books is
    100 times more: the fluctuation of the total energy itself, √(27/2) kT, in place of σ.
    """
    state, forces = lattice()
    sigma = np.std([kinetic(s) + s.energy for s in steps(make("nve"), state, forces, 1000)])
    assert sigma < np.sqrt(27 / 2) * KT / 100
    state, forces = lattice()
    n, integrator = 3000, make(type, 3000, temperature=temperature)
    values = [integrator.conserved(s, s.kinetic_tensor()) for s in steps(integrator, state, forces, n)]
    assert np.abs(np.array(values) - values[0]).max() < 4 * sigma * np.sqrt(2 * n * state.dt / 20)
    assert state.temperature(state.kinetic_tensor()) > 100


# ---- barostat --------------------------------------------------------------------------------------------

SHAKY = 0.5  # LARGEST_STRAIN for systems of a few atoms, whose cells do fluctuate by some per cent in a step


@pytest.mark.parametrize("fixed", [[0], []])
def test_volume_of_an_ideal_gas(fixed, monkeypatch):
    """V^{f/3} exp(-PV/kT): four mobile atoms and a fixed one give V⁴; five of no total momentum, V⁴ too.

    So few make V³ and V⁵ far away, 20 % in the mean, and V unsteady: with relaxation in 25 steps, Euler steps
    bias the mean by 1 % and the variance by 5 % (measured on many copies of the equation alone), below half a
    standard error.
    """
    monkeypatch.setattr(integrators, "LARGEST_STRAIN", SHAKY)
    volume = 1000.0
    state = make_state(np.zeros((5, 3)), fixed=fixed, cell=np.eye(3) * np.cbrt(volume))
    pressure = 5 * KT / volume / BAR
    integrator = make("npt", pressure=pressure, pressure_tau=50.0, compressibility=1 / pressure)
    run(integrator, state, IdealGas(), 500)
    volumes = [s.volume for s in steps(integrator, state, IdealGas(), 12_000)]
    exact = stats.gamma(5, scale=volume / 5)
    assert stats.kstest(volumes[::100], exact.cdf).pvalue > 0.01
    assert_mean(volumes, exact.mean(), "volume")
    assert_mean((np.array(volumes) - exact.mean()) ** 2, exact.var(), "its variance")


def test_negative_control_of_the_barostat_is_rejected():
    state = make_state(np.zeros((5, 3)), fixed=[0], cell=np.eye(3) * 10)
    pressure = 5 * KT / 1000 / BAR
    ramps = [integrators.Ramp(value, value, 1) for value in (TEMPERATURE, pressure)]
    integrator = BerendsenBarostat(ramps[0], 20.0, ramps[1], 50.0, 1 / pressure, "isotropic")
    volumes = [s.volume for s in steps(integrator, state, IdealGas(), 10_500)]
    assert stats.kstest(volumes[500::100], stats.gamma(5, scale=1000 / 5).cdf).pvalue < 1e-6


@pytest.mark.parametrize("coupling", ["isotropic", "anisotropic", "triclinic"])
def test_cell_with_an_elastic_energy(coupling, monkeypatch):
    """The distribution V^{f/3} exp(-k tr(h hᵀ)/2kT) of an `Elastic` cell at zero pressure, for all couplings.

    With ν = f/3 + 1 and G = h hᵀ k/kT: tr G is χ² of 3ν degrees of freedom. So is each G_ii, of ν, in the
    anisotropic case, where the measure is that of the three lengths. In the triclinic one it is V⁻² d⁹h,
    which makes G a Wishart matrix: G_ij has the variance ν, and det G the distribution of a product of three
    χ², of ν, ν - 1 and ν - 2.
    """
    monkeypatch.setattr(integrators, "LARGEST_STRAIN", SHAKY)
    n, length = 12, 10.0
    nu = n + 1
    state = make_state(np.zeros((n + 1, 3)), fixed=[0], cell=np.eye(3) * length)
    forces = Elastic(nu * KT / length**2)
    # Strains of 4 % a step, and of √(1/2ν) = 20 % in all: relaxation within about 50 steps.
    integrator = make("npt", compressibility=0.12 * length**3 / KT * BAR, coupling=coupling)
    run(integrator, state, forces, 1000)
    nsteps = 20_000 if coupling == "triclinic" else 9_000
    cells = np.array([s.cell for s in steps(integrator, state, forces, nsteps)])
    G = cells @ cells.transpose(0, 2, 1) * (nu / length**2)
    trace = np.trace(G, axis1=1, axis2=2)
    assert_mean(trace, 3 * nu, "tr G")
    assert_mean((trace - 3 * nu) ** 2, 6 * nu, "its variance")
    pairs = G[:, [0, 0, 1], [1, 2, 2]]
    if coupling == "isotropic":
        np.testing.assert_allclose(cells, cells[:, :1, :1] * np.eye(3), rtol=1e-12)
        return
    for axis in range(3):
        assert_mean(G[:, axis, axis], nu, "G_ii")
        assert_mean((G[:, axis, axis] - nu) ** 2, 2 * nu, "its variance")
    if coupling == "anisotropic":
        assert not pairs.any()
        return
    assert_mean(np.linalg.det(G), nu * (nu - 1) * (nu - 2), "det G")
    for k in range(3):
        assert_mean(pairs[:, k], 0, "G_ij")
    assert_mean(np.mean(pairs**2, axis=1), nu, "its variance")


def test_fluid_at_constant_pressure():
    """Mean pressure, distribution of the kinetic energy, and the books; 27 atoms in a tilted cell.

    The conserved quantity wanders as in `test_conserved_quantity`, with the thermostat's τ, the shorter one.
    """
    target, n = 20_000.0, 10_000
    state, forces = fluid()
    sigma = np.std([kinetic(s) + s.energy for s in steps(make("nve"), state, forces, 500)])
    state, forces = fluid()
    integrator = make("npt", pressure=target)
    energies, pressures, values, cells = [], [], [], []
    for s in steps(integrator, state, forces, n):
        tensor = s.kinetic_tensor()
        energies.append(np.trace(tensor) / 2)
        pressures.append(np.trace(s.pressure_tensor(tensor)) / 3)
        values.append(integrator.conserved(s, tensor))
        cells.append(s.cell)
    assert canonical_pvalue(energies[1000::60], 78) > 0.01
    assert_mean(pressures[1000:], target, "pressure")
    assert np.abs(np.array(values) - values[0]).max() < 4 * sigma * np.sqrt(2 * n * state.dt / 20)
    shapes = np.array(cells) / np.cbrt(np.linalg.det(cells))[:, None, None]
    np.testing.assert_allclose(shapes, np.broadcast_to(shapes[0], shapes.shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("coupling", ["anisotropic", "triclinic"])
def test_books_of_a_cell_that_changes_its_shape(coupling):
    """As for the isotropic one; in 1,000 steps a fluid's cell is not yet too thin for nearest images."""
    n = 1000
    state, forces = fluid()
    sigma = np.std([kinetic(s) + s.energy for s in steps(make("nve"), state, forces, 500)])
    state, forces = fluid()
    start = state.cell
    integrator = make("npt", pressure=20_000.0, coupling=coupling)
    values = [integrator.conserved(s, s.kinetic_tensor()) for s in steps(integrator, state, forces, n)]
    assert np.abs(np.array(values) - values[0]).max() < 4 * sigma * np.sqrt(2 * n * state.dt / 20)
    assert np.abs(np.linalg.inv(start) @ state.cell - np.eye(3)).max() > 0.05


def test_a_pressure_far_from_its_target_is_refused():
    state, forces = fluid()
    integrator = make("npt", pressure=-1e9)
    with pytest.raises(SimulationError, match="step 1: the barostat would deform the cell"):
        run(integrator, state, forces, 1)


# ---- what all have in common -----------------------------------------------------------------------------

EVERY = [
    ("nve", {}),
    ("langevin", {}),
    ("bussi", {}),
    ("nose_hoover", {}),
    ("npt", {"coupling": "isotropic"}),
    ("npt", {"coupling": "anisotropic"}),
    ("npt", {"coupling": "triclinic"}),
]
RAMPS = {"temperature": (250.0, 400.0), "pressure": [15_000.0, 30_000]}


@pytest.mark.parametrize(("type", "settings"), EVERY)
def test_restart_is_bitwise(type, settings):
    """R1: 30 steps and 30 more, with a new integrator that was given the old one's state, equal 60."""
    whole, forces = fluid()
    expected = make(type, 60, **settings, **RAMPS)
    run(expected, whole, forces, 60)
    state, forces = fluid()
    first = make(type, 60, **settings, **RAMPS)
    run(first, state, forces, 30)
    second = make(type, 60, **settings, **RAMPS)
    second.set({name: array.copy() for name, array in first.get().items()})
    run(second, state, forces, 30)
    for name in ("coord", "velocity", "cell"):
        np.testing.assert_array_equal(getattr(state, name), getattr(whole, name))
    tensor = state.kinetic_tensor()
    assert second.conserved(state, tensor) == expected.conserved(whole, tensor)
    assert second.get().keys() == expected.get().keys()
    for name, array in expected.get().items():
        np.testing.assert_array_equal(second.get()[name], array)


@pytest.mark.parametrize(("type", "settings"), EVERY)
def test_the_order_of_atoms_does_not_matter(type, settings):
    """Beyond rounding: 1e-16 · 10 Å, which 20 steps let grow by less than 100."""
    state, forces = fluid()
    other, _ = fluid()
    order = random.generator(8, 0, 0).permutation(27)
    for name in ("id", "mass", "mobile", "coord", "velocity"):
        setattr(other, name, getattr(other, name)[order].copy())
    for s in (state, other):
        run(make(type, **settings, **RAMPS), s, forces, 20)
    np.testing.assert_allclose(other.coord, state.coord[order], rtol=0, atol=1e-13)
    np.testing.assert_allclose(other.cell, state.cell, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("type", "settings"), EVERY)
def test_fixed_atoms_stay(type, settings):
    """At their positions; in a cell that changes, at their fractional coordinates (100 steps of rounding)."""
    state, forces = fluid(fixed=[0, 5])
    start, cell = state.coord[[0, 5]], state.cell
    run(make(type, **settings, pressure=20_000.0), state, forces, 100)
    assert not state.velocity[[0, 5]].any()
    if type == "npt":
        fractional = state.coord[[0, 5]] @ np.linalg.inv(state.cell)
        np.testing.assert_allclose(fractional, start @ np.linalg.inv(cell), rtol=0, atol=1e-13)
    else:
        np.testing.assert_array_equal(state.coord[[0, 5]], start)


def test_ramps_end_with_the_run():
    integrator = make("npt", 200, temperature=[300, 500], pressure=7)
    assert [integrator.temperature.at(step) for step in (0, 50, 200, 300)] == [300, 350, 500, 500]
    assert {integrator.pressure.at(step) for step in range(0, 400, 37)} == {7}
    assert make("bussi", 0, temperature=(300, 300)).temperature.at(0) == 300


@pytest.mark.parametrize(
    ("type", "settings", "message"),
    [
        ("nvt", {}, "type = 'nvt': expected one of nve, langevin, bussi, nose_hoover, npt"),
        ("langevin", {"temperature": None}, "'langevin' needs temperature"),
        ("bussi", {"tau": None}, "'bussi' needs tau"),
        ("nose_hoover", {"chain": None}, "'nose_hoover' needs chain"),
        ("npt", {"pressure": None, "compressibility": None}, "'npt' needs pressure, compressibility"),
        ("npt", {"pressure_tau": 0.0}, "pressure_tau = 0.0: expected a positive"),
        ("npt", {"coupling": "cubic"}, "coupling = 'cubic': expected one of isotropic"),
        ("langevin", {"tau": float("nan")}, "tau = nan"),
        ("nose_hoover", {"chain": 0}, "chain = 0"),
        ("bussi", {"temperature": (300, -1)}, "temperature = -1.0 K"),
        ("bussi", {"temperature": 0}, "temperature = 0.0 K"),
        ("langevin", {"temperature": (1, 2, 3)}, "expected a finite number or a pair"),
        ("npt", {"pressure": float("inf")}, "expected a finite number or a pair"),
    ],
)
def test_unusable_settings(type, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(type, **settings)


def test_constant_pressure_needs_a_periodic_cell():
    state, forces = fluid()
    state.pbc = np.array([True, True, False])
    with pytest.raises(ConfigError, match="needs pbc in all three directions"):
        run(make("npt"), state, forces, 1)


def test_the_state_of_another_integrator_is_refused():
    for type, values in (
        ("nve", make("nose_hoover").get()),
        ("nose_hoover", make("bussi").get()),
        ("nose_hoover", make("nose_hoover", chain=5).get()),
    ):
        with pytest.raises(DataError, match="of another integrator"):
            make(type).set(values)
