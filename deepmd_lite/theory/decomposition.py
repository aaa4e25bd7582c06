"""Approximation, estimation and optimization error of a linear hypothesis space.

With f_m the best of the space in L²(P), f_n the minimiser of the empirical risk and f_k what the optimizer has
reached after k steps,

    f* - f_k = (f* - f_m) + (f_m - f_n) + (f_n - f_k)      approximation + estimation + optimization
    |f* - f_k|² = |f* - f_m|² + |f_m - f_n|² + |f_n - f_k|² + 2 ⟨f_m - f_n, f_n - f_k⟩

because the remainder f* - f_m is orthogonal to all of the space.

References
----------
Bottou and Bousquet, The tradeoffs of large scale learning (2007).
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError


def linear_fit(features, ridge=0.0, steps=np.inf):
    """The ``fit`` of f(x) = c·φ(x) for `risk.learn`, with ``features`` a function of x (n, d) that gives φ (n, m)."""

    def fit(x, y):
        c = least_squares(features(x), y, ridge, steps)
        return lambda points: features(points) @ c

    return fit


def least_squares(phi, y, ridge=0.0, steps=np.inf):
    """c (m,) after so many steps of gradient descent from 0 on (1/n)|φ c - y|² + λ|c|², in closed form.

    In the singular basis of φ = U S Vᵀ each coefficient goes its own way. The step is the inverse of the largest
    curvature s² + nλ =: h, so that

        c = V diag[(1 - (1 - h/h_max)^steps) s/h] Uᵀ y

    Parameters
    ----------
    phi : (n, m)
    y : (n,)
    ridge : float
        λ.
    steps : float
        Infinite: ridge regression, and for λ = 0 the least squares solution of the smallest norm.
    """
    u, s, vt = np.linalg.svd(phi, full_matrices=False)
    top = s[0] ** 2 + len(y) * ridge
    known = s > max(phi.shape) * np.finfo(float).eps * s[0]
    u, s, vt = u[:, known], s[known], vt[known]
    h = s**2 + len(y) * ridge
    return vt.T @ ((1 - (1 - h / top) ** steps) * s / h * (u.T @ y))


class ErrorDecomposition(NamedTuple):
    """Squared L²(P) distances; total = approximation + estimation + optimization + cross."""

    approximation: float
    estimation: float
    optimization: float
    cross: float
    total: float


def error_decomposition(problem, features, n, m, steps, rng, population=5000):
    """The three errors of gradient descent on random features, exactly.

    P is the uniform distribution over ``population`` points drawn once, from which the samples come too: all norms
    and projections are finite sums, and the decomposition holds to rounding. ``cross`` is 2 ⟨f_m - f_n, f_n - f_k⟩
    alone and ``total`` is |f* - f_k|² itself, so that their agreement proves f* - f_m orthogonal to the rest.

    Parameters
    ----------
    problem : risk.SupervisedProblem
    features : function of x (n, d)
        φ (n, M), of which the first m count: the spaces of two m are nested.
    n, m, steps : int
        Samples, features and steps of gradient descent from 0 (infinite: none is left to do).
    rng : numpy.random.Generator
    population : int

    Returns
    -------
    ErrorDecomposition
    """
    x = problem.draw(population, rng)
    target, phi = problem.target(x), features(x)
    if not (n >= 1 and 1 <= m <= phi.shape[1] and m < population):
        raise ConfigError(
            f"error decomposition: expected n >= 1, 1 <= m <= {phi.shape[1]} features and a population above m, "
            f"found n = {n}, m = {m}, population = {population}"
        )
    phi = phi[:, :m]
    q = np.linalg.qr(phi)[0]
    rows = rng.integers(population, size=n)
    y = target[rows] + problem.noise * rng.standard_normal(n)
    best = q @ (q.T @ target)
    minimiser = phi @ least_squares(phi[rows], y)
    reached = phi @ least_squares(phi[rows], y, steps=steps)
    parts = target - best, best - minimiser, minimiser - reached
    cross = 2 * np.mean(parts[1] * parts[2])
    total = np.mean((target - reached) ** 2)
    return ErrorDecomposition(*(float(np.mean(part**2)) for part in parts), float(cross), float(total))
