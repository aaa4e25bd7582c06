"""Networks for kernels: weights in one flat array, layers in a table of integers.

A layer is ``y = idt * act(x w + b) [+ x | + (x, x)]``, as in model/network.py. Forward and backward passes work
on blocks of rows, so that each layer is one matrix product of BLAS; what lies between is loops.

Rows of a table of layers, int64::

    nin, nout, w, b, idt, copies, activation, parameter

where w, b, idt and parameter are places in the flat array (-1: there is none), and copies (0, 1, 2) of x are added.
"""

from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.activations import CODES, activate, silut_constants
from deepmd_lite.jit import jit


class Networks(NamedTuple):
    """Networks of equal shape."""

    weights: np.ndarray  # (n,) float64 or float32
    layers: np.ndarray  # (nnets, nlayers, 8) int64


def flatten(nets, dtype=np.float64):
    """`Networks` from lists of `model_file.Layer`; None stands for a net that is never asked: rows of zeros."""
    parts, size = [], 0

    def put(values):
        nonlocal size
        if values is None:
            return -1
        place, values = size, np.ravel(values).astype(dtype)
        parts.append(values)
        size += len(values)
        return place

    depth = max((len(net) for net in nets if net), default=0)
    table = np.zeros((len(nets), depth, 8), np.int64)
    for net, rows in zip(nets, table):
        for layer, row in zip(net or [], rows):
            nin, nout = layer.w.shape
            kind, _, argument = layer.activation.lower().partition(":")
            copies = nout // nin if layer.resnet and nout in (nin, 2 * nin) else 0
            parameter = put(silut_constants(float(argument or 3.0))) if kind == "silut" else -1
            row[:] = nin, nout, put(layer.w), put(layer.b), put(layer.idt), copies, CODES[kind], parameter
    return Networks(np.concatenate(parts) if parts else np.zeros(0, dtype), table)


@numba.njit
def _matrix(weights, place, nin, nout):
    return weights[place : place + nin * nout].reshape(nin, nout)


@numba.njit
def _layer(x, layer, weights, y, slope):
    """One layer of rows x (n, nin): fills y (n, nout), without the residual, and ``slope`` = dy/dz."""
    nin, nout, w, b, idt, _, code, parameter = layer
    np.dot(x, _matrix(weights, w, nin, nout), y)
    if b >= 0:
        bias = weights[b : b + nout]
        for k in range(len(y)):
            for c in range(nout):
                y[k, c] += bias[c]
    activate(code, y.ravel(), slope.ravel(), weights[parameter : parameter + 3])
    if idt >= 0:
        step = weights[idt : idt + nout]
        for k in range(len(y)):
            for c in range(nout):
                y[k, c] *= step[c]
                slope[k, c] *= step[c]


@numba.njit
def _add_residual(x, copies, y):
    """Add x (n, nin) to y (n, nout) as often as it fits: 0, 1 or 2 times."""
    n, nin = x.shape
    for k in range(n):
        for copy in range(copies):
            for c in range(nin):
                y[k, copy * nin + c] += x[k, c]


@jit()
def jvp(x, layers, weights):
    """An embedding net at x (n,) and its derivative: G and dG/dx, two (n, M); float64."""
    x = x.reshape(-1, 1)
    dx = np.ones_like(x)
    for layer in layers:
        nout = layer[1]
        y, dy, slope = np.empty((len(x), nout)), np.empty((len(x), nout)), np.empty((len(x), nout))
        _layer(x, layer, weights, y, slope)
        np.dot(dx, _matrix(weights, layer[2], layer[0], nout), dy)
        dy *= slope
        _add_residual(x, layer[5], y)
        _add_residual(dx, layer[5], dy)
        x, dx = y, dy
    return x, dx


@numba.njit
def workspace(layers, n, dtype):
    """What `energy_and_gradient` works with for up to n rows: the slopes of all layers, and two layers' values."""
    return np.empty(n * layers[:, 1].sum(), dtype), np.empty((2, n * layers[:, :2].max()), dtype)


@numba.njit
def forward(x, layers, weights, slopes, values):
    """The last layer's output for rows x (n, nin), and where in ``slopes`` those of each layer begin.

    ``slopes`` and ``values`` are a `workspace`.
    """
    n, nlayers = len(x), len(layers)
    place = np.zeros(nlayers + 1, np.int64)
    place[1:] = n * np.cumsum(layers[:, 1])
    value = x
    for k in range(nlayers):
        nout = layers[k, 1]
        y = values[k % 2, : n * nout].reshape(n, nout)
        _layer(value, layers[k], weights, y, slopes[place[k] : place[k + 1]].reshape(n, nout))
        _add_residual(value, layers[k, 5], y)
        value = y
    return value, place


@numba.njit
def energy_and_gradient(x, layers, weights, energy, slopes, values):
    """A fitting net of rows x (n, nin): fills ``energy`` (n,) and puts dE/dx into x.

    ``slopes`` and ``values`` are a `workspace`.
    """
    n, nlayers = len(x), len(layers)
    value, place = forward(x, layers, weights, slopes, values)
    energy[:] = value[:, 0]
    gradient = value
    gradient[:] = 1
    for k in range(nlayers - 1, -1, -1):
        nin, nout, copies = layers[k, 0], layers[k, 1], layers[k, 5]
        dz = slopes[place[k] : place[k + 1]].reshape(n, nout)
        dz *= gradient
        dx = x if k == 0 else values[(k + 1) % 2, : n * nin].reshape(n, nin)
        np.dot(dz, _matrix(weights, layers[k, 2], nin, nout).T, dx)
        for copy in range(copies):
            dx += gradient[:, copy * nin : (copy + 1) * nin]
        gradient = dx
