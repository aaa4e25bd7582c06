"""Interpolation: piecewise linear on a mesh of [0, 1]^d, and by one polynomial on [-1, 1].

The mesh: [0, 1]^d in N^d cubes, each cut into the d! simplices of Kuhn, one for every order of the local
coordinates t: on 1 ≥ t_1 ≥ t_2 ≥ ... ≥ t_d ≥ 0, with the cube's corner v and unit vectors e_i,

    f_N(x) = (1 - t_1) f(v) + (t_1 - t_2) f(v + e_1) + ... + t_d f(v + e_1 + ... + e_d)

whose error ~ N^-2 = m^(-2/d) in m = N^d cubes: the curse of dimensionality.

The polynomial of degree n through n + 1 points, f_n: in equispaced points it diverges as n grows if f has a
singularity near the interval (Runge), in Chebyshev's it converges. Outside the points either is worthless.

References
----------
Kuhn, IBM J. Res. Dev. 4, 518 (1960).
Berrut and Trefethen, SIAM Rev. 46, 501 (2004): barycentric formula and weights.
"""

import numpy as np
import scipy.special

from deepmd_lite.errors import ConfigError, DataError


class KuhnInterpolant:
    """The continuous, piecewise linear interpolant of f on Kuhn's triangulation, never stored.

    A value takes d + 1 evaluations of f, in any dimension; a table would take (N+1)^d.

    Parameters
    ----------
    f : function of points (k, d)
        Returns (k,).
    n_cells : int
        N, cubes on an axis.
    d : int
    """

    def __init__(self, f, n_cells, d):
        if n_cells < 1 or d < 1:
            raise ConfigError(f"mesh: expected n_cells >= 1 and d >= 1, found {n_cells} and {d}")
        self.f, self.n_cells, self.d = f, n_cells, d

    @property
    def nodes(self):
        """(N+1)^d, an exact integer: the values that a table of the interpolant would hold."""
        return (self.n_cells + 1) ** self.d

    def cells_for(self, ratio):
        """How many times the cubes an error ``ratio`` times smaller takes: ratio^(d/2)."""
        return float(ratio) ** (self.d / 2)

    def __call__(self, x):
        """f_N (k,) at points x (k, d) of the unit cube; DataError elsewhere."""
        x = np.asarray(x, float)
        if x.ndim != 2 or x.shape[1] != self.d or not ((x >= 0) & (x <= 1)).all():
            raise DataError(f"mesh: expected points (k, {self.d}) in [0, 1]^{self.d}, found shape {x.shape}")
        vertex = np.minimum(np.floor(x * self.n_cells), self.n_cells - 1)
        local = x * self.n_cells - vertex
        order = np.argsort(-local, axis=1)
        t = np.take_along_axis(local, order, axis=1)
        weight = -np.diff(t, axis=1, prepend=1, append=0)  # (k, d+1): barycentric coordinates
        point = np.arange(len(x))
        value = weight[:, 0] * self.f(vertex / self.n_cells)
        for i in range(self.d):
            vertex[point, order[:, i]] += 1
            value += weight[:, i + 1] * self.f(vertex / self.n_cells)
        return value


class PolynomialInterpolant:
    """The polynomial of degree n that meets f in n + 1 points of [-1, 1].

        f_n(x) = Σ_j w_j f(x_j)/(x - x_j) / Σ_j w_j/(x - x_j)

    Parameters
    ----------
    f : function of points (k,)
        Returns (k,).
    n : int
        Degree.
    nodes : "equispaced" or "chebyshev"
        x_j = -1 + 2j/n with w_j = (-1)^j binom(n, j), or the roots cos((2j+1)π/(2n+2)) of T_{n+1} with
        w_j = (-1)^j sin((2j+1)π/(2n+2)).

    Attributes
    ----------
    nodes, weights, values : (n+1,)
        x_j, w_j, f(x_j).
    """

    def __init__(self, f, n, nodes="chebyshev"):
        if n < 1 or nodes not in ("equispaced", "chebyshev"):
            raise ConfigError(
                f"polynomial: expected n >= 1 and equispaced or chebyshev nodes, found n = {n}, {nodes!r}"
            )
        j = np.arange(n + 1)
        angle = (2 * j + 1) * np.pi / (2 * n + 2)
        even = nodes == "equispaced"
        self.nodes = -1 + 2 * j / n if even else np.cos(angle)
        self.weights = (-1.0) ** j * (scipy.special.binom(n, j) if even else np.sin(angle))
        self.values = np.asarray(f(self.nodes), float)
        if not np.isfinite(self.values).all():
            raise DataError("polynomial: expected finite values of f at the nodes, found NaN or infinity")

    def __call__(self, x):
        """f_n (k,) at points x (k,), in [-1, 1] or not."""
        x = np.asarray(x, float)
        apart = x[:, None] - self.nodes
        hit = apart == 0
        terms = self.weights / np.where(hit, 1, apart)  # (k, n+1)
        value = terms @ self.values / terms.sum(axis=1)
        return np.where(hit.any(axis=1), self.values[hit.argmax(axis=1)], value)
