"""Training of a two-layer ReLU net as the flow of a measure.

    f(x; ρ) = ∫ a σ(w·x) dρ(a, w),    R(ρ) = ½ E_x (f(x; ρ) - f*(x))²

Gradient descent of the m neurons of f = (1/m) Σ_j a_j σ(w_j·x), with time scaled by m, is the gradient flow of R
in the Wasserstein metric: neuron u = (a, w) runs down the potential

    V(u) = δR/δρ(u) = E_x[(f - f*) a σ(w·x)],    du/dt = -∇V(u; ρ),    dR/dt = -∫ |∇V|² dρ

On the way a² - |w|² of each neuron is conserved, since σ is homogeneous. So the cone |a| = |w| is invariant and
no neuron on it changes the sign of a: neurons that start with a > 0 never represent a function that needs a < 0.
R is convex in ρ, but not along displacement (the geodesics of the metric), so that convergence to the global
minimum needs the support of ρ(0) to be the whole cone, and many neurons.

References
----------
Chizat and Bach, NeurIPS 2018 (theorem 3.3). Mei, Montanari and Nguyen, PNAS 115, E7665 (2018).
Rotskoff and Vanden-Eijnden, NeurIPS 2018. Sirignano and Spiliopoulos, SIAM J. Appl. Math. 80, 725 (2020).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from deepmd_lite.errors import ConfigError, DataError, TrainingError
from deepmd_lite.theory.descent import Trajectory


def gradients(x, y, a, w, scale, out=None):
    """Residual of f = scale Σ_j a_j σ(w_j·x), and the slopes of V at its neurons.

    Parameters
    ----------
    x : (n, d)
        The points over which E_x is the mean.
    y : (..., n)
        f*(x); leading axes are independent problems.
    a, w : (..., m), (..., m, d)
    scale : float
        1/m: mean field; 1: the conventional net, whose ∂R/∂θ_j are the same expressions.
    out : (..., m, n), optional
        Memory to work in: allocating it takes longer than the arithmetic.

    Returns
    -------
    residual : (..., n)
        f - f*.
    ga, gw : (..., m), (..., m, d)
        E_x[(f - f*) σ(w_j·x)] and a_j E_x[(f - f*) σ'(w_j·x) x].
    """
    z = np.matmul(w, x.T, out=out)
    np.maximum(z, 0, out=z)
    residual = scale * (a[..., None, :] @ z)[..., 0, :] - y
    active = np.ceil(np.minimum(z, 1, out=z), out=z)  # 1 where z > 0, in place
    gw = active @ (residual[..., None] * x) / len(x)
    ga = np.sum(w * gw, axis=-1)  # σ(z) = σ'(z) z
    return residual, ga, a[..., None] * gw


class ParticleFlow:
    """Wasserstein gradient flow of a two-layer ReLU net by m particles; explicit midpoint rule.

    Parameters
    ----------
    x : (n, d)
        Points of the loss; append a column of ones for neurons with a bias.
    y : (..., n)
        Values of the target there; leading axes are independent flows, run together.
    m : int
    dt : float
    init : "cone", "half_cone" or "point"
        |w| = 1 in uniform directions, with a = ±1, or with a = 1; or all particles of a flow at one such point.
    rng : numpy.random.Generator

    Attributes
    ----------
    a, w : (..., m), (..., m, d)
    t : float

    Raises
    ------
    ConfigError
        m or dt not positive, or an unknown `init`.
    DataError
        x and y that do not fit each other or are not finite.
    """

    def __init__(self, x, y, m, *, dt, init="cone", rng):
        if m < 1 or not dt > 0 or init not in ("cone", "half_cone", "point"):
            raise ConfigError(
                "particle flow: expected m >= 1, dt > 0 and init cone, half_cone or point, "
                f"found m = {m}, dt = {dt}, {init!r}"
            )
        x, y = np.asarray(x, float), np.asarray(y, float)
        if x.ndim != 2 or y.shape[-1:] != (len(x),):
            raise DataError(f"particle flow: expected x (n, d) and y (..., n), found {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError("particle flow: expected finite x and y, found NaN or infinity")
        self.x, self.y, self.dt, self.t = x, y, dt, 0.0
        shape = (*y.shape[:-1], 1 if init == "point" else m)
        w = rng.standard_normal((*shape, x.shape[1]))
        w /= np.linalg.norm(w, axis=-1, keepdims=True)
        a = rng.choice([-1.0, 1.0], shape) if init == "cone" else np.ones(shape)
        self.a = np.repeat(a, m // shape[-1], axis=-1)
        self.w = np.repeat(w, m // shape[-1], axis=-2)
        self._memory = np.empty((*self.a.shape, len(x)))

    @property
    def m(self):
        return self.a.shape[-1]

    @property
    def particles(self):
        """u = (a, w) (..., m, 1 + d)."""
        return np.concatenate([self.a[..., None], self.w], axis=-1)

    def _slopes(self, a, w):
        return gradients(self.x, self.y, a, w, 1 / self.m, self._memory)

    def risk(self):
        """R = ½ E_x (f - f*)² (...)."""
        return 0.5 * np.mean(self._slopes(self.a, self.w)[0] ** 2, axis=-1)

    def potential(self, u):
        """V(u) (..., k) at points u = (a, w) (..., k, 1 + d), for the present ρ."""
        phi = u[..., 0, None] * np.maximum(u[..., 1:] @ self.x.T, 0)
        return (phi @ self._slopes(self.a, self.w)[0][..., None])[..., 0] / len(self.x)

    def dissipation(self):
        """∫ |∇V|² dρ = -dR/dt (...)."""
        _, ga, gw = self._slopes(self.a, self.w)
        return np.mean(ga**2 + np.sum(gw**2, axis=-1), axis=-1)

    def invariant(self):
        """a² - |w|² (..., m) of each particle."""
        return self.a**2 - np.sum(self.w**2, axis=-1)

    def step(self):
        """Advance by dt."""
        _, ga, gw = self._slopes(self.a, self.w)
        half = self.dt / 2
        _, ga, gw = self._slopes(self.a - half * ga, self.w - half * gw)
        self.a, self.w, self.t = self.a - self.dt * ga, self.w - self.dt * gw, self.t + self.dt

    def run(self, steps, every=1):
        """Advance by ``steps`` steps: Trajectory of the risk (k, ...), at the start and after each ``every`` steps.

        Raises
        ------
        TrainingError
            dt is so large that the particles run away.
        """
        t, risk = [self.t], [self.risk()]
        for k in range(1, steps + 1):
            self.step()
            if k % every == 0:
                t.append(self.t)
                risk.append(self.risk())
                if not np.isfinite(risk[-1]).all():
                    raise TrainingError(
                        f"particle flow: expected a finite risk, found none at t = {self.t:g}; take dt < {self.dt:g}"
                    )
        return Trajectory(np.array(t), np.array(risk))


class Midpoints(NamedTuple):
    """R half way along the geodesic, ``displaced``, and at the mixture, ``mixed``; and its ``mean`` over the ends."""

    displaced: float
    mixed: float
    mean: float


def displace(u0, u1, s):
    """The displacement interpolation (m, 1 + d) at s in [0, 1] of two clouds of m particles.

    The optimal transport between clouds of one size is the permutation of least squared distance.
    """
    order = linear_sum_assignment(cdist(u0, u1, "sqeuclidean"))[1]
    return (1 - s) * u0 + s * u1[order]


def cloud_risk(x, y, u, weights=None):
    """R (float) of the cloud u (m, 1 + d), of weights 1/m or ``weights`` (m,)."""
    weights = np.full(len(u), 1 / len(u)) if weights is None else weights
    return 0.5 * float(np.mean((np.maximum(x @ u[:, 1:].T, 0) @ (weights * u[:, 0]) - y) ** 2))


def midpoint_convexity_test(x, y, u0, u1):
    """R at the middle of two clouds of m particles, to be compared with the mean of R at the ends.

    R is convex in ρ: ``mixed`` <= ``mean`` always. It would be displacement convex if ``displaced`` <= ``mean``
    always; u0 = (c, w/c) and u1 = (1/c, c w), which are one function f*, have R = 0 but a midpoint
    ((c + 1/c)/2)² f*, so ``displaced`` = ½ (((c + 1/c)/2)² - 1)² E f*².

    Parameters
    ----------
    x, y : (n, d), (n,)
    u0, u1 : (m, 1 + d)
        Rows (a, w).

    Returns
    -------
    Midpoints
    """
    if u0.shape != u1.shape or u0.shape[1:] != (1 + x.shape[1],):
        raise DataError(
            f"midpoint test: expected two clouds (m, {1 + x.shape[1]}), found {u0.shape} and {u1.shape}"
        )
    ends = (cloud_risk(x, y, u0) + cloud_risk(x, y, u1)) / 2
    mixed = cloud_risk(x, y, np.concatenate([u0, u1]))
    return Midpoints(cloud_risk(x, y, displace(u0, u1, 0.5)), mixed, ends)
