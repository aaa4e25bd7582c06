"""Embedding nets as piecewise cubics, made in milliseconds when a model is loaded.

An embedding net is a function of one number, x = (s - davg)/dstd: M outputs G(x). On knots x_k = start + k h the
net gives G and dG/dx (`network.jvp`), and on each interval, with u = (x - x_k)/h in [0, 1], Hermite's cubic takes
both values and both slopes::

    G(x) ≈ c₀ + u (c₁ + u (c₂ + u c₃)),    |error| <= h⁴/384 max|G''''|,    dG/dx: h³/125 max|G''''|.

The error is *measured* against the net where that of a cubic is largest (u = 1/2 for G, u = 1/2 ± √3/6 for its
slope). An interval that misses the tolerance is cut into halves, quarters ... until all its parts meet it, so that
knots are dense only where a trained net is sharp. Forces are the exact derivative of the energy of the cubics, so
they conserve energy whatever the tolerance.

What a table cannot give is left to the net itself: pairs closer than `NEAREST`, and parts that still miss the
tolerance after `DEEPEST` halvings, or after `DEEP` ones where these are few (kinks of relu, which no cubic follows).
They are marked, and never extrapolated or smoothed over.

Knots in s, unlike in r, put most pairs, which are far from each other, into few intervals: those stay in the cache.
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite.engine.network import jvp

NEAREST = 0.75  # times the closest pair of the training data: where tables end
CLOSEST = 0.9  # Å, in place of that distance where a model does not know it
INTERVALS = 64  # of each net, before they are cut
DEEP, DEEPEST = 9, 12  # halvings of an interval: of one with `FEW` parts that miss the tolerance, of any
FEW = 0.05
CHECKS = (0.5, 0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6)  # u


class Tables(NamedTuple):
    """Tables of several nets, one behind the other: intervals, and the parts they are cut into."""

    coefficients: np.ndarray  # (nparts, 4, M): c₀ ... c₃
    exact: np.ndarray  # (nparts,) bool: left to the net
    begin: np.ndarray  # (nintervals,) int64: the first part of each interval
    parts: np.ndarray  # (nintervals,) int64: 1, 2, 4, ...
    first: np.ndarray  # (nnets + 1,) int64: the first interval of each net
    start: np.ndarray  # (nnets,) float64: x of the first knot
    inverse: np.ndarray  # (nnets,) float64: 1 / length of an interval


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
    blocks, counts, inverse = [], [], np.zeros(len(ranges))  # blocks: (coefficients, exact) of each interval
    worst = TableError(0.0, 0.0)
    for k, (layers, (low, high)) in enumerate(zip(nets.layers, ranges)):
        found = []
        if not np.isnan(low):
            inverse[k] = INTERVALS / (high - low)
            found, error = _refined(layers, nets.weights, low, high, tolerance)
            worst = TableError(*np.maximum(worst, error).tolist())
        blocks += found
        counts.append(len(found))
    parts = np.array([len(exact) for _, exact in blocks], np.int64)
    tables = Tables(
        np.concatenate([np.zeros((0, 4, width)), *(c for c, _ in blocks)]).astype(dtype),
        np.concatenate([np.zeros(0, bool), *(exact for _, exact in blocks)]),
        np.cumsum(parts) - parts,
        parts,
        np.cumsum([0, *counts]),
        np.where(np.isnan(ranges[:, 0]), 0.0, ranges[:, 0]),
        inverse,
    )
    return tables, worst


def _refined(layers, weights, low, high, tolerance):
    """(coefficients, exact) of each interval of one net, cut as far as needed, and the errors outside ``exact``."""
    length = (high - low) / INTERVALS
    found, worst = [None] * INTERVALS, np.zeros(2)
    pending = np.arange(INTERVALS)
    for halvings in range(DEEPEST + 1):
        n = 2**halvings
        edges = low + length * (pending[:, None] + np.arange(n) / n)
        c, *errors = _cubics(layers, weights, edges.ravel(), length / n)
        errors = np.reshape(errors, (2, len(pending), n))
        missed = (errors > np.reshape(tolerance, (2, 1, 1))).any(axis=0)
        done = ~missed.any(axis=1) | (halvings == DEEPEST)
        done |= (halvings >= DEEP) & (missed.mean(axis=1) < FEW)
        for k in np.flatnonzero(done):
            found[pending[k]] = c.reshape(len(pending), n, 4, -1)[k], missed[k]
        worst = np.maximum(worst, errors[:, done][:, ~missed[done]].max(axis=1, initial=0.0))
        pending = pending[~done]
        if len(pending) == 0:
            break
    return found, worst


def _cubics(layers, weights, edges, h):
    """Coefficients (n, 4, M) of one net from edges (n,) to edges + h; errors of G and of dG/dx, (n,) each."""
    (g0, dg0), (g1, dg1) = (jvp(x, layers, weights) for x in (edges, edges + h))
    dg0, dg1, rise = h * dg0, h * dg1, g1 - g0
    c = np.stack((g0, dg0, 3 * rise - 2 * dg0 - dg1, dg0 + dg1 - 2 * rise), axis=1)
    value, slope = np.zeros(len(rise)), np.zeros(len(rise))
    for u in CHECKS:
        g, dg = jvp(edges + u * h, layers, weights)
        cubic = c[:, 0] + u * (c[:, 1] + u * (c[:, 2] + u * c[:, 3]))
        tangent = (c[:, 1] + u * (2 * c[:, 2] + u * 3 * c[:, 3])) / h
        value = np.maximum(value, np.abs(cubic - g).max(axis=1))
        slope = np.maximum(slope, np.abs(tangent - dg).max(axis=1))
    return c, value, slope
