"""Wide nets in the conventional scaling: training is linear, and the net is its random feature model.

    f(x; a, w) = Σ_j a_j σ(w_j·x),    R = (1/2n) Σ_i (f(x_i) - y_i)²,    dθ/dt = -∇R

From a(0) = 0 with |w_j| = 1, a_j stays of order 1/m while the risk falls at rates of order m:

    R(t) <= e^{-m λ_n t} R(0),    λ_n the least eigenvalue of K_ij = (1/n) E_w σ(w·x_i) σ(w·x_j)

and dw_j/dt = a_j (...) is m times slower than da_j/dt. The weights w have no time to move, and at all times f is
the random feature model with the same, frozen w (E, Ma and Wu 2020): no better and no worse.

In general a net whose parameters hardly move is f(t) = f(0) + Θ(x, X) Θ⁻¹ (1 - e^{-Θt/n}) (y - f(0)), with the
neural tangent kernel Θ(x, x') = ∇_θ f(x)·∇_θ f(x') at the start (Jacot, Gabriel and Hongler 2018).

References
----------
E, Ma and Wu, Sci. China Math. 63, 1235 (2020) (theorems 3.1 to 3.3). Jacot, Gabriel and Hongler, NeurIPS 2018.
Du et al., ICLR 2019. Chizat, Oyallon and Bach, NeurIPS 2019: why this is "lazy".
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.linalg

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.descent import jacobian
from deepmd_lite.theory.kernels import ArcCosine
from deepmd_lite.theory.mean_field import gradients


def gram_matrix(x, activation="relu"):
    """K_ij = (1/n) E_w[σ(w·x_i) σ(w·x_j)] (n, n) of points x (n, d), w uniform on the unit sphere.

    ``activation`` is relu or sign, the step function.
    """
    if activation not in ("relu", "sign"):
        raise ConfigError(f"gram matrix: expected activation relu or sign, found {activation!r}")
    return ArcCosine(order=1 if activation == "relu" else 0)(x) / len(x)


def empirical_ntk(model, x1, x2=None):
    """Θ(x, x') = ∇_θ h(x)·∇_θ h(x') (n1, n2) of a torch module h with one output; x2 = x1 if not given."""
    first = jacobian(model, x1)
    return first @ (first if x2 is None else jacobian(model, x2)).T


def max_learning_rate(kernel):
    """2n/λ_max: gradient descent on (1/2n) Σ (f - y)² is stable below it, for Θ = ``kernel`` (n, n)."""
    n = len(kernel)
    return 2 * n / float(scipy.linalg.eigh(kernel, eigvals_only=True, subset_by_index=(n - 1, n - 1))[0])


class LinearizedPredictor:
    """What a net with a constant tangent kernel predicts while it is trained on (1/2n) Σ (f - y)².

        f(X, t) = (1 - e^{-Kt/n}) y,    f(x, t) = k(x, X) K⁻¹ (1 - e^{-Kt/n}) y

    from f = 0; a net that starts at f(0) takes y - f(0) for y and adds f(0).

    Parameters
    ----------
    kernel : (n, n)
        K, symmetric, not negative.
    y : (n,)
    lr : float, optional
        Gradient descent at this rate, t the number of steps, (1 - lr K/n)^t in the place of e^{-Kt/n}.
    """

    def __init__(self, kernel, y, lr=None):
        if kernel.shape != (len(y), len(y)) or not (np.isfinite(kernel).all() and np.isfinite(y).all()):
            raise DataError(
                f"linearized net: expected a finite kernel (n, n) and y (n,), found {kernel.shape}, {y.shape}"
            )
        if lr is not None and not lr > 0:
            raise ConfigError(f"linearized net: expected lr > 0, found {lr}")
        values, self.vectors = scipy.linalg.eigh(kernel)
        self.values, self.inner, self.lr = np.maximum(values, 0), self.vectors.T @ y, lr

    def __call__(self, t=None, kernel_test=None):
        """f at time t: (n,), or (k, n) of times (k,); t = None: after infinite time.

        With ``kernel_test`` (n_test, n), k(x, X), at test points in the place of the training points.
        """
        n = len(self.values)
        known = self.values > n * np.finfo(float).eps * self.values[-1]
        if t is None:
            learned = known.astype(float)
        elif self.lr is None:
            learned = -np.expm1(-np.multiply.outer(t, self.values) / n)
        else:
            learned = 1 - (1 - self.lr * self.values / n) ** np.asarray(t)[..., None]
        if kernel_test is None:
            return learned * self.inner @ self.vectors.T
        # directions that the kernel does not know from zero are not used at test points
        inverse = np.divide(1, self.values, out=np.zeros(n), where=known)
        return learned * inverse * self.inner @ (kernel_test @ self.vectors).T


class Comparison(NamedTuple):
    """A two-layer net along gradient flow beside the random feature model with its initial w.

    m : int; t (k,) : times
    risk, frozen_risk (k,) : R of the two; R(0) is that of f = 0
    distance (k,) : largest |f - f_frozen| over the test points
    moved (k,) : sqrt(mean_j |w_j(t) - w_j(0)|²)
    a, w : (k, m), (k, m, d), the net's path
    """

    m: int
    t: np.ndarray
    risk: np.ndarray
    frozen_risk: np.ndarray
    distance: np.ndarray
    moved: np.ndarray
    a: np.ndarray
    w: np.ndarray


def ntk_comparison(x, y, m_list, x_test, rng, horizon=2e4, points=60):
    """Train two-layer ReLU nets by gradient flow from a = 0, and their random feature models in closed form.

    Parameters
    ----------
    x, y : (n, d), (n,)
    m_list : sequence of int
    x_test : (n_test, d)
    rng : numpy.random.Generator
    horizon : float
        Last value of m t.
    points : int
        Times, at constant ratios of m t from 1/10, and 0.

    Returns
    -------
    list of Comparison
    """
    scaled = np.concatenate([[0], np.geomspace(0.1, horizon, points)])
    return [_compare(x, y, x_test, scaled / m, rng.standard_normal((m, x.shape[1]))) for m in m_list]


def _compare(x, y, x_test, t, w0):
    w0 = w0 / np.linalg.norm(w0, axis=1, keepdims=True)
    phi, phi_test = np.maximum(x @ w0.T, 0), np.maximum(x_test @ w0.T, 0)
    frozen = LinearizedPredictor(phi @ phi.T, y)
    a, w = _gradient_flow(x, y, w0, t, frozen.values[-1] / len(x))
    net = np.array([np.maximum(x_test @ wk.T, 0) @ ak for ak, wk in zip(a, w)])
    residual = np.array([np.maximum(x @ wk.T, 0) @ ak for ak, wk in zip(a, w)]) - y
    return Comparison(
        len(w0),
        t,
        0.5 * np.mean(residual**2, axis=1),
        0.5 * np.mean((frozen(t) - y) ** 2, axis=1),
        np.abs(net - frozen(t, phi_test @ phi.T)).max(axis=1),
        np.sqrt(np.mean(np.sum((w - w0) ** 2, axis=2), axis=1)),
        a,
        w,
    )


def _gradient_flow(x, y, w0, t, fastest):
    """a (k, m) and w (k, m, d) at times t from a = 0, w = w0, by Runge-Kutta steps of fourth order.

    Steps grow with t, as the fast modes die, up to the limit of stability (2.8) over the fastest rate: adaptive
    steps would stop at every kink of the relu.
    """

    def velocity(theta):
        _, ga, gw = gradients(x, y, theta[:, 0], theta[:, 1:], 1.0)
        return -np.column_stack([ga, gw])

    theta = np.column_stack([np.zeros(len(w0)), w0])
    path = [theta]
    for t0, t1 in pairwise(t):
        parts = math.ceil((t1 - t0) * fastest / min(1.5, 0.01 + t0 * fastest / 20))
        h = (t1 - t0) / parts
        for _ in range(parts):
            k1 = velocity(theta)
            k2 = velocity(theta + h / 2 * k1)
            k3 = velocity(theta + h / 2 * k2)
            k4 = velocity(theta + h * k3)
            theta = theta + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(theta)
    path = np.array(path)
    return path[:, :, 0], path[:, :, 1:]


def timescale_ratio(t, a, w):
    """rms_j |dw_j/dt| / rms_j |da_j/dt| (k - 1,) between the times t (k,) of a path a (k, m), w (k, m, d).

    Of order a_j ~ 1/m: dw_j/dt = a_j (...), and at one value of m t the brackets do not depend on m.
    """
    rates = [np.diff(p, axis=0).reshape(len(t) - 1, -1) / np.diff(t)[:, None] for p in (a, w)]
    da, dw = (np.sqrt(np.sum(rate**2, axis=1)) for rate in rates)
    return dw / da
