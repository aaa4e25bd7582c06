"""Networks for kernels: weights in one flat array, layers in a table of integers.

A layer is ``y = idt * act(x w + b) [+ x | + (x, x)]``, as in model/network.py. Forward and backward passes work
on blocks of rows, so that each layer is one matrix product of BLAS; what lies between is written here, with a
tanh that the compiler turns into vector instructions.

Rows of a table of layers, int64::

    nin, nout, w, b, idt, copies, activation, parameter

where w, b, idt and parameter are places in the flat array (-1: there is none), and copies (0, 1, 2) of x are added.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from deepmd_lite.jit import jit

NONE, TANH, RELU, RELU6, SIGMOID, SOFTPLUS, SILU, GELU, SILUT = range(9)
CODES = {
    "none": NONE,
    "linear": NONE,
    "tanh": TANH,
    "relu": RELU,
    "relu6": RELU6,
    "sigmoid": SIGMOID,
    "softplus": SOFTPLUS,
    "silu": SILU,
    "gelu": GELU,
    "gelu_tf": GELU,
    "silut": SILUT,
}


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
            parameter = put(_silut_constants(float(argument or 3.0))) if kind == "silut" else -1
            row[:] = nin, nout, put(layer.w), put(layer.b), put(layer.idt), copies, CODES[kind], parameter
    return Networks(np.concatenate(parts) if parts else np.zeros(0, dtype), table)


def _silut_constants(threshold):
    """T, silu(T), silu'(T)."""
    s = 1 / (1 + np.exp(-threshold))
    return np.array([threshold, threshold * s, s * (1 + threshold * (1 - s))])


# ---- activations: (value, slope) ----------------------------------------------------------------------------


@intrinsic
def _bits(context, x):
    """The bits of a float as an integer of the same width, or the other way round."""
    pairs = {types.float64: types.int64, types.float32: types.int32}
    pairs |= {i: f for f, i in pairs.items()}
    if x not in pairs:
        return None
    target = pairs[x]

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(target))

    return target(x), codegen


@register_jitable
def _exp64(x):
    """exp(x) for -700 < x <= 0: 2^n e^r, |r| <= ln 2 / 2, e^r by its Taylor series, 2^n by its bits.

    Adding 1.5·2⁵² rounds to an integer, which the low bits of the sum then hold; they are shifted to the place
    of an exponent. Relative error 3e-16.
    """
    shifted = x * 1.4426950408889634 + 6755399441056767.0  # 1.5 * 2^52 + 1023
    n = shifted - 6755399441056767.0
    r = x - n * 0.6931471803691238
    r = r - n * 1.9082149292705877e-10
    p = 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _bits(np.int64(_bits(shifted) << 52))


@register_jitable
def _exp32(x):
    """The same for -87 < x <= 0 in float32; relative error 1.2e-7."""
    shifted = x * np.float32(1.4426950408889634) + np.float32(12583039.0)  # 1.5 * 2^23 + 127
    n = shifted - np.float32(12583039.0)
    r = x - n * np.float32(0.693359375)
    r = r + n * np.float32(2.12194440e-4)
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    return p * _bits(np.int32(_bits(shifted) << 23))


def tanh(x):
    """(tanh x, its slope): t = (1 - e) / (1 + e), e = exp(-2|x|), in the precision of x."""


@overload(tanh)
def _tanh(x):
    if x == types.float32:

        def tanh32(x):
            e = _exp32(np.float32(-2.0) * min(abs(x), np.float32(40.0)))
            t = (np.float32(1.0) - e) / (np.float32(1.0) + e)
            return math.copysign(t, x), np.float32(1.0) - t * t

        return tanh32

    def tanh64(x):
        e = _exp64(-2.0 * min(abs(x), 300.0))
        t = (1.0 - e) / (1.0 + e)
        return math.copysign(t, x), 1.0 - t * t

    return tanh64


@numba.njit
def _sigmoid(x):
    t, slope = tanh(x / 2)
    return (1 + t) / 2, slope / 4


@numba.njit
def _silu(x):
    s, slope = _sigmoid(x)
    return x * s, s + x * slope


@numba.njit
def _gelu(x):
    """The tanh approximation (Hendrycks & Gimpel, 2016)."""
    t, slope = tanh(0.7978845608028654 * (x + 0.044715 * x**3))
    return x * (1 + t) / 2, (1 + t) / 2 + x * slope * 0.7978845608028654 * (1 + 0.134145 * x**2) / 2


@numba.njit
def _silut(x, threshold, value, steepness):
    """silu below the threshold, tanh(silu'(T) (x - T)) + silu(T) from there on."""
    if x < threshold:
        return _silu(x)
    t, slope = tanh(steepness * (x - threshold))
    return t + value, slope * steepness


@numba.njit(error_model="numpy", fastmath={"contract"})  # a division that may raise is not vectorized
def activate(code, z, slope, parameters):
    """z becomes act(z), ``slope`` act'(z): flat arrays of one length."""
    if code == TANH:
        for k in range(len(z)):
            z[k], slope[k] = tanh(z[k])
    elif code == RELU:
        for k in range(len(z)):
            z[k], slope[k] = max(z[k], 0), z[k] > 0
    elif code == RELU6:
        for k in range(len(z)):
            z[k], slope[k] = min(max(z[k], 0), 6), 0 < z[k] < 6
    elif code == SIGMOID:
        for k in range(len(z)):
            z[k], slope[k] = _sigmoid(z[k])
    elif code == SOFTPLUS:
        for k in range(len(z)):
            z[k], slope[k] = max(z[k], 0) + math.log1p(math.exp(-abs(z[k]))), _sigmoid(z[k])[0]
    elif code == SILU:
        for k in range(len(z)):
            z[k], slope[k] = _silu(z[k])
    elif code == GELU:
        for k in range(len(z)):
            z[k], slope[k] = _gelu(z[k])
    elif code == SILUT:
        threshold, value, steepness = parameters
        for k in range(len(z)):
            z[k], slope[k] = _silut(z[k], threshold, value, steepness)
    else:
        slope[:] = 1


# ---- layers ---------------------------------------------------------------------------------------------------


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
def energy_and_gradient(x, layers, weights, energy, slopes, values):
    """A fitting net of rows x (n, nin): fills ``energy`` (n,) and puts dE/dx into x.

    ``slopes`` and ``values`` are a `workspace`.
    """
    n, nlayers = len(x), len(layers)
    place = np.zeros(nlayers + 1, np.int64)  # of the slopes of each layer
    place[1:] = n * np.cumsum(layers[:, 1])
    value = x
    for k in range(nlayers):
        nout = layers[k, 1]
        y = values[k % 2, : n * nout].reshape(n, nout)
        _layer(value, layers[k], weights, y, slopes[place[k] : place[k + 1]].reshape(n, nout))
        _add_residual(value, layers[k, 5], y)
        value = y
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
