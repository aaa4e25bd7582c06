"""Regression with a two-layer network whose path norm is kept small: its error does not depend on its width.

    θ = argmin (1/n) Σ_i (f_m(x_i; θ) - y_i)² + λ_n ‖θ‖_P,    λ_n = λ sqrt(ln 2(d+1) / n)

d + 1 counts the bias as the weight of a constant input. The bound that comes with it is a priori: it knows the
Barron norm of the target, not the parameters found.

References
----------
E, Ma and Wu, "A priori estimates of the population risk for two-layer neural networks", Commun. Math. Sci. 17,
1407 (2019).
"""

from dataclasses import dataclass

import numpy as np

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.barron import BarronNetwork
from deepmd_lite.theory.norms import path_norm


class BarronRegressor:
    """Path-norm regularised least squares with a two-layer relu network, in scikit-learn's manner.

    Parameters
    ----------
    m : int
        Width.
    lam : float
        λ; 0 does not regularise.
    init : float
        Size of a at the start, a ~ U(-init, init); w and b start with |w|_1 + |b| = 1.
    steps : int
        Of Adam on all samples, with a learning rate that falls from ``lr`` to 0 as a cosine.
    lr : float
        Per step, for parameters of order one (mean-field scaling).
    random_state : int or numpy.random.Generator

    Attributes
    ----------
    network_ : BarronNetwork
    path_norm_ : float
    objective_ : float
        What is minimised, at the end.
    """

    def __init__(self, *, m=1000, lam=0.1, init=1.0, steps=2000, lr=0.03, random_state=0):
        self.m, self.lam, self.init = m, lam, init
        self.steps, self.lr, self.random_state = steps, lr, random_state

    def fit(self, x, y):
        """Fit to x (n, d), |x|_∞ ≤ 1 for the bound to hold, and y (n,).

        Raises
        ------
        ConfigError
            m or steps below one, or a negative λ.
        DataError
            x or y not finite, or of different length.
        """
        if self.m < 1 or self.steps < 1 or not self.lam >= 0:
            raise ConfigError(
                f"Barron regressor: expected m >= 1, steps >= 1 and lam >= 0, "
                f"found {self.m}, {self.steps} and {self.lam}"
            )
        x, y = np.asarray(x, float), np.asarray(y, float)
        if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
            raise DataError(f"Barron regressor: expected x (n, d) and y (n,), found {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError("Barron regressor: expected finite x and y, found NaN or infinity")
        rng = np.random.default_rng(self.random_state)
        x1 = np.column_stack([x, np.ones(len(x))])
        theta = rng.standard_normal((self.m, x1.shape[1] + 1))  # rows (w, b, a)
        theta[:, :-1] /= np.abs(theta[:, :-1]).sum(axis=1, keepdims=True)
        theta[:, -1] = rng.uniform(-self.init, self.init, self.m)
        weight = penalty(self.lam, *x.shape)
        _adam(theta, lambda: _gradient(theta, x1, y, weight), self.steps, self.lr)
        self.network_ = BarronNetwork(theta[:, -1].copy(), theta[:, :-2].copy(), theta[:, -2].copy())
        self.path_norm_ = path_norm(self.network_)
        self.objective_ = float(np.mean((self.network_(x) - y) ** 2) + weight * self.path_norm_)
        return self

    def predict(self, x):
        """f_m (n,) of points x (n, d)."""
        return self.network_(np.asarray(x, float))

    def score(self, x, y):
        """R²: 1 - mean squared error / variance of y."""
        return 1 - np.mean((self.predict(x) - y) ** 2) / np.var(y)


def penalty(lam, n, d):
    """λ_n = λ sqrt(ln 2(d+1) / n)."""
    return lam * np.sqrt(np.log(2 * (d + 1)) / n)


def _gradient(theta, x1, y, weight):
    """m times the gradient of the objective, (m, d+2), as `BarronRegressor.fit` lays out parameters."""
    w, a = theta[:, :-1], theta[:, -1]
    h = np.maximum(x1 @ w.T, 0)  # (n, m)
    residual = (2 / len(y)) * (h @ a / len(a) - y)
    gradient = np.empty_like(theta)
    gradient[:, -1] = residual @ h + weight * np.sign(a) * np.abs(w).sum(axis=1)
    gradient[:, :-1] = a[:, None] * ((h > 0).T @ (residual[:, None] * x1))
    gradient[:, :-1] += weight * np.abs(a)[:, None] * np.sign(w)
    return gradient


def _adam(theta, gradient, steps, lr):
    """Minimise in place (Kingma and Ba 2015); torch.optim.Adam takes several times longer for arrays as small."""
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(steps):
        g = gradient()
        mean += 0.1 * (g - mean)
        square += 0.001 * (g**2 - square)
        rate = 0.5 * lr * (1 + np.cos(np.pi * step / steps))
        corrected = np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-12
        theta -= rate * mean / (1 - 0.9 ** (step + 1)) / corrected


@dataclass(frozen=True)
class APrioriBound:
    """What is known of a minimiser before it is computed.

    Attributes
    ----------
    objective, path_norm, risk : float
    """

    objective: float
    path_norm: float
    risk: float


def a_priori_bound(norm, *, n, d, m, lam, sup, delta=0.05):
    """Bounds on the minimiser of `BarronRegressor` for a target without noise.

    Among m neurons drawn from the representation of f (with |a| (|w|_1 + |b|) = ‖f‖ for each) some have an
    objective of at most the mean, for any data:

        objective ≤ ‖f‖²/m + λ_n ‖f‖,    so that    ‖θ‖_P ≤ Q = objective / λ_n

    and with the Rademacher complexity of the path-norm ball of radius Q and a loss that is 4 sup-Lipschitz and
    at most 4 sup², with predictions clipped to ±sup, with probability 1 - δ

        risk ≤ objective + 16 sup Q sqrt(2 ln 2(d+1) / n) + 4 sup² sqrt(ln(1/δ) / 2n)

    Parameters
    ----------
    norm : float
        ‖f‖_B, or the mass of a representation.
    n, d, m : int
    lam : float
        λ > 0.
    sup : float
        Bound on |f|, for |x|_∞ ≤ 1.
    delta : float

    Returns
    -------
    APrioriBound
    """
    if min(n, d, m) < 1 or not (norm > 0 and lam > 0 and sup > 0 and 0 < delta < 1):
        raise ConfigError(
            "a priori bound: expected positive norm, n, d, m, lam and sup and 0 < delta < 1, "
            f"found {norm}, {n}, {d}, {m}, {lam}, {sup} and {delta}"
        )
    weight = penalty(lam, n, d)
    objective = norm**2 / m + weight * norm
    q = objective / weight
    gap = 16 * sup * q * np.sqrt(2 * np.log(2 * (d + 1)) / n)
    return APrioriBound(objective, q, objective + gap + 4 * sup**2 * np.sqrt(np.log(1 / delta) / (2 * n)))
