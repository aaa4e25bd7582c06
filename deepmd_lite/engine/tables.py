"""Embedding nets as piecewise cubics, made in milliseconds when a model is loaded.

An embedding net is a function of one number, x = (s - davg)/dstd: M outputs G(x). On knots x_k = start + k h the
net gives G and dG/dx (`network.jvp`), and on each interval, with u = (x - x_k)/h in [0, 1], Hermite's cubic takes
both values and both slopes::

    G(x) ≈ c₀ + u (c₁ + u (c₂ + u c₃)),    |error| <= h⁴/384 max|G''''|,    dG/dx: h³/125 max|G''''|.

h is halved until the error, *measured* against the net where that of a cubic is largest (u = 1/2 for G,
u = 1/2 ± √3/6 for its slope), meets the tolerance in every interval. Forces are the exact derivative of the
energy of the cubics, so they conserve energy whatever the tolerance.

What a table cannot give is left to the net itself: pairs closer than `NEAREST`, and intervals that still miss
the tolerance at `MOST` intervals (kinks of relu). They are marked, and never extrapolated or smoothed over.

Uniform knots in s, unlike in r, put most pairs, which are far from each other, into few intervals: those
stay in the cache.
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite.engine.network import jvp

NEAREST = 0.75  # times the closest pair of the training data: where tables end
CLOSEST = 0.9  # Å, in place of that distance where a model does not know it
FEWEST, MOST = 64, 4096  # intervals
CHECKS = (0.5, 0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6)  # u


class Tables(NamedTuple):
    """Tables of several nets, one behind the other."""

    coefficients: np.ndarray  # (nintervals, 4, M): c₀ ... c₃
    exact: np.ndarray  # (nintervals,) bool: left to the net
    first: np.ndarray  # (nnets + 1,) int64: the intervals of each net
    start: np.ndarray  # (nnets,) float64: x of the first knot
    inverse: np.ndarray  # (nnets,) float64: 1/h


class TableError(NamedTuple):
    """Largest measured error over all tables and outputs, of G and of dG/dx (both without unit)."""

    value: float
    slope: float


def tabulate(nets, ranges, tolerance, dtype):
    """Tables of embedding nets.

    Parameters
    ----------
    nets : network.Networks
        float64.
    ranges : (nnets, 2) array
        Smallest and largest x. A net with an empty range (nan) gets no table.
    tolerance : TableError
        Largest errors allowed.
    dtype : numpy.dtype
        Of the coefficients.

    Returns
    -------
    Tables
    TableError
        As measured in float64, outside the intervals marked exact.
    """
    width = nets.layers[:, -1, 1].max()
    coefficients, exact, counts, inverse = [np.zeros((0, 4, width))], [np.zeros(0, bool)], [], []
    worst = TableError(0.0, 0.0)
    for layers, (low, high) in zip(nets.layers, ranges):
        if np.isnan(low):
            counts.append(0)
            inverse.append(0.0)
            continue
        n = FEWEST
        while True:
            c, value, slope = _cubics(layers, nets.weights, np.linspace(low, high, n + 1))
            missed = (value > tolerance.value) | (slope > tolerance.slope)
            if not missed.any() or n >= MOST:
                break
            n *= 2
        coefficients.append(c)
        exact.append(missed)
        counts.append(n)
        inverse.append(n / (high - low))
        if not missed.all():
            worst = TableError(max(worst.value, value[~missed].max()), max(worst.slope, slope[~missed].max()))
    tables = Tables(
        np.concatenate(coefficients).astype(dtype),
        np.concatenate(exact),
        np.cumsum([0, *counts]),
        np.where(np.isnan(ranges[:, 0]), 0.0, ranges[:, 0]),
        np.array(inverse),
    )
    return tables, worst


def _cubics(layers, weights, knots):
    """Coefficients (n, 4, M) of one net on its knots (n + 1,), and the errors of each interval: two (n,)."""
    h = knots[1] - knots[0]
    g, dg = jvp(knots, layers, weights)
    dg = h * dg
    rise = g[1:] - g[:-1]
    c = np.stack((g[:-1], dg[:-1], 3 * rise - 2 * dg[:-1] - dg[1:], dg[:-1] + dg[1:] - 2 * rise), axis=1)
    value, slope = np.zeros(len(rise)), np.zeros(len(rise))
    for u in CHECKS:
        g, dg = jvp(knots[:-1] + u * h, layers, weights)
        cubic = c[:, 0] + u * (c[:, 1] + u * (c[:, 2] + u * c[:, 3]))
        tangent = (c[:, 1] + u * (2 * c[:, 2] + u * 3 * c[:, 3])) / h
        value = np.maximum(value, np.abs(cubic - g).max(axis=1))
        slope = np.maximum(slope, np.abs(tangent - dg).max(axis=1))
    return c, value, slope
