"""Kernels that random features converge to, in closed form.

    k(x, x') = E_w[φ(x; w) φ(x'; w)],    w ~ N(0, I/d) or uniform on the unit sphere

    step        (π - θ) / 2π                                   θ the angle between x and x'
    relu        |x| |x'| (sin θ + (π - θ) cos θ) / 2πd
    cos         exp(-|x - x'|² / 2d) / 2                        w ~ N(0, I/d) and b ~ U(0, 2π)

The step and the relu see w on the sphere as they see N(0, I/d): only its direction counts for the one, and
E|w|² = 1 is all that is left of its length for the other.

References
----------
Cho and Saul, NeurIPS 2009 (arc-cosine kernels); Rahimi and Recht, NeurIPS 2007.
"""

import numpy as np
import scipy.linalg

from deepmd_lite.errors import ConfigError


class ArcCosine:
    """The kernel of step (order 0) or relu (order 1) features without bias."""

    def __init__(self, order=1):
        if order not in (0, 1):
            raise ConfigError(f"arc-cosine kernel: expected order 0 (step) or 1 (relu), found {order}")
        self.order = order

    def __call__(self, x, z=None):
        """k (n, n') of points x (n, d) and z (n', d), by default x again."""
        z = x if z is None else z
        lengths = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(z, axis=1))
        # a point at the origin activates no feature: θ = π makes its kernel zero
        cos = np.divide(x @ z.T, lengths, out=-np.ones_like(lengths), where=lengths > 0).clip(-1, 1)
        theta = np.arccos(cos)
        if self.order == 0:
            return (np.pi - theta) / (2 * np.pi)
        return lengths * (np.sin(theta) + (np.pi - theta) * cos) / (2 * np.pi * x.shape[1])


class RBF:
    """exp(-|x - x'|² / 2 length²); cos features have half of it, with length = √d."""

    def __init__(self, length=1.0):
        if not length > 0:
            raise ConfigError(f"RBF kernel: expected length > 0, found {length}")
        self.length = length

    def __call__(self, x, z=None):
        """k (n, n') of points x (n, d) and z (n', d), by default x again."""
        z = x if z is None else z
        squared = np.sum(x**2, axis=1)[:, None] + np.sum(z**2, axis=1) - 2 * x @ z.T
        return np.exp(-np.maximum(squared, 0) / (2 * self.length**2))


class KernelFunction:
    """f = Σ_i α_i k(z_i, ·): a function of the RKHS of which everything is known.

    f = E_w a(w) φ(·; w) with the density a(w) = Σ_i α_i φ(z_i; w), and ‖f‖² = E a² = αᵀ K α.

    Parameters
    ----------
    alpha : (k,)
    points : (k, d)
        z_i.
    kernel : ArcCosine or RBF
    """

    def __init__(self, alpha, points, kernel):
        self.alpha, self.points, self.kernel = np.asarray(alpha, float), points, kernel
        self.norm = rkhs_norm(self.alpha, kernel(points))

    def __call__(self, x):
        """f (n,) of points x (n, d)."""
        return self.kernel(x, self.points) @ self.alpha

    def density(self, features):
        """a(w_j) (m,) for `RandomFeatures` that have ``kernel`` as their limit."""
        return features(self.points).T @ self.alpha


def rkhs_norm(alpha, k):
    """‖Σ_i α_i k(x_i, ·)‖ = sqrt(αᵀ K α), for α (n,) and K (n, n)."""
    return float(np.sqrt(max(alpha @ k @ alpha, 0)))


def interpolant_norm(k, y):
    """sqrt(yᵀ K⁻¹ y): the smallest norm among functions with the values y (n,) at the points of K (n, n)."""
    return float(np.sqrt(y @ scipy.linalg.solve(k, y, assume_a="pos")))


def feature_kernel(features, x, z=None):
    """k_m(x, x') = (1/m) Σ_j φ(x; w_j) φ(x'; w_j), (n, n'), of `RandomFeatures`."""
    phi = features(x)
    return phi @ (phi if z is None else features(z)).T / phi.shape[1]
