"""Activation functions for kernels: σ(x), σ'(x) and σ''(x), in the precision of x.

They are those of model/network.py, with an exponential and a tanh that the compiler turns into vector instructions.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload, register_jitable

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


def silut_constants(threshold):
    """T, silu(T), silu'(T): what ``silut:T`` is made of."""
    s = 1 / (1 + np.exp(-threshold))
    return np.array([threshold, threshold * s, s * (1 + threshold * (1 - s))])


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
def _tanh3(x):
    t, slope = tanh(x)
    return t, slope, -2 * t * slope


@numba.njit
def _sigmoid(x):
    t, slope = tanh(x / 2)
    return (1 + t) / 2, slope / 4, -t * slope / 4


@numba.njit
def _softplus(x):
    s, slope, _ = _sigmoid(x)
    return max(x, 0) + math.log1p(math.exp(-abs(x))), s, slope


@numba.njit
def _silu(x):
    s, slope, curvature = _sigmoid(x)
    return x * s, s + x * slope, 2 * slope + x * curvature


@numba.njit
def _gelu(x):
    """The tanh approximation (Hendrycks & Gimpel, 2016), x (1 + tanh h) / 2."""
    t, slope = tanh(0.7978845608028654 * (x + 0.044715 * x**3))
    dh, ddh = 0.7978845608028654 * (1 + 0.134145 * x**2), 0.7978845608028654 * 0.26829 * x
    dt, ddt = slope * dh, slope * (ddh - 2 * t * dh * dh)
    return x * (1 + t) / 2, (1 + t + x * dt) / 2, dt + x * ddt / 2


@numba.njit
def _silut(x, threshold, value, steepness):
    """silu below the threshold, tanh(silu'(T) (x - T)) + silu(T) from there on."""
    if x < threshold:
        return _silu(x)
    t, slope = tanh(steepness * (x - threshold))
    return t + value, slope * steepness, -2 * t * slope * steepness**2


@numba.njit(error_model="numpy", fastmath={"contract"})  # a division that may raise is not vectorized
def activate(code, z, slope, parameters):
    """z becomes σ(z), ``slope`` σ'(z): flat arrays of one length; ``parameters`` as from `silut_constants`."""
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
            z[k], slope[k], _ = _sigmoid(z[k])
    elif code == SOFTPLUS:
        for k in range(len(z)):
            z[k], slope[k], _ = _softplus(z[k])
    elif code == SILU:
        for k in range(len(z)):
            z[k], slope[k], _ = _silu(z[k])
    elif code == GELU:
        for k in range(len(z)):
            z[k], slope[k], _ = _gelu(z[k])
    elif code == SILUT:
        threshold, value, steepness = parameters
        for k in range(len(z)):
            z[k], slope[k], _ = _silut(z[k], threshold, value, steepness)
    else:
        slope[:] = 1


@numba.njit(error_model="numpy", fastmath={"contract"})
def activate_twice(code, z, slope, curvature, parameters):
    """The same, with σ''(z) in ``curvature``."""
    if code == TANH:
        for k in range(len(z)):
            z[k], slope[k], curvature[k] = _tanh3(z[k])
    elif code == SIGMOID:
        for k in range(len(z)):
            z[k], slope[k], curvature[k] = _sigmoid(z[k])
    elif code == SOFTPLUS:
        for k in range(len(z)):
            z[k], slope[k], curvature[k] = _softplus(z[k])
    elif code == SILU:
        for k in range(len(z)):
            z[k], slope[k], curvature[k] = _silu(z[k])
    elif code == GELU:
        for k in range(len(z)):
            z[k], slope[k], curvature[k] = _gelu(z[k])
    elif code == SILUT:
        threshold, value, steepness = parameters
        for k in range(len(z)):
            z[k], slope[k], curvature[k] = _silut(z[k], threshold, value, steepness)
    else:
        activate(code, z, slope, parameters)
        curvature[:] = 0
