"""Time integration: how positions, velocities and the cell move between two evaluations of the forces.

Every integrator is a velocity Verlet step, B A B, with something more. With O and S for what a thermostat
does to velocities and a barostat to the cell:

    type           one step          O, S
    nve            B A B
    langevin       B A/2 O A/2 B     friction and noise on each atom
    bussi          B A B O           one random factor for all velocities
    nose_hoover    O/2 B A B O/2     one factor, from a chain of thermostats with a momentum of their own
    npt            B A/2 S A/2 B O   a random deformation of everything; O as bussi

    B   half kick:  v <- v + (Δt/2) F/m          A   drift:  x <- x + Δt v

New forces are evaluated once, before the last B: `first_half` is what comes before, `second_half` what comes
after. ``state.step`` counts the step under way from `first_half` on and keys the random numbers; ramps of
temperature and pressure run from step 0 to ``nsteps`` and stay at their end.

All quantities that ranks must agree on come from sums over all ranks; nothing here is indexed by atom.
``taken`` is the energy in eV that thermostat and barostat have taken out so far: `conserved` adds it to the
total energy, and drifts with the error of the integration alone.

Thermostats on the total kinetic energy (all but langevin) count ``state.degrees_of_freedom``: where no atom
is held fixed they expect a total momentum of zero, which they conserve, and a start from rest stays at rest
without forces.
"""

import math
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DataError, SimulationError
from deepmd_lite.md import random
from deepmd_lite.units import ACCELERATION, BAR, BOLTZMANN

ATOMS, THERMOSTAT, CELL = 0, 1, 2  # streams of random numbers
OUTER = 1 / (2 - 2 ** (1 / 3))
YOSHIDA = OUTER, 1 - 2 * OUTER, OUTER  # weights of a fourth-order splitting
LARGEST_STRAIN = 0.1  # of one step: a pressure far from its target, or a pressure_tau that is too short
COUPLINGS = ("isotropic", "anisotropic", "triclinic")


class Ramp(NamedTuple):
    """A value that goes linearly from ``start`` to ``end`` in ``nsteps`` steps."""

    start: float
    end: float
    nsteps: int

    def at(self, step):
        """The value in a step, counted from 0."""
        return self.start + (self.end - self.start) * min(1.0, step / max(1, self.nsteps))


def _kick(state):
    state.velocity += state.force * (state.mobile / state.mass * (ACCELERATION * state.dt / 2))


def _drift(state, dt):
    state.coord += dt * state.velocity


def _kinetic(state):
    """Kinetic energy of all ranks, eV."""
    return float(np.trace(state.kinetic_tensor())) / 2


class VelocityVerlet:
    """Newton's equations: energy and momentum are conserved.

    Notes
    -----
    Symplectic and time-reversible. The energy itself oscillates by O(Δt²) around that of a nearby
    Hamiltonian.

    References
    ----------
    W. C. Swope, H. C. Andersen, P. H. Berens, K. R. Wilson, J. Chem. Phys. 76, 637 (1982).
    """

    def __init__(self):
        self.taken = 0.0  # eV

    def first_half(self, state):
        """Half kick and drift; to be followed by new forces."""
        _kick(state)
        _drift(state, state.dt)

    def second_half(self, state):
        """Half kick, with the new forces."""
        _kick(state)

    def conserved(self, state, kinetic_tensor):
        """Total energy plus what thermostat and barostat have taken out, eV.

        Parameters
        ----------
        state : State
            Between two steps.
        kinetic_tensor : (3, 3) array, eV
            ``state.kinetic_tensor()``, as now.
        """
        return float(np.trace(kinetic_tensor)) / 2 + state.energy + self.taken

    def get(self):
        """What a restart needs beside the `State`: arrays by name, the same on every rank."""
        return {"taken": np.array(self.taken)}

    def set(self, values):
        """Continue from what `get` returned. Raises DataError where it is of another integrator."""
        expected = {name: array.shape for name, array in self.get().items()}
        found = {name: np.shape(array) for name, array in values.items()}
        if found != expected:
            raise DataError(
                f"the state to continue from holds {found}, expected {expected}: "
                "it is of another integrator; start a new run from its structure instead"
            )
        self.taken = float(values["taken"])


class Langevin(VelocityVerlet):
    """Friction and noise on each atom: dv = F/m dt - γ v dt + √(2γkT/m) dW, with γ = 1/tau.

    Momentum is not conserved, as always with Langevin's equation: the noise pushes the center of mass, whose
    three degrees of freedom are as warm as all others. So K has 3 per mobile atom, and `State.temperature`,
    which leaves the center's out where no atom is held fixed, reads N/(N-1) too high.

    Notes
    -----
    B A/2 O A/2 B, where O is exact for any Δt: v <- c v + √((1 - c²) kT/m) ξ, c = exp(-γΔt). Of such
    splittings this one has the smallest error in averages over positions (none for harmonic forces). The
    velocities at the end of a step pay for it: those of a mode of angular frequency ω are too cold, with
    1 - (ωΔt)²/4 of their temperature.

    References
    ----------
    B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34 (2013), "BAOAB".
    """

    def __init__(self, temperature, tau):
        super().__init__()
        self.temperature, self.tau = temperature, tau  # Ramp in K, fs

    def first_half(self, state):
        """Half kick; drift, with friction and noise in its middle."""
        _kick(state)
        _drift(state, state.dt / 2)
        self._friction_and_noise(state)
        _drift(state, state.dt / 2)

    def _friction_and_noise(self, state):
        decay = state.dt / self.tau
        variance = -math.expm1(-2 * decay) * BOLTZMANN * self.temperature.at(state.step) * ACCELERATION
        noise = random.normal(state.seed, state.step, state.id, ATOMS)
        noise *= np.sqrt(variance / state.mass) * state.mobile
        before = np.vdot(state.mass * state.velocity, state.velocity)
        state.velocity *= math.exp(-decay)
        state.velocity += noise
        after = np.vdot(state.mass * state.velocity, state.velocity)
        self.taken += float(state.sum(before - after)) / (2 * ACCELERATION)


def _rescale(state, temperature, tau):
    """Draw a new kinetic energy K, scale all velocities to it, and return the energy that this took out (eV).

    With f degrees of freedom, c = exp(-Δt/τ), K̄ = f kT/2, R normal and χ² of f - 1 degrees of freedom, the
    factor α of the velocities is (Bussi et al., eq. A7, where its sign is that of the first square's root)

        α² = (√c + R √((1 - c) K̄/(f K)))²  +  χ² (1 - c) K̄/(f K),

    the exact solution of dK = (K̄ - K) dt/τ + 2 √(K K̄/(f τ)) dW over Δt.
    """
    kinetic = _kinetic(state)
    if kinetic == 0:
        return 0.0
    f = state.degrees_of_freedom
    rng = random.generator(state.seed, state.step, THERMOSTAT)
    decay = state.dt / tau
    share = -math.expm1(-decay) * BOLTZMANN * temperature / (2 * kinetic)
    root = math.exp(-decay / 2) + rng.standard_normal() * math.sqrt(share)
    squared = root**2 + share * (rng.chisquare(f - 1) if f > 1 else 0.0)
    state.velocity *= math.copysign(math.sqrt(squared), root)
    return kinetic * (1 - squared)


class VelocityRescaling(VelocityVerlet):
    """Bussi's thermostat: the kinetic energy follows a stochastic equation of its own, relaxing within tau.

    Notes
    -----
    `_rescale` at the end of each step is exact for any Δt, so that kinetic energies there have the canonical
    distribution; directions and relative sizes of velocities stay as they are.

    References
    ----------
    G. Bussi, D. Donadio, M. Parrinello, J. Chem. Phys. 126, 014101 (2007).
    """

    def __init__(self, temperature, tau):
        super().__init__()
        self.temperature, self.tau = temperature, tau  # Ramp in K, fs

    def second_half(self, state):
        """Half kick; a new kinetic energy."""
        _kick(state)
        self.taken += _rescale(state, self.temperature.at(state.step), self.tau)


class NoseHoover(VelocityVerlet):
    """A chain of M thermostats, deterministic and time-reversible.

    Notes
    -----
    With the velocities v_ξ of the chain, its masses Q₁ = f kT τ² and Q_k = kT τ², f degrees of freedom and
    2K = Σ m v²:

        dv/dt     = F/m - v v_ξ1
        dv_ξ1/dt  = (2K - f kT)/Q₁ - v_ξ1 v_ξ2
        dv_ξk/dt  = (Q_{k-1} v²_ξ(k-1) - kT)/Q_k - v_ξk v_ξ(k+1),   no last term for k = M.

    The chain moves for Δt/2 before and after each step, by a fourth-order splitting (Yoshida and Suzuki's
    three weights). Conserved is K + U + Σ Q_k v²_ξk/2 + f kT ξ₁ + kT Σ_{k>1} ξ_k; the last two are collected
    in ``taken`` as they come, so that this holds on a temperature ramp too. There, masses are those of its
    mean temperature.

    Not ergodic for systems without chaos, such as uncoupled oscillators: use langevin for those.

    References
    ----------
    G. J. Martyna, M. L. Klein, M. Tuckerman, J. Chem. Phys. 97, 2635 (1992), the chain; G. J. Martyna,
    M. E. Tuckerman, D. J. Tobias, M. L. Klein, Mol. Phys. 87, 1117 (1996), its integration.
    """

    def __init__(self, temperature, tau, chain):
        super().__init__()
        self.temperature, self.tau = temperature, tau  # Ramp in K, fs
        self.velocity = np.zeros(chain)  # v_ξ, 1/fs

    def first_half(self, state):
        """The chain; half kick and drift."""
        self._move(state)
        super().first_half(state)

    def second_half(self, state):
        """Half kick; the chain."""
        super().second_half(state)
        self._move(state)

    def conserved(self, state, kinetic_tensor):
        """Total energy plus that of the chain, eV."""
        chain = float(np.dot(self._masses(state), self.velocity**2)) / 2
        return super().conserved(state, kinetic_tensor) + chain

    def _masses(self, state):
        """Q, a list, eV fs²."""
        mass = BOLTZMANN * (self.temperature.start + self.temperature.end) / 2 * self.tau**2
        return [state.degrees_of_freedom * mass] + [mass] * (len(self.velocity) - 1)

    def _move(self, state):
        kT = BOLTZMANN * self.temperature.at(state.step)
        masses, v = self._masses(state), self.velocity.tolist()
        target = [kT * state.degrees_of_freedom] + [kT] * (len(v) - 1)  # of twice the energy that drives each
        initial = twice = 2 * _kinetic(state)

        def accelerate(k, h):
            damping = math.exp(-h / 4 * v[k + 1]) if k + 1 < len(v) else 1.0
            drive = masses[k - 1] * v[k - 1] ** 2 if k else twice
            v[k] = (v[k] * damping + h / 2 * (drive - target[k]) / masses[k]) * damping

        for weight in YOSHIDA:
            h = weight * state.dt / 2
            for k in reversed(range(len(v))):
                accelerate(k, h)
            twice *= math.exp(-2 * h * v[0])
            self.taken += h * sum(goal * speed for goal, speed in zip(target, v))
            for k in range(len(v)):
                accelerate(k, h)
        self.velocity[:] = v
        if initial > 0:
            state.velocity *= math.sqrt(twice / initial)

    def get(self):
        return super().get() | {"chain_velocity": self.velocity.copy()}

    def set(self, values):
        super().set(values)
        self.velocity = np.array(values["chain_velocity"], np.float64)


class CellRescaling(VelocityVerlet):
    """Constant pressure by stochastic cell rescaling, constant temperature by Bussi's thermostat.

    The pressure relaxes with a time ``pressure_tau`` if ``compressibility`` is that of the substance;
    averages and fluctuations do not depend on either. ``coupling`` says which strains the cell is free to
    take:

    - isotropic: one number, the volume.
    - anisotropic: three, along x, y and z. A cell with its vectors along these axes keeps its right angles.
    - triclinic: all six. For solids; nothing keeps the cell of a liquid from becoming needles and sheets, and
      the same holds, more slowly, for anisotropic.

    No deformation turns the cell. Atoms that are held fixed keep their fractional coordinates.

    Notes
    -----
    The step of the cell deforms cell, positions and velocities by a symmetric matrix L,

        h <- h exp(L),   x <- x exp(L),   v <- v exp(-L)         (vectors in rows)
        L = β_T/(3 τ_p) (P - P₀ 1) Δt + √(2 β_T kT Δt/(3 V τ_p)) (ξ + ξᵀ)/2

    with nine independent normal numbers ξ, P = (Σ m v v + W)/V and the target P₀. This is Del Tatto's Itô
    equation

        dh = A h   (vectors in columns),   D = β_T kT/(3 V τ_p)
        A = β_T/(3 τ_p) (P - P₀ + kT/V) dt + √(2 D) dW

    with the rotation taken out: the symmetric polar factor of 1 + A has, with S = (A + Aᵀ)/2, the logarithm
    S + AᵀA/2 - S², and the noise in the last two terms adds (3 - 4) D dt, which cancels kT/V. The diagonal of
    L alone is the anisotropic case; its trace is the isotropic one, Bernetti and Bussi's for ε = ln V:

        dε = β_T/τ_p (P - P₀) dt + √(2 β_T kT/(V τ_p)) dW.

    Stationary is exp(-(K + U + P₀V)/kT) dV (d⁹h (det h)⁻² for the whole cell). With f degrees of freedom the
    volume of an ideal gas is thus distributed as V^{f/3} exp(-P₀V/kT): f = 3N - 3 where the total momentum is
    zero, and the average of the measured pressure is P₀ whatever f is.

    P takes the velocities between the two kicks, at the cell's turn in mid-step: for these, not for those at
    the end of a step, Σ m v v + Σ x F of a bound molecule averages to zero for any Δt. W is that of the last
    forces. The work on the potential energy, -W : L, is taken from the virials before and after, by the
    trapezoidal rule.

    References
    ----------
    M. Bernetti, G. Bussi, J. Chem. Phys. 153, 114107 (2020); V. Del Tatto, P. Raiteri, M. Bernetti, G. Bussi,
    Appl. Sci. 12, 1139 (2022).
    """

    def __init__(self, temperature, tau, pressure, pressure_tau, compressibility, coupling):
        super().__init__()
        self.temperature, self.tau = temperature, tau  # Ramp in K, fs
        self.pressure, self.pressure_tau = pressure, pressure_tau  # Ramp in bar, fs
        self.compressibility, self.coupling = compressibility, coupling  # 1/bar
        self._strain = np.zeros((3, 3))  # L of the step under way

    def first_half(self, state):
        """Half kick; drift, with the step of the cell in its middle."""
        if not np.all(state.pbc):
            raise ConfigError(f"type = 'npt' needs pbc in all three directions, found {np.array(state.pbc)}")
        _kick(state)
        _drift(state, state.dt / 2)
        self._deform(state)
        _drift(state, state.dt / 2)

    def second_half(self, state):
        """Half kick; a new kinetic energy."""
        _kick(state)
        self.taken += np.vdot(state.virial, self._strain) / 2
        self.taken += _rescale(state, self.temperature.at(state.step), self.tau)

    def _deform(self, state):
        kinetic = state.kinetic_tensor()
        L = self._strain = self._draw(state, state.pressure_tensor(kinetic))
        if not np.abs(L).max() <= LARGEST_STRAIN:
            raise SimulationError(
                f"step {state.step}: the barostat would deform the cell by {np.abs(L).max():.2g}, expected "
                f"at most {LARGEST_STRAIN}: the pressure is far from its target; relax the structure, or "
                "raise pressure_tau"
            )
        exponent, axes = np.linalg.eigh(L)
        stretch, inverse = axes * np.exp(exponent) @ axes.T, axes * np.exp(-exponent) @ axes.T
        state.cell = state.cell @ stretch
        state.coord[:] = state.coord @ stretch
        state.velocity[:] = state.velocity @ inverse
        after = np.trace(inverse @ kinetic @ inverse)
        self.taken += float(np.trace(kinetic) - after) / 2 + np.vdot(state.virial, L) / 2

    def _draw(self, state, pressure):
        """L for the pressure tensor (3, 3) in bar."""
        rate = self.compressibility * state.dt / (3 * self.pressure_tau)  # 1/bar
        kT = BOLTZMANN * self.temperature.at(state.step)
        noise = random.generator(state.seed, state.step, CELL).standard_normal((3, 3))
        noise *= math.sqrt(2 * rate * kT / (state.volume * BAR))
        L = rate * (pressure - self.pressure.at(state.step) * np.eye(3)) + (noise + noise.T) / 2
        if self.coupling == "isotropic":
            return np.trace(L) / 3 * np.eye(3)
        return np.diag(np.diag(L)) if self.coupling == "anisotropic" else L


KINDS = {
    "nve": (VelocityVerlet, ()),
    "langevin": (Langevin, ("temperature", "tau")),
    "bussi": (VelocityRescaling, ("temperature", "tau")),
    "nose_hoover": (NoseHoover, ("temperature", "tau", "chain")),
    "npt": (
        CellRescaling,
        ("temperature", "tau", "pressure", "pressure_tau", "compressibility", "coupling"),
    ),
}


def make_integrator(settings, nsteps):
    """The integrator that ``settings`` describe.

    Parameters
    ----------
    settings : object
        With the attributes ``type`` (a key of `KINDS`) and, None where the type does not need them:
        ``temperature`` (K) and ``pressure`` (bar), each a number or a pair (start, end) for a linear ramp
        over the run; ``tau`` and ``pressure_tau`` (fs); ``chain``, the number of thermostats;
        ``compressibility`` (1/bar); ``coupling``, one of `COUPLINGS`.
    nsteps : int
        Of the whole run, also where it continues an interrupted one: ramps follow ``state.step / nsteps``.

    Raises
    ------
    ConfigError
        An unknown type or coupling; a setting that the type needs and that is missing or out of range.
    """
    if settings.type not in KINDS:
        raise ConfigError(f"integrator type = {settings.type!r}: expected one of {', '.join(KINDS)}")
    kind, needed = KINDS[settings.type]
    values = {name: getattr(settings, name) for name in needed}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ConfigError(f"type = {settings.type!r} needs {', '.join(missing)}: not set")
    for name in ("tau", "pressure_tau", "compressibility"):
        if name in values and not 0 < values[name] < math.inf:
            raise ConfigError(f"{name} = {values[name]}: expected a positive number")
    if values.get("chain", 1) < 1:
        raise ConfigError(f"chain = {values['chain']}: expected at least one thermostat")
    if values.get("coupling", "isotropic") not in COUPLINGS:
        raise ConfigError(f"coupling = {values['coupling']!r}: expected one of {', '.join(COUPLINGS)}")
    if "temperature" in values:
        values["temperature"] = ramp = _ramp("temperature", values["temperature"], nsteps)
        coldest = min(ramp.start, ramp.end)
        if coldest < 0 or (coldest == 0 and kind is not Langevin):
            raise ConfigError(f"temperature = {coldest} K: not possible for type = {settings.type!r}")
    if "pressure" in values:
        values["pressure"] = _ramp("pressure", values["pressure"], nsteps)
    return kind(**values)


def _ramp(name, value, nsteps):
    """A `Ramp` from a number or a pair."""
    ends = np.atleast_1d(np.asarray(value, dtype=float))
    if ends.shape not in ((1,), (2,)) or not np.isfinite(ends).all():
        raise ConfigError(f"{name} = {value}: expected a finite number or a pair (start, end) of them")
    return Ramp(float(ends[0]), float(ends[-1]), int(nsteps))
