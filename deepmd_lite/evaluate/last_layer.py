"""What the last layer of the fitting nets still tells: its best weights, errors on frames left out, uncertainty.

Energies, forces and virials are linear in the coefficients c of that layer (engine/last_layer.py), so the loss

    L(c) = Σ_frames w_e ΔE²/N + w_f ΣΔF²/3N + w_v ΣΔΞ²/9N

with the prefactors of training is a quadratic form, which one pass over the frames gathers (theory/ridge.py). With
c = c₀ + δ, where c₀ are the weights as trained,

    refit          δ = argmin L(c₀ + δ) + λ|δ|²;  L(c₀) - min L is what the optimizer has left undone
    left out       the residuals of a frame in a fit that has not seen it, without another fit
    σ              scale |Lᵀφ| of an energy or force φ · c, where L Lᵀ = (A + λ)⁻¹, A = Σ w φ φᵀ, with a small λ
    calibration    scale such that 90 % of the errors on other frames lie within 1.645 σ
    dimension      tr(A (A + λ)⁻¹), how many coefficients the frames have fixed

"Left out" concerns the last layer: the layers before it have seen all frames that they were trained on.

References
----------
Daxberger et al., NeurIPS 2021 (Laplace approximation of the last layer); Bigi, Chong, Ceriotti and Grasselli, Mach.
Learn.: Sci. Technol. 5, 045018 (2024) (the same for potentials, and its calibration).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deepmd_lite.engine.last_layer import NO_POSTERIOR, Features, coefficients, with_coefficients
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.system import System
from deepmd_lite.model_file import Model, Posterior
from deepmd_lite.theory.ridge import NormalEquations

QUANTITIES = ("energy", "force", "virial")
COVERED, WIDTH = 0.9, 1.6448536269514722  # that share of a normal distribution is within so many deviations
RIDGES = 10.0 ** np.arange(-12, 1, 2)  # that "loo" chooses from, relative to the mean eigenvalue of A
SEEN = 16, 9000  # frames that it leaves out one by one for that: so many, and enough for so many numbers
SMALL = 1e-8  # λ of the covariance, relative to the same: large ones hide what a frame has that the others had not


@dataclass(frozen=True)
class Values:
    """Numbers for the frames of a system, NaN where there is none: residuals, or standard deviations."""

    system: System
    energy: np.ndarray  # (nframes,) eV
    force: np.ndarray  # (nframes, natoms, 3) eV/Å
    virial: np.ndarray  # (nframes, 3, 3) eV


@dataclass(frozen=True)
class Refit:
    """A model with the last layer refitted; losses as L / number of frames, ``minimum`` that of no ridge."""

    model: Model
    before: float
    after: float
    minimum: float


class _Frame(NamedTuple):
    """Rows of one frame: those of the energy, then of the forces, then of the virial."""

    phi: np.ndarray  # (1 + 3 natoms + 9, K)
    residual: np.ndarray  # (rows,) label - model, NaN without a label
    weight: np.ndarray  # (rows,)

    def labelled(self):
        """The rows that have a label and count."""
        there = np.isfinite(self.residual) & (self.weight > 0)
        return self.phi[there], self.residual[there], self.weight[there]


class LastLayer:
    """The last layer of a model's fitting nets.

    Parameters
    ----------
    model : model_file.Model
        Where it has a posterior, standard deviations are that one's until `fit`.
    w_energy, w_force, w_virial : float
        w_e, w_f, w_v: the prefactors of training, at its end.
    threads : int, optional
        As many as Numba has when left out.

    Attributes
    ----------
    posterior : model_file.Posterior or None
    ridge : float
        λ of the last `fit`.

    Raises
    ------
    ConfigError
        A model with a pair table; weights that are negative or all zero.
    """

    def __init__(self, model, *, w_energy=1.0, w_force=1.0, w_virial=0.0, threads=None):
        weights = np.array([w_energy, w_force, w_virial], float)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
            raise ConfigError(f"weights of energy, force and virial: expected numbers >= 0, found {weights}")
        self.features, self.weights = Features(model, threads), weights
        self.model, self.posterior = model, model.posterior
        self._trained = coefficients(model)
        self._equations, self._nframes, self.ridge = None, 0, None

    def fit(self, systems, ridge="loo"):
        """Gather the frames, choose λ of the refit, and make the `posterior`, whose λ is a small one.

        Parameters
        ----------
        systems : list of System
            With the type_map of the model.
        ridge : float or "loo"
            λ; or the one of `RIDGES` with which frames that are left out one by one have the smallest loss.

        Returns
        -------
        LastLayer
            Itself, with a `posterior` that is not calibrated.
        """
        if ridge != "loo" and not (isinstance(ridge, int | float) and 0 <= ridge < np.inf):
            raise ConfigError(f"ridge = {ridge!r}: expected loo or a number >= 0")
        equations, self._nframes = NormalEquations(self.features.size), 0
        for frame in self._frames(systems):
            equations.add(*frame.labelled())
            self._nframes += 1
        if not equations.rows:
            raise DataError(f"{_names(systems)}: expected labels that have a weight, found none")
        self._equations = equations
        self.ridge = self._choose(systems) if ridge == "loo" else float(ridge)
        small = SMALL * np.mean(equations.eigen[0])
        self.posterior = Posterior(equations.factor(small), np.ones(3))
        return self

    def refit(self):
        """`Refit`: The minimum with λ; the weights as trained where rounding to the nets' precision spoils it."""
        delta = self._fitted().solve(self.ridge)
        model = with_coefficients(self.model, self._trained + delta)
        rounded = coefficients(model) - self._trained
        before, after = (self._equations.loss(d) / self._nframes for d in (np.zeros_like(delta), rounded))
        if after > before:
            model, after = self.model, before
        minimum = self._equations.loss(self._equations.solve()) / self._nframes
        return Refit(replace(model, posterior=self.posterior), before, after, minimum)

    @property
    def effective_dimension(self):
        """tr(A (A + λ)⁻¹)."""
        return self._fitted().effective_dimension(self.ridge)

    def leave_one_out(self, systems):
        """Residuals, label - prediction, of refits without the frame in question.

        Parameters
        ----------
        systems : list of System
            Frames that were in `fit`.

        Returns
        -------
        list of Values
        """
        self._fitted()
        return [self._values(s, map(self._left_out, self._frames([s]))) for s in systems]

    def std(self, systems):
        """Standard deviations by the `posterior`: list of Values."""
        return [self._values(s, map(self._sigma, self._frames([s]))) for s in systems]

    def calibrate(self, systems, *, left_out=False):
        """Scale the `posterior` so that its 90 % intervals hold 90 % of the errors.

        Parameters
        ----------
        systems : list of System
            Frames that the model has not seen.
        left_out : bool
            For want of such: the frames of `fit`, with the errors of `leave_one_out`. What the layers below have
            learnt from them goes unnoticed.

        Returns
        -------
        dict of str to float
            Share of errors within the intervals by quantity, when either half of the frames is scaled by the other.

        Notes
        -----
        A quantity without labels takes the scale of the forces, or of the energy.
        """
        ratios = self._ratios(systems, self._left_out if left_out else _residual)
        scale = {key: s for key, r in ratios.items() if (s := _scale(r)) > 0}
        if not scale:
            raise DataError(f"{_names(systems)}: calibration: expected frames with labels, found none")
        other = scale.get("force", next(iter(scale.values())))
        factors = np.array([scale.get(key, other) for key in QUANTITIES])
        self.posterior = Posterior(self.posterior.factor, self.posterior.scale * factors)
        half = len(ratios["force"]) // 2
        halves = {key: (r[:half], r[half:]) for key, r in ratios.items() if key in scale and half}
        shares = {
            key: np.concatenate([_within(a, _scale(b)), _within(b, _scale(a))])
            for key, (a, b) in halves.items()
        }
        return {key: float(share.mean()) for key, share in shares.items() if share.size}

    def coverage(self, systems):
        """Share of errors within 90 % intervals by quantity: dict of float, without those that have no labels."""
        shares = {key: _within(r, 1.0) for key, r in self._ratios(systems, _residual).items()}
        return {key: float(share.mean()) for key, share in shares.items() if share.size}

    def _ratios(self, systems, error):
        """|error| / σ of labelled numbers: for each quantity a list, by frame, of (n,)."""
        ratios = {key: [] for key in QUANTITIES}
        for frame in self._frames(systems):
            ratio = np.abs(error(frame)) / self._sigma(frame)
            for key, part in zip(QUANTITIES, (ratio[:1], ratio[1:-9], ratio[-9:])):
                ratios[key].append(part[np.isfinite(part)])
        return ratios

    def _sigma(self, frame):
        """σ (rows,) of a frame."""
        if self.posterior is None:
            raise ConfigError(NO_POSTERIOR)
        sigma = np.sqrt(np.sum((frame.phi @ self.posterior.factor) ** 2, axis=1))
        return sigma * np.repeat(self.posterior.scale, [1, len(sigma) - 10, 9])

    def _fitted(self):
        if self._equations is None:
            raise ConfigError("the last layer: expected fit(frames) before this")
        return self._equations

    def _frames(self, systems):
        """Yield the `_Frame` of each frame."""
        parameters = [key for key in ("fparam", "aparam") if getattr(self.model.fitting, f"numb_{key}")]
        for s in systems:
            for k in range(s.nframes):
                box = None if s.box is None else s.box[k]
                given = {key: s.labels[key][k] for key in parameters if key in s.labels}
                rows = self.features(s.coord[k], s.atype, box, s.pbc, **given)
                phi = np.concatenate([x.reshape(-1, self.features.size) for x in rows[:3]])
                label = np.concatenate([_label(s, key, k).ravel() for key in QUANTITIES])
                label[0] -= rows.constant
                of_frame = s.labels["weight"][k] if "weight" in s.labels and s.found["weight"][k] else 1.0
                count = np.array([1, 3 * s.natoms, 9])
                weight = of_frame * self.weights / [s.natoms, 3 * s.natoms, 9 * s.natoms]
                yield _Frame(phi, label - phi @ self._trained, np.repeat(weight, count))

    def _left_out(self, frame):
        """Residuals (rows,) of a frame without which the layer is fitted; NaN without a label or weight."""
        found = np.full(len(frame.residual), np.nan)
        there = np.isfinite(frame.residual) & (frame.weight > 0)
        found[there] = self._equations.left_out(*frame.labelled(), self.ridge)
        return found

    def _choose(self, systems):
        """λ by the loss of frames left out, and what rounding the coefficients to the nets' precision adds to it."""
        count = min(self._nframes, max(SEEN[0], SEEN[1] * self._nframes // self._equations.rows))
        chosen = np.unique(np.linspace(0, self._nframes - 1, count).astype(int))
        ridges, first = RIDGES * np.mean(self._equations.eigen[0]), 0
        loss = np.array([self._rounding(ridge) for ridge in ridges]) * len(chosen) / self._nframes
        for s in systems:
            mine = chosen[(chosen >= first) & (chosen < first + s.nframes)] - first
            first += s.nframes
            for frame in self._frames([s.select(mine)]):
                rows = frame.labelled()
                for k, ridge in enumerate(ridges):
                    loss[k] += np.sum(rows[2] * self._equations.left_out(*rows, ridge) ** 2)
        return float(ridges[np.argmin(loss)])

    def _rounding(self, ridge):
        """By how much L grows when the coefficients are rounded."""
        delta = self._equations.solve(ridge)
        rounded = coefficients(with_coefficients(self.model, self._trained + delta)) - self._trained
        return self._equations.loss(rounded) - self._equations.loss(delta)

    def _values(self, system, rows):
        """`Values` from the rows of each frame."""
        rows = np.array(list(rows))
        force = rows[:, 1:-9].reshape(system.nframes, system.natoms, 3)
        return Values(system, rows[:, 0], force, rows[:, -9:].reshape(-1, 3, 3))


def _label(system, key, k):
    """A label of frame k, NaN without one."""
    if key in system.labels and system.found[key][k]:
        return np.array(system.labels[key][k], float)
    return np.full({"energy": (), "force": (system.natoms, 3), "virial": (3, 3)}[key], np.nan)


def _residual(frame):
    return frame.residual


def _scale(ratios):
    """What σ has to be multiplied by, from |error| / σ by frame; 0 without any."""
    ratios = np.concatenate([np.zeros(0), *ratios])
    return float(np.quantile(ratios, COVERED)) / WIDTH if ratios.size else 0.0


def _within(ratios, scale):
    """Which errors lie within 90 % intervals: (n,) bool."""
    return np.concatenate([np.zeros(0), *ratios]) <= scale * WIDTH


def _names(systems):
    return ", ".join(s.name for s in systems)
