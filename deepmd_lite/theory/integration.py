"""Integrals by grids, and by averages over random points.

    grid         ∫_[0,1]^d f dx ≈ Σ_j c_j f(x_j)               error ~ m^(-α/d) with m = n^d nodes
    Monte Carlo  E_π f ≈ f_m = (1/m) Σ_j f(x_j),  x_j ~ π      E (f_m - E_π f)² = var(f)/m

α is 2 for the midpoint rule and 4 for Simpson's if f is smooth. On a grid, a tenth of the error costs
10^(d/α) times the nodes: the curse of dimensionality. The average knows no d, and wins beyond d = 2α.

References
----------
Weinan E, A mathematical perspective on machine learning, Proc. ICM 2022.
Hoeffding, J. Amer. Statist. Assoc. 58, 13 (1963).
"""

import math
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DataError

NODE_LIMIT = 10_000_000
BLOCK = 16_384  # nodes at a time


class Estimate(NamedTuple):
    """A mean over n random samples and its standard error."""

    value: float
    se: float
    n: int


def rule_on_axis(n, rule="midpoint"):
    """Nodes (n,) and weights (n,) on [0, 1] of ``rule``, "midpoint" or "simpson" (n odd, the ends among them)."""
    if rule == "midpoint" and n >= 1:
        return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)
    if rule == "simpson" and n >= 3 and n % 2:
        weights = np.full(n, 2.0)
        weights[1::2] = 4
        weights[[0, -1]] = 1
        return np.linspace(0, 1, n), weights / (3 * (n - 1))
    raise ConfigError(
        f"quadrature: expected midpoint with n >= 1 nodes on an axis, or simpson with odd n >= 3; "
        f"found {rule!r} with n = {n}"
    )


def grid_quadrature(f, d, n, rule="midpoint"):
    """∫ f over [0, 1]^d by a product rule with n nodes on each axis.

    Parameters
    ----------
    f : function of points (k, d)
        Returns (k,), or (k, ...) to integrate several functions at once.
    d, n : int
    rule : "midpoint" or "simpson"

    Returns
    -------
    float or ndarray

    Raises
    ------
    ConfigError
        If the grid has more than `NODE_LIMIT` nodes, or the rule does not exist.
    """
    x, c = rule_on_axis(n, rule)
    if d < 1:
        raise ConfigError(f"quadrature: expected a dimension d >= 1, found {d}")
    if n**d > NODE_LIMIT:
        raise ConfigError(
            f"quadrature: {n} nodes on each of {d} axes are n^d = 10^{d * math.log10(n):.1f} nodes, more than "
            f"{NODE_LIMIT:,}; use monte_carlo, or product_quadrature if f is a product"
        )
    total = 0.0
    for start in range(0, n**d, BLOCK):
        node = np.arange(start, min(start + BLOCK, n**d))
        index = node[:, None] // n ** np.arange(d) % n  # (k, d): the digits of the node's number in base n
        total = total + c[index].prod(axis=1) @ f(x[index])
    return total


def product_quadrature(factors, n, rule="midpoint"):
    """What `grid_quadrature` gives for f(x) = Π_i g_i(x_i), for any d: the product of d sums of n terms.

    Parameters
    ----------
    factors : sequence of d functions
        g_i of nodes (n,).
    """
    x, c = rule_on_axis(n, rule)
    return math.prod(float(c @ g(x)) for g in factors)


def monte_carlo(f, sampler, m, rng):
    """E f(x) by the mean over m independent samples.

    Parameters
    ----------
    f : function of points (m, d)
        Returns (m,).
    sampler : function of (m, rng)
        Draws points (m, d).
    m : int
        At least 2.
    rng : numpy.random.Generator

    Returns
    -------
    Estimate

    Raises
    ------
    DataError
        If f is not finite at a sample.
    """
    if m < 2:
        raise ConfigError(f"Monte Carlo: expected m >= 2 samples, found {m}")
    values = f(sampler(m, rng))
    if not np.isfinite(values).all():
        raise DataError("Monte Carlo: expected finite values of f, found NaN or infinity")
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(m), m)


def hoeffding_bound(n, t, a, b, tight=True):
    """A bound on P(|mean of n - expectation| ≥ t) for independent variables in [a, b].

    Parameters
    ----------
    n : int
    t : float or array
    a, b : float
    tight : bool
        Hoeffding's 2 exp(-2 n t²/(b - a)²), or the lecture's 2 exp(-n t²/(b - a)²): true, but weaker.
    """
    if n < 1 or not a < b or np.any(np.asarray(t) < 0):
        raise ConfigError(f"Hoeffding: expected n >= 1, t >= 0 and a < b, found n = {n}, t = {t}, [{a}, {b}]")
    return 2 * np.exp(-(2 if tight else 1) * n * np.square(t) / (b - a) ** 2)
