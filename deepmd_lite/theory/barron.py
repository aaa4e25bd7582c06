"""Barron space: functions that are expectations over neurons,

    f(x) = E a σ(w·x + b),    ‖f‖_B = inf E |a| (|w|_1 + |b|)       (|x|_∞ ≤ 1, σ = relu)

so that m neurons drawn from the representation approximate f with an error m^{-1/2} whose constant knows the
norm, not the dimension. Two functions with an exact representation are here; `spectral` makes one from a Fourier
transform, and `radial` shows a function that has none.

References
----------
Barron, IEEE Trans. Inf. Theory 39, 930 (1993); E, Ma and Wu, Constr. Approx. 55, 369 (2022).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from deepmd_lite.errors import ConfigError


@dataclass(frozen=True)
class BarronNetwork:
    """f_m(x) = offset + (1/m) Σ_j a_j relu(w_j·x + b_j).

    Attributes
    ----------
    a, b : (m,)
    w : (m, d)
    offset : float
    """

    a: np.ndarray
    w: np.ndarray
    b: np.ndarray
    offset: float = 0.0

    def __call__(self, x):
        """f_m (n,) of points x (n, d)."""
        return self.offset + np.maximum(x @ self.w.T + self.b, 0) @ self.a / len(self.a)

    def layers(self):
        """[(W (nin, nout), b (nout,) or None)], for `path_norm`; the offset is not in it."""
        return [(self.w.T, self.b), (self.a[:, None] / len(self.a), None)]


class EuclideanNorm:
    """f(x) = |x| = (2 / E|w_1|) E relu(w·x) with w uniform on the unit sphere.

    Attributes
    ----------
    mass : float
        E |a| |w|_1 = 2d of the representation.
    mass_l2 : float
        E |a| |w|_2 = 2 / E|w_1|, about sqrt(2πd).
    """

    def __init__(self, d):
        _positive(d)
        self.d = d
        self.mass = 2.0 * d
        self.mass_l2 = 2 / mean_abs_coordinate(d)

    def __call__(self, x):
        """f (n,) of points x (n, d)."""
        return np.linalg.norm(x, axis=1)

    def variance(self, x):
        """m E (f_m - f)² (n,) for networks drawn by `sample_barron_network`: |x|² (2 / (d E|w_1|²) - 1)."""
        return (self.mass_l2**2 / (2 * self.d) - 1) * np.sum(x**2, axis=1)

    def sample_barron_network(self, m, rng):
        """m neurons of the representation: `BarronNetwork`."""
        w = rng.standard_normal((m, self.d))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        return BarronNetwork(np.full(m, self.mass_l2), w, np.zeros(m))


class CoordinateDistance:
    """f(x) = Σ_i |x_i - c| = Σ_i relu(x_i - c) + relu(c - x_i).

    Attributes
    ----------
    mass : float
        E |a| (|w|_1 + |b|) = 2d (1 + |c|).
    """

    def __init__(self, d, center=0.5):
        _positive(d)
        self.d, self.center = d, center
        self.mass = 2.0 * d * (1 + abs(center))

    def __call__(self, x):
        """f (n,) of points x (n, d)."""
        return np.abs(x - self.center).sum(axis=1)

    def variance(self, x):
        """m E (f_m - f)² (n,) for networks drawn by `sample_barron_network`: 2d Σ_i (x_i - c)² - f²."""
        return 2 * self.d * np.sum((x - self.center) ** 2, axis=1) - self(x) ** 2

    def sample_barron_network(self, m, rng):
        """m neurons, each with a coordinate and a sign of its own: `BarronNetwork`."""
        sign = rng.choice([-1.0, 1.0], m)
        w = np.zeros((m, self.d))
        w[np.arange(m), rng.integers(self.d, size=m)] = sign
        return BarronNetwork(np.full(m, 2.0 * self.d), w, -sign * self.center)


def mean_abs_coordinate(d):
    """E|w_1| for w uniform on the unit sphere of R^d: Γ(d/2) / (√π Γ((d+1)/2))."""
    return float(np.exp(gammaln(d / 2) - gammaln((d + 1) / 2)) / np.sqrt(np.pi))


def _positive(d):
    if d < 1:
        raise ConfigError(f"Barron function: expected a dimension d >= 1, found {d}")
